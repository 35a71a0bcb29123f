"""However a stream is cut into chunks: the same findings, the same released bytes, and those of the whole text."""

from __future__ import annotations

import base64
import gzip

from hypothesis import given, settings
from hypothesis import strategies as st

from gate_texts import CLOUD_KEY, HOST_TOKEN, KEY_BLOCK, SCANNERS
from kavach.gate.judge import Action, decide
from kavach.gate.known import KnownSecret
from kavach.gate.redact import merge, replace
from kavach.gate.scan import scan_bytes
from kavach.gate.stream import StreamScanner
from kavach.model.verdict import ExternalizationPolicy

POLICY = ExternalizationPolicy.redact()
KNOWN = (KnownSecret("db", b"s3cr3t-value"),)
PARTS = [
    CLOUD_KEY, CLOUD_KEY[:7], CLOUD_KEY[7:], HOST_TOKEN, HOST_TOKEN[:20], KEY_BLOCK, KEY_BLOCK[:40], KEY_BLOCK[-20:],
    CLOUD_KEY.decode().encode("utf-16-le"), CLOUD_KEY.hex().encode(), base64.b64encode(b"x " + CLOUD_KEY + b" y"),
    gzip.compress(b"a " + CLOUD_KEY, mtime=0), base64.b64encode(b"hello world, this is fine"), b"s3cr3t-value",
    base64.b64encode(b"s3cr3t-value")[:9], b"password = hunter2hunter2", b"pass:", b"joe@some.org", b" patient", b"sudo ",
    b"tok12", b"tok", b"9", b"no ", b"xx", b"@", b"=", b"a", b" ", b"foo bar ", b"\n", b"\r\n", b"\\\n", b"\x1b[31m", b"\x1b",
    b"\xe2\x80\x8b", b"\xe2", b"\x00", b"\xff\xfe", b"%41%4b", b"A" * 30, b"A1b" * 20,
]  # fmt: skip
Finds = list[tuple[str, str, int, int]]


def _whole(text: bytes) -> tuple[Finds, bytes]:
    marks = scan_bytes(text, POLICY, scanners=SCANNERS, known=KNOWN)
    redacted = [mark for mark in marks if decide(mark.scanner, mark.severity, POLICY) is Action.REDACT]
    return sorted((mark.scanner, mark.rule, mark.start, mark.end) for mark in marks), replace(text, merge(redacted))


def _streamed(text: bytes, cuts: list[int]) -> tuple[Finds, bytes]:
    stream = StreamScanner(POLICY, scanners=SCANNERS, known=KNOWN)
    released, at = b"", 0
    for cut in [*cuts, len(text)]:
        released += stream.feed(text[at:cut])
        at = cut
    released += stream.close()
    return sorted((one.scanner, one.rule, one.start, one.end) for one in stream.findings), released


@settings(max_examples=60)
@given(parts=st.lists(st.sampled_from(PARTS), max_size=14), data=st.data())
def test_any_chunking_finds_and_releases_what_the_whole_text_does(parts: list[bytes], data: st.DataObject) -> None:
    text = b"".join(parts)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=8)))
    assert _streamed(text, cuts) == _whole(text)


@settings(max_examples=8)
@given(parts=st.lists(st.sampled_from(PARTS), max_size=6))
def test_a_stream_of_single_bytes_finds_and_releases_what_the_whole_text_does(parts: list[bytes]) -> None:
    text = b"".join(parts)
    assert _streamed(text, list(range(1, len(text)))) == _whole(text)


@settings(max_examples=60)
@given(text=st.binary(max_size=400))
def test_any_bytes_at_all_are_read_without_an_error(text: bytes) -> None:
    assert _streamed(text, [len(text) // 2]) == _whole(text)
