"""Waits for a running command in a task: the same course as `launcher.pump`, awaited.

Guarantees: a cancelled task ends the command, and the cancellation goes on only when the command has ended and its
descriptors are closed; one task, no thread, waits for all of a command's descriptors. Does not: interpret anything.
May be called by: kavach.aio.
"""

from __future__ import annotations

import select
import time
from typing import TYPE_CHECKING

import anyio

from kavach.aio.calls import in_thread, uninterrupted

if TYPE_CHECKING:
    from kavach.backends.base import Running
    from kavach.model.result import RawResult


async def drive(run: Running) -> RawResult:
    """Return the ending of a command; a cancellation in between ends the command first."""
    try:
        while not run.is_finished:
            await _step(run)
        return await in_thread(run.result)  # removing a cgroup waits for what is still ending in it
    except BaseException:
        await end(run)
        raise


async def end(run: Running) -> None:
    """End a command, wait until it has ended, and close what belongs to it, whatever happens to the task."""
    run.cancel(time.monotonic())
    await uninterrupted(lambda: _settle(run))


async def _settle(run: Running) -> None:
    while not run.is_finished:
        await _step(run)
    await in_thread(run.result)


async def _step(run: Running) -> None:
    """Wait for one thing to happen, and let the command's course take it in."""
    # A fresh epoll each time: one that lives on would go on reporting a pipe that is closed here, but still held by a
    # forked child of the host.
    with select.epoll() as events:
        for handle in run.descriptors():
            events.register(handle, select.EPOLLIN)
        with anyio.move_on_after(run.wait_s(time.monotonic())):
            await anyio.wait_readable(events.fileno())
        found = events.poll(0)
    now_s = time.monotonic()
    for handle, _ in found:
        run.ready(handle, now_s)
    run.tick(now_s)
