"""The links of a chain, followed record by record: which check fails at which index, if any does.

Enforces: the numbered checks of one line after another. Does not: read files, or know where a chain ends (the head
does). Pure. May be used by: kavach.audit.
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, Annotated, NoReturn, TypeVar

import msgspec
from msgspec import Meta

from kavach.audit.record import FIRST_PREV, RECORD_VERSION, read_line
from kavach.errors import AuditError

if TYPE_CHECKING:
    from kavach.audit.key import AuditKey, KeyRing
    from kavach.audit.record import Fields

__all__ = ["CHECKS", "GENESIS", "KEY_ROTATED", "RECOVERED", "RESERVED_PREFIX", "ROTATED", "Links", "Opening", "fail"]

RESERVED_PREFIX = "chain."
GENESIS = "chain.genesis"
ROTATED = "chain.rotated"
KEY_ROTATED = "chain.key_rotated"
RECOVERED = "chain.recovered"

CHECKS = {
    "form": "1. the line is exactly the canonical text of one record, and ends with a line feed",
    "serial": "2. its serial is the number of records before it",
    "prev": "3. its prev is the MAC of the record before",
    "opening": "4. a file begins with its opening record (genesis, or rotated), and no other record is one",
    "key": "5. the key that it was written under was given",
    "mac": "6. its MAC is the HMAC-SHA256 of all its other fields under that key",
    "segment": "7. no file of the chain is missing, and they follow one another",
    "head": "8. the head file is there, authentic, and agrees with the record that it names",
    "truncated": "9. every record that a head counts is there",
    "checkpoint": "10. every checkpoint is signed by the key, and agrees with the record that it names",
}
"""Every check of a verification, in the order in which they are done."""

T = TypeVar("T")
Id = Annotated[str, Meta(pattern="^[0-9a-f]{16}$")]
_OPENINGS = {f'"{GENESIS}"'.encode(), f'"{ROTATED}"'.encode()}
_KEY_ROTATED = f'"{KEY_ROTATED}"'.encode()
_STRUCTURAL = _OPENINGS | {_KEY_ROTATED}
_FIRST_PREV = f'"{FIRST_PREV}"'.encode()


class Opening(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The payload of the first record of a file.

    Args:
        version: of the records' form.
        chain: the chain's id, random.
        key_id: the key that this record is written under.
        segment: how many files were closed before this one.
        previous: the name of the file before; empty in the genesis record.
    """

    version: int
    chain: Id
    key_id: Id
    segment: int
    previous: str = ""


class _NewKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    key_id: Id


def fail(check: str, index: int, what: str, *, hint: str | None = None) -> NoReturn:
    """Say that a check does not hold.

    Raises:
        AuditError: always.
    """
    raise AuditError(f"record {index}: {what} (check {check})", index=index, check=check, hint=hint)


class Links:
    """A place in a chain that moves on with each record that holds.

    Args:
        ring: the keys that the chain may have been written under.
    """

    __slots__ = ("_at_start", "_key", "_prev", "_ring", "chain", "count", "segment")

    def __init__(self, ring: KeyRing) -> None:
        self._ring = ring
        self._key: AuditKey | None = None
        self._prev = _FIRST_PREV
        self._at_start = True
        self.chain: str = ""
        self.count: int = 0
        self.segment: int = 0

    @property
    def mac(self) -> str:
        """The MAC of the last record."""
        return self._prev[1:-1].decode()

    @property
    def key_id(self) -> str:
        """The key that the next record is written under; empty before the first."""
        return "" if self._key is None else self._key.id

    def start_at(self, *, count: int, mac: str, segment: int, key_id: str = "", chain: str = "") -> None:
        """Go on behind records that somebody else vouches for.

        Args:
            count: how many.
            mac: of the last of them.
            segment: the file in which the next one is.
            key_id: the key in force, where the next record does not open a file.
            chain: the chain's id; empty = as the next opening record says.

        Raises:
            AuditError: the key was not given.
        """
        self.count, self._prev, self.segment, self.chain = count, b'"%b"' % mac.encode(), segment, chain
        self._key = self._ring.require(key_id, index=count) if key_id else None
        self._at_start = not key_id

    def start_file(self, segment: int) -> None:
        """Expect the opening record of the next file."""
        self.segment, self._at_start = segment, True

    def take(self, line: bytes) -> None:
        """Move on by one record.

        Args:
            line: with its line feed.

        Raises:
            AuditError: a check does not hold; `.index` and `.check` name it.
        """
        index = self.count
        found = read_line(line)
        if found is None:
            fail("form", index, "the line is not the text of a record")
        fields, mac = found
        if fields.serial != b"%d" % index:
            fail("serial", index, "a record with another serial is here")
        if fields.prev != self._prev:
            fail("prev", index, "it does not follow the record before")
        if (fields.event in _OPENINGS) is not self._at_start:
            fail("opening", index, "a file does not open here" if self._at_start is False else "expected an opening")
        key = self._key_of(fields) if self._at_start else self._key
        # SECURITY: compared in constant time, so that nobody learns a MAC byte by byte from a verifier.
        if key is None or not hmac.compare_digest(key.mac(fields.covered()), mac):
            fail("mac", index, "it is not what was written")
        self._key, self._prev, self.count, self._at_start = key, b'"%b"' % mac.encode(), index + 1, False
        if fields.event == _KEY_ROTATED:
            self._key = self._ring.require(_read(fields, _NewKey, index).key_id, index=index + 1)

    def _key_of(self, fields: Fields) -> AuditKey:
        """Return the key of a file's opening record, once it is the opening of this file."""
        index, said = self.count, _read(fields, Opening, self.count)
        if said.version != RECORD_VERSION:
            fail("opening", index, f"records of version {said.version}; this Kavach reads {RECORD_VERSION}")
        if (fields.event == f'"{GENESIS}"'.encode()) is not (index == 0):
            fail("opening", index, "a chain begins with its genesis record, and has one")
        if said.segment != self.segment:
            fail("segment", index, f"file {said.segment} of the chain is here; expected file {self.segment}")
        if self.chain and said.chain != self.chain:
            fail("segment", index, "the file belongs to another chain")
        self.chain = said.chain
        if self._key is not None and said.key_id != self._key.id:
            fail("key", index, "the file opens under another key than the one in force")
        return self._ring.require(said.key_id, index=index)


def _read(fields: Fields, kind: type[T], index: int) -> T:
    try:
        return msgspec.json.decode(fields.payload, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError):
        fail("opening", index, "its payload is not that of such a record")
