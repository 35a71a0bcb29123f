"""What a path leads to for a command: walked from outside, with the eyes and the rights of the caller.

Guarantees: no file is opened for reading or writing (O_PATH only), no magic link is followed, the host's own files are
never taken for the sandbox's. Does not: see access control lists, or change anything. A model of the kernel's answer,
which the kernel gives on its own afterwards. May be called by: kavach.launcher.watch_outcome, on the host.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections import deque
from typing import NamedTuple

_MAX_LINKS = 40  # linux/namei.h: MAXSYMLINKS
_ST_NOEXEC = 8  # linux/statfs.h, 2.6.36
READ, WRITE, SEARCH = 4, 2, 1  # the bits of a file's mode


class Ids(NamedTuple):
    """Whom the kernel takes a thread for, as this host numbers it."""

    uid: int
    groups: frozenset[int]


class Place(NamedTuple):
    """Where a walk ended.

    Args:
        code: 0, or the errno that stopped it.
        path: the resolved path up to there, as the command sees it.
        wanted: the resolved path with the names that could not be reached.
        mode: st_mode of what is there; of the last folder where something is missing.
        owner: its user id, as this host numbers it.
        group: its group id.
        flags: the mount's flags (statvfs).
        is_last: whether what is missing is the last name of the path.
    """

    code: int
    path: str
    wanted: str
    mode: int
    owner: int
    group: int
    flags: int
    is_last: bool

    @property
    def is_read_only(self) -> bool:
        """Whether the mount takes no writes."""
        return bool(self.flags & os.ST_RDONLY)

    @property
    def is_no_execute(self) -> bool:
        """Whether nothing on the mount can be run."""
        return bool(self.flags & _ST_NOEXEC)

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder."""
        return stat.S_ISDIR(self.mode)

    def lets(self, ids: Ids, bits: int) -> bool:
        """Return whether the mode gives these bits to someone without capabilities."""
        return allows(self.mode, self.owner, self.group, ids, bits)


def allows(mode: int, owner: int, group: int, ids: Ids, bits: int) -> bool:
    """Return whether a file's mode gives these bits to someone without capabilities."""
    shift = 6 if owner == ids.uid else 3 if group in ids.groups else 0
    return not bits & ~(mode >> shift)


def read_ids(thread: int) -> Ids:
    """Return a thread's ids as the file system sees them.

    Raises:
        OSError: it has gone.
    """
    rows: dict[str, list[str]] = {}
    with open(f"/proc/{thread}/status", encoding="ascii", errors="replace") as status:
        for line in status:
            name, _, rest = line.partition(":")
            rows[name] = rest.split()
    return Ids(int(rows["Uid"][3]), frozenset({int(rows["Gid"][3]), *map(int, rows["Groups"])}))


def walk(thread: int, path: str, ids: Ids, *, follow: bool) -> Place | None:
    """Return where a path leads inside; None where only the thread itself could say (its /proc).

    Args:
        thread: whose root is walked.
        path: absolute.
        ids: whose rights are asked.
        follow: whether a link at the end is followed.

    Raises:
        OSError: the root of the thread is closed to this process, or the thread has gone.
    """
    root = os.open(f"/proc/{thread}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    with contextlib.ExitStack() as opened:
        opened.callback(os.close, root)
        return _walk(root, path, ids, opened, follow=follow)


def _walk(root: int, path: str, ids: Ids, opened: contextlib.ExitStack, *, follow: bool) -> Place | None:
    parts = deque(path.split("/"))
    trail: list[tuple[str, int]] = [("", root)]
    links = 0
    while parts:
        name = parts.popleft()
        left = [name, *(one for one in parts if one not in {"", "."})]
        last = len(left) == 1
        if name in {"", "."}:
            continue
        if name == "..":
            trail = trail[: max(1, len(trail) - 1)]
            continue
        if len(trail) == 1 and name == "proc":
            return None
        here = trail[-1][1]
        folder = os.fstat(here)
        if stat.S_ISDIR(folder.st_mode) and not allows(folder.st_mode, folder.st_uid, folder.st_gid, ids, SEARCH):
            return _place(here, trail, errno.EACCES, left)
        try:
            found = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
        except OSError as error:
            return _place(here, trail, error.errno or errno.EIO, left)
        opened.callback(os.close, found)
        if stat.S_ISLNK(os.fstat(found).st_mode) and (follow or not last):
            links += 1
            if links > _MAX_LINKS:
                return _place(here, trail, errno.ELOOP, left)
            target = os.readlink("", dir_fd=found)
            parts.extendleft(reversed(target.split("/")))
            if target.startswith("/"):
                trail = trail[:1]
            continue
        trail.append((name, found))
    return _place(trail[-1][1], trail)


def _place(handle: int, trail: list[tuple[str, int]], code: int = 0, left: list[str] | None = None) -> Place:
    found = os.fstat(handle)
    path = "/".join(name for name, _ in trail) or "/"
    flags = os.fstatvfs(handle).f_flag
    wanted = os.path.normpath("/".join((path, *left))) if left else path
    is_last = left is None or len(left) == 1
    return Place(code, path, wanted.replace("//", "/"), found.st_mode, found.st_uid, found.st_gid, flags, is_last)


def is_program(path: str) -> bool:
    """Return whether a regular file of this host is a program or a library, which has to be shown as executable."""
    try:
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        # SECURITY: the name is untrusted code's choice; a pipe or a device must not be opened for it.
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            return False
        content = os.open(f"/proc/self/fd/{handle}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.read(content, 4) == b"\x7fELF"
        finally:
            os.close(content)
    except OSError:
        return False
    finally:
        os.close(handle)
