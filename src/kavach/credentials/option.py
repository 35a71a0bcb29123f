"""The words of `--secret` -> a reference; a value is never taken, and what could be one is never quoted.

Enforces: the whole text is understood or refused. Does not: read a source. May be called by: `cli`.
"""

from __future__ import annotations

import re
import shlex

from kavach.errors import ConfigError
from kavach.model.secret import (
    EnvVar,
    Fd,
    File,
    FromCommand,
    FromEnv,
    FromFile,
    FromKeyring,
    SecretRef,
    Source,
    Stdin,
    Target,
)
from kavach.model.validate import check

__all__ = ["parse_secret"]


def parse_secret(text: str) -> SecretRef:
    """Return the reference that `--secret NAME=SOURCE[@TARGET]` says.

    SOURCE is `env:VARIABLE`, `file:PATH`, `cmd:WORDS` (split like a POSIX shell would, never run by one) or
    `keyring:SERVICE/USER`. TARGET is `env:VARIABLE`, `file:PATH`, `file:PATH:MODE` (three octal digits),
    `stdin` or `fd:N`; an `env:` source without a target goes to the variable of the same name. A file that
    goes to a variable loses one line end at its end.

    Args:
        text: the option's value.

    Raises:
        ConfigError: the text has another shape. The message never quotes what could be a value.
    """
    name, equals, rest = text.partition("=")
    if not equals:
        raise _misread("it has no NAME=")
    found = re.fullmatch(r"(?s)(.+)@(env:.*|file:.*|fd:.*|stdin)", rest)
    source_text, target_text = found.groups() if found else (rest, None)
    if target_text is None:
        if not source_text.startswith("env:"):
            raise _misread(f"the source of {name!r} needs a target after it")
        target_text = source_text
    source = _parse_source(source_text, strip_newline=target_text.startswith("env:"))
    ref = SecretRef(name, _parse_target(target_text), source)
    try:
        check(ref)
    except ConfigError as error:
        raise _misread(error.message.removeprefix("$.")) from None
    return ref


def _parse_target(text: str) -> Target:
    kind, _, rest = text.partition(":")
    if kind == "env":
        return EnvVar(rest)
    if kind == "stdin":
        return Stdin()
    if kind == "fd":
        if not re.fullmatch(r"[0-9]{1,4}", rest):
            raise _misread("fd: is followed by a number, 3 to 1023")
        return Fd(int(rest))
    path, mode = rest, "400"
    if found := re.fullmatch(r"(?s)(.*):([0-7]{3})", rest):
        path, mode = found.groups()
    return File(path, int(mode, 8))


def _parse_source(text: str, *, strip_newline: bool) -> Source:
    kind, _, rest = text.partition(":")
    if kind == "env":
        return FromEnv(rest)
    if kind == "file":
        return FromFile(rest, strip_newline)
    if kind == "cmd":
        try:
            words = shlex.split(rest)
        except ValueError as error:
            raise _misread(f"the words after cmd: cannot be split ({error})") from None
        return FromCommand(tuple(words))
    if kind == "keyring":
        service, _, user = rest.partition("/")
        return FromKeyring(service, user)
    raise _misread("its source is not env:, file:, cmd: or keyring:")


def _misread(why: str) -> ConfigError:
    return ConfigError(
        f"--secret: {why}; expected NAME=SOURCE@TARGET",
        key="--secret",
        hint="e.g. --secret api_key=env:API_KEY@file:/run/secrets/api_key; a value itself is never taken "
        "here, because every user of the machine can read a command line",
    )
