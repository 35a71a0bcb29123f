"""The one door through which Kavach starts an external program (a container runtime, a VMM, a probe).

Guarantees: the program gets exactly the arguments, environment and folder named here and no descriptor but
its three; it ends before the deadline or is killed with its process group; at most `output_limit_bytes` of
each stream are kept, and what was cut is said. Does not: isolate anything (the programs started here are
trusted; a sandboxed command is started by the launcher), follow a child that makes its own session, or end
what the program left in the background on purpose. May be called by: backends, images, doctor, cli; never by
`kavach.linux`.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from kavach.errors import BackendError, BackendUnavailable, ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

# The host's environment holds keys; a program started here sees none of it.
CLEAN_ENVIRONMENT: Mapping[str, str] = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C.UTF-8",
}
OUTPUT_LIMIT_BYTES = 16 * 1024 * 1024  # protects the host's memory from a runtime that never stops talking
_CHUNK_BYTES = 65536
_TAIL_BYTES = 2048
_POLL_S = 0.005  # only where the kernel has no pidfd (before Linux 5.3)


class Completed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a program ended and what it said; `returncode` is negative for a signal, as in `subprocess`."""

    returncode: int
    stdout: bytes
    stderr: bytes
    truncated: bool

    @property
    def stderr_tail(self) -> str:
        """The end of stderr as text, for `BackendError.stderr_tail`."""
        return self.stderr[-_TAIL_BYTES:].decode("utf-8", "replace")


def run(
    argv: Sequence[str],
    *,
    timeout_s: float,
    input: bytes | None = None,  # noqa: A002 - the word subprocess uses
    env: Mapping[str, str] = CLEAN_ENVIRONMENT,
    cwd: str = "/",
    output_limit_bytes: int = OUTPUT_LIMIT_BYTES,
) -> Completed:
    """Return how the program ended, within the deadline.

    Args:
        argv: the program and its arguments; a name without a slash is looked up in `env["PATH"]`.
        timeout_s: seconds from the start to the kill.
        input: bytes for stdin; without them stdin is /dev/null.
        env: the whole environment.
        cwd: the folder it starts in.
        output_limit_bytes: how much of stdout, and of stderr, is kept; the rest is read and dropped.

    Returns:
        The program's end, whatever its exit code.

    Raises:
        ConfigError: `argv` is empty or holds a NUL.
        BackendUnavailable: the program could not be started.
        BackendError: the deadline passed (the process group was killed), or the exit status was lost.
    """
    deadline = time.monotonic() + timeout_s
    process = _start(argv, stdin=input, env=env, cwd=cwd)
    with contextlib.ExitStack() as stack:
        stack.callback(_end, process)
        pump = _Pump(process, stack, input or b"", output_limit_bytes)
        if not pump.until_ended(deadline):
            raise BackendError(
                f"{argv[0]} did not end within {timeout_s:g} s and was killed",
                runtime=argv[0],
                stderr_tail=pump.stderr[-_TAIL_BYTES:].decode("utf-8", "replace"),
            )
        if pump.status_lost:
            process.wait()  # SECURITY: marks it reaped, so that nobody is killed by a number that was reused
            raise BackendError(
                f"{argv[0]} ended, but its exit status was taken by someone else",
                runtime=argv[0],
                hint="the host process must neither ignore SIGCHLD nor reap children that are not its own",
            )
        returncode = process.wait()
        return Completed(
            returncode=returncode,
            stdout=bytes(pump.stdout),
            stderr=bytes(pump.stderr),
            truncated=pump.truncated,
        )


def _start(argv: Sequence[str], *, stdin: bytes | None, env: Mapping[str, str], cwd: str) -> subprocess.Popen[bytes]:
    if not argv:
        raise ConfigError("no program to start: argv is empty", key="argv")
    try:
        return subprocess.Popen(
            list(argv),
            bufsize=0,
            stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=dict(env),
            cwd=cwd,
            start_new_session=True,
        )
    except ValueError as error:
        raise ConfigError(f"{argv[0]!r} cannot be started: {error}", key="argv") from error
    except OSError as error:
        absent = str(error.filename or argv[0])
        raise BackendUnavailable(
            f"{argv[0]} could not be started: {absent}: {error.strerror}", missing=(absent,)
        ) from error


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill the group of a leader that was never reaped, reap the leader, close the pipes."""
    if process.returncode is None:
        # SECURITY: the leader has not been reaped, so its number, and the group's, cannot belong to another.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            stream.close()


class _Pump:
    """Moves bytes between the program and memory until its leader has ended; keeps no more than the limit."""

    def __init__(
        self, process: subprocess.Popen[bytes], stack: contextlib.ExitStack, pending: bytes, limit_bytes: int
    ) -> None:
        self.stdout = bytearray()
        self.stderr = bytearray()
        self.truncated = False
        self.status_lost = False
        self._pid = process.pid
        self._pending = memoryview(pending)
        self._limit_bytes = limit_bytes
        self._selector = stack.enter_context(selectors.DefaultSelector())
        self._tick_s: float | None = None
        try:
            pidfd = os.pidfd_open(process.pid)
        except (OSError, AttributeError):
            self._tick_s = _POLL_S
        else:
            stack.callback(os.close, pidfd)
            self._selector.register(pidfd, selectors.EVENT_READ, None)
        for stream, kept in ((process.stdout, self.stdout), (process.stderr, self.stderr)):
            if stream is not None:
                self._watch(stream.fileno(), selectors.EVENT_READ, partial(self._read, kept=kept))
        self._stdin = process.stdin
        if self._stdin is not None:
            self._watch(self._stdin.fileno(), selectors.EVENT_WRITE, self._write)

    def _watch(self, fd: int, event: int, act: Callable[[int], None]) -> None:
        os.set_blocking(fd, False)
        self._selector.register(fd, event, act)

    def until_ended(self, deadline: float) -> bool:
        """Return True when the leader has ended and its pipes are empty, False when the deadline passed."""
        while not self._has_ended():
            remaining_s = deadline - time.monotonic()
            if remaining_s <= 0:
                return False
            self._turn(remaining_s if self._tick_s is None else min(remaining_s, self._tick_s))
        # A background process may hold the pipes open for ever: take what is there, do not wait for their
        # end.
        while self._turn(0) and time.monotonic() < deadline:
            pass
        return True

    def _turn(self, wait_s: float) -> bool:
        """Do what the selector says; return whether any byte could be moved."""
        moved = False
        for key, _event in self._selector.select(wait_s):
            if key.data is not None:
                key.data(key.fd)
                moved = True
        return moved

    def _has_ended(self) -> bool:
        try:
            return os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        except ChildProcessError:
            self.status_lost = True
            return True

    def _read(self, fd: int, kept: bytearray) -> None:
        try:
            chunk = os.read(fd, _CHUNK_BYTES)
        except BlockingIOError:
            return
        if not chunk:
            self._selector.unregister(fd)
            return
        room = self._limit_bytes - len(kept)
        kept += chunk[: max(room, 0)]
        self.truncated = self.truncated or len(chunk) > room

    def _write(self, fd: int) -> None:
        try:
            self._pending = self._pending[os.write(fd, self._pending[:_CHUNK_BYTES]) :]
        except BlockingIOError:
            return
        except BrokenPipeError:
            self._pending = self._pending[:0]
        if not self._pending and self._stdin is not None:
            self._selector.unregister(fd)
            self._stdin.close()
