"""What may be said of a thing that was found: its kind, its length, a salted digest, at most four characters.

Enforces: nobody can get the thing back from its evidence, nor compare two runs' evidence without their salts. Does not:
choose what is found. May be used by: kavach.gate.
"""

from __future__ import annotations

import hashlib

SHOWN_BYTES = 4
"""How much of a long secret is shown: its prefix tells which of one's keys it is (gate.md)."""
LONG_BYTES = 20
"""What is not longer than this is not shown at all."""
SALT_BYTES = 32
"""How long a result's salt is; random, so that two results cannot be compared."""
_DIGEST_BYTES = 6
_DIGEST_TEXT_BYTES = 1 << 20  # a digest tells two finds apart; of a whole archive its first part does


def mask(kind: str, thing: bytes, salt: bytes) -> str:
    """Return evidence of a thing.

    Args:
        kind: what it is, one word.
        thing: the bytes that were found.
        salt: random and kept for one result, 16 to 64 bytes.
    """
    digest = hashlib.blake2b(thing[:_DIGEST_TEXT_BYTES], digest_size=_DIGEST_BYTES, key=salt).hexdigest()
    shown = f", begins {_printable(thing[:SHOWN_BYTES])}" if len(thing) > LONG_BYTES else ""
    return f"{kind}, {len(thing)} bytes{shown}, digest {digest}"


def _printable(head: bytes) -> str:
    return "".join(chr(byte) if 0x21 <= byte < 0x7F else "?" for byte in head)
