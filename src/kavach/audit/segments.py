"""The files of a log: the current one, the closed ones beside it, and how they are opened.

Enforces: files belong to their owner alone (0600), are regular, and are never reached through a symbolic link in their
last part. Does not: read records. May be used by: kavach.audit.
"""

from __future__ import annotations

import os
import re
import stat
from typing import NamedTuple, NoReturn

from kavach.audit.head import head_path
from kavach.errors import AuditError

__all__ = [
    "Identity",
    "cannot",
    "closed_path",
    "closed_segments",
    "identify",
    "match_beside",
    "open_file",
    "open_head",
    "sync_folder",
]

_FILE_MODE = 0o600
_DIGITS = 6


class Identity(NamedTuple):
    """Which file a name or a descriptor means."""

    device: int
    inode: int


def cannot(act: str, path: str, error: OSError, *, check: str = "write") -> NoReturn:
    """Say which file could not be reached, and why.

    Raises:
        AuditError: always.
    """
    raise AuditError(f"{path}: cannot {act}: {error.strerror}", check=check) from None


def open_file(path: str, *, create: bool = False, append: bool = False, write: bool = True) -> int:
    """Return the descriptor of a regular file.

    Args:
        path: where.
        create: make it where it is missing.
        append: every write goes to its end.
        write: for reading and writing; False = reading only.

    Raises:
        FileNotFoundError: it is missing, and is not to be made.
        AuditError: it cannot be opened, or is no regular file; `.check` is `open`.
    """
    flags = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | (os.O_RDWR if write else os.O_RDONLY)
    flags |= (os.O_CREAT if create else 0) | (os.O_APPEND if append else 0)
    try:
        descriptor = os.open(path, flags, _FILE_MODE)
    except FileNotFoundError as error:
        if create:
            cannot("open", path, error, check="open")
        raise
    except OSError as error:
        cannot("open", path, error, check="open")
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise AuditError(f"{path}: expected a regular file", check="open")
    return descriptor


def identify(found: os.stat_result) -> Identity:
    """Return which file that is."""
    return Identity(found.st_dev, found.st_ino)


def closed_path(path: str, segment: int) -> str:
    """Return the name of a closed file of a log: `audit.jsonl.000000`."""
    return f"{path}.{segment:0{_DIGITS}d}"


def match_beside(path: str, ending: str) -> list[re.Match[str]]:
    """Return the names in a file's folder that are its own with an ending behind it, as matches.

    Args:
        path: the file's.
        ending: an expression.

    Raises:
        AuditError: the folder cannot be read.
    """
    folder, name = os.path.split(path)
    pattern = re.compile(f"{re.escape(name)}{ending}\\Z")
    try:
        names = os.listdir(folder or ".")
    except OSError as error:
        cannot("list", folder or ".", error, check="open")
    return [found for one in names if (found := pattern.match(one))]


def closed_segments(path: str) -> list[int]:
    """Return the numbers of the closed files that are there, in order.

    Raises:
        AuditError: the folder cannot be read.
    """
    return sorted(int(found[1]) for found in match_beside(path, rf"\.(\d{{{_DIGITS},}})"))


def sync_folder(path: str) -> None:
    """Put the names in a file's folder on the disk.

    Raises:
        OSError: the kernel's own.
    """
    descriptor = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def open_head(path: str, *, write: bool = True) -> int:
    """Return the descriptor of a log's head file, made where it is missing and may be.

    Raises:
        FileNotFoundError: it is missing, and only to be read.
        AuditError: it cannot be opened.
    """
    return open_file(head_path(path), create=write, write=write)
