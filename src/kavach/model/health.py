"""How a sandbox is doing: one answer to "does it work", and the counts of what it did.

Enforces: unknown is None, never 0. Does not: measure (the wall's backend and `kavach.sandbox` do).
May be used by: everybody.
"""

from __future__ import annotations

from kavach.model.result import Usage
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
