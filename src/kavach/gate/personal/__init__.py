"""Personal data: what identifies, reaches or costs a person, found by structure and check digits.

Enforces: a number counts only where its format, ranges and check digit hold; what is reserved for documentation, tests
or private networks is `info`; contact data is `low` alone and `medium` on a line with the vocabulary of a compliance
regime. Does not: find names, addresses or faces; look a number up anywhere. May be used by: kavach.gate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kavach.gate.personal.accounts import IBAN_RULES
from kavach.gate.personal.cards import CARD_RULES
from kavach.gate.personal.email import EMAIL_RULES
from kavach.gate.personal.identity import IDENTITY_RULES
from kavach.gate.personal.network import NETWORK_RULES
from kavach.gate.personal.phone import PHONE_RULES
from kavach.gate.personal.vocabulary import regulated

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kavach.gate.rule import Mark, Rule

__all__ = ["PERSONAL", "PersonalScanner"]


class PersonalScanner:
    """The rules for personal data, and what the words around a find add to it."""

    name: str = "personal"
    rules: tuple[Rule, ...] = CARD_RULES + IBAN_RULES + IDENTITY_RULES + EMAIL_RULES + PHONE_RULES + NETWORK_RULES

    def inspect(self, text: bytes, marks: Sequence[Mark]) -> Iterator[Mark]:
        """Yield a `medium` mark for each find that stands on a line with words of HIPAA, GDPR, PCI-DSS or SOC 2.

        Args:
            text: the text, or whole lines of it.
            marks: what the rules found in it.
        """
        for mark in marks:
            yield from regulated(text, mark)


PERSONAL = PersonalScanner()
"""The one scanner for personal data; it has no state."""
