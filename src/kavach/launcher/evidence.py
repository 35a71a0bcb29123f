"""What is looked at before a command may start: its `/proc` from outside, its canaries' outcomes, its mounts.

Guarantees: everything was read from the kernel by this process, or told by a child that had not run untrusted code
yet. Does not: judge (kavach.launcher.observe does). May be called by: kavach.backends.process, kavach.launcher.observe.
"""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING, NamedTuple

from kavach.linux import mounts
from kavach.linux.cgroup import PAGE_BYTES, read_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kavach.launcher.client import Standing
    from kavach.launcher.prepared import Prepared

NAMESPACES = ("user", "pid", "mnt", "ipc", "uts", "net", "cgroup")  # the order in which the launcher reports inodes


class Sight(NamedTuple):
    """What was seen of one sandbox and of one command about to start in it."""

    inodes: Mapping[str, int]
    host_inodes: Mapping[str, int]
    status: Mapping[str, str]
    mounts: tuple[tuple[bytes, bytes, bytes, bytes], ...]
    interfaces: tuple[str, ...] | None
    outcomes: Mapping[tuple[str, int], int]
    outside: Mapping[str, int]
    lost: frozenset[str]
    init_ids: tuple[str, ...]


def host_inodes() -> dict[str, int]:
    """Return the namespaces of this process by inode, which a sandbox's must differ from."""
    return {name: os.stat(f"/proc/self/ns/{name}").st_ino for name in NAMESPACES}


@functools.cache
def own_filters() -> int:
    """Return how many filters this process is under itself, which every child of it inherits."""
    return int(read_status(os.getpid()).get("Seccomp_filters", "0"))


def look(
    standing: Standing,
    prepared: Prepared,
    outside: tuple[tuple[bytes, int, int], ...],
    mount_rows: tuple[tuple[bytes, bytes, bytes, bytes], ...],
    interfaces: tuple[str, ...] | None,
    init_ids: tuple[str, ...],
) -> Sight:
    """Return what is to be seen of a command child that stands and waits for `go`.

    Raises:
        OSError: the child is gone.
    """
    return Sight(
        inodes=dict(zip(NAMESPACES, standing.inodes, strict=True)),
        host_inodes=host_inodes(),
        status=read_status(prepared.pid),
        mounts=mount_rows,
        interfaces=interfaces,
        outcomes={(name.decode(), phase): code for name, phase, code in prepared.outcomes},
        outside={name.decode(): code for name, _, code in outside},
        lost=frozenset(name.decode() for name, _ in (*standing.lost, *prepared.lost)),
        init_ids=init_ids,
    )


def read_status(pid: int) -> dict[str, str]:
    """Return /proc/PID/status by key (proc(5)).

    Raises:
        OSError: there is no such process.
    """
    text = read_text(f"/proc/{pid}/status")
    return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)


def read_mounts(pid: int) -> tuple[tuple[bytes, bytes, bytes, bytes], ...]:
    """Return the mounts of a process, read from outside."""
    with open(f"/proc/{pid}/mountinfo", "rb", buffering=0) as handle:
        parts = []
        while part := handle.read(PAGE_BYTES):
            parts.append(part)
    return tuple(mounts.read_mountinfo(b"".join(parts)))


def read_interfaces(pid: int) -> tuple[str, ...] | None:
    """Return the names of the network devices that a process has, None where they cannot be read."""
    try:
        text = read_text(f"/proc/{pid}/net/dev")
    except OSError:
        return None
    return tuple(line.split(":")[0].strip() for line in text.splitlines()[2:])
