"""Check digits that vendors put into their tokens.

Does not: decide alone; a token whose digits are right counts whatever it looks like, one whose digits are wrong counts
by its looks, since formats age. May be used by: kavach.gate.secrets.
"""

from __future__ import annotations

import binascii

_DIGITS = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_SUM_BYTES = 6  # 32 bits in base 62


def has_crc32(token: bytes) -> bool:
    """Whether a token ends in the CRC-32 of its random part, in base 62.

    GitHub (github.blog, "Behind GitHub's new authentication token formats", 2021) and npm use it.
    """
    _, _, body = token.partition(b"_")
    if len(body) <= _SUM_BYTES:
        return False
    left = binascii.crc32(body[:-_SUM_BYTES])
    digits = bytearray()
    for _ in range(_SUM_BYTES):
        left, digit = divmod(left, len(_DIGITS))
        digits.append(_DIGITS[digit])
    return bytes(reversed(digits)) == body[-_SUM_BYTES:]
