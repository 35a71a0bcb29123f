"""Numbers that states give to persons: by check digit where one exists, by ranges and a word beside them elsewhere.

Enforces: a bare run of digits counts only beside a word that names it, or where its own structure is rare enough. Does
not: hold a state's check digits itself; python-stdnum knows them and is imported when a number is there to be checked.
May be used by: kavach.gate.personal.
"""

from __future__ import annotations

import functools
import importlib
from typing import TYPE_CHECKING, NamedTuple

from kavach.gate.rule import Rule
from kavach.model.verdict import Severity

if TYPE_CHECKING:
    from collections.abc import Callable

    from kavach.gate.rule import Match

_AREA = r"(?:00[1-9]|0[1-9][0-9]|[1-57-8][0-9]{2}|6[0-57-9][0-9]|66[0-57-9])"  # 20 CFR 422.103: not 000, 666, 900-999
_NEVER_ISSUED = frozenset({b"078051120", b"219099999", b"457555462"})  # SSA: used in advertisements
_WEIGHTS = (7, 3, 1)  # ICAO Doc 9303-3, 4.9
# No bracket: the name in a label is no word beside what follows it. So wide that the set engine asks for the word alone
# (kavach.gate.seeds), which is several times as fast as asking for word and number.
_GAP = r"[^\n0-9\[\]]{0,60}?"


class _NationalNumber(NamedTuple):
    """One state's number.

    Args:
        name: the rule's name.
        words: lower-case words, one of which stands before the number; empty where its own structure says enough.
        value: the expression of the number.
        module: what of python-stdnum checks it.
    """

    name: str
    words: tuple[str, ...]
    value: str
    module: str


_NATIONAL = (
    _NationalNumber("au-tax-file-number", ("tfn", "tax file"), r"[0-9]{3} ?[0-9]{3} ?[0-9]{2,3}", "au.tfn"),
    _NationalNumber("be-national-number", ("rijksregister", "registre national"), r"[0-9. -]{11,15}", "be.nn"),
    _NationalNumber("bg-egn", ("egn", "егн"), r"[0-9]{10}", "bg.egn"),
    _NationalNumber("br-cpf", (), r"[0-9]{3}\.[0-9]{3}\.[0-9]{3}-[0-9]{2}", "br.cpf"),
    _NationalNumber("br-cpf-bare", ("cpf",), r"[0-9]{11}", "br.cpf"),
    _NationalNumber("ca-social-insurance", ("social insurance",), r"[0-9]{3}[ -]?[0-9]{3}[ -]?[0-9]{3}", "ca.sin"),
    _NationalNumber("ch-ahv", ("ahv", "avs", "sozialversicherung"), r"756\.?[0-9]{4}\.?[0-9]{4}\.?[0-9]{2}", "ch.ssn"),
    _NationalNumber("cl-rut", ("rut",), r"[0-9]{1,2}\.?[0-9]{3}\.?[0-9]{3}-[0-9kK]", "cl.rut"),
    _NationalNumber("cn-resident-id", (), r"[1-8][0-9]{5}(?:19|20)[0-9]{9}[0-9X]", "cn.ric"),
    _NationalNumber("cz-birth-number", ("rodné číslo", "rodne cislo"), r"[0-9]{6}/?[0-9]{3,4}", "cz.rc"),
    _NationalNumber("de-tax-id", ("steuer-id", "steueridentifikation", "idnr"), r"[0-9 ]{11,14}", "de.idnr"),
    _NationalNumber("dk-cpr", ("cpr",), r"[0-9]{6}-?[0-9]{4}", "dk.cpr"),
    _NationalNumber("ee-personal-code", ("isikukood",), r"[0-9]{11}", "ee.ik"),
    _NationalNumber("es-dni", ("dni", "nif", "nie"), r"[0-9XYZxyz][0-9]{7}-?[A-Za-z]", "es.nif"),
    _NationalNumber("fi-personal-code", ("henkilötunnus", "hetu"), r"[0-9]{6}[+A-FU-Y-][0-9]{3}[0-9A-Y]", "fi.hetu"),
    _NationalNumber("fr-nir", ("sécurité sociale", "securite sociale", "insee"), r"[0-9AB ]{15,21}", "fr.nir"),
    _NationalNumber("gb-nhs-number", ("nhs",), r"[0-9]{3}[ -]?[0-9]{3}[ -]?[0-9]{4}", "gb.nhs"),
    _NationalNumber("hr-oib", ("oib",), r"[0-9]{11}", "hr.oib"),
    _NationalNumber("ie-pps", ("pps",), r"[0-9]{7}[A-Wa-w][ABWTXZabwtxz]?", "ie.pps"),
    _NationalNumber("il-id-number", ("teudat zehut", "israeli id"), r"[0-9]{9}", "il.idnr"),
    _NationalNumber("in-aadhaar", ("aadhaar", "uidai"), r"[0-9]{4}[ :-]?[0-9]{4}[ :-]?[0-9]{4}", "in_.aadhaar"),
    _NationalNumber("in-pan", ("pan card", "pan number", "permanent account"), r"[A-Z]{5}[0-9]{4}[A-Z]", "in_.pan"),
    _NationalNumber(
        "it-fiscal-code",
        ("codice fiscale", "fiscal code"),
        r"[A-Z]{6}[0-9]{2}[A-EHLMPRST][0-9]{2}[A-Z][0-9]{3}[A-Z]",
        "it.codicefiscale",
    ),
    _NationalNumber("kr-resident-number", ("resident registration", "주민등록"), r"[0-9]{6}-?[0-9]{7}", "kr.rrn"),
    _NationalNumber("lt-personal-code", ("asmens kod",), r"[0-9]{11}", "lt.asmens"),
    _NationalNumber("mx-curp", ("curp",), r"[A-Z]{4}[0-9]{6}[HM][A-Z]{5}[A-Z0-9][0-9]", "mx.curp"),
    _NationalNumber("nl-bsn", ("bsn", "burgerservice"), r"[0-9]{9}", "nl.bsn"),
    _NationalNumber(
        "no-national-number",
        ("fødselsnummer", "fodselsnummer", "personnummer"),
        r"[0-9]{6} ?[0-9]{5}",
        "no.fodselsnummer",
    ),
    _NationalNumber("nz-ird", ("ird number",), r"[0-9]{2,3}-?[0-9]{3}-?[0-9]{3}", "nz.ird"),
    _NationalNumber("pl-pesel", ("pesel",), r"[0-9]{11}", "pl.pesel"),
    _NationalNumber("pt-nif", ("contribuinte",), r"[0-9]{9}", "pt.nif"),
    _NationalNumber("ro-cnp", ("cnp", "cod numeric"), r"[1-9][0-9]{12}", "ro.cnp"),
    _NationalNumber("se-personal-number", ("personnummer",), r"(?:[0-9]{2})?[0-9]{6}[+-]?[0-9]{4}", "se.personnummer"),
    _NationalNumber("si-emso", ("emšo", "emso", "jmbg"), r"[0-9]{13}", "si.emso"),
    _NationalNumber("th-id-number", ("thai id", "บัตรประชาชน"), r"[0-9]-?[0-9]{4}-?[0-9]{5}-?[0-9]{2}-?[0-9]", "th.pin"),
    _NationalNumber("tr-identity-number", ("tckn", "kimlik"), r"[1-9][0-9]{10}", "tr.tckimlik"),
    _NationalNumber("us-itin", ("itin", "tax id", "taxpayer"), r"9[0-9]{2}-?[0-9]{2}-?[0-9]{4}", "us.itin"),
    _NationalNumber("za-id-number", ("south african id", "sa id", "rsa id"), r"[0-9]{13}", "za.idnr"),
)


def _digits(text: bytes) -> bytes:
    return text.translate(None, b" .-")


def _is_free(found: Match, group: int = 0) -> bool:
    """Return whether the number is no part of a longer number, a version or an identifier."""
    start, end = found.spans[group]
    before = found.text[max(0, start - 2) : start]
    after = found.text[end : end + 2]
    is_tail = before[-1:] in {b".", b"-", b"+", b"/", b"_"} and before[:1].isalnum()
    return not is_tail and not (after[:1] in {b".", b"-", b"/", b"_"} and after[1:].isalnum())


def _is_social_security(digits: bytes) -> bool:
    is_zero = digits[3:5] == b"00" or digits[5:] == b"0000"
    return len(digits) == 9 and not is_zero and digits not in _NEVER_ISSUED and len(set(digits)) > 1


def _accept_ssn(found: Match) -> bool:
    return _is_social_security(_digits(found.group())) and _is_free(found)


def _accept_named_ssn(found: Match) -> bool:
    return _is_social_security(_digits(found.group(1))) and _is_free(found, 1)


def _accept_lone_ssn(found: Match) -> bool:
    is_alone = b"-" in found.group() or (
        found.before()[-1:] in {b"", b"\n"} and found.after()[:1] in {b"", b"\n", b"\r"}
    )
    return is_alone and _accept_ssn(found)


def _has_check(field: bytes, check: int) -> bool:
    values = (0 if char == ord("<") else int(chr(char), 36) for char in field)
    return sum(value * _WEIGHTS[at % 3] for at, value in enumerate(values)) % 10 == check - ord("0")


def _accept_zone(found: Match) -> bool:
    line = found.group()[-44:]  # ICAO Doc 9303-4, 4.2.2: two lines of 44
    fields = (line[0:9], line[9]), (line[13:19], line[19]), (line[21:27], line[27])
    whole = line[0:10] + line[13:20] + line[21:43]
    return all(_has_check(field, check) for field, check in fields) and _has_check(whole, line[43])


@functools.cache
def _check_of(module: str) -> Callable[[str], bool]:
    check: Callable[[str], bool] = importlib.import_module(f"stdnum.{module}").is_valid
    return check


def _national_rule(number: _NationalNumber) -> Rule:
    group = 1 if number.words else 0

    def accept(found: Match) -> bool:
        text = found.group(group).decode("latin-1").strip()
        return _is_free(found, group) and len(set(text)) > 2 and _check_of(number.module)(text.replace(":", ""))

    # Words of other alphabets are compared as their bytes in UTF-8.
    words = "|".join(word.encode().decode("latin-1").replace(" ", "[ _-]?") for word in number.words)
    named = rf"(?i:\b(?:{words})(?:\b|[^a-z0-9])){_GAP}\b({number.value})\b"
    return Rule(
        name=number.name,
        category="national-id",
        severity=Severity.HIGH,
        message="A national number of a person with a valid check digit.",
        expression=named if number.words else rf"\b{number.value}\b",
        max_bytes=160,
        literals=tuple(word.split(" ")[0].encode() for word in number.words),
        group=group,
        accept=accept,
    )


def _ssn_rule(name: str, severity: Severity, expression: str, accept: Callable[[Match], bool], **more: object) -> Rule:
    rule = Rule(
        name, "national-id", severity, "A US Social Security number of a valid area.", expression, 64, accept=accept
    )
    return rule._replace(**more)  # type: ignore[arg-type]  # only fields of Rule are given


IDENTITY_RULES = (
    _ssn_rule("us-ssn", Severity.HIGH, rf"\b{_AREA}-[0-9]{{2}}-[0-9]{{4}}\b", _accept_ssn),
    _ssn_rule(
        "us-ssn-spaced",
        Severity.MEDIUM,
        rf"\b{_AREA}(?: [0-9]{{2}} |\.[0-9]{{2}}\.)[0-9]{{4}}\b",
        _accept_ssn,
    ),
    _ssn_rule(
        "us-ssn-named",
        Severity.HIGH,
        rf"(?i:\b(?:ssn|social security)\b){_GAP}\b({_AREA}[ .-]?[0-9]{{2}}[ .-]?[0-9]{{4}})\b",
        _accept_named_ssn,
        literals=(b"ssn", b"social security"),
        group=1,
    ),
    _ssn_rule(
        "us-ssn-like",
        Severity.INFO,
        rf"\b{_AREA}(?:[0-9]{{6}}|-[0-9]{{6}}|[0-9]{{2}}-[0-9]{{4}})\b",
        _accept_lone_ssn,
        message="Nine digits that could be a US Social Security number.",
    ),
    Rule(
        name="passport-zone",
        category="passport",
        severity=Severity.HIGH,
        message="The machine-readable zone of a passport with valid check digits.",
        expression=r"P[A-Z<][A-Z<]{42}\r?\n[A-Z0-9<]{9}[0-9][A-Z<]{3}[0-9]{7}[MFX<][0-9]{7}[A-Z0-9<]{14}[0-9<][0-9]",
        max_bytes=90,
        literals=(b"<<",),
        accept=_accept_zone,
    ),
    Rule(
        name="passport-number",
        category="passport",
        severity=Severity.MEDIUM,
        message="A number beside the word passport.",
        expression=r"(?i:\bpassport\b)" + _GAP + r"\b([A-Z]{0,2}[0-9]{6,9}(?:[A-Z][0-9]?)?)\b",
        max_bytes=96,
        literals=(b"passport",),
        group=1,
    ),
    *(_national_rule(number) for number in _NATIONAL),
)
