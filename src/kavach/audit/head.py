"""The head file: how many records there are and the MAC of the last, so that a missing end is seen.

Enforces: a block of 512 bytes with a MAC of its own. It is overwritten in place by one write of less than a page and
not more than a sector, under the log's lock: a reader that holds the lock sees the old or the new one, never half.
Does not: stop whoever can put back an older log together with its older head; a head or a checkpoint that is kept
elsewhere does. May be used by: kavach.audit.
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from kavach.errors import AuditError

if TYPE_CHECKING:
    from kavach.audit.key import AuditKey, KeyRing

__all__ = ["BLOCK_BYTES", "ChainHead", "Head", "head_path", "parse_head"]

BLOCK_BYTES = 512  # the smallest sector: a disk writes it whole or not at all
HEAD_VERSION = 1
_TAG = b"kavach.audit.head/1\0"


class ChainHead(NamedTuple):
    """A place in a chain: how many records, and the MAC of the last. Kept elsewhere, it makes a roll-back visible.

    Args:
        records: how many.
        mac: the MAC of the last one, in hex.
    """

    records: int
    mac: str

    def __str__(self) -> str:
        return f"{self.records}:{self.mac}"


class Head(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the head file says.

    Args:
        version: of this form.
        chain: the chain's id, random, from its first record.
        key_id: the key that the next record is written under.
        segment: how many files were closed before the current one.
        count: records of the whole chain.
        size: bytes of the current file.
        mac: of the last record.
        synced_count: records that were on the disk when the file was last synchronised.
        synced_size: bytes of the current file, likewise.
        synced_mac: of the last record, likewise.
        head_mac: HMAC-SHA256 over all of the above.
    """

    version: int = HEAD_VERSION
    chain: str
    key_id: str
    segment: int
    count: int
    size: int
    mac: str
    synced_count: int
    synced_size: int
    synced_mac: str
    head_mac: str = ""

    @property
    def place(self) -> ChainHead:
        """What of it is worth keeping elsewhere."""
        return ChainHead(self.count, self.mac)

    def block(self, key: AuditKey) -> bytes:
        """Return the file's content, with its MAC under the key in force."""
        text = (
            f'{{"version":{self.version},"chain":"{self.chain}","key_id":"{self.key_id}","segment":{self.segment},'
            f'"count":{self.count},"size":{self.size},"mac":"{self.mac}","synced_count":{self.synced_count},'
            f'"synced_size":{self.synced_size},"synced_mac":"{self.synced_mac}"'
        ).encode()
        sealed = text + b',"head_mac":"%b"}' % key.mac(_TAG + text).encode()
        return sealed.ljust(BLOCK_BYTES - 1) + b"\n"


def head_path(path: str) -> str:
    """Return the name of a log's head file."""
    return f"{path}.head"


def parse_head(block: bytes, ring: KeyRing) -> Head:
    """Return what an authentic head file says.

    Args:
        block: its content.
        ring: the keys that the log may be written under.

    Raises:
        AuditError: it is no head file or not authentic (`.check` is `head`), or its key was not given (`key`).
    """
    try:
        found = msgspec.json.decode(block, type=Head)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise AuditError("the head file is not readable as one", check="head") from None
    key = ring.require(found.key_id)
    # SECURITY: the whole block is compared, in constant time; there is one block for what it says, and one MAC.
    if not hmac.compare_digest(found.block(key), block):
        raise AuditError("the head file is not authentic", check="head")
    return found
