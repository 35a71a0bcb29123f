"""Control groups as files: find them, write and read them, kill, freeze and remove them.

Enforces nothing by itself: `launcher.limits` decides which values are written and whether what was read
back is what was asked. Does not: mount a hierarchy, move the calling process, use v1's freezer (a process
frozen by it survives SIGKILL until it is thawed), or follow a name given by a sandbox. May be called by:
launcher.limits and doctor on the host's side, and the launcher, to kill and remove the groups of a host
that died.

A version 1 group is joined by a process that writes "0" to `tasks` through a descriptor opened by its
parent: that form alone skips the kernel's global thread-group lock (Linux 5.5) and with it an RCU grace
period; it works from inside fresh namespaces, because the right to write is that of the opener (Linux
5.16). A version 2 group is joined by clone3(CLONE_INTO_CGROUP), Linux 5.7.
"""

from __future__ import annotations

import errno
import os
import select
import signal

TYPE_CHECKING = False  # the typing module is not part of the jail
if TYPE_CHECKING:
    from collections.abc import Iterator

V1_CONTROLLERS = ("memory", "cpu", "cpuacct", "pids")  # kernel/cgroup/cgroup-v1.c; pids since Linux 4.3
V2_CONTROLLERS = ("memory", "pids", "cpu", "io")  # cgroup-v2.rst; cpu since Linux 4.15
PERIOD_US = 100_000  # default_cfs_period(), kernel/sched/fair.c, Linux 3.2
LONG_PERIOD_US = 1_000_000  # max_cfs_quota_period, kernel/sched/core.c, Linux 3.2
MIN_QUOTA_US = 1_000  # min_cfs_quota_period, kernel/sched/core.c, Linux 3.2
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")  # page_counter counts pages, Linux 3.19
MAX_CONTROL_BYTES = 1 << 20  # protects the reader: cgroup.procs of a full pids group is 512 KiB at most


class Mount:
    """One mounted hierarchy: `version` 1 or 2, `point`, `top` (the group shown there), `controllers`."""

    __slots__ = ("controllers", "point", "top", "version")

    def __init__(self, version: int, point: str, top: str, controllers: tuple[str, ...]) -> None:
        self.version: int = version
        self.point: str = point
        self.top: str = top
        self.controllers: tuple[str, ...] = controllers

    def folder(self, position: str) -> str:
        """Return the folder of the group at `position`; the mount point where that is not shown by it."""
        top = self.top.rstrip("/")
        if position == self.top or not position.startswith(top + "/") or "/.." in position:
            return self.point
        return (self.point + position[len(top) :]).rstrip("/")


def read_text(path: str) -> str:
    """Return the stripped text of one control file.

    Raises:
        OSError: absent, unreadable, or the group is gone (ENODEV).
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        chunks = []
        total = 0
        while total < MAX_CONTROL_BYTES and (chunk := os.read(fd, PAGE_BYTES)):
            chunks.append(chunk)
            total += len(chunk)
        return b"".join(chunks).decode("ascii", "replace").strip()
    finally:
        os.close(fd)


def write_text(path: str, value: str) -> None:
    """Write one value with one write(2), into a file that exists.

    Raises:
        OSError: the kernel refused the value or the write.
    """
    fd = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode("ascii"))
    finally:
        os.close(fd)


def read_number(path: str) -> int | None:
    """Return a control file's number; None where the file is absent or says `max`: unknown is never 0."""
    try:
        text = read_text(path)
    except OSError:
        return None
    return int(text) if text.isdecimal() else None


def read_key(path: str, key: str) -> int | None:
    """Return one number of a flat-keyed file (`key value` a line), None where file or key is absent."""
    try:
        lines = read_text(path).splitlines()
    except OSError:
        return None
    for line in lines:
        name, _, value = line.partition(" ")
        if name == key and value.isdecimal():
            return int(value)
    return None


def read_io(path: str) -> tuple[int, int] | None:
    """Return bytes read and written over all devices of an `io.stat`, None where the file is absent."""
    try:
        words = read_text(path).split()
    except OSError:
        return None
    totals = {"rbytes": 0, "wbytes": 0}
    for word in words:
        name, _, value = word.partition("=")
        if name in totals and value.isdecimal():
            totals[name] += int(value)
    return totals["rbytes"], totals["wbytes"]


def read_pids(folder: str) -> tuple[int, ...]:
    """Return the processes of a group that this PID namespace can name; empty where the group is gone."""
    try:
        found = read_text(folder + "/cgroup.procs").split()
    except OSError:
        return ()
    return tuple(sorted({int(pid) for pid in found if pid.isdecimal() and pid != "0"}))


def _unescape(field: str) -> str:
    """Return a mountinfo field without its octal escapes (fs/proc_namespace.c, Linux 2.6.26)."""
    parts = field.split("\\")
    return parts[0] + "".join(chr(int(part[:3], 8)) + part[3:] for part in parts[1:])


def find_mounts(root: str, proc: str) -> tuple[Mount, ...]:
    """Return the cgroup hierarchies mounted at or below `root`, version 2 first.

    Raises:
        OSError: mountinfo cannot be read.
    """
    found = []
    with open(proc + "/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            left, _, right = line.partition(" - ")
            fields, tail = left.split(), right.split()
            if len(fields) < 6 or len(tail) < 3 or tail[0] not in {"cgroup", "cgroup2"}:
                continue
            point = _unescape(fields[4])
            if point != root and not point.startswith(root.rstrip("/") + "/"):
                continue
            controllers = tuple(word for word in tail[2].split(",") if word in V1_CONTROLLERS)
            found.append(Mount(2 if tail[0] == "cgroup2" else 1, point, _unescape(fields[3]), controllers))
    return tuple(sorted(found, key=lambda mount: -mount.version))


def find_positions(proc: str) -> dict[str, str]:
    """Return where this process sits: one path for each v1 controller, and the v2 path under the key "".

    Raises:
        OSError: the kernel has no cgroups, or /proc is not there.
    """
    places = {}
    with open(proc + "/self/cgroup", encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            _, names, path = line.rstrip("\n").split(":", 2)
            for name in names.split(","):
                places[name] = path
    return places


def find_identity(proc: str) -> tuple[int, int, int]:
    """Return (pid, start time in clock ticks, inode of the PID namespace): what marks a folder as ours.

    Raises:
        OSError: /proc is not there.
    """
    pid = os.getpid()
    start = read_start_time(proc, "self")
    if start is None:
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), proc + "/self/stat")
    namespace = os.readlink(proc + "/self/ns/pid")
    return pid, start, int(namespace[namespace.index("[") + 1 : -1])


def read_stat(proc: str, pid: int | str) -> list[str] | None:
    """Return the fields of a process's stat from the third, its state, on; None where there is no such process."""
    try:
        text = read_text(f"{proc}/{pid}/stat")
    except OSError:
        return None
    return text[text.rindex(")") + 2 :].split()


def read_start_time(proc: str, pid: int | str) -> int | None:
    """Return field 22 of a process's stat, None where there is no such process."""
    fields = read_stat(proc, pid)
    return None if fields is None else int(fields[19])


def enable(folder: str, wanted: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...], str]:
    """Enable v2 controllers for the children of `folder`, one by one, and say what then is enabled.

    Returns:
        Those of `wanted` that are enabled now, those that this call enabled, and the first refusal in words.

    Raises:
        OSError: the group's own files cannot be read.
    """
    available = read_text(folder + "/cgroup.controllers").split()
    before = read_text(folder + "/cgroup.subtree_control").split()
    refusal = ""
    for name in wanted:
        if name not in available or name in before:
            continue
        try:
            write_text(folder + "/cgroup.subtree_control", "+" + name)
        except OSError as error:
            refusal = refusal or f"enabling {name}: {error.strerror}"
    after = read_text(folder + "/cgroup.subtree_control").split()
    enabled = tuple(name for name in wanted if name in after)
    return enabled, tuple(name for name in enabled if name not in before), refusal


def disable(folder: str, names: tuple[str, ...]) -> None:
    """Take back what `enable` enabled; a controller that somebody uses meanwhile stays."""
    for name in names:
        try:
            write_text(folder + "/cgroup.subtree_control", "-" + name)
        except OSError:
            continue


def _pauses_ms(timeout_ms: int) -> Iterator[int]:
    """Yield 0, then growing pauses that together last `timeout_ms`: most groups are empty at once."""
    yield 0
    left, step = timeout_ms, 1
    while left > 0:
        yield min(step, left)
        left -= step
        step = min(step * 2, 20)


def _pause(pause_ms: int) -> None:
    """Sleep without the clock's module, which the jail does not import."""
    if pause_ms:
        select.select([], [], [], pause_ms / 1000)


def wait_events(folder: str, key: str, wanted: int, timeout_ms: int) -> bool:
    """Wait until a v2 group's `cgroup.events` says `key wanted`; return whether it did in time.

    Raises:
        OSError: the file is absent (Linux before 5.2 has no `frozen`) or the group is gone.
    """
    fd = os.open(folder + "/cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
    try:
        poller = select.poll()
        poller.register(fd, select.POLLPRI)  # kernfs reports a change as POLLERR|POLLPRI, Linux 4.3
        for pause_ms in _pauses_ms(timeout_ms):
            # ORDER: wait first, read second: a change before the first read is seen by that read, a change
            # after a read wakes the next poll.
            poller.poll(pause_ms)
            text = os.pread(fd, 4096, 0).decode("ascii", "replace")
            if f"{key} {wanted}" in text.splitlines():
                return True
        return False
    finally:
        os.close(fd)


def freeze(folder: str, frozen: int, timeout_ms: int) -> bool:
    """Stop (1) or continue (0) every process of a v2 group, and return whether the kernel said so in time.

    Raises:
        OSError: no cgroup.freeze here (Linux 5.2), or the group is gone.
    """
    write_text(folder + "/cgroup.freeze", str(int(frozen)))
    return wait_events(folder, "frozen", int(frozen), timeout_ms)


def kill(folder: str) -> bool:
    """Send SIGKILL to every process of a v2 group and its descendants at once, against any fork (Linux 5.14).

    Returns:
        True where the kernel took it or the group is gone, False where it has no cgroup.kill.

    Raises:
        OSError: the write was refused.
    """
    try:
        write_text(folder + "/cgroup.kill", "1")
    except FileNotFoundError:
        return not os.path.isdir(folder)
    except OSError as error:
        if error.errno == errno.ENODEV:
            return True
        raise
    return True


def kill_listed(folder: str, timeout_ms: int) -> bool:
    """Kill the listed processes of one group (not of its children) until none is left; say whether none is.

    For v1 and for v2 before 5.14: a fork may outrun one round, so rounds repeat.

    Raises:
        OSError: a process may not be signalled (EPERM).
    """
    for pause_ms in _pauses_ms(timeout_ms):
        _pause(pause_ms)
        pids = read_pids(folder)
        if not pids:
            return True
        for pid in pids:
            _kill_member(folder, pid)
    return not read_pids(folder)


def _kill_member(folder: str, pid: int) -> None:
    """Send SIGKILL to `pid` only if it is a member of the group after its pidfd was opened."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        # SECURITY: the list may be older than the pidfd; a recycled pid is no member, so read the list again.
        if pid in read_pids(folder):
            signal.pidfd_send_signal(fd, signal.SIGKILL)
    except ProcessLookupError:
        return
    finally:
        os.close(fd)


def list_children(folder: str) -> tuple[str, ...]:
    """Return the names of a group's child groups; empty where it is gone."""
    try:
        with os.scandir(folder) as entries:
            return tuple(sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False)))
    except FileNotFoundError:
        return ()


def remove(folder: str, timeout_ms: int) -> bool:
    """Remove a group and all below it, leaves first, waiting for exiting processes; say whether it is gone.

    Never kills: a group that still has a process stays, and the answer is False.

    Raises:
        OSError: any refusal but EBUSY and ENOENT.
    """
    below = [folder]
    for parent in below:
        below.extend(f"{parent}/{name}" for name in list_children(parent))
    for pause_ms in _pauses_ms(timeout_ms):
        _pause(pause_ms)
        below = [path for path in reversed(below) if not _remove_one(path)][::-1]
        if not below:
            return True
    return False


def _remove_one(folder: str) -> bool:
    """Remove one group; return False while it is busy."""
    try:
        os.rmdir(folder)
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno in {errno.EBUSY, errno.ENOTEMPTY}:
            return False
        raise
    return True
