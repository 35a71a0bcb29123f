"""The wall that is none and runs nothing, for planning and for tests of the code around a wall.

Guarantees: no process is ever started. Does not: isolate, and therefore must be asked for by name. May be called by:
kavach.backends.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from kavach.errors import UnsupportedError
from kavach.model.enforcement import Enforcement
from kavach.model.result import EndReason, RawResult, Usage

if TYPE_CHECKING:
    from collections.abc import Callable

    from kavach.credentials import Injection
    from kavach.model.command import Command
    from kavach.model.config import SandboxConfig
    from kavach.model.policy import SandboxPolicy


class UnsafeNoop:
    """A wall by name only."""

    backend = "noop"

    def __init__(self, config: SandboxConfig, policy: SandboxPolicy, sandbox_id: str) -> None:
        del config, policy, sandbox_id
        self._built = False

    def build(self) -> None:
        """Build nothing."""
        self._built = True

    def start(
        self,
        command: Command,
        *,
        injection: Injection | None,
        check: Callable[[Enforcement], None],
        stdin: int | None,
        on_chunk: Callable[[bool, bytes], None] | None,
    ) -> _NothingRan:
        """Run nothing; a command that somebody waits on (spawn) is refused."""
        del command, injection, stdin
        if on_chunk is not None:
            raise UnsupportedError("noop runs nothing, so there is nothing to spawn or stream", control="spawn")
        enforcement = Enforcement.of("noop", ())
        check(enforcement)
        return _NothingRan(enforcement)

    def transfer(self, operation: tuple[bytes, ...], content: bytes | None) -> _NothingRan:
        """Refuse: there are no files."""
        del operation, content
        raise UnsupportedError("noop has no files", control="files")

    def prewarm(self) -> None:
        """Keep nothing warm."""

    def pause(self) -> None:
        """Pause nothing."""

    def resume(self) -> None:
        """Resume nothing."""

    def stop(self) -> None:
        """Stop nothing."""

    def destroy(self) -> None:
        """Destroy nothing; idempotent."""
        self._built = False

    def is_alive(self) -> bool:
        """Return whether it was built and not destroyed."""
        return self._built

    def usage(self) -> Usage:
        """Return that nothing was measured."""
        return Usage()

    def facts(self) -> None:
        """Nothing of it can be looked at."""

    def processes(self) -> tuple[int, ...]:
        """Return no process."""
        return ()


class _NothingRan:
    """The end of a command that never began."""

    inner_pid = 0
    is_finished = True

    def __init__(self, enforcement: Enforcement) -> None:
        self._enforcement = enforcement
        self._started_s = time.monotonic()

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
        """Return that nothing was run."""
        return RawResult(reason=EndReason.NOT_RUN, exit_code=0, enforcement=self._enforcement)
