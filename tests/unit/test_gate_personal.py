"""What counts as personal data, and what only looks like it."""

from __future__ import annotations

import re

import pytest

from kavach.gate.personal import PERSONAL
from kavach.gate.personal.accounts import is_iban
from kavach.gate.personal.cards import has_luhn, is_card
from kavach.gate.personal.vocabulary import regulated
from kavach.gate.rule import Mark, Match
from kavach.model.verdict import Severity

_COMPILED = [(rule, re.compile(rule.expression.encode("latin-1"))) for rule in PERSONAL.rules]


def find(text: bytes | str) -> list[Mark]:
    """Run the rules by Python's own engine, which reads the same expressions: this is about the rules."""
    data = text.encode() if isinstance(text, str) else text
    marks = []
    for rule, expression in _COMPILED:
        if rule.literals and not any(word in data.lower() for word in rule.literals):
            continue
        for found in expression.finditer(data):
            match = Match(data, tuple(found.span(group) for group in range(expression.groups + 1)))
            if rule.accept is None or rule.accept(match):
                span = match.spans[rule.group]
                marks.append(Mark("personal", rule.name, rule.category, rule.severity, rule.message, *span))
    return marks + list(PERSONAL.inspect(data, marks))


def things(text: str, rule: str = "", severity: Severity = Severity.INFO) -> list[str]:
    data = text.encode()
    marks = [mark for mark in find(data) if mark.rule.startswith(rule) and mark.severity >= severity]
    return sorted({data[mark.start : mark.end].decode() for mark in marks})


@pytest.mark.parametrize(
    "number",
    [
        "4111111111111111",
        "4111 1111 1111 1111",
        "4012-8888-8888-1881",
        "5555555555554444",
        "2223003122003222",
        "371449635398431",
        "3714 496353 98431",
        "30569309025904",
        "6011000990139424",
        "3528000700000000",
        "6759649826438453",
        "122000000000003",
    ],
)
@pytest.mark.parametrize("sentence", ["{}", "card {}.", '{{"pan": "{}"}}', "a,{},b", "card={}", "({})", "{}\nnext"])
def test_a_card_is_found_as_it_is_printed(number, sentence):
    assert things(sentence.format(number), "payment-card") == [number]


@pytest.mark.parametrize(
    "text",
    [
        "4111111111111112",  # check digit
        "9111111111111115",  # no issuer
        "4111 11111111 1111",  # no card is printed so
        "4111-1111 1111-1111",
        "x4111111111111111",
        "4111111111111111suffix",
        "0.4111111111111111",
        "4111111111111111.5",
        "c0ffee-4111111111111111",
        "4111111111111111-aa",
        "4444444444444444",
        "https://tracker.example/detail/5390364397928448",
        "http://lists.example/?m=104612710031920&w=2",
        "hash 5749986484189612790 of the row",
        "1700000000000000",  # microseconds since 1970
        "550e8400-e29b-41d4-a716-446655440000",
    ],
)
def test_what_is_no_card_is_not_found(text):
    assert things(text, "payment-card") == []


def test_a_card_of_unusual_length_needs_a_word():
    assert things("4716989580001715211", "payment-card") == []
    assert things("card no. 4716989580001715211", "payment-card") == ["4716989580001715211"]


@pytest.mark.parametrize("digits", [b"79927398713", b"4111111111111111", b"0"])
def test_luhn_holds_for_one_last_digit_only(digits):
    good = [has_luhn(digits[:-1] + b"%d" % last) for last in range(10)]
    assert (good.count(True), has_luhn(digits)) == (1, True)


def test_an_issuer_has_its_own_lengths():
    assert is_card(b"378282246310005")
    assert not is_card(b"3782822463100050")


@pytest.mark.parametrize(
    "number",
    [
        "GB29NWBK60161331926819",
        "GB29 NWBK 6016 1331 9268 19",
        "AL47-2121-1009-0000-0002-3569-8741",
        "DE89370400440532013000",
        "NO9386011117947",
        "MT31MALT01100000000000000000123",
        "FR76 3000 6000 0112 3456 7890 189",
        "LC14BOSL123456789012345678901234",
    ],
)
def test_an_iban_ends_where_its_country_says(number):
    assert things(f"pay to {number} THE END of 2026", "iban") == [number]


@pytest.mark.parametrize(
    "text",
    [
        "GB29NWBK60161331926818",  # check digits
        "XX29NWBK60161331926819",  # no country
        "GB29NWBK6016133192681",  # too short
        "GB29NWBK601613319268190",  # too long
        "GB2 9NWB K601 6133 1926 819",  # no IBAN is printed so
        "xGB29NWBK60161331926819",
        "FR7630006000011234567890189@",
        "FR7630006000011234567890189😅",
    ],
)
def test_what_is_no_iban_is_not_found(text):
    assert things(text, "iban") == []


def test_an_iban_has_its_countrys_structure_and_not_only_check_digits():
    assert is_iban(b"IE29AIBK93115212345678")
    digits = "".join(str(int(char, 36)) for char in "1234567890123456" + "78IE00")
    broken = b"IE%02d123456789012345678" % (98 - int(digits) % 97)
    assert not is_iban(broken)


@pytest.mark.parametrize("text", ["123-45-6789", "078-05-1123", "SSN: 123456789", "social security no 123 45 6789"])
def test_a_social_security_number_is_found(text):
    assert things(text, "us-ssn", Severity.MEDIUM)


@pytest.mark.parametrize(
    "text",
    [
        "000-12-3456",
        "666-12-3456",
        "900-12-3456",
        "123-00-4567",
        "123-45-0000",
        "078-05-1120",
        "693-09.4444",
        "123-45-67890",
        "1-123-45-6789-2",
        "123456789",
        "Boston, MA 02110-1301",
    ],
)
def test_what_was_never_issued_or_is_not_grouped_weighs_nothing(text):
    assert things(text, "us-ssn", Severity.MEDIUM) == []


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("write to ada.lovelace+x@sub.host.co.uk.", "ada.lovelace+x@sub.host.co.uk"),
        ("<a@xn--d1acufc.xn--p1ai>", "a@xn--d1acufc.xn--p1ai"),
        ("mailto:a@b.org?subject=1", "a@b.org"),
        ("?email=a@b.org&x=1", "a@b.org"),
        ("'jörg@müller.de'", "jörg@müller.de"),
    ],
)
def test_an_address_is_found_whole(text, address):
    assert things(text, "email-address", Severity.LOW) == [address]


@pytest.mark.parametrize(
    "text",
    [
        "info@host.",
        "icon@2x.png",
        "lodash@4.17.21",
        "@angular/core@12.0.0",
        "postgres://user:word@db.host.org/x",
        "https://user@host.org/",
        "a..b@host.org",
        "a@host-.org",
        "@decorator",
    ],
)
def test_what_has_an_at_sign_and_is_no_address_is_not_found(text):
    assert things(text, "email") == []


@pytest.mark.parametrize(
    "text",
    ["a@example.com", "a@mail.example.org", "a@b.test", "noreply@host.org", "git@github.com:kavach/x.git", "a@b.local"],
)
def test_an_address_of_an_example_or_a_machine_is_info(text):
    assert [mark.severity for mark in find(text)] == [Severity.INFO]


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("call +49 30 1234567 now", "+49 30 1234567"),
        ("+44 (20) 7123 4567", "+44 (20) 7123 4567"),
        ("(415) 555-0132", "(415) 555-0132"),
        ("US: 415-555-0132", "415-555-0132"),
        ("Phone: 09-7625400", "09-7625400"),
        ("my number is 13812345678", "13812345678"),
    ],
)
def test_a_telephone_number_is_found_where_something_says_so(text, number):
    assert number in things(text, "phone")


@pytest.mark.parametrize(
    "text",
    [
        "0912345678",
        "+12345",
        "1:10~+20191229111838+6991d5728f1",
        "Decimal('+35236450.6')",
        "@@ -10,7 +10,7 @@",
        "252.227-7013",
        "115-555-0132",
        "New number is CAN-2004-0914",
        "2026-11-23",
    ],
)
def test_other_digits_are_no_telephone_number(text):
    assert things(text, "phone") == []


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("from 81.2.69.142 port 22", "81.2.69.142"),
        ("src=81.2.69.142", "81.2.69.142"),
        ("ip:81.2.69.142:443", "81.2.69.142"),
        ("http://8.8.4.4/x", "8.8.4.4"),
        ("nameserver: server 8.8.8.8", "8.8.8.8"),
        ("[2a00:1450:4001:81b::200e]:443", "2a00:1450:4001:81b::200e"),
        ("2a00:1450:4001:81b:0:0:0:200e", "2a00:1450:4001:81b:0:0:0:200e"),
        ("81.2.69.0/24,", "81.2.69.0/24"),
    ],
)
def test_a_public_address_is_found(text, address):
    assert things(text, "ip-address", Severity.LOW) == [address]


@pytest.mark.parametrize(
    "text",
    [
        "127.0.0.1",
        "10.1.2.3",
        "192.168.0.1:80",
        "192.0.2.7",
        "::1",
        "fe80::1%eth0",
        "2001:db8::1",
        "fec0::/10",
        "224.0.0.1",
    ],
)
def test_a_private_local_or_documentation_address_is_info(text):
    assert {mark.severity for mark in find(text)} == {Severity.INFO}


@pytest.mark.parametrize(
    "text",
    [
        "version 12.4.5.8",
        "nvidia-cublas==12.4.5.99",
        "v81.2.69.142",
        "linux-81.2.69.142",
        "section 3.1.2.4",
        "1.3.6.1.4.1.311",
        "256.1.1.1",
        "081.2.69.142",
        "12:34:56",
        "std::cout",
        "foo :: Int",
        "aa:bb:cc:dd:ee:ff:00:11",
        "MD5:16:27:ac:a5:76:28:2d:36:63:1b:56:4d:eb:df:a6:48",
        "2001::25de::cade",
        "root:x:0:0::/:",
    ],
)
def test_versions_sections_times_and_names_are_no_addresses(text):
    assert things(text, "ip-address") == []


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("Aadhaar: 3998 7654 3211", "in-aadhaar"),
        ("NHS number 943 476 5919", "gb-nhs-number"),
        ("PESEL 44051401359", "pl-pesel"),
        ("CPF 390.533.447-05", "br-cpf"),
        ("DNI: 54362315K", "es-dni"),
        ("codice fiscale: MRTMTT91D08F205J", "it-fiscal-code"),
        ("BSN 111222333", "nl-bsn"),
        ("personnummer: 811228-9874", "se-personal-number"),
        ("rodné číslo 710319/2745", "cz-birth-number"),
        ("T.C. Kimlik No: 17291716060", "tr-identity-number"),
        ("social insurance number 123-456-782", "ca-social-insurance"),
        ("PAN card ACUPA7085R", "in-pan"),
        ("my ITIN is 912-90-3456", "us-itin"),
        ("11010519491231002X", "cn-resident-id"),
    ],
)
def test_a_national_number_with_its_check_digit_is_found(text, rule):
    assert rule in {mark.rule for mark in find(text)}


@pytest.mark.parametrize(
    "text",
    [
        "PESEL 44051401358",
        "NHS number 943 476 5918",
        "44051401359",
        "codice fiscale MRTMTT91D08F205X",
        "CPF 390.533.447-06",
        "BSN 000000000",
    ],
)
def test_without_check_digit_or_word_a_national_number_is_not_found(text):
    assert [mark for mark in find(text) if mark.category == "national-id"] == []


def test_a_passport_is_found_by_its_machine_readable_zone():
    names = "P<UTOERIKSSON<<ANNA<MARIA".ljust(44, "<")
    good = "L898902C36UTO7408122F1204159ZE184226B<<<<<10"  # ICAO Doc 9303-4, appendix B
    assert things(f"{names}\n{good}", "passport-zone") == [f"{names}\n{good}"]
    assert things(f"{names}\n{good[:-1]}1", "passport-zone") == []
    assert things("passport no. L898902C3", "passport-number") == ["L898902C3"]


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("patient 7, jane@clinic.org", "hipaa-data"),
        ("jane@clinic.org, date of birth 1980-01-02", "gdpr-data"),
        ("cardholder: Jane, 4111111111111111", "pci-dss-data"),
        ("confidential: jane@clinic.org", "soc2-data"),
    ],
)
def test_words_of_a_regime_make_the_data_on_their_line_weigh_more(text, rule):
    marks = find(text)
    (found,) = [mark for mark in marks if mark.rule == rule]
    assert found.severity is Severity.MEDIUM
    assert any(mark[5:] == found[5:] for mark in marks if mark.rule != rule)


@pytest.mark.parametrize(
    "text",
    [
        "The patient's diagnosis and the cardholder's date of birth are confidential.",
        "patient\njane@clinic.org",
        "jane@diagnosis.org",
        "patient at a@example.com",
        "Reported-and-diagnosis-by: jane@clinic.org",
    ],
)
def test_words_of_a_regime_say_nothing_alone(text):
    assert [mark for mark in find(text) if mark.category == "compliance"] == []


def test_words_farther_away_than_a_rule_may_look_do_not_count():
    text = b"patient" + b" " * 300 + b"jane@clinic.org"
    mark = next(mark for mark in find(text) if mark.rule == "email-address")
    assert list(regulated(text, mark)) == []


def test_every_rule_is_named_once_and_says_no_thing_itself():
    names = [rule.name for rule in PERSONAL.rules]
    assert len(names) == len(set(names))
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name) for name in names)
    assert all(rule.message.endswith(".") for rule in PERSONAL.rules)
    assert all(word == word.lower() for rule in PERSONAL.rules for word in rule.literals)
