"""Process creation in new namespaces, id maps, and what is set up once inside: host names and the loopback device.

Guarantees: a function that returns did what its name says. Does not: choose flags or ids. May be called by: the
launcher, init and the command child only (a raw clone in a process with threads would be undefined).
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # typeshed knows only its wrapper
import _socket
import fcntl
import os
import struct

from kavach.linux import libc, uapi

_CLONE_ARGS = struct.Struct("=11Q")  # linux/sched.h: struct clone_args, version 2 (CLONE_INTO_CGROUP); 5.7


def clone(flags: int, cgroup_fd: int = -1) -> int:
    """Return twice, like fork: 0 in a new process that is in the namespaces of `flags`, its pid in the caller.

    Args:
        flags: CLONE_NEW* bits (and CLONE_PARENT), 0 for none.
        cgroup_fd: folder of a cgroup v2 group in which the child starts, -1 for the caller's own.

    Raises:
        OSError: the kernel refused; no process was made.
    """
    if cgroup_fd < 0:
        return libc.syscall(uapi.SYS_CLONE, flags | uapi.SIGCHLD, 0, 0, 0, 0)
    arguments = _CLONE_ARGS.pack(flags | uapi.CLONE_INTO_CGROUP, 0, 0, 0, uapi.SIGCHLD, 0, 0, 0, 0, 0, cgroup_fd)
    try:
        return libc.syscall(uapi.SYS_CLONE3, libc.buffer(arguments), _CLONE_ARGS.size)
    except OSError as error:
        if not libc.is_missing(error):
            raise
    # The filters of containers answer ENOSYS, because they cannot look into clone3's arguments.
    pid = libc.syscall(uapi.SYS_CLONE, flags | uapi.SIGCHLD, 0, 0, 0, 0)
    if pid == 0:
        _join(cgroup_fd)
    return pid


def _join(cgroup_fd: int) -> None:
    """Move this new process into a group, or end it: it must never run outside."""
    try:
        _write(cgroup_fd, "cgroup.procs", b"0")
    except OSError:
        os._exit(1)


def unshare(flags: int) -> None:
    """Move this process into new namespaces of `flags` (unshare(2), Linux 2.6.16)."""
    libc.syscall(uapi.SYS_UNSHARE, flags)


def write_id_maps(pid: int, uid_map: bytes, gid_map: bytes, *, deny_setgroups: bool) -> None:
    """Give process `pid`, which sits in a fresh user namespace, its ids.

    Args:
        pid: a child that has not been mapped yet.
        uid_map: lines of `inside outside count`, as in user_namespaces(7).
        gid_map: likewise.
        deny_setgroups: write `deny` first, as the kernel demands of a caller without CAP_SETGID.

    Raises:
        OSError: the kernel refused a map.
    """
    folder = os.open(f"/proc/{pid}", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if deny_setgroups:
            _write(folder, "setgroups", b"deny")
        _write(folder, "uid_map", uid_map)
        _write(folder, "gid_map", gid_map)
    finally:
        os.close(folder)


def _write(folder: int, name: str, content: bytes) -> None:
    handle = os.open(name, os.O_WRONLY | os.O_CLOEXEC, dir_fd=folder)
    try:
        os.write(handle, content)
    finally:
        os.close(handle)


def set_hostname(name: bytes) -> None:
    """Set the UTS namespace's host name (at most 64 bytes, linux/utsname.h)."""
    _socket.sethostname(name)  # type: ignore[arg-type]  # it takes bytes too


def set_domainname(name: bytes) -> None:
    """Set the UTS namespace's NIS domain name (at most 64 bytes, linux/utsname.h)."""
    libc.syscall(uapi.SYS_SETDOMAINNAME, name, len(name))


def bring_loopback_up() -> None:
    """Set the flag IFF_UP on `lo` of the current network namespace."""
    handle = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    try:
        fcntl.ioctl(handle.fileno(), uapi.SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", uapi.IFF_UP))
    finally:
        handle.close()


def open_pidfd(pid: int) -> int:
    """Return a close-on-exec descriptor of process `pid` that becomes readable when it has ended (Linux 5.3)."""
    return os.pidfd_open(pid)


def adopt_orphans() -> None:
    """Become the process that orphaned descendants are given to (child sub-reaper, Linux 3.4)."""
    libc.syscall(uapi.SYS_PRCTL, uapi.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def signal_descriptor(numbers: tuple[int, ...]) -> int:
    """Block `numbers` for good and return a non-blocking descriptor that reports their arrival (128-byte records)."""
    mask = 0
    for number in numbers:
        mask |= 1 << (number - 1)
    _signal.pthread_sigmask(_signal.SIG_BLOCK, numbers)
    # signalfd(2): the kernel's sigset_t is 8 bytes on both architectures.
    return libc.syscall(
        uapi.SYS_SIGNALFD4,
        0xFFFFFFFFFFFFFFFF,
        libc.buffer(struct.pack("=Q", mask)),
        8,
        uapi.SFD_NONBLOCK | uapi.SFD_CLOEXEC,
    )
