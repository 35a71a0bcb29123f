"""JSON web tokens, signed or encrypted, as they are and in base64.

Enforces: the first part decodes to a JSON object. Does not: verify a signature, or look at a token's time: who finds an
old token still learns what it says. May be used by: kavach.gate.secrets.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import TYPE_CHECKING

from kavach.gate.rule import Rule
from kavach.gate.secrets.shape import is_apart
from kavach.model.verdict import Severity

if TYPE_CHECKING:
    from kavach.gate.rule import Match

_TOKEN_BYTES = 16 << 10  # cookies end at 4 KiB, headers at 8 to 16 KiB
_PART = r"[A-Za-z0-9_-]"
# eyJ is the base64 of {" - eyA of {space, ewo of { and a line end, ew0 of { and \r
_OPEN = r"e(?:y[JAB]|w[o0k])"
_SIGNED = rf"{_OPEN}{_PART}{{8,}}\.{_OPEN}{_PART}{{8,}}(?:\.{_PART}*)?"
_ENCRYPTED = rf"{_OPEN}{_PART}{{8,}}\.{_PART}*\.{_PART}+\.{_PART}+\.{_PART}+"
_WRAPPED = r"ZX(?:lK|lB|dv|cw|dr)[A-Za-z0-9+/_-]{60,}={0,2}"  # the base64 of those beginnings
_ENCRYPTED_DOTS = 4  # RFC 7516 section 3.1
_NAMES = frozenset({"alg", "typ", "kid", "kty", "enc", "cty", "jku", "x5t", "x5c", "zip"})  # RFC 7515 section 4.1


def decoded(part: bytes) -> bytes:
    """Return what base64, of either alphabet and with its padding or without, stands for; empty where it is none."""
    text = part.rstrip(b"=").replace(b"-", b"+").replace(b"_", b"/")
    try:
        return base64.b64decode(text + b"=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        return b""


def _is_header(part: bytes, *, is_signed: bool) -> bool:
    try:
        header = json.loads(decoded(part))
    except (ValueError, RecursionError):
        return False
    return isinstance(header, dict) and (bool(header) if is_signed else not _NAMES.isdisjoint(header))


def _is_token(found: Match) -> bool:
    text = found.group()
    first, _, rest = text.partition(b".")
    second = rest.partition(b".")[0]
    if not is_apart(found):
        return False
    is_signed = text.count(b".") < _ENCRYPTED_DOTS
    return _is_header(first, is_signed=is_signed) and (not is_signed or decoded(second)[:1] == b"{")


def _is_wrapped(found: Match) -> bool:
    text = decoded(found.group()[: 1 << 12])
    first, dot, rest = text.partition(b".")
    return bool(dot) and _is_header(first, is_signed=True) and decoded(rest[:8])[:1] == b"{"


TOKEN_RULES = (
    Rule(
        "jwt",
        "jwt",
        Severity.HIGH,
        "A JSON web token.",
        rf"(?:{_ENCRYPTED}|{_SIGNED})",
        _TOKEN_BYTES,
        (b"eyj", b"eya", b"eyb", b"ewo", b"ew0", b"ewk"),
        0,
        _is_token,
    ),
    Rule(
        "jwt-base64",
        "jwt",
        Severity.HIGH,
        "A JSON web token in base64.",
        _WRAPPED,
        _TOKEN_BYTES,
        (b"zxlk", b"zxlb", b"zxdv", b"zxcw", b"zxdr"),
        0,
        _is_wrapped,
    ),
)
