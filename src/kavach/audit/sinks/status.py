"""Events -> one small file of this process in a folder, which `kavach top` of the same user reads.

Guarantees: the file is there from the first event to `close`, mode 0600, replaced whole at most twice a second; it
names sandboxes, states and counts, nothing a command said. Does not: measure anything (`kavach top` does, from
outside), or choose the folder. May be called by: users, kavach.cli.
"""

from __future__ import annotations

import contextlib
import os
import stat
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self

import msgspec

from kavach.audit.events import topics
from kavach.audit.metrics import PROCESS
from kavach.errors import ConfigError
from kavach.linux.cgroup import read_start_time

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from kavach.audit.events.event import Event
    from kavach.audit.metrics import Counters

__all__ = ["STATUS_SCHEMA", "SandboxStatus", "StatusFile", "read_status_files"]

STATUS_SCHEMA = "kavach.status/1"
_PAUSE_S = 0.5  # between two writes; protects the disk from a host that runs a thousand commands a second
_MOST_BYTES = 16 << 20  # protects a reader from a file that is none of ours


class SandboxStatus(msgspec.Struct, kw_only=True):
    """What is known of one sandbox that is there.

    Args:
        id: its id.
        created_utc: since when it is known.
        state: its state.
        backend: its wall.
        policy: the preset that its policy started from.
        agent_id: its agent, or None.
        labels: its labels.
        pid: its first process as the host numbers it, None before it is started.
        score: the strength last observed, or None.
        commands: ended.
        failures: ended otherwise than by exit code 0.
        withheld: kept back by the gate.
        last_reason: what ended the last command.
    """

    id: str
    created_utc: str
    state: str = ""
    backend: str = ""
    policy: str = ""
    agent_id: str | None = None
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    pid: int | None = None
    score: int | None = None
    commands: int = 0
    failures: int = 0
    withheld: int = 0
    last_reason: str | None = None


class HostStatus(msgspec.Struct, kw_only=True):
    """What one process has told: who it is, its sandboxes, its counts."""

    schema: str
    pid: int
    start_time: int
    written_utc: str
    process: dict[str, Any]
    sandboxes: list[SandboxStatus]


class StatusFile:
    """Keeps the file of this process up to date: `bus.subscribe("#", StatusFile(folder))`.

    Args:
        folder: made with mode 0700 where it is not there.
        counters: the process's counts.
        pause_s: between two writes.

    Raises:
        ConfigError: the folder cannot be made, or others than its owner may write to it.
    """

    def __init__(
        self, folder: str | os.PathLike[str], *, counters: Counters = PROCESS, pause_s: float = _PAUSE_S
    ) -> None:
        self._folder = os.fspath(folder)
        _require_private(self._folder)
        self._counters = counters
        self._pause_s = pause_s
        self._start_time = read_start_time("/proc", "self") or 0
        self.path: str = os.path.join(self._folder, f"{os.getpid()}-{self._start_time}.json")
        self._lock = threading.Lock()
        self._rows: dict[str, SandboxStatus] = {}
        self._news, self._closed = threading.Event(), threading.Event()
        #: How many writes failed.
        self.dropped: int = 0
        self._thread = threading.Thread(target=self._work, name="kavach-status", daemon=True)
        self._thread.start()

    def __call__(self, event: Event) -> None:
        """Take one event in; the file follows within half a second."""
        act = _ACTS.get(event.kind)
        if act is None:
            return
        with self._lock:
            row = self._rows.get(event.sandbox_id)
            if row is None:
                row = SandboxStatus(id=event.sandbox_id, created_utc=event.time_utc, labels=event.labels)
                row.agent_id = event.agent_id
                self._rows[event.sandbox_id] = row
            act(row, event.payload)
            if event.kind == topics.DESTROYED:
                del self._rows[event.sandbox_id]
        self._news.set()

    def close(self) -> None:
        """Remove the file; idempotent."""
        self._closed.set()
        self._news.set()
        self._thread.join()
        with contextlib.suppress(OSError):
            os.unlink(self.path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _work(self) -> None:
        while not self._closed.is_set():
            self._news.wait()
            self._news.clear()
            try:
                self._write()
            except OSError:  # a full disk; the next event tries again
                self.dropped += 1
            self._closed.wait(self._pause_s)

    def _write(self) -> None:
        with self._lock:
            status = HostStatus(
                schema=STATUS_SCHEMA,
                pid=os.getpid(),
                start_time=self._start_time,
                written_utc=datetime.now(UTC).isoformat(timespec="milliseconds"),
                process=self._counters.snapshot().to_dict(),
                sandboxes=list(self._rows.values()),
            )
            content = msgspec.json.encode(status)
        fresh = f"{self.path}.new"
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.write(handle, content)
        finally:
            os.close(handle)
        os.rename(fresh, self.path)


def read_status_files(folder: str) -> list[HostStatus]:
    """Return what the living processes of this user have told, the oldest first; leftovers of dead ones are removed.

    Raises:
        ConfigError: others than its owner may write to the folder.
    """
    if not os.path.lexists(folder):
        return []
    _require_private(folder)
    found = []
    for name in sorted(os.listdir(folder)):
        path = os.path.join(folder, name)
        status = _read(path) if name.endswith(".json") else None
        if status is None:
            continue
        if read_start_time("/proc", status.pid) == status.start_time:
            found.append(status)
        else:
            with contextlib.suppress(OSError):
                os.unlink(path)
    return sorted(found, key=lambda one: one.start_time)


def _read(path: str) -> HostStatus | None:
    try:
        with open(path, "rb") as file:
            return msgspec.json.decode(file.read(_MOST_BYTES), type=HostStatus)
    except (OSError, msgspec.DecodeError):  # gone meanwhile, or none of ours
        return None


def _require_private(folder: str) -> None:
    """Make the folder where it is not there, and refuse one that somebody else could plant files in."""
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        seen = os.lstat(folder)
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be made: {error.strerror}", key="folder", source=folder) from error
    if not stat.S_ISDIR(seen.st_mode) or seen.st_uid != os.geteuid() or seen.st_mode & 0o022:
        raise ConfigError(
            f"{folder}: expected a folder of the caller's own that nobody else may write to",
            key="folder",
            source=folder,
        )


def _enter(row: SandboxStatus, payload: dict[str, Any]) -> None:
    row.state = str(payload.get("state", row.state))
    row.backend = str(payload.get("backend", row.backend))
    row.policy = str(payload.get("policy", row.policy))
    row.pid = payload.get("pid", row.pid)


def _degrade(row: SandboxStatus, payload: dict[str, Any]) -> None:
    row.score = payload.get("score", row.score)


def _end(row: SandboxStatus, payload: dict[str, Any]) -> None:
    row.commands += 1
    row.failures += (payload.get("reason"), payload.get("exit_code")) != ("exit", 0)
    row.withheld += payload.get("reason") == "withheld"
    row.last_reason = payload.get("reason")
    row.score = payload.get("score", row.score)


_LIFE = (topics.CREATED, topics.STARTED, topics.PAUSED, topics.RESUMED, topics.STOPPED, topics.DESTROYED)
_ACTS: dict[str, Callable[[SandboxStatus, dict[str, Any]], None]] = {
    **dict.fromkeys(_LIFE, _enter),
    topics.POLICY_DEGRADED: _degrade,
    topics.EXEC: _end,
}
