"""Guards: what a command looks like before it runs, and what a run looks like when it is over.

Enforces: pure decisions; `refuse` refuses before anything runs. Does not: isolate or earn a point. A command that
is put together while it runs passes: the wall is what holds it. May be used by: kavach.sandbox.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from kavach.errors import PolicyError
from kavach.gate.code.acts import deeds_of
from kavach.gate.code.files import is_secret_path
from kavach.gate.code.injection import has_metacharacters
from kavach.gate.code.syntax import TooDeep
from kavach.gate.code.wrappers import is_interpreter, program_name
from kavach.model.guard import GuardKind, GuardTrip
from kavach.model.result import EndReason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from kavach.gate.code.acts import Act
    from kavach.model.command import Command
    from kavach.model.guard import GuardPolicy
    from kavach.model.result import RawResult

TIME_FACTOR = 2
"""A run that takes more than so many times what was expected is an anomaly (gate.md)."""


def check_command(
    command: Command, guards: GuardPolicy, *, resolve: Callable[[str], str | None]
) -> tuple[GuardTrip, ...]:
    """Return what trips on a command that has not run yet, each kind of trip with what it tripped on once.

    Args:
        command: what is to run.
        guards: which guards stand.
        resolve: the absolute path, links followed, of the file that a program's name means inside the sandbox; None
            where there is none. See `search`.
    """
    acts = _acts_of(command)
    trips = [*_blocked(acts, guards, resolve), *_sensitive(command, acts, guards)]
    if guards.metacharacters and not is_interpreter(program_name(command.program)):
        words = [word.decode("utf-8", "replace") for word in command.argv[1:]]
        if any(has_metacharacters(word) for word in words):
            message = "an argument holds what a shell would act on; no shell reads it here"
            trips.append(GuardTrip(kind=GuardKind.METACHARACTERS, message=message))
    return tuple(dict.fromkeys(trips))


def require_unguarded(trips: Sequence[GuardTrip], guards: GuardPolicy) -> None:
    """Return None when a command may run.

    Args:
        trips: what `check_command` returned.
        guards: what was asked for.

    Raises:
        PolicyError: something tripped and the action is `refuse`; nothing was run.
    """
    if trips and guards.action == "refuse":
        kinds = ", ".join(sorted({trip.kind.value for trip in trips}))
        raise PolicyError(
            f"a guard refused the command: {trips[0].message} ({kinds}); nothing was run",
            hint="guards.action='report' lets it run and reports the same",
        )


def check_run(
    raw: RawResult, guards: GuardPolicy, *, pids_limit: int | None = None, output_limit_bytes: int | None = None
) -> tuple[GuardTrip, ...]:
    """Return what trips on a run that is over.

    Args:
        raw: what the wall saw; its bytes are counted, not read.
        guards: what was expected.
        pids_limit: how many processes and threads the policy allows.
        output_limit_bytes: how much output the policy allows for a stream.
    """
    hit = set(raw.limits_hit or ())
    trips: list[GuardTrip] = []
    peak = raw.usage.pids_peak
    is_full = pids_limit is not None and peak is not None and peak >= pids_limit
    if raw.reason is EndReason.PIDS or "pids" in hit or is_full:
        trips.append(GuardTrip(kind=GuardKind.FORK_BOMB, message="the command reached its limit of processes"))
    if guards.expected_ms is not None and raw.duration_ms > guards.expected_ms * TIME_FACTOR:
        message = f"the command took {raw.duration_ms:.0f} ms, more than {TIME_FACTOR} times the expected time"
        trips.append(GuardTrip(kind=GuardKind.TIME_ANOMALY, message=message))
    dropped = raw.stdout_dropped_bytes + raw.stderr_dropped_bytes
    longest = max(len(raw.stdout), len(raw.stderr))
    is_flood = output_limit_bytes is not None and longest > output_limit_bytes
    if raw.reason is EndReason.OUTPUT_LIMIT or "output_limit" in hit or dropped or is_flood:
        message = f"the command wrote more than its limit of output; {dropped} bytes were dropped"
        trips.append(GuardTrip(kind=GuardKind.OUTPUT_FLOOD, message=message))
    return tuple(trips)


def search(program: str, folders: Sequence[str], *, cwd: str, real_path: Callable[[str], str | None]) -> str | None:
    """Return the file that a program's name means, links followed, or None.

    Args:
        program: a name, or a path with a slash in it.
        folders: where names are looked for, in order: the sandbox's PATH.
        cwd: the folder that a relative path starts from, inside.
        real_path: an executable file's path with links followed, as it is called inside; None where there is none.
    """
    if "/" in program:
        return real_path(program if program.startswith("/") else f"{cwd.rstrip('/')}/{program}")
    found = (real_path(f"{folder.rstrip('/')}/{program}") for folder in folders if folder.startswith("/"))
    return next((path for path in found if path is not None), None)


def _acts_of(command: Command) -> tuple[Act, ...]:
    """Return every program that a command would start, as far as its words tell."""
    words = [word.decode("latin-1") for word in command.argv]
    try:
        return deeds_of(shlex.join(words)).acts
    except (TooDeep, RecursionError, MemoryError):
        return deeds_of(shlex.join(words[:1])).acts


def _blocked(acts: Sequence[Act], guards: GuardPolicy, resolve: Callable[[str], str | None]) -> Iterator[GuardTrip]:
    if not guards.blocked_commands:
        return
    blocked = frozenset(guards.blocked_commands)
    for path in dict.fromkeys(act.path for act in acts if act.path and "$" not in act.path):
        found = resolve(path) or path
        for name in {found, found.rpartition("/")[2]} & blocked:
            message = f"{name!r} is on the list of blocked commands"
            yield GuardTrip(kind=GuardKind.COMMAND, message=message)


def _sensitive(command: Command, acts: Sequence[Act], guards: GuardPolicy) -> Iterator[GuardTrip]:
    named = [word.decode("utf-8", "replace") for word in command.argv[1:]]
    named += [word for act in acts for word in (*act.args, *(target for _, _, target in act.redirects))]
    cwd = command.cwd or ""
    for word in named:
        path = _plain_path(word.rpartition("=")[2].lstrip("@"), cwd)
        if is_secret_path(word) or is_secret_path(path):
            message = "an argument names a file that holds secrets"
            yield GuardTrip(kind=GuardKind.SENSITIVE_PATH, message=message)
        for sensitive in guards.sensitive_paths:
            if path == sensitive or path.startswith(f"{sensitive.rstrip('/')}/"):
                yield GuardTrip(
                    kind=GuardKind.SENSITIVE_PATH, message=f"an argument names {sensitive!r} or what is below it"
                )


def _plain_path(word: str, cwd: str) -> str:
    """Return a path without `.`, `..` and doubled slashes, as far as its words tell; links are not followed."""
    if not word.startswith("/"):
        word = f"{cwd}/{word}"
    parts: list[str] = []
    for part in word.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in {"", "."}:
            parts.append(part)
    return "/" + "/".join(parts)
