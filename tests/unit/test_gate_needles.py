"""Known values are found wherever a text is cut, over line breaks, whatever their length; what cannot be one is let go."""

from __future__ import annotations

import pytest

from kavach.gate.known import KnownSecret
from kavach.gate.stream import StreamScanner
from kavach.model.verdict import ExternalizationPolicy

VALUE = b"q7-Zx/41+kT" + b"0123456789abcdef" * 3
KNOWN = (KnownSecret("Token", VALUE),)
TEXTS = {
    "plain": b"before " + VALUE + b" after\n",
    "reversed": b"before " + VALUE[::-1] + b" after\n",
    "hex": b"before " + VALUE.hex().encode() + b" after\n",
    "wrapped": b"before " + VALUE[:9] + b"\n" + VALUE[9:30] + b"\r\n" + VALUE[30:] + b" after\n",
    "continued": b"before " + VALUE[:9] + b"\\\n" + VALUE[9:] + b" after\n",
    "twice": b"before " + VALUE + VALUE + b" after\n",
}


def stream():
    return StreamScanner(ExternalizationPolicy.redact(), known=KNOWN, scanners=())


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_a_known_value_is_replaced_wherever_the_stream_is_cut(text):
    for at in range(len(text) + 1):
        scanner = stream()
        released = scanner.feed(text[:at]) + scanner.feed(text[at:]) + scanner.close()
        assert released.replace(b"[REDACTED:token]", b"").replace(b"\r", b"").split() == [b"before", b"after"], at


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_a_known_value_that_comes_byte_by_byte_is_replaced(text):
    scanner = stream()
    released = b"".join(scanner.feed(bytes((byte,))) for byte in text) + scanner.close()
    assert released.startswith(b"before [REDACTED:token]")
    assert VALUE[:4] not in released


def test_what_is_no_beginning_of_a_known_value_is_let_go_at_once():
    scanner = stream()
    assert scanner.feed(b"a line\n") == b"a line\n"
    assert scanner.feed(b"prompt> " + VALUE[:5]) == b"prompt> "
    assert scanner.feed(b"! no\n") == VALUE[:5] + b"! no\n"


def test_a_beginning_that_never_goes_on_is_released_at_the_end():
    scanner = stream()
    assert scanner.feed(b"tail " + VALUE[:20]) + scanner.close() == b"tail " + VALUE[:20]


def test_a_value_of_sixty_kilobytes_is_found():
    value = b"".join(b"%06d" % number for number in range(10_000))
    scanner = StreamScanner(ExternalizationPolicy.redact(), known=(KnownSecret("long", value),), scanners=())
    text = b"<" + value + b">"
    pieces = [text[at : at + 4096] for at in range(0, len(text), 4096)]
    assert b"".join(map(scanner.feed, pieces)) + scanner.close() == b"<[REDACTED:long]>"
