"""Archives whose members would be written outside the folder that they are unpacked in.

Enforces: names, links and devices of ZIP and tar are read without unpacking; compressed tar up to a budget. Does not:
look inside members (`kavach.gate.members` does). May be used by: kavach.gate.binary.
"""

from __future__ import annotations

import bz2
import io
import lzma
import posixpath
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

UNPACKED_BYTES = 16 << 20
"""How much of an archive is unpacked, for its contents or for its members' names; protects memory and time."""
MEMBERS_READ = 100_000
"""How many members are read; protects time."""

_BROKEN = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    ValueError,
    OverflowError,
    EOFError,
    OSError,
    RuntimeError,  # an encrypted ZIP, or a method that zipfile does not know
)
_END_OF_ZIP = b"PK\x05\x06"  # APPNOTE.TXT 4.3.16
_TAIL_BYTES = 22 + 65_535  # its length with the longest comment
_DRIVE = re.compile(r"[A-Za-z]:")


def is_zip(data: bytes) -> bool:
    """Return whether a ZIP ends here, whatever stands before it.

    Args:
        data: the artifact.
    """
    return _END_OF_ZIP in data[-_TAIL_BYTES:]


def is_tar(data: bytes) -> bool:
    """Return whether a tar begins here (POSIX.1-1988 ustar, and GNU's).

    Args:
        data: the artifact, or its beginning.
    """
    return data[257:262] == b"ustar"


def unpack_head(data: bytes) -> bytes:
    """Return the beginning of what is compressed by gzip, bzip2 or xz, at most `UNPACKED_BYTES`; else nothing.

    Args:
        data: the artifact.
    """
    try:
        if data[:3] == b"\x1f\x8b\x08":
            return zlib.decompressobj(wbits=31).decompress(data, UNPACKED_BYTES)
        if data[:3] == b"BZh":
            return bz2.BZ2Decompressor().decompress(data, UNPACKED_BYTES)
        if data[:6] == b"\xfd7zXZ\x00":
            return lzma.LZMADecompressor(memlimit=64 << 20).decompress(data, UNPACKED_BYTES)
    except (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError):
        return b""
    return b""


def has_escapes(data: bytes) -> bool:
    """Return whether unpacking the archive carelessly would write outside its folder, or make a device.

    Args:
        data: a ZIP or a tar.

    Raises:
        ValueError: what is left of it after the last good member is not known.
    """
    members = _tar_members(data) if is_tar(data) else _zip_members(data)
    try:
        return any(bad for _, bad in zip(range(MEMBERS_READ), members, strict=False))
    except _BROKEN:
        raise ValueError("the archive ends early or contradicts itself") from None


def _leads_out(name: str) -> bool:
    path = name.replace("\\", "/")
    return path.startswith("/") or _DRIVE.match(path) is not None or ".." in path.split("/")


def _links_out(member: str, target: str) -> bool:
    if target.startswith("/") or _DRIVE.match(target):
        return True
    resolved = posixpath.normpath(posixpath.join(posixpath.dirname(member), target.replace("\\", "/")))
    return resolved == ".." or resolved.startswith("../")


def _zip_members(data: bytes) -> Iterator[bool]:
    """Yield for each member whether it is a bad one."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for member in archive.infolist():
            # SECURITY: `filename` ends at a NUL, `orig_filename` does not; unpackers differ.
            is_out = _leads_out(member.filename) or _leads_out(member.orig_filename)
            is_link = stat.S_ISLNK(member.external_attr >> 16)
            yield is_out or (is_link and _links_out(member.filename, _target(archive, member)))


def _target(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> str:
    with archive.open(member) as file:
        return file.read(4096).decode("utf-8", "replace")  # PATH_MAX, linux/limits.h


def _tar_members(data: bytes) -> Iterator[bool]:
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
        for member in archive:
            is_hard = member.islnk() and _leads_out(member.linkname)
            is_soft = member.issym() and _links_out(member.name, member.linkname)
            yield _leads_out(member.name) or is_hard or is_soft or member.ischr() or member.isblk()
