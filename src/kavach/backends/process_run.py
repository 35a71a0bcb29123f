"""One command behind the process wall, from `go` to its `RawResult`.

Guarantees: stdin is a sealed, read-only copy or the caller's own descriptor; counters are compared before and after;
every descriptor is closed when `result` returns or raises. Does not: wait. May be called by: kavach.backends.process.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from typing import TYPE_CHECKING, cast

from kavach.errors import BackendError, ConfigError, LaunchError
from kavach.launcher import watchdog
from kavach.launcher.execution import Execution
from kavach.launcher.supervise import Counters, Supervision, judge_ending
from kavach.linux import memory
from kavach.model.result import EndReason, RawResult, Usage

if TYPE_CHECKING:
    from collections.abc import Callable

    from kavach.backends.process import ProcessWall
    from kavach.credentials import Injection
    from kavach.launcher.groups import Events, Leaf
    from kavach.launcher.lower import LaunchPlan
    from kavach.launcher.prepared import Prepared
    from kavach.model.command import Command
    from kavach.model.enforcement import Enforcement
    from kavach.model.policy import ResourceLimits

#: How a secret goes in: kind, target, mode, the sealed memfd that holds it.
SecretRow = tuple[str, str | int, int, int]
MAXIMUM_FILE_BYTES = 256 << 20  # protects the host's memory: a sparse file of any size costs the sandbox nothing
_SIGKILL = 9  # asm-generic/signal.h
_NOT_RUNNABLE, _NOT_FOUND = 126, 127  # POSIX, Shell Command Language 2.8.2
_BEFORE_EXECVE = {
    "cwd": "the working folder",
    "secrets": "a secret's place",
    "descriptors": "a descriptor's number",
}
_NOT_THERE = frozenset({errno.ENOENT, errno.ENOTDIR})


def make_message(
    command: Command, plan: LaunchPlan, extra: dict[str, str], injection: Injection | None
) -> tuple[tuple[object, ...], tuple[SecretRow, ...]]:
    """Return the late part of a command (argv, environment, cwd, secrets) and the secrets' descriptors."""
    workspace = plan.layout.workspace
    path = ":".join((*plan.layout.path, "/usr/local/bin", "/usr/bin", "/bin", "/usr/local/sbin", "/usr/sbin", "/sbin"))
    variables = {"PATH": path, "HOME": workspace, "LANG": "C.UTF-8", "TERM": "dumb", **extra, **command.env}
    if plan.layout.scratch is not None:
        variables.setdefault("TMPDIR", workspace)
    environment = tuple((os.fsencode(name), os.fsencode(value)) for name, value in variables.items())
    deliveries = injection.deliveries if injection is not None else ()
    rows = tuple((one.kind, one.target, one.mode, one.fd) for one in deliveries)
    return (command.argv, environment, inside(command.cwd, workspace)), rows


def inside(cwd: str | None, workspace: str) -> bytes:
    """Return what a path is called inside: /workspace, the default, is the sandbox's own folder under any name."""
    if cwd is None or cwd == "/workspace":
        return os.fsencode(workspace)
    if cwd.startswith("/workspace/"):
        return os.fsencode(workspace + cwd[len("/workspace") :])
    return os.fsencode(cwd)


class ProcessRun:
    """A running command; see `kavach.backends.base.Running`."""

    def __init__(
        self,
        wall: ProcessWall,
        prepared: Prepared,
        leaf: Leaf,
        enforcement: Enforcement,
        *,
        verb: bytes,
        message: tuple[object, ...],
        secrets: tuple[SecretRow, ...],
        timeout_ms: int | None,
        stdin: int | None,
        content: bytes | None,
        limits: ResourceLimits,
        unlimited: bool,
        on_chunk: Callable[[bool, bytes], None] | None,
        on_end: Callable[[], None] | None,
    ) -> None:
        self._on_end = on_end
        self.inner_pid: int = prepared.inner_pid
        self.outer_pid: int = prepared.pid
        self._wall = wall
        # Kept by the run itself: the sandbox may be destroyed, by another thread, while it is sampled.
        self._group = wall.group
        self._init_pid = wall.init_pid
        self._leaf = leaf
        self._enforcement = enforcement
        self._before = leaf.events()
        self._kills_before = wall.kills
        self._disk_full = False
        self._result: RawResult | None = None
        self._started_s = time.monotonic()
        course = _course(limits, self._started_s, timeout_ms, unlimited=unlimited)
        self._watch = None if unlimited else prepared.watch
        self._program = os.fsdecode(cast("tuple[bytes, ...]", message[0])[0])
        with contextlib.ExitStack() as undo, contextlib.ExitStack() as theirs:
            self._folder = os.dup(wall.folder) if wall.folder >= 0 else -1
            undo.callback(_close, self._folder)
            stdout, out = _pipe(undo, theirs)
            stderr, err = _pipe(undo, theirs)
            given = _stdin(content, stdin)
            theirs.callback(os.close, given)
            if self._watch is not None:
                self._watch.arm()
            _let_go(prepared, verb, message, secrets, (given, out, err))
            undo.pop_all()
        self.execution: Execution = Execution(
            prepared,
            course,
            stdout,
            stderr,
            kill=lambda: wall.kill_run(leaf),
            give_up=wall.give_up,
            sample=self._sample,
            on_chunk=on_chunk,
        )

    def descriptors(self) -> list[int]:
        """Return what to wait on for reading."""
        return self.execution.descriptors()

    def wait_s(self, now_s: float) -> float | None:
        """Return how long to wait at most."""
        return self.execution.wait_s(now_s)

    @property
    def is_finished(self) -> bool:
        """Whether the ending is known."""
        return self.execution.is_finished

    def ready(self, handle: int, now_s: float) -> None:
        """Take in what a descriptor has."""
        self.execution.ready(handle, now_s)

    def tick(self, now_s: float) -> None:
        """Do what time demands."""
        self.execution.tick(now_s)

    def cancel(self, now_s: float) -> None:
        """End the command because the caller no longer waits for it."""
        self.execution.end_by(EndReason.POLICY_KILL, now_s)

    def signal(self, number: int, *, group: bool) -> None:
        """Send a signal to the command, or to its process group."""
        self._wall.send_signal(self.inner_pid, number, group=group)

    def _sample(self, course: Supervision, now_s: float) -> bool:
        """Look at what has no descriptor: the tmpfs, the number of processes, memory that no cgroup counts."""
        self._disk_full = self._disk_full or _is_full(self._folder)
        group = self._group
        if group.needs_watchdog or (group.spec.max_pids is not None and self._before.pids_refused is None):
            found = watchdog.sample(
                self._init_pid,
                tmpfs_bytes=_used_bytes(self._folder),
                precise_above_bytes=group.spec.memory_bytes,
            )
            reached = watchdog.judge(found, group.spec)
            if "oom" in reached and course.end_by(EndReason.OOM, now_s):
                return True
            return course.at_process_limit(full="pids" in reached, now_s=now_s)
        usage = self._leaf.usage()
        full = None not in {usage.pids, group.spec.max_pids} and (usage.pids or 0) >= (group.spec.max_pids or 0)
        rose = (self._leaf.events().pids_refused or 0) > (self._before.pids_refused or 0)
        return course.at_process_limit(full=full and rose, now_s=now_s)

    def result(self) -> RawResult:
        """Return how it ended; closes everything. The same object every time.

        Raises:
            LaunchError: the command did not come to its start; nothing untrusted ran.
        """
        if self._result is None:
            duration_ms = (time.monotonic() - self._started_s) * 1000
            after, usage = self._leaf.events(), self._leaf.usage()
            self._disk_full = self._disk_full or _is_full(self._folder)
            self.execution.close()
            _close(self._folder)
            self._folder = -1
            self._leaf.remove()
            if self._on_end is not None:
                self._on_end()
            self._result = self._conclude(after, usage_of(self.execution.course, usage), duration_ms)
        if self.execution.course.not_started is not None:
            _require_started(*self.execution.course.not_started)
        return self._result

    def _conclude(self, after: Events, usage: Usage, duration_ms: float) -> RawResult:
        course = self.execution.course
        counters = Counters(
            oom=_rise(self._before.oom_kills, after.oom_kills),
            pids=_rise(self._before.pids_refused, after.pids_refused),
            disk_full=self._disk_full,
        )
        reason, code, number, hit = judge_ending(course, counters)
        if reason is EndReason.SIGNAL and number == _SIGKILL and self._wall.kills > self._kills_before:
            reason = EndReason.TIMEOUT_SIBLING
        stderr = course.stderr.content()
        if course.not_started is not None:
            reason, code, line = _not_started(*course.not_started)
            stderr += line
            if self._watch is not None and code == _NOT_FOUND:
                self._watch.not_found(self._program)
        return RawResult(
            reason=reason,
            exit_code=code,
            signal=number,
            stdout=course.stdout.content(),
            stderr=stderr,
            stdout_dropped_bytes=course.stdout.dropped,
            stderr_dropped_bytes=course.stderr.dropped,
            duration_ms=duration_ms,
            usage=usage,
            enforcement=self._enforcement,
            limits_hit=hit,
            denials=() if self._watch is None else self._watch.denials(),
        )


def _course(limits: ResourceLimits, started_s: float, timeout_ms: int | None, *, unlimited: bool) -> Supervision:
    return Supervision(
        started_s=started_s,
        timeout_s=None if timeout_ms is None else timeout_ms / 1000,
        output_bytes=MAXIMUM_FILE_BYTES if unlimited else limits.output_bytes,
        kill_on_output=unlimited or limits.output_action == "kill",
    )


def usage_of(course: Supervision, counted: object) -> Usage:
    """Return the command's own usage: processor time from its wait status, the rest from its group."""
    ended = course.ended
    cpu = None if ended is None else (ended.user_us + ended.system_us) / 1000
    peak = getattr(counted, "memory_peak_bytes", None)
    if peak is None and ended is not None:
        peak = ended.peak_bytes
    return Usage(
        cpu_time_ms=cpu,
        memory_peak_bytes=peak,
        pids_peak=getattr(counted, "pids_peak", None),
        io_read_bytes=getattr(counted, "io_read_bytes", None),
        io_write_bytes=getattr(counted, "io_write_bytes", None),
    )


def _require_started(stage: str, code: int) -> None:
    """Return where execve itself, or a file operation, was refused: that is a result.

    Raises:
        LaunchError: something before it was; nothing untrusted ran.
    """
    if stage in _BEFORE_EXECVE:
        words = f"{_BEFORE_EXECVE[stage]} cannot be had inside: {os.strerror(code)}; nothing was run"
        raise LaunchError(words, step=stage, errno=code)


def _not_started(stage: str, code: int) -> tuple[EndReason, int, bytes]:
    if stage == "execve":
        status = _NOT_FOUND if code in _NOT_THERE else _NOT_RUNNABLE
        word = "not found" if status == _NOT_FOUND else f"cannot be run: {os.strerror(code)}"
        return EndReason.EXIT, status, f"kavach: command {word}\n".encode()
    return EndReason.EXIT, _NOT_RUNNABLE, f"kavach: {stage}: {os.strerror(code)}\n".encode()


def _let_go(
    prepared: Prepared,
    verb: bytes,
    message: tuple[object, ...],
    secrets: tuple[SecretRow, ...],
    streams: tuple[int, int, int],
) -> None:
    """Send `go`: descriptors by index, which of them becomes which number, and which hold secrets."""
    argv, environment, cwd = message[:3]
    handles = list(streams)
    numbers = {0: 0, 1: 1, 2: 2}
    variables, files = [], []
    for kind, target, mode, handle in secrets:
        index = len(handles)
        handles.append(handle)
        if kind == "env":
            variables.append((os.fsencode(str(target)), index))
        elif kind == "file":
            files.append((os.fsencode(str(target)), mode, index))
        else:
            numbers[int(str(target))] = index
    try:
        prepared.go(
            (verb, argv, environment, cwd, tuple(numbers.items()), tuple(variables), tuple(files)),
            tuple(handles),
        )
    except ValueError as error:
        raise ConfigError(
            f"argv, env and secrets are together more than a command can be given ({error}); nothing was run",
            key="argv",
        ) from None
    except OSError as error:
        raise BackendError("the command child ended before it was let go", runtime="process") from error


def _pipe(undo: contextlib.ExitStack, theirs: contextlib.ExitStack) -> tuple[int, int]:
    """Return (read end, non-blocking; write end); the one is closed if the block fails, the other in any case."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    undo.callback(os.close, reader)
    theirs.callback(os.close, writer)
    os.set_blocking(reader, False)
    return reader, writer


def _stdin(content: bytes | None, given: int | None) -> int:
    """Return a descriptor for the command's input: the caller's, a sealed copy of bytes, or the null device."""
    if given is not None:
        return os.dup(given)
    if not content:
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    copy = memory.create_memory("kavach-stdin")
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(copy, view) :]
        memory.seal(copy)
        return os.open(f"/proc/self/fd/{copy}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(copy)


def _close(handle: int) -> None:
    if handle >= 0:
        os.close(handle)


def _rise(before: int | None, after: int | None) -> int | None:
    return None if before is None or after is None else max(0, after - before)


def _is_full(folder: int) -> bool:
    """Return whether a file system has no block or no inode left for the command."""
    if folder < 0:
        return False
    found = os.fstatvfs(folder)
    return (found.f_blocks > 0 and found.f_bavail == 0) or (found.f_files > 0 and found.f_favail == 0)


def _used_bytes(folder: int) -> int:
    if folder < 0:
        return 0
    found = os.fstatvfs(folder)
    return (found.f_blocks - found.f_bfree) * found.f_frsize
