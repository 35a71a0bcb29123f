"""A sandbox's limits by the best means the host gives: cgroup v2, cgroup v1, or rlimits and a watchdog.

Enforces: what `Group.states` calls `enforced` was written to the kernel and read back with the value asked,
    before any process was in the group. Does not: move the host process into another group, mount a
    hierarchy, use v1's freezer, derive RLIMIT_AS or RLIMIT_DATA from a memory limit (Node and Go reserve
    address space), or run the watchdog (`launcher.watchdog` measures and judges; the caller loops). May be
    called by: the process wall on the host's side and doctor.

Where groups lie. v2 forbids processes in a group that hands controllers to children, and the host process
is never moved; so the first ancestor of the host's own group that holds no process (or is the true root),
may be written, and has the memory and pids controllers becomes the parent of ours. v1 has no such rule:
groups lie below the host's own. On hybrid hosts a v1 group has a twin without controllers in the mounted v2
hierarchy, for kill, freeze and per-command leaves. systemd may withdraw a controller from a slice that it
does not expect to need it: run the host in a delegated scope where that matters.

    driver = choose_driver()
    group = driver.make("sb1", LimitSpec(memory_bytes=512 << 20, cpu_cores=1.0, max_pids=64))
    leaf = group.leaf("exec1")
"""

from __future__ import annotations

import itertools
import math
import os
import re
from typing import TYPE_CHECKING

from kavach.errors import LaunchError
from kavach.launcher.groups import (
    Events,
    Group,
    Leaf,
    LimitSpec,
    Usage,
    failed,
    limits_hit,
    require_name,
    rlimits_for,
)
from kavach.launcher.kernel_groups import make_version1, make_version2
from kavach.linux import cgroup

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "Driver",
    "Events",
    "Group",
    "Leaf",
    "LimitSpec",
    "Usage",
    "choose_driver",
    "is_owner_alive",
    "limits_hit",
    "nproc_caveats",
    "pick_cores",
    "rlimits_for",
    "sweep",
]

_FOLDER = re.compile(r"kavach-(\d+)-(\d+)-(\d+)-[A-Za-z0-9_-]{1,64}")
_PROBE_SPEC = LimitSpec(memory_bytes=64 << 20, cpu_cores=0.5, max_pids=16)
_probes = itertools.count()


class Driver:
    """The means by which limits are held on this host, and the maker of groups; driver `none` itself.

    Attributes:
        name: `cgroup2`, `cgroup1` or `none`.
        controllers: what the kernel holds limits or counts usage with here.
        why_not: why each better driver was passed over.
        bases: the folders below which this driver's groups lie.
    """

    name = "none"

    def __init__(self, proc: str) -> None:
        self.controllers: tuple[str, ...] = ()
        self.why_not: tuple[str, ...] = ()
        self.bases: tuple[str, ...] = ()
        self._proc = proc
        self._identity = cgroup.find_identity(proc)
        # Start elsewhere in every process, so that two hosts do not both begin with core 0.
        self._turns = itertools.count(self._identity[0])

    def make(self, name: str, limits: LimitSpec) -> Group:
        """Make one sandbox's group, with its limits written and read back; see `Group.states` for what holds.

        Args:
            name: unique among this process's sandboxes, 1 to 64 letters, digits, `_` or `-`.
            limits: what to hold.

        Raises:
            ValueError: the name has another form.
            LaunchError: a folder cannot be made; what was made is removed again, nothing was run.
        """
        require_name(name)
        cores = None
        if limits.cpu_cores is not None:
            try:
                cores = pick_cores(limits.cpu_cores, os.sched_getaffinity(0), next(self._turns))
            except OSError as error:
                raise failed("asking which processors there are (sched_getaffinity)", error) from error
        try:
            return self._make(self.folder_name(name), limits, cores)
        except OSError as error:
            raise failed(f"making the {self.name} group {name}", error) from error

    def _make(self, name: str, limits: LimitSpec, cores: frozenset[int] | None) -> Group:
        return Group(name, limits, cores)

    def recycle(self, group: Group) -> bool:
        """Make an empty group as good as new for the same limits; False: remove it and make another.

        v2 always refuses (its event counters cannot be reset, and making a folder is cheaper than a fork).
        v1 resets peak memory and cpu time; oom and pids events go on rising, so compare before and after.
        """
        return group.recycle()

    def folder_name(self, name: str) -> str:
        """Return the folder name that carries this process's identity: pid, start time, PID namespace."""
        if self._identity[0] != os.getpid():
            self._identity = cgroup.find_identity(self._proc)
        pid, start, namespace = self._identity
        return f"kavach-{pid}-{start}-{namespace}-{name}"

    @property
    def pid_namespace(self) -> int:
        """The inode of the PID namespace in which this driver's owner pids mean something."""
        return self._identity[2]


class _Version2Driver(Driver):
    name = "cgroup2"

    def __init__(self, proc: str, parent: str, controllers: tuple[str, ...]) -> None:
        super().__init__(proc)
        self.controllers = controllers
        self.bases = (parent,)

    def _make(self, name: str, limits: LimitSpec, cores: frozenset[int] | None) -> Group:
        path = f"{self.bases[0]}/{name}"
        with _undo(path):
            return make_version2(name, limits, cores, path, self.controllers)


class _Version1Driver(Driver):
    name = "cgroup1"

    def __init__(self, proc: str, parents: dict[str, str], twin: str | None) -> None:
        super().__init__(proc)
        self.controllers = tuple(parents)
        self._parents = parents
        self._twin = twin
        self.bases = (*dict.fromkeys(parents.values()), *([twin] if twin else []))

    def _make(self, name: str, limits: LimitSpec, cores: frozenset[int] | None) -> Group:
        paths = {controller: f"{parent}/{name}" for controller, parent in self._parents.items()}
        twin = None if self._twin is None else f"{self._twin}/{name}"
        with _undo(*paths.values(), *([twin] if twin else [])):
            return make_version1(name, limits, cores, paths, twin)


class _undo:  # noqa: N801 - read as a statement
    """Remove the named folders again when the block raises; a folder that was there before is kept."""

    def __init__(self, *paths: str) -> None:
        self._paths = [path for path in dict.fromkeys(paths) if not os.path.lexists(path)]

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            for path in self._paths:
                cgroup.remove(path, 100)


def choose_driver(*, root: str = "/sys/fs/cgroup", proc: str = "/proc") -> Driver:
    """Return the best driver that was seen to work: written and read back in a throw-away group.

    Costs milliseconds; the caller keeps the answer. The one lasting change: v2 controllers enabled for the
    chosen parent's children, without which no group of ours could have them.

    Args:
        root: only hierarchies mounted at or below it are looked at.
        proc: the proc file system that tells mounts and the own position.

    Raises:
        LaunchError: /proc cannot be read.
    """
    try:
        return _choose(root, proc)
    except OSError as error:
        raise LaunchError(
            f"looking for cgroups in {proc} failed: {error.strerror}; is /proc mounted?",
            step="cgroup",
            errno=error.errno,
        ) from error


def _choose(root: str, proc: str) -> Driver:
    why: list[str] = []
    try:
        mounts, positions = cgroup.find_mounts(root, proc), cgroup.find_positions(proc)
    except FileNotFoundError as error:
        mounts, positions = (), {}
        why.append(f"cgroups: {error.filename} is absent")
    driver = _try_version2(mounts, positions, proc, why) or _try_version1(mounts, positions, proc, why) or Driver(proc)
    driver.why_not = tuple(why)
    return driver


def _try_version2(
    mounts: tuple[cgroup.Mount, ...], positions: dict[str, str], proc: str, why: list[str]
) -> Driver | None:
    found = [mount for mount in mounts if mount.version == 2]
    if not found:
        why.append("cgroup2: not mounted")
    for mount in found:
        folder = mount.folder(positions.get("", "/"))
        # The own group first: it serves only as the true root, which alone may hold processes beside
        # children.
        while True:
            driver = _try_parent(folder, proc, why)
            if driver is not None or folder == mount.point:
                break
            folder = os.path.dirname(folder)
        if driver is not None:
            return driver
    return None


def _try_parent(parent: str, proc: str, why: list[str]) -> Driver | None:
    """Return a v2 driver below `parent` if a probe group there holds limits, else say why not and undo."""
    if not os.access(parent + "/cgroup.procs", os.W_OK, effective_ids=True):
        why.append(f"cgroup2: {parent} is not writable (no delegation)")
        return None
    added: tuple[str, ...] = ()
    try:
        enabled, added, refusal = cgroup.enable(parent, cgroup.V2_CONTROLLERS)
        lacking = [name for name in ("memory", "pids") if name not in enabled]
        if not lacking:
            driver = _Version2Driver(proc, parent, enabled)
            lacking = _probe(driver, ("memory", "pids", *(["cpu"] if "cpu" in enabled else [])))
            if not lacking:
                return driver
        why.append(f"cgroup2: {parent} does not give {', '.join(lacking)}" + (f" ({refusal})" if refusal else ""))
    except OSError as error:
        why.append(f"cgroup2: {parent}: {error.strerror}")
    cgroup.disable(parent, added)
    return None


def _try_version1(
    mounts: tuple[cgroup.Mount, ...], positions: dict[str, str], proc: str, why: list[str]
) -> Driver | None:
    parents: dict[str, str] = {}
    for name in cgroup.V1_CONTROLLERS:
        mount = next((mount for mount in mounts if mount.version == 1 and name in mount.controllers), None)
        if mount is None:
            continue
        folder = mount.folder(positions.get(name, "/"))
        lacking = _probe_version1(proc, {name: folder}, None)
        if lacking is None:
            parents[name] = folder
        else:
            why.append(f"cgroup1: {name} at {folder}: {lacking}")
    if not {"memory", "cpu", "pids"} & parents.keys():
        why.append("cgroup1: no memory, cpu or pids hierarchy that can be written")
        return None
    twin = next((mount.folder(positions.get("", "/")) for mount in mounts if mount.version == 2), None)
    if twin is not None and (lacking := _probe_version1(proc, parents, twin)) is not None:
        why.append(f"cgroup1: no v2 twin at {twin}: {lacking}")
        twin = None
    return _Version1Driver(proc, parents, twin)


def _probe_version1(proc: str, parents: dict[str, str], twin: str | None) -> str | None:
    """Return why these hierarchies cannot be used, or None."""
    try:
        driver = _Version1Driver(proc, parents, twin)
        lacking = _probe(driver, tuple(name for name in parents if name in {"memory", "cpu", "pids"}))
    except OSError as error:
        return error.strerror or str(error)
    return f"{', '.join(lacking)} not as written" if lacking else None


def _probe(driver: Driver, wanted: tuple[str, ...]) -> list[str]:
    """Make a throw-away group, and return those of `wanted` that were not read back as written.

    Raises:
        OSError: the group cannot be made, joined or removed.
    """
    try:
        group = driver.make(f"probe{next(_probes)}", _PROBE_SPEC)
        try:
            group.leaf("probe")
            for path in group.join_paths():
                os.close(os.open(path, os.O_WRONLY | os.O_CLOEXEC))
        finally:
            group.remove()
    except LaunchError as error:
        raise OSError(error.errno, os.strerror(error.errno or 0)) from error
    return [name for name in wanted if group.states[name] != "enforced"]


def is_owner_alive(pid: int, start: int, *, proc: str = "/proc") -> bool:
    """Return whether the process that a folder names still runs (the same pid with the same start time)."""
    return cgroup.read_start_time(proc, pid) == start


def sweep(driver: Driver, owner_alive: Callable[[int, int], bool] = is_owner_alive) -> tuple[str, ...]:
    """Kill and remove the groups whose owner is dead, and return the folders removed.

    Groups of another PID namespace are left alone: their owners' pids mean nothing here.

    Args:
        driver: as chosen on this host.
        owner_alive: given the owner's pid and start time.
    """
    removed = []
    for base in driver.bases:
        for name in cgroup.list_children(base):
            match = _FOLDER.fullmatch(name)
            if match is None or int(match[3]) != driver.pid_namespace or owner_alive(int(match[1]), int(match[2])):
                continue
            if _end(f"{base}/{name}"):
                removed.append(f"{base}/{name}")
    return tuple(removed)


def _end(folder: str) -> bool:
    """Kill what is left in a dead owner's folder and remove it; False where that did not end in time."""
    try:
        cgroup.kill(folder)
        for path in (folder, *(f"{folder}/{name}" for name in cgroup.list_children(folder))):
            cgroup.kill_listed(path, 200)
        return cgroup.remove(folder, 200)
    except OSError:
        return False


def pick_cores(cpu_cores: float, allowed: set[int] | frozenset[int], turn: int) -> frozenset[int]:
    """Return the CPUs that stand in for a cpu limit: whole ones, within `allowed`, others for every `turn`.

    Args:
        cpu_cores: the limit; rounded up, so a limit below one core is held to one.
        allowed: the CPUs that the host process may use.
        turn: a counter, one up for each sandbox.
    """
    ordered = sorted(allowed)
    count = min(max(math.ceil(cpu_cores), 1), len(ordered))
    first = turn * count % len(ordered)
    return frozenset(ordered[(first + offset) % len(ordered)] for offset in range(count))


def nproc_caveats(host_uid: int, kernel: tuple[int, int]) -> tuple[str, ...]:
    """Return why RLIMIT_NPROC does not hold for commands of `host_uid` on this kernel; empty if it does.

    Args:
        host_uid: the uid of the commands as the initial user namespace sees it.
        kernel: major and minor version.
    """
    caveats = []
    if host_uid == 0:
        caveats.append("RLIMIT_NPROC does not bind a command whose host uid is 0")
    if kernel < (5, 14):
        caveats.append("before Linux 5.14 RLIMIT_NPROC counts all processes of the user, not those of the sandbox")
    return tuple(caveats)
