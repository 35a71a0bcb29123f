"""The chain on the disk: a record is one write and the head counts it, or nothing has happened.

Enforces: whoever appends stands at the end of the chain first, whoever moved it there; a record is whole in the file
and counted by the head, or `AuditError` is raised and the file is as it was. Does not: decide what is recorded, or
verify what is old. May be used by: kavach.audit.log and the flusher.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec

from kavach.audit.canonical import canonical_json
from kavach.audit.clock import utc_text
from kavach.audit.files import LogFiles
from kavach.audit.head import Head, parse_head
from kavach.audit.links import GENESIS, KEY_ROTATED, RECOVERED, ROTATED, Links, Opening
from kavach.audit.record import FIRST_PREV, MAX_RECORD_BYTES, RECORD_VERSION, Record
from kavach.audit.recovery import pending_reports, read_tail, report_torn, set_aside, settle_report
from kavach.audit.segments import closed_path, closed_segments
from kavach.errors import AuditError

if TYPE_CHECKING:
    from collections.abc import Callable

    from kavach.audit.head import ChainHead
    from kavach.audit.key import AuditKey, KeyRing

__all__ = ["Chain"]


class Chain:
    """One log's chain, as this process last saw it.

    Args:
        path: the current file's.
        ring: the keys; the first is the one that a new chain begins with.
        clock_ns: returns the time of a record, nanoseconds since 1970.
        rotate_bytes: a file that has grown to this size is closed; None = never.
    """

    def __init__(self, path: str, ring: KeyRing, *, clock_ns: Callable[[], int], rotate_bytes: int | None) -> None:
        self.path = path
        self._ring = ring
        self._clock_ns = clock_ns
        self._rotate_bytes = rotate_bytes
        self._files = LogFiles(path)
        self._block = b""
        self._head: Head | None = None

    @property
    def head(self) -> Head:
        """The end of the chain as it was last seen."""
        if self._head is None:
            raise AuditError(f"{self.path}: the log is closed", check="open")
        return self._head

    def abandon(self) -> None:
        """In a fork: what was inherited belongs to the process that forked."""
        self._files.abandon()
        self._block, self._head = b"", None

    def open(self) -> None:
        """Stand at the end of the chain, which is begun where there is none; report what a crash left.

        Raises:
            AuditError: the files cannot be had, are not this chain's, or its end does not hold.
        """
        with self._files:
            self._catch_up()
            self._open_current()
            self._report_torn()

    def append(
        self, event: str, sandbox_id: str | None, agent_id: str | None, payload: bytes, *, durable: bool
    ) -> ChainHead:
        """Write one record and return the place behind it.

        Raises:
            AuditError: it could not be written; nothing was.
        """
        with self._files:
            self._catch_up()
            self._open_current()
            self._write(event, payload, sandbox_id, agent_id)
            if durable:
                self._sync_held()
            return self.head.place

    def rotate_key(self, key: AuditKey) -> ChainHead:
        """Write, under the old key, that the next record is under another one.

        Raises:
            AuditError: it could not be written; the old key stays in force.
        """
        with self._files:
            self._catch_up()
            self._open_current()
            self._ring.add(key)
            self._write(KEY_ROTATED, canonical_json({"key_id": key.id}), next_key=key)
            self._sync_held()
            return self.head.place

    def place(self) -> ChainHead:
        """Return how many records there are now, by whoever wrote them, and the MAC of the last.

        Raises:
            AuditError: the log cannot be read.
        """
        with self._files:
            self._catch_up()
            return self.head.place

    def sync(self) -> None:
        """Put every record on the disk that this process has seen, without keeping others from appending meanwhile.

        Raises:
            AuditError: the disk refused; nothing can be recorded from now on.
        """
        seen, descriptor = self._head, self._files.copy_descriptor()
        if descriptor is None:
            return
        try:
            if seen is None or seen.synced_count == seen.count:
                return
            self._files.sync(descriptor)
        finally:
            os.close(descriptor)
        with self._files:
            self._catch_up()
            now = self.head
            if now.segment == seen.segment and now.synced_count < seen.count <= now.count:
                synced = {"synced_count": seen.count, "synced_size": seen.size, "synced_mac": seen.mac}
                self._count(msgspec.structs.replace(now, **synced))

    def close(self) -> None:
        """Put everything on the disk and let the files go; idempotent.

        Raises:
            AuditError: the disk refused.
        """
        try:
            self.sync()
        finally:
            self._files.close()
            self._block, self._head = b"", None

    # What follows is done while the files are held.

    def _catch_up(self) -> None:
        """Stand where the chain ends now, whoever moved it."""
        block = self._files.read_head()
        if block == self._block and self._head is not None and self._files.has_size(self._head.size):
            return
        self._stand_at(parse_head(block, self._ring) if block else self._begin())

    def _begin(self) -> Head:
        """Return the head of a chain without records, where nothing is left of another one."""
        if os.path.lexists(self.path) or closed_segments(self.path):
            raise AuditError(
                f"{self.path}: there is a log without its head file",
                check="head",
                hint="put the head file back, or move the log away and begin a new one",
            )
        head = Head(
            chain=os.urandom(8).hex(),
            key_id=self._ring.first.id,
            segment=0,
            count=0,
            size=0,
            mac=FIRST_PREV,
            synced_count=0,
            synced_size=0,
            synced_mac=FIRST_PREV,
        )
        self._count(head)
        return head

    def _stand_at(self, head: Head) -> None:
        """Hold the file that the head speaks of; take in, set aside and report what a crash has left behind it."""
        try:
            size = self._files.open_log()
        except FileNotFoundError:
            head, size = self._step_over(head), 0
            self._count(head)  # ORDER: the head first; an empty file must never stand for one that it counts records in
            self._files.create_log()
        tail = read_tail(self._files.log, size, head, Links(self._ring))
        if tail.torn_bytes:
            set_aside(self.path, self._files.log, tail)
        self._count(tail.head)
        if tail.lost:
            self._open_current()
            self._write(RECOVERED, canonical_json({"lost_records": tail.lost}))
        if tail.torn_bytes:
            self._open_current()
            self._report_torn()

    def _report_torn(self) -> None:
        for side in pending_reports(self.path):
            self._write(RECOVERED, report_torn(side))
            settle_report(side)

    def _step_over(self, head: Head) -> Head:
        """Return the head of the next file, where the current one has been closed, or never been begun."""
        if head.size == 0:
            return head
        try:
            size = os.stat(closed_path(self.path, head.segment)).st_size
        except OSError:
            size = -1
        if size != head.size:
            raise AuditError(f"{self.path}: the log is missing", check="truncated")
        return msgspec.structs.replace(
            head, segment=head.segment + 1, size=0, synced_count=head.count, synced_size=0, synced_mac=head.mac
        )

    def _open_current(self) -> None:
        """See to it that the next record has a file that was opened and is not too large."""
        if self._rotate_bytes is not None and self.head.size >= self._rotate_bytes:
            self._sync_held()
            # ORDER: the name first; `_step_over` goes on from there, also after a crash.
            self._files.close_segment(self.head.segment)
            self._stand_at(self.head)
        head = self.head
        if head.size:
            return
        is_first = head.count == 0
        opening = Opening(
            version=RECORD_VERSION,
            chain=head.chain,
            key_id=head.key_id,
            segment=head.segment,
            previous="" if is_first else os.path.basename(closed_path(self.path, head.segment - 1)),
        )
        self._write(GENESIS if is_first else ROTATED, canonical_json(msgspec.to_builtins(opening)))

    def _write(
        self,
        event: str,
        payload: bytes,
        sandbox_id: str | None = None,
        agent_id: str | None = None,
        *,
        next_key: AuditKey | None = None,
    ) -> None:
        head = self.head
        record = Record(head.count, utc_text(self._clock_ns()), event, sandbox_id, agent_id, payload, head.mac)
        fields = record.fields()
        mac = self._ring.require(head.key_id).mac(fields.covered())
        line = fields.line(mac)
        if len(line) > MAX_RECORD_BYTES:
            raise AuditError(
                f"expected a record of at most {MAX_RECORD_BYTES} bytes, got {len(line)}; nothing was recorded",
                check="form",
            )
        counted = msgspec.structs.replace(
            head,
            count=head.count + 1,
            size=head.size + len(line),
            mac=mac,
            key_id=head.key_id if next_key is None else next_key.id,
        )
        self._files.append(line, head.size)
        try:
            self._count(counted)
        except AuditError:
            self._files.cut(head.size)
            raise

    def _count(self, head: Head) -> None:
        """Let the head file say this."""
        block = head.block(self._ring.require(head.key_id))
        self._files.write_head(block)
        self._block, self._head = block, head

    def _sync_held(self) -> None:
        self._files.sync()
        now = self.head
        self._count(msgspec.structs.replace(now, synced_count=now.count, synced_size=now.size, synced_mac=now.mac))
