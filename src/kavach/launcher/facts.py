"""What this host lets a sandbox have, as plain values that lowering decides on.

Guarantees: every value was read or tried in this process, nothing is assumed from a version number. Does not: change
the host. May be called by: kavach.backends.process and the tests, which make their own `Facts`.
"""

from __future__ import annotations

import functools
import os
import sys
from typing import NamedTuple

from kavach.linux import landlock, uapi

#: user_namespaces(7): one block a sandbox, so that two sandboxes of one host process share no user id.
IDS_A_SANDBOX = 2
_BLOCK = 1024
_HIGHEST_ID = 0x7FFF0000  # below the range that some file systems and tools treat as negative
_NEEDED_CAPABILITIES = (1 << uapi.CAP_SETUID) | (1 << uapi.CAP_SETGID)
_CAP_SYS_ADMIN = 1 << 21  # linux/capability.h; 2.2


class Facts(NamedTuple):
    """One host process's means.

    Args:
        uid: its effective user id.
        gid: its effective group id.
        can_map_range: it may map more than its own id (CAP_SETUID and CAP_SETGID over a large enough range).
        is_privileged: it may mount in its own user namespace (CAP_SYS_ADMIN).
        first_id: first of a block of ids that nobody on this host uses; 0 without `can_map_range`.
        landlock: rights that were really accepted (file system, network, scopes).
        landlock_abi: the number the kernel claims, 0 for none.
        machine: `x86_64` or `aarch64`.
        python: the prefixes of the running Python.
    """

    uid: int
    gid: int
    can_map_range: bool
    is_privileged: bool
    first_id: int
    landlock: tuple[int, int, int]
    landlock_abi: int
    machine: str
    python: tuple[str, ...]


@functools.cache
def read_facts() -> Facts:
    """Return this process's means, read once."""
    effective = _effective_capabilities()
    first = _free_block(_own_range(), _used_ids()) if effective & _NEEDED_CAPABILITIES == _NEEDED_CAPABILITIES else 0
    return Facts(
        uid=os.geteuid(),
        gid=os.getegid(),
        can_map_range=first > 0,
        is_privileged=bool(effective & _CAP_SYS_ADMIN),
        first_id=first,
        landlock=_landlock_rights(),
        landlock_abi=_landlock_abi(),
        machine=os.uname().machine,
        python=tuple(dict.fromkeys(os.path.realpath(one) for one in (sys.prefix, sys.base_prefix))),
    )


def count_tasks(uid: int) -> int:
    """Return how many tasks a user runs now: RLIMIT_NPROC counts them all where no user namespace is ours."""
    total = 0
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            if os.stat(f"/proc/{name}").st_uid == uid:
                total += len(os.listdir(f"/proc/{name}/task"))
        except OSError:
            continue  # it has ended
    return total


def _effective_capabilities() -> int:
    with open("/proc/self/status", encoding="ascii", errors="replace") as handle:
        for line in handle:
            if line.startswith("CapEff:"):
                return int(line.split()[1], 16)
    return 0


def _landlock_rights() -> tuple[int, int, int]:
    try:
        return landlock.probe_rights()
    except OSError:
        return (0, 0, 0)


def _landlock_abi() -> int:
    try:
        return landlock.abi_version()
    except OSError:
        return 0


def _own_range() -> list[tuple[int, int]]:
    """Return the (first, count) of ids that exist in this process's user namespace, for users and groups alike."""
    extents = []
    for name in ("uid_map", "gid_map"):
        with open(f"/proc/self/{name}", encoding="ascii") as handle:
            extents.append([(int(first), int(count)) for first, _, count in (line.split() for line in handle)])
    uids, gids = extents
    both = []
    for first, count in uids:
        for other, size in gids:
            low, high = max(first, other), min(first + count, other + size)
            if low < high:
                both.append((low, high - low))
    return both


def _used_ids() -> list[tuple[int, int]]:
    """Return (first, count) of ids that accounts hold or that are lent to users as subordinate ids."""
    used = [(65534, 2)]
    for path, column in (("/etc/passwd", 2), ("/etc/group", 2)):
        used += [
            (int(fields[column]), 1) for fields in _rows(path) if len(fields) > column and fields[column].isdigit()
        ]
    for path in ("/etc/subuid", "/etc/subgid"):
        for fields in _rows(path):
            if len(fields) == 3 and fields[1].isdigit() and fields[2].isdigit():
                used.append((int(fields[1]), int(fields[2])))
    return used


def _rows(path: str) -> list[list[str]]:
    try:
        with open(path, encoding="utf-8", errors="replace") as handle:
            return [line.strip().split(":") for line in handle]
    except OSError:
        return []


def _free_block(extents: list[tuple[int, int]], used: list[tuple[int, int]]) -> int:
    """Return the first id of the highest block that nobody uses, 0 if there is none."""
    for first, count in sorted(extents, reverse=True):
        top = min(first + count, _HIGHEST_ID)
        low = top - _BLOCK
        while low >= max(first, 1):
            clash = [start for start, size in used if start < low + _BLOCK and low < start + size]
            if not clash:
                return low
            low = min(clash) - _BLOCK
    return 0
