"""The nouns of secrets: which named secret goes where in a sandbox, and where its value is read from.

Enforces: names and targets have a shape that no shell, kernel or path can misread, when a tree of models is
checked. Does not: hold, read or deliver a value; a reference is safe to print, to store and to audit.
May be used by everybody; `kavach.credentials` reads the sources and delivers.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, TypeAlias

from msgspec import Meta

from kavach.model.validate import Model

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "EnvVar",
    "Fd",
    "File",
    "FromCommand",
    "FromEnv",
    "FromFile",
    "FromKeyring",
    "SecretRef",
    "Source",
    "Stdin",
    "Target",
    "is_secret_name",
]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}")
_PATH = re.compile(r"(?:/(?!\.{1,2}(?:/|\Z))[^/\0]+)+")
_NAME_WORDS = "expected 1 to 64 letters, digits, `_`, `.` or `-`"
_VARIABLE_WORDS = "expected a variable's name: letters, digits and `_`, no digit first"


def is_secret_name(text: object) -> bool:
    """Return whether this can name a secret."""
    return isinstance(text, str) and _NAME.fullmatch(text) is not None


class EnvVar(Model, frozen=True, kw_only=False, tag_field="via", tag="env"):
    """The value is one variable in the command's environment, and in nobody else's.

    Args:
        var_name: the variable's name inside.
    """

    var_name: str

    def problems(self) -> Iterator[tuple[str, str]]:
        """Refuse what a shell or the kernel would read as something else."""
        if not _VARIABLE.fullmatch(self.var_name):
            yield ".var_name", _VARIABLE_WORDS


class File(Model, frozen=True, kw_only=False, tag_field="via", tag="file"):
    """The value is a file inside the sandbox that exists in memory only.

    Args:
        path: absolute, inside the sandbox.
        mode: permission bits, 0o400 to 0o777.
    """

    path: Annotated[str, Meta(max_length=4095)]
    mode: Annotated[int, Meta(ge=0o400, le=0o777)] = 0o400

    def problems(self) -> Iterator[tuple[str, str]]:
        """Refuse a path that two readers could resolve to two places."""
        if not _PATH.fullmatch(self.path):
            yield ".path", "expected an absolute path to a file, without `.`, `..`, `//` or NUL"


class Stdin(Model, frozen=True, kw_only=False, tag_field="via", tag="stdin"):
    """The value is all that the command can read from its standard input."""


class Fd(Model, frozen=True, kw_only=False, tag_field="via", tag="fd"):
    """The value can be read from one open descriptor of the command.

    Args:
        number: the descriptor inside: not one of the three streams, and below the usual soft limit of 1024.
    """

    number: Annotated[int, Meta(ge=3, le=1023)]


class FromEnv(Model, frozen=True, kw_only=False, tag_field="from", tag="env"):
    """Read one variable, at the moment of use, of the mapping that the `CredentialProxy` was given.

    Args:
        variable: the variable's name on the host.
    """

    variable: str

    def problems(self) -> Iterator[tuple[str, str]]:
        """Refuse what cannot be a variable, most of all a value that was put in its place."""
        if not _VARIABLE.fullmatch(self.variable):
            yield ".variable", _VARIABLE_WORDS


class FromFile(Model, frozen=True, kw_only=False, tag_field="from", tag="file"):
    """Read a regular file of the host at the moment of use.

    Args:
        path: on the host.
        strip_newline: leave out one line end at the end. Off, because a key file needs its last line end.
    """

    path: Annotated[str, Meta(min_length=1, max_length=4095)]
    strip_newline: bool = False

    def problems(self) -> Iterator[tuple[str, str]]:
        """Refuse what no file can be called."""
        if "\0" in self.path:
            yield ".path", "expected a path without NUL"


class FromCommand(Model, frozen=True, kw_only=False, tag_field="from", tag="command"):
    """Run a program of the host, without a shell, at the moment of use, and take what it writes to stdout.

    Args:
        argv: program and arguments; it starts in `/` and has no terminal to ask on.
        timeout_s: how long it may take, at most an hour.
        strip_newline: leave out one line end at the end, as a shell's `$(...)` does.
    """

    argv: tuple[str, ...]
    timeout_s: Annotated[float, Meta(gt=0, le=3600)] = 30.0
    strip_newline: bool = True

    def problems(self) -> Iterator[tuple[str, str]]:
        """Refuse what cannot be started."""
        if not self.argv or not self.argv[0]:
            yield ".argv", "expected a program and its arguments"
        if any("\0" in word for word in self.argv):
            yield ".argv", "expected words without NUL"


class FromKeyring(Model, frozen=True, kw_only=False, tag_field="from", tag="keyring"):
    """Ask the operating system's keyring at the moment of use; needs the `keyring` package.

    Args:
        service: the service under which the password is stored.
        user: the user name under which it is stored.
    """

    service: Annotated[str, Meta(min_length=1)]
    user: Annotated[str, Meta(min_length=1)]


Target: TypeAlias = EnvVar | File | Stdin | Fd
Source: TypeAlias = FromEnv | FromFile | FromCommand | FromKeyring


class SecretRef(Model, frozen=True, kw_only=False):
    """Which secret goes where, for one run; never its value.

    Args:
        name: as registered with a `CredentialProxy`; it is also what a redaction shows (`[REDACTED:name]`).
        inject_via: where the command finds it.
        source: where the value is read from at the moment of use; None = as registered under `name`.
    """

    name: str
    inject_via: Target
    source: Source | None = None

    def problems(self) -> Iterator[tuple[str, str]]:
        """Refuse a name that a marker in the output could not carry."""
        if not is_secret_name(self.name):
            yield ".name", _NAME_WORDS
