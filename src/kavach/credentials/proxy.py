"""A caller's named secrets: a name resolves to its value only at the moment of use.

Enforces: a known name, a value that is neither empty nor endless. Does not: read the process environment (the
mapping is injected) or remember what a source answered. May be called by: everybody above `credentials`.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, NoReturn

from kavach.credentials import sources
from kavach.credentials.value import SecretValue
from kavach.errors import CredentialError
from kavach.model.secret import FromCommand, FromEnv, FromFile, FromKeyring, Source, is_secret_name
from kavach.model.validate import check

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from kavach.credentials.sources import Callback

__all__ = ["CredentialProxy"]


class CredentialProxy:
    """Named secrets of one caller; a name resolves to its value only at the moment of use.

    Args:
        environ: what `FromEnv` reads and what a `FromCommand` is started with, usually `os.environ`. The
            library never reads the process environment by itself; it looks up only the variable that is
            named, when it is used. None = `FromEnv` is an error, and a command starts with a clean
            environment.
    """

    # SECURITY: the mapping sits behind a closure, because os.environ prints every variable it holds.
    __slots__ = ("_environ", "_lock", "_sources")

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        self._environ: Callable[[], Mapping[str, str] | None] = lambda: environ
        self._lock = threading.Lock()
        self._sources: dict[str, SecretValue | Source | Callback] = {}

    def register(self, name: str, value: str | bytes | Source | Callback) -> None:
        """Make `name` known.

        Args:
            name: 1 to 64 letters, digits, `_`, `.`, `-`, the first a letter or digit.
            value: the value itself, a source that is read at each use, or a callable that returns the value.

        Raises:
            ConfigError: the source has a wrong shape.
            CredentialError: the name has another shape or is taken, or the value is empty, too large or of
                another type.
        """
        try:
            held = _closed(value)
        finally:
            del value  # SECURITY: a rendered traceback shows the variables of this frame
        if not is_secret_name(name):
            del name  # SECURITY: two arguments in the wrong order put the value here
            raise CredentialError(
                "a secret's name is 1 to 64 letters, digits, `_`, `.` or `-`", hint="register(name, value)"
            )
        with self._lock:
            if name in self._sources:
                raise CredentialError(f"the secret {name!r} is registered already", hint="forget(name) first")
            self._sources[name] = held

    def forget(self, name: str) -> None:
        """Make `name` unknown, and wipe its value if it was registered as one.

        Raises:
            CredentialError: the name is unknown.
        """
        with self._lock:
            held = self._known(name)
            del self._sources[name]
        if isinstance(held, SecretValue):
            held.wipe()

    @property
    def names(self) -> tuple[str, ...]:
        """The names that are known, sorted."""
        return tuple(sorted(self._sources))

    def resolve(self, name: str) -> SecretValue:
        """Return the value of a registered name, read from its source now; the caller wipes it after use.

        Raises:
            CredentialError: the name is unknown, or its source gave no value.
        """
        with self._lock:
            held = self._known(name)
            if isinstance(held, SecretValue):
                return held.clone()
        return self.read(name, held)

    def read(self, name: str, source: Source | Callback) -> SecretValue:
        """Return what a source holds now; the caller wipes it after use.

        Args:
            name: for messages only.
            source: where to look.

        Raises:
            CredentialError: the source gave no value.
        """
        match source:
            case FromEnv():
                value = sources.read_environ(name, source, self._environ)
            case FromFile():
                value = sources.read_file(name, source)
            case FromCommand():
                value = sources.read_command(name, source, self._environ)
            case FromKeyring():
                value = sources.read_keyring(name, source)
            case _:
                value = sources.ask(name, "its callback", source)
        sources.check_value(name, value)
        return value

    def _known(self, name: str) -> SecretValue | Source | Callback:
        if name in self._sources:
            return self._sources[name]
        known = ", ".join(self.names) or "none is registered"
        raise CredentialError(f"no secret is registered as {name!r}; known: {known}", hint="register(name, value)")

    def __repr__(self) -> str:
        return f"CredentialProxy(names={list(self.names)})"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise CredentialError("a CredentialProxy can be neither copied nor pickled")

    def __getstate__(self) -> NoReturn:
        raise CredentialError("a CredentialProxy can be neither copied nor pickled")


def _closed(value: str | bytes | Source | Callback) -> SecretValue | Source | Callback:
    """Return what may be kept: a checked source, a callable, or the value where nothing can print it."""
    if isinstance(value, FromEnv | FromFile | FromCommand | FromKeyring):
        check(value)
        return value
    if callable(value):
        return value
    try:
        held = SecretValue(value)
    finally:
        del value  # SECURITY: a rendered traceback shows the variables of this frame
    sources.check_value("being registered", held)
    return held
