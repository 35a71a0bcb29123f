"""Events as an async iterator, under asyncio and trio, fed from any thread.

Guarantees: as for a callback's subscription: publishing never waits, what finds the queue full is dropped and counted;
when it was closed or forgotten, its socket pair is closed and the bus knows it no more. Does not: start a thread or a
task. May be called by: kavach.audit.events.bus, which makes them, and users.
"""

from __future__ import annotations

import socket
import threading
import weakref
from collections import deque
from typing import TYPE_CHECKING, Self

import anyio

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from kavach.audit.events.event import Event
    from kavach.audit.events.patterns import Pattern

__all__ = ["EventStream", "Inbox"]


class Inbox:
    """What the bus knows of a stream: its queue, and the bell that wakes its reader.

    Args:
        pattern: which topics it wants.
        queue_size: how many events may wait.
        on_close: told once when it takes no more.
    """

    def __init__(self, pattern: Pattern, *, queue_size: int, on_close: Callable[[Inbox], None]) -> None:
        self.pattern: Pattern = pattern
        self._size = queue_size
        self._on_close = on_close
        self._events: deque[Event] = deque()
        # SECURITY: reentrant, because a collected sandbox publishes its end from wherever the collector ran.
        self._lock = threading.RLock()
        self._reader, self._bell = socket.socketpair()
        self._reader.setblocking(False)  # noqa: FBT003 - socket's own signature
        self._bell.setblocking(False)  # noqa: FBT003 - socket's own signature
        self._is_rung = self._is_awaited = False
        self.is_open: bool = True
        self.dropped: int = 0

    @property
    def waiting(self) -> int:
        """How many events wait to be read."""
        return len(self._events)

    def offer(self, event: Event) -> bool:
        """Queue an event, or count it as dropped and return False; never waits for the reader."""
        with self._lock:
            if not self.is_open:
                return False
            if len(self._events) >= self._size:
                self.dropped += 1
                return False
            self._events.append(event)
            self._ring()
            return True

    def take(self) -> Event | None:
        """Return the next event, None where none waits."""
        with self._lock:
            if self._events:
                return self._events.popleft()
            if self._is_rung and self.is_open:
                self._is_rung = False
                self._reader.recv(16)
            return None

    async def wait(self) -> None:
        """Return when there may be something to take, or nothing any more."""
        with self._lock:
            if not self.is_open:
                return
            self._is_awaited = True
        try:
            await anyio.wait_readable(self._reader)
        finally:
            with self._lock:
                self._is_awaited = False
                self._let_go()

    def close(self, wait_s: float = 0.0) -> bool:
        """Take no more events; what waits can still be read. The form is that of a callback's subscription."""
        del wait_s
        with self._lock:
            was_open, self.is_open = self.is_open, False
        if was_open:
            self._bell.close()  # wakes the reader for good
            self._on_close(self)
        return not self._events

    def hang_up(self) -> None:
        """Close, drop what waits, and give the sockets back."""
        self.close()
        with self._lock:
            self._events.clear()
            self._let_go()

    def _let_go(self) -> None:
        """Close the reader's end when it is of no use, but never under an event loop that watches it."""
        if not (self.is_open or self._is_awaited):
            self._reader.close()

    def _ring(self) -> None:
        if not self._is_rung:
            self._is_rung = True
            self._bell.send(b"!")


class EventStream:
    """Events that match a pattern, as they come.

        async with bus.stream("sandbox/*/scan/#") as events:
            async for event in events:
                ...

    It takes events from the moment it is made. It ends when the bus is closed and everything queued was read.
    """

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox
        self._finalizer = weakref.finalize(self, inbox.hang_up)

    @property
    def dropped(self) -> int:
        """How many events found the queue full."""
        return self._inbox.dropped

    @property
    def waiting(self) -> int:
        """How many events wait to be read."""
        return self._inbox.waiting

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        while (event := self._inbox.take()) is None:
            if not self._inbox.is_open:
                raise StopAsyncIteration
            await self._inbox.wait()
        return event

    def close(self) -> None:
        """Take no more events and drop what waits; idempotent."""
        self._finalizer()

    async def aclose(self) -> None:
        """Close, in the form that `contextlib.aclosing` calls."""
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<EventStream {self._inbox.pattern.text}, {self.waiting} waiting, {self.dropped} dropped>"
