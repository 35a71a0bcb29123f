"""The host's end of the launcher: start it once, ask it for sandboxes, hold each one by its channel and pidfd.

Guarantees: the host process never forks (posix_spawn only) and never confines itself; what this module returns stands
or an exception says which step failed; every wait has a deadline; a forked child of the host holds no live channel, so
its life does not prolong a sandbox's. Does not: interpret evidence or decide endings. May be called by:
kavach.backends.process only. Safe to call from any thread.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import functools
import marshal
import os
import select
import signal
import socket
import sys
import tempfile
import threading
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from kavach.errors import InternalError, LaunchError, UnsupportedError
from kavach.launcher import wire
from kavach.launcher.prepared import Prepared, handles, is_readable, read_rows, receive_within, step_error
from kavach.linux.cgroup import find_identity

if TYPE_CHECKING:
    from collections.abc import Callable

    from kavach.launcher.prepared import Watching

START_TIMEOUT_S = 20.0  # protects the caller from a host that swaps; a start takes 0.03 s
BUILD_TIMEOUT_S = 20.0  # protects the caller from a hung mount; a build takes 0.003 s
END_TIMEOUT_S = 5.0  # protects destroy from a process in uninterruptible sleep; an ending takes 0.001 s
_CHANNEL = 3  # the launcher's descriptor number for its channel
_BOOT = (
    "import os,sys;sys.path.insert(0,sys.argv[2]);from kavach.launcher import zygote;"
    "zygote.main(3,int(sys.argv[1]),*map(os.fsencode,sys.argv[3:5]))"
)


class Request(NamedTuple):
    """What the launcher needs to clone one init: plain values, see kavach.launcher.zygote."""

    flags: int
    maps: tuple[bytes, bytes, int]
    sources: tuple[tuple[bytes, int, int], ...]
    plan: tuple[object, ...]
    joins: tuple[bytes, ...] = ()
    folders: tuple[bytes, ...] = ()
    scratch: tuple[bytes, ...] = ()
    cgroup_fd: int = -1


class Launcher:
    """One launcher process and its channel; it starts while the caller goes on, and is waited for at first use."""

    def __init__(self) -> None:
        mine, theirs = _channel_pair()
        try:
            self.pid: int = _spawn(theirs.fileno())
        finally:
            theirs.close()
        self.owner_pid: int = os.getpid()
        self._channel = mine
        self._lock = threading.Lock()
        self._outside: tuple[tuple[bytes, int, int], ...] | None = None
        with contextlib.suppress(OSError):
            mine.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)

    def await_start(self) -> tuple[tuple[bytes, int, int], ...]:
        """Return what the seccomp canaries answer outside, (name, phase, errno), once the launcher has started.

        Raises:
            InternalError: it does not start.
        """
        with self._lock:
            if self._outside is None:
                try:
                    message, _, _ = receive_within(self._channel, START_TIMEOUT_S)
                    self._outside = read_rows(message, b"hello")[0]
                except (EOFError, OSError, ValueError) as error:
                    self._channel.close()
                    hint = f"{sys.executable} -I -S must run: {error}"
                    raise InternalError("the launcher did not start", hint=hint) from error
            return self._outside

    def is_alive(self) -> bool:
        """Return whether the launcher still holds its end of the channel."""
        if self._channel.fileno() < 0:
            return False
        poll = select.poll()
        poll.register(self._channel, 0)
        return not poll.poll(0)

    def create(self, request: Request) -> Standing:
        """Return a sandbox whose wall stands.

        Raises:
            StepError: a step failed; nothing of the sandbox is left.
            LaunchError: the launcher ended or did not answer in time.
        """
        outside = self.await_start()
        # SECURITY: marshal is for this direction alone, from the host that the launcher obeys anyway.
        body = (b"create", marshal.dumps(tuple(request[:-1])))  # type: ignore[arg-type]  # plain values only
        mine, theirs = _channel_pair()
        try:
            sent = (theirs.fileno(),) if request.cgroup_fd < 0 else (theirs.fileno(), request.cgroup_fd)
            try:
                with self._lock:
                    wire.send(self._channel, body, sent)
            finally:
                theirs.close()
            standing = _await_standing(mine)
            standing.outside = outside
            return standing
        except ValueError as error:
            mine.close()
            raise LaunchError(
                f"the policy makes a plan that is too large: {error}", step="create", errno=errno.E2BIG
            ) from None
        except OSError as error:
            mine.close()
            raise LaunchError("the launcher is gone", step="create", errno=error.errno or errno.EPIPE) from error
        except BaseException:
            mine.close()
            raise

    def close(self) -> None:
        """End the launcher and with it every sandbox it made; idempotent."""
        self._channel.close()
        pid, self.pid = self.pid, 0
        if pid and os.getpid() == self.owner_pid:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)

    def leave_open(self) -> None:
        """At the end of the interpreter: neither close the channel nor warn that it is open."""
        self._channel.detach()

    def abandon(self) -> None:
        """In a forked child of the host: let go of the parent's launcher."""
        self._channel.close()


class Standing:
    """One sandbox: the channel to its init, init's pidfd, and what was seen from outside when it was made."""

    def __init__(
        self,
        channel: socket.socket,
        pid: int,
        pidfd: int,
        inodes: tuple[int, ...],
        lost: tuple[tuple[bytes, int], ...],
        folder: int,
    ) -> None:
        self.pid = pid
        self.pidfd: int = pidfd
        self.inodes = inodes
        self.lost = lost
        self.folder: int = folder
        #: What the seccomp canaries answered where no filter of ours is.
        self.outside: tuple[tuple[bytes, int, int], ...] = ()
        self._channel = channel
        self._lock = threading.Lock()
        handles.add(self)

    def prepare(
        self,
        cgroup_fd: int = -1,
        *,
        is_first: bool = True,
        on_listener: Callable[[int], Watching] | None = None,
    ) -> Prepared:
        """Ask init for a command child; `Prepared.wait_standing` says when it stands.

        Args:
            cgroup_fd: the command's own cgroup v2 folder, -1 for none.
            is_first: let it try every canary, not only those that each child tries.
            on_listener: takes over the descriptor of a filter that listens, and answers from then on.

        Raises:
            BrokenPipeError: the sandbox is gone.
        """
        mine, theirs = _channel_pair()
        try:
            with self._lock:
                sent = (theirs.fileno(),) if cgroup_fd < 0 else (theirs.fileno(), cgroup_fd)
                wire.send(self._channel, (b"prepare", int(is_first)), sent)
        except OSError as error:
            mine.close()
            raise BrokenPipeError(errno.EPIPE, "the sandbox is gone") from error
        finally:
            theirs.close()
        return Prepared(mine, on_listener)

    def signal(self, pid: int, number: int, *, group: bool) -> None:
        """Send a signal to a command by its pid inside, or to its process group; one that has ended gets none."""
        self._tell((b"signal", pid, number, int(group)))

    def kill_all(self) -> None:
        """Kill every process of the sandbox but init."""
        self._tell((b"kill_all",))

    def _tell(self, message: tuple[object, ...]) -> None:
        with self._lock, contextlib.suppress(OSError):
            wire.send(self._channel, message)

    def is_alive(self) -> bool:
        """Return whether init still runs."""
        return self.pidfd >= 0 and not is_readable(self.pidfd, 0)

    def kill(self) -> None:
        """Kill init, and by that everything in its PID namespace; returns at once."""
        if self.pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def wait_gone(self, timeout_s: float) -> bool:
        """Return whether init, and with it every process of its namespace, has ended within `timeout_s`."""
        return self.pidfd < 0 or is_readable(self.pidfd, timeout_s)

    def end_politely(self) -> None:
        """Close the channel: init ends every descendant and itself (the only way without a PID namespace)."""
        with self._lock:
            self._channel.close()

    def release(self) -> None:
        """Close every descriptor held for the sandbox; idempotent."""
        with self._lock:
            self._channel.close()
            for handle in (self.pidfd, self.folder):
                if handle >= 0:
                    os.close(handle)
            self.pidfd = self.folder = -1

    def abandon(self) -> None:
        """In a forked child of the host: let go of what belongs to the parent."""
        self._lock = threading.Lock()
        self.release()


def _await_standing(channel: socket.socket) -> Standing:
    """Read the launcher's `made` and init's `standing`, in whichever order they come."""
    deadline = time.monotonic() + BUILD_TIMEOUT_S
    made: tuple[Any, ...] | None = None
    standing: tuple[Any, ...] | None = None
    kept: list[int] = []
    folder: list[int] = []
    descriptors: list[int] = []
    try:
        while made is None or standing is None:
            message, descriptors, _ = receive_within(channel, max(0.0, deadline - time.monotonic()))
            if isinstance(message, tuple) and message[:1] == (b"made",) and made is None:
                made, kept = read_rows(message, b"made"), descriptors
            elif isinstance(message, tuple) and message[:1] == (b"standing",) and standing is None:
                standing, folder = read_rows(message, b"standing"), descriptors
            else:
                wire.close_all(descriptors)
                raise step_error(message)
        pid, inodes = made
        return Standing(channel, pid, kept.pop(), inodes, standing[1], folder.pop() if folder else -1)
    except BaseException as error:
        for handles_of_one in (kept, folder, descriptors):
            wire.close_all(handles_of_one)
        if isinstance(error, (EOFError, OSError, ValueError, IndexError)):
            words = "the sandbox's init ended or hung while building"
            raise LaunchError(words, step="standing", errno=errno.EPIPE) from error
        raise


def _channel_pair() -> tuple[socket.socket, socket.socket]:
    mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    mine.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    return mine, theirs


def _spawn(channel: int) -> int:
    """Start `python -I -S` with an empty environment, default signals, its own session and one descriptor."""
    source = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    prefix = "kavach-{}-{}-{}-".format(*find_identity("/proc"))
    argv = [sys.executable, "-I", "-S", "-B", "-c", _BOOT, str(os.getpid()), source, prefix, tempfile.gettempdir()]
    null = "/dev/null"
    actions = [
        (os.POSIX_SPAWN_DUP2, channel, _CHANNEL),
        (os.POSIX_SPAWN_OPEN, 0, null, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, null, os.O_WRONLY, 0),
        (os.POSIX_SPAWN_OPEN, 2, null, os.O_WRONLY, 0),
    ]
    try:
        return os.posix_spawn(sys.executable, argv, {}, file_actions=actions, setsid=True, setsigmask=())
    except OSError as error:
        words = f"{sys.executable} cannot be started: {error.strerror}; nothing was run"
        raise LaunchError(words, step="launcher", errno=error.errno) from error


_shared: Launcher | None = None
_shared_lock = threading.Lock()


def shared() -> Launcher:
    """Return this process's launcher, started at first use and again if it has died.

    Raises:
        UnsupportedError: this kernel, or a filter that this process is under, has no pidfd_open.
        InternalError: it does not start.
    """
    global _shared  # noqa: PLW0603 - one launcher a process is the design
    _require_pidfd()
    with _shared_lock:
        if _shared is None or not _shared.is_alive():
            if _shared is not None:
                _shared.close()
            _shared = Launcher()
        return _shared


@functools.cache
def _require_pidfd() -> None:
    """Refuse a host on which no process can be held: numbers alone may be given out again."""
    try:
        own = os.pidfd_open(os.getpid())
        try:
            signal.pidfd_send_signal(own, 0)
        finally:
            os.close(own)
    except OSError as error:
        raise UnsupportedError(
            f"pidfd_open, pidfd_send_signal: {os.strerror(error.errno or 0)}; nothing was run",
            control="pid_ns",
            needed="pidfd_open (Linux 5.3), allowed by the filter of an outer container",
            found=errno.errorcode.get(error.errno or 0, str(error.errno)),
            hint="let the container's seccomp profile allow pidfd_open and pidfd_send_signal",
        ) from error


def hold(handle: Watching) -> None:
    """Let a forked child of the host abandon this handle too."""
    handles.add(handle)


def _after_fork_in_child() -> None:
    """Let go of everything of the parent: its sandboxes must not live as long as this child does."""
    global _shared, _shared_lock  # noqa: PLW0603 - see shared()
    for handle in list(handles):
        handle.abandon()
    if _shared is not None:
        _shared.abandon()
    _shared = None
    _shared_lock = threading.Lock()


def _leave_open_at_exit() -> None:
    """Let the end of the process close the launcher's channel, which is how the launcher learns of it."""
    if _shared is not None:
        _shared.leave_open()


os.register_at_fork(after_in_child=_after_fork_in_child)
atexit.register(_leave_open_at_exit)
