"""After a crash: what was written but not counted is taken in, what is torn is set aside, what is lost is said.

Enforces: nothing is dropped silently. A last line without a line feed goes to a side file and is reported by a record;
a complete record that the head does not count yet is checked and counted; records that the head counts and that never
reached the disk are accepted as lost only where the head says that they had not been synchronised. Does not: repair a
line that was changed; that is an error with its index. Called by `kavach.audit.chain` under the log's lock.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
from typing import NamedTuple

import msgspec

from kavach.audit.canonical import canonical_json
from kavach.audit.head import Head
from kavach.audit.links import Links, fail
from kavach.audit.record import MAX_RECORD_BYTES
from kavach.audit.segments import cannot, match_beside, open_file, sync_folder
from kavach.errors import AuditError

__all__ = ["Tail", "pending_reports", "read_tail", "set_aside", "settle_report"]

_PENDING = ".pending"
_CHUNK_BYTES = 1 << 16


class Tail(NamedTuple):
    """What a file holds beyond what its head counts.

    Args:
        head: the head with every complete record counted.
        torn_bytes: how many bytes of an incomplete record follow.
        lost: how many records the head counted that are not there.
    """

    head: Head
    torn_bytes: int
    lost: int


def read_tail(log: int, size: int, head: Head, links: Links) -> Tail:
    """Return what there is, whoever wrote it and however that ended.

    Args:
        log: descriptor of the current file.
        size: of the file.
        head: the authentic head.
        links: fresh ones, with the keys of the log.

    Raises:
        AuditError: records that had reached the disk are missing, or a record does not hold.
    """
    known = head
    if size < head.size:
        if size < head.synced_size:
            raise AuditError(
                f"the log has {size} bytes; its head counts {head.size}: its end was cut off",
                check="truncated",
                hint="kavach audit verify names the first record that is missing",
            )
        known = msgspec.structs.replace(head, count=head.synced_count, size=head.synced_size, mac=head.synced_mac)
    opened = known.size > 0
    ending = b'"mac":"%b"}\n' % known.mac.encode()
    if opened and os.pread(log, len(ending), known.size - len(ending)) != ending:
        fail("head", known.count - 1, "it is not the one that the head names")
    links.start_at(
        count=known.count,
        mac=known.mac,
        segment=known.segment,
        key_id=known.key_id if opened else "",
        chain=known.chain,
    )
    place = _follow(log, known.size, links)
    counted = msgspec.structs.replace(
        known, count=links.count, size=place, mac=links.mac, key_id=links.key_id or known.key_id
    )
    return Tail(counted, size - place, max(head.count - counted.count, 0))


def _follow(log: int, place: int, links: Links) -> int:
    """Take every complete record from a place on; return the place behind the last."""
    with os.fdopen(os.dup(log), "rb") as file:
        file.seek(place)
        while line := file.readline(MAX_RECORD_BYTES + 1):
            if not line.endswith(b"\n"):
                if len(line) > MAX_RECORD_BYTES:
                    fail("form", links.count, "the line is longer than a record")
                break
            links.take(line)
            place += len(line)
    return place


def set_aside(path: str, log: int, tail: Tail) -> None:
    """Move an incomplete last record to a side file, whose name says that it is still to be reported.

    Raises:
        AuditError: it cannot be moved; the log is as it was.
    """
    start = tail.head.size
    torn = os.pread(log, tail.torn_bytes, start)
    side = f"{path}.torn-{tail.head.count}-{hashlib.sha256(torn).hexdigest()[:8]}{_PENDING}"
    try:
        descriptor = open_file(side, create=True)
        try:
            os.ftruncate(descriptor, 0)
            if os.write(descriptor, torn) != len(torn):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        sync_folder(side)
        # ORDER: cut only what is safe elsewhere.
        os.ftruncate(log, start)
    except OSError as error:
        cannot("set the torn last line aside", side, error)


def pending_reports(path: str) -> list[str]:
    """Return the side files of a log that no record has reported yet."""
    folder = os.path.dirname(path)
    found = match_beside(path, rf"\.torn-\d+-[0-9a-f]{{8}}{re.escape(_PENDING)}")
    return sorted(os.path.join(folder, one.string) for one in found)


def report_torn(side: str) -> bytes:
    """Return the payload of the record that reports a side file."""
    digest, size = hashlib.sha256(), 0
    try:
        with open(side, "rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
                size += len(chunk)
    except OSError as error:
        cannot("read", side, error, check="open")
    name = os.path.basename(side).removesuffix(_PENDING)
    return canonical_json({"side_file": name, "torn_bytes": size, "torn_sha256": digest.hexdigest()})


def settle_report(side: str) -> None:
    """Give a side file its final name: it has been reported.

    Raises:
        AuditError: it cannot be renamed.
    """
    try:
        os.replace(side, side.removesuffix(_PENDING))
    except OSError as error:
        cannot("rename", side, error)
