"""Stops and continues every process of a sandbox from outside, and confirms it by looking.

Guarantees: `freeze` returns only when no process of the sandbox runs; `thaw` continues only those that `freeze`
stopped, so that a program which had stopped itself stays stopped. Does not: use cgroup v1's freezer, whose frozen
processes cannot be killed (process-traps 13). May be called by: kavach.backends.process, where no cgroup v2 holds the
sandbox.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time

from kavach.errors import BackendError
from kavach.launcher.init import descendants

_CONFIRM_S = 2.0  # protects the caller from a process that forks without end; a round takes a millisecond


def freeze(init_pid: int) -> tuple[int, ...]:
    """Stop all descendants of `init_pid`; return those that this call has stopped.

    Raises:
        BackendError: new processes kept appearing; everything that was stopped runs again.
    """
    stopped: set[int] = set()
    already: set[int] = set()
    deadline = time.monotonic() + _CONFIRM_S
    while True:
        states = {pid: _state(pid) for pid in descendants(init_pid)}
        if not stopped:
            already = {pid for pid, state in states.items() if state in "Tt"}
        running = [pid for pid, state in states.items() if state not in "TtZX"]
        if not running:
            return tuple(stopped - already)
        if time.monotonic() > deadline:
            thaw(tuple(stopped - already))
            raise BackendError("the sandbox could not be stopped: new processes kept appearing", runtime="process")
        for pid in running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
            stopped.add(pid)


def thaw(stopped: tuple[int, ...]) -> None:
    """Continue the processes that `freeze` returned and that still are stopped."""
    for pid in stopped:
        if _state(pid) in "Tt":
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def _state(pid: int) -> str:
    """Return the state letter of /proc/PID/stat (proc(5)), X for a process that is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as handle:
            return handle.read().rpartition(b")")[2].split()[0].decode()
    except (OSError, IndexError):
        return "X"
