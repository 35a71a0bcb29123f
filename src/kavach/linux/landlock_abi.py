"""What each Landlock ABI can refuse, as one table, and the arithmetic of having less than was asked.

Guarantees: nothing is claimed that no row names, so a kernel newer than the table is used as the newest row
and no more; `split` and `downgrade` only ever drop. Does not: call the kernel (`landlock` does), know policy
words, or make a denial below an allowed parent (Landlock has only allow rules; the mount view over-mounts
such paths). May be called by: everything; it imports nothing, and is part of what runs inside the jail.

A right that was dropped from the handled set is a right the kernel does not refuse, with one exception:
`REFER` is refused by every ruleset that does not name it, so dropping it makes the wall tighter, never wider.
"""

from __future__ import annotations

LANDLOCK_ACCESS_FS_EXECUTE = 1 << 0  # linux/landlock.h; 5.13
LANDLOCK_ACCESS_FS_WRITE_FILE = 1 << 1  # linux/landlock.h; 5.13
LANDLOCK_ACCESS_FS_READ_FILE = 1 << 2  # linux/landlock.h; 5.13
LANDLOCK_ACCESS_FS_READ_DIR = 1 << 3  # linux/landlock.h; 5.13
LANDLOCK_ACCESS_FS_REMOVE_DIR = 1 << 4  # linux/landlock.h; 5.13
LANDLOCK_ACCESS_FS_REMOVE_FILE = 1 << 5  # linux/landlock.h; 5.13
LANDLOCK_ACCESS_FS_MAKE_CHAR = 1 << 6  # linux/landlock.h; 5.13
LANDLOCK_ACCESS_FS_MAKE_DIR = 1 << 7  # linux/landlock.h; 5.13
LANDLOCK_ACCESS_FS_MAKE_REG = 1 << 8  # linux/landlock.h; 5.13
LANDLOCK_ACCESS_FS_MAKE_SOCK = 1 << 9  # linux/landlock.h; 5.13
LANDLOCK_ACCESS_FS_MAKE_FIFO = 1 << 10  # linux/landlock.h; 5.13
LANDLOCK_ACCESS_FS_MAKE_BLOCK = 1 << 11  # linux/landlock.h; 5.13
LANDLOCK_ACCESS_FS_MAKE_SYM = 1 << 12  # linux/landlock.h; 5.13
LANDLOCK_ACCESS_FS_REFER = 1 << 13  # linux/landlock.h; 5.19
LANDLOCK_ACCESS_FS_TRUNCATE = 1 << 14  # linux/landlock.h; 6.2
LANDLOCK_ACCESS_FS_IOCTL_DEV = 1 << 15  # linux/landlock.h; 6.10

LANDLOCK_ACCESS_NET_BIND_TCP = 1 << 0  # linux/landlock.h; 6.7
LANDLOCK_ACCESS_NET_CONNECT_TCP = 1 << 1  # linux/landlock.h; 6.7

LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET = 1 << 0  # linux/landlock.h; 6.12
LANDLOCK_SCOPE_SIGNAL = 1 << 1  # linux/landlock.h; 6.12

LANDLOCK_RESTRICT_SELF_LOG_SAME_EXEC_OFF = 1 << 0  # linux/landlock.h; 6.15
LANDLOCK_RESTRICT_SELF_LOG_NEW_EXEC_ON = 1 << 1  # linux/landlock.h; 6.15
LANDLOCK_RESTRICT_SELF_LOG_SUBDOMAINS_OFF = 1 << 2  # linux/landlock.h; 6.15

# What a rule on something that is not a directory may carry; the rest answers EINVAL there.
ACCESS_FILE = (
    LANDLOCK_ACCESS_FS_EXECUTE
    | LANDLOCK_ACCESS_FS_WRITE_FILE
    | LANDLOCK_ACCESS_FS_READ_FILE
    | LANDLOCK_ACCESS_FS_TRUNCATE
    | LANDLOCK_ACCESS_FS_IOCTL_DEV
)

# The rights of the first ABI: EXECUTE to MAKE_SYM, bits 0 to 12.
_FIRST_FS = (LANDLOCK_ACCESS_FS_MAKE_SYM << 1) - 1
_TCP = LANDLOCK_ACCESS_NET_BIND_TCP | LANDLOCK_ACCESS_NET_CONNECT_TCP
_SCOPES = LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET | LANDLOCK_SCOPE_SIGNAL
_LOG_FLAGS = (
    LANDLOCK_RESTRICT_SELF_LOG_SAME_EXEC_OFF
    | LANDLOCK_RESTRICT_SELF_LOG_NEW_EXEC_ON
    | LANDLOCK_RESTRICT_SELF_LOG_SUBDOMAINS_OFF
)

# One row adds an ABI: its number, the first kernel, and what it adds to the row above as
# (file system rights, network rights, scopes, flags of restrict_self).
ABI_TABLE = (
    (1, "5.13", (_FIRST_FS, 0, 0, 0)),
    (2, "5.19", (LANDLOCK_ACCESS_FS_REFER, 0, 0, 0)),
    (3, "6.2", (LANDLOCK_ACCESS_FS_TRUNCATE, 0, 0, 0)),
    (4, "6.7", (0, _TCP, 0, 0)),
    (5, "6.10", (LANDLOCK_ACCESS_FS_IOCTL_DEV, 0, 0, 0)),
    (6, "6.12", (0, 0, _SCOPES, 0)),
    (7, "6.15", (0, 0, 0, _LOG_FLAGS)),
)
HIGHEST_ABI = ABI_TABLE[-1][0]

NOTHING = (0, 0, 0, 0)


def rights(abi: int) -> tuple[int, int, int, int]:
    """Return all that an ABI can refuse: (file system, network, scopes, restrict_self flags).

    Args:
        abi: the kernel's number; 0 or less has nothing, more than `HIGHEST_ABI` has what `HIGHEST_ABI` has.
    """
    fs, net, scoped, flags = NOTHING
    for number, _kernel, (more_fs, more_net, more_scoped, more_flags) in ABI_TABLE:
        if number <= abi:
            fs |= more_fs
            net |= more_net
            scoped |= more_scoped
            flags |= more_flags
    return fs, net, scoped, flags


def split(
    wanted: tuple[int, int, int, int], supported: tuple[int, int, int, int]
) -> tuple[tuple[int, int, int, int], tuple[int, int, int, int]]:
    """Return what of `wanted` is supported and what is not: disjoint, and together exactly `wanted`.

    Args:
        wanted: (file system, network, scopes, flags) as `rights` orders them.
        supported: the same shape, from `rights` or from a probe.

    Raises:
        ValueError: a negative number is no set of rights.
    """
    if min(*wanted, *supported) < 0:
        raise ValueError(f"rights are bit sets, not negative: {wanted!r}, {supported!r}")
    fs, net, scoped, flags = wanted
    has_fs, has_net, has_scoped, has_flags = supported
    kept = (fs & has_fs, net & has_net, scoped & has_scoped, flags & has_flags)
    dropped = (fs & ~has_fs, net & ~has_net, scoped & ~has_scoped, flags & ~has_flags)
    return kept, dropped


def downgrade(
    wanted: tuple[int, int, int, int], abi: int
) -> tuple[tuple[int, int, int, int], tuple[int, int, int, int]]:
    """Return what of `wanted` an ABI has and what it lacks; a bit that no row names is always dropped.

    Raises:
        ValueError: a negative number is no set of rights.
    """
    return split(wanted, rights(abi))


def minimum_abi(wanted: tuple[int, int, int, int]) -> int:
    """Return the lowest ABI that drops nothing of `wanted`, or 0 when no row of the table has it all."""
    for number, _kernel, _added in ABI_TABLE:
        if downgrade(wanted, number)[1] == NOTHING:
            return number
    return 0


def kernel_of(abi: int) -> str:
    """Return the first kernel release with this ABI ("6.12"), or "" for a number the table does not hold."""
    for number, kernel, _added in ABI_TABLE:
        if number == abi:
            return kernel
    return ""


_PREFIXES = ("LANDLOCK_ACCESS_FS_", "LANDLOCK_ACCESS_NET_", "LANDLOCK_SCOPE_", "LANDLOCK_RESTRICT_SELF_")


def names(which: tuple[int, int, int, int]) -> tuple[str, ...]:
    """Return the kernel's name of each bit, in the table's order; an unknown bit is written as its number."""
    found: list[str] = []
    for prefix, bits in zip(_PREFIXES, which, strict=True):
        known = {value: name for name, value in globals().items() if name.startswith(prefix)}
        found += [known.get(1 << at, f"{prefix}{1 << at:#x}") for at in range(bits.bit_length()) if bits >> at & 1]
    return tuple(found)
