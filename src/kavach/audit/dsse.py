"""Signed envelopes: the Dead Simple Signing Envelope, version 1.0.2 of the specification.

Enforces: what is signed is the payload with its type, by Ed25519; nothing of a payload is given out before its
signature was verified. Does not: know what a payload means. May be used by: kavach.audit.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from typing import TYPE_CHECKING

import msgspec

from kavach.audit.canonical import canonical_json
from kavach.errors import AuditError

if TYPE_CHECKING:
    from kavach.audit.signing import PublicKey, SigningKey

__all__ = ["open_envelope", "pre_authentication", "seal_envelope"]

MOST_ENVELOPE_BYTES = 8 << 20  # protects whoever verifies an envelope from one that fills the memory


class _Signature(msgspec.Struct, frozen=True, kw_only=True):
    sig: str
    keyid: str = ""


class _Envelope(msgspec.Struct, frozen=True, kw_only=True):
    payload: str
    payloadType: str  # noqa: N815 - the specification's own spelling
    signatures: list[_Signature]


def pre_authentication(payload_type: str, payload: bytes) -> bytes:
    """Return the bytes that are signed: PAE of the DSSE protocol, section "Signature Definition".

    Args:
        payload_type: its media type.
        payload: its bytes.
    """
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def seal_envelope(payload_type: str, payload: bytes, key: SigningKey) -> bytes:
    """Return a signed envelope as one line of JSON, without a line feed.

    Args:
        payload_type: its media type.
        payload: what is signed.
        key: by whom.
    """
    signature = key.sign(pre_authentication(payload_type, payload))
    signed = {"keyid": key.public.id, "sig": b64encode(signature).decode()}
    body = {"payload": b64encode(payload).decode(), "payloadType": payload_type, "signatures": [signed]}
    return canonical_json(body)


def open_envelope(envelope: bytes, payload_type: str, key: PublicKey) -> bytes:
    """Return the payload of an envelope that this key's owner signed.

    Args:
        envelope: its JSON.
        payload_type: the media type that is expected.
        key: who must have signed; the `keyid` inside is a hint and is not believed.

    Raises:
        AuditError: it is no envelope (`.check` is `form`), holds something else (`type`), or is not signed by the key
            (`signature`).
    """
    if len(envelope) > MOST_ENVELOPE_BYTES:
        raise AuditError(f"expected an envelope of at most {MOST_ENVELOPE_BYTES} bytes", check="form")
    try:
        found = msgspec.json.decode(envelope, type=_Envelope)
        payload = b64decode(found.payload, validate=True)
        signatures = [b64decode(one.sig, validate=True) for one in found.signatures]
    except (msgspec.DecodeError, UnicodeError, Base64Error, ValueError):
        raise AuditError("expected a DSSE envelope", check="form") from None
    # SECURITY: the type is part of what is signed, so a checkpoint can never be taken for a receipt.
    if not any(key.is_signature(one, pre_authentication(found.payloadType, payload)) for one in signatures):
        raise AuditError("the envelope is not signed by this key", check="signature")
    if found.payloadType != payload_type:
        raise AuditError(f"expected an envelope of {payload_type}", check="type")
    return payload
