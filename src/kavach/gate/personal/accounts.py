"""International bank account numbers: a country of the registry, its length and structure, and mod 97.

Does not: check a bank's own digits inside the number, or whether the account exists. May be used by:
kavach.gate.personal.
"""

from __future__ import annotations

import functools
import re
from collections import defaultdict
from typing import TYPE_CHECKING

from kavach.gate.rule import Rule
from kavach.model.verdict import Severity

if TYPE_CHECKING:
    from kavach.gate.rule import Match

# Country and the structure of what follows the check digits: n digits, a capitals, c both (ISO 13616-1:2020; SWIFT
# IBAN Registry, release 101). The last line: countries that use IBANs without being in it, by length alone.
_REGISTRY = """
AD 8n12c   AE 19n     AL 8n16c    AT 16n     AZ 4a20c    BA 16n     BE 12n      BG 4a6n8c  BH 4a14c    BI 23n
BR 23n1a1c BY 4c4n16c CH 5n12c    CR 18n     CY 8n16c    CZ 20n     DE 18n      DJ 23n     DK 14n      DO 4c20n
EE 16n     EG 25n     ES 20n      FI 14n     FK 2a12n    FO 14n     FR 10n11c2n GB 4a14n   GE 2a16n    GI 4a15c
GL 14n     GR 7n16c   GT 24c      HN 4a20n   HR 17n      HU 24n     IE 4a14n    IL 19n     IQ 4a15n    IS 22n
IT 1a10n12c JO 4a4n18c KW 4a22c   KZ 3n13c   LB 4n20c    LC 4a24c   LI 5n12c    LT 16n     LU 3n13c    LV 4a13c
LY 21n     MC 10n11c2n MD 20c     ME 18n     MK 3n10c2n  MN 16n     MR 23n      MT 4a5n18c MU 4a19n3a  NI 4a20n
NL 4a10n   NO 11n     OM 3n16c    PK 4a16c   PL 24n      PS 4a21c   PT 21n      QA 4a21c   RO 4a16c    RS 18n
RU 14n15c  SA 2n18c   SC 4a20n3a  SD 14n     SE 20n      SI 15n     SK 20n      SM 1a10n12c SO 19n     ST 21n
SV 4a20n   TL 19n     TN 20n      TR 6n16c   UA 6n19c    VA 18n     VG 4a16n    XK 16n     YE 4a4n18c
AO 21c BF 24c BJ 24c CF 23c CG 23c CI 24c CM 23c CV 21c DZ 22c GA 23c GQ 23c GW 21c IR 22c KM 23c MA 24c MG 23c
ML 24c MZ 21c NE 24c SN 24c TD 23c TG 24c
"""
_CLASSES = {"n": "[0-9]", "a": "[A-Z]", "c": "[A-Z0-9]"}
_PART = re.compile(r"([0-9]+)([nac])")
_STRUCTURES = dict(zip(*[iter(_REGISTRY.split())] * 2, strict=True))
_LONGEST = 34  # ISO 13616-1, 6.1
# No number with so wide a gap is accepted. The gap ends the set engine's question (kavach.gate.seeds) behind country
# and check digits: with a hundred structures in it, that engine reads a tenth as fast.
_GAP = "[ -]{0,60}"


@functools.cache
def _structure(country: str) -> re.Pattern[bytes]:
    parts = (f"{_CLASSES[kind]}{{{count}}}" for count, kind in _PART.findall(_STRUCTURES[country]))
    return re.compile("".join(parts).encode())


def is_iban(number: bytes) -> bool:
    """Return whether a country's structure and the check digits hold.

    Args:
        number: ASCII capitals and digits, without separators.
    """
    country = number[:2].decode("ascii")
    if country not in _STRUCTURES:
        return False
    digits = "".join(str(int(char, 36)) for char in (number[4:] + number[:4]).decode("ascii"))
    return int(digits) % 97 == 1 and _structure(country).fullmatch(number[4:]) is not None


def _is_printed(text: bytes) -> bool:
    """Return whether separators, if there are any, stand after every fourth character."""
    parts = text.replace(b"-", b" ").split(b" ")
    return len(parts) == 1 or (all(len(part) == 4 for part in parts[:-1]) and 1 <= len(parts[-1]) <= 4)


def _accept(found: Match) -> bool:
    text = found.group()
    after = found.after()[:1]
    return after != b"@" and after < b"\x80" and _is_printed(text) and is_iban(text.translate(None, b" -"))


def _expression() -> str:
    """Return one alternative a length, so that what is matched ends where the country's number ends."""
    by_length: dict[int, list[str]] = defaultdict(list)
    for country, structure in _STRUCTURES.items():
        by_length[sum(int(count) for count, _ in _PART.findall(structure))].append(country)
    ways = (
        f"(?:{'|'.join(countries)})[0-9]{{2}}{_GAP}[A-Z0-9](?:[ -]?[A-Z0-9]){{{length - 1}}}"
        for length, countries in by_length.items()
    )
    return rf"\b(?:{'|'.join(ways)})\b"


IBAN_RULES = (
    Rule(
        name="iban",
        category="bank-account",
        severity=Severity.MEDIUM,
        message="An international bank account number with valid check digits.",
        expression=_expression(),
        max_bytes=2 * _LONGEST + 60,
        accept=_accept,
    ),
)
