"""Who gets which warm sandbox, in which order: a state machine behind one lock, shared by both pools.

Guarantees: claims are served first come, first served; a sandbox is handed to one claim at most; never more than
`max_size` are made, kept and handed out together. Does not: build, destroy, wait, or read a clock. May be called by:
kavach.pool. Safe to call from any thread.

The rule: a claim takes the sandbox that was made first. Where none stands, it builds one itself (a miss), but for
`max_size`: then it waits, behind the claims that came before it, for a sandbox that comes back or for room to build.
"""

from __future__ import annotations

import threading
import weakref
from collections import deque
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class Kept(NamedTuple, Generic[T]):
    """A sandbox that waits for a claim, and since when it has stood (monotonic)."""

    item: T
    made_s: float


class Ticket(Generic[T]):
    """One claim's place in the queue.

    Attributes:
        is_served: its turn has come: `item` is its own or, where that is None, the room to build one.
        is_refused: the pool has closed.
        has_waited: it was not served at once.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self.wake = wake
        self.item: T | None = None
        self.is_served = False
        self.is_refused = False
        self.has_waited = False


class Ledger(Generic[T]):
    """The pool's books.

    Args:
        warm: how many to keep standing.
        max_size: how many may exist, None for any number.
        is_fit: the cheap look before a sandbox is handed out.
        on_change: told that there may be work in the background.
    """

    def __init__(
        self, *, warm: int, max_size: int | None, is_fit: Callable[[Kept[T]], bool], on_change: Callable[[], None]
    ) -> None:
        self._warm = warm
        self._max_size = max_size
        self._is_fit = is_fit
        self._on_change = on_change
        self._lock = threading.Lock()
        self._ready: deque[Kept[T]] = deque()
        self._queue: deque[Ticket[T]] = deque()
        self._out: weakref.WeakSet[T] = weakref.WeakSet()
        self._building = 0
        self._returning = 0
        self._unfit: list[T] = []
        self._is_closed = False

    def claim(self, ticket: Ticket[T]) -> None:
        """Serve a claim now or put it into the queue; `ticket.wake` is called when it is served later."""
        with self._lock:
            self._queue.append(ticket)
            woken = self._serve()
            ticket.has_waited = not (ticket.is_served or ticket.is_refused)
        self._tell(woken, but=ticket)

    def withdraw(self, ticket: Ticket[T]) -> bool:
        """Take a claim out of the queue; False where it has been served or refused meanwhile."""
        with self._lock:
            if ticket.is_served or ticket.is_refused:
                return False
            self._queue.remove(ticket)
            return True

    def begin_build(self) -> bool:
        """Reserve room for one more warm sandbox; False where none is wanted or there is no room."""
        with self._lock:
            wanted = len(self._ready) + self._building < self._warm
            if self._is_closed or not wanted or not self._has_room():
                return False
            self._building += 1
            return True

    def end_build(self, kept: Kept[T] | None) -> bool:
        """Take in what was built, None for a failure; False where the pool has closed and it must be destroyed."""
        with self._lock:
            self._building -= 1
            woken = self._keep(kept)
            is_closed = self._is_closed
        self._tell(woken)
        return not is_closed

    def built_for(self, item: T | None) -> None:
        """Note what a claim that had to build has built, None for a failure."""
        with self._lock:
            self._building -= 1
            if item is not None:
                self._out.add(item)
            woken = self._serve()
        self._tell(woken)

    def give_up(self, item: T) -> bool:
        """Note that a claimed sandbox will not be used any more; False where it was none. Its room is free at once."""
        with self._lock:
            if item not in self._out:
                return False
            self._out.discard(item)
            woken = self._serve()
        self._tell(woken)
        return True

    def give_back(self, item: T) -> bool:
        """Note that a claimed sandbox is on its way back; False where it was none. `end_return` must follow."""
        with self._lock:
            if item not in self._out:
                return False
            self._out.discard(item)
            self._returning += 1
            return True

    def end_return(self, kept: Kept[T] | None) -> bool:
        """Take a sandbox back in, None where it cannot be used again; False as for `end_build`."""
        with self._lock:
            self._returning -= 1
            woken = self._keep(kept)
            is_closed = self._is_closed
        self._tell(woken)
        return not is_closed

    def take_unfit(self, is_old: Callable[[Kept[T]], bool]) -> list[T]:
        """Return what is to be destroyed: unfit and too old sandboxes; they are nobody's any more."""
        with self._lock:
            old = [kept for kept in self._ready if is_old(kept) or not self._is_fit(kept)]
            for kept in old:
                self._ready.remove(kept)
            unfit, self._unfit = [*self._unfit, *(kept.item for kept in old)], []
            woken = self._serve()  # a forgotten claim, or an old sandbox, has made room
        self._tell(woken)
        return unfit

    def close(self) -> list[T]:
        """Refuse every claim from now on; return what stands, to be destroyed."""
        with self._lock:
            self._is_closed = True
            items = [*(kept.item for kept in self._ready), *self._unfit]
            self._ready.clear()
            self._unfit.clear()
            woken = self._serve()
        self._tell(woken)
        return items

    def claimed(self) -> list[T]:
        """Return what is handed out."""
        with self._lock:
            return list(self._out)

    def counts(self) -> tuple[int, int, int]:
        """Return how many stand, are handed out, and are being built or taken back."""
        with self._lock:
            return len(self._ready), len(self._out), self._building + self._returning

    @property
    def is_closed(self) -> bool:
        """Whether claims are refused."""
        return self._is_closed

    def _has_room(self) -> bool:
        held = len(self._ready) + len(self._out) + self._building + self._returning
        return self._max_size is None or held < self._max_size

    def _keep(self, kept: Kept[T] | None) -> list[Ticket[T]]:
        if kept is not None and not self._is_closed:
            self._ready.append(kept)
        return self._serve()

    def _serve(self) -> list[Ticket[T]]:
        """Serve the queue from its head as far as possible; return who was."""
        served = []
        while self._queue and (self._is_closed or self._serve_one(self._queue[0])):
            ticket = self._queue.popleft()
            ticket.is_refused = not ticket.is_served
            served.append(ticket)
        return served

    def _serve_one(self, ticket: Ticket[T]) -> bool:
        while self._ready:
            kept = self._ready.popleft()
            if self._is_fit(kept):
                ticket.item = kept.item
                ticket.is_served = True
                self._out.add(kept.item)
                return True
            self._unfit.append(kept.item)
        if self._has_room():
            ticket.is_served = True
            self._building += 1
            return True
        return False

    def _tell(self, woken: list[Ticket[T]], *, but: Ticket[T] | None = None) -> None:
        for ticket in woken:
            if ticket is not but:
                ticket.wake()
        self._on_change()
