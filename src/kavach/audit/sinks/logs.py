"""Events -> the standard library's logging.

Guarantees: one line an event, in ASCII, with control characters escaped, so that nothing in an event can forge another
line. Does not: configure logging. May be called by: users, kavach.cli.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import msgspec

from kavach.audit.events import topics

if TYPE_CHECKING:
    from kavach.audit.events.event import Event

__all__ = ["LoggingSink", "level_of"]

_LEVELS = {
    topics.POLICY_VIOLATION: logging.WARNING,
    topics.POLICY_BLOCKED: logging.WARNING,
    topics.POLICY_DEGRADED: logging.WARNING,
    topics.ATTESTATION_FAILED: logging.ERROR,
    topics.SCAN_BLOCKED: logging.ERROR,
    topics.SCAN_QUARANTINED: logging.ERROR,
    topics.SCAN_WARNING: logging.WARNING,
    topics.EGRESS_DENIED: logging.WARNING,
}


def level_of(kind: str) -> int:
    """Return how loud an event of this kind is, as one of logging's levels."""
    return logging.WARNING if kind.startswith("limit/") else _LEVELS.get(kind, logging.INFO)


class LoggingSink:
    """Logs each event it is called with.

    Args:
        logger: which; None = `kavach.events`. The whole event is the record's `kavach` attribute.
    """

    def __init__(self, logger: logging.Logger | None = None) -> None:
        self._logger = logging.getLogger("kavach.events") if logger is None else logger

    def __call__(self, event: Event) -> None:
        """Log one event."""
        level = level_of(event.kind)
        if self._logger.isEnabledFor(level):
            # SECURITY: JSON escapes line feeds and ESC; the ASCII of it, and DEL, what else could forge a line.
            text = msgspec.json.encode(event.payload).decode().encode("ascii", "backslashreplace").decode()
            plain = text.replace("\x7f", "\\x7f")
            self._logger.log(level, "%s %s", event.topic, plain, extra={"kavach": event.to_dict()})
