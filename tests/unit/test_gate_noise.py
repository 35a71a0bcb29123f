"""Pictures and archives leave as they are: what a rule finds by shape alone has to be text."""

from __future__ import annotations

import pytest

from kavach.gate.public import scan
from kavach.gate.rule import text_parts

# Each was seen in random bytes, which a wall then changed.
NOISE = [
    b"\x0e`\xcbB\xe9\x1f\x04\x84\x1a\x0bWZPwdS\x17>\xa3\xe2\xde0\x19\xa8\x1ajw\xf0\x0c\xdbV\xd8",
    b"\x00dob \x10\xf4\xbd\xdf\xf8@\xd8\x11\xc2S.\xc3\xe3\x9c\xff cvv\xc2 \x00",
]


@pytest.mark.parametrize("noise", NOISE)
def test_noise_that_looks_like_a_rules_shape_is_left_alone(noise: bytes) -> None:
    assert scan(noise).redacted == noise


@pytest.mark.parametrize(
    "text",
    ["PwdS>Füchse-7zehn", "dob 1970-01-01 jörg@münchen.de", "dob 1970-01-01 someone@firm.de"],
)
@pytest.mark.parametrize("around", [b"\x00", b"\xff", b"\xff\x00", b"\x00\xff", b""])
def test_the_same_shape_as_text_is_found_amid_noise(text: str, around: bytes) -> None:
    found = scan(around + text.encode() + around).redacted
    assert b"[REDACTED:" in found
    assert text.encode() not in found


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"abc", [b"abc"]),
        ("für".encode(), ["für".encode()]),
        ("fü".encode()[:-1], [b"f"]),
        (b"\x00a\x00\xffb\xff", [b"a", b"b"]),
        (b"\xff\x00", []),
    ],
)
def test_text_is_what_is_printable_utf8(value: bytes, expected: list[bytes]) -> None:
    assert text_parts(value) == expected
