"""PID 1 of a sandbox: builds the wall, then forks commands on request, reaps what is left, and ends the sandbox.

Guarantees: no command starts before every required step has been taken; when the host's end of the channel closes,
or init dies, nothing in its PID namespace lives on. Does not: look at, log or pass on a command's bytes, arguments,
environment or secrets (they go from the host to the child). Everything that comes from the commands' side, signals and
exit states above all, is hostile. May be called by: the launcher only, in the process it has just cloned.
"""

from __future__ import annotations

import _socket
import errno
import os
import select

from kavach.launcher import build, canary, child, wire
from kavach.linux import namespaces, uapi

TYPE_CHECKING = False  # the typing module is not part of the jail
if TYPE_CHECKING:
    from typing import Any

_ALL_SIGNALS = tuple(number for number in range(1, 65) if number not in {uapi.SIGKILL, uapi.SIGSTOP, 32, 33})


def run(channel: _socket.socket, trees: list[int], plan: tuple[Any, ...]) -> None:
    """Build the wall, say `standing`, serve until the host has gone; never returns."""
    steps, command_steps, canaries, alone = plan
    wall = build.Wall(channel, trees)
    # SECURITY: PID 1 receives no signal that has no handler; the blocked ones are read, never acted on.
    arrivals = namespaces.signal_descriptor(_ALL_SIGNALS)
    lost = _take(wall, steps)
    wire.send(channel, (b"standing", os.getpid(), lost), (wall.folder,) if wall.folder >= 0 else ())
    if wall.folder >= 0:
        os.close(wall.folder)
    _Server(wall, command_steps, canaries, arrivals, in_own_pid_namespace=not alone).serve()


def _take(wall: build.Wall, steps: tuple[tuple[bytes, int, tuple[Any, ...]], ...]) -> tuple[tuple[bytes, int], ...]:
    lost = []
    for name, required, arguments in steps:
        try:
            build.STEPS[name](wall, *arguments)
        except OSError as error:
            code = error.errno or errno.EIO
            if required:
                wire.send(wall.channel, (b"refused", name, code))
                os._exit(1)
            lost.append((name, code))
    return tuple(lost)


class _Server:
    """Init's loop over two descriptors: the host's channel and the arrivals of signals."""

    def __init__(
        self,
        wall: build.Wall,
        steps: tuple[Any, ...],
        canaries: tuple[Any, ...],
        arrivals: int,
        *,
        in_own_pid_namespace: bool,
    ) -> None:
        self._wall = wall
        self._steps = steps
        self._canaries = canaries
        self._short = tuple(row for row in canaries if row[1] in canary.EVERY_TIME)
        self._arrivals = arrivals
        self._is_pid_1 = in_own_pid_namespace
        self._running: dict[int, _socket.socket] = {}

    def serve(self) -> None:
        """Answer until the host has gone, then end everything."""
        poll = select.poll()
        poll.register(self._wall.channel.fileno(), select.POLLIN)
        poll.register(self._arrivals, select.POLLIN)
        while True:
            for handle, _ in poll.poll():
                if handle == self._arrivals:
                    os.read(handle, 4096)
                    self._reap()
                elif not self._answer():
                    self._end()

    def _answer(self) -> bool:
        try:
            message, descriptors, _ = wire.receive(self._wall.channel)
        except (EOFError, OSError, ValueError):
            return False
        verb, *arguments = message
        if verb == b"prepare":
            self._prepare(descriptors, *arguments)
        elif verb == b"signal":
            self._signal(*arguments)
        elif verb == b"kill_all":
            self._kill_all()
        wire.close_all(descriptors)
        return verb in {b"prepare", b"signal", b"kill_all"}

    def _prepare(self, descriptors: list[int], is_first: int) -> None:
        channel = _socket.socket(fileno=descriptors.pop(0))
        try:
            pid = namespaces.clone(0, descriptors[0] if descriptors else -1)
        except OSError as error:
            _tell(channel, (b"not_started", b"fork", error.errno or errno.EIO))
            return
        if pid == 0:
            rows = self._canaries if is_first else self._short
            child.run(channel, self._wall.ruleset, self._steps, rows)
        self._running[pid] = channel

    def _signal(self, pid: int, number: int, to_group: int) -> None:
        # SECURITY: only a command that has not been reaped: its number cannot belong to anything else.
        if pid in self._running:
            try:
                (os.killpg if to_group else os.kill)(pid, number)
            except OSError:
                return  # gone, or refused: a signal that cannot be sent must not end the sandbox

    def _reap(self) -> None:
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            channel = self._running.pop(pid, None)
            if channel is not None:
                _report(channel, status, usage)

    def _kill_all(self) -> None:
        if self._is_pid_1:
            try:
                os.kill(-1, uapi.SIGKILL)
            except ProcessLookupError:
                return
        else:
            kill_descendants(os.getpid())

    def _end(self) -> None:
        self._kill_all()
        if not self._is_pid_1:
            _bury()
        os._exit(0)


def _report(channel: _socket.socket, status: int, usage: Any) -> None:
    _tell(channel, (b"ended", status, int(usage.ru_utime * 1e6), int(usage.ru_stime * 1e6), usage.ru_maxrss * 1024))


def _tell(channel: _socket.socket, message: tuple[object, ...]) -> None:
    """Send the last message of a command and close; a host that has left must not end the sandbox."""
    try:
        wire.send(channel, message)
    except OSError:
        return  # the host no longer listens
    finally:
        channel.close()


def _bury() -> None:
    """Return when no descendant is left: each one that is orphaned becomes a child of this sub-reaper."""
    while True:
        kill_descendants(os.getpid())
        try:
            os.wait()
        except ChildProcessError:
            return


def kill_descendants(root: int) -> None:
    """Kill every descendant of `root` and reap its own children, until a look finds none.

    Without a PID namespace there is no atomic way: the processes are stopped first, so that none forks unseen.
    """
    for number in (uapi.SIGSTOP, uapi.SIGKILL):
        seen: set[int] = set()
        while fresh := [pid for pid in descendants(root) if pid not in seen]:
            for pid in fresh:
                seen.add(pid)
                try:
                    os.kill(pid, number)
                except ProcessLookupError:
                    continue


def descendants(root: int, proc: str = "/proc") -> list[int]:
    """Return every process below `root`, as the proc mounted there numbers them."""
    found = []
    pending = [root]
    while pending:
        fresh = children(pending.pop(), proc)
        found += fresh
        pending += fresh
    return found


def children(parent: int, proc: str = "/proc") -> list[int]:
    """Return the children of all threads of one process."""
    found: list[int] = []
    try:
        threads = os.listdir(f"{proc}/{parent}/task")
    except OSError:
        return found
    for thread in threads:
        try:
            with open(f"{proc}/{parent}/task/{thread}/children", "rb") as handle:
                found += [int(word) for word in handle.read().split()]
        except OSError:
            continue
    return found
