"""Acts that must fail: tried by the command child itself, right before untrusted code takes its place.

Guarantees: each act is attempted once, changes nothing when it is refused, and its outcome is reported as the bare
errno (0: it worked). Does not: judge; kavach.launcher.observe knows what each outcome means. May be called by: the
command child only.
"""

from __future__ import annotations

import _socket
import errno
import os
import stat

from kavach.linux import libc, uapi

TYPE_CHECKING = False  # the typing module is not part of the jail
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# ORDER: the same act before and after a control proves that the control, and not something else, refuses it.
BEFORE_LANDLOCK = 0
AFTER_LANDLOCK = 1
FINAL = 2
#: Tried by every command's child; the others by the first one of a sandbox, whose wall does not change after that.
EVERY_TIME = (b"signal", b"ptrace")


def attempt(canaries: tuple[tuple[Any, ...], ...], phase: int) -> list[tuple[bytes, int, int]]:
    """Return (name, phase, errno) for each canary of `phase`: rows of (phase, name, act, *arguments)."""
    results = []
    for when, name, act, *arguments in canaries:
        if when == phase:
            try:
                ACTS[act](*arguments)
                code = 0
            except OSError as error:
                code = error.errno or -1
            results.append((name, phase, code))
    return results


def _signal(pid: int) -> None:
    os.kill(pid, 0)


def _abstract(name: bytes) -> None:
    _connect(_socket.AF_UNIX, _socket.SOCK_DGRAM, b"\0" + name)


def _pathname(path: bytes) -> None:
    _connect(_socket.AF_UNIX, _socket.SOCK_STREAM, path)


def _tcp(address: bytes, port: int) -> None:
    _connect(_socket.AF_INET, _socket.SOCK_STREAM, (address.decode(), port))


def _udp(address: bytes, port: int) -> None:
    _connect(_socket.AF_INET, _socket.SOCK_DGRAM, (address.decode(), port))


def _connect(family: int, kind: int, address: Any) -> None:
    handle = _socket.socket(family, kind | _socket.SOCK_CLOEXEC | _socket.SOCK_NONBLOCK)
    try:
        handle.connect(address)
    finally:
        handle.close()


def _bind(port: int) -> None:
    handle = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    try:
        handle.bind(("127.0.0.1", port))
    finally:
        handle.close()


def _create(path: bytes) -> None:
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    os.unlink(path)


def _device(path: bytes) -> None:
    # Without Landlock EPERM (no CAP_MKNOD), with it EACCES, because it is asked before the capability is.
    os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3))
    os.unlink(path)


def _open(path: bytes) -> None:
    os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))


def _access(path: bytes) -> None:
    # Asked and not opened: opening a device may act on it.
    if not os.access(path, os.R_OK | os.W_OK):
        raise OSError(errno.EACCES, "not readable and writable")


def _environment() -> None:
    # The interpreter itself sets LC_CTYPE (PEP 538); whatever else there is came from the host.
    if not set(os.environ) - {"LC_CTYPE"}:
        raise OSError(errno.ENOENT, "no variable was inherited")


def _ptrace() -> None:
    # No request has this number and no process the id 0: ESRCH from the kernel itself, whatever the privileges.
    libc.syscall(uapi.SYS_PTRACE, 0x7FFFFFFF, 0, 0, 0)


def _add_key() -> None:
    # NULL strings: EFAULT from the kernel itself, before any key could be made.
    libc.syscall(uapi.SYS_ADD_KEY, 0, 0, 0, 0, 0)


def _new_user_namespace() -> None:
    libc.syscall(uapi.SYS_UNSHARE, uapi.CLONE_NEWUSER)


def _invalid_namespace() -> None:
    # No namespace has the lowest bit: EINVAL from the kernel itself, where no filter stands before it.
    libc.syscall(uapi.SYS_UNSHARE, uapi.CLONE_NEWUSER | 1)


ACTS: dict[bytes, Callable[..., None]] = {
    b"signal": _signal,
    b"abstract": _abstract,
    b"pathname": _pathname,
    b"tcp": _tcp,
    b"bind": _bind,
    b"udp": _udp,
    b"create": _create,
    b"open": _open,
    b"access": _access,
    b"device": _device,
    b"environment": _environment,
    b"ptrace": _ptrace,
    b"add_key": _add_key,
    b"user_namespace": _new_user_namespace,
    b"invalid_namespace": _invalid_namespace,
}
