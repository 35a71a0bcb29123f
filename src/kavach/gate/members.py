"""What lies packed in an artifact: the members of a ZIP, and what bzip2 and xz hold, unpacked in memory to be read.

Enforces: each member is found by its local header, so that nothing hides from a directory that leaves it out, and is
unpacked whatever method it names; all of an artifact becomes at most `UNPACKED_BYTES`, archives in archives at most
`DEPTH` deep; what was not read is told, never passed over. Does not: scan, write to disk, or read gzip, zlib and
stored members, which are read where they stand (`kavach.gate.decode`). May be used by: kavach.gate.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from typing import TYPE_CHECKING

from kavach.gate.archives import UNPACKED_BYTES, is_zip

if TYPE_CHECKING:
    from collections.abc import Iterator

DEPTH = 3
"""How many archives may lie in one another."""

_LOCAL = b"PK\x03\x04"  # APPNOTE.TXT 4.3.7, local file header
_LOCAL_BYTES = 30
_STORED, _DEFLATED = 0, 8  # 4.4.5, compression method
_ENCRYPTED = 1  # 4.4.4, general purpose bit 0
_BZIP2 = b"BZh"
_XZ = b"\xfd7zXZ\x00"  # the .xz file format 1.2.0, 2.1.1.1
_XZ_MEMORY = 64 << 20
_MOST_STREAMS = 64  # of one bzip2 or xz file; each copies what follows it
_CHUNK_BYTES = 16 << 10  # deflate makes 1,032 bytes of one at most: an excess stays below 17 MB


def packed_texts(data: bytes) -> Iterator[bytes | None]:
    """Yield what is packed in an artifact, None for each part of it that cannot be read or goes beyond the limits.

    Args:
        data: the artifact; one that holds nothing packed yields nothing.
    """
    left = UNPACKED_BYTES
    waiting = [(data, DEPTH)]
    while waiting:
        text, depth = waiting.pop()
        for inner in _texts(text, left):
            if inner is None or depth == 0 or len(inner) > left:
                yield None
                return  # what cannot be read whole is judged as that, whatever else it holds
            left -= len(inner)
            waiting.append((inner, depth - 1))
            yield inner


def _texts(data: bytes, limit: int) -> Iterator[bytes | None]:
    if data.startswith((_BZIP2, _XZ)):
        yield _unpack_streams(data, limit)
    at = data.find(_LOCAL)
    # A program that knows ZIPs holds these bytes too: what follows them there is read if it can be.
    is_archive = at == 0 or (at > 0 and is_zip(data))
    while at >= 0:
        text = _member(data, at, limit)
        if text or (text is None and is_archive):
            yield text
        at = data.find(_LOCAL, at + len(_LOCAL))


def _member(data: bytes, at: int, limit: int) -> bytes | None:
    """Return a member, empty where it is stored as it is, None where it cannot be read."""
    header = data[at : at + _LOCAL_BYTES]
    flags, method, names, extra = (int.from_bytes(header[one : one + 2], "little") for one in (6, 8, 26, 28))
    if flags & _ENCRYPTED or method not in {_STORED, _DEFLATED}:
        return None
    text, is_whole = _inflate(data, at + _LOCAL_BYTES + names + extra, limit)
    # SECURITY: unpackers go by the directory's word for the method, which need not be this header's: both are read.
    return text if is_whole or method == _STORED else None


def _inflate(data: bytes, start: int, limit: int) -> tuple[bytes, bool]:
    machine = zlib.decompressobj(-zlib.MAX_WBITS)
    made = bytearray()
    while start < len(data) and len(made) <= limit and not machine.eof:
        try:
            made += machine.decompress(data[start : start + _CHUNK_BYTES])
        except zlib.error:
            return b"", False
        start += _CHUNK_BYTES
    return bytes(made), machine.eof


def _unpack_streams(data: bytes, limit: int) -> bytes | None:
    """Return what the streams of a bzip2 or xz file hold; both formats may hold several."""
    made = b""
    for _ in range(_MOST_STREAMS):
        machine = bz2.BZ2Decompressor() if data.startswith(_BZIP2) else lzma.LZMADecompressor(memlimit=_XZ_MEMORY)
        try:
            made += machine.decompress(data, limit + 1 - len(made))
        except (OSError, EOFError, ValueError, lzma.LZMAError):
            return None
        data = machine.unused_data.lstrip(b"\0")  # xz pads
        if not machine.eof or len(made) > limit or not data:
            return made if machine.eof and len(made) <= limit else None
    return None
