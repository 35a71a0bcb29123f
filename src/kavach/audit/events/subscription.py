"""One callback, called for each event in a thread of its own, from a bounded queue of its own.

Guarantees: whoever publishes waits for nobody; events reach the callback in the order in which they were published;
what finds the queue full is dropped and counted; what the callback raises is counted and kept, and stops nothing.
Does not: interrupt a callback that blocks; its thread is a daemon and ends with the process. May be called by:
kavach.audit.events.bus, which makes them, and users, who close them.
"""

from __future__ import annotations

import queue
import threading
import time
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from kavach.audit.events.event import Event
    from kavach.audit.events.patterns import Pattern

__all__ = ["Subscription"]

_LOOK_S = 0.002  # how often `drain` looks; nobody is kept waiting but the caller of `drain`


class Subscription:
    """One callback's place on the bus.

    Args:
        pattern: which topics it wants.
        callback: called with each event; whatever it raises is counted.
        queue_size: how many events may wait.
        on_close: told once when it takes no more.
    """

    def __init__(
        self,
        pattern: Pattern,
        callback: Callable[[Event], object],
        *,
        queue_size: int,
        on_close: Callable[[Subscription], None],
    ) -> None:
        self.pattern: Pattern = pattern
        self._callback = callback
        self._size = queue_size
        self._on_close = on_close
        self._queue: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        # SECURITY: reentrant, because a collected sandbox publishes its end from wherever the collector ran.
        self._lock = threading.RLock()
        self._is_open = True
        self._accepted = self._done = self._dropped = self._failures = 0
        #: What the callback raised last, or None.
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name=f"kavach-events {pattern.text}", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """How many events found the queue full."""
        return self._dropped

    @property
    def failures(self) -> int:
        """How often the callback raised."""
        return self._failures

    @property
    def delivered(self) -> int:
        """How many events the callback was called with, and came back from."""
        return self._done

    @property
    def waiting(self) -> int:
        """How many events wait for the callback, the one it works on included."""
        return self._accepted - self._done

    @property
    def is_open(self) -> bool:
        """Whether it takes events."""
        return self._is_open

    def offer(self, event: Event) -> bool:
        """Queue an event, or count it as dropped and return False; never waits for the callback."""
        with self._lock:
            if not self._is_open:
                return False
            if self._accepted - self._done >= self._size:
                self._dropped += 1
                return False
            self._accepted += 1
            self._queue.put(event)
            return True

    def drain(self, timeout_s: float) -> bool:
        """Wait until the callback has come back from every event queued so far; False where it has not in time."""
        wanted, deadline = self._accepted, time.monotonic() + timeout_s
        while self._done < wanted and time.monotonic() < deadline:
            time.sleep(_LOOK_S)
        return self._done >= wanted

    def close(self, wait_s: float = 0.0) -> bool:
        """Take no more events; what is queued is still delivered, in the background or, at most `wait_s` long, now.

        Returns:
            Whether the callback has come back from all of them.
        """
        with self._lock:
            if self._is_open:
                self._is_open = False
                self._queue.put(None)
        self._on_close(self)
        if wait_s > 0 and self._thread is not threading.current_thread():
            self._thread.join(wait_s)
        return self.waiting == 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close(wait_s=1.0)

    def __repr__(self) -> str:
        state = "open" if self._is_open else "closed"
        return f"<Subscription {self.pattern.text} {state}, {self._done} delivered, {self._dropped} dropped>"

    def _work(self) -> None:
        while (event := self._queue.get()) is not None:
            before = self.error
            try:
                self._callback(event)
            except BaseException as error:  # noqa: BLE001 - kept for whoever looks; a thread has nobody to raise to
                self.error = error
            self._failures += self.error is not before
            self._done += 1  # this thread alone writes it
