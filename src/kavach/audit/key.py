"""The keys of a chain: secrets from the caller, known by an id that is computed from the key itself.

Enforces: no default key, none shorter than 32 bytes; `repr` shows the id only. A key file holds hex digits and is
readable by its owner alone. Does not: store a key, derive one from a pass phrase, or read the environment: the command
line resolves a variable that its user names. May be used by: kavach.audit and kavach.cli.
"""

from __future__ import annotations

import hmac
import os
import re
import stat
from typing import TYPE_CHECKING

from kavach.errors import AuditError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    KeySource = Callable[[], bytes]

__all__ = ["AuditKey", "KeyRing", "parse_key", "read_key_file", "take_key"]

LEAST_KEY_BYTES = 32  # RFC 2104, section 3: less than the hash's length weakens the MAC
_MOST_FILE_BYTES = 8192
_ID_TAG = b"kavach.audit.key-id/1\0"
_HEX = re.compile(rb"(?:[0-9A-Fa-f]{2}){32,}\s*\Z")


class AuditKey:
    """One key of a chain.

    Args:
        secret: 32 random bytes or more.

    Raises:
        ConfigError: it is no bytes, or too short.
    """

    __slots__ = ("_keyed", "id")

    def __init__(self, secret: bytes) -> None:
        if not isinstance(secret, bytes):
            raise ConfigError(f"key: expected bytes, got {type(secret).__name__}", key="key")
        if len(secret) < LEAST_KEY_BYTES:
            raise ConfigError(f"key: expected {LEAST_KEY_BYTES} bytes or more, got {len(secret)}", key="key")
        self._keyed = hmac.new(secret, digestmod="sha256")
        self.id: str = self.mac(_ID_TAG)[:16]

    def mac(self, message: bytes) -> str:
        """Return the HMAC-SHA256 of a message (RFC 2104) in lower-case hex."""
        fresh = self._keyed.copy()
        fresh.update(message)
        return fresh.hexdigest()

    def __repr__(self) -> str:
        return f"<AuditKey {self.id}>"

    def __reduce__(self) -> str:
        raise ConfigError("an audit key is not copied out of its process; read it again where it is needed")


class KeyRing:
    """The keys that a chain may have been written under, by id.

    Args:
        keys: keys or their bytes; the first is the one that a new chain begins with.

    Raises:
        ConfigError: there is none, or one is no key.
    """

    __slots__ = ("_keys", "first")

    def __init__(self, keys: bytes | AuditKey | Iterable[bytes | AuditKey]) -> None:
        given = [keys] if isinstance(keys, bytes | AuditKey) else list(keys)
        made = [one if isinstance(one, AuditKey) else AuditKey(one) for one in given]
        if not made:
            raise ConfigError("key: expected at least one key, got none", key="key")
        self.first: AuditKey = made[0]
        self._keys = {key.id: key for key in made}

    def __iter__(self) -> Iterator[AuditKey]:
        return iter(self._keys.values())

    def add(self, key: AuditKey) -> None:
        """Know one more key."""
        self._keys[key.id] = key

    def find(self, key_id: str) -> AuditKey | None:
        """Return the key of this id, or None."""
        return self._keys.get(key_id)

    def require(self, key_id: str, *, index: int | None = None) -> AuditKey:
        """Return the key of this id.

        Raises:
            AuditError: it was not given; `.check` is `key`.
        """
        found = self._keys.get(key_id)
        if found is None:
            raise AuditError(
                f"the chain is written under key {key_id[:16]!r}, which was not given",
                index=index,
                check="key",
                hint="give the key that the log was opened with before; earlier keys go in old_keys",
            )
        return found


def take_key(key: bytes | None, key_file: str | os.PathLike[str] | None, key_source: KeySource | None) -> AuditKey:
    """Return the key that a caller gave in exactly one of three ways.

    Args:
        key: its bytes.
        key_file: a file of hex digits; see `read_key_file`.
        key_source: called once, now; returns the bytes, or raises an OSError, LookupError, ValueError or RuntimeError.

    Raises:
        ConfigError: none or several ways, or what came is no key.
        AuditError: the key cannot be had; `.check` is `key`.
    """
    if [key, key_file, key_source].count(None) != 2:
        raise ConfigError("key: expected exactly one of key, key_file and key_source; there is no default", key="key")
    if key is not None:
        return AuditKey(key)
    if key_source is None:
        return AuditKey(read_key_file(key_file or ""))
    return AuditKey(_ask(key_source))


def _ask(key_source: KeySource) -> bytes:
    if not callable(key_source):
        raise ConfigError(f"key_source: expected a callable, got {type(key_source).__name__}", key="key_source")
    try:
        return key_source()
    except (OSError, LookupError, ValueError, RuntimeError) as error:
        # SECURITY: a source's own message may quote what it read.
        raise AuditError(f"key_source raised {type(error).__name__}; the key is lost", check="key") from None


def read_key_file(path: str | os.PathLike[str]) -> bytes:
    """Return the key in a file that only its owner can read: 64 hex digits or more (`openssl rand -hex 32`).

    Raises:
        AuditError: it cannot be read, others can read it, or it holds something else; `.check` is `key`.
    """
    name = os.fspath(path)
    try:
        with open(name, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(_MOST_FILE_BYTES + 1)
    except OSError as error:
        raise AuditError(f"{name}: the key cannot be read: {error.strerror}", check="key") from None
    if stat.S_ISREG(mode) and mode & 0o077:
        raise AuditError(f"{name}: others may read the key", check="key", hint=f"chmod 600 {name}")
    return parse_key(text, name)


def parse_key(text: bytes, source: str) -> bytes:
    """Return the key that hex digits spell.

    Args:
        text: 64 hex digits or more, blanks behind them allowed.
        source: where it came from, for the message, which never quotes the text.

    Raises:
        AuditError: it is something else; `.check` is `key`.
    """
    if len(text) > _MOST_FILE_BYTES or _HEX.match(text) is None:
        raise AuditError(
            f"{source}: expected a key of 64 hex digits or more", check="key", hint="openssl rand -hex 32 makes one"
        )
    return bytes.fromhex(text.decode("ascii").strip())
