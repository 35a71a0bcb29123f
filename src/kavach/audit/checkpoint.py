"""Checkpoints: places in a chain, signed now and then, for whoever has only the public key.

Enforces: each is a DSSE envelope on a line of its own in `<log>.checkpoints`. Does not: publish; a copy kept elsewhere
is what makes a roll-back of everything on this host visible. May be used by: kavach.audit.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec import Meta

from kavach.audit.canonical import canonical_json
from kavach.audit.dsse import open_envelope, seal_envelope
from kavach.audit.head import ChainHead
from kavach.audit.lock import lock_file
from kavach.audit.segments import cannot, open_file
from kavach.errors import AuditError

if TYPE_CHECKING:
    from kavach.audit.signing import PublicKey, SigningKey

__all__ = [
    "CHECKPOINT_TYPE",
    "Checkpoint",
    "append_checkpoint",
    "checkpoint_path",
    "open_checkpoint",
    "read_checkpoints",
]

CHECKPOINT_TYPE = "application/vnd.kavach.audit-checkpoint+json"
_VERSION = 1
_MOST_LINE_BYTES = 4096


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A place in a chain, as it was signed.

    Args:
        version: of this form.
        chain: the chain's id.
        count: the number of records.
        mac: the MAC of the last one.
        time_utc: when.
    """

    version: int
    chain: str
    count: Annotated[int, Meta(ge=1)]
    mac: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    time_utc: str

    @property
    def place(self) -> ChainHead:
        """What of it can be compared with a chain."""
        return ChainHead(self.count, self.mac)


def checkpoint_path(path: str) -> str:
    """Return the name of a log's file of checkpoints."""
    return f"{path}.checkpoints"


def append_checkpoint(path: str, chain: str, place: ChainHead, time_utc: str, key: SigningKey) -> None:
    """Sign a place and add it to the log's checkpoints.

    Raises:
        AuditError: it cannot be written.
    """
    said = Checkpoint(version=_VERSION, chain=chain, count=place.records, mac=place.mac, time_utc=time_utc)
    line = seal_envelope(CHECKPOINT_TYPE, canonical_json(msgspec.to_builtins(said)), key) + b"\n"
    name = checkpoint_path(path)
    descriptor = open_file(name, create=True, append=True)
    try:
        lock_file(descriptor)
        size = _whole_size(descriptor)
        os.ftruncate(descriptor, size)
        if os.write(descriptor, line) != len(line):
            os.ftruncate(descriptor, size)
            raise AuditError(f"{name}: the disk took only a part of it", check="write")
    except OSError as error:
        cannot("write", name, error)
    finally:  # closing it ends the lock
        os.close(descriptor)


def _whole_size(descriptor: int) -> int:
    """Return how much of the file is whole lines; a last one that a crash has cut says nothing and goes."""
    size = os.fstat(descriptor).st_size
    start = max(size - _MOST_LINE_BYTES, 0)
    return start + os.pread(descriptor, _MOST_LINE_BYTES, start).rfind(b"\n") + 1


def open_checkpoint(envelope: bytes, key: PublicKey) -> Checkpoint:
    """Return what a signed checkpoint says.

    Raises:
        AuditError: it is none, or not signed by this key.
    """
    payload = open_envelope(envelope, CHECKPOINT_TYPE, key)
    try:
        said = msgspec.json.decode(payload, type=Checkpoint)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise AuditError("expected a checkpoint", check="form") from None
    if said.version != _VERSION:
        raise AuditError(f"a checkpoint of version {said.version}; this Kavach reads {_VERSION}", check="form")
    return said


def read_checkpoints(path: str, key: PublicKey) -> list[Checkpoint]:
    """Return every checkpoint beside a log.

    Raises:
        AuditError: one is not signed by this key, or is none; `.check` is `checkpoint`.
    """
    name = checkpoint_path(path)
    try:
        with os.fdopen(open_file(name, write=False), "rb") as file:
            lines = list(iter(lambda: file.readline(_MOST_LINE_BYTES), b""))
    except FileNotFoundError:
        raise AuditError(f"{name}: the checkpoints are missing", check="checkpoint") from None
    found = []
    whole = lines if not lines or lines[-1].endswith(b"\n") else lines[:-1]
    for number, line in enumerate(whole, start=1):
        try:
            found.append(open_checkpoint(line, key))
        except AuditError as error:
            raise AuditError(f"{name}: line {number}: {error} (check checkpoint)", check="checkpoint") from None
    return found
