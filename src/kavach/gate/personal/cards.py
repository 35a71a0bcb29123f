"""Payment card numbers: an issuer's range and length, Luhn's check digit, and groups as they are printed.

Does not: know which numbers are in use; a test number of a network counts as a card. May be used by:
kavach.gate.personal.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from kavach.gate.rule import Rule
from kavach.model.verdict import Severity

if TYPE_CHECKING:
    from kavach.gate.rule import Match

_DOUBLED = bytes.maketrans(b"0123456789", bytes([0, 2, 4, 6, 8, 1, 3, 5, 7, 9]))  # ISO/IEC 7812-1 annex B
_PLAIN = bytes.maketrans(b"0123456789", bytes(range(10)))

# (first, last, lengths): the issuer identification numbers of ISO/IEC 7812 as the networks publish them.
_ISSUERS: tuple[tuple[str, str, frozenset[int]], ...] = (
    ("4", "4", frozenset({13, 16, 19})),  # Visa
    ("51", "55", frozenset({16})),  # Mastercard
    ("2221", "2720", frozenset({16})),  # Mastercard
    ("34", "34", frozenset({15})),  # American Express
    ("37", "37", frozenset({15})),
    ("6011", "6011", frozenset(range(16, 20))),  # Discover
    ("644", "659", frozenset(range(16, 20))),
    ("300", "305", frozenset(range(14, 20))),  # Diners Club
    ("3095", "3095", frozenset(range(14, 20))),
    ("36", "36", frozenset(range(14, 20))),
    ("38", "39", frozenset(range(14, 20))),
    ("3528", "3589", frozenset(range(16, 20))),  # JCB
    ("62", "62", frozenset(range(16, 20))),  # UnionPay
    ("81", "82", frozenset(range(16, 20))),  # UnionPay, RuPay
    ("60", "60", frozenset({16})),  # RuPay
    ("2200", "2205", frozenset(range(16, 20))),  # Mir
    ("50", "50", frozenset(range(12, 20))),  # Maestro, Dankort (5019), RuPay (508)
    ("56", "58", frozenset(range(12, 20))),  # Maestro
    ("63", "63", frozenset(range(16, 20))),  # Maestro, InstaPayment
    ("67", "67", frozenset(range(12, 20))),  # Maestro
    ("1", "1", frozenset({15})),  # UATP
)


_URL = re.compile(rb"://[^\s\"'<>]*/$")
_QUERY = re.compile(rb"[?&][\w.-]{1,24}=$")
# Not the words of our own label: what stands behind one is judged as it was.
_CARD_WORD = re.compile(rb"(?i)card(?!\])|visa|maestro|credit|debit|payment(?!-card\])|unionpay|\bpan\b|\bcc\b")


def has_luhn(digits: bytes) -> bool:
    """Return whether the last digit is Luhn's check digit of the others.

    Args:
        digits: ASCII digits only.
    """
    odd, even = digits[-1::-2].translate(_PLAIN), digits[-2::-2].translate(_DOUBLED)
    return (sum(odd) + sum(even)) % 10 == 0


def is_card(digits: bytes) -> bool:
    """Return whether these digits are a card number of some issuer.

    Args:
        digits: ASCII digits only.
    """
    text = digits.decode("ascii")
    in_range = any(len(text) in lengths and first <= text[: len(first)] <= last for first, last, lengths in _ISSUERS)
    return in_range and has_luhn(digits) and len(set(text)) > 1


def _stands_alone(found: Match) -> bool:
    """Return whether the number is no part of a fraction, an identifier, a UUID or an address."""
    before, after = found.before()[-2:], found.after()[:2]
    is_path = before[-1:] == b"/" and _URL.search(found.before()) is not None
    # UATP's range is wide: numbers of messages in queries look like it.
    is_key = found.group()[:1] == b"1" and _QUERY.search(found.before()[-32:]) is not None
    is_tail = before[-1:] in {b".", b"+", b"$", b"@"} or (before[-1:] == b"-" and before[:1].isalnum())
    is_head = after[:1] in {b"@", b"%"} or (after[:1] in {b".", b"-"} and after[1:].isalnum())
    return not (is_tail or is_head or is_path or is_key) and after[:1] < b"\x80"


def _is_named(found: Match) -> bool:
    """Return whether the number's length is usual for a card, or a word before it says what it is."""
    return (
        14 <= len(found.group()) <= 16
        or not found.group().isdigit()
        or (_CARD_WORD.search(found.before()[-64:]) is not None)
    )


def _accept(found: Match) -> bool:
    digits = found.group().translate(None, b" -")
    return _stands_alone(found) and is_card(digits) and _is_named(found)


CARD_RULES = (
    Rule(
        name="payment-card",
        category="card",
        severity=Severity.HIGH,
        message="A payment card number of a known issuer with a valid check digit.",
        expression=(
            r"\b(?:[1-68][0-9]{11,18}"
            r"|[2-68][0-9]{3} [0-9]{4} [0-9]{4} [0-9]{4}|[2-68][0-9]{3}-[0-9]{4}-[0-9]{4}-[0-9]{4}"
            r"|3[0-9]{3} [0-9]{6} [0-9]{4,5}|3[0-9]{3}-[0-9]{6}-[0-9]{4,5})\b"
        ),
        max_bytes=19,
        accept=_accept,
    ),
)
