"""Whether bytes look like what a random generator made, and not like words, names or a person's stand-in for a secret.

Enforces: a value is judged by itself, by entropy per alphabet, by how often its kind of character changes and by words
that people write where a secret will stand. Does not: know which key a value is for. May be used by:
kavach.gate.secrets.
"""

from __future__ import annotations

import functools
import math
import re
from collections import Counter

from kavach.gate.secrets.published import is_published

_HEX = re.compile(rb"(?:[0-9a-f]+|[0-9A-F]+)\Z")
_UUID = re.compile(rb"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}\Z")
# What stands in documentation and templates where a secret will: no generator writes these but once in millions.
_STAND_INS = re.compile(
    rb"example|placeholder|change_?-?me|your[_-]?|dummy|sample|redacted|insert|replace|xxxxxx|\*\*\*\*|\.\.\.\."
    rb"|abcdefghijklmnop|0123456789abcdef|foobar|my[_-]|todo|<|\$\{|\{\{|\$\(|%\(|%s",
    re.IGNORECASE,
)
_ENOUGH_HEX = 2.6  # bits a character; 32 random hex digits have 3.6 in the mean, never less than 2.8 in a million
_ENOUGH = 3.0  # bits a character; 20 random letters and digits have 4.0 in the mean
_CHANGES = 0.21  # of a value's places; 0.40 in the mean for lower case with digits, 0.65 with both cases
_CHANGES_MIXED = 0.3
_LONG = 30
_CHANGES_LONG = 0.16
_KINDS = bytes(
    1 if 0x30 <= byte <= 0x39 else 2 if 0x61 <= byte <= 0x7A else 3 if 0x41 <= byte <= 0x5A else 0
    for byte in range(256)
)


@functools.lru_cache(maxsize=256)
def entropy(value: bytes) -> float:
    """Return Shannon's entropy of a value's own bytes, in bits a byte."""
    size = len(value)
    return -sum(count / size * math.log2(count / size) for count in Counter(value).values()) if size else 0.0


def is_stand_in(value: bytes) -> bool:
    """Whether a person wrote this where a secret will stand."""
    return _STAND_INS.search(value) is not None or len(set(value)) <= 3


def is_uuid(value: bytes) -> bool:
    """Whether a value has the form of a UUID that is not nearly empty."""
    return _UUID.match(value) is not None and entropy(value) > 2.0


def changes(value: bytes) -> float:
    """Return how often lower case, upper case and digits follow each other, for each of a value's places.

    A capital before small letters is a word's beginning and counts as none.
    """
    kinds = value.translate(_KINDS)
    count = 0
    for at in range(1, len(kinds)):
        before, here = kinds[at - 1], kinds[at]
        is_word = (before, here) == (3, 2) or (before, here) == (2, 3)
        count += 2 * (before not in {here, 0} and here != 0) - is_word
    return count / (2 * max(1, len(kinds)))


def is_random(value: bytes) -> bool:
    """Whether a value looks generated: enough entropy for its alphabet, and a digit among letters that change often.

    Args:
        value: at least 10 bytes; shorter ones never are.
    """
    if len(value) < 10 or is_stand_in(value) or is_published(value):
        return False
    if is_uuid(value):
        return True
    digits = sum(0x30 <= byte <= 0x39 for byte in value)
    if digits == 0:
        return _is_random_without_digits(value)
    if digits == len(value) or entropy(value) < (_ENOUGH_HEX if _HEX.match(value) else _ENOUGH):
        return False
    return changes(value) >= (_CHANGES_LONG if len(value) >= _LONG else _CHANGES)


def is_made(value: bytes) -> bool:
    """Whether a value of the right length and alphabet is more than one word or several: it has digits, or mixes."""
    return any(0x30 <= byte <= 0x39 for byte in value) or changes(value) > _CHANGES_MIXED


def _is_random_without_digits(value: bytes) -> bool:
    """Letters alone: only much entropy over both cases tells them from words."""
    kinds = value.translate(_KINDS)
    return len(value) >= _LONG and 2 in kinds and 3 in kinds and entropy(value) >= 4.3 and changes(value) > 0.2
