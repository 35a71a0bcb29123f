"""The host's end of the launcher: start it once, ask it for sandboxes, hold each one by its channel and pidfd.

Guarantees: the host process never forks (posix_spawn only) and never confines itself; what this module returns stands
or an exception says which step failed; every wait has a deadline; a forked child of the host holds no live channel, so
its life does not prolong a sandbox's. Does not: interpret evidence or decide endings. May be called by:
kavach.backends.process only. Safe to call from any thread.
"""

from __future__ import annotations

import contextlib
import errno
import marshal
import os
import select
import signal
import socket
import sys
import tempfile
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from kavach.errors import InternalError, LaunchError
from kavach.launcher import wire
from kavach.linux.cgroup import find_identity

if TYPE_CHECKING:
    from collections.abc import Callable

    from kavach.model.result import Denial

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


class Watching(Protocol):
    """Who answers a listening filter (kavach.launcher.watch)."""

    def arm(self) -> None:
        """Keep what is refused from now on."""

    def not_found(self, program: str) -> None:
        """Keep that a command's own program was not found."""

    def denials(self) -> tuple[Denial, ...]:
        """Return what was refused."""

    def close(self) -> None:
        """Answer nothing more."""

    def abandon(self) -> None:
        """Let go of what belongs to the parent."""


class StepError(Exception):
    """A step was refused by the kernel: its name and errno. Caught by the process backend, never public."""

    def __init__(self, step: str, code: int) -> None:
        super().__init__(f"{step}: {os.strerror(code)}")
        self.step = step
        self.errno = code


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
                    self._outside = _rows(message, b"hello")[0]
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
        mine, theirs = _channel_pair()
        try:
            sent = (theirs.fileno(),) if request.cgroup_fd < 0 else (theirs.fileno(), request.cgroup_fd)
            # SECURITY: marshal is for this direction alone, from the host that the launcher obeys anyway.
            body = (b"create", marshal.dumps(tuple(request[:-1])))  # type: ignore[arg-type]  # plain values only
            try:
                with self._lock:
                    wire.send(self._channel, body, sent)
            finally:
                theirs.close()
            standing = _await_standing(mine)
            standing.outside = outside
            return standing
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
        _handles.add(self)

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
        return self.pidfd >= 0 and not _is_readable(self.pidfd, 0)

    def kill(self) -> None:
        """Kill init, and by that everything in its PID namespace; returns at once."""
        if self.pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def wait_gone(self, timeout_s: float) -> bool:
        """Return whether init, and with it every process of its namespace, has ended within `timeout_s`."""
        return self.pidfd < 0 or _is_readable(self.pidfd, timeout_s)

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


class Prepared:
    """One command child: its channel, and what it reported when it stood."""

    def __init__(self, channel: socket.socket, on_listener: Callable[[int], Watching] | None = None) -> None:
        self.channel = channel
        self._on_listener = on_listener
        #: Who answers the filter's questions; None where it asks none.
        self.watch: Watching | None = None
        self.pid: int = 0
        self.inner_pid: int = 0
        self.outcomes: tuple[tuple[bytes, int, int], ...] = ()
        self.lost: tuple[tuple[bytes, int], ...] = ()
        _handles.add(self)

    def accept(self, message: object, descriptors: list[int], pid: int) -> bool:
        """Take one message in; return whether the child stands now.

        Raises:
            StepError: a step failed, nothing was run.
            ValueError: not a message of a child.
        """
        if not isinstance(message, tuple) or not message:
            wire.close_all(descriptors)
            raise ValueError("not a message of a command child")
        if message[0] == b"listener" and len(descriptors) == 1 and self._on_listener and self.watch is None:
            # ORDER: before the child's last canaries, whose calls wait for an answer.
            self.watch = self._on_listener(descriptors.pop())
            return False
        wire.close_all(descriptors)
        if message[0] == b"not_started":
            raise _step_error(message)
        inner, self.outcomes, self.lost = _rows(message, b"standing")
        self.pid, self.inner_pid = pid, int(inner)
        return True

    def wait_standing(self, timeout_s: float) -> None:
        """Return when the child stands, its pid (as seen here, vouched for by the kernel) known.

        Raises:
            StepError: a step failed, nothing was run.
            BrokenPipeError: the sandbox is gone.
            TimeoutError: not within `timeout_s`.
        """
        deadline = time.monotonic() + timeout_s
        try:
            while not self.accept(*receive_within(self.channel, max(0.0, deadline - time.monotonic()))):
                continue
        except (EOFError, ValueError) as error:
            raise BrokenPipeError(errno.EPIPE, "the sandbox is gone") from error

    def go(self, message: tuple[object, ...], descriptors: tuple[int, ...]) -> None:
        """Let the child become the command (kavach.launcher.child describes the message)."""
        wire.send(self.channel, message, descriptors)

    def has_ended(self) -> bool:
        """Return whether nobody holds the child's end of the channel any more."""
        poll = select.poll()
        poll.register(self.channel, 0)
        return bool(poll.poll(0))

    def close(self) -> None:
        """Close the channel; a child that still waits for `go` ends. Idempotent."""
        self.channel.close()

    abandon = close


def receive_within(channel: socket.socket, timeout_s: float) -> tuple[Any, list[int], int]:
    """Return one message (kavach.launcher.wire.receive), or raise TimeoutError."""
    if not _is_readable(channel.fileno(), timeout_s):
        raise TimeoutError(errno.ETIMEDOUT, "no answer in time")
    return wire.receive(channel)


def _await_standing(channel: socket.socket) -> Standing:
    """Read the launcher's `made` and init's `standing`, in whichever order they come."""
    deadline = time.monotonic() + BUILD_TIMEOUT_S
    made: tuple[Any, ...] | None = None
    standing: tuple[Any, ...] | None = None
    kept: list[int] = []
    folder: list[int] = []
    try:
        while made is None or standing is None:
            message, descriptors, _ = receive_within(channel, max(0.0, deadline - time.monotonic()))
            if isinstance(message, tuple) and message[:1] == (b"made",) and made is None:
                made, kept = _rows(message, b"made"), descriptors
            elif isinstance(message, tuple) and message[:1] == (b"standing",) and standing is None:
                standing, folder = _rows(message, b"standing"), descriptors
            else:
                wire.close_all(descriptors)
                raise _step_error(message)
        pid, inodes = made
        return Standing(channel, pid, kept.pop(), inodes, standing[1], folder.pop() if folder else -1)
    except (EOFError, TimeoutError, ValueError, IndexError) as error:
        wire.close_all(kept)
        wire.close_all(folder)
        raise LaunchError(
            "the sandbox's init ended or hung while building", step="standing", errno=errno.EPIPE
        ) from error
    except StepError:
        wire.close_all(kept)
        wire.close_all(folder)
        raise


def _rows(message: object, verb: bytes) -> tuple[Any, ...]:
    if not isinstance(message, tuple) or len(message) < 2 or message[0] != verb:
        raise ValueError(f"expected {verb!r}")
    return message[1:]


def _step_error(message: object) -> StepError:
    if (
        isinstance(message, tuple)
        and len(message) == 3
        and isinstance(message[1], bytes)
        and isinstance(message[2], int)
    ):
        return StepError(message[1].decode("ascii", "replace"), message[2])
    raise ValueError("not a message")


def _is_readable(handle: int, timeout_s: float) -> bool:
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    return bool(poll.poll(max(0, int(timeout_s * 1000 + 0.999))))


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
    return os.posix_spawn(sys.executable, argv, {}, file_actions=actions, setsid=True, setsigmask=())


_handles: weakref.WeakSet[Any] = weakref.WeakSet()
_shared: Launcher | None = None
_shared_lock = threading.Lock()


def shared() -> Launcher:
    """Return this process's launcher, started at first use and again if it has died.

    Raises:
        InternalError: it does not start.
    """
    global _shared  # noqa: PLW0603 - one launcher a process is the design
    with _shared_lock:
        if _shared is None or not _shared.is_alive():
            if _shared is not None:
                _shared.close()
            _shared = Launcher()
        return _shared


def hold(handle: Watching) -> None:
    """Let a forked child of the host abandon this handle too."""
    _handles.add(handle)


def _after_fork_in_child() -> None:
    """Let go of everything of the parent: its sandboxes must not live as long as this child does."""
    global _shared, _shared_lock  # noqa: PLW0603 - see shared()
    for handle in list(_handles):
        handle.abandon()
    if _shared is not None:
        _shared.abandon()
    _shared = None
    _shared_lock = threading.Lock()


os.register_at_fork(after_in_child=_after_fork_in_child)
