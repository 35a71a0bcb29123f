"""What is to be seen of a standing sandbox from outside: processes, namespaces, filters, cgroups, mounts, setuid files.

Guarantees: everything was read from the kernel by this process; what it may not read is named in `unknown`, never taken
for good. No file of the sandbox is opened, no symbolic link in it followed, and no folder deeper or larger than a limit
searched. Does not: judge (`kavach.gate.integrity`). May be called by: kavach.gate.integrity.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from kavach.errors import KavachError, Withheld
from kavach.launcher import evidence
from kavach.launcher.init import descendants
from kavach.linux import cgroup

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = ["Inspected", "Member", "Subject", "inspect_sandbox"]

_DEEPEST = 64  # protects the host from a tree made to be endless; deeper ones are named in `unknown`
_MOST_ENTRIES = 200_000  # likewise; about half a second
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


class Subject(NamedTuple):
    """A sandbox to look at, and what its wall promised.

    Args:
        sandbox_id: its id.
        init_pid: its first process, as this host numbers it.
        namespaces: those that the wall made: user, pid, mnt, ipc, uts, net, cgroup.
        needs_filter: every process must be under a seccomp filter.
        needs_no_new_privs: likewise for no_new_privs.
        groups: its own cgroup folders, one a hierarchy; empty where it has none.
        writable: folders that its commands may write to, as they are called inside.
        sensitive: paths that no command may read, as they are called inside.
        can_read: whether a command could read a path: tried inside, with a command's rights; see `try_to_read`.
        open_workspace: returns a descriptor of the private workspace that its caller closes; None where there is none.
    """

    sandbox_id: str
    init_pid: int
    namespaces: frozenset[str]
    needs_filter: bool
    needs_no_new_privs: bool
    groups: tuple[str, ...] = ()
    writable: tuple[str, ...] = ()
    sensitive: tuple[str, ...] = ()
    can_read: Callable[[str], bool] | None = None
    open_workspace: Callable[[], int] | None = None


class Member(NamedTuple):
    """One process of a sandbox.

    Args:
        pid: as this host numbers it.
        start_time: clock ticks since boot; with the pid, it names one process for ever.
        is_inside: it descends from the sandbox's first process, or is it.
        missing_groups: the sandbox's cgroup folders that it is not in.
        has_filter: it is under a seccomp filter.
        has_no_new_privs: likewise.
        shared: the wall's namespaces that it shares with this host, None where they cannot be read.
        name: its program's.
    """

    pid: int
    start_time: int
    is_inside: bool
    missing_groups: tuple[str, ...]
    has_filter: bool
    has_no_new_privs: bool
    shared: frozenset[str] | None
    name: str


class Inspected(NamedTuple):
    """What was seen at one moment.

    Args:
        members: its processes, and strangers in its cgroups.
        mounts: its mounts as rows of point, options, kind and source; None where they cannot be read.
        setuid: regular files with a setuid or setgid bit in writable folders.
        readable: sensitive paths that could be read.
        unknown: what could not be looked at, for people.
    """

    members: tuple[Member, ...]
    mounts: frozenset[tuple[bytes, bytes, bytes, bytes]] | None
    setuid: frozenset[str]
    readable: frozenset[str]
    unknown: tuple[str, ...]


def inspect_sandbox(subject: Subject, host_inodes: Mapping[str, int]) -> Inspected | None:
    """Return what is to be seen of a sandbox now, None where its first process has gone.

    Args:
        subject: which.
        host_inodes: this host's namespaces (`kavach.launcher.evidence.host_inodes`).
    """
    if not _has_init(subject):
        return None
    unknown: list[str] = []
    members = _members(subject, host_inodes)
    unreadable = [one.name for one in members if one.shared is None and one.pid != subject.init_pid]
    unknown += [f"namespaces of {name}" for name in unreadable]
    setuid = frozenset(_find_setuid(subject, members, unknown))
    found = Inspected(members, _mounts(subject, unknown), setuid, _readable(subject, unknown), tuple(unknown))
    return found if _has_init(subject) else None  # what was seen while it was torn down says nothing


def _has_init(subject: Subject) -> bool:
    try:
        return not evidence.read_status(subject.init_pid).get("State", "Z").startswith(("Z", "X"))
    except OSError:
        return False


def try_to_read(list_folder: Callable[[str], object], read_file: Callable[[str], object], path: str) -> bool:
    """Return whether a path can be read, as a folder or as a file; `Sandbox.files` has both functions."""
    for act in (list_folder, read_file):
        try:
            act(path)
        except Withheld:  # the gate has read it, so it could be read
            return True
        except KavachError:
            continue
        return True
    return False


def _members(subject: Subject, host_inodes: Mapping[str, int]) -> tuple[Member, ...]:
    inside = {subject.init_pid, *descendants(subject.init_pid)}
    groups = {folder: frozenset(_group_pids(folder)) for folder in subject.groups}
    found = [
        _member(pid, subject, host_inodes, groups, is_inside=pid in inside)
        for pid in sorted(inside.union(*groups.values()))
    ]
    return tuple(one for one in found if one is not None)


def _group_pids(folder: str) -> Iterator[int]:
    yield from cgroup.read_pids(folder)
    for child in cgroup.list_children(folder):
        yield from _group_pids(f"{folder}/{child}")


def _member(
    pid: int,
    subject: Subject,
    host_inodes: Mapping[str, int],
    groups: Mapping[str, frozenset[int]],
    *,
    is_inside: bool,
) -> Member | None:
    start_time = cgroup.read_start_time("/proc", pid)
    try:
        status = evidence.read_status(pid)
    except OSError:
        return None
    if start_time is None or status.get("State", "Z").startswith(("Z", "X")):  # it has ended
        return None
    return Member(
        pid=pid,
        start_time=start_time,
        is_inside=is_inside,
        missing_groups=tuple(folder for folder, pids in groups.items() if pid not in pids),
        has_filter=status.get("Seccomp") == "2",
        has_no_new_privs=status.get("NoNewPrivs") == "1",
        shared=_shared(pid, subject.namespaces, host_inodes),
        name=status.get("Name", ""),
    )


def _shared(pid: int, namespaces: frozenset[str], host_inodes: Mapping[str, int]) -> frozenset[str] | None:
    try:
        return frozenset(name for name in namespaces if os.stat(f"/proc/{pid}/ns/{name}").st_ino == host_inodes[name])
    except OSError:  # not dumpable, and this process is not root
        return None


def _mounts(subject: Subject, unknown: list[str]) -> frozenset[tuple[bytes, bytes, bytes, bytes]] | None:
    if "mnt" not in subject.namespaces:
        return frozenset()  # they are the host's own, and change with it
    try:
        return frozenset(evidence.read_mounts(subject.init_pid))
    except OSError:
        unknown.append("mounts")
        return None


def _readable(subject: Subject, unknown: list[str]) -> frozenset[str]:
    found = []
    for path in subject.sensitive if subject.can_read is not None else ():
        try:
            found += [path] if subject.can_read is not None and subject.can_read(path) else []
        except KavachError:
            unknown.append(f"whether {path} can be read")
    return frozenset(found)


def _find_setuid(subject: Subject, members: tuple[Member, ...], unknown: list[str]) -> Iterator[str]:
    root = _open_root(subject, members)
    budget = [_MOST_ENTRIES]
    try:
        for path in subject.writable:
            handle = _open_inside(root, path)
            if handle is None and path == "/workspace":
                handle = _open_workspace(subject)
            if handle is None:
                unknown.append(f"files in {path}")
                continue
            yield from _walk(handle, path, budget, unknown, _DEEPEST)
    finally:
        if root is not None:
            os.close(root)


def _open_workspace(subject: Subject) -> int | None:
    if subject.open_workspace is None:
        return None
    try:
        shared = subject.open_workspace()
    except (OSError, KavachError):
        return None
    try:
        return os.open(".", _FOLDER, dir_fd=shared)  # a position of its own: reading one descriptor twice ends early
    except OSError:
        return None
    finally:
        os.close(shared)


def _open_root(subject: Subject, members: tuple[Member, ...]) -> int | None:
    """Return the sandbox's root as one of its processes sees it; one that is not dumpable shows it to root only."""
    for pid in (subject.init_pid, *(one.pid for one in members if one.is_inside)):
        try:
            return os.open(f"/proc/{pid}/root", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            continue
    return None


def _open_inside(root: int | None, path: str) -> int | None:
    """Return a folder of the sandbox, reached part by part without following a link."""
    if root is None:
        return None
    # SECURITY: with one openat for the whole path, a link that a command planted would lead out of the sandbox.
    handle = os.dup(root)
    for part in filter(None, path.split("/")):
        try:
            below = os.open(part, _FOLDER, dir_fd=handle)
        except OSError:
            return None
        finally:
            os.close(handle)
        handle = below
    return handle


def _walk(handle: int, path: str, budget: list[int], unknown: list[str], depth: int) -> Iterator[str]:
    """Yield setuid files below an open folder, and close it."""
    try:
        below = []
        with os.scandir(handle) as entries:
            for entry in entries:
                budget[0] -= 1
                if budget[0] < 0 or depth == 0:
                    unknown.append(f"files in {path}: too many, or too deep")
                    return
                try:
                    mode = entry.stat(follow_symlinks=False).st_mode
                except OSError:
                    continue
                if stat.S_ISREG(mode) and mode & (stat.S_ISUID | stat.S_ISGID):
                    yield f"{path}/{entry.name}"
                elif stat.S_ISDIR(mode):
                    below.append(entry.name)
        for name in below:
            try:
                folder = os.open(name, _FOLDER, dir_fd=handle)
            except FileNotFoundError:
                continue
            except OSError:
                unknown.append(f"files in {path}: a folder cannot be opened")
                continue
            yield from _walk(folder, f"{path}/{name}", budget, unknown, depth - 1)
    finally:
        os.close(handle)
