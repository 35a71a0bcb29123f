"""What this process has done: sandboxes by state, pool hits and misses, times of the six steps, verdicts, denials.

Guarantees: counting takes about a microsecond, from any thread; a snapshot is one moment's. Does not: measure a sandbox
(`Sandbox.metrics`) or send anything anywhere (`kavach.audit.sinks`). May be called by: kavach.sandbox and kavach.pool,
which count, and everybody, who reads.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from kavach.model.result import Denial, ExecResult

__all__ = [
    "BUCKETS_S",
    "PROCESS",
    "STEPS",
    "Counters",
    "Histogram",
    "ProcessMetrics",
    "StepClock",
    "StepTimes",
    "control_of",
]

STEPS = ("intent", "guard", "wall", "judge", "release", "outcome")
"""The six steps of a command, in their order (kavach.sandbox)."""

BUCKETS_S = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
"""Upper bounds of the histograms, in seconds: a warm command takes about 0.002, a time-out is 30 by default."""


class StepTimes(NamedTuple):
    """When the steps of one command ran.

    Args:
        started_ns: when the first began, nanoseconds since 1970 (UTC).
        rows: each step with its begin and end, nanoseconds after `started_ns`.
    """

    started_ns: int
    rows: tuple[tuple[str, int, int], ...]

    @property
    def total_ns(self) -> int:
        """From the first step's begin to the last one's end."""
        return self.rows[-1][2] if self.rows else 0


class StepClock:
    """Takes the times of one command's steps.

        steps = StepClock()
        steps.enter("intent")
        steps.enter("guard")
        times = steps.finish()

    Args:
        clock_ns: monotonic.
        time_ns: since 1970.
    """

    __slots__ = ("_began_ns", "_clock_ns", "_marks", "_started_ns")

    def __init__(
        self, *, clock_ns: Callable[[], int] = time.monotonic_ns, time_ns: Callable[[], int] = time.time_ns
    ) -> None:
        self._clock_ns = clock_ns
        self._started_ns = time_ns()
        self._began_ns = clock_ns()
        self._marks: list[tuple[str, int]] = []

    def enter(self, step: str) -> None:
        """End the step before, if any, and begin this one."""
        self._marks.append((step, self._clock_ns() - self._began_ns))

    def finish(self) -> StepTimes:
        """End the last step and return the times."""
        ends = [begin for _, begin in self._marks[1:]] + [self._clock_ns() - self._began_ns]
        return StepTimes(
            self._started_ns, tuple((step, at, end) for (step, at), end in zip(self._marks, ends, strict=False))
        )


class Histogram(NamedTuple):
    """How many values were at most each of `BUCKETS_S`.

    Args:
        counts: one more than there are bounds: values in each bucket, not added up; the last holds the rest.
        sum_s: of all values.
    """

    counts: tuple[int, ...]
    sum_s: float

    @property
    def total(self) -> int:
        """How many values there were."""
        return sum(self.counts)


class ProcessMetrics(NamedTuple):
    """What this process has done, at one moment.

    Args:
        sandboxes: how many there are in each state; destroyed ones so far.
        commands: ended, by their reason.
        verdicts: of the gate, by name.
        denials: what walls refused, by the control that refused it, where it was observed.
        limits: counters that rose, by name.
        pool_hits: claims that got a warm sandbox.
        pool_misses: claims that built their own.
        orphans_swept: what earlier processes had left behind and this one removed.
        steps: times of the six steps, and `total`.
    """

    sandboxes: Mapping[str, int]
    commands: Mapping[str, int]
    verdicts: Mapping[str, int]
    denials: Mapping[str, int]
    limits: Mapping[str, int]
    pool_hits: int
    pool_misses: int
    orphans_swept: int
    steps: Mapping[str, Histogram]

    def to_dict(self) -> dict[str, Any]:
        """Return the counts as JSON can hold them."""
        steps = {
            name: {"bounds_s": BUCKETS_S, "counts": one.counts, "sum_s": one.sum_s} for name, one in self.steps.items()
        }
        return {**self._asdict(), "steps": steps}


class Counters:
    """The counts of one process; `PROCESS` is this one's."""

    def __init__(self) -> None:
        # SECURITY: reentrant, because a collected sandbox counts its end from wherever the collector ran.
        self._lock = threading.RLock()
        self._named: dict[str, dict[str, int]] = {
            name: {} for name in ("sandboxes", "commands", "verdicts", "denials", "limits", "pool", "orphans")
        }
        self._steps: dict[str, tuple[list[int], list[float]]] = {}

    def move(self, before: str | None, after: str) -> None:
        """Count a sandbox from one state into another; None for one that is new."""
        with self._lock:
            if before is not None:
                self._add("sandboxes", before, -1)
            self._add("sandboxes", after)

    def end(self, result: ExecResult, steps: StepTimes | None = None) -> None:
        """Count an ended command, and the times of its steps."""
        with self._lock:
            self._add("commands", str(result.reason))
            self._add("verdicts", str(result.verdict))
            for denial in result.denials:
                self._add("denials", control_of(denial))
            for counter in result.limits_hit or ():
                self._add("limits", counter)
            if steps is not None:
                for step, begin, end in steps.rows:
                    self._time(step, (end - begin) / 1e9)
                self._time("total", steps.total_ns / 1e9)

    def claim(self, *, hit: bool) -> None:
        """Count a pool's claim: a hit got a warm sandbox, a miss built its own."""
        with self._lock:
            self._add("pool", "hits" if hit else "misses")

    def sweep(self, removed: int) -> None:
        """Count what earlier processes had left behind and this one has removed."""
        with self._lock:
            self._add("orphans", "swept", removed)

    def snapshot(self) -> ProcessMetrics:
        """Return the counts of this moment."""
        with self._lock:
            named = {name: dict(counts) for name, counts in self._named.items()}
            steps = {name: Histogram(tuple(counts), total[0]) for name, (counts, total) in self._steps.items()}
        return ProcessMetrics(
            sandboxes=named["sandboxes"],
            commands=named["commands"],
            verdicts=named["verdicts"],
            denials=named["denials"],
            limits=named["limits"],
            pool_hits=named["pool"].get("hits", 0),
            pool_misses=named["pool"].get("misses", 0),
            orphans_swept=named["orphans"].get("swept", 0),
            steps=steps,
        )

    def _add(self, name: str, key: str, number: int = 1) -> None:
        counts = self._named[name]
        counts[key] = counts.get(key, 0) + number

    def _time(self, step: str, seconds: float) -> None:
        row = self._steps.get(step)
        if row is None:
            row = self._steps[step] = ([0] * (len(BUCKETS_S) + 1), [0.0])
        row[0][bisect_left(BUCKETS_S, seconds)] += 1
        row[1][0] += seconds


def control_of(denial: Denial) -> str:
    """Return the control that refused something, without the words that explain it."""
    return denial.rule.partition(":")[0]


PROCESS = Counters()
"""What this process has done."""
