"""The messages between host, launcher, init and child: bounded, self-describing, without code in them.

Guarantees: `decode(encode(x)) == x`; malformed, truncated or oversized bytes raise ValueError; descriptors that
arrive with a refused message are closed. Does not: know what a message means. May be called by: everything in
kavach.launcher; the inner processes treat what they receive from one another as hostile.
"""

from __future__ import annotations

import _socket
import os
import struct

from kavach.linux import memory, uapi

TYPE_CHECKING = False  # the typing module is not part of the jail
if TYPE_CHECKING:
    from typing import Any

MAXIMUM_INLINE_BYTES = 64 * 1024  # protects the socket buffer (net.core.wmem_default, 208 KiB); larger goes by memfd
_LONGEST_BYTES = MAXIMUM_INLINE_BYTES + 64
MAXIMUM_MESSAGE_BYTES = 16 * 1024 * 1024  # protects the reader's memory; the kernel's own argv limit is 6 MiB
MAXIMUM_DESCRIPTORS = 250  # net/core/scm.c: SCM_MAX_FD is 253
_MAXIMUM_DEPTH = 8  # protects the reader's stack

_LENGTH = struct.Struct("=I")
_NUMBER = struct.Struct("=q")
_CREDENTIALS = struct.Struct("=iII")  # linux/socket.h: struct ucred


def encode(value: object) -> bytes:
    """Return the bytes of None, an int of 64 bits, bytes, or a tuple of these.

    Raises:
        ValueError: anything else.
    """
    parts: list[bytes] = []
    _encode(value, parts)
    return b"".join(parts)


def _encode(value: object, parts: list[bytes]) -> None:
    if isinstance(value, bytes):
        parts.append(b"B" + _LENGTH.pack(len(value)))
        parts.append(value)
    elif isinstance(value, int):
        if not -(1 << 63) <= value < 1 << 63:
            raise ValueError("a message cannot hold a number of more than 64 bits")
        parts.append(b"I" + _NUMBER.pack(value))
    elif isinstance(value, tuple):
        parts.append(b"T" + _LENGTH.pack(len(value)))
        for item in value:
            _encode(item, parts)
    elif value is None:
        parts.append(b"N")
    else:
        raise ValueError(f"a message cannot hold {type(value).__name__}")


def decode(body: bytes) -> Any:
    """Return the value that `body` encodes.

    Raises:
        ValueError: `body` is not exactly one encoded value.
    """
    try:
        value, end = _decode(body, 0, 0)
    except (struct.error, IndexError):
        raise ValueError("message cut short") from None
    if end != len(body):
        raise ValueError("bytes after the end of the message")
    return value


def _decode(body: bytes, at: int, depth: int) -> tuple[object, int]:
    tag = body[at]
    at += 1
    if tag == 0x49:  # I
        return _NUMBER.unpack_from(body, at)[0], at + 8
    if tag == 0x4E:  # N
        return None, at
    (count,) = _LENGTH.unpack_from(body, at)
    at += 4
    if tag == 0x42:  # B
        if at + count > len(body):
            raise ValueError("message cut short")
        return body[at : at + count], at + count
    if tag != 0x54 or depth >= _MAXIMUM_DEPTH or count > len(body) - at:  # T
        raise ValueError("not a message")
    items = []
    for _ in range(count):
        item, at = _decode(body, at, depth + 1)
        items.append(item)
    return tuple(items), at


def send(channel: _socket.socket, value: object, descriptors: tuple[int, ...] = ()) -> None:
    """Send one message with its descriptors; a large one travels in a memfd that is sent as the last of them.

    Raises:
        OSError: the other side is gone, or the kernel refused.
        ValueError: too many descriptors, or too large a message.
    """
    body = encode(value)
    spill = -1
    if len(body) > MAXIMUM_MESSAGE_BYTES or len(descriptors) > MAXIMUM_DESCRIPTORS:
        raise ValueError("message too large")
    try:
        if len(body) > MAXIMUM_INLINE_BYTES:
            spill = memory.create_memory("kavach-message")
            _write_all(spill, body)
            descriptors = (*descriptors, spill)
            body = b"M" + _LENGTH.pack(len(body))
        ancillary = []
        if descriptors:
            rights = struct.pack(f"={len(descriptors)}i", *descriptors)
            ancillary.append((_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights))
        channel.sendmsg([body], ancillary, _socket.MSG_NOSIGNAL)
    finally:
        if spill >= 0:
            os.close(spill)


def _write_all(handle: int, body: bytes) -> None:
    view = memoryview(body)
    while view:
        view = view[os.write(handle, view) :]


def receive_measured(channel: _socket.socket) -> tuple[Any, list[int], int]:
    """Do what `receive` does, with room for this message alone: for a process that lives on and has many threads.

    A buffer for the longest message, taken and let go each time, would stay with each thread's allocator.
    """
    size = channel.recv_into(bytearray(1), 1, _socket.MSG_PEEK | _socket.MSG_TRUNC)
    return receive(channel, min(size, _LONGEST_BYTES))


def receive(channel: _socket.socket, size: int = _LONGEST_BYTES) -> tuple[Any, list[int], int]:
    """Return one message, its close-on-exec descriptors, and the sender's pid (0 unless the socket asks for it).

    Raises:
        EOFError: the other side is gone.
        OSError: the kernel refused (BlockingIOError on a non-blocking socket with nothing to read).
        ValueError: not a message; its descriptors are closed.
    """
    room = _socket.CMSG_SPACE(4 * (MAXIMUM_DESCRIPTORS + 1)) + _socket.CMSG_SPACE(_CREDENTIALS.size)
    body, ancillary, flags, _ = channel.recvmsg(size, room, _socket.MSG_CMSG_CLOEXEC)
    descriptors, pid = _ancillary(ancillary)
    try:
        if flags & (_socket.MSG_TRUNC | _socket.MSG_CTRUNC):
            raise ValueError("message larger than agreed")
        if not body:
            raise EOFError("the other side has closed the connection")
        if body[0] == 0x4D:  # M
            body = _read_spill(body, descriptors)
        return decode(body), descriptors, pid
    except (ValueError, EOFError):
        close_all(descriptors)
        raise


def _ancillary(ancillary: list[tuple[int, int, bytes]]) -> tuple[list[int], int]:
    descriptors: list[int] = []
    pid = 0
    for level, kind, data in ancillary:
        if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
            count = len(data) // 4
            descriptors.extend(struct.unpack(f"={count}i", data[: 4 * count]))
        elif level == _socket.SOL_SOCKET and kind == uapi.SCM_CREDENTIALS:
            pid = _CREDENTIALS.unpack(data[: _CREDENTIALS.size])[0]
    return descriptors, pid


def _read_spill(body: bytes, descriptors: list[int]) -> bytes:
    if len(body) != 5 or not descriptors:
        raise ValueError("large message without its body")
    (size,) = _LENGTH.unpack_from(body, 1)
    if size > MAXIMUM_MESSAGE_BYTES:
        raise ValueError("message larger than agreed")
    spill = descriptors.pop()
    try:
        content = os.pread(spill, size, 0)
    except OSError:
        raise ValueError("large message is not readable") from None
    finally:
        os.close(spill)
    if len(content) != size:
        raise ValueError("message cut short")
    return content


def close_all(descriptors: list[int]) -> None:
    """Close each descriptor once and forget it."""
    while descriptors:
        os.close(descriptors.pop())
