"""One event: what happened to which sandbox, when.

Enforces: its values are text, numbers, truth values, None, and tuples of those; bytes cannot be put in. It cannot be
changed, so that no subscriber can change what the next one sees. Does not: publish. May be used by: everybody.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from kavach.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["EVENT_SCHEMA", "Event", "Value", "plain_pairs"]

EVENT_SCHEMA = "kavach.event/1"
"""The version of `to_dict`; a field may be added within it, none changes meaning or goes."""

Scalar = str | int | float | bool | None
Value = Scalar | tuple[Scalar, ...]
Pairs = tuple[tuple[str, Value], ...]

_SCALARS = frozenset({str, int, float, bool, type(None)})


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that happened to a sandbox.

    Args:
        serial: counts the events of one bus from 1; a gap says that others were not for this subscriber, or dropped.
        time_s: when, seconds since 1970 (UTC).
        topic: what kind of thing, and of which sandbox: `sandbox/<id>/lifecycle/started`.
        agent_id: the agent that the sandbox was configured for, or None.
        fields: what is known of it, as pairs; `payload` is the same as a dict.
        label_pairs: the configuration's labels, as pairs; `labels` is the same as a dict.
    """

    serial: int
    time_s: float
    topic: str
    agent_id: str | None = None
    fields: Pairs = ()
    label_pairs: tuple[tuple[str, str], ...] = ()

    @property
    def sandbox_id(self) -> str:
        """The sandbox that it happened to."""
        return self.topic.split("/", 2)[1]

    @property
    def kind(self) -> str:
        """The topic behind the sandbox's id: `lifecycle/started`."""
        return self.topic.split("/", 2)[2]

    @property
    def payload(self) -> dict[str, Value]:
        """What is known of it; a copy of the caller's own."""
        return dict(self.fields)

    @property
    def labels(self) -> dict[str, str]:
        """The configuration's labels; a copy of the caller's own."""
        return dict(self.label_pairs)

    @property
    def time_utc(self) -> str:
        """When, ISO 8601 with milliseconds."""
        return datetime.fromtimestamp(self.time_s, UTC).isoformat(timespec="milliseconds")

    def to_dict(self) -> dict[str, Any]:
        """Return the event as JSON can hold it, under the schema `kavach.event/1`."""
        return {
            "schema": EVENT_SCHEMA,
            "serial": self.serial,
            "time_utc": self.time_utc,
            "topic": self.topic,
            "sandbox_id": self.sandbox_id,
            "agent_id": self.agent_id,
            "labels": self.labels,
            "payload": self.payload,
        }

    def to_json(self) -> bytes:
        """Return `to_dict` as one line of JSON, without the line feed."""
        return msgspec.json.encode(self.to_dict())


def plain_pairs(payload: Mapping[str, Any]) -> Pairs:
    """Return a payload as pairs that nobody can change.

    Raises:
        ConfigError: a value is of a type that an event does not carry; the message names its key, never the value.
    """
    return tuple([(key, value if type(value) in _SCALARS else _plain(key, value)) for key, value in payload.items()])


def _plain(key: str, value: object) -> Value:
    # SECURITY: output is bytes until the gate has released it; refusing the type keeps it out of every sink.
    if isinstance(value, (list, tuple)):
        return tuple([_scalar(key, member) for member in value])
    return _scalar(key, value)


def _scalar(key: str, value: object) -> Scalar:
    if type(value) in _SCALARS:
        return value  # type: ignore[return-value]  # the set holds exactly the scalar types
    if isinstance(value, str):  # an enum of ours: `enforced`, `timeout`
        return str(value)
    raise ConfigError(f"$.payload.{key}: an event carries text and numbers, got {type(value).__name__}", key=key)
