"""Where values come from: one function for each kind of source, asked anew at each use.

Enforces: a source that fails, is empty or is endless is an error that names the secret and the source, and
quotes nothing that was read. Does not: cache, retry or ask a person. May be called by:
`kavach.credentials.proxy`.
"""

from __future__ import annotations

import importlib
import os
import stat
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeAlias

from kavach.credentials.value import SecretValue
from kavach.errors import CredentialError, KavachError

if TYPE_CHECKING:
    from kavach.model.secret import FromCommand, FromEnv, FromFile, FromKeyring

__all__ = ["Callback", "ask", "check_value", "read_command", "read_environ", "read_file", "read_keyring"]

MAX_VALUE_BYTES = 1 << 20  # protects the host's memory from a source that never ends

Callback: TypeAlias = Callable[[], str | bytes]
# SECURITY: a mapping in a variable would be printed by a traceback rendered with its variables.
Environ: TypeAlias = Callable[[], Mapping[str, str] | None]


def check_value(name: str, value: SecretValue) -> None:
    """Return None when the value can be used, else wipe it and refuse.

    Raises:
        CredentialError: the value is empty or too large.
    """
    # An empty value is a source that failed quietly, and the gate cannot search for nothing.
    if not value.size_bytes:
        raise CredentialError(f"the secret {name!r} is empty")
    if value.size_bytes > MAX_VALUE_BYTES:
        value.wipe()
        raise CredentialError(f"the secret {name!r} is larger than {MAX_VALUE_BYTES} bytes")


def read_environ(name: str, source: FromEnv, environ: Environ) -> SecretValue:
    """Return the one variable that is named.

    Raises:
        CredentialError: no environment was given, or the variable is not set.
    """
    if environ() is None:
        raise CredentialError(
            f"the secret {name!r} comes from the variable {source.variable}, but no environment was given",
            hint="CredentialProxy(environ=os.environ)",
        )
    value = _lookup(environ, source.variable)
    if value is None:
        raise CredentialError(f"the secret {name!r}: the variable {source.variable} is not set")
    return value


def _lookup(environ: Environ, variable: str) -> SecretValue | None:
    text = (environ() or {}).get(variable)
    return None if text is None else SecretValue(text)


def read_file(name: str, source: FromFile) -> SecretValue:
    """Return the content of a regular file.

    Raises:
        CredentialError: the file cannot be read, or is no regular file.
    """
    value = SecretValue()
    try:
        # O_NONBLOCK, because opening a FIFO waits for its writer.
        fd = os.open(source.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise CredentialError(f"the secret {name!r}: {source.path} is not a regular file")
            value.read_from(fd, limit_bytes=MAX_VALUE_BYTES)
        finally:
            os.close(fd)
    except OSError as error:
        raise CredentialError(f"the secret {name!r}: cannot read {source.path}: {error.strerror}") from error
    if source.strip_newline:
        value.strip_newline()
    return value


def read_command(name: str, source: FromCommand, environ: Environ) -> SecretValue:
    """Return what a program of the host wrote to stdout.

    Raises:
        CredentialError: the program could not be started, ended in failure, or ran out of time.
    """
    from kavach import runtimes

    program, failure, hint = source.argv[0], "", None
    try:
        completed = runtimes.run(
            source.argv,
            timeout_s=source.timeout_s,
            env=environ() or runtimes.CLEAN_ENVIRONMENT,
            output_limit_bytes=MAX_VALUE_BYTES + 1,  # one more, so that `check_value` sees what was cut
        )
    except KavachError as error:
        failure, hint = str(error), error.hint
    # SECURITY: not chained, because the frames of the runner hold the whole environment and the output.
    if failure:
        raise CredentialError(f"the secret {name!r}: {failure}", hint=hint)
    value, returncode = SecretValue(completed.stdout), completed.returncode
    del completed  # SECURITY: it holds the value, and what is raised below could be rendered with it
    if returncode != 0:
        value.wipe()
        raise CredentialError(f"the secret {name!r}: {program} ended with exit code {returncode}")
    if source.strip_newline:
        value.strip_newline()
    return value


def read_keyring(name: str, source: FromKeyring) -> SecretValue:
    """Return what the operating system's keyring holds.

    Raises:
        CredentialError: the keyring package is absent, or the keyring holds no such entry.
    """
    try:
        keyring = importlib.import_module("keyring")
    except ImportError:
        raise CredentialError(
            f"the secret {name!r} is in the keyring, but the package keyring is not installed",
            hint="pip install keyring",
        ) from None

    def password() -> str | None:
        found: str | None = keyring.get_password(source.service, source.user)
        return found

    return ask(name, f"the keyring's {source.service!r} for {source.user!r}", password)


def ask(name: str, what: str, answer: Callable[[], str | bytes | None]) -> SecretValue:
    """Return what foreign code answers; nothing of its exception but the type's name goes on.

    Args:
        name: the secret's name, for messages.
        what: who is asked, for messages.
        answer: the foreign code.

    Raises:
        CredentialError: it raised, answered None, or answered something else than text or bytes.
    """
    value, failure = _answered(answer)
    if value is None:
        raise CredentialError(f"the secret {name!r}: {what} {failure}")
    return value


def _answered(answer: Callable[[], str | bytes | None]) -> tuple[SecretValue | None, str]:
    # SECURITY: returns instead of raising, so that no frame which saw the text is in the error's traceback.
    try:
        text = answer()
        return (None, "gave nothing") if text is None else (SecretValue(text), "")
    except Exception as error:  # noqa: BLE001  # foreign code raises what it likes, and may quote the value
        return None, f"raised {type(error).__name__}"
