"""The course of one command as a pure state machine: bytes in, deadlines kept, one truthful ending out.

Guarantees: for the same events at the same times the same ending, however the bytes were cut into chunks; a stream
never holds more than its cap; whatever else happened, the ending names the first thing that ended the command. Does
not: read a clock, touch a descriptor, or kill (it says when to). May be called by: the sync and the async pump.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from kavach.model.result import EndReason

#: How long after the first kill the whole sandbox is given up on: protects the caller from a process that cannot die.
KILL_GRACE_S = 2.0
#: How long a command may sit at its process limit before it is ended: make and bash retry for ever (EAGAIN).
PIDS_PATIENCE_S = 1.0


class Ended(NamedTuple):
    """What init reported: wait status and the usage of the command with all children it waited for."""

    status: int
    user_us: int
    system_us: int
    peak_bytes: int


class Stream:
    """One output stream: the first `cap` bytes, and how many there were in all."""

    def __init__(self, cap: int | None) -> None:
        self.cap = cap
        self.total: int = 0
        self._kept = 0
        self._parts: list[bytes] = []

    def take(self, chunk: bytes) -> bytes:
        """Count `chunk`, keep what fits, return what was kept."""
        self.total += len(chunk)
        room = len(chunk) if self.cap is None else self.cap - self._kept
        fitting = chunk[:room] if room < len(chunk) else chunk
        if fitting:
            self._kept += len(fitting)
            self._parts.append(fitting)
        return fitting

    @property
    def truncated(self) -> bool:
        """Whether bytes came that were not kept."""
        return self.total > self._kept

    @property
    def dropped(self) -> int:
        """How many bytes came that were not kept."""
        return self.total - self._kept

    def content(self) -> bytes:
        """Return what was kept."""
        return b"".join(self._parts)


class Supervision:
    """Feed it what happens; ask it what to do.

    Args:
        started_s: monotonic time at which the command was let go.
        timeout_s: wall clock, None for no limit.
        output_bytes: cap a stream, None for no cap.
        kill_on_output: end the command when a stream passes its cap, rather than drop the rest.
    """

    def __init__(
        self, *, started_s: float, timeout_s: float | None, output_bytes: int | None, kill_on_output: bool
    ) -> None:
        self.stdout: Stream = Stream(output_bytes)
        self.stderr: Stream = Stream(output_bytes)
        self.ended: Ended | None = None
        self.not_started: tuple[str, int] | None = None
        self.lost: bool = False
        self.cause: EndReason | None = None
        self._deadline = None if timeout_s is None else started_s + timeout_s
        self._kill_on_output = kill_on_output
        self._killed_at: float | None = None
        self._at_process_limit_since: float | None = None

    @property
    def is_over(self) -> bool:
        """Whether nothing more is to be waited for."""
        return self.ended is not None or self.lost or self.not_started is not None

    def output(self, *, error: bool, chunk: bytes, now_s: float) -> tuple[bytes, bool]:
        """Take bytes of stdout (or stderr); return (what a reader may see, whether to kill now)."""
        stream = self.stderr if error else self.stdout
        kept = stream.take(chunk)
        kill = self._kill_on_output and stream.truncated and self._end(EndReason.OUTPUT_LIMIT, now_s)
        return kept, kill

    def end_by(self, cause: EndReason, now_s: float) -> bool:
        """Note that somebody (the watchdog, a cancellation) ends the command; return whether to kill now."""
        return self._end(cause, now_s)

    def at_process_limit(self, *, full: bool, now_s: float) -> bool:
        """Take one sample of whether the process limit is reached; return whether to kill now."""
        if not full:
            self._at_process_limit_since = None
            return False
        if self._at_process_limit_since is None:
            self._at_process_limit_since = now_s
        return now_s - self._at_process_limit_since >= PIDS_PATIENCE_S and self._end(EndReason.PIDS, now_s)

    def tick(self, now_s: float) -> bool:
        """Return whether to kill now because the deadline has passed."""
        return self._deadline is not None and now_s >= self._deadline and self._end(EndReason.TIMEOUT, now_s)

    def is_stuck(self, now_s: float) -> bool:
        """Return whether a kill did not end the command in time and the whole sandbox must go."""
        return self._killed_at is not None and not self.is_over and now_s - self._killed_at >= KILL_GRACE_S

    def wait_s(self, now_s: float) -> float | None:
        """Return how long to sleep at most, None for until something happens."""
        if self._killed_at is not None:
            return max(0.0, self._killed_at + KILL_GRACE_S - now_s)
        return None if self._deadline is None else max(0.0, self._deadline - now_s)

    def finish(self, report: Ended) -> None:
        """Note init's report of the ending."""
        if not self.is_over:
            self.ended = report

    def fail_to_start(self, stage: str, code: int) -> None:
        """Note that execve, or what leads to it, was refused."""
        if not self.is_over:
            self.not_started = (stage, code)

    def lose(self) -> None:
        """Note that init or the launcher has gone."""
        if not self.is_over:
            self.lost = True

    def _end(self, cause: EndReason, now_s: float) -> bool:
        if self.cause is not None or self.is_over:
            return False
        self.cause = cause
        self._killed_at = now_s
        return True


class Counters(NamedTuple):
    """What rose during the command, where something counts: None means that nothing counted."""

    oom: int | None = None
    pids: int | None = None
    disk_full: bool = False


def judge_ending(
    course: Supervision, counters: Counters
) -> tuple[EndReason, int | None, int | None, tuple[str, ...] | None]:
    """Return (reason, exit code, signal, limits hit) of a command that is over.

    A limit is the reason only where the command failed and the limit's counter rose; it is listed as hit also when
    the command went on to succeed. A cause of ours (timeout, output limit) comes before the counters, the loss of the
    sandbox before nothing: if we killed it, the kill is what happened.
    """
    code, number = _status(course)
    hit = _limits_hit(course, counters)
    if course.cause is not None:
        return course.cause, code, number, hit
    if course.lost:
        return EndReason.BACKEND_LOST, None, None, hit
    if code == 0:
        return EndReason.EXIT, code, number, hit
    if counters.oom:
        return EndReason.OOM, code, number, hit
    if counters.pids:
        return EndReason.PIDS, code, number, hit
    if counters.disk_full:
        return EndReason.DISK, code, number, hit
    return (EndReason.SIGNAL if number is not None else EndReason.EXIT), code, number, hit


def _status(course: Supervision) -> tuple[int | None, int | None]:
    if course.ended is None:
        return None, None
    code = os.waitstatus_to_exitcode(course.ended.status)
    return (code, None) if code >= 0 else (None, -code)


def _limits_hit(course: Supervision, counters: Counters) -> tuple[str, ...] | None:
    if counters.oom is None and counters.pids is None and course.cause is None and not counters.disk_full:
        return None
    pairs = (
        ("oom", counters.oom or course.cause is EndReason.OOM),
        ("pids", counters.pids or course.cause is EndReason.PIDS),
        ("disk", counters.disk_full),
        ("output_limit", course.cause is EndReason.OUTPUT_LIMIT),
        ("timeout", course.cause is EndReason.TIMEOUT),
    )
    return tuple(name for name, is_hit in pairs if is_hit)
