"""A blocking call in a worker thread whose result is never lost, however the awaiting task is cancelled.

Guarantees: when `in_thread` has ended, the call has ended or was never begun; what it returned to a task that was
cancelled meanwhile is given to `undo`. Does not: interrupt the call. May be called by: kavach.aio, kavach.pool.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Generic, TypeVar

import anyio
import anyio.from_thread
import anyio.to_thread

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")


class _Call(Generic[T]):
    """One call: taken by the worker thread or withdrawn by the waiting task, whichever comes first."""

    def __init__(self, act: Callable[[], T]) -> None:
        self._act = act
        self._lock = threading.Lock()
        self._is_taken = False
        self._done = anyio.Event()
        self.results: list[T] = []
        self.error: BaseException | None = None

    def work(self) -> None:
        with self._lock:
            if self._is_taken:
                return
            self._is_taken = True
        try:
            self.results.append(self._act())
        except BaseException as error:  # noqa: BLE001 - raised again where it is awaited
            self.error = error
        anyio.from_thread.run_sync(self._done.set)

    async def leave(self) -> None:
        """Withdraw the call, or wait for its end if it has begun."""
        with self._lock:
            if not self._is_taken:
                self._is_taken = True
                return
        await uninterrupted(self._done.wait)


async def in_thread(act: Callable[[], T], *, undo: Callable[[T], Awaitable[None]] | None = None) -> T:
    """Return what `act` returns or raise what it raises.

    Args:
        act: blocks; runs in a worker thread.
        undo: awaited with the result that a cancelled task no longer can take.
    """
    call = _Call(act)
    try:
        await anyio.to_thread.run_sync(call.work, abandon_on_cancel=False)
    except BaseException:
        # asyncio's own Task.cancel() reaches a task inside every shield: the thread would work on, unobserved.
        await call.leave()
        if call.results and undo is not None:
            result = call.results[0]
            await uninterrupted(lambda: undo(result))
        raise
    if call.error is not None:
        raise call.error
    return call.results[0]


async def uninterrupted(act: Callable[[], Awaitable[object]]) -> BaseException | None:
    """Await `act` to its end although the task is being cancelled; begun anew where a cancellation broke it off.

    Returns:
        The cancellation that arrived meanwhile, for the caller to raise; None for none.
    """
    cancelled: BaseException | None = None
    with anyio.CancelScope(shield=True):
        while True:
            try:
                await act()
            except anyio.get_cancelled_exc_class() as error:
                cancelled = error  # asyncio's own Task.cancel(), which no shield keeps out
                continue
            break
    return cancelled
