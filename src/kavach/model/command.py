"""A command as the kernel takes it: an argument vector, an environment, a folder, bytes for its input.

Enforces: no empty vector, no NUL byte, nothing too long for one argument, names and paths with a shape that
cannot be misread. A text is split as a POSIX shell splits words, and never run by one. Does not: look for the
program, expand variables or globs, or judge what the command does (the guard does).
Called by `kavach.sandbox` before anything else sees a command; messages never quote arguments or values,
which may be secrets.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from typing import TypeAlias

import msgspec

from kavach.errors import ConfigError
from kavach.model.paths import path_problem
from kavach.model.validate import Model

__all__ = ["Argv", "Command", "environment", "make_command", "milliseconds", "split_words"]

Argv: TypeAlias = "str | Iterable[str | bytes | os.PathLike[str]]"

MAX_ARGUMENT_BYTES = 131071  # MAX_ARG_STRLEN - 1, linux/binfmts.h: longer ones are E2BIG from execve
MAX_TIMEOUT_S = 10 * 365 * 86400.0


class Command(Model, frozen=True, kw_only=True):
    """One command, normalised; `repr` shows the program and how much else there is, never the arguments.

    Args:
        argv: program and arguments, at least one.
        cwd: the folder inside the sandbox; None = its workspace.
        env: added to the sandbox's clean environment.
        stdin: what it can read from its standard input; None = nothing.
        timeout_ms: wall clock; None = no limit.
    """

    argv: tuple[bytes, ...]
    cwd: str | None = None
    env: dict[str, str] = msgspec.field(default_factory=dict)
    stdin: bytes | None = None
    timeout_ms: int | None = None

    @property
    def program(self) -> str:
        """The first word, as text."""
        return os.fsdecode(self.argv[0])

    def __repr__(self) -> str:
        return f"Command({self.program!r} with {len(self.argv) - 1} arguments, {len(self.env)} variables)"


def make_command(
    argv: Argv,
    *,
    cwd: str | None = None,
    env: Mapping[str, str] | None = None,
    stdin: bytes | str | None = None,
    timeout_ms: int | None = None,
) -> Command:
    """Return the command that a caller's words mean.

    Args:
        argv: program and arguments; a str is split into words as a POSIX shell would.
        cwd: absolute, inside the sandbox.
        env: names and values.
        stdin: bytes, or text that becomes UTF-8.
        timeout_ms: wall clock; see `milliseconds`.

    Raises:
        ConfigError: something of it cannot be a command; says what, without quoting it.
    """
    if cwd is not None:
        if not isinstance(cwd, str):
            raise ConfigError(f"cwd: expected str, got {type(cwd).__name__}", key="cwd")
        found = path_problem(cwd)
        if found is not None:
            raise ConfigError(f"cwd: {found}", key="cwd")
    return Command(
        argv=_arguments(argv),
        cwd=cwd,
        env=environment(env),
        stdin=_input(stdin),
        timeout_ms=timeout_ms,
    )


def split_words(text: str) -> tuple[str, ...]:
    """Return the words of a text as a POSIX shell splits them: quotes and backslashes, and nothing else.

    Args:
        text: what would be typed.

    Raises:
        ConfigError: a quote is not closed, or a backslash ends the text.
    """
    import shlex

    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise ConfigError(
            f"argv: the text does not split into words: {str(error).lower()}",
            key="argv",
            hint="pass a list of words, or use shell() for shell syntax",
        ) from None


def environment(given: Mapping[str, str] | None, *, key: str = "env") -> dict[str, str]:
    """Return a copy of an environment whose every name and value a kernel and a shell read in one way.

    Args:
        given: names and values; None = empty.
        key: how it is called in messages.

    Raises:
        ConfigError: a name is empty, holds `=` or NUL or is not UTF-8, a value holds NUL, or one is no text.
    """
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise ConfigError(f"{key}: expected a mapping of names to values, got {type(given).__name__}", key=key)
    for name, value in given.items():
        if not isinstance(name, str) or not name or "=" in name or "\0" in name:
            raise ConfigError(f"{key}: expected names without '=' and NUL, got {name!r}", key=key)
        if not name.isascii() and any(0xD800 <= ord(one) <= 0xDFFF for one in name):  # names are recorded as text
            raise ConfigError(f"{key}: expected names that UTF-8 can hold, got {name!r}", key=key)
        if not isinstance(value, str):
            raise ConfigError(f"{key}[{name!r}]: expected str, got {type(value).__name__}", key=key)
        _argument(f"{name}={value}", f"{key}[{name!r}]")
    return dict(given)


def milliseconds(seconds: float | None, *, key: str = "timeout_s") -> int | None:
    """Return a time limit in whole milliseconds, at least one; None = no limit.

    Args:
        seconds: more than 0 and finite, or None.
        key: how it is called in messages.

    Raises:
        ConfigError: not a number, not finite, not more than 0, or more than ten years.
    """
    if seconds is None:
        return None
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise ConfigError(f"{key}: expected seconds as a number or None, got {type(seconds).__name__}", key=key)
    if not math.isfinite(seconds) or not 0 < seconds <= MAX_TIMEOUT_S:
        raise ConfigError(f"{key}: expected more than 0 seconds (None = no limit), got {seconds}", key=key)
    return max(1, round(seconds * 1000))


def _arguments(given: Argv) -> tuple[bytes, ...]:
    words: Iterable[object]
    if isinstance(given, str):
        words = split_words(given)
    elif isinstance(given, bytes | bytearray | Mapping) or not isinstance(given, Iterable):
        raise ConfigError(f"argv: expected a list of words or a str, got {type(given).__name__}", key="argv")
    else:
        words = given
    argv = tuple(_argument(word, f"argv[{index}]") for index, word in enumerate(words))
    if not argv or not argv[0]:
        raise ConfigError("argv: expected a program's name, got nothing", key="argv")
    return argv


def _argument(word: object, key: str) -> bytes:
    if not isinstance(word, str | bytes | os.PathLike):
        raise ConfigError(f"{key}: expected str, bytes or a path, got {type(word).__name__}", key=key)
    try:
        data = os.fsencode(word)
    except UnicodeEncodeError:
        raise ConfigError(f"{key}: expected text that can be encoded as UTF-8", key=key) from None
    if b"\0" in data:
        raise ConfigError(f"{key}: expected no NUL byte", key=key)
    if len(data) > MAX_ARGUMENT_BYTES:
        raise ConfigError(
            f"{key}: expected at most {MAX_ARGUMENT_BYTES} bytes, got {len(data)}",
            key=key,
            hint="pass it on standard input or in a file",
        )
    return data


def _input(given: bytes | str | None) -> bytes | None:
    if given is None or isinstance(given, bytes):
        return given
    if isinstance(given, bytearray | memoryview):
        return bytes(given)
    if not isinstance(given, str):
        raise ConfigError(f"stdin: expected bytes, str or None, got {type(given).__name__}", key="stdin")
    try:
        return given.encode("utf-8")
    except UnicodeEncodeError:
        raise ConfigError("stdin: expected text that can be encoded as UTF-8", key="stdin") from None
