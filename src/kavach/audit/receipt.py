"""The receipt of one command: what a user can show to somebody else, who has the public key and nothing of Kavach's.

Enforces: what is said is fixed, and its digest known, before the outcome is recorded; it is signed when it is read or
exported, always the same bytes. Does not: prove that the host's own kernel told the truth. May be used by: users,
kavach.sandbox, kavach.cli.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import msgspec

from kavach.audit.canonical import canonical_json
from kavach.audit.digest import sha256_hex
from kavach.audit.dsse import open_envelope, seal_envelope
from kavach.audit.statement import PREDICATE_TYPE, RECEIPT_VERSION, STATEMENT_TYPE
from kavach.errors import AuditError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kavach.audit.signing import PublicKey, SigningKey

__all__ = ["PAYLOAD_TYPE", "Receipt", "host_facts", "open_receipt", "verify_receipt"]

PAYLOAD_TYPE = "application/vnd.in-toto+json"  # in-toto attestation, spec/v1/envelope.md


class Receipt:
    """What is said of one command, and the key that will sign it.

    Args:
        statement: of `make_statement`.
        key: signs when the receipt is read; None = it carries a digest only.

    Raises:
        ConfigError: the statement has no canonical form.
    """

    __slots__ = ("_envelope", "_key", "digest", "statement_bytes")

    def __init__(self, statement: Mapping[str, Any], key: SigningKey | None = None) -> None:
        self.statement_bytes: bytes = canonical_json(dict(statement))
        self.digest: str = sha256_hex(self.statement_bytes)
        self._key = key
        self._envelope: bytes | None = None

    @property
    def is_signed(self) -> bool:
        """Whether there is a key, or there was one when it was copied to another process."""
        return self._key is not None or self._envelope is not None

    @property
    def statement(self) -> dict[str, Any]:
        """What it says."""
        plain: dict[str, Any] = msgspec.json.decode(self.statement_bytes)
        return plain

    def export(self) -> bytes:
        """Return the signed receipt: a DSSE envelope, one line of JSON.

        Raises:
            AuditError: there is no key; `.check` is `signature`.
        """
        if self._envelope is None:
            if self._key is None:
                raise AuditError("the receipt has no signature: no receipt_key was configured", check="signature")
            self._envelope = seal_envelope(PAYLOAD_TYPE, self.statement_bytes, self._key)
        return self._envelope

    def to_dict(self) -> dict[str, Any]:
        """Return the digest and, as far as there is a key, the signed envelope, as JSON can hold them."""
        return {"sha256": self.digest, "envelope": msgspec.json.decode(self.export()) if self.is_signed else None}

    def __repr__(self) -> str:
        return f"<Receipt {self.digest[:16]}>"

    def __reduce__(self) -> tuple[Any, ...]:
        # SECURITY: a copy in another process carries the signature, never the key.
        return _restore, (self.statement_bytes, self.export() if self.is_signed else None)


def _restore(statement: bytes, envelope: bytes | None) -> Receipt:
    receipt = Receipt(msgspec.json.decode(statement))
    receipt._envelope = envelope  # noqa: SLF001 - this module's own class
    return receipt


def verify_receipt(envelope: bytes, public_key: PublicKey) -> None:
    """Return when this is a receipt that the key's owner signed.

    Args:
        envelope: the exported receipt.
        public_key: whose signature it must carry.

    Raises:
        AuditError: it is not; `.check` is `form`, `signature`, `type` or `version`.
    """
    open_receipt(envelope, public_key)


def open_receipt(envelope: bytes, public_key: PublicKey) -> dict[str, Any]:
    """Return what a receipt says, once it is known to be one that the key's owner signed.

    Raises:
        AuditError: as for `verify_receipt`.
    """
    payload = open_envelope(envelope, PAYLOAD_TYPE, public_key)
    try:
        statement = msgspec.json.decode(payload, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise AuditError("expected an in-toto statement", check="form") from None
    if statement.get("_type") != STATEMENT_TYPE or statement.get("predicateType") != PREDICATE_TYPE:
        raise AuditError("expected the statement of a Kavach receipt", check="type")
    predicate = statement.get("predicate")
    if not isinstance(predicate, dict) or predicate.get("version") != RECEIPT_VERSION:
        raise AuditError(f"expected a receipt of version {RECEIPT_VERSION}", check="version")
    return statement


def host_facts() -> dict[str, str]:
    """Return what a receipt says of this host: its kernel and machine, not its name."""
    found = os.uname()
    return {"system": found.sysname, "release": found.release, "version": found.version, "machine": found.machine}
