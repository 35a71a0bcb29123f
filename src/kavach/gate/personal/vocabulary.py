"""Words of compliance regimes; they say nothing alone and make the data beside them weigh more.

Enforces: only a line that holds a find is looked at, at most `CONTEXT_BYTES` either side. Does not: decide that a law
applies. May be used by: kavach.gate.personal.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from kavach.gate.rule import CONTEXT_BYTES, Mark
from kavach.model.verdict import Severity

if TYPE_CHECKING:
    from collections.abc import Iterator

# Regime, what its text calls protected, and words that stand beside it in records.
_REGIMES: tuple[tuple[str, str, re.Pattern[bytes]], ...] = (
    (
        "hipaa-data",
        "Personal data beside words of health records (45 CFR 160.103).",
        re.compile(
            rb"(?i)\b(?:patients?|diagnos[ei]s|icd-?10|medical record|mrn|prescription|health plan|medicare|medicaid"
            rb"|protected health information|lab results?|blood type|treatment plan)(?![\w-])"
        ),
    ),
    (
        "gdpr-data",
        "Personal data beside words of special or subject data (Regulation (EU) 2016/679, articles 4 and 9).",
        re.compile(
            rb"(?i)\b(?:data subject|date of birth|birth ?date|dob|ethnic(?:ity)?|religi(?:on|ous)|trade union"
            rb"|sexual orientation|political opinion|biometrics?|genetic data|personal data"
            rb"|subject access request)(?![\w-])"
        ),
    ),
    (
        "pci-dss-data",
        "Personal data beside words of cardholder data (PCI DSS 4.0, section 2).",
        re.compile(
            rb"(?i)\b(?:card ?holder|cvv2?|cvc2?|card verification|expir(?:y|ation) date|track [12] data"
            rb"|pin block)(?![\w-])"
        ),
    ),
    (
        "soc2-data",
        "Personal data beside words of customer records (TSP section 100, confidentiality and privacy).",
        re.compile(
            rb"(?i)\b(?:customer (?:record|data|account)s?|confidential|restricted data|client records?)(?![\w-])"
        ),
    ),
)


def regulated(text: bytes, mark: Mark) -> Iterator[Mark]:
    """Yield a mark over the same span for each regime whose words stand on the find's line.

    Args:
        text: the text that the mark points into.
        mark: a find of this scanner; one of `info` is nobody's data.
    """
    if mark.severity is Severity.INFO:
        return
    start = text.rfind(b"\n", max(0, mark.start - CONTEXT_BYTES), mark.start) + 1 or max(0, mark.start - CONTEXT_BYTES)
    stop = min(len(text), mark.end + CONTEXT_BYTES)
    end = text.find(b"\n", mark.end, stop)
    # What was found is left out: a word inside an address is no word beside it.
    line = text[start : mark.start] + b" " + text[mark.end : stop if end < 0 else end]
    for rule, message, words in _REGIMES:
        if words.search(line):
            yield mark._replace(rule=rule, category="compliance", severity=Severity.MEDIUM, message=message)
