"""Redacting hides what is marked, keeps the rest, and keeps lines and JSON, whatever the text and the marks."""

from __future__ import annotations

import json
import re
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from kavach.gate.redact import merge, redact
from kavach.gate.rule import Mark
from kavach.model.verdict import Severity

LABEL = re.compile(rb"\[REDACTED:[a-z]+\]")
RULE = re.compile(rb"[A-Z]{3,}")
plain = st.text(alphabet='aB\n\r {}[]":,\\é1', max_size=60).map(str.encode)
jsons = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=12) | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


@st.composite
def marks_on(draw: st.DrawFn, data: bytes) -> list[Mark]:
    places = st.integers(0, len(data))
    pairs = draw(
        st.lists(st.tuples(places, places, st.sampled_from("xyz"), st.sampled_from(list(Severity))), max_size=6)
    )
    return [Mark("secrets", rule, "test", level, "A test.", min(a, b), max(a, b)) for a, b, rule, level in pairs]


@given(st.data(), plain)
def test_what_lies_outside_marks_stays_in_order_and_labels_stand_between(data, text):
    marks = data.draw(marks_on(text))
    hidden = {at for mark in marks for at in range(mark.start, mark.end)}
    kept = bytes(byte for at, byte in enumerate(text) if at not in hidden or byte in b"\r\n")
    redacted = redact(b"x" + text, [mark._replace(start=mark.start + 1, end=mark.end + 1) for mark in marks])
    assert LABEL.sub(b"", redacted) == b"x" + kept


@given(st.data(), plain)
def test_the_number_of_lines_stays(data, text):
    redacted = redact(text, data.draw(marks_on(text)))
    assert redacted.count(b"\n") == text.count(b"\n")


@given(st.data(), plain)
def test_the_order_of_marks_does_not_matter(data, text):
    marks = data.draw(marks_on(text))
    assert redact(text, data.draw(st.permutations(marks))) == redact(text, marks)


@given(st.data(), plain)
def test_merged_spans_are_disjoint_and_in_order(data, text):
    spans = merge(data.draw(marks_on(text)))
    assert all(a.end <= b.start for a, b in pairwise(spans))
    assert all(span.start < span.end for span in spans)


@given(st.data(), jsons, st.booleans(), st.sampled_from([None, 1]))
def test_valid_json_stays_valid(data, value, is_ascii, indent):
    text = json.dumps(value, ensure_ascii=is_ascii, indent=indent).encode("utf-8", "surrogatepass")
    redacted = redact(text, data.draw(marks_on(text)))
    if text[:1] in {b"{", b"[", b'"'}:
        json.loads(redacted.decode("utf-8", "surrogatepass"))


@given(
    st.data(), st.lists(st.text(alphabet='AB\n"\\', max_size=9) | st.dictionaries(st.sampled_from("AB"), st.just(7)))
)
def test_no_marked_character_of_json_is_left_and_no_other_is_lost(data, value):
    text = json.dumps(value).encode()
    marks = data.draw(marks_on(text))
    hidden = {at for mark in marks for at in range(mark.start, mark.end)}
    kept = bytes(byte for at, byte in enumerate(text) if at not in hidden and byte in b"AB")
    assert bytes(byte for byte in LABEL.sub(b"", redact(text, marks)) if byte in b"AB") == kept


def scan(text: bytes) -> list[Mark]:
    return [
        Mark("secrets", "shout", "test", Severity.HIGH, "Loud.", *found.span())
        for found in RULE.finditer(text)
        if found.group() != b"REDACTED"
    ]


@given(st.text(alphabet='ABC ab\n{}[]":,\\', max_size=80).map(str.encode) | jsons.map(lambda v: json.dumps(v).encode()))
def test_redacting_again_changes_nothing_and_a_scan_finds_nothing(text):
    once = redact(text, scan(text))
    assert scan(once) == []
    assert redact(once, scan(once)) == once
