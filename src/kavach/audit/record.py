"""One record is one line, and its MAC covers every byte of that line.

Enforces: eight fields in one order, each as canonical JSON; what the MAC is over is a tag and the first seven behind
their lengths, so that no two records have one form. Does not: know what came before, or do I/O. Pure. May be used by:
kavach.audit.
"""

from __future__ import annotations

import functools
import struct
from typing import NamedTuple

import msgspec

from kavach.audit.canonical import canonical_json

__all__ = ["FIRST_PREV", "MAX_RECORD_BYTES", "RECORD_VERSION", "Fields", "Record", "RecordLine", "read_line"]

RECORD_VERSION = 1
"""The version of the line's form and of what the MAC covers; the first record of each file carries it."""
MAX_RECORD_BYTES = 1 << 20  # protects whoever verifies a log from a line that fills the memory
FIRST_PREV = "0" * 64  # what the first record of a chain follows
_TAG = b"kavach.audit.record/1\0"
_LENGTHS = struct.Struct(">7I").pack


class Fields(NamedTuple):
    """What the MAC covers: each field as the bytes of its JSON, in the order of the line."""

    serial: bytes
    time_utc: bytes
    event: bytes
    sandbox_id: bytes
    agent_id: bytes
    payload: bytes
    prev: bytes

    def covered(self) -> bytes:
        """Return the form that the MAC is over: the tag, seven lengths (4 bytes, big-endian), the seven fields."""
        return b"".join((_TAG, _LENGTHS(*map(len, self)), *self))

    def line(self, mac: str) -> bytes:
        """Return the record as one line, with its line feed."""
        return (
            b'{"serial":%b,"time_utc":%b,"event":%b,"sandbox_id":%b,"agent_id":%b,"payload":%b,"prev":%b,"mac":"%b"}\n'
            % (*self, mac.encode())
        )


class Record(NamedTuple):
    """A record as it will be written; `fields` gives the bytes.

    Args:
        serial: counts the records of a chain from 0.
        time_utc: of `utc_text`.
        event: what happened: a word that JSON writes as it is.
        sandbox_id: to which sandbox, or None.
        agent_id: on behalf of which agent, or None.
        payload: what is known of it, as canonical JSON.
        prev: the MAC of the record before.
    """

    serial: int
    time_utc: str
    event: str
    sandbox_id: str | None
    agent_id: str | None
    payload: bytes
    prev: str

    def fields(self) -> Fields:
        """Return every field as the bytes of its JSON.

        Raises:
            ConfigError: an id is no text that UTF-8 can carry.
        """
        return Fields(
            b"%d" % self.serial,
            b'"%b"' % self.time_utc.encode(),
            b'"%b"' % self.event.encode(),
            _quoted(self.sandbox_id),
            _quoted(self.agent_id),
            self.payload,
            b'"%b"' % self.prev.encode(),
        )


@functools.lru_cache(maxsize=256)
def _quoted(text: str | None) -> bytes:
    return canonical_json(text)


class RecordLine(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, gc=False):
    """The fields of a line that was read, as they stand in it."""

    serial: msgspec.Raw
    time_utc: msgspec.Raw
    event: msgspec.Raw
    sandbox_id: msgspec.Raw
    agent_id: msgspec.Raw
    payload: msgspec.Raw
    prev: msgspec.Raw
    mac: str

    def fields(self) -> Fields:
        """Return what the MAC covers."""
        return Fields(
            bytes(self.serial),
            bytes(self.time_utc),
            bytes(self.event),
            bytes(self.sandbox_id),
            bytes(self.agent_id),
            bytes(self.payload),
            bytes(self.prev),
        )


_read = msgspec.json.Decoder(RecordLine).decode


def read_line(line: bytes) -> tuple[Fields, str] | None:
    """Return the fields and the MAC of a line, or None where it is not exactly what `Fields.line` writes.

    Args:
        line: with its line feed.
    """
    try:
        found = _read(line)
        fields = found.fields()
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    # SECURITY: JSON has many texts for one value; only the one that was written is taken, so no byte is free to change.
    return (fields, found.mac) if found.mac.isascii() and fields.line(found.mac) == line else None
