"""A spawned command: its handle, from any thread, until the sandbox is destroyed.

Guarantees: output is drained and deadlines are kept by a thread of its own, whether or not anybody waits or reads; the
ending is kept. Does not: restart, or outlive the sandbox. May be called by: kavach.sandbox.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import queue
import select
import signal
import threading
import time
import weakref
from functools import partial
from typing import TYPE_CHECKING, Self

from kavach.errors import ConfigError, KavachError
from kavach.launcher.pump import drive
from kavach.model.command import milliseconds

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kavach.backends.base import Running
    from kavach.model.command import Command
    from kavach.model.result import ExecResult
    from kavach.sandbox import Sandbox
    from kavach.sandbox.passage import Released


_END_S = 2.0  # protects the end of the interpreter from a command that does not die
_PIPE_BYTES = 1 << 16  # pipe(7): the default capacity of a pipe
_RETRY_MS = 50  # how long a writer may keep the pipe open after `close`


class Chunk(bytes):
    """Some bytes of a command's output, as they were released.

    Attributes:
        stream: `stdout` or `stderr`.
    """

    stream: str

    def __new__(cls, content: bytes, stream: str) -> Self:
        """Return the bytes, marked with the stream they came from."""
        made = super().__new__(cls, content)
        made.stream = stream
        return made


class Input:
    """The writable end of a command's standard input."""

    def __init__(self, handle: int) -> None:
        os.set_blocking(handle, False)
        self._handle = handle
        self._lock = threading.Lock()
        self._writing = threading.Lock()

    def write(self, content: bytes) -> int:
        """Write all bytes, waiting for the command to read.

        Returns:
            How many bytes were written: all of them.

        Raises:
            ConfigError: not bytes, or the input is closed.
            BrokenPipeError: the command no longer reads.
        """
        if not isinstance(content, bytes | bytearray | memoryview):
            raise ConfigError(f"stdin: expected bytes, got {type(content).__name__}", key="stdin")
        with self._writing, memoryview(content).cast("B") as view:
            done = 0
            while done < len(view):
                done += self._write_some(view[done : done + _PIPE_BYTES])
            return done

    def _write_some(self, part: memoryview) -> int:
        """Write what the pipe takes now; else wait a moment and return 0."""
        # SECURITY: no lock is held while the command, which may never read, is waited for: `close` must not block.
        with self._lock:
            if self._handle < 0:
                raise ConfigError("stdin: it is closed", key="stdin")
            with contextlib.suppress(BlockingIOError):
                return os.write(self._handle, part)
            waiting = os.dup(self._handle)
        try:
            poll = select.poll()
            poll.register(waiting, select.POLLOUT)
            poll.poll(_RETRY_MS)
        finally:
            os.close(waiting)
        return 0

    def close(self) -> None:
        """Let the command see the end of its input; idempotent."""
        with self._lock:
            if self._handle >= 0:
                os.close(self._handle)
                self._handle = -1


class Process:
    """A command that runs in the background of a sandbox."""

    def __init__(self, sandbox: Sandbox, command: Command) -> None:
        self._sandbox = sandbox
        self._running: Running | None = None
        self._passage = sandbox.steps.enter(command)
        self._chunks: queue.SimpleQueue[Chunk | None] = queue.SimpleQueue()
        self._done = threading.Event()
        self._error: BaseException | None = None
        self._result: ExecResult | None = None
        self._started_s = time.monotonic()
        self._ended_s: float | None = None
        with self._passage:
            self._running = running = self._begin()
        #: The command's pid inside the sandbox.
        self.pid: int = running.inner_pid
        if self._passage.withheld is not None:  # by what came before there was anything to kill
            self.kill()
        work = partial(self._pump, running)
        self._thread = threading.Thread(target=work, name=f"kavach-{sandbox.id}-{self.pid}", daemon=True)
        self._thread.start()
        _running.add(self)

    def _begin(self) -> Running:
        reader, writer = os.pipe2(os.O_CLOEXEC)
        self.stdin: Input = Input(writer)
        try:
            return self._sandbox.begin(self._passage, stdin=reader, on_chunk=self._take)
        except BaseException:
            self.stdin.close()
            raise
        finally:
            os.close(reader)

    def _take(self, is_error: bool, content: bytes) -> None:  # noqa: FBT001 - the form a wall calls back in
        self._put(self._passage.pass_on(content, is_error=is_error))
        if self._passage.withheld is not None:
            self.kill()

    def _put(self, released: Released) -> None:
        for is_error, content in released:
            if content:
                self._chunks.put(Chunk(content, "stderr" if is_error else "stdout"))

    def _pump(self, running: Running) -> None:
        try:
            with self._passage:
                raw = drive(running)
                self._put(self._passage.pass_rest())
                self._result = self._passage.conclude(raw)
        except BaseException as error:  # noqa: BLE001 - kept for whoever waits; a thread has nobody to raise to
            self._error = error
        finally:
            self._ended_s = time.monotonic()
            self.stdin.close()
            self._chunks.put(None)
            self._done.set()

    def wait(self, timeout_s: float | None = None) -> ExecResult:
        """Return the command's result when it has ended.

        Args:
            timeout_s: how long to wait; None = until it ends. The command is not ended by it.

        Raises:
            TimeoutError: it still runs.
            KavachError: the sandbox failed.
        """
        milliseconds(timeout_s)
        if not self._done.wait(timeout_s):
            raise TimeoutError(f"command {self.pid} still runs after {timeout_s} s")
        if self._error is not None:
            raise self._error
        assert self._result is not None  # noqa: S101 - set before `done`
        return self._result

    def poll(self) -> ExecResult | None:
        """Return the result, or None while the command runs."""
        return self.wait() if self._done.is_set() else None

    def send_signal(self, number: int) -> None:
        """Send a signal to the command itself; one that has ended gets none.

        Raises:
            ConfigError: not a signal's number.
        """
        if isinstance(number, bool) or not isinstance(number, int) or number not in signal.valid_signals():
            raise ConfigError(f"signal: expected a signal's number, got {number!r}", key="signal")
        self._signal(number, group=False)

    def terminate(self, grace_s: float = 5.0) -> ExecResult:
        """Ask the command's process group to end (SIGTERM), kill it after `grace_s`, return the result."""
        milliseconds(grace_s, key="grace_s")
        self._signal(signal.SIGTERM, group=True)
        if not self._done.wait(grace_s):
            self.kill()
        return self.wait()

    def kill(self) -> None:
        """Kill the command's process group; returns at once."""
        self._signal(signal.SIGKILL, group=True)

    def _signal(self, number: int, *, group: bool) -> None:
        if not self._done.is_set() and self._running is not None:
            with contextlib.suppress(KavachError):
                self._running.signal(number, group=group)

    def close_stdin(self) -> None:
        """Let the command see the end of its input; idempotent."""
        self.stdin.close()

    def stream(self) -> Iterator[Chunk]:
        """Yield released output as it comes, until the command has ended; each chunk goes to one reader.

        Raises:
            Withheld: nothing more of it may leave; the command has been ended.
        """
        while (chunk := self._chunks.get()) is not None:
            yield chunk
        self._chunks.put(None)
        if self._passage.withheld is not None:
            raise self._passage.withheld

    @property
    def elapsed_ms(self) -> float:
        """Milliseconds since its start, up to its end."""
        return ((self._ended_s or time.monotonic()) - self._started_s) * 1000

    def __repr__(self) -> str:
        return f"<Process {self.pid} in {self._sandbox.id} {'ended' if self._done.is_set() else 'running'}>"

    def end_with_the_interpreter(self) -> None:
        """Kill the command and wait for the thread that reads it, which must not be inside a scanner then."""
        self.kill()
        self._thread.join(_END_S)


_running: weakref.WeakSet[Process] = weakref.WeakSet()


def _end_all() -> None:
    for process in list(_running):
        process.end_with_the_interpreter()


atexit.register(_end_all)
