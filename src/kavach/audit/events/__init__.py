"""Events of sandboxes, inside one process: a bus, patterns, subscriptions that cannot harm anybody.

Guarantees: publishing never waits and never raises because of a subscriber; a slow, blocking or raising subscriber
loses its own events, which are counted, and nobody else's; an event holds names, numbers and Kavach's own words, never
bytes.
Does not: store events, or send them anywhere (`kavach.audit.sinks` does). May be called by: users and kavach.sandbox.
"""

from __future__ import annotations

from kavach.audit.events.announcer import Announcer, make_announcer
from kavach.audit.events.bus import BusMetrics, EventBus
from kavach.audit.events.event import EVENT_SCHEMA, Event
from kavach.audit.events.subscription import Subscription

__all__ = ["EVENT_SCHEMA", "Announcer", "BusMetrics", "Event", "EventBus", "Subscription", "make_announcer"]
