"""What every wall can do, as a protocol; a third party's wall is one more class that satisfies it.

Guarantees: nothing by itself. Does not: judge, release or record; a wall hands `RawResult` to the sandbox and nobody
else. May be called by: kavach.sandbox, kavach.aio, kavach.pool.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from kavach.credentials import Injection
    from kavach.model.command import Command
    from kavach.model.enforcement import Enforcement
    from kavach.model.result import RawResult, Usage


class Probe(NamedTuple):
    """What running the wall for once has shown.

    Args:
        backend: its name.
        available: whether it started and its controls were seen in force.
        version: of the runtime, empty where there is none.
        score: the strength that was observed, None where it did not start.
        reasons: why not, or what it lacks here.
        missing: what would have to be there.
    """

    backend: str
    available: bool
    version: str
    score: int | None
    reasons: tuple[str, ...]
    missing: tuple[str, ...]


class WallFacts(NamedTuple):
    """What can be looked at of a standing wall from outside.

    Args:
        init_pid: its first process, as this host numbers it.
        namespaces: those that it made: user, pid, mnt, ipc, uts, net, cgroup.
        has_filter: whether its commands are under a seccomp filter.
        groups: its cgroup folders.
        writable: folders that commands may write to, as they are called inside.
        open_workspace: returns a descriptor of the private workspace that the caller closes; None where there is none.
    """

    init_pid: int
    namespaces: frozenset[str]
    has_filter: bool
    groups: tuple[str, ...]
    writable: tuple[str, ...]
    open_workspace: Callable[[], int] | None


class Running(Protocol):
    """One command in a wall: wait on its descriptors, feed it what they have, take the ending."""

    inner_pid: int

    def descriptors(self) -> list[int]:
        """Return what to wait on for reading."""

    def wait_s(self, now_s: float) -> float | None:
        """Return how long to wait at most."""

    @property
    def is_finished(self) -> bool:
        """Whether the ending is known."""

    def ready(self, handle: int, now_s: float) -> None:
        """Take in what a descriptor has."""

    def tick(self, now_s: float) -> None:
        """Do what time demands."""

    def cancel(self, now_s: float) -> None:
        """End the command because the caller no longer waits for it."""

    def signal(self, number: int, *, group: bool) -> None:
        """Send a signal to the command or its process group."""

    def result(self) -> RawResult:
        """Return how it ended; closes everything."""


class Wall(Protocol):
    """One standing wall."""

    backend: str

    def build(self) -> None:
        """Build the wall; nothing untrusted runs."""

    def start(
        self,
        command: Command,
        *,
        injection: Injection | None,
        check: Callable[[Enforcement], None],
        stdin: int | None,
        on_chunk: Callable[[bool, bytes], None] | None,
    ) -> Running:
        """Observe the wall standing, let `check` refuse it, then let the command go."""

    def transfer(self, operation: tuple[bytes, ...], content: bytes | None) -> Running:
        """Do a file operation inside, with the command's own rights."""

    def prewarm(self) -> None:
        """Bring the next command as near to its start as the wall can; a wall that cannot does nothing."""

    def pause(self) -> None:
        """Freeze every process and confirm it."""

    def resume(self) -> None:
        """Continue every process."""

    def stop(self) -> None:
        """End every process; the files stay."""

    def destroy(self) -> None:
        """Leave nothing behind; idempotent."""

    def is_alive(self) -> bool:
        """Return whether the wall stands."""

    def usage(self) -> Usage:
        """Return what the whole sandbox has used."""

    def processes(self) -> tuple[int, ...]:
        """Return the processes that live in it, as this host numbers them."""

    def facts(self) -> WallFacts | None:
        """Return what can be looked at from outside; None where nothing of it stands on this host."""
