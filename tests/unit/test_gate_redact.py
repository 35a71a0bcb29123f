"""Labels in place of marks: whole, merged, on their lines, and inside JSON."""

from __future__ import annotations

import json

import pytest

from kavach.errors import InternalError
from kavach.gate.redact import label_of, merge, redact
from kavach.gate.rule import Mark
from kavach.model.verdict import Severity


def mark(start: int, end: int, rule: str = "key", severity: Severity = Severity.HIGH) -> Mark:
    return Mark("secrets", rule, "test", severity, "A test.", start, end)


def mark_of(data: bytes, thing: bytes, rule: str = "key", severity: Severity = Severity.HIGH) -> Mark:
    start = data.index(thing)
    return mark(start, start + len(thing), rule, severity)


def test_the_label_stands_for_the_thing_and_nothing_else_changes():
    data = b"\xff before SECRET after \x00"
    assert redact(data, [mark_of(data, b"SECRET")]) == b"\xff before [REDACTED:key] after \x00"


def test_a_text_without_marks_is_returned_as_it_is():
    assert redact(b"{ not json", []) == b"{ not json"


def test_marks_may_come_in_any_order_and_touching_ones_keep_their_own_labels():
    assert redact(b"aabbcc", [mark(4, 6, "c"), mark(0, 2, "a"), mark(2, 4, "b")]) == (
        b"[REDACTED:a][REDACTED:b][REDACTED:c]"
    )


def test_the_most_severe_of_overlapping_marks_gives_the_label():
    marks = [mark(0, 10, "long", Severity.MEDIUM), mark(8, 12, "severe", Severity.CRITICAL)]
    assert redact(b"0123456789abcdef", marks) == b"[REDACTED:severe]cdef"


def test_the_longest_of_equally_severe_marks_gives_the_label():
    marks = [mark(0, 4, "short"), mark(2, 9, "longer"), mark(2, 4, "inner")]
    assert redact(b"0123456789", marks) == b"[REDACTED:longer]9"


def test_a_chain_of_overlaps_is_one_span():
    assert [span[:2] for span in merge([mark(0, 5), mark(4, 9), mark(8, 12), mark(1, 2)])] == [(0, 12)]


def test_a_mark_inside_a_longer_one_does_not_shorten_it():
    assert redact(b"0123456789", [mark(0, 8, "block"), mark(2, 4, "word")]) == b"[REDACTED:block]89"


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
def test_a_block_of_lines_keeps_its_line_ends(line_end):
    block = line_end.join([b"BEGIN", b"body", b"END"])
    data = b"one" + line_end + block + line_end + b"last"
    redacted = redact(data, [mark_of(data, block)])
    assert redacted == line_end.join([b"one", b"[REDACTED:key]", b"", b"", b"last"])
    assert len(redacted.splitlines()) == len(data.splitlines())


def test_an_injected_secret_is_named_in_lower_case_and_no_name_breaks_a_line():
    assert label_of("DB_Password") == b"[REDACTED:db_password]"
    assert label_of('a"\n\x1b[31m]') == b"[REDACTED:a----31m-]"
    assert len(label_of("x" * 500)) < 100


@pytest.mark.parametrize(("start", "end"), [(-1, 2), (0, 11)])
def test_a_mark_outside_the_text_is_our_bug(start, end):
    with pytest.raises(InternalError):
        redact(b"0123456789", [mark(start, end)])


def test_nothing_behind_the_limit_leaves_and_a_thing_across_it_is_replaced_whole():
    assert redact(b"0123456789", [mark(2, 4)], limit_bytes=6) == b"01[REDACTED:key]45"
    assert redact(b"0123456789", [mark(4, 8)], limit_bytes=6) == b"0123[REDACTED:key]"
    assert redact(b"0123456789", [mark(7, 8)], limit_bytes=6) == b"012345"
    assert redact(b"0123456789", [], limit_bytes=0) == b""


@pytest.mark.parametrize(
    ("text", "thing", "expected"),
    [
        ('{"card": 4111111111111111}', "4111111111111111", {"card": "[REDACTED:key]"}),
        ('{"card": 4111111111111111}', "11111111", {"card": "[REDACTED:key]"}),
        ("[1, -12.5e3,true]", "12.5", [1, "[REDACTED:key]", True]),
        ('{"a": "x SECRET y"}', "SECRET", {"a": "x [REDACTED:key] y"}),
        (r'{"a": "x\nSECRET"}', "nSECRET", {"a": "x[REDACTED:key]"}),
        (r'{"a": "x\\SECRET"}', "SECRET", {"a": "x\\[REDACTED:key]"}),
        (r'{"a": "x\\SECRET"}', "\\SECRET", {"a": "x[REDACTED:key]"}),
        (r'{"a": "S\u0045C"}', "S\\u00", {"a": "[REDACTED:key]C"}),
        (r'{"a": "x\ud83d\ude00y"}', "\\ude00y", {"a": "x[REDACTED:key]"}),
        ('{"a": "pre", "b": "suf"}', 'pre", "b": "suf', {"a": "[REDACTED:key]", "[REDACTED:key]": "[REDACTED:key]"}),
        ('{"pass": "S", "n": 5}', '"pass": "S", "n": 5', {"[REDACTED:key]": "[REDACTED:key]"}),
        ('["", "S"]', '["", "S"]', ["", "[REDACTED:key]"]),
        (r'["a\"b", "S\"T"]', 'S\\"T', ['a"b', "[REDACTED:key]"]),
    ],
)
@pytest.mark.parametrize("shape", ["whole", "line", "pretty"])
def test_json_stays_json(text, thing, expected, shape):
    data = {"whole": text, "line": f'{{"log": 1}}\nplain, "text\n{text}\n', "pretty": f'[\n"one",\n{text}\n]'}[shape]
    redacted = redact(data.encode(), [mark_of(data.encode(), thing.encode())]).decode()
    if shape == "line":
        redacted = redacted.splitlines()[2]
    found = json.loads(redacted)
    assert (found[1] if shape == "pretty" else found) == expected


def test_a_span_that_cuts_a_character_of_json_takes_all_of_it():
    data = '["añSECRET"]'.encode()
    redacted = redact(data, [mark(data.index(b"SECRET") - 1, data.index(b"SECRET") + 6)])
    assert json.loads(redacted) == ["a[REDACTED:key]"]


def test_two_marks_in_one_number_become_one_label():
    data = b'{"n": 123456789, "m": 12}'
    redacted = redact(data, [mark(7, 9, "a"), mark(11, 13, "b"), mark(22, 24, "c")])
    assert json.loads(redacted) == {"n": "[REDACTED:a]", "m": "[REDACTED:c]"}


def test_a_text_that_only_looks_like_json_keeps_nothing_under_a_mark():
    data = b'{"a": pass{1},"x":[2]} trailing'
    thing = b'pass{1},"x":[2]'
    assert redact(data, [mark_of(data, thing)]) == b'{"a": [REDACTED:key]} trailing'


def test_deeply_nested_brackets_are_text():
    data = b"[" * 100_000 + b"SECRET"
    assert redact(data, [mark_of(data, b"SECRET")]).endswith(b"[[REDACTED:key]")


@pytest.mark.parametrize(
    "data",
    [
        b'["' + b"\\n" * 200_000 + b'"]',
        b"[" + b"1," * 200_000 + b"1]",
        b"[" + b"1" * 400_000 + b"]",
        b"[" + b'"a",' * 100_000 + b"1]",
        b'["' + "ñ".encode() * 200_000 + b'"]',
    ],
    ids=["escapes", "numbers", "one number", "strings", "characters"],
)
def test_many_marks_in_json_take_one_pass(data):
    """The work is bounded by steps of a generator, not by a clock: quadratic here would be hours."""
    marks = [mark(at, at + 2) for at in range(2, len(data) - 4, 7)]
    json.loads(redact(data, marks))
