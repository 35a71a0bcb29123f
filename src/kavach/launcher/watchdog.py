"""Limits of a sandbox that no cgroup holds: measured from outside, judged by a pure function.

Enforces: nothing alone; the caller samples (every 50 ms), ends the sandbox when `judge` says `oom`, and
    applies its rule for a sandbox at its process limit. Does not: stop a burst between two samples (the
    overshoot is what the kernel can fault in meanwhile), or see pipe and socket buffers, page tables, and
    memfds in flight between processes. Shared memory is counted once, as the larger of what is mapped and
    what tmpfs and memfds hold; what hides from both views can at most double the limit. May be called by:
    the process wall on the host's side.

Memory is resident size while that upper bound stays below `precise_above_bytes`, and proportional size
(smaps_rollup) above it, because a proportional size costs the kernel a walk over all page tables. A process
that may not be looked into (non-dumpable, as init is) counts with its resident anonymous pages.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec

from kavach.linux import cgroup

if TYPE_CHECKING:
    from kavach.launcher.groups import LimitSpec

__all__ = ["Sample", "judge", "sample"]

_MAX_PROCESSES = 4096  # protects the sampler: more are not looked at, and the sample says so
_STATM_RESIDENT, _STATM_SHARED = 1, 2  # Documentation/filesystems/proc.rst table 1-3, Linux 2.6.0


class Sample(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one look at a sandbox's processes found.

    Args:
        memory_bytes: processes, tmpfs and memfds together.
        is_precise: proportional sizes were read; else `memory_bytes` is an upper bound for what is mapped.
        tmpfs_bytes: as given to `sample`.
        memfd_bytes: allocated to the memfds found open; 0 where they were not to be counted.
        tasks: threads of all processes, init's included.
        processes: init included; 0 means that init is gone.
        is_complete: False where the sandbox had more processes than are looked at.
    """

    memory_bytes: int
    is_precise: bool
    tmpfs_bytes: int
    memfd_bytes: int
    tasks: int
    processes: int
    is_complete: bool = True


def judge(found: Sample, spec: LimitSpec) -> tuple[str, ...]:
    """Return the limits that a sample has reached.

    `oom`: over the memory limit by a precise sample; end the sandbox now. `pids`: as many tasks as allowed,
    so the next fork is refused; end it if that lasts, or name it if the command then failed.
    """
    reached = []
    if spec.memory_bytes is not None and found.memory_bytes > spec.memory_bytes:
        reached.append("oom")
    if spec.max_pids is not None and (found.tasks >= spec.max_pids or not found.is_complete):
        reached.append("pids")
    return tuple(reached)


def sample(
    init_pid: int,
    *,
    proc: str = "/proc",
    tmpfs_bytes: int = 0,
    precise_above_bytes: int | None = None,
    count_memfds: bool = False,
) -> Sample:
    """Measure init and all its descendants, which in a PID namespace of its own are the whole sandbox.

    Args:
        init_pid: as the caller's PID namespace names it; the caller holds its pidfd, so the number cannot
            be reused.
        proc: the proc file system.
        tmpfs_bytes: used on the sandbox's own tmpfs mounts, by statvfs.
        precise_above_bytes: read proportional sizes only when the upper bound exceeds this, the memory
            limit; None
            reads them always.
        count_memfds: look through open descriptors; needed only where memfd_create is allowed.

    Returns:
        The sample; processes that end meanwhile are left out.
    """
    pids, tasks, is_complete = _find_tree(init_pid, proc)
    sizes = {pid: size for pid in pids if (size := _read_statm(proc, pid)) is not None}
    memfd_bytes = _sum_memfds(proc, pids) if count_memfds else 0
    memory = sum(resident for resident, _ in sizes.values()) + tmpfs_bytes + memfd_bytes
    is_precise = precise_above_bytes is None or memory > precise_above_bytes
    if is_precise:
        private = mapped = 0
        for pid, (resident, shared) in sizes.items():
            anonymous, shmem = _read_rollup(proc, pid) or (resident - shared, 0)
            private += anonymous
            mapped += shmem
        memory = private + max(mapped, tmpfs_bytes + memfd_bytes)
    return Sample(
        memory_bytes=memory,
        is_precise=is_precise,
        tmpfs_bytes=tmpfs_bytes,
        memfd_bytes=memfd_bytes,
        tasks=tasks,
        processes=len(sizes),
        is_complete=is_complete,
    )


def _find_tree(init_pid: int, proc: str) -> tuple[list[int], int, bool]:
    """Return init and all below it, the number of their threads, and whether that is all of them."""
    pids = [init_pid]
    seen = {init_pid}
    tasks = 0
    # Without CONFIG_PROC_CHILDREN every process is asked for its parent: slower, the same answer.
    parents = None if os.path.exists(proc + "/thread-self/children") else _read_parents(proc)
    for pid in pids:
        try:
            threads = os.listdir(f"{proc}/{pid}/task")
        except OSError:
            continue
        tasks += len(threads)
        if parents is None:
            below = [child for thread in threads for child in _read_children(proc, pid, thread)]
        else:
            below = parents.get(pid, [])
        fresh = [child for child in below if child not in seen]
        seen.update(fresh)
        pids.extend(fresh)
        if len(pids) > _MAX_PROCESSES:
            return pids[:_MAX_PROCESSES], tasks, False
    return pids, tasks, True


def _read_children(proc: str, pid: int, thread: str) -> list[int]:
    """Return the children that one thread started; none where it is gone."""
    try:
        return [int(child) for child in cgroup.read_text(f"{proc}/{pid}/task/{thread}/children").split()]
    except OSError:
        return []


def _read_parents(proc: str) -> dict[int, list[int]]:
    """Return the children of every process, from the parent that each one's stat names."""
    children: dict[int, list[int]] = {}
    for name in os.listdir(proc):
        if not name.isdecimal():
            continue
        try:
            stat = _read(f"{proc}/{name}/stat")
        except OSError:
            continue
        children.setdefault(int(stat[stat.rindex(b")") + 2 :].split()[1]), []).append(int(name))
    return children


def _read_statm(proc: str, pid: int) -> tuple[int, int] | None:
    """Return resident and shared bytes of one process; None where it is gone."""
    try:
        fields = _read(f"{proc}/{pid}/statm").split()
    except OSError:
        return None
    return int(fields[_STATM_RESIDENT]) * cgroup.PAGE_BYTES, int(fields[_STATM_SHARED]) * cgroup.PAGE_BYTES


def _read_rollup(proc: str, pid: int) -> tuple[int, int] | None:
    """Return proportional bytes of anonymous (swapped ones too) and of shared memory; None if refused."""
    try:
        lines = _read(f"{proc}/{pid}/smaps_rollup").splitlines()
    except OSError:
        return None
    kib = {b"Pss_Anon:": 0, b"Pss_Shmem:": 0, b"SwapPss:": 0}  # Linux 5.3
    for line in lines:
        words = line.split()
        if words and words[0] in kib:
            kib[words[0]] = int(words[1])
    return (kib[b"Pss_Anon:"] + kib[b"SwapPss:"]) * 1024, kib[b"Pss_Shmem:"] * 1024


def _sum_memfds(proc: str, pids: list[int]) -> int:
    """Return the bytes allocated to all memfds that these processes hold open, each counted once."""
    sizes: dict[tuple[int, int], int] = {}
    for pid in pids:
        folder = f"{proc}/{pid}/fd"
        try:
            names = os.listdir(folder)
        except OSError:
            continue
        for name in names:
            try:
                if not os.readlink(f"{folder}/{name}").startswith("/memfd:"):
                    continue
                state = os.stat(f"{folder}/{name}")
            except OSError:
                continue
            sizes[state.st_dev, state.st_ino] = state.st_blocks * 512
    return sum(sizes.values())


def _read(path: str) -> bytes:
    """Return what one read(2) gives: enough for every file but `children`, which comes page by page."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, 1 << 16)
    finally:
        os.close(fd)
