"""Ed25519 keys for receipts and checkpoints (RFC 8032), by the `cryptography` package.

Enforces: `repr` shows a key's id only; a private key is not copied out of its process. Does not: store keys, or know
what it signs (`kavach.audit.dsse` does). `cryptography` is imported when a key is made or read, not before. May be used
by: users, kavach.audit, kavach.cli.
"""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Any

from kavach.errors import AuditError, ConfigError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

__all__ = ["PublicKey", "SigningKey"]

_MOST_FILE_BYTES = 16384


class PublicKey:
    """The key that verifies.

    Args:
        key: of the `cryptography` package; `from_pem` and `from_file` make one.
    """

    __slots__ = ("_key", "_pem", "id")

    def __init__(self, key: Ed25519PublicKey) -> None:
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        self._key = key
        der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        self._pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        self.id: str = hashlib.sha256(der).hexdigest()

    @classmethod
    def from_pem(cls, text: bytes) -> PublicKey:
        """Return the key in a SubjectPublicKeyInfo PEM (RFC 8410).

        Raises:
            ConfigError: it holds something else.
        """
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        from cryptography.hazmat.primitives.serialization import load_pem_public_key

        try:
            key: Any = load_pem_public_key(text)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            key = None
        if not isinstance(key, Ed25519PublicKey):
            raise ConfigError("expected an Ed25519 public key in PEM", key="public_key")
        return cls(key)

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> PublicKey:
        """Return the key in a PEM file.

        Raises:
            AuditError: it cannot be read.
            ConfigError: it holds something else.
        """
        return cls.from_pem(_read(path))

    def pem(self) -> bytes:
        """Return the key as PEM, for `from_pem` and for `openssl`."""
        return self._pem

    def is_signature(self, signature: bytes, message: bytes) -> bool:
        """Return whether this key's owner signed the message."""
        from cryptography.exceptions import InvalidSignature

        try:
            self._key.verify(signature, message)
        except InvalidSignature:
            return False
        return True

    def __repr__(self) -> str:
        return f"<PublicKey {self.id[:16]}>"


class SigningKey:
    """The key that signs.

    Args:
        key: of the `cryptography` package; `generate`, `from_pem` and `from_file` make one.
    """

    __slots__ = ("_key", "public")

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public: PublicKey = PublicKey(key.public_key())

    @classmethod
    def generate(cls) -> SigningKey:
        """Return a new random key."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_pem(cls, text: bytes, *, password: bytes | None = None) -> SigningKey:
        """Return the key in a PKCS #8 PEM (`openssl genpkey -algorithm ed25519`).

        Raises:
            ConfigError: it holds something else, or the password is not its.
        """
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        try:
            key: Any = load_pem_private_key(text, password)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            key = None  # SECURITY: the package's own words may quote what it read
        if not isinstance(key, Ed25519PrivateKey):
            raise ConfigError("expected an Ed25519 private key in PEM, and its password if it has one", key="key")
        return cls(key)

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], *, password: bytes | None = None) -> SigningKey:
        """Return the key in a PEM file.

        Raises:
            AuditError: it cannot be read.
            ConfigError: as for `from_pem`.
        """
        return cls.from_pem(_read(path), password=password)

    @classmethod
    def take(cls, given: object) -> SigningKey:
        """Return the key that a caller gave: one of these, or an `Ed25519PrivateKey` of the `cryptography` package.

        Raises:
            ConfigError: it is neither.
        """
        if isinstance(given, cls):
            return given
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        if isinstance(given, Ed25519PrivateKey):
            return cls(given)
        raise ConfigError(f"expected a SigningKey, got {type(given).__name__}", key="$.receipt_key")

    def sign(self, message: bytes) -> bytes:
        """Return the signature of a message, 64 bytes."""
        return self._key.sign(message)

    def __repr__(self) -> str:
        return f"<SigningKey {self.public.id[:16]}>"

    def __reduce__(self) -> str:
        raise ConfigError("a signing key is not copied out of its process; read it again where it is needed")


def _read(path: str | os.PathLike[str]) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(_MOST_FILE_BYTES)
    except OSError as error:
        raise AuditError(f"{os.fspath(path)}: the key cannot be read: {error.strerror}", check="key") from None
