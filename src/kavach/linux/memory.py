"""Memory behind a descriptor that nobody can change once it is sealed (memfd_create(2), Linux 3.17).

Guarantees: nothing can be executed from it where the kernel knows how to say so. Does not: write to it. May be called
by: the host's side, and the jail for a long message; importing it works on every platform, calling it on Linux.
"""

from __future__ import annotations

import errno
import os

MFD_NOEXEC_SEAL = 0x0008  # linux/memfd.h, Linux 6.3; older kernels answer EINVAL


def create_memory(name: str) -> int:
    """Return a descriptor of empty memory that can be sealed.

    Args:
        name: shown in /proc/PID/fd; it must say nothing.

    Raises:
        OSError: the kernel, or an outer filter, gives none.
    """
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        return os.memfd_create(name, flags | MFD_NOEXEC_SEAL)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    return os.memfd_create(name, flags)


def seal(fd: int) -> None:
    """Let nobody change the memory's content or size, or take this back.

    Raises:
        OSError: a writable mapping of it exists.
    """
    import fcntl

    seals = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
