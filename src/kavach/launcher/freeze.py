"""Stops, continues, kills and lists every process of a sandbox from outside, and confirms it by looking.

Guarantees: `freeze` returns only when no process of the sandbox runs; `thaw` continues only those that `freeze`
stopped, so that a program which had stopped itself stays stopped; no process outside the sandbox is ever signalled,
also when a number was given out again meanwhile. Does not: use cgroup v1's freezer, whose frozen processes cannot be
killed (process-traps 13). May be called by: kavach.backends.process.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import TYPE_CHECKING, NamedTuple

from kavach.errors import BackendError
from kavach.launcher.init import descendants
from kavach.linux.cgroup import read_stat

if TYPE_CHECKING:
    from collections.abc import Iterable

_CONFIRM_S = 2.0  # protects the caller from a process that forks without end; a round takes a millisecond


class Stopped(NamedTuple):
    """One process that was stopped; its start time tells it from a later one of the same number."""

    pid: int
    start_time: int


class _Stat(NamedTuple):
    """What /proc/PID/stat says (proc(5)): state letter, parent, start time in clock ticks since boot."""

    state: str
    parent: int
    start_time: int


_GONE = _Stat("X", 0, 0)


def freeze(init_pid: int) -> tuple[Stopped, ...]:
    """Stop all descendants of `init_pid`; return those that this call has stopped.

    Raises:
        BackendError: new processes kept appearing; everything that was stopped runs again.
    """
    stopped: dict[int, Stopped] = {}
    already: set[int] = set()
    deadline = time.monotonic() + _CONFIRM_S
    while True:
        found = {pid: _stat(pid) for pid in descendants(init_pid)}
        if not stopped:
            already = {pid for pid, one in found.items() if one.state in "Tt"}
        running = [pid for pid, one in found.items() if one.state not in "TtZX"]
        mine = tuple(one for pid, one in stopped.items() if pid not in already)
        if not running:
            return mine
        if time.monotonic() > deadline:
            thaw(mine)
            raise BackendError("the sandbox could not be stopped: new processes kept appearing", runtime="process")
        for pid in running:
            if _signal_below(pid, init_pid, signal.SIGSTOP):
                stopped[pid] = Stopped(pid, found[pid].start_time)


def thaw(stopped: tuple[Stopped, ...]) -> None:
    """Continue the processes that `freeze` returned and that still are stopped."""
    for pid, start_time in stopped:
        with contextlib.suppress(ProcessLookupError):
            handle = os.pidfd_open(pid)
            try:
                # ORDER: the descriptor first: what is read next is of the same process or of a later one.
                now = _stat(pid)
                if now.start_time == start_time and now.state in "Tt":
                    signal.pidfd_send_signal(handle, signal.SIGCONT)
            finally:
                os.close(handle)


def living(init_pid: int) -> list[int]:
    """Return the descendants of `init_pid` that have not ended; one that has and waits to be reaped is none."""
    return [pid for pid in descendants(init_pid) if _stat(pid).state not in "ZX"]


def wait_ended(pids: Iterable[int], timeout_s: float) -> bool:
    """Return whether every one of these processes has been reaped; without a PID namespace others do that."""
    deadline = time.monotonic() + timeout_s
    while any(os.path.isdir(f"/proc/{pid}") for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.002)
    return True


def kill_below(init_pid: int) -> None:
    """Kill every descendant of `init_pid` once, frozen ones too."""
    for pid in descendants(init_pid):
        _signal_below(pid, init_pid, signal.SIGKILL)


def _signal_below(pid: int, ancestor: int, number: int) -> bool:
    """Send a signal to `pid` if it is a descendant of `ancestor`; return whether it was sent."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        # SECURITY: the number may have gone to a stranger since it was listed; the descriptor names one process, and
        # if the number belongs to the sandbox now, the descriptor is that process or an earlier one that is gone.
        if not _is_below(pid, ancestor):
            return False
        signal.pidfd_send_signal(handle, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(handle)
    return True


def _is_below(pid: int, ancestor: int) -> bool:
    while pid > 1:
        pid = _stat(pid).parent
        if pid == ancestor:
            return True
    return False


def _stat(pid: int) -> _Stat:
    fields = read_stat("/proc", pid)
    return _GONE if fields is None else _Stat(fields[0], int(fields[1]), int(fields[19]))
