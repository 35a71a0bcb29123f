"""The launcher: one small single-threaded process that clones the init of every sandbox and outlives none of them.

Guarantees: it ends when the host process ends, however that happens, and takes every sandbox and cgroup along. Does
not: run untrusted code, read untrusted bytes, or decide anything about policy. May be called by: the interpreter that
kavach.launcher.client starts (`python -I -S`), with an empty environment.
"""

from __future__ import annotations

import _socket
import errno
import gc
import marshal
import os
import select
import time

from kavach.launcher import canary, init, wire
from kavach.linux import confine, mounts, namespaces, trees, uapi

TYPE_CHECKING = False  # the typing module is not part of the jail
if TYPE_CHECKING:
    from typing import Any

NAMESPACES = (b"user", b"pid", b"mnt", b"ipc", b"uts", b"net", b"cgroup")
IF_POSSIBLE = 2  # kavach.launcher.view, which the jail does not import
_CGROUPS = b"/sys/fs/cgroup"
_EXIT_MS = 200  # how long after the end of its channel the host may take to end
_LINGER_S = 1.0  # how long the removal of cgroups is retried after the last process was killed


def main(channel_fd: int, host_pid: int, prefix: bytes, temporary: bytes) -> None:
    """Serve the host at the other end of `channel_fd` until it has gone; never returns.

    Args:
        channel_fd: one end of the channel.
        host_pid: the host, whose child this process is.
        prefix: how the names of the host's cgroups and working folders begin.
        temporary: the folder in which the host makes working folders.
    """
    gc.disable()  # a collection would write to every page that the children share
    try:
        host = namespaces.open_pidfd(host_pid)
    except ProcessLookupError:
        host = -1
    if host < 0 or os.getppid() != host_pid:
        _sweep(prefix, temporary)  # the host ended before it could be watched
        os._exit(0)
    confine.close_all_but((0, 1, 2, channel_fd, host))
    os.chdir("/")
    confine.reset_signals()
    namespaces.adopt_orphans()
    _Launcher(_socket.socket(fileno=channel_fd), host, prefix, temporary).serve()


def _sweep(prefix: bytes, temporary: bytes) -> None:
    """Remove what the host had made for a sandbox that it did not live to ask for."""
    for base, names, _ in os.walk(_CGROUPS):
        for name in [one for one in names if one.startswith(prefix)]:
            names.remove(name)
            _remove(base + b"/" + name)
    for name in os.listdir(temporary):
        if name.startswith(prefix):
            trees.remove_tree(temporary + b"/" + name)


class _Launcher:
    def __init__(self, channel: _socket.socket, host: int, prefix: bytes, temporary: bytes) -> None:
        self._channel = channel
        self._host = host
        self._prefix = prefix
        self._temporary = temporary
        self._poll = select.epoll()
        self._poll.register(channel.fileno(), select.EPOLLIN)
        self._poll.register(host, select.EPOLLIN)
        self._inits: dict[int, tuple[int, tuple[bytes, ...], tuple[bytes, ...]]] = {}

    def serve(self) -> None:
        """Answer requests and reap inits until the host has gone."""
        outside = canary.attempt(((canary.FINAL, b"ptrace", b"ptrace"), (canary.FINAL, b"add_key", b"add_key")), 2)
        wire.send(self._channel, (b"hello", tuple(outside)))
        while True:
            for handle, _ in self._poll.poll():
                if handle == self._host:
                    self._end()
                elif handle == self._channel.fileno():
                    self._answer()
                else:
                    self._forget(handle)

    def _answer(self) -> None:
        try:
            message, descriptors, _ = wire.receive(self._channel)
        except (EOFError, OSError):
            self._end()
        except ValueError:
            return  # descriptors beyond this process's limit: closed, which the asker sees; the others live on
        channel = _socket.socket(fileno=descriptors.pop(0))
        try:
            self._create(channel, descriptors, *marshal.loads(message[1]))  # noqa: S302 - from the host, whom we obey
        except OSError as error:
            _refuse(channel, b"clone", error)
        finally:
            channel.close()
            wire.close_all(descriptors)

    def _create(
        self,
        channel: _socket.socket,
        descriptors: list[int],
        flags: int,
        maps: tuple[bytes, bytes, int],
        sources: tuple[tuple[bytes, int, int], ...],
        plan: tuple[Any, ...],
        joins: tuple[bytes, ...],
        folders: tuple[bytes, ...],
        scratch: tuple[bytes, ...],
    ) -> None:
        opened: list[int] = []
        tasks: list[int] = []
        ready, start = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        try:
            try:
                _open_trees(opened, sources, maps)
            except OSError as error:
                _refuse(channel, b"open_trees", error)
                return
            tasks = [os.open(path, os.O_WRONLY | os.O_CLOEXEC) for path in joins]
            pid = namespaces.clone(flags & ~uapi.CLONE_NEWCGROUP, descriptors[0] if descriptors else -1)
            if pid == 0:
                _become_init(channel, ready, tasks, opened, plan, flags & uapi.CLONE_NEWCGROUP)
            self._admit(channel, start, pid, maps, (folders, scratch))
        finally:
            wire.close_all(tasks)
            wire.close_all(opened)
            ready.close()
            start.close()

    def _admit(
        self,
        channel: _socket.socket,
        start: _socket.socket,
        pid: int,
        maps: tuple[bytes, bytes, int],
        litter: tuple[tuple[bytes, ...], tuple[bytes, ...]],
    ) -> None:
        pidfd = namespaces.open_pidfd(pid)
        self._inits[pidfd] = (pid, *litter)
        self._poll.register(pidfd, select.EPOLLIN)
        stage = b"id_maps"
        try:
            uid_map, gid_map, deny = maps
            if uid_map:
                namespaces.write_id_maps(pid, uid_map, gid_map, deny_setgroups=bool(deny))
            # ORDER: init is still dumpable and has done nothing; later its namespaces could not be read.
            inodes = [os.stat(b"/proc/%d/ns/%s" % (pid, name)).st_ino for name in NAMESPACES]
        except OSError as error:
            os.kill(pid, uapi.SIGKILL)
            _refuse(channel, stage, error)
            return
        wire.send(channel, (b"made", pid, (*inodes,)), (pidfd,))
        start.send(b"m", _socket.MSG_NOSIGNAL)

    def _forget(self, pidfd: int) -> None:
        pid, _, _ = self._inits.pop(pidfd)
        os.waitpid(pid, 0)
        self._bury_orphans()
        self._poll.unregister(pidfd)
        os.close(pidfd)

    def _bury_orphans(self) -> None:
        """End what an init without a PID namespace left: only its orphans become children of this sub-reaper."""
        inits = {pid for pid, _, _ in self._inits.values()}
        while orphans := [pid for pid in init.children(os.getpid()) if pid not in inits]:
            for pid in orphans:
                init.kill_descendants(pid)
                os.kill(pid, uapi.SIGKILL)
                os.waitpid(pid, 0)

    def _end(self) -> None:
        """Kill every init, wait until each is gone with all its processes, remove the cgroups, end."""
        for pid, _, _ in self._inits.values():
            os.kill(pid, uapi.SIGKILL)
        init.kill_descendants(os.getpid())
        for pid, _, _ in self._inits.values():
            os.waitpid(pid, 0)
        for _, folders, scratch in self._inits.values():
            for folder in folders:
                _remove(folder)
            for folder in scratch:
                trees.remove_tree(folder)
        if _has_ended(self._host):
            _sweep(self._prefix, self._temporary)
        os._exit(0)


def _open_trees(opened: list[int], sources: tuple[tuple[bytes, int, int], ...], maps: tuple[bytes, bytes, int]) -> None:
    """Open each (path, attributes, owned) source; an owned one shows the caller's files as the command's own."""
    userns = -1
    try:
        for source, attributes, owned in sources:
            if owned and userns < 0:
                userns = _owner_namespace(maps)
            try:
                opened.append(mounts.open_tree(source, attributes, userns_fd=userns if owned else -1))
            except OSError:
                if owned != IF_POSSIBLE:
                    raise
                opened.append(mounts.open_tree(source, attributes))
    finally:
        if userns >= 0:
            os.close(userns)


def _owner_namespace(maps: tuple[bytes, bytes, int]) -> int:
    """Return a user namespace that maps this process's ids to those of the command (the last line of the maps)."""
    uid_map, gid_map = (
        b"%d %s 1" % (own, lines.split(b"\n")[-1].split()[1])
        for own, lines in zip((os.getuid(), os.getgid()), maps[:2], strict=True)
    )
    ready, start = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    pid = namespaces.clone(uapi.CLONE_NEWUSER)
    if pid == 0:
        start.close()
        ready.recv(1)
        os._exit(0)
    try:
        namespaces.write_id_maps(pid, uid_map, gid_map, deny_setgroups=False)
        return os.open(b"/proc/%d/ns/user" % pid, os.O_RDONLY | os.O_CLOEXEC)
    finally:
        start.close()
        ready.close()
        os.waitpid(pid, 0)


def _become_init(
    channel: _socket.socket,
    ready: _socket.socket,
    tasks: list[int],
    opened: list[int],
    plan: tuple[Any, ...],
    late: int,
) -> None:
    """In the clone: join the v1 groups, wait for the ids, go on as init; never returns."""
    stage = b"cgroup"
    try:
        for handle in tasks:
            # "0" into `tasks` is this thread itself, and costs no grace period as another's pid would.
            os.write(handle, b"0")
        # ORDER: a cgroup namespace has the groups of its making for a root; made before, it would name the host's pid.
        stage = b"clone"
        if late:
            namespaces.unshare(late)
    except OSError as error:
        _refuse(channel, stage, error)
        os._exit(1)
    confine.close_all_but((channel.fileno(), ready.fileno(), *opened))
    try:
        if ready.recv(1) == b"m":
            ready.close()
            init.run(channel, opened, plan)
    finally:
        os._exit(1)


def _has_ended(host: int) -> bool:
    """Return whether the host has ended: its channel is closed a moment before."""
    poll = select.poll()
    poll.register(host, select.POLLIN)
    return bool(poll.poll(_EXIT_MS))


def _refuse(channel: _socket.socket, stage: bytes, error: OSError) -> None:
    try:
        wire.send(channel, (b"refused", stage, error.errno or errno.EIO))
    except OSError:
        return  # the host no longer waits


def _remove(folder: bytes) -> None:
    """Remove a cgroup and those below it; a group stays busy for a moment after its last process was killed."""
    deadline = time.monotonic() + _LINGER_S
    while True:
        try:
            for below, _, _ in os.walk(folder, topdown=False):
                os.rmdir(below)
            return
        except OSError:
            if time.monotonic() > deadline:
                return
            time.sleep(0.005)
