"""One value has one JSON text: the JSON Canonicalization Scheme, RFC 8785.

Enforces: members sorted by UTF-16 code units, numbers as ECMAScript writes them, no blank, no escape that is not
needed; what I-JSON (RFC 7493) cannot carry exactly is refused. Does not: parse, or sign. Pure. May be used by:
kavach.audit and whoever makes a payload for it.
"""

from __future__ import annotations

import math
from json.encoder import encode_basestring
from typing import Any

from kavach.errors import ConfigError

__all__ = ["CanonicalText", "canonical_json"]

MAX_INTEGER = 2**53 - 1  # RFC 7493, section 2.2: larger ones do not survive a double
MAX_DEPTH = 32  # protects whoever reads a record from a stack that overflows
_POINT_AFTER_AT_MOST = 21  # ECMA-262, Number::toString, step 6: from 1e21 on it writes an exponent
_ZEROS_AFTER_POINT_AT_MOST = 6  # likewise step 8: below 1e-6 it writes an exponent


class CanonicalText(str):
    """What `canonical_json` made of a part, kept because the part comes again; it is put in as it is."""

    __slots__ = ()


def canonical_json(value: object) -> bytes:
    """Return the canonical JSON of a value, in UTF-8.

    Args:
        value: dict, list, tuple, str (also an enum of ours), int, float, bool or None, nested to a depth of 32.

    Raises:
        ConfigError: something in it has no canonical form (bytes, NaN, an integer beyond 2**53 - 1, a lone surrogate,
            a key that is no text); named by its type, never quoted.
    """
    try:
        return _text(value, MAX_DEPTH).encode("utf-8")
    except UnicodeEncodeError:
        raise ConfigError("expected text that UTF-8 can carry, got a lone surrogate") from None


def _text(value: Any, depth: int) -> str:  # noqa: ANN401 - JSON
    kind = type(value)
    if kind is str:
        return encode_basestring(value)
    if value is None:
        return "null"
    if kind is bool:
        return "true" if value else "false"
    if kind is int:
        return _integer(value)
    if depth == 0:
        raise ConfigError(f"expected at most {MAX_DEPTH} levels of nesting")
    if kind is dict:
        return _object(value, depth - 1)
    if kind is list or kind is tuple:
        return f"[{','.join([_text(member, depth - 1) for member in value])}]"
    if kind is float:
        return _number(value)
    return _other(value)


def _other(value: object) -> str:
    """Return what is ready, an enum's text or a subclassed integer's digits: `Verdict.PASS`, `StrengthScore(69)`."""
    if type(value) is CanonicalText:
        return value
    if isinstance(value, str):
        return encode_basestring(str(value))
    if isinstance(value, int):
        return _integer(int(value))
    raise ConfigError(f"expected JSON values, got {type(value).__name__}")


def _object(members: dict[Any, Any], depth: int) -> str:
    for name in members:
        if not isinstance(name, str):
            raise ConfigError(f"expected text as the name of a member, got {type(name).__name__}")
    names = sorted(members) if all(map(str.isascii, members)) else sorted(members, key=_utf16)
    return "{" + ",".join([f"{encode_basestring(name)}:{_member(members[name], depth)}" for name in names]) + "}"


def _member(value: Any, depth: int) -> str:  # noqa: ANN401 - JSON
    """Return what most members are, texts, without a look at anything else."""
    return encode_basestring(value) if type(value) is str else _text(value, depth)


def _utf16(name: str) -> bytes:
    return name.encode("utf-16-be")


def _integer(value: int) -> str:
    if not -MAX_INTEGER <= value <= MAX_INTEGER:
        raise ConfigError("expected an integer within 2**53 - 1, which JSON carries exactly")
    return str(value)


def _number(value: float) -> str:
    """Return a double as ECMA-262 `Number::toString` writes it; `repr` finds the same shortest digits."""
    if not math.isfinite(value):
        raise ConfigError("expected a finite number, got NaN or infinity")
    if value == 0:
        return "0"
    sign = "-" if value < 0 else ""
    mantissa, _, exponent = repr(abs(value)).partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    point = len(whole) + int(exponent or 0) - (len(whole + fraction) - len(digits))
    return sign + _placed(digits.rstrip("0"), point)


def _placed(digits: str, point: int) -> str:
    """Return 0.`digits` times 10 to the power of `point`."""
    count = len(digits)
    if count <= point <= _POINT_AFTER_AT_MOST:
        return digits + "0" * (point - count)
    if 0 < point <= _POINT_AFTER_AT_MOST:
        return f"{digits[:point]}.{digits[point:]}"
    if -_ZEROS_AFTER_POINT_AT_MOST < point <= 0:
        return f"0.{'0' * -point}{digits}"
    mantissa = digits if count == 1 else f"{digits[0]}.{digits[1:]}"
    return f"{mantissa}e{point - 1:+d}"
