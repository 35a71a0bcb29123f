"""Whatever is recorded verifies, and whatever is changed afterwards is named."""

from __future__ import annotations

import itertools
import json
import math
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kavach.audit.canonical import canonical_json
from kavach.audit.key import AuditKey
from kavach.audit.log import AuditLog
from kavach.audit.record import Fields, Record, read_line
from kavach.audit.verify import verify_log
from kavach.errors import AuditError

KEY = b"k" * 32
TEXTS = st.text(st.characters(exclude_categories=("Cs",)))
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS
)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner), max_leaves=20)
PAYLOADS = st.dictionaries(TEXTS, VALUES, max_size=5)
CUTS = st.lists(st.integers(0, 8), min_size=6, max_size=6).map(sorted)


def read(text):
    """Read JSON as ECMAScript does: an integer that a double cannot tell from its neighbours is that double."""
    return json.loads(text, parse_int=lambda digits: int(digits) if abs(int(digits)) < 2**53 else float(digits))


@given(VALUES)
def test_canonical_json_is_read_back_as_the_same_value(value):
    text = canonical_json(value)
    assert read(text) == value
    assert canonical_json(read(text)) == text


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_canonical_number_is_the_same_double(number):
    again = float(canonical_json(number))
    assert math.copysign(1, again) == math.copysign(1, number) or number == 0
    assert again == number


@given(st.dictionaries(TEXTS, st.none()))
def test_members_come_in_the_order_of_their_utf16(value):
    names = list(json.loads(canonical_json(value)))
    assert names == sorted(names, key=lambda name: name.encode("utf-16-be"))


def cut(content, places):
    bounds = [0, *places, len(content)]
    return Fields(*[content[start:end] for start, end in itertools.pairwise(bounds)])


@given(st.binary(max_size=8), CUTS, CUTS)
def test_the_same_bytes_cut_into_other_fields_have_another_form_under_the_mac(content, places, others):
    one, other = cut(content, places), cut(content, others)
    assert (one == other) is (one.covered() == other.covered())


@given(st.integers(0, 2**40), st.none() | TEXTS, st.none() | TEXTS, PAYLOADS)
def test_a_written_line_is_read_back_and_no_other_text_of_it_is(serial, sandbox, agent, payload):
    fields = Record(serial, "2026", "a.b", sandbox, agent, canonical_json(payload), "0" * 64).fields()
    line = fields.line("f" * 64)
    assert read_line(line) == (fields, "f" * 64)
    assert line.count(b"\n") == 1
    for other in (line.replace(b":", b": ", 1), b" " + line, line[:-1], line[:-1] + b" \n", line + b"\n"):
        assert read_line(other) is None


@given(st.binary(max_size=300))
def test_a_line_of_anything_is_read_or_refused(content):
    assert read_line(content) is None
    assert read_line(b'{"serial":' + content) is None


@settings(max_examples=40)
@given(st.lists(PAYLOADS, min_size=1, max_size=6), st.data())
def test_any_changed_byte_of_a_log_is_named(payloads, data):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "audit.jsonl"
        with AuditLog(path, key=KEY) as log:
            for payload in payloads:
                log.append("a", sandbox_id="sb", payload=payload)
            assert log.verify().head.records == len(payloads) + 1
        content = path.read_bytes()
        place = data.draw(st.integers(0, len(content) - 1))
        byte = data.draw(st.integers(0, 255).filter(lambda value: value != content[place]))
        path.write_bytes(content[:place] + bytes([byte]) + content[place + 1 :])
        with pytest.raises(AuditError) as caught:
            verify_log(path, KEY)
        assert caught.value.index == content[:place].count(b"\n")
        assert caught.value.check is not None


@given(st.binary(min_size=32, max_size=100), st.binary(max_size=300))
def test_a_mac_is_that_of_the_standard_library(secret, message):
    import hmac

    assert AuditKey(secret).mac(message) == hmac.new(secret, message, "sha256").hexdigest()
