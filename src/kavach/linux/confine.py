"""One-way steps of a process against itself: ids, capabilities, no_new_privs, limits, descriptors.

Guarantees: what returns holds until the process ends and for all its children. Does not: order the steps (the plan
does) or check them (the observer does). May be called by: init and the command child only, never the host process.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # typeshed knows only its wrapper
import errno
import os
import resource
import struct

from kavach.linux import libc, uapi

_LAST_SIGNAL = 64  # asm-generic/signal.h: _NSIG
_C_LIBRARY_SIGNALS = (32, 33)  # nptl: SIGCANCEL and SIGSETXID
_MAXIMUM_CAPABILITIES = 64  # linux/capability.h: two 32-bit words in version 3


def set_no_new_privileges() -> None:
    """Make execve unable to grant anything: setuid bits and file capabilities are ignored from here on."""
    libc.syscall(uapi.SYS_PRCTL, uapi.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def die_with_parent() -> None:
    """Be killed when the thread that made this process ends. Cleared by a change of ids: call again after one."""
    libc.syscall(uapi.SYS_PRCTL, uapi.PR_SET_PDEATHSIG, uapi.SIGKILL, 0, 0, 0)


def set_undumpable() -> None:
    """Close this process's memory, environment and descriptors to others of its uid. Undone by execve."""
    libc.syscall(uapi.SYS_PRCTL, uapi.PR_SET_DUMPABLE, 0, 0, 0, 0)


def empty_bounding_set() -> None:
    """Take every capability out of the bounding set; needs CAP_SETPCAP."""
    for capability in range(_MAXIMUM_CAPABILITIES):
        try:
            libc.syscall(uapi.SYS_PRCTL, uapi.PR_CAPBSET_DROP, capability, 0, 0, 0)
        except OSError as error:
            if error.errno == errno.EINVAL and capability:
                return  # beyond the last capability this kernel knows
            raise


def lock_securebits() -> None:
    """Make uid 0 an ordinary uid for capabilities, for good; needs CAP_SETPCAP."""
    bits = (
        uapi.SECBIT_NOROOT
        | uapi.SECBIT_NOROOT_LOCKED
        | uapi.SECBIT_NO_SETUID_FIXUP
        | uapi.SECBIT_NO_SETUID_FIXUP_LOCKED
        | uapi.SECBIT_KEEP_CAPS_LOCKED
        | uapi.SECBIT_NO_CAP_AMBIENT_RAISE
        | uapi.SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED
    )
    libc.syscall(uapi.SYS_PRCTL, uapi.PR_SET_SECUREBITS, bits, 0, 0, 0)


def keep_capabilities(kept: tuple[int, ...]) -> None:
    """Hold exactly `kept` in the permitted and effective sets, nothing in the inheritable and ambient ones."""
    libc.syscall(uapi.SYS_PRCTL, uapi.PR_CAP_AMBIENT, uapi.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    mask = 0
    for capability in kept:
        mask |= 1 << capability
    low, high = mask & 0xFFFFFFFF, mask >> 32
    header = libc.buffer(struct.pack("=Ii", uapi.LINUX_CAPABILITY_VERSION_3, 0))
    data = libc.buffer(struct.pack("=6I", low, low, 0, high, high, 0))
    libc.syscall(uapi.SYS_CAPSET, header, data)


def set_ids(uid: int, gid: int, *, clear_groups: bool) -> None:
    """Take on real, effective and saved ids, and no supplementary groups if `clear_groups`."""
    if clear_groups:
        os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


def set_limits(limits: tuple[tuple[int, int, int], ...]) -> None:
    """Apply (resource, soft, hard) rows; a hard limit that is lower already stays.

    Raises:
        OSError: the kernel refused a row.
    """
    for number, soft, hard in limits:
        _, ceiling = resource.getrlimit(number)
        try:
            resource.setrlimit(number, (_within(soft, ceiling), _within(hard, ceiling)))
        except ValueError as error:
            raise OSError(errno.EPERM, f"limit {number}: {error}") from None


def _within(wanted: int, ceiling: int) -> int:
    if ceiling == resource.RLIM_INFINITY:
        return wanted
    return ceiling if wanted == resource.RLIM_INFINITY else min(wanted, ceiling)


def join_new_session_keyring() -> None:
    """Leave the caller's session keyring for an empty one; where nobody here can reach keyrings, nothing is left."""
    try:
        libc.syscall(uapi.SYS_KEYCTL, uapi.KEYCTL_JOIN_SESSION_KEYRING, 0, 0, 0, 0)
    except OSError as error:
        if not libc.is_missing(error) and not _is_keyctl_refused():
            raise


def _is_keyctl_refused() -> bool:
    """Return whether an outer filter refuses the whole call: this operation of it does not exist."""
    try:
        libc.syscall(uapi.SYS_KEYCTL, 0x7FFFFFFF, 0, 0, 0, 0)
    except OSError as error:
        return error.errno == errno.EPERM
    return False


def close_all_but(kept: tuple[int, ...]) -> None:
    """Close every descriptor of this process that is not in `kept`."""
    low = 0
    for number in sorted(kept):
        if number > low:
            _close_range(low, number - 1, 0)
        low = number + 1
    _close_range(low, 0xFFFFFFFF, 0)


def _close_range(first: int, last: int, flags: int) -> None:
    try:
        libc.syscall(uapi.SYS_CLOSE_RANGE, first, last, flags)
    except OSError as error:
        # The filters of containers answer EPERM to what they do not know.
        if error.errno not in {errno.ENOSYS, errno.EPERM}:
            raise
        top = min(last, resource.getrlimit(resource.RLIMIT_NOFILE)[1], 1 << 20)
        os.closerange(first, top + 1)


def reset_signals() -> None:
    """Give every signal its default action: Python ignores SIGPIPE and SIGXFSZ, a caller may ignore SIGHUP."""
    for number in range(1, _LAST_SIGNAL + 1):
        if number not in {uapi.SIGKILL, uapi.SIGSTOP, *_C_LIBRARY_SIGNALS}:
            _signal.signal(number, _signal.SIG_DFL)


def unblock_signals() -> None:
    """Block no signal."""
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
