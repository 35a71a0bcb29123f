"""Seccomp's user notifications: a supervisor reads which call a filtered thread is about to make, and answers.

Guarantees: an answer reaches the call it was meant for or is reported as too late. Does not: decide, and cannot: with
`go_on` the kernel reads the arguments again, so what was read here is fit for reports only; a refusal that must hold
rests on registers alone, which the caller cannot change while it waits. May be called by: kavach.launcher.watch, on
the host. Never runs inside the jail.
"""

from __future__ import annotations

import errno
import fcntl
import functools
import os
import struct
from typing import NamedTuple

from kavach.linux import libc
from kavach.linux.seccomp import SECCOMP_NUMBER

SECCOMP_GET_NOTIF_SIZES = 3  # linux/seccomp.h, 5.0
SECCOMP_IOCTL_NOTIF_RECV = 0xC0502100  # linux/seccomp.h, 5.0; struct seccomp_notif, 80 bytes
SECCOMP_IOCTL_NOTIF_SEND = 0xC0182101  # linux/seccomp.h, 5.0; struct seccomp_notif_resp, 24 bytes
SECCOMP_IOCTL_NOTIF_ID_VALID = 0x40082102  # linux/seccomp.h, 5.0; has had this number since 5.9
SECCOMP_USER_NOTIF_FLAG_CONTINUE = 1 << 0  # linux/seccomp.h, 5.5

_NOTIFICATION = struct.Struct("=QIIiIQ6Q")  # struct seccomp_notif with struct seccomp_data: 80 bytes
_ANSWER = struct.Struct("=QqiI")  # struct seccomp_notif_resp: 24 bytes
_ID = struct.Struct("=Q")
_PAGE_BYTES = 4096  # the smallest page of both architectures: a read within one fails or succeeds as a whole


class Notification(NamedTuple):
    """One call that waits for an answer.

    Args:
        id: by which it is answered.
        thread: the caller, as this PID namespace numbers it; 0 where it is not visible here.
        architecture: AUDIT_ARCH_ of the call.
        number: the call's number.
        arguments: the six registers.
    """

    id: int
    thread: int
    architecture: int
    number: int
    arguments: tuple[int, ...]


@functools.cache
def sizes() -> tuple[int, int]:
    """Return how large this kernel's notification and answer are.

    Raises:
        OSError: the kernel has no notifications (before 5.0), or an outer filter hides them.
    """
    found = libc.buffer(6)
    libc.syscall(SECCOMP_NUMBER[os.uname().machine], SECCOMP_GET_NOTIF_SIZES, 0, found)
    notification, answer, _ = struct.unpack("=HHH", found.raw)
    return max(notification, _NOTIFICATION.size), max(answer, _ANSWER.size)


def receive(listener: int) -> Notification | None:
    """Return the next call that waits; None where it has gone meanwhile. Waits if there is none.

    Raises:
        OSError: not a listener, or a kernel without notifications.
    """
    # ORDER: zeroed for each call; the kernel refuses anything else (EINVAL).
    body = bytearray(sizes()[0])
    try:
        fcntl.ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, body)
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.EINTR}:
            return None
        raise
    number, thread, _flags, call, architecture, _pointer, *arguments = _NOTIFICATION.unpack_from(body)
    return Notification(number, thread, architecture, call, tuple(arguments))


def is_waiting(listener: int, notification: Notification) -> bool:
    """Return whether the call still waits, so that what was read of its thread was read of that thread."""
    try:
        fcntl.ioctl(listener, SECCOMP_IOCTL_NOTIF_ID_VALID, _ID.pack(notification.id))
    except OSError:
        return False
    return True


def go_on(listener: int, notification: Notification) -> bool:
    """Let the kernel carry the call out, behind every other control; return whether the answer arrived."""
    return _answer(listener, _ANSWER.pack(notification.id, 0, 0, SECCOMP_USER_NOTIF_FLAG_CONTINUE))


def refuse(listener: int, notification: Notification, code: int) -> bool:
    """Let the call fail with this errno; return whether the answer arrived.

    Raises:
        ValueError: not an errno: 0 would be success.
    """
    if not 0 < code < 4096:
        raise ValueError(f"{code} is not an errno")
    return _answer(listener, _ANSWER.pack(notification.id, 0, -code, 0))


def _answer(listener: int, answer: bytes) -> bool:
    body = bytearray(answer.ljust(sizes()[1], b"\0"))
    try:
        fcntl.ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, body)
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.EINPROGRESS}:
            return False
        raise
    return True


def read_memory(thread: int, address: int, size: int) -> bytes:
    """Return up to `size` bytes of a thread's memory, shorter where the next page cannot be read.

    Raises:
        OSError: nothing can be read there (EIO), or the thread is closed to this process (EACCES, EPERM).
    """
    handle = os.open(f"/proc/{thread}/mem", os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts: list[bytes] = []
        while size > 0:
            step = min(size, _PAGE_BYTES - address % _PAGE_BYTES)
            try:
                part = os.pread(handle, step, address)
            except (OSError, OverflowError) as error:
                if parts:
                    break
                raise OSError(errno.EIO, os.strerror(errno.EIO)) from error
            parts.append(part)
            if len(part) < step:
                break
            address += step
            size -= step
        return b"".join(parts)
    finally:
        os.close(handle)


def read_text(thread: int, address: int, limit: int = 4096) -> bytes:
    """Return a NUL-terminated text of a thread's memory, without the NUL.

    Raises:
        OSError: it cannot be read, or does not end within `limit` bytes (ENAMETOOLONG).
    """
    text = b""
    while len(text) < limit:
        part = read_memory(
            thread, address + len(text), min(limit - len(text), _PAGE_BYTES - (address + len(text)) % _PAGE_BYTES)
        )
        end = part.find(b"\0")
        if end >= 0:
            return text + part[:end]
        if not part:
            break
        text += part
    raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
