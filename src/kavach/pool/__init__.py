"""`SandboxPool` and `AsyncSandboxPool`: sandboxes whose wall already stands, waiting for a command.

Guarantees: those of kavach.pool.ledger (order, one claim a sandbox, `max_size`) and kavach.pool.stock (seen alive,
young enough). Does not: clean a sandbox that is used more than once; its files stay for the next claim. May be called
by: users. Safe to call from any thread; a forked child is refused.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import anyio
import anyio.lowlevel

from kavach.aio import AsyncSandbox
from kavach.aio.calls import in_thread, uninterrupted
from kavach.model.command import milliseconds
from kavach.pool.stock import PoolMetrics, Stock

if TYPE_CHECKING:
    from collections.abc import Callable

    from kavach.errors import KavachError
    from kavach.model.config import SandboxConfig
    from kavach.pool.ledger import Ticket
    from kavach.pool.stock import PooledSandbox
    from kavach.sandbox import Sandbox

_LOOK_S = 0.005

__all__ = ["AsyncSandboxPool", "PoolMetrics", "SandboxPool"]


class _Pool:
    """What does not wait, and so is the same for threads and tasks."""

    _stock: Stock

    def __init__(
        self,
        config: SandboxConfig | None = None,
        /,
        *,
        warm: int = 2,
        max_size: int | None = None,
        max_age_s: float | None = 600.0,
        single_use: bool = True,
        **fields: Any,  # noqa: ANN401 - typed by SandboxConfig
    ) -> None:
        self._stock = Stock(config, fields, warm=warm, max_size=max_size, max_age_s=max_age_s, single_use=single_use)
        weakref.finalize(self, setattr, self._stock, "is_forgotten", True).atexit = False  # noqa: FBT003 - setattr's own

    def metrics(self) -> PoolMetrics:
        """Return what the pool has done so far."""
        return self._stock.metrics()

    @property
    def last_error(self) -> KavachError | None:
        """Why the background last failed to build a sandbox; None where it never did."""
        return self._stock.last_error

    def __repr__(self) -> str:
        found = self.metrics()
        return f"<{type(self).__name__} {found.ready} ready {found.claimed} claimed>"


class SandboxPool(_Pool):
    """Warm sandboxes for threads.

    A claim takes the sandbox that was made first. Where none stands it builds one itself (a miss); where `max_size`
    sandboxes exist it waits instead, behind the claims that came before it.

    Args:
        config: how each sandbox is made; instead of it, the fields of `SandboxConfig` as keywords.
        warm: how many to keep standing.
        max_size: how many may exist at once, claimed ones included; None = any number.
        max_age_s: after that a standing sandbox is replaced; None = never.
        single_use: destroy a sandbox when its `with` block is left. False gives it to the next claim, with its files;
            its processes are ended.

    Raises:
        KavachError: as for `Sandbox`, or an argument is wrong.
    """

    def claim(self, timeout_s: float | None = None) -> Sandbox:
        """Return a running sandbox that is nobody else's; `with pool.claim() as sandbox:` gives it back at the end.

        Args:
            timeout_s: how long to wait for one's turn; None = until it comes.

        Raises:
            TimeoutError: the turn did not come in time.
            LifecycleError: the pool is closed, or this is a forked child of its process.
            KavachError: the sandbox cannot be built.
        """
        milliseconds(timeout_s)
        started_s = time.monotonic()
        turn = threading.Event()
        ticket = self._stock.ask(turn.set)
        try:
            if ticket.has_waited and not turn.wait(timeout_s) and self._stock.ledger.withdraw(ticket):
                raise TimeoutError(f"no sandbox of the pool came free within {timeout_s} s")
        except TimeoutError:
            raise
        except BaseException:
            self._stock.refuse(ticket)
            raise
        return self._stock.collect(ticket, started_s)

    def wait_warm(self, timeout_s: float | None = None) -> bool:
        """Wait until `warm` sandboxes stand; whether they do.

        Raises:
            ConfigError: the time is none.
            LifecycleError: this is a forked child of the pool's process.
        """
        milliseconds(timeout_s)
        return self._stock.wait_warm(timeout_s)

    def drain(self, timeout_s: float | None = None) -> bool:
        """Refuse new claims, destroy what stands, and wait until what is claimed has come back; whether it has.

        Raises:
            ConfigError: the time is none.
            LifecycleError: this is a forked child of the pool's process.
        """
        milliseconds(timeout_s)
        return self._stock.drain(timeout_s)

    def close(self) -> None:
        """Destroy every sandbox of the pool, claimed ones too; idempotent."""
        self._stock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncSandboxPool(_Pool):
    """Warm sandboxes for tasks, under asyncio and trio; arguments and rules: `SandboxPool`.

    Raises:
        KavachError: as for `SandboxPool`.
    """

    async def claim(self, timeout_s: float | None = None) -> AsyncSandbox:
        """Return a running sandbox that is nobody else's; `async with await pool.claim() as sandbox:`.

        Raises:
            TimeoutError: the turn did not come in time.
            LifecycleError: the pool is closed, or this is a forked child of its process.
            KavachError: the sandbox cannot be built.
        """
        milliseconds(timeout_s)
        started_s = time.monotonic()
        bell = _Bell()
        try:
            ticket = self._stock.ask(bell.ring)
            await self._wait(ticket, bell, timeout_s)
        finally:
            bell.close()
        if ticket.item is not None or ticket.is_refused:
            return AsyncSandbox.over(self._stock.collect(ticket, started_s))
        return AsyncSandbox.over(await self._build(ticket, started_s))

    async def _wait(self, ticket: Ticket[PooledSandbox], bell: _Bell, timeout_s: float | None) -> None:
        try:
            if ticket.has_waited:
                with anyio.move_on_after(timeout_s):
                    await anyio.wait_readable(bell.handle)
                if self._stock.ledger.withdraw(ticket):
                    raise TimeoutError(f"no sandbox of the pool came free within {timeout_s} s")
            else:
                await anyio.lowlevel.checkpoint()
        except TimeoutError:
            raise
        except BaseException:
            await uninterrupted(lambda: in_thread(partial(self._stock.refuse, ticket)))
            raise

    async def _build(self, ticket: Ticket[PooledSandbox], started_s: float) -> PooledSandbox:
        begun: list[None] = []

        def build() -> PooledSandbox:
            begun.append(None)
            return self._stock.collect(ticket, started_s)

        try:
            return await in_thread(build, undo=_destroy)
        except BaseException:
            if not begun:
                self._stock.refuse(ticket)
            raise

    async def wait_warm(self, timeout_s: float | None = None) -> bool:
        """Wait until `warm` sandboxes stand; whether they do.

        Raises:
            LifecycleError: this is a forked child of the pool's process.
        """
        return await _until(lambda: self._stock.wait_warm(0), timeout_s)

    async def drain(self, timeout_s: float | None = None) -> bool:
        """Refuse new claims, destroy what stands, and wait until what is claimed has come back; whether it has.

        Raises:
            LifecycleError: this is a forked child of the pool's process.
        """
        await in_thread(partial(self._stock.drain, 0))
        return await _until(lambda: self._stock.is_empty, timeout_s)

    async def close(self) -> None:
        """Destroy every sandbox of the pool, claimed ones too; idempotent; done to its end even when cancelled."""
        cancelled = await uninterrupted(lambda: in_thread(self._stock.close))
        if cancelled is not None:
            raise cancelled

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class _Bell:
    """A descriptor that any thread may make readable and any event loop can wait on."""

    def __init__(self) -> None:
        self.handle = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._lock = threading.Lock()

    def ring(self) -> None:
        with self._lock:
            if self.handle >= 0:
                os.eventfd_write(self.handle, 1)

    def close(self) -> None:
        with self._lock:
            handle, self.handle = self.handle, -1
        os.close(handle)


async def _destroy(sandbox: PooledSandbox) -> None:
    await in_thread(sandbox.destroy)


async def _until(is_so: Callable[[], bool], timeout_s: float | None) -> bool:
    """Look every few milliseconds: nothing else of a pool's start and end concerns the event loop."""
    milliseconds(timeout_s)
    with anyio.move_on_after(timeout_s):
        while not is_so():  # noqa: ASYNC110 - what changes, changes in threads
            await anyio.sleep(_LOOK_S)
    return is_so()
