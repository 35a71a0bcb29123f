"""What is looked at before a command runs and after it ran, and what happens when something trips.

Enforces: types and bounds when it is validated. Does not: look (`kavach.gate.guards` does), and gives no points: a
guard is advice and a tripwire, no wall. May be used by: everybody.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Annotated, Literal

from msgspec import Meta

from kavach.model.validate import Model

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["GuardKind", "GuardPolicy", "GuardTrip"]

Path = Annotated[str, Meta(min_length=1, max_length=4096)]


class GuardKind(enum.StrEnum):
    """What can trip."""

    COMMAND = "command"  # an executable on the block-list
    SENSITIVE_PATH = "sensitive_path"
    METACHARACTERS = "metacharacters"
    FORK_BOMB = "fork_bomb"
    TIME_ANOMALY = "time_anomaly"
    OUTPUT_FLOOD = "output_flood"


class GuardTrip(Model, frozen=True, kw_only=True):
    """One guard that tripped; safe to print, store and audit.

    Args:
        kind: which guard.
        message: one sentence, without an argument of the command.
    """

    kind: GuardKind
    message: str


class GuardPolicy(Model, frozen=True, kw_only=True):
    """Which guards stand, and what they do.

    Args:
        action: `report` lets a command run and says what tripped; `refuse` lets none run for which something tripped
            before it began.
        blocked_commands: executables: an absolute path, or a file's name wherever it lies. Compared with what the
            words resolve to, not with the words.
        sensitive_paths: absolute paths, each with all below it, besides those that hold secrets everywhere.
        metacharacters: look for what a shell would act on in the arguments of programs that are no shell.
        expected_ms: how long a command should take; it trips above twice that. None = unknown.
    """

    action: Literal["report", "refuse"] = "report"
    blocked_commands: tuple[Path, ...] = ()
    sensitive_paths: tuple[Path, ...] = ()
    metacharacters: bool = True
    expected_ms: Annotated[int, Meta(ge=1, le=315_360_000_000)] | None = None

    def problems(self) -> Iterator[tuple[str, str]]:
        """Yield paths that would never match."""
        for number, path in enumerate(self.blocked_commands):
            if "/" in path and not path.startswith("/"):
                yield f".blocked_commands[{number}]", "expected a file's name or an absolute path"
        for number, path in enumerate(self.sensitive_paths):
            if not path.startswith("/") or "/../" in f"{path}/":
                yield f".sensitive_paths[{number}]", "expected an absolute path without '..'"
