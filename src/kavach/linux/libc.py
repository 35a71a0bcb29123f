"""The one door to ctypes: raw system calls that raise OSError and never return -1.

Guarantees: every call made here either returns the kernel's non-negative answer or raises OSError with the
kernel's errno. Does not: interpret, retry (but EINTR, which is the caller's to decide) or validate. May be called
by: anything in kavach.linux; everything else goes through a module of kavach.linux.

System call numbers are looked up by the caller (uapi for the few that the launcher needs), because glibc has no
wrapper for most of them.
"""

from __future__ import annotations

import ctypes
import errno
import os

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long
_WIDE = 0x80000000


def syscall(number: int, *args: int | bytes | ctypes.Array[ctypes.c_char] | None) -> int:
    """Return the kernel's non-negative answer to one raw system call.

    Args:
        number: the call's number on this architecture.
        args: at most six. An int is passed as a 64-bit register, bytes as a pointer to a NUL-terminated copy that
            lives until the call returns, a buffer made by `buffer` as a pointer to it, None as NULL.

    Raises:
        OSError: the kernel refused; errno is the kernel's.
    """
    result: int = 0
    for argument in args:
        # ctypes passes a bare int as a C int; what has more bits is wrapped, which costs a microsecond each.
        if isinstance(argument, int) and not 0 <= argument < _WIDE:
            wide = [ctypes.c_ulong(one) if isinstance(one, int) else one for one in args]
            result = _syscall(number, *wide)
            break
    else:
        result = _syscall(number, *args)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def buffer(content: bytes | int) -> ctypes.Array[ctypes.c_char]:
    """Return memory that the kernel may read and write: a copy of `content`, or `content` zero bytes."""
    if isinstance(content, int):
        return ctypes.create_string_buffer(content)
    return ctypes.create_string_buffer(content, len(content))


def address(memory: ctypes.Array[ctypes.c_char]) -> int:
    """Return the address of a buffer, for a structure that points to it; the caller keeps the buffer alive."""
    return ctypes.addressof(memory)


def is_missing(error: OSError) -> bool:
    """Return whether the kernel (or an outer filter) says that a call does not exist here."""
    return error.errno in {errno.ENOSYS, errno.EOPNOTSUPP}
