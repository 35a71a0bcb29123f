"""A spawned command under asyncio or trio: its handle, until the sandbox is destroyed.

Guarantees: a task of the event loop drains the output and keeps the deadline, whether or not anybody waits or reads;
the ending is kept; when the event loop ends first, the command is ended. Does not: use a thread while it runs. May be
called by: kavach.aio.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING

import anyio

from kavach.aio.calls import in_thread
from kavach.aio.drive import drive
from kavach.errors import ConfigError, KavachError
from kavach.model.command import milliseconds
from kavach.process import Chunk

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from kavach.backends.base import Running
    from kavach.model.result import ExecResult
    from kavach.sandbox import Sandbox
    from kavach.sandbox.passage import Passage, Released

_tasks: set[asyncio.Task[None]] = set()  # asyncio itself holds its tasks weakly


class AsyncInput:
    """The writable end of a command's standard input."""

    def __init__(self, handle: int) -> None:
        self._handle = handle
        os.set_blocking(handle, False)
        self._lock = anyio.Lock()

    async def write(self, content: bytes) -> int:
        """Write all bytes, waiting for the command to read.

        Returns:
            How many bytes were written: all of them.

        Raises:
            ConfigError: not bytes, or the input is closed.
            BrokenPipeError: the command no longer reads.
        """
        if not isinstance(content, bytes | bytearray | memoryview):
            raise ConfigError(f"stdin: expected bytes, got {type(content).__name__}", key="stdin")
        async with self._lock:
            if self._handle < 0:
                raise ConfigError("stdin: it is closed", key="stdin")
            view = memoryview(content).cast("B")
            while view:
                view = view[await self._write_some(view) :]
        return len(memoryview(content).cast("B"))

    async def _write_some(self, view: memoryview) -> int:
        try:
            return os.write(self._handle, view) if self._handle >= 0 else _broken()
        except BlockingIOError:
            with contextlib.suppress(anyio.ClosedResourceError):
                await anyio.wait_writable(self._handle)
            return 0

    def close(self) -> None:
        """Let the command see the end of its input; idempotent."""
        if self._handle >= 0:
            handle, self._handle = self._handle, -1
            # Outside of an event loop nobody can be waiting.
            with contextlib.suppress(RuntimeError):
                anyio.notify_closing(handle)
            os.close(handle)


def _broken() -> int:
    raise BrokenPipeError("the input was closed while it was written to")


class AsyncProcess:
    """A command that runs in the background of a sandbox."""

    def __init__(self, sandbox: Sandbox, stdin: AsyncInput, take: Taking, running: Running) -> None:
        self._sandbox = sandbox
        self._take = take
        take.on_withheld = self.kill
        self._running = running
        self._done = anyio.Event()
        self._error: BaseException | None = None
        self._result: ExecResult | None = None
        self._started_s = time.monotonic()
        self._ended_s: float | None = None
        self.stdin = stdin
        #: The command's pid inside the sandbox.
        self.pid: int = running.inner_pid
        if take.passage.withheld is not None:  # by what came before `on_withheld` was there
            self.kill()
        _start_task(self._pump)

    async def _pump(self) -> None:
        passage = self._take.passage
        try:
            with passage:
                raw = await drive(self._running)
                self._take.finish()
                self._result = await in_thread(partial(passage.conclude, raw))
        except Exception as error:  # noqa: BLE001 - kept for whoever waits; a task of its own has nobody to raise to
            self._error = error
        except BaseException:
            self._error = KavachError(f"command {self.pid} was ended because its event loop has ended")
            raise
        finally:
            self._ended_s = time.monotonic()
            self.stdin.close()
            self._done.set()
            self._take.end()

    async def wait(self, timeout_s: float | None = None) -> ExecResult:
        """Return the command's result when it has ended.

        Args:
            timeout_s: how long to wait; None = until it ends. The command is not ended by it.

        Raises:
            TimeoutError: it still runs.
            KavachError: the sandbox failed.
        """
        milliseconds(timeout_s)
        with anyio.move_on_after(timeout_s):
            await self._done.wait()
        result = self.poll()
        if result is None:
            raise TimeoutError(f"command {self.pid} still runs after {timeout_s} s")
        return result

    def poll(self) -> ExecResult | None:
        """Return the result, or None while the command runs.

        Raises:
            KavachError: the sandbox failed.
        """
        if not self._done.is_set():
            return None
        if self._error is not None:
            raise self._error
        return self._result

    def send_signal(self, number: int) -> None:
        """Send a signal to the command itself; one that has ended gets none.

        Raises:
            ConfigError: not a signal's number.
        """
        if isinstance(number, bool) or not isinstance(number, int) or number not in signal.valid_signals():
            raise ConfigError(f"signal: expected a signal's number, got {number!r}", key="signal")
        self._signal(number, group=False)

    async def terminate(self, grace_s: float = 5.0) -> ExecResult:
        """Ask the command's process group to end (SIGTERM), kill it after `grace_s`, return the result."""
        milliseconds(grace_s, key="grace_s")
        self._signal(signal.SIGTERM, group=True)
        with anyio.move_on_after(grace_s):
            await self._done.wait()
        self.kill()
        return await self.wait()

    def kill(self) -> None:
        """Kill the command's process group; returns at once."""
        self._signal(signal.SIGKILL, group=True)

    def _signal(self, number: int, *, group: bool) -> None:
        if not self._done.is_set():
            with contextlib.suppress(KavachError):
                self._running.signal(number, group=group)

    def close_stdin(self) -> None:
        """Let the command see the end of its input; idempotent."""
        self.stdin.close()

    async def stream(self) -> AsyncIterator[Chunk]:
        """Yield released output as it comes, until the command has ended; each chunk goes to one reader.

        Raises:
            Withheld: nothing more of it may leave; the command has been ended.
        """
        while (chunk := await self.next_chunk()) is not None:
            yield chunk

    async def next_chunk(self) -> Chunk | None:
        """Return some released output as soon as there is any, None when there will be no more.

        Raises:
            Withheld: nothing more of it may leave; the command has been ended.
        """
        return await self._take.next()

    @property
    def elapsed_ms(self) -> float:
        """Milliseconds since its start, up to its end."""
        return ((self._ended_s or time.monotonic()) - self._started_s) * 1000

    def __repr__(self) -> str:
        return f"<AsyncProcess {self.pid} in {self._sandbox.id} {'ended' if self._done.is_set() else 'running'}>"


class Taking:
    """Released chunks on their way from the pump to the readers."""

    def __init__(self, passage: Passage) -> None:
        self.passage = passage
        self.on_withheld: Callable[[], None] | None = None
        self._chunks: deque[Chunk] = deque()
        self._news = anyio.Event()
        self._is_over = False

    def take(self, is_error: bool, content: bytes) -> None:  # noqa: FBT001 - the form a wall calls back in
        """Queue what may be seen of a chunk."""
        self._put(self.passage.pass_on(content, is_error=is_error))
        if self.passage.withheld is not None and self.on_withheld is not None:
            self.on_withheld()

    def finish(self) -> None:
        """Queue what had to wait for the end of the output."""
        self._put(self.passage.pass_rest())

    def _put(self, released: Released) -> None:
        for is_error, content in released:
            if content:
                self._chunks.append(Chunk(content, "stderr" if is_error else "stdout"))
                self._wake()

    def end(self) -> None:
        """Let every reader end when the queue is empty."""
        self._is_over = True
        self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news = anyio.Event()

    async def next(self) -> Chunk | None:
        """Return one chunk, None when there will be no more; raise what withholds the rest."""
        while not self._chunks:
            if self._is_over:
                if self.passage.withheld is not None:
                    raise self.passage.withheld
                return None
            await self._news.wait()
        return self._chunks.popleft()


def _start_task(act: Callable[[], Awaitable[None]]) -> None:
    """Let `act` run beside the caller for as long as the event loop lives."""
    trio = sys.modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_task():
        trio.lowlevel.spawn_system_task(act)
        return
    task: asyncio.Task[None] = asyncio.get_running_loop().create_task(act())  # type: ignore[arg-type]  # an async def
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)
