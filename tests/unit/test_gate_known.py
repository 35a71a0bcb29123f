"""Injected secrets and canaries, in every common encoding; and what is said of a find."""

from __future__ import annotations

import base64
import html
import json
import urllib.parse

import pytest

from kavach.gate.evidence import mask
from kavach.gate.known import KnownSecret, needles_of
from kavach.gate.scan import scan_bytes
from kavach.model.verdict import ExternalizationPolicy

VALUE = b'pa/ss"w+rd & <Z\xc3\xbcrich>=1'
TEXT = VALUE.decode()
POLICY = ExternalizationPolicy.redact()


def found(data: bytes, value: bytes = VALUE) -> set[str]:
    return {one.rule for one in scan_bytes(data, POLICY, known=[KnownSecret("Db_Pass", value)], scanners=())}


@pytest.mark.parametrize(
    "form",
    [
        VALUE,
        VALUE[::-1],
        *(base64.b64encode(b"x" * lead + VALUE + b"yy") for lead in range(3)),
        *(base64.urlsafe_b64encode(b"x" * lead + VALUE) for lead in range(3)),
        VALUE.hex().encode(),
        VALUE.hex().upper().encode(),
        urllib.parse.quote(TEXT, safe="").encode(),
        urllib.parse.quote_plus(TEXT).encode(),
        "".join(f"%{byte:02x}" for byte in VALUE).encode(),
        json.dumps(TEXT).encode(),
        json.dumps(TEXT, ensure_ascii=False).encode(),
        html.escape(TEXT).encode(),
        VALUE[:5] + b"\x1b[0m" + VALUE[5:],
        VALUE[:5] + b"\n" + VALUE[5:],
        TEXT.encode("utf-16-le"),
    ],
)
def test_a_known_secret_is_found_in_every_form(form: bytes) -> None:
    assert found(b"before " + form + b" after") == {"db_pass"}


def test_a_value_too_short_to_tell_from_text_is_not_looked_for() -> None:
    assert found(b"admin", b"admin") == set()
    assert found(b"hunter2", b"hunter2") == {"db_pass"}
    assert found(base64.b64encode(b"hunter2"), b"hunter2") == set()


def test_each_long_line_of_a_key_file_is_found_alone() -> None:
    line = b"MIIEvQIBADANBgkqhkiG9w0B"
    assert found(b"leaked " + line, b"-----BEGIN X-----\n" + line + b"\n-----END X-----\n") == {"db_pass"}


def test_no_representation_shows_the_value() -> None:
    secret = KnownSecret("db", VALUE)
    assert "ss" not in repr(secret).replace("KnownSecret", "")
    assert needles_of([secret._replace(is_canary=True)])[0].category == "canary"


def test_evidence_shows_four_characters_of_long_things_and_none_of_short_ones() -> None:
    long_thing, short_thing = b"abcd" + b"e" * 30, b"abcdefgh"
    assert mask("token", long_thing, b"salt" * 4).startswith("token, 34 bytes, begins abcd, digest ")
    assert "abcd" not in mask("token", short_thing, b"salt" * 4)
    assert mask("token", long_thing, b"salt" * 4) != mask("token", long_thing, b"tlas" * 4)
    assert "\x1b" not in mask("token", b"\x1b[31" + long_thing, b"salt" * 4)
