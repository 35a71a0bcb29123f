"""RFC 8785: one value, one text."""

from __future__ import annotations

import enum
import json
import struct

import pytest

from kavach.audit.canonical import canonical_json
from kavach.errors import ConfigError
from kavach.model.score import StrengthScore
from kavach.model.verdict import Verdict

# IEEE 754 bits and the text that ECMAScript gives them: RFC 8785, appendix B.
NUMBERS = {
    "0000000000000000": "0",
    "8000000000000000": "0",
    "0000000000000001": "5e-324",
    "8000000000000001": "-5e-324",
    "7fefffffffffffff": "1.7976931348623157e+308",
    "ffefffffffffffff": "-1.7976931348623157e+308",
    "4340000000000000": "9007199254740992",
    "c340000000000000": "-9007199254740992",
    "4430000000000000": "295147905179352830000",
    "44b52d02c7e14af5": "9.999999999999997e+22",
    "44b52d02c7e14af6": "1e+23",
    "44b52d02c7e14af7": "1.0000000000000001e+23",
    "444b1ae4d6e2ef4e": "999999999999999700000",
    "444b1ae4d6e2ef4f": "999999999999999900000",
    "444b1ae4d6e2ef50": "1e+21",
    "3eb0c6f7a0b5ed8c": "9.999999999999997e-7",
    "3eb0c6f7a0b5ed8d": "0.000001",
    "41b3de4355555553": "333333333.3333332",
    "41b3de4355555554": "333333333.33333325",
    "41b3de4355555555": "333333333.3333333",
    "41b3de4355555556": "333333333.3333334",
    "41b3de4355555557": "333333333.33333343",
    "becbf647612f3696": "-0.0000033333333333333333",
    "43143ff3c1cb0959": "1424953923781206.2",
}


@pytest.mark.parametrize(("bits", "text"), NUMBERS.items())
def test_a_number_is_written_as_ecmascript_writes_it(bits, text):
    (number,) = struct.unpack(">d", bytes.fromhex(bits))
    assert canonical_json(number) == text.encode()


def test_members_are_sorted_by_utf16_code_units_not_by_code_points():
    assert canonical_json({"\ufb33": 1, "\U0001f600": 2, "a": 3}) == '{"a":3,"\U0001f600":2,"\ufb33":1}'.encode()


def test_only_what_must_be_escaped_is_escaped():
    assert (
        canonical_json('\x00\x1f\b\t\n\f\r"\\/\x7fé\u2028')
        == '"\\u0000\\u001f\\b\\t\\n\\f\\r\\"\\\\/\x7fé\u2028"'.encode()
    )


def test_enums_and_scores_of_ours_are_their_text_and_number():
    assert canonical_json([Verdict.PASS, StrengthScore(69), True, None, ()]) == b'["pass",69,true,null,[]]'


class Unknown(enum.Enum):
    A = 1


@pytest.mark.parametrize(
    "value",
    [
        b"output",
        {1: 2},
        {None: 1},
        float("nan"),
        float("inf"),
        2**53,
        -(2**53),
        "\ud800",
        {"\ud800": 1},
        {1},
        Unknown.A,
    ],
    ids=repr,
)
def test_what_has_no_canonical_form_is_refused(value):
    with pytest.raises(ConfigError):
        canonical_json({"a": [value]})


def test_a_refusal_does_not_quote_the_value():
    with pytest.raises(ConfigError) as caught:
        canonical_json({"a": b"hunter2"})
    assert "hunter2" not in str(caught.value)


def test_nesting_without_end_is_refused():
    deep: list = []
    deep.append(deep)
    with pytest.raises(ConfigError, match="nesting"):
        canonical_json(deep)


@pytest.mark.vectors
def test_the_schemes_own_test_data_comes_out_byte_for_byte(vectors):
    inputs = sorted((vectors / "audit/jcs/input").glob("*.json"))
    assert len(inputs) >= 6
    for path in inputs:
        expected = (vectors / "audit/jcs/output" / path.name).read_bytes()
        assert canonical_json(json.loads(path.read_bytes())) == expected, path.name
