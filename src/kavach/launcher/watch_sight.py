"""What a waiting call is about: the paths and addresses that it names, read from the caller's memory.

Guarantees: what comes back was read while the call waited, if the caller asks `notify.is_waiting` afterwards. Does not:
decide (the memory can change before the kernel reads it again), or follow a path. May be called by:
kavach.launcher.watch, on the host.
"""

from __future__ import annotations

import os
import socket
import struct
from typing import TYPE_CHECKING, NamedTuple

from kavach.linux import notify
from kavach.policy.learn import Access

if TYPE_CHECKING:
    from kavach.linux.notify import Notification

_AT_FDCWD = 0xFFFFFF9C  # linux/fcntl.h, 2.6.16: -100 in the 32 bits that the kernel reads
_AT_SYMLINK_NOFOLLOW = 0x100  # linux/fcntl.h, 2.6.16
_AT_REMOVEDIR = 0x200  # linux/fcntl.h, 2.6.16
_O_TMPFILE = 0o20000000  # asm-generic/fcntl.h, 3.11: the bit beside O_DIRECTORY
_ADDRESS_BYTES = 128  # linux/socket.h: _K_SS_MAXSIZE
_W32 = 0xFFFFFFFF


class PathUse(NamedTuple):
    """A path that a call names.

    Args:
        access: what for.
        path: absolute as the caller sees it, not resolved.
        follow: whether a link at its end is followed.
    """

    access: Access
    path: str
    follow: bool


class Peer(NamedTuple):
    """An address that a call names: `inet` with host and port, `unix` or `abstract` with a name."""

    family: str
    host: str
    port: int = 0


#: call -> rows of (argument of the folder's descriptor or None, argument of the path, access, follows a last link)
_PATHS: dict[str, tuple[tuple[int | None, int, Access, bool], ...]] = {
    "access": ((None, 0, Access.LOOK, True),),
    "chdir": ((None, 0, Access.LOOK, True),),
    "creat": ((None, 0, Access.WRITE, True),),
    "execve": ((None, 0, Access.EXECUTE, True),),
    "execveat": ((0, 1, Access.EXECUTE, True),),
    "faccessat": ((0, 1, Access.LOOK, True),),
    "faccessat2": ((0, 1, Access.LOOK, True),),
    "link": ((None, 0, Access.LOOK, False), (None, 1, Access.CREATE, False)),
    "linkat": ((0, 1, Access.LOOK, False), (2, 3, Access.CREATE, False)),
    "lstat": ((None, 0, Access.LOOK, False),),
    "mkdir": ((None, 0, Access.CREATE, False),),
    "mkdirat": ((0, 1, Access.CREATE, False),),
    "mknod": ((None, 0, Access.CREATE, False),),
    "mknodat": ((0, 1, Access.CREATE, False),),
    "newfstatat": ((0, 1, Access.LOOK, True),),
    "open": ((None, 0, Access.READ, True),),
    "openat": ((0, 1, Access.READ, True),),
    "openat2": ((0, 1, Access.READ, True),),
    "readlink": ((None, 0, Access.LOOK, False),),
    "readlinkat": ((0, 1, Access.LOOK, False),),
    "rename": ((None, 0, Access.REMOVE, False), (None, 1, Access.CREATE, False)),
    "renameat": ((0, 1, Access.REMOVE, False), (2, 3, Access.CREATE, False)),
    "renameat2": ((0, 1, Access.REMOVE, False), (2, 3, Access.CREATE, False)),
    "rmdir": ((None, 0, Access.REMOVE, False),),
    "stat": ((None, 0, Access.LOOK, True),),
    "statx": ((0, 1, Access.LOOK, True),),
    "symlink": ((None, 1, Access.CREATE, False),),
    "symlinkat": ((1, 2, Access.CREATE, False),),
    "truncate": ((None, 0, Access.WRITE, True),),
    "unlink": ((None, 0, Access.REMOVE, False),),
    "unlinkat": ((0, 1, Access.REMOVE, False),),
}
_OPEN_FLAGS = {"open": 1, "openat": 2}
_NOFOLLOW_FLAGS = {"newfstatat": 3, "statx": 2, "faccessat2": 3}
#: call -> (argument of the address, of its length)
_ADDRESSES = {"connect": (1, 2), "sendto": (4, 5)}


def paths(call: str, notification: Notification) -> list[PathUse]:
    """Return the paths that a call names; empty for a call that names none or whose memory cannot be read.

    Args:
        call: its name.
        notification: the waiting call.
    """
    found = []
    for folder, at, access, follow in _PATHS.get(call, ()):
        use = _path(notification, folder, at, access, follow=follow)
        if use is not None:
            found.append(_with_flags(call, notification, use))
    return found


def _path(notification: Notification, folder: int | None, at: int, access: Access, *, follow: bool) -> PathUse | None:
    arguments, thread = notification.arguments, notification.thread
    try:
        text = os.fsdecode(notify.read_text(thread, arguments[at]))
        if not text:
            return None  # an empty path means the descriptor itself, which was opened before
        if not text.startswith("/"):
            number = _AT_FDCWD if folder is None else arguments[folder] & _W32
            where = "cwd" if number == _AT_FDCWD else f"fd/{number}"
            start = os.readlink(f"/proc/{thread}/{where}")
            if not start.startswith("/") or start.endswith(" (deleted)"):
                return None
            text = f"{start.rstrip('/')}/{text}"
    except OSError:
        return None
    return PathUse(access, text, follow)


def _with_flags(call: str, notification: Notification, use: PathUse) -> PathUse:
    """Return the use as the call's flags make it."""
    flags = None
    if call in _OPEN_FLAGS:
        flags = notification.arguments[_OPEN_FLAGS[call]] & _W32
    elif call == "openat2":
        try:
            flags = struct.unpack("=Q", notify.read_memory(notification.thread, notification.arguments[2], 8))[0]
        except (OSError, struct.error):
            flags = 0
    if flags is not None:
        return _opened(use, flags)
    if call in _NOFOLLOW_FLAGS and notification.arguments[_NOFOLLOW_FLAGS[call]] & _AT_SYMLINK_NOFOLLOW:
        return use._replace(follow=False)
    return use


def _opened(use: PathUse, flags: int) -> PathUse:
    follow = not flags & os.O_NOFOLLOW
    if flags & os.O_PATH:
        return PathUse(Access.LOOK, use.path, follow)
    if flags & _O_TMPFILE:
        return PathUse(Access.CREATE, f"{use.path}/unnamed", follow=False)
    if flags & os.O_ACCMODE or flags & os.O_TRUNC:
        return PathUse(Access.WRITE if not flags & os.O_EXCL else Access.CREATE, use.path, follow)
    if flags & os.O_CREAT:
        return PathUse(Access.CREATE if flags & os.O_EXCL else Access.WRITE, use.path, follow)
    return PathUse(Access.LIST if flags & os.O_DIRECTORY else Access.READ, use.path, follow)


def creates(call: str, notification: Notification) -> bool:
    """Return whether a call that writes a file makes it where it does not exist."""
    if call == "creat":
        return True
    at = _OPEN_FLAGS.get(call)
    return at is not None and bool(notification.arguments[at] & os.O_CREAT)


def peer(call: str, notification: Notification) -> Peer | None:
    """Return the address that a call names, None where it names none or its memory cannot be read."""
    where = _ADDRESSES.get(call)
    if where is None or not notification.arguments[where[0]]:
        return None
    size = min(notification.arguments[where[1]] & _W32, _ADDRESS_BYTES)
    try:
        return read_address(notify.read_memory(notification.thread, notification.arguments[where[0]], size))
    except (OSError, struct.error):
        return None


def read_address(raw: bytes) -> Peer | None:
    """Return what a struct sockaddr says, None for a family that is not reported.

    Args:
        raw: the bytes of the structure, with the length that the call gave.

    Raises:
        struct.error: it is cut short.
    """
    (family,) = struct.unpack_from("=H", raw)
    if family == socket.AF_INET:
        port, packed = struct.unpack_from("!H4s", raw, 2)
        return Peer("inet", socket.inet_ntop(socket.AF_INET, packed), port)
    if family == socket.AF_INET6:
        port, _, packed = struct.unpack_from("!HI16s", raw, 2)
        return Peer("inet", socket.inet_ntop(socket.AF_INET6, packed), port)
    if family == socket.AF_UNIX and len(raw) > 2:
        name = raw[2:]
        if name[:1] == b"\0":
            return Peer("abstract", os.fsdecode(name[1:]))
        return Peer("unix", os.fsdecode(name.split(b"\0", 1)[0]))
    return None
