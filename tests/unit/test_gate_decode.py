"""What encoded runs hold."""

from __future__ import annotations

import base64
import gzip
import zlib

import pytest

from kavach.gate.decode import INFLATED_BYTES, inner_of

TEXT = b"the quick brown fox, 0123456789 jumps"


@pytest.mark.parametrize("glued", [b"", b"x", b"xy", b"xyz"])
def test_base64_is_read_from_wherever_it_begins(glued: bytes) -> None:
    run = glued + base64.b64encode(TEXT)
    assert any(TEXT in text for text in inner_of("base64", run, 1000).texts)


def test_base64_of_the_url_alphabet_and_over_lines_is_read() -> None:
    data = bytes(range(0xC0, 0x100)) * 2 + TEXT
    assert any(TEXT in text for text in inner_of("base64", base64.urlsafe_b64encode(data), 1000).texts)
    assert any(TEXT in text for text in inner_of("base64", base64.encodebytes(data * 2), 1000).texts)


@pytest.mark.parametrize(
    ("kind", "run", "expected"),
    [
        ("hex", TEXT.hex().encode(), TEXT),
        ("hex", b"f" + TEXT.hex().upper().encode(), TEXT),
        ("url", "".join(f"%{byte:02x}" for byte in TEXT).encode(), TEXT),
        ("escapes", "".join(f"\\u{byte:04x}" for byte in TEXT).encode(), TEXT),
        ("escapes", "".join(f"\\x{byte:02X}" for byte in TEXT).encode(), TEXT),
        ("escapes", rb"postgres:\/\/user:word@host\/db", b"postgres://user:word@host/db"),
        ("gzip", gzip.compress(TEXT), TEXT),
        ("base64", base64.b64encode(zlib.compress(TEXT)), TEXT),
    ],
)
def test_each_encoding_is_read(kind: str, run: bytes, expected: bytes) -> None:
    assert any(expected in text for text in inner_of(kind, run, 1000).texts)


@pytest.mark.parametrize("run", [rb"\u12", rb"\xzz\\", rb"\uzzzz", b"%", b"%4"])
def test_broken_escapes_do_not_break_the_reader(run: bytes) -> None:
    inner_of("escapes", run, 1000)
    inner_of("url", run, 1000)


def test_an_archive_ends_where_its_stream_ends() -> None:
    packed = gzip.compress(TEXT)
    assert inner_of("gzip", packed + b"behind it", 1000).used_bytes == len(packed)


def test_a_bomb_is_read_within_its_limit_and_reported_as_not_whole() -> None:
    bomb = gzip.compress(bytes(INFLATED_BYTES * 8))
    inner = inner_of("gzip", bomb, 1 << 40)
    assert not inner.is_whole
    assert sum(map(len, inner.texts)) == INFLATED_BYTES
    assert inner_of("gzip", bomb, 100).spent_bytes == 100


def test_words_and_hashes_hold_nothing() -> None:
    for kind, run in (
        ("base64", b"internationalisation/of/things"),
        ("hex", b"da39a3ee5e6b4b0d3255bfef95601890afd80709"),
    ):
        assert inner_of(kind, run, 1000).texts == ()
