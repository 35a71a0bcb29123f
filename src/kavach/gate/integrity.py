"""The integrity monitor: looks again and again whether a running sandbox is still behind the wall that was observed.

Guarantees: each sandbox is looked at when it is first watched and then at every interval; what fails is seen twice in a
row before it is reported, so that a process that ends meanwhile is no failure; what may not be read is `unknown` and no
failure. Does not: prevent anything, or know how a sandbox is killed: whoever watches decides what a failure means
(`IntegrityPolicy.action`). May be called by: kavach.sandbox. Safe to call from any thread.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

from msgspec import Meta

from kavach.gate.inspection import Inspected, Subject, inspect_sandbox, try_to_read
from kavach.launcher.evidence import host_inodes
from kavach.model.validate import Model

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from kavach.gate.inspection import Member

    Inspect = Callable[[Subject, Mapping[str, int]], Inspected | None]
    Report = Callable[[tuple["Failure", ...]], object]

__all__ = [
    "Failure",
    "IntegrityMonitor",
    "IntegrityPolicy",
    "Subject",
    "judge_integrity",
    "shared_monitor",
    "try_to_read",
]


class IntegrityPolicy(Model, frozen=True, kw_only=True):
    """How often a sandbox is looked at, and what a failure means.

    Args:
        interval_s: between two looks.
        action: `report` publishes an event, `kill` also ends the sandbox.
        sensitive_paths: tried in addition to the policy's `deny` paths; each try costs a child process inside.
    """

    interval_s: Annotated[float, Meta(ge=0.1, le=86_400)] = 60.0
    action: Literal["report", "kill"] = "report"
    sensitive_paths: tuple[str, ...] = ()


class Failure(NamedTuple):
    """One thing that is not as it was observed to be.

    Args:
        check: namespaces, seccomp, no_new_privs, cgroup, stranger, mounts, setuid or sensitive.
        detail: what, for people.
    """

    check: str
    detail: str


def judge_integrity(subject: Subject, before: Inspected, now: Inspected) -> tuple[Failure, ...]:
    """Return what is not as it should be, or not as it was; pure.

    Args:
        subject: what the wall promised.
        before: the first look.
        now: this look.
    """
    found = [failure for member in now.members for failure in _judge_member(subject, member)]
    if before.mounts is not None and now.mounts is not None:
        new, gone = now.mounts - before.mounts, before.mounts - now.mounts
        words = (("changed or new", new), ("changed or gone", gone))
        found += [Failure("mounts", f"{word}: {_points(rows)}") for word, rows in words if rows]
    found += [Failure("setuid", f"new: {path}") for path in sorted(now.setuid - before.setuid)]
    found += [Failure("sensitive", f"can be read: {path}") for path in sorted(now.readable)]
    return tuple(found)


def _judge_member(subject: Subject, member: Member) -> list[Failure]:
    who = f"process {member.pid} ({member.name})"
    found = []
    if not member.is_inside:
        found.append(Failure("stranger", f"{who} is in the sandbox's cgroup and not of the sandbox"))
    if subject.needs_filter and not member.has_filter:
        found.append(Failure("seccomp", f"{who} is under no filter"))
    if subject.needs_no_new_privs and not member.has_no_new_privs:
        found.append(Failure("no_new_privs", f"{who} may gain privileges"))
    if member.shared:
        found.append(Failure("namespaces", f"{who} shares with the host: {', '.join(sorted(member.shared))}"))
    if member.is_inside and member.missing_groups:
        found.append(Failure("cgroup", f"{who} has left {', '.join(member.missing_groups)}"))
    return found


def _points(rows: frozenset[tuple[bytes, bytes, bytes, bytes]]) -> str:
    return ", ".join(sorted({row[0].decode("utf-8", "backslashreplace") for row in rows}))


class _Watched:
    """One sandbox under watch."""

    def __init__(self, subject: Subject, interval_s: float, report: Report, first: Inspected, due_s: float) -> None:
        self.subject = subject
        self.interval_s = interval_s
        self.report = report
        self.first = first
        self.due_s = due_s
        self.unknown = first.unknown
        self.told: frozenset[Failure] = frozenset()
        self.error: BaseException | None = None

    def tell(self, failures: tuple[Failure, ...]) -> None:
        """Report what was not told before; forget what has gone, so that it is told again when it comes back."""
        new = tuple(failure for failure in failures if failure not in self.told)
        self.told = frozenset(failures)
        if not new:
            return
        try:
            self.report(new)
        except BaseException as error:  # noqa: BLE001 - kept for whoever looks; a thread has nobody to raise to
            self.error = error


class IntegrityMonitor:
    """Looks at every watched sandbox in one thread, which lives while there is one.

    Args:
        clock: monotonic seconds.
        inspect: how a sandbox is looked at.
        in_background: False starts no thread: the owner calls `tick`.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        inspect: Inspect = inspect_sandbox,
        in_background: bool = True,
    ) -> None:
        self._clock = clock
        self._inspect = inspect
        self._in_background = in_background
        self._host = host_inodes()
        self._lock = threading.Lock()
        self._news = threading.Condition(self._lock)
        self._watched: dict[str, _Watched] = {}
        self._thread: threading.Thread | None = None

    def watch(self, subject: Subject, policy: IntegrityPolicy, report: Report) -> None:
        """Look at a sandbox now, and from now on every `policy.interval_s`, until `forget`.

        Args:
            subject: which; what is seen now is what later looks are compared with.
            policy: how often.
            report: called with what fails, once for each failure, in the monitor's thread, or here for the first look.
        """
        first = self._inspect(subject, self._host)
        if first is None:
            return
        now_s = self._clock()
        watched = _Watched(subject, policy.interval_s, report, first, now_s + policy.interval_s)
        with self._lock:
            self._watched[subject.sandbox_id] = watched
            if self._in_background and self._thread is None:
                self._thread = threading.Thread(target=self._work, name="kavach-integrity", daemon=True)
                self._thread.start()
            self._news.notify()
        watched.tell(judge_integrity(subject, first, first))

    def forget(self, sandbox_id: str) -> None:
        """Look at a sandbox no more; idempotent."""
        with self._lock:
            self._watched.pop(sandbox_id, None)
            self._news.notify()

    def unknown(self, sandbox_id: str) -> tuple[str, ...]:
        """Return what could not be looked at in a sandbox's last look; empty where it is not watched."""
        with self._lock:
            watched = self._watched.get(sandbox_id)
        return () if watched is None else watched.unknown

    def tick(self, now_s: float) -> None:
        """Look at every sandbox that is due at a monotonic time."""
        with self._lock:
            due = [one for one in self._watched.values() if one.due_s <= now_s]
        for watched in due:
            watched.due_s = now_s + watched.interval_s
            self._look(watched)

    def _look(self, watched: _Watched) -> None:
        seen = self._inspect(watched.subject, self._host)
        if seen is None:
            self.forget(watched.subject.sandbox_id)
            return
        watched.unknown = seen.unknown
        failures = judge_integrity(watched.subject, watched.first, seen)
        if not failures:
            watched.tell(())
            return
        # A process that ended between two reads looks like one that lost its filter: what is real is still there.
        again = self._inspect(watched.subject, self._host)
        confirmed = () if again is None else judge_integrity(watched.subject, watched.first, again)
        watched.tell(tuple(failure for failure in failures if failure in confirmed))

    def _work(self) -> None:
        while True:
            self.tick(self._clock())
            with self._lock:
                if not self._watched:
                    self._thread = None
                    return
                pause_s = min(one.due_s for one in self._watched.values()) - self._clock()
                if pause_s > 0:
                    self._news.wait(pause_s)


_SHARED: list[IntegrityMonitor] = []
_SHARED_LOCK = threading.Lock()


def shared_monitor() -> IntegrityMonitor:
    """Return the monitor of this process; made at its first use."""
    with _SHARED_LOCK:
        if not _SHARED:
            _SHARED.append(IntegrityMonitor())
        return _SHARED[0]
