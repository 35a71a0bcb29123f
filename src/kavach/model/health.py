"""How a sandbox is doing: one answer to "does it work", and the counts of what it did.

Enforces: unknown is None, never 0. Does not: measure (the wall's backend and `kavach.sandbox` do).
May be used by: everybody.
"""

from __future__ import annotations

from kavach.model.result import EndReason, ExecResult, Usage
from kavach.model.validate import Model

__all__ = ["Health", "Metrics"]


class Health(Model, frozen=True, kw_only=True):
    """One answer: whether the wall stands and answers.

    Args:
        ok: whether it does.
        state: the sandbox's state when it was asked.
        checked_utc: when, ISO 8601.
        duration_ms: how long the answer took.
        error: why not, or None.
    """

    ok: bool
    state: str
    checked_utc: str
    duration_ms: float
    error: str | None = None


class Metrics(Model, frozen=True, kw_only=True):
    """What one sandbox has done so far.

    Args:
        uptime_ms: since it stands.
        commands: ended, in any way.
        failures: ended otherwise than by exit code 0.
        timeouts: ended by a deadline.
        withheld: kept back by the gate.
        processes: living now, or None where they cannot be counted.
        usage: of the whole sandbox.
    """

    uptime_ms: float
    commands: int = 0
    failures: int = 0
    timeouts: int = 0
    withheld: int = 0
    processes: int | None = None
    usage: Usage = Usage()


class Tally:
    """Counts what a sandbox has done; not thread-safe, the sandbox counts under its lock."""

    def __init__(self) -> None:
        self.started_s: float | None = None
        self._counts = dict.fromkeys(("commands", "failures", "timeouts", "withheld"), 0)

    def add(self, result: ExecResult) -> None:
        """Count one ended command."""
        self._counts["commands"] += 1
        self._counts["failures"] += not result.ok
        self._counts["timeouts"] += result.timed_out
        self._counts["withheld"] += result.reason is EndReason.WITHHELD

    def metrics(self, now_s: float, *, processes: int | None, usage: Usage) -> Metrics:
        """Return the counts with what was measured at monotonic time `now_s`."""
        uptime = 0.0 if self.started_s is None else (now_s - self.started_s) * 1000
        return Metrics(uptime_ms=uptime, processes=processes, usage=usage, **self._counts)
