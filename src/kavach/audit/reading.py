"""The records of a log as they stand in its files, for people and programs that look at them.

Enforces: closed files first, in order; a line that is no record stops the reading. Does not: verify
(`kavach.audit.verify` does, with the key), so whoever shows these says so. May be used by: users, kavach.cli.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import msgspec

from kavach.audit.record import MAX_RECORD_BYTES
from kavach.audit.segments import cannot, closed_path, closed_segments, open_file
from kavach.errors import AuditError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import BinaryIO

__all__ = ["StoredRecord", "read_records"]


class StoredRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One record, not verified; the fields are those of `kavach.audit.record.Record`."""

    serial: int
    time_utc: str
    event: str
    sandbox_id: str | None
    agent_id: str | None
    payload: dict[str, Any]
    prev: str
    mac: str


_decode = msgspec.json.Decoder(StoredRecord).decode


def read_records(path: str | os.PathLike[str], *, wait: Callable[[], None] | None = None) -> Iterator[StoredRecord]:
    """Yield every complete record that there is now, and then, if asked, every one that is added.

    Args:
        path: the current file.
        wait: called whenever there is nothing new; returns when it is time to look again. None = end there.

    Raises:
        AuditError: a file cannot be read, or a line is no record.
    """
    name = os.path.abspath(os.fspath(path))
    for number in closed_segments(name):
        with _open(closed_path(name, number)) as closed:
            yield from _records(closed)
    file = _open(name)
    try:
        yield from _records(file)
        while wait is not None:
            wait()
            later = _later(file, name)  # ORDER: asked before the last look, so that nothing is left behind
            yield from _records(file)
            for one in later:
                file.close()
                file = one
                yield from _records(file)
    finally:
        file.close()


def _records(file: BinaryIO) -> Iterator[StoredRecord]:
    """Yield the complete records from here on, and stand behind the last."""
    place = file.tell()
    while (line := file.readline(MAX_RECORD_BYTES + 1)).endswith(b"\n"):
        try:
            record = _decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise AuditError(f"the line at byte {place} is not the text of a record", check="form") from None
        place += len(line)
        yield record
    file.seek(place)


def _open(path: str) -> BinaryIO:
    try:
        return os.fdopen(open_file(path, write=False), "rb")
    except FileNotFoundError as error:
        cannot("read", path, error, check="open")


def _later(file: BinaryIO, name: str) -> list[BinaryIO]:
    """Return the files that were begun after this one, the current one last."""
    newest = _open(name)
    ours, last = os.fstat(file.fileno()), os.fstat(newest.fileno())
    if os.path.samestat(ours, last):
        newest.close()
        return []
    closed = [_open(closed_path(name, number)) for number in closed_segments(name)]
    between: list[BinaryIO] = []
    is_behind = False
    for one in closed:
        here = os.fstat(one.fileno())
        if is_behind and not os.path.samestat(here, last):
            between.append(one)
        else:
            one.close()
        is_behind = (is_behind or os.path.samestat(here, ours)) and not os.path.samestat(here, last)
    return [*between, newest]
