"""What one sandbox uses now, asked of the kernel from outside by whoever may read its cgroup or its /proc entries.

Guarantees: unknown is None, never 0; `source` says who counted. A figure of `procfs` is a sum over living processes:
shared memory counts once for each, and what ended unseen is missing. Does not: change anything. May be called by:
kavach.sandbox, kavach.cli, and users who know a sandbox's first process.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from kavach.launcher.init import descendants
from kavach.linux import cgroup

__all__ = ["SandboxUsage", "measure"]

_CGROUPS = "/sys/fs/cgroup"


class SandboxUsage(NamedTuple):
    """What a sandbox uses.

    Args:
        source: `cgroup2`, `cgroup1` or `procfs`.
        cpu_time_ms: processor time so far, user and system.
        memory_bytes: now.
        memory_peak_bytes: the most at one moment.
        pids: processes (and, in a cgroup, threads) now.
        io_read_bytes: read from block devices so far.
        io_write_bytes: written to block devices so far.
    """

    source: str
    cpu_time_ms: float | None = None
    memory_bytes: int | None = None
    memory_peak_bytes: int | None = None
    pids: int | None = None
    io_read_bytes: int | None = None
    io_write_bytes: int | None = None


def measure(init_pid: int, sandbox_id: str, *, proc: str = "/proc", root: str = _CGROUPS) -> SandboxUsage | None:
    """Return what a sandbox uses, None where its first process has gone.

    Args:
        init_pid: the sandbox's first process, as this host numbers it.
        sandbox_id: part of the names of its cgroups.
        proc: where procfs is.
        root: below which cgroups are mounted.
    """
    try:
        folders = _folders(init_pid, sandbox_id, proc, root)
    except (OSError, ValueError):
        return None
    found = _version1(folders) if "memory" in folders else _version2(folders[""]) if "" in folders else None
    return _procfs(init_pid, proc) if found is None or found.memory_bytes is None else found


def _folders(init_pid: int, sandbox_id: str, proc: str, root: str) -> dict[str, str]:
    """Return the sandbox's own cgroup folders: one for each v1 controller, and the v2 one under the key ""."""
    with open(f"{proc}/{init_pid}/cgroup", encoding="utf-8", errors="surrogateescape") as lines:
        rows = [line.rstrip("\n").split(":", 2) for line in lines]
    places = {name: path for _, names, path in rows for name in names.split(",")}
    found = {}
    for mount in cgroup.find_mounts(root, proc):
        for controller in mount.controllers or (("",) if mount.version == 2 else ()):
            head, mark, _ = places.get(controller, "").partition(sandbox_id)
            if mark:  # SECURITY: a group without the id in its name is shared with others, whose use it would show
                found[controller] = mount.folder(head + mark)
    return found


def _version2(folder: str) -> SandboxUsage:
    cpu_us = cgroup.read_key(f"{folder}/cpu.stat", "usage_usec")
    io = cgroup.read_io(f"{folder}/io.stat")
    return SandboxUsage(
        source="cgroup2",
        cpu_time_ms=None if cpu_us is None else cpu_us / 1000,
        memory_bytes=cgroup.read_number(f"{folder}/memory.current"),
        memory_peak_bytes=cgroup.read_number(f"{folder}/memory.peak"),
        pids=cgroup.read_number(f"{folder}/pids.current"),
        io_read_bytes=None if io is None else io[0],
        io_write_bytes=None if io is None else io[1],
    )


def _version1(folders: dict[str, str]) -> SandboxUsage:
    def number(controller: str, name: str) -> int | None:
        return cgroup.read_number(f"{folders[controller]}/{name}") if controller in folders else None

    cpu_ns = number("cpuacct", "cpuacct.usage")
    return SandboxUsage(
        source="cgroup1",
        cpu_time_ms=None if cpu_ns is None else cpu_ns / 1e6,
        memory_bytes=number("memory", "memory.usage_in_bytes"),
        memory_peak_bytes=number("memory", "memory.max_usage_in_bytes"),
        pids=number("pids", "pids.current"),
    )


def _procfs(init_pid: int, proc: str) -> SandboxUsage | None:
    """Return sums over the sandbox's living processes; times of those that were waited for are in their parents'."""
    ticks = pages = count = 0
    for pid in (init_pid, *descendants(init_pid, proc)):
        fields = cgroup.read_stat(proc, pid)
        try:
            resident = cgroup.read_text(f"{proc}/{pid}/statm").split()[1]
        except OSError:
            continue
        if fields is None:
            continue
        ticks += sum(map(int, fields[11:15]))  # utime, stime, cutime, cstime: fields 14 to 17, proc_pid_stat(5)
        pages += int(resident)
        count += 1
    if not count:
        return None
    return SandboxUsage(
        source="procfs",
        cpu_time_ms=ticks * 1000 / os.sysconf("SC_CLK_TCK"),
        memory_bytes=pages * os.sysconf("SC_PAGE_SIZE"),
        pids=count,
    )
