"""Telephone numbers, where something but their digits says so: a plus, a printed grouping, or a word beside them.

Does not: know which numbers are in use, or which national lengths a country allows. May be used by:
kavach.gate.personal.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from kavach.gate.rule import Rule
from kavach.model.verdict import Severity

if TYPE_CHECKING:
    from kavach.gate.rule import Match

# Country codes in use, by their first digits (ITU-T E.164, list of 2016-11-15 with its bulletins).
_COUNTRY_CODES = re.compile(
    "1|7|2(?:0|7|[1-69][0-9])|3(?:[0-4]|6|9|[578][0-9])|4(?:[013-9]|2[0-9])|5(?:[1-8]|[09][0-9])"
    "|6(?:[0-6]|[7-9][0-9])|8(?:[1246]|[0578][0-9])|9(?:[0-58]|[679][0-9])"
)
_SEPARATORS = b" ().-/"


def _digits(text: bytes) -> str:
    return text.translate(None, _SEPARATORS + b"+").decode("ascii")


def _is_bounded(found: Match) -> bool:
    before, after = found.before()[-1:], found.after()[:2]
    return not (before.isalnum() or before in {b"+", b".", b"_", b"-", b"/", b"="}) and not (
        after[:1] in {b"_", b"@", b"+"} or (after[:1] in {b".", b"-", b"/", b":"} and after[1:].isdigit())
    )


def _is_american(national: str) -> bool:
    """Return whether ten digits fit the North American plan: NXX-NXX-XXXX, N of 2 to 9, and no N11 as an area."""
    return len(national) == 10 and national[0] >= "2" and national[3] >= "2" and national[1:3] != "11"


def _accept_international(found: Match) -> bool:
    digits = _digits(found.group())
    if not 8 <= len(digits) <= 15 or not _is_bounded(found):  # E.164, 6.2.1: at most 15
        return False
    if digits[0] == "1":
        return _is_american(digits[1:])
    return _COUNTRY_CODES.match(digits) is not None and len(set(digits)) > 2


def _accept_american(found: Match) -> bool:
    return _is_american(_digits(found.group())[-10:]) and _is_bounded(found)


def _accept_labelled(found: Match) -> bool:
    digits = _digits(found.group(1))
    after = found.after()[:2]
    return (
        7 <= len(digits) <= 15
        and len(set(digits)) > 2
        and not (after[:1] in {b".", b"-", b":"} and after[1:].isdigit())
    )


_MESSAGE = "A telephone number."
PHONE_RULES = (
    Rule(
        name="phone-international",
        category="contact",
        severity=Severity.LOW,
        message=_MESSAGE,
        expression=r"\+[1-9][0-9]?(?:[ ().-]{0,2}[0-9]){5,12}[0-9]\b",
        max_bytes=48,
        literals=(b"+",),
        accept=_accept_international,
    ),
    Rule(
        name="phone-american",
        category="contact",
        severity=Severity.LOW,
        message=_MESSAGE,
        expression=(
            r"(?:\b[0-9]{1,2}[ .-])?(?:\([2-9][0-9]{2}\) ?[2-9][0-9]{2}[ .-][0-9]{4}"
            r"|\b[2-9][0-9]{2}(?:-[2-9][0-9]{2}-|\.[2-9][0-9]{2}\.)[0-9]{4})\b"
        ),
        max_bytes=24,
        accept=_accept_american,
    ),
    Rule(
        name="phone-labelled",
        category="contact",
        severity=Severity.LOW,
        message=_MESSAGE,
        expression=(
            r"(?i)\b(?:(?:tele|cell|smart)?phone|mobile|cell|tel|fax|whatsapp|number is)\b"
            r"(?: ?(?:number|no|nr|num|is|at|on))*[ \t:=#.'\">-]{0,6}([0(]?[0-9][0-9 ().-]{5,16}[0-9])\b"
        ),
        max_bytes=64,
        literals=(b"phone", b"mobile", b"cell", b"tel", b"fax", b"whatsapp", b"number is"),
        group=1,
        accept=_accept_labelled,
    ),
)
