"""Installs a finished seccomp filter on the calling thread.

Guarantees: when `install` returns, the filter is in force for this thread and all it will start. Does not:
build filters (seccomp_filter.py), judge them, set no_new_privs (the step before, confine.py) or cover threads
that already run. May be called by: the launcher's child, and tests' victims. Runs inside the jail.
"""

from __future__ import annotations

import os
import struct

from kavach.linux import libc

SECCOMP_NUMBER = {"x86_64": 317, "aarch64": 277}  # asm/unistd.h __NR_seccomp, 3.17
SECCOMP_SET_MODE_FILTER = 1  # linux/seccomp.h, 3.17
SECCOMP_FILTER_FLAG_LOG = 1 << 1  # linux/seccomp.h, 4.14
SECCOMP_FILTER_FLAG_SPEC_ALLOW = 1 << 2  # linux/seccomp.h, 4.17
SECCOMP_FILTER_FLAG_NEW_LISTENER = 1 << 3  # linux/seccomp.h, 5.0
SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV = 1 << 5  # linux/seccomp.h, 5.19

_FILTER_BYTES = 8  # sizeof(struct sock_filter)


def install(program: bytes, flags: int = 0) -> int:
    """Return once the filter is in force: a listener descriptor with NEW_LISTENER, else 0.

    Args:
        program: the bytes of struct sock_filter[], native byte order.
        flags: SECCOMP_FILTER_FLAG_ bits; TSYNC is refused, the jail has one thread.

    Raises:
        OSError: the kernel refused. EACCES: no_new_privs is not set; EINVAL: the program is not valid or the
            kernel does not know a flag; EBUSY: the chain has a listener already.
        ValueError: the program is empty, not whole instructions or too long; or flags ask for TSYNC.
    """
    if not program or len(program) % _FILTER_BYTES or len(program) // _FILTER_BYTES > 4096:
        raise ValueError(f"{len(program)} bytes are not 1 to 4096 BPF instructions")
    if flags & 1:
        raise ValueError("TSYNC returns a thread id, not an error, and the jail has one thread")
    number = SECCOMP_NUMBER[os.uname().machine]
    code = libc.buffer(program)
    # struct sock_fprog (linux/filter.h): unsigned short len, padding, pointer to the instructions.
    fprog = struct.pack("@HP", len(program) // _FILTER_BYTES, libc.address(code))
    return libc.syscall(number, SECCOMP_SET_MODE_FILTER, flags, fprog)
