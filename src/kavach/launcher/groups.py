"""One sandbox's resource limits in the kernel: written, read back, counted, frozen, killed, removed.

Enforces: what `Group.states` calls `enforced` was written and read back with the value asked, before any
    process was in the group. Does not: choose where groups lie (`launcher.limits` does), put a process into
    one (the launcher does), use v1's freezer, or derive RLIMIT_AS or RLIMIT_DATA from a memory limit (Node
    and Go reserve address space). May be called by: launcher.limits makes them, the process wall holds
    them.
"""

from __future__ import annotations

import errno
import os
import re
import resource
import weakref

import msgspec

from kavach.errors import LaunchError
from kavach.linux import cgroup

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")  # protects the tree: a name is one path component, never `..`
REMOVE_MS = 1000
FREEZE_MS = 1000


class LimitSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a sandbox may use; None is no limit.

    Args:
        memory_bytes: at least one page; rounded down to whole pages, which is what the kernel counts. Swap
            is 0.
        cpu_cores: at least 0.001; time per wall-clock time, over all cores.
        max_pids: at least 1; every task of the sandbox, its init and each thread included.
    """

    memory_bytes: int | None = None
    cpu_cores: float | None = None
    max_pids: int | None = None

    def __post_init__(self) -> None:
        if self.memory_bytes is not None and self.memory_bytes < cgroup.PAGE_BYTES:
            raise ValueError(f"memory_bytes: expected at least one page ({cgroup.PAGE_BYTES}), got {self.memory_bytes}")
        if self.cpu_cores is not None and not 0.001 <= self.cpu_cores < 1e6:
            raise ValueError(f"cpu_cores: expected at least 0.001, got {self.cpu_cores}")
        if self.max_pids is not None and self.max_pids < 1:
            raise ValueError(f"max_pids: expected at least 1, got {self.max_pids}")

    @property
    def memory_pages_bytes(self) -> int | None:
        """`memory_bytes` as the kernel stores it."""
        return None if self.memory_bytes is None else self.memory_bytes // cgroup.PAGE_BYTES * cgroup.PAGE_BYTES

    @property
    def cpu_quota_us(self) -> tuple[int, int] | None:
        """Quota and period in microseconds; a longer period where the quota would be too small."""
        if self.cpu_cores is None:
            return None
        short = round(self.cpu_cores * cgroup.PERIOD_US)
        if short >= cgroup.MIN_QUOTA_US:
            return short, cgroup.PERIOD_US
        return max(round(self.cpu_cores * cgroup.LONG_PERIOD_US), cgroup.MIN_QUOTA_US), cgroup.LONG_PERIOD_US


class Events(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Counters that only rise; None where this host does not count."""

    oom_kills: int | None = None
    pids_refused: int | None = None


class Usage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What was used; None where not measured, never 0 for unknown."""

    memory_bytes: int | None = None
    memory_peak_bytes: int | None = None
    cpu_time_us: int | None = None
    pids: int | None = None
    pids_peak: int | None = None
    io_read_bytes: int | None = None
    io_write_bytes: int | None = None


def limits_hit(before: Events, after: Events) -> tuple[str, ...] | None:
    """Return the limits whose counters rose (`oom`, `pids`); None where nothing counts."""
    pairs = (("oom", before.oom_kills, after.oom_kills), ("pids", before.pids_refused, after.pids_refused))
    known = [(name, new - old) for name, old, new in pairs if old is not None and new is not None]
    return tuple(name for name, rise in known if rise > 0) if known else None


class Leaf:
    """One command's part of a sandbox; without a v2 hierarchy it is the sandbox's own group, `shared`.

    Attributes:
        shared: counters and usage are those of the whole sandbox, and `kill` cannot tell this command apart.
        path: the v2 folder, or None.
    """

    def __init__(self, group: Group, path: str | None) -> None:
        self._group = group
        self._fd = -1
        self.path = path
        self.shared: bool = path is None

    @property
    def dirfd(self) -> int | None:
        """Descriptor for clone3(CLONE_INTO_CGROUP), open until `remove`; None where the group is inherited.

        Raises:
            OSError: the folder is gone.
        """
        if self.path is None:
            return None
        if self._fd < 0:
            self._fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        return self._fd

    def kill(self) -> bool:
        """Kill all of this command's processes at once; False where they cannot be told apart."""
        return self.path is not None and cgroup.kill(self.path)

    def events(self) -> Events:
        """Return the counters that belong to this command, or the sandbox's where those are shared."""
        return self._group.events_of(self.path)

    def usage(self) -> Usage:
        """Return this command's usage, part by part the sandbox's where only that is measured."""
        return self._group.usage_of(self.path)

    def remove(self, timeout_ms: int = REMOVE_MS) -> bool:
        """Remove the folder (idempotent); False when a process was still in it at the end of `timeout_ms`."""
        self.close()
        return self.path is None or cgroup.remove(self.path, timeout_ms)

    def close(self) -> None:
        """Close the descriptor (idempotent)."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class Group:
    """One sandbox's limits: here those that rlimits, affinity and the watchdog hold (driver `none`).

    Attributes:
        name: the name given to `Driver.make`.
        readback: what the kernel says after the writes, by file name; "absent" for a file this kernel has
            not.
        states: `memory`, `cpu`, `pids` -> `enforced`, `degraded` (see `rlimits`, `cores`, `needs_watchdog`),
            `failed` or `not_asked`.
        rlimits: (resource, soft, hard) that stand in for a missing pids controller.
        cores: CPUs to pin to where no cpu controller holds the limit, else None.
        needs_watchdog: the memory limit is held by `launcher.watchdog` alone.
        init: the leaf that init is cloned into.
    """

    def __init__(self, name: str, spec: LimitSpec, cores: frozenset[int] | None) -> None:
        self.name = name
        self.spec = spec
        self.readback: dict[str, str] = {}
        self.states: dict[str, str] = {
            "memory": "not_asked" if spec.memory_bytes is None else "degraded",
            "cpu": "not_asked" if spec.cpu_cores is None else "degraded",
            "pids": "not_asked" if spec.max_pids is None else "degraded",
        }
        self._cores = cores
        self.init: Leaf = self._init_leaf(None)

    def _init_leaf(self, path: str | None) -> Leaf:
        # A group that held itself would stay until a collection, and with it all that a run has left.
        return Leaf(weakref.proxy(self), path)

    def _apply(self, limit: str, folder: str, rows: tuple[tuple[str, str, bool], ...]) -> None:
        """Write one limit's files and read each back; `enforced` only if all say what was asked."""
        state = "enforced"
        for name, value, may_be_absent in rows:
            try:
                cgroup.write_text(f"{folder}/{name}", value)
                self.readback[name] = cgroup.read_text(f"{folder}/{name}")
            except OSError as error:
                absent = error.errno == errno.ENOENT
                self.readback[name] = "absent" if absent else f"refused: {error.strerror}"
                state = state if absent and may_be_absent else "failed"
                continue
            state = state if self.readback[name] == value else "failed"
        self.states[limit] = state

    @property
    def rlimits(self) -> tuple[tuple[int, int, int], ...]:
        """The rlimits that stand in for a missing pids controller."""
        return rlimits_for(self.spec) if self.states["pids"] == "degraded" else ()

    @property
    def cores(self) -> frozenset[int] | None:
        """The CPUs that stand in for a missing cpu controller; then sched_setaffinity must be refused."""
        return self._cores if self.states["cpu"] == "degraded" else None

    @property
    def needs_watchdog(self) -> bool:
        """Whether nothing in the kernel holds the memory limit."""
        return self.states["memory"] == "degraded"

    @property
    def folders(self) -> tuple[str, ...]:
        """Every folder of this group, for the launcher to remove should the host die."""
        return ()

    def join_paths(self) -> list[str]:
        """Return the `tasks` files into which the sandbox's first process writes "0" before it forks."""
        return []

    def leaf(self, exec_id: str) -> Leaf:
        """Return the part of the sandbox for one command.

        Raises:
            ValueError: `exec_id` is not 1 to 64 letters, digits, `_` or `-`.
            LaunchError: the folder cannot be made; nothing was run.
        """
        require_name(exec_id)
        return Leaf(self, None)

    def events(self) -> Events:
        """Return the whole sandbox's counters."""
        return self.events_of(None)

    def usage(self) -> Usage:
        """Return the whole sandbox's usage."""
        return self.usage_of(None)

    def events_of(self, leaf: str | None) -> Events:
        """Return the counters of one leaf's folder, or of the sandbox for None."""
        del leaf
        return Events()

    def usage_of(self, leaf: str | None) -> Usage:
        """Return the usage of one leaf's folder, or of the sandbox for None."""
        del leaf
        return Usage()

    def allow_init(self, uid: int, gid: int) -> None:
        """Let a process of `uid` clone children from the init leaf into command leaves; call before `leaf`.

        Needed where init runs under another host id than the host process. It then may move processes
        between the leaves of its own sandbox, through the descriptors it is given: the folders are not
        visible inside. Init must not have a cgroup namespace of its own: under the mount option
        nsdelegate, systemd's default, a clone into a group outside of that namespace is ENOENT. Commands
        unshare theirs once they are in their leaf.

        Raises:
            LaunchError: the owner cannot be changed.
        """

    def freeze(self, timeout_ms: int = FREEZE_MS) -> bool:
        """Stop the whole sandbox; False where no v2 hierarchy holds it or not all stopped in time."""
        del timeout_ms
        return False

    def thaw(self, timeout_ms: int = FREEZE_MS) -> bool:
        """Continue the whole sandbox; False as for `freeze`."""
        del timeout_ms
        return False

    def kill(self, timeout_ms: int = REMOVE_MS) -> bool:
        """Kill every process, frozen or not; False where that is left to init or some still live."""
        del timeout_ms
        return False

    def remove(self, timeout_ms: int = REMOVE_MS) -> bool:
        """Remove every folder (idempotent); False when a process was still there at the end."""
        del timeout_ms
        return True

    def recycle(self) -> bool:
        """Make an empty group as good as new; False where a new one must be made instead."""
        return True


def rlimits_for(spec: LimitSpec) -> tuple[tuple[int, int, int], ...]:
    """Return the (resource, soft, hard) that hold limits without cgroups: NPROC, nothing for memory.

    RLIMIT_NPROC counts tasks of one user in one user namespace; `limits.nproc_caveats` says where it does
    not hold.
    """
    return () if spec.max_pids is None else ((resource.RLIMIT_NPROC, spec.max_pids, spec.max_pids),)


def require_name(name: str) -> None:
    """Refuse a name that could leave its folder.

    Raises:
        ValueError: `name` is not 1 to 64 letters, digits, `_` or `-`.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"name: expected 1 to 64 letters, digits, _ or -, got {name!r}")


def failed(what: str, error: OSError) -> LaunchError:
    """Return what is raised when the kernel refuses a part of a group."""
    return LaunchError(f"{what} failed: {error.strerror}; nothing was run", step="cgroup", errno=error.errno)
