"""The groups of one sandbox in the kernel: cgroup v2 folders with leaves, or v1 folders with a v2 twin.

Enforces: limits are written and read back before any process is in the group; `Group.states` says what
    holds. Does not: choose where groups lie (`launcher.limits` does), put a process into one (the launcher
    does), or use v1's freezer. May be called by: launcher.limits.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from kavach.launcher.groups import FREEZE_MS, REMOVE_MS, Events, Group, Leaf, LimitSpec, Usage, failed, require_name
from kavach.linux import cgroup

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

_LEFTOVER_BYTES = 1 << 20  # protects the next sandbox: charge that a recycled group may start with


def make_version2(
    name: str, spec: LimitSpec, cores: frozenset[int] | None, path: str, controllers: Collection[str]
) -> Group:
    """Make the v2 folder `path` with its limits, and its leaf `init`.

    Args:
        name: of the group.
        spec: what to hold.
        cores: stands in for a cpu controller that `controllers` lacks.
        path: a folder that does not exist yet; its parent hands out `controllers`.
        controllers: those enabled for `path`.

    Raises:
        OSError: a folder cannot be made; the caller removes what was made.
    """
    return _Version2Group(name, spec, cores, path, controllers)


def make_version1(
    name: str, spec: LimitSpec, cores: frozenset[int] | None, paths: Mapping[str, str], twin: str | None
) -> Group:
    """Make one v1 folder a controller, with the limits, and the twin's folder in the v2 hierarchy.

    Args:
        name: of the group.
        spec: what to hold.
        cores: stands in for a cpu controller that `paths` lacks.
        paths: controller -> folder that does not exist yet; two controllers of one hierarchy share one.
        twin: a v2 folder that does not exist yet, or None.

    Raises:
        OSError: a folder cannot be made; the caller removes what was made.
    """
    return _Version1Group(name, spec, cores, paths, twin)


class _Version2Group(Group):
    """A cgroup v2 folder with the limits, a leaf `init` and one leaf a command.

    memory.oom.group is set on command leaves only: on the sandbox's folder it would kill init with the
    command. `recycle` is refused: event counters cannot be reset, and a new folder costs less than a fork.
    """

    def __init__(
        self, name: str, spec: LimitSpec, cores: frozenset[int] | None, path: str, held: Collection[str]
    ) -> None:
        super().__init__(name, spec, cores)
        self.path = path
        self._held = held
        self._owner: tuple[int, int] | None = None
        os.mkdir(path, 0o755)
        asked = _asked_v2(spec)
        for limit in (limit for limit in asked if limit in held):
            self._apply(limit, path, asked[limit])
        # The leaves need memory and pids for their own counters, and io for usage; cpu time is counted
        # everywhere.
        cgroup.enable(path, tuple(name for name in ("memory", "pids", "io") if name in held))
        os.mkdir(path + "/init", 0o755)
        self.init = self._init_leaf(path + "/init")

    @property
    def folders(self) -> tuple[str, ...]:
        return (self.path,)

    def leaf(self, exec_id: str) -> Leaf:
        path = _make_leaf(self.path, exec_id, self._owner)
        if "memory" in self._held:
            try:
                cgroup.write_text(path + "/memory.oom.group", "1")
            except OSError as error:
                raise failed(f"writing {path}/memory.oom.group", error) from error
        return Leaf(self, path)

    def events_of(self, leaf: str | None) -> Events:
        # Before Linux 6.11 a refused fork counts where the fork was tried, since then where the limit is.
        pids = [cgroup.read_key(folder + "/pids.events", "max") for folder in (self.path, leaf) if folder]
        known = [count for count in pids if count is not None]
        return Events(
            oom_kills=cgroup.read_key((leaf or self.path) + "/memory.events", "oom_kill"),
            pids_refused=sum(known) if known else None,
        )

    def usage_of(self, leaf: str | None) -> Usage:
        return _usage_v2(leaf or self.path)

    def allow_init(self, uid: int, gid: int) -> None:
        self._owner = (uid, gid)
        # The kernel asks for the right to write to the common ancestor of where a child comes from and goes
        # to.
        _give(self.path, uid, gid)

    def freeze(self, timeout_ms: int = FREEZE_MS) -> bool:
        return _freeze(self.path, 1, timeout_ms)

    def thaw(self, timeout_ms: int = FREEZE_MS) -> bool:
        return _freeze(self.path, 0, timeout_ms)

    def kill(self, timeout_ms: int = REMOVE_MS) -> bool:
        return _kill_tree(self.path, timeout_ms)

    def remove(self, timeout_ms: int = REMOVE_MS) -> bool:
        self.init.close()
        return cgroup.remove(self.path, timeout_ms)

    def recycle(self) -> bool:
        return False


class _Version1Group(Group):
    """One cgroup v1 folder for each controller, and a twin in the v2 hierarchy where the host mounts one.

    Memory and pids are counted for the sandbox, not for a command: leaves exist in the twin only, which has
    no controllers. An out-of-memory kill takes one process, v1 has no memory.oom.group.
    """

    def __init__(
        self,
        name: str,
        spec: LimitSpec,
        cores: frozenset[int] | None,
        paths: Mapping[str, str],
        twin: str | None,
    ) -> None:
        super().__init__(name, spec, cores)
        self._paths = paths
        self._twin = twin
        self._owner: tuple[int, int] | None = None
        for path in dict.fromkeys(paths.values()):
            os.mkdir(path, 0o755)
        asked = _asked_v1(spec)
        for limit in (limit for limit in asked if limit in paths):
            self._apply(limit, paths[limit], asked[limit])
        if twin is not None:
            os.mkdir(twin, 0o755)
            os.mkdir(twin + "/init", 0o755)
            self.init = self._init_leaf(twin + "/init")

    @property
    def folders(self) -> tuple[str, ...]:
        return (*dict.fromkeys(self._paths.values()), *([self._twin] if self._twin else []))

    def join_paths(self) -> list[str]:
        return [path + "/tasks" for path in dict.fromkeys(self._paths.values())]

    def leaf(self, exec_id: str) -> Leaf:
        if self._twin is None:
            return super().leaf(exec_id)
        return Leaf(self, _make_leaf(self._twin, exec_id, self._owner))

    def events_of(self, leaf: str | None) -> Events:
        del leaf
        paths = self._paths
        return Events(
            oom_kills=cgroup.read_key(paths["memory"] + "/memory.oom_control", "oom_kill")
            if "memory" in paths
            else None,
            pids_refused=cgroup.read_key(paths["pids"] + "/pids.events", "max") if "pids" in paths else None,
        )

    def usage_of(self, leaf: str | None) -> Usage:
        def number(controller: str, name: str) -> int | None:
            return cgroup.read_number(f"{self._paths[controller]}/{name}") if controller in self._paths else None

        cpu_ns = number("cpuacct", "cpuacct.usage")
        cpu_us = None if cpu_ns is None else cpu_ns // 1000
        if leaf is not None:
            cpu_us = cgroup.read_key(leaf + "/cpu.stat", "usage_usec")
        return Usage(
            memory_bytes=number("memory", "memory.usage_in_bytes"),
            memory_peak_bytes=number("memory", "memory.max_usage_in_bytes"),
            cpu_time_us=cpu_us,
            pids=number("pids", "pids.current"),
            pids_peak=number("pids", "pids.peak"),
        )

    def allow_init(self, uid: int, gid: int) -> None:
        self._owner = (uid, gid)
        if self._twin is not None:
            _give(self._twin, uid, gid)

    def freeze(self, timeout_ms: int = FREEZE_MS) -> bool:
        return self._twin is not None and _freeze(self._twin, 1, timeout_ms)

    def thaw(self, timeout_ms: int = FREEZE_MS) -> bool:
        return self._twin is not None and _freeze(self._twin, 0, timeout_ms)

    def kill(self, timeout_ms: int = REMOVE_MS) -> bool:
        if self._twin is not None:
            cgroup.kill(self._twin)
        # A process that joined the limits but not the twin is found here; one that is dying is signalled
        # once more.
        gone = [cgroup.kill_listed(path, timeout_ms) for path in dict.fromkeys(self._paths.values())]
        return all(gone)

    def remove(self, timeout_ms: int = REMOVE_MS) -> bool:
        self.init.close()
        gone = [cgroup.remove(path, timeout_ms) for path in self.folders]
        return all(gone)

    def recycle(self) -> bool:
        # The oom and pids event counters cannot be reset: callers compare before and after. Charged pages
        # of files and tmpfs are dropped where nothing holds them; what stays would be the next sandbox's
        # debt, so then refuse.
        if any(cgroup.read_pids(path) for path in self.folders):
            return False
        memory = self._paths.get("memory")
        try:
            if memory is not None:
                cgroup.write_text(memory + "/memory.force_empty", "0")
                if (cgroup.read_number(memory + "/memory.usage_in_bytes") or 0) > _LEFTOVER_BYTES:
                    return False
                for name in ("memory.max_usage_in_bytes", "memory.failcnt"):
                    cgroup.write_text(f"{memory}/{name}", "0")
            if "cpuacct" in self._paths:
                cgroup.write_text(self._paths["cpuacct"] + "/cpuacct.usage", "0")
            return self._twin is None or all(
                name == "init" or cgroup.remove(f"{self._twin}/{name}", 0) for name in cgroup.list_children(self._twin)
            )
        except OSError:
            return False


def _asked_v2(spec: LimitSpec) -> dict[str, tuple[tuple[str, str, bool], ...]]:
    """Return, limit by limit, (file, value, may be absent)."""
    asked: dict[str, tuple[tuple[str, str, bool], ...]] = {}
    if spec.memory_pages_bytes is not None:
        # memory.swap.max is absent where the kernel does not account swap; memory.max then bounds what is
        # resident.
        asked["memory"] = (
            ("memory.max", str(spec.memory_pages_bytes), False),
            ("memory.swap.max", "0", True),
        )
    if spec.cpu_quota_us is not None:
        asked["cpu"] = (("cpu.max", "{} {}".format(*spec.cpu_quota_us), False),)
    if spec.max_pids is not None:
        asked["pids"] = (("pids.max", str(spec.max_pids), False),)
    return asked


def _asked_v1(spec: LimitSpec) -> dict[str, tuple[tuple[str, str, bool], ...]]:
    """Return, limit by limit, (file, value, may be absent), in the order the kernel accepts."""
    asked: dict[str, tuple[tuple[str, str, bool], ...]] = {}
    if spec.memory_pages_bytes is not None:
        value = str(spec.memory_pages_bytes)
        # ORDER: memsw may not be set below the memory limit.
        asked["memory"] = (
            ("memory.limit_in_bytes", value, False),
            ("memory.memsw.limit_in_bytes", value, True),
            ("memory.swappiness", "0", True),
        )
    if spec.cpu_quota_us is not None:
        quota, period = spec.cpu_quota_us
        asked["cpu"] = (("cpu.cfs_period_us", str(period), False), ("cpu.cfs_quota_us", str(quota), False))
    if spec.max_pids is not None:
        asked["pids"] = (("pids.max", str(spec.max_pids), False),)
    return asked


def _make_leaf(parent: str, exec_id: str, owner: tuple[int, int] | None) -> str:
    require_name(exec_id)
    path = f"{parent}/exec-{exec_id}"
    try:
        os.mkdir(path, 0o755)
    except OSError as error:
        raise failed(f"making {path}", error) from error
    if owner is not None:
        _give(path, *owner)
    return path


def _give(folder: str, uid: int, gid: int) -> None:
    """Give away the right to put processes into a group, and nothing else of it."""
    try:
        os.chown(folder + "/cgroup.procs", uid, gid)
    except OSError as error:
        raise failed(f"giving {folder}/cgroup.procs to {uid}", error) from error


def _usage_v2(folder: str) -> Usage:
    io = cgroup.read_io(folder + "/io.stat")
    return Usage(
        memory_bytes=cgroup.read_number(folder + "/memory.current"),
        memory_peak_bytes=cgroup.read_number(folder + "/memory.peak"),
        cpu_time_us=cgroup.read_key(folder + "/cpu.stat", "usage_usec"),
        pids=cgroup.read_number(folder + "/pids.current"),
        pids_peak=cgroup.read_number(folder + "/pids.peak"),
        io_read_bytes=io[0] if io else None,
        io_write_bytes=io[1] if io else None,
    )


def _freeze(folder: str, frozen: int, timeout_ms: int) -> bool:
    """Freeze or thaw a v2 group that has processes; False where there are none or the kernel cannot."""
    try:
        if cgroup.read_key(folder + "/cgroup.events", "populated") != 1:
            return False
        return cgroup.freeze(folder, frozen, timeout_ms)
    except OSError:
        return False


def _kill_tree(folder: str, timeout_ms: int) -> bool:
    """Kill all below a v2 group, and wait until the kernel says that it is empty."""
    try:
        if cgroup.kill(folder):
            return cgroup.wait_events(folder, "populated", 0, timeout_ms)
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno == errno.ENODEV:
            return True
        raise
    below = (folder, *(f"{folder}/{name}" for name in cgroup.list_children(folder)))
    gone = [cgroup.kill_listed(path, timeout_ms) for path in below]
    return all(gone)
