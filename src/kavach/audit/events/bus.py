"""The bus: what is published reaches everyone whose pattern matches, and nobody can hold it up.

Guarantees: `publish` takes microseconds, waits for no subscriber, and raises for nobody's sake but the publisher's own
(a topic or a payload that cannot be). Does not: keep events; who subscribes later has missed them. May be called by:
users, kavach.sandbox, kavach.audit. Safe to call from any thread, and from a finalizer.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self

from kavach.audit.events.event import Event, plain_pairs
from kavach.audit.events.patterns import Pattern, parse_pattern, require_topic
from kavach.audit.events.subscription import Subscription
from kavach.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from kavach.audit.events.stream import EventStream

__all__ = ["BusMetrics", "EventBus"]

QUEUE_SIZE = 1024  # protects the host's memory from a subscriber that never reads; about 1 MiB of events
_LARGEST_QUEUE = 1 << 20


class BusMetrics(NamedTuple):
    """What a bus has done.

    Args:
        published: events so far.
        dropped: events that found somebody's queue full, once for each.
        subscribers: that are there now.
    """

    published: int
    dropped: int
    subscribers: int


class Subscriber(Protocol):
    """Who is on the bus."""

    pattern: Pattern

    def offer(self, event: Event) -> bool:
        """Queue an event, or drop and count it; at once."""

    def close(self, wait_s: float = 0.0) -> bool:
        """Take no more."""


class EventBus:
    """A bus for the events of any number of sandboxes: `Sandbox(events=bus)`.

        with EventBus() as bus:
            bus.subscribe("sandbox/*/scan/#", print)
            kavach.run(["true"], events=bus)

    Args:
        clock: seconds since 1970, for the events' time.
    """

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        # SECURITY: reentrant, because a collected sandbox publishes its end from wherever the collector ran.
        self._lock = threading.RLock()
        self._subscribers: tuple[Subscriber, ...] = ()
        self._is_closed = False
        self._published = self._dropped = 0

    def subscribe(
        self, pattern: str, callback: Callable[[Event], object], *, queue_size: int = QUEUE_SIZE
    ) -> Subscription:
        """Call `callback` with every event from now on whose topic the pattern means, in a thread of its own.

        Args:
            pattern: segments split by `/`; `*` is any one, `#` at the end the rest.
            callback: takes one event; may block and raise without harm to anybody.
            queue_size: how many events may wait; more are dropped and counted.

        Raises:
            ConfigError: an argument is wrong, or the bus is closed.
        """
        if not callable(callback):
            raise ConfigError(f"callback: expected a callable, got {type(callback).__name__}", key="callback")
        size = _require_size(queue_size)
        made = Subscription(parse_pattern(pattern), callback, queue_size=size, on_close=self._remove)
        self._add(made)
        return made

    def stream(self, pattern: str, *, queue_size: int = QUEUE_SIZE) -> EventStream:
        """Return an async iterator over every event from now on whose topic the pattern means.

        Args:
            pattern: as for `subscribe`.
            queue_size: likewise.

        Raises:
            ConfigError: an argument is wrong, or the bus is closed.
        """
        from kavach.audit.events.stream import EventStream, Inbox

        inbox = Inbox(parse_pattern(pattern), queue_size=_require_size(queue_size), on_close=self._remove)
        made = EventStream(inbox)  # first, so that a closed bus leaves no socket open
        self._add(inbox)
        return made

    def publish(
        self,
        topic: str,
        payload: Mapping[str, Any] | None = None,
        *,
        agent_id: str | None = None,
        labels: tuple[tuple[str, str], ...] = (),
    ) -> None:
        """Queue an event for everyone whose pattern matches; a closed bus takes it and tells nobody.

        Args:
            topic: `area/<sandbox id>/what...`; the sandbox's are `sandbox/<id>/...`.
            payload: names to text, numbers, truth values, None, or tuples of those; never bytes.
            agent_id: the sandbox's agent, or None.
            labels: the sandbox's labels as pairs.

        Raises:
            ConfigError: the topic cannot be, or the payload and somebody would have got it.
        """
        segments = require_topic(topic)
        wanted = [one for one in self._subscribers if one.pattern.matches(segments)]
        fields = plain_pairs(payload) if payload and wanted else ()
        # ORDER: one lock from the serial to the queues, so that each queue is in the order of the serials.
        with self._lock:
            self._published += 1
            if not wanted:
                return
            event = Event(
                serial=self._published,
                time_s=self._clock(),
                topic=topic,
                agent_id=agent_id,
                fields=fields,
                label_pairs=labels,
            )
            for one in wanted:
                self._dropped += not one.offer(event)

    def metrics(self) -> BusMetrics:
        """Return what the bus has done so far."""
        with self._lock:
            return BusMetrics(self._published, self._dropped, len(self._subscribers))

    def drain(self, timeout_s: float) -> bool:
        """Wait until every callback has come back from what is queued; False where one has not in time."""
        deadline = time.monotonic() + timeout_s
        callbacks = [one for one in self._subscribers if isinstance(one, Subscription)]
        came_back = [one.drain(max(0.0, deadline - time.monotonic())) for one in callbacks]
        return all(came_back)

    def close(self, wait_s: float = 1.0) -> bool:
        """Take no more subscribers or events; what is queued is delivered for at most `wait_s`. Idempotent.

        Returns:
            Whether every callback has come back from everything.
        """
        deadline = time.monotonic() + wait_s
        with self._lock:
            self._is_closed = True
            leaving = self._subscribers
        came_back = [one.close(wait_s=max(0.0, deadline - time.monotonic())) for one in leaving]
        return all(came_back)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        found = self.metrics()
        return f"<EventBus {found.published} published, {found.dropped} dropped, {found.subscribers} subscribers>"

    def _add(self, subscriber: Subscriber) -> None:
        with self._lock:
            is_closed = self._is_closed
            if not is_closed:
                self._subscribers = (*self._subscribers, subscriber)
        if is_closed:
            subscriber.close()
            raise ConfigError("the bus is closed; expected an open one to subscribe to", key="bus")

    def _remove(self, subscriber: Subscriber) -> None:
        with self._lock:
            self._subscribers = tuple(one for one in self._subscribers if one is not subscriber)


def _require_size(size: object) -> int:
    if not isinstance(size, int) or isinstance(size, bool) or not 1 <= size <= _LARGEST_QUEUE:
        raise ConfigError(f"queue_size: expected a whole number from 1 to {_LARGEST_QUEUE}", key="queue_size")
    return size
