"""A log is what was written, or the first thing that is not is named by its index and a numbered check.

Enforces: `kavach.audit.links.CHECKS`, on every file of the chain, up to its head. Does not: change anything, or see a
roll-back of log and head together to an older state; give a head or a checkpoint that was kept elsewhere for that. May
be used by: users, kavach.audit.log, kavach.cli.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from kavach.audit.head import BLOCK_BYTES, ChainHead, Head, head_path, parse_head
from kavach.audit.key import KeyRing
from kavach.audit.links import Links, fail
from kavach.audit.lock import lock_file
from kavach.audit.record import MAX_RECORD_BYTES
from kavach.audit.segments import cannot, closed_path, closed_segments, open_file, open_head
from kavach.errors import AuditError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from kavach.audit.checkpoint import Checkpoint
    from kavach.audit.key import AuditKey
    from kavach.audit.signing import PublicKey

__all__ = ["Verified", "verify_log"]


class Verified(NamedTuple):
    """What was verified.

    Args:
        head: how many records there are and the MAC of the last; worth keeping elsewhere.
        chain: the chain's id.
        files: how many files it is in.
        checkpoints: how many signed ones agree with it.
        uncounted: records after the last one that the head counts; a crash leaves them.
        torn_bytes: of an incomplete last record, likewise; opening the log sets them aside.
        has_head: the end was compared with a head file; without one a missing end is not seen.
    """

    head: ChainHead
    chain: str
    files: int
    checkpoints: int = 0
    uncounted: int = 0
    torn_bytes: int = 0
    has_head: bool = True


class _Part(NamedTuple):
    """One file of the chain, open, and how much of it there was when the log was looked at."""

    segment: int
    file: BinaryIO
    size: int


class _Witness:
    """Places that the chain must pass through, in the order of their counts."""

    def __init__(self, places: Iterable[tuple[ChainHead, str]]) -> None:
        self._waiting = sorted(places, key=lambda one: one[0].records, reverse=True)
        self.next = self._waiting[-1][0].records if self._waiting else -1

    def see(self, links: Links) -> None:
        """Compare what is known of this place."""
        while self._waiting and self._waiting[-1][0].records == links.count:
            place, check = self._waiting.pop()
            if place.mac != links.mac:
                fail(check, links.count - 1, "it is not the record that was there before")
        self.next = self._waiting[-1][0].records if self._waiting else -1

    def end(self, links: Links) -> None:
        """Say that a place was never reached."""
        if self._waiting:
            place, _ = self._waiting[-1]
            fail("truncated", links.count, f"the chain ends before it; there were {place.records} records")


def verify_log(
    path: str | os.PathLike[str],
    keys: bytes | AuditKey | KeyRing | Iterable[bytes | AuditKey],
    *,
    head: ChainHead | None = None,
    checkpoint_key: PublicKey | None = None,
    after: ChainHead | None = None,
    require_head: bool = True,
) -> Verified:
    """Check every record of a log, closed files first.

    Args:
        path: the current file.
        keys: every key that the chain was written under, in any order.
        head: a place that was kept elsewhere, which the chain must pass through.
        checkpoint_key: the public key of the checkpoints beside the log; None = they are not looked at.
        after: the place where closed files, that were moved away, had ended; None = the chain is whole.
        require_head: False verifies a copy without its head file; a missing end is then not seen.

    Raises:
        AuditError: a check does not hold: `.check` is its name, `.index` the record; or the files cannot be read.
        ConfigError: a key is none.
        UnsupportedError: this platform has no `flock`.
    """
    name = os.path.abspath(os.fspath(path))
    ring = keys if isinstance(keys, KeyRing) else KeyRing(keys)
    counted, parts = _snapshot(name, ring, require_head=require_head)
    try:
        return _verify(name, ring, counted, parts, head, checkpoint_key, after)
    finally:
        for part in parts:
            part.file.close()


def _verify(
    name: str,
    ring: KeyRing,
    counted: Head | None,
    parts: list[_Part],
    head: ChainHead | None,
    checkpoint_key: PublicKey | None,
    after: ChainHead | None,
) -> Verified:
    checkpoints = _read_checkpoints(name, checkpoint_key)
    known = [(one.place, "checkpoint") for one in checkpoints]
    known += [(place, "head") for place in (head, counted.place if counted else None) if place is not None]
    start = 0 if after is None else after.records
    witness = _Witness((place, check) for place, check in known if place.records > start)
    links = Links(ring)
    if after is not None:
        links.start_at(count=after.records, mac=after.mac, segment=parts[0].segment if parts else 0)
    elif parts and parts[0].segment != 0:
        fail("segment", 0, f"the chain begins with file {parts[0].segment}", hint="give the place it begins after")
    torn = 0
    for position, part in enumerate(parts):
        if part.segment != parts[0].segment + position:
            fail("segment", links.count, f"file {parts[0].segment + position} of the chain is missing")
        if position or after is None:
            links.start_file(part.segment)
        torn = _follow(part, links, witness, is_last=position == len(parts) - 1)
    witness.end(links)
    if counted is not None and links.chain and counted.chain != links.chain:
        fail("head", links.count - 1, "the head file belongs to another chain")
    count = links.count if counted is None else counted.count
    return Verified(
        head=ChainHead(links.count, links.mac),
        chain=links.chain,
        files=len(parts),
        checkpoints=len(checkpoints),
        uncounted=links.count - count,
        torn_bytes=torn,
        has_head=counted is not None,
    )


def _snapshot(name: str, ring: KeyRing, *, require_head: bool) -> tuple[Head | None, list[_Part]]:
    """Return the head and the files as they are at one moment; what is appended later is not looked at."""
    try:
        descriptor = open_head(name, write=False)
    except FileNotFoundError as error:
        if not os.path.lexists(name) and not closed_segments(name):
            cannot("read", name, error, check="open")
        if require_head:
            raise AuditError(
                f"{head_path(name)}: the head file is missing",
                check="head",
                hint="--no-head verifies a copy without it",
            ) from None
        return None, _open_parts(name, None)
    try:
        lock_file(descriptor, shared=True)
        head = parse_head(os.pread(descriptor, BLOCK_BYTES + 1, 0), ring)
        return head, _open_parts(name, head)
    finally:  # closing it ends the lock
        os.close(descriptor)


def _open_parts(name: str, head: Head | None) -> list[_Part]:
    numbers = closed_segments(name)
    paths = [(number, closed_path(name, number)) for number in numbers]
    current = head.segment if head is not None else (numbers[-1] + 1 if numbers else 0)
    if current in numbers:  # a crash has interrupted the change of files
        current += 1
    parts: list[_Part] = []
    try:
        for number, path in [*paths, (current, name)]:
            size = _size(path)
            if size or (size is not None and number != current):  # a current file may not have been begun yet
                parts.append(_Part(number, os.fdopen(open_file(path, write=False), "rb"), size))
    except (OSError, AuditError) as error:
        for part in parts:
            part.file.close()
        if isinstance(error, AuditError):
            raise
        cannot("read", name, error, check="open")
    return parts


def _size(path: str) -> int | None:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return None


def _follow(part: _Part, links: Links, witness: _Witness, *, is_last: bool) -> int:
    """Take every record of one file; return how many bytes of an incomplete one are at the end of the last."""
    left = part.size
    for line in _lines(part):
        left -= len(line)
        if not line.endswith(b"\n") and left == 0 and is_last and witness.next < links.count + 1:
            return len(line)
        links.take(line)
        if links.count == witness.next:
            witness.see(links)
    return 0


def _lines(part: _Part) -> Iterator[bytes]:
    left = part.size
    while left and (line := part.file.readline(min(left, MAX_RECORD_BYTES + 1))):
        left -= len(line)
        yield line


def _read_checkpoints(name: str, key: PublicKey | None) -> list[Checkpoint]:
    if key is None:
        return []
    from kavach.audit.checkpoint import read_checkpoints

    return read_checkpoints(name, key)
