"""The three Landlock system calls, and a probe that asks by making a ruleset instead of trusting a number.

Guarantees: after `restrict_self` returns, this thread and all it starts are refused every handled right that
no rule granted, for ever. A descriptor returned by `create_ruleset` is really a ruleset: an outer filter that
answers "success" without the kernel's work is an OSError here, not a wall. Does not: restrict other threads,
revoke open descriptors, deny below an allowed parent, decide which rights to ask (`landlock_abi` has the
table), or prove that denials happen (the canaries do). May be called by: the launcher, init and the command
child; `abi_version`, `errata` and `probe_rights` also by the host process, which they leave as it was.

ORDER: `restrict_self` needs no_new_privs or CAP_SYS_ADMIN in the own user namespace, so no_new_privs comes
first.
"""

from __future__ import annotations

import errno
import os
import struct

from kavach.linux import landlock_abi, libc

SYS_LANDLOCK_CREATE_RULESET = 444  # asm-generic/unistd.h; 5.13
SYS_LANDLOCK_ADD_RULE = 445  # asm-generic/unistd.h; 5.13
SYS_LANDLOCK_RESTRICT_SELF = 446  # asm-generic/unistd.h; 5.13

LANDLOCK_CREATE_RULESET_VERSION = 1 << 0  # linux/landlock.h; 5.13
LANDLOCK_CREATE_RULESET_ERRATA = 1 << 1  # linux/landlock.h; 6.15
LANDLOCK_RULE_PATH_BENEATH = 1  # linux/landlock.h; 5.13
LANDLOCK_RULE_NET_PORT = 2  # linux/landlock.h; 6.7

_S_IFMT = 0o170000  # linux/stat.h; 1.0
_S_IFDIR = 0o040000  # linux/stat.h; 1.0


def abi_version() -> int:
    """Return the ABI number that the kernel claims; what it really takes is `probe_rights`.

    Raises:
        OSError: ENOSYS where Landlock is not built in (or an outer filter hides it), EOPNOTSUPP where it is
            built in but missing from the kernel's `lsm=` list.
    """
    return libc.syscall(SYS_LANDLOCK_CREATE_RULESET, None, 0, LANDLOCK_CREATE_RULESET_VERSION)


def errata() -> int:
    """Return the bit set of fixed kernel defects (bit n-1 is erratum n); 0 where the kernel cannot say.

    Raises:
        OSError: there is no Landlock, as for `abi_version`.
    """
    try:
        return libc.syscall(SYS_LANDLOCK_CREATE_RULESET, None, 0, LANDLOCK_CREATE_RULESET_ERRATA)
    except OSError as error:
        if error.errno == errno.EINVAL:
            return 0
        raise


def create_ruleset(fs: int, net: int, scoped: int) -> int:
    """Return a new close-on-exec ruleset descriptor that handles exactly these rights.

    Args:
        fs: `LANDLOCK_ACCESS_FS_*` to refuse unless a rule grants them.
        net: `LANDLOCK_ACCESS_NET_*`, likewise per port.
        scoped: `LANDLOCK_SCOPE_*` to refuse without exception.

    Raises:
        OSError: EINVAL or E2BIG for a right this kernel does not know, ENOMSG for none at all, ENOSYS or
            EOPNOTSUPP without Landlock, EPROTO when the call "succeeded" but gave no ruleset.
    """
    # The attribute grew with the ABI; an old kernel takes the short form only, or zeros.
    if scoped:
        attribute = struct.pack("=QQQ", fs, net, scoped)
    elif net:
        attribute = struct.pack("=QQ", fs, net)
    else:
        attribute = struct.pack("=Q", fs)
    fd = libc.syscall(SYS_LANDLOCK_CREATE_RULESET, attribute, len(attribute), 0)
    # SECURITY: an outer seccomp filter can answer 0 without running the call; 0 would then be standard input.
    # A ruleset is an anonymous inode (no file type) and close-on-exec; the descriptor is not closed when it
    # is not ours.
    if os.fstat(fd).st_mode & _S_IFMT or os.get_inheritable(fd):
        raise OSError(errno.EPROTO, "landlock_create_ruleset answered with a descriptor that is no ruleset")
    return fd


def add_path(ruleset_fd: int, path_fd: int, access: int) -> int:
    """Grant rights on what a descriptor names and all below it; return those that were granted.

    Args:
        ruleset_fd: from `create_ruleset`.
        path_fd: best opened with O_PATH, and as the caller wants symbolic links treated.
        access: a subset of the handled rights. On anything but a directory the directory rights are left out,
            and nothing is added when none remains.

    Raises:
        OSError: EINVAL when `access` is not a subset of the handled rights, EBADFD when the descriptor names
            nothing that has a path (a pipe, a socket), or the kernel's refusal.
    """
    if os.fstat(path_fd).st_mode & _S_IFMT != _S_IFDIR:
        access &= landlock_abi.ACCESS_FILE
    if access:
        rule = struct.pack("=Qi", access, path_fd)
        libc.syscall(SYS_LANDLOCK_ADD_RULE, ruleset_fd, LANDLOCK_RULE_PATH_BENEATH, rule, 0)
    return access


def add_port(ruleset_fd: int, port: int, access: int) -> None:
    """Grant TCP rights on one port; port 0 with BIND_TCP means the ephemeral range.

    Args:
        ruleset_fd: from `create_ruleset`.
        port: 0 to 65535, in host order.
        access: a non-empty subset of the handled network rights.

    Raises:
        ValueError: the port is out of range.
        OSError: EINVAL when `access` is not handled, EAFNOSUPPORT on a kernel without TCP, or the kernel's
            refusal.
    """
    if not 0 <= port <= 0xFFFF:
        raise ValueError(f"a TCP port is 0 to 65535, not {port}")
    rule = struct.pack("=QQ", access, port)
    libc.syscall(SYS_LANDLOCK_ADD_RULE, ruleset_fd, LANDLOCK_RULE_NET_PORT, rule, 0)


def restrict_self(ruleset_fd: int, flags: int = 0) -> None:
    """Put this thread and all its future children under the ruleset, for ever.

    Args:
        ruleset_fd: from `create_ruleset`; it may be closed afterwards.
        flags: `LANDLOCK_RESTRICT_SELF_*` (ABI 7), or 0.

    Raises:
        OSError: EPERM without no_new_privs and without CAP_SYS_ADMIN in the own user namespace, E2BIG above
            16 nested rulesets, EINVAL for an unknown flag.
    """
    libc.syscall(SYS_LANDLOCK_RESTRICT_SELF, ruleset_fd, flags)


def probe_rights() -> tuple[int, int, int]:
    """Return the (fs, net, scoped) rights of the highest table row that this kernel takes; changes nothing.

    The claimed number plays no part: each row's whole set is asked for by making, and closing, a ruleset.
    (0, 0, 0) means that Landlock cannot be used here.
    """
    for number, _kernel, _added in reversed(landlock_abi.ABI_TABLE):
        fs, net, scoped, _flags = landlock_abi.rights(number)
        try:
            os.close(create_ruleset(fs, net, scoped))
        except OSError:
            continue
        return fs, net, scoped
    return 0, 0, 0
