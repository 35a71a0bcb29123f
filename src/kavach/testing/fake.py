"""A wall that plays five programs in memory, for tests of the code around a wall; verified by `WallContract`.

Guarantees: no process is started and no file touched. Does not: isolate; it says so, with an empty `Enforcement`. May
be called by: tests, by `load_backend` under the name it was registered with.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from typing import TYPE_CHECKING

from kavach.errors import BackendError
from kavach.model.enforcement import Enforcement
from kavach.model.result import EndReason, RawResult, Usage

if TYPE_CHECKING:
    from collections.abc import Callable

    from kavach.credentials import Injection
    from kavach.model.command import Command
    from kavach.model.config import SandboxConfig
    from kavach.model.policy import SandboxPolicy

_CHUNK_BYTES = 1 << 16
_FIRST_PID = 2


class FakeWall:
    """`true`, `false`, `echo WORDS`, `cat` and `sleep SECONDS`; files in a dictionary."""

    backend: str = "fake"

    def __init__(self, config: SandboxConfig, policy: SandboxPolicy, sandbox_id: str) -> None:
        del policy, sandbox_id
        self.backend = config.backend
        self._is_built = False
        self._is_paused = False
        self._next_pid = _FIRST_PID
        self._runs: dict[int, FakeRun] = {}
        self._files: dict[bytes, bytes | None] = {b"/workspace": None}

    def build(self) -> None:
        """Stand."""
        self._is_built = True

    def start(
        self,
        command: Command,
        *,
        injection: Injection | None,
        check: Callable[[Enforcement], None],
        stdin: int | None,
        on_chunk: Callable[[bool, bytes], None] | None,
    ) -> FakeRun:
        """Play one of the five programs.

        Raises:
            BackendError: the wall does not stand.
        """
        del injection
        if not self._is_built:
            raise BackendError("the wall does not stand", runtime=self.backend)
        enforcement = Enforcement.of(self.backend, ())
        check(enforcement)
        run = FakeRun(self._next_pid, command, enforcement, None if stdin is None else os.dup(stdin), on_chunk)
        self._runs[run.inner_pid] = run
        self._next_pid += 1
        return run

    def transfer(self, operation: tuple[bytes, ...], content: bytes | None) -> FakeEnd:
        """Do a file operation on the dictionary."""
        verb, path, *more = operation
        try:
            output = _OPERATIONS[verb](self._files, path, content, more)
        except OSError as error:
            stderr = f"kavach: {verb.decode()}: {os.strerror(error.errno or errno.EIO)}\n".encode()
            return FakeEnd(RawResult(reason=EndReason.EXIT, exit_code=1, stderr=stderr))
        return FakeEnd(RawResult(reason=EndReason.EXIT, exit_code=0, stdout=output))

    def prewarm(self) -> None:
        """Do nothing: nothing can be nearer to its start."""

    def pause(self) -> None:
        """Stand still."""
        self._is_paused = True

    def resume(self) -> None:
        """Go on."""
        self._is_paused = False

    def stop(self) -> None:
        """End every program."""
        for run in self._runs.values():
            run.signal(signal.SIGKILL, group=True)

    def destroy(self) -> None:
        """Forget everything; idempotent."""
        self.stop()
        self._is_built = False
        self._files.clear()

    def is_alive(self) -> bool:
        """Return whether it stands."""
        return self._is_built

    def usage(self) -> Usage:
        """Return that nothing was measured."""
        return Usage()

    def facts(self) -> None:
        """Nothing of it can be looked at."""

    def processes(self) -> tuple[int, ...]:
        """Return the programs that have not ended."""
        return tuple(pid for pid, run in self._runs.items() if not run.is_finished)


class FakeEnd:
    """Something that has ended already."""

    inner_pid = 0
    is_finished = True

    def __init__(self, raw: RawResult) -> None:
        self._raw = raw

    def descriptors(self) -> list[int]:
        """Return nothing to wait on."""
        return []

    def wait_s(self, now_s: float) -> float | None:
        """Return that there is nothing to wait for."""
        del now_s
        return 0.0

    def ready(self, handle: int, now_s: float) -> None:
        """Take in nothing."""

    def tick(self, now_s: float) -> None:
        """Do nothing."""

    def cancel(self, now_s: float) -> None:
        """Cancel nothing."""

    def signal(self, number: int, *, group: bool) -> None:
        """Signal nothing."""

    def result(self) -> RawResult:
        """Return the ending."""
        return self._raw


class FakeRun:
    """One program being played."""

    def __init__(
        self,
        pid: int,
        command: Command,
        enforcement: Enforcement,
        stdin: int | None,
        on_chunk: Callable[[bool, bytes], None] | None,
    ) -> None:
        self.inner_pid = pid
        self._enforcement = enforcement
        self._stdin = stdin
        self._on_chunk = on_chunk
        self._output: list[bytes] = []
        self._error = b""
        self._ending: tuple[EndReason, int | None, int | None] | None = None
        self._started_s = time.monotonic()
        self._ended_s = self._started_s
        self._deadline_s = None if command.timeout_ms is None else self._started_s + command.timeout_ms / 1000
        self._wakes_s: float | None = None
        self._begin(os.fsdecode(command.argv[0]), command.argv[1:], command.stdin)

    def _begin(self, name: str, words: tuple[bytes, ...], content: bytes | None) -> None:
        if name == "sleep":
            self._wakes_s = self._started_s + float(words[0])
        elif name == "cat" and self._stdin is not None:
            os.set_blocking(self._stdin, False)
        elif name in {"true", "false", "echo", "cat"}:
            output = {"echo": b" ".join(words) + b"\n", "cat": content or b""}.get(name, b"")
            if output:
                self._emit(output)
            self._end(EndReason.EXIT, code=int(name == "false"))
        else:
            self._error = b"kavach: command not found\n"
            self._end(EndReason.EXIT, code=127)

    def _emit(self, chunk: bytes) -> None:
        self._output.append(chunk)
        if self._on_chunk is not None:
            self._on_chunk(False, chunk)  # noqa: FBT003 - the form a wall calls back in

    def _end(self, reason: EndReason, *, code: int | None = None, number: int | None = None) -> None:
        if self._ending is None:
            self._ending = (reason, code, number)
            self._ended_s = time.monotonic()
            if self._stdin is not None:
                os.close(self._stdin)
                self._stdin = None

    @property
    def is_finished(self) -> bool:
        """Whether the ending is known."""
        return self._ending is not None

    def descriptors(self) -> list[int]:
        """Return the input, while `cat` reads it."""
        return [] if self._stdin is None or self._wakes_s is not None else [self._stdin]

    def wait_s(self, now_s: float) -> float | None:
        """Return how long to wait at most; short, for nothing else tells of a signal."""
        times = [at for at in (self._wakes_s, self._deadline_s) if at is not None]
        return min(0.01, *(max(0.0, at - now_s) for at in times)) if times else 0.01

    def ready(self, handle: int, now_s: float) -> None:
        """Copy what the input has."""
        del now_s
        if handle != self._stdin:
            return
        chunk = os.read(handle, _CHUNK_BYTES)
        if chunk:
            self._emit(chunk)
        else:
            self._end(EndReason.EXIT, code=0)

    def tick(self, now_s: float) -> None:
        """Wake up, or be too late."""
        if self._deadline_s is not None and now_s >= self._deadline_s:
            self._end(EndReason.TIMEOUT, number=signal.SIGKILL)
        elif self._wakes_s is not None and now_s >= self._wakes_s:
            self._end(EndReason.EXIT, code=0)

    def cancel(self, now_s: float) -> None:
        """End the program because nobody waits for it."""
        del now_s
        self._end(EndReason.POLICY_KILL, number=signal.SIGKILL)

    def signal(self, number: int, *, group: bool) -> None:
        """End the program by a signal."""
        del group
        self._end(EndReason.SIGNAL, number=number)

    def result(self) -> RawResult:
        """Return how it ended."""
        self._end(EndReason.POLICY_KILL, number=signal.SIGKILL)
        assert self._ending is not None  # noqa: S101 - the line above has set it
        reason, code, number = self._ending
        return RawResult(
            reason=reason,
            exit_code=code,
            signal=number,
            stdout=b"".join(self._output),
            stderr=self._error,
            duration_ms=(self._ended_s - self._started_s) * 1000,
            enforcement=self._enforcement,
        )


_Files = dict[bytes, "bytes | None"]  # None = a folder


def _write(files: _Files, path: bytes, content: bytes | None, more: list[bytes]) -> bytes:
    del more
    _require_folder(files, os.path.dirname(path))
    files[path] = content or b""
    return b""


def _read(files: _Files, path: bytes, content: bytes | None, more: list[bytes]) -> bytes:
    del content, more
    if path not in files:
        raise FileNotFoundError(errno.ENOENT, "")
    found = files[path]
    if found is None:
        raise IsADirectoryError(errno.EISDIR, "")
    return found


def _list(files: _Files, path: bytes, content: bytes | None, more: list[bytes]) -> bytes:
    del content, more
    _require_folder(files, path)
    inside = sorted(name for name in files if os.path.dirname(name) == path)
    return b"".join(_record(os.path.basename(name), files[name]) for name in inside)


def _record(name: bytes, content: bytes | None) -> bytes:
    return b"folder 0 755 %s\0" % name if content is None else b"file %d 644 %s\0" % (len(content), name)


def _make_folder(files: _Files, path: bytes, content: bytes | None, more: list[bytes]) -> bytes:
    del content, more
    _require_folder(files, os.path.dirname(path))
    if path in files:
        raise FileExistsError(errno.EEXIST, "")
    files[path] = None
    return b""


def _remove(files: _Files, path: bytes, content: bytes | None, more: list[bytes]) -> bytes:
    del content, more
    if path not in files:
        raise FileNotFoundError(errno.ENOENT, "")
    if any(os.path.dirname(name) == path for name in files):
        raise OSError(errno.ENOTEMPTY, "")
    del files[path]
    return b""


def _require_folder(files: _Files, path: bytes) -> None:
    if path not in files:
        raise FileNotFoundError(errno.ENOENT, "")
    if files[path] is not None:
        raise NotADirectoryError(errno.ENOTDIR, "")


_OPERATIONS: dict[bytes, Callable[[_Files, bytes, bytes | None, list[bytes]], bytes]] = {
    b"write": _write,
    b"read": _read,
    b"list": _list,
    b"make_folder": _make_folder,
    b"remove": _remove,
}
