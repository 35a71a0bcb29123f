"""Text without noise, and the way back."""

from __future__ import annotations

import pytest

from kavach.gate.normalise import GAP_BYTES, border, plain

NOISE = [
    b"\x1b[31m",
    b"\x1b[38;2;255;100;0m",
    b"\x1b]0;title\x07",
    b"\x1b]8;;http://x\x1b\\",
    b"\x1b(B",
    b"\xe2\x80\x8b",
    b"\xef\xbb\xbf",
    b"\xc2\xad",
    b"\x00",
    b"\x08\x7f",
]


@pytest.mark.parametrize("noise", NOISE)
def test_noise_is_not_in_the_plain_text_and_offsets_lead_back(noise: bytes) -> None:
    text = b"ab" + noise + b"cd" + noise + noise + b"ef"
    view = plain(text, is_last=True)
    assert view is not None
    assert view.text == b"abcdef"
    for offset, byte in enumerate(view.text):
        assert text[view.origin(offset)] == byte
    assert text[view.origin(1) : view.origin_end(3)] == b"b" + noise + b"c"
    assert view.offset(len(text)) == 6


@pytest.mark.parametrize("text", [b"", b"plain text\r\n\twith lines", b"gr\xc3\xbc\xc3\x9fe \xe2\x82\xac", b"\xff\xfe"])
def test_a_text_without_noise_has_no_plain_text_of_its_own(text: bytes) -> None:
    assert plain(text, is_last=True) is None


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_is_plain_text_without_its_nuls(encoding: str) -> None:
    view = plain("key=abc".encode(encoding), is_last=True)
    assert view is not None
    assert view.text == b"key=abc"


def test_what_may_become_noise_counts_as_noise_until_the_text_ends() -> None:
    assert plain(b"ab\x1b[3", is_last=False).text == b"ab"  # type: ignore[union-attr]
    assert plain(b"ab\xe2\x80", is_last=False).text == b"ab"  # type: ignore[union-attr]
    assert plain(b"ab\x1b[3", is_last=True) is None


def test_much_noise_between_two_characters_separates_them() -> None:
    view = plain(b"a" + b"\x00" * GAP_BYTES + b"b" + b"\x00" * (GAP_BYTES + 1) + b"c", is_last=True)
    assert view is not None
    assert view.text == b"ab\nc"
    assert view.origin(4 - 1) == 2 * GAP_BYTES + 3


def test_a_text_is_not_cut_within_noise() -> None:
    text = b"abc\x1b[31mdef"
    assert [border(text, at) for at in (2, 3, 4, 7, 8, 9)] == [2, 3, 3, 3, 8, 9]


def test_what_follows_an_escape_sequence_begins_a_word() -> None:
    view = plain(b"\x1b[31mkey", is_last=True)
    assert view is not None
    assert len(view.masked) == 8
    assert view.masked.endswith(b"\x1bkey")
