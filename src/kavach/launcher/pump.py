"""Waits for a running command in the calling thread.

Guarantees: returns when the command's ending is known, whatever the command writes and whether or not anybody reads.
Does not: interpret anything. May be called by: kavach.sandbox, kavach.backends (probe).
"""

from __future__ import annotations

import contextlib
import select
import time
from typing import TYPE_CHECKING

from kavach.errors import KavachError

if TYPE_CHECKING:
    from kavach.backends.base import Running
    from kavach.model.result import RawResult


def drive(run: Running) -> RawResult:
    """Return the ending of a command; an exception in between ends the command first."""
    try:
        while not run.is_finished:
            step(run)
    except BaseException:
        run.cancel(time.monotonic())
        settle(run)
        raise
    return run.result()


def step(run: Running) -> None:
    """Wait for one thing to happen, and let the command's course take it in."""
    poll = select.poll()
    for handle in run.descriptors():
        poll.register(handle, select.POLLIN)
    wait_s = run.wait_s(time.monotonic())
    events = poll.poll(None if wait_s is None else int(wait_s * 1000 + 0.999))
    now_s = time.monotonic()
    for handle, _ in events:
        run.ready(handle, now_s)
    run.tick(now_s)


def settle(run: Running) -> None:
    """Wait until a command that is being ended has ended, and close what belongs to it."""
    while not run.is_finished:
        step(run)
    with contextlib.suppress(KavachError):
        run.result()
