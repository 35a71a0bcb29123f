"""File transfer as the command itself would do it: from inside, under its ids, view, Landlock domain and filter.

Guarantees: nothing is reached that a command of the same sandbox could not reach, whatever links, pipes or trees were
planted; only regular files are read and written; a written file appears whole or not at all. Does not: follow a
symbolic link in the last component. May be called by: the command child only, instead of execve, with the content on
descriptors 0 and 1.

The host never resolves a path below a folder that untrusted code can change: that is the class of CVE-2018-15664.
"""

from __future__ import annotations

import errno
import os
import stat

TYPE_CHECKING = False  # the typing module is not part of the jail
if TYPE_CHECKING:
    from collections.abc import Callable

_CHUNK_BYTES = 1 << 16  # pipe(7): the default capacity of a pipe
_MAXIMUM_ENTRIES = 100_000  # protects the host's reader from a folder made to be endless


def perform(arguments: tuple[bytes, ...]) -> None:
    """Do one operation: (name, path, *more).

    Raises:
        OSError: the kernel refused, as it would have refused a command.
    """
    _OPERATIONS[arguments[0]](*arguments[1:])


def _read(path: bytes) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        raise OSError(errno.EINVAL, "not a regular file")
    _copy(handle, 1)


def _write(path: bytes, mode: bytes) -> None:
    temporary = os.path.dirname(path) + b"/.kavach-%d" % os.getpid()
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        _copy(0, handle)
        os.fchmod(handle, int(mode, 8))
        os.rename(temporary, path)
    except OSError:
        os.unlink(temporary)
        raise


def _copy(source: int, target: int) -> None:
    while part := os.read(source, _CHUNK_BYTES):
        view = memoryview(part)
        while view:
            view = view[os.write(target, view) :]


def _list(path: bytes) -> None:
    """Write one record an entry to descriptor 1: kind, size, mode and name, ended by NUL."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    names = os.listdir(handle)
    if len(names) > _MAXIMUM_ENTRIES:
        raise OSError(errno.E2BIG, "too many entries")
    for name in sorted(names):
        try:
            found = os.stat(name, dir_fd=handle, follow_symlinks=False)
        except FileNotFoundError:
            continue
        record = f"{_kind(found.st_mode)} {found.st_size} {stat.S_IMODE(found.st_mode):o} {name}\0"
        _copy_bytes(os.fsencode(record))


def _kind(mode: int) -> str:
    for test, word in ((stat.S_ISREG, "file"), (stat.S_ISDIR, "folder"), (stat.S_ISLNK, "link")):
        if test(mode):
            return word
    return "other"


def _copy_bytes(content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(1, view) :]


def _make_folder(path: bytes, mode: bytes) -> None:
    os.mkdir(path, int(mode, 8))


def _remove(path: bytes) -> None:
    if stat.S_ISDIR(os.lstat(path).st_mode):
        os.rmdir(path)
    else:
        os.unlink(path)


_OPERATIONS: dict[bytes, Callable[..., None]] = {
    b"read": _read,
    b"write": _write,
    b"list": _list,
    b"make_folder": _make_folder,
    b"remove": _remove,
}
