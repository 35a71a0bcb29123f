"""A stream through the gate: what goes on at once, what waits, and when it ends."""

from __future__ import annotations

import pytest

from gate_texts import CLOUD_KEY, HOST_TOKEN, KEY_BLOCK, SCANNERS
from kavach.errors import ConfigError, LifecycleError, Withheld
from kavach.gate.known import KnownSecret
from kavach.gate.stream import StreamScanner
from kavach.model.verdict import ExternalizationPolicy, Verdict


def scanner(policy: ExternalizationPolicy | None = None, **more: object) -> StreamScanner:
    return StreamScanner(policy, scanners=SCANNERS, random=lambda size: b"r" * size, **more)  # type: ignore[arg-type]


def test_text_that_can_begin_nothing_goes_on_at_once() -> None:
    stream = scanner()
    for line in (b"Hello, World 42!\n", b"50 % done...\r", b"{1: 2}\n"):
        assert stream.feed(line) == line
    assert stream.close() == b""
    assert stream.verdict is Verdict.PASS


def test_lines_go_on_whole_under_all_the_real_rules() -> None:
    stream = StreamScanner()
    for line in (b"Compiling 12 files ...\n", b"warning: unused variable `x`\n", b"\n", b"  done (3.2 s)\n"):
        assert stream.feed(line) == line


def test_only_what_may_be_beginning_waits() -> None:
    stream = scanner()
    assert stream.feed(b"Key: " + CLOUD_KEY[:6]) == b"Key: "
    assert stream.feed(b" ") == CLOUD_KEY[:6] + b" "


@pytest.mark.parametrize("token", [CLOUD_KEY, HOST_TOKEN, KEY_BLOCK])
def test_a_key_split_at_every_byte_over_two_chunks_is_found(token: bytes) -> None:
    whole = b"before: " + token + b" !"
    for at in range(len(whole) + 1):
        stream = scanner()
        released = stream.feed(whole[:at]) + stream.feed(whole[at:]) + stream.close()
        assert token not in released
        assert released.startswith(b"before: [REDACTED:"), at
        assert released.rstrip(b"\n !").endswith(b"]"), at
        assert len(stream.findings) == 1
        assert stream.findings[0].start == 8
        assert stream.verdict is Verdict.WARN


def test_a_key_block_that_never_ends_is_let_go_when_it_is_too_long_for_one() -> None:
    stream = scanner()
    begin = KEY_BLOCK[:32]
    released = stream.feed(begin)
    assert released == b""
    for _ in range(30):
        released += stream.feed(b"..... " * 200)
    assert released.startswith(begin)


def test_in_enforce_a_stream_ends_at_the_first_find_that_withholds() -> None:
    stream = scanner(ExternalizationPolicy.enforce())
    assert stream.feed(b"fine so far, ") == b"fine so far, "
    with pytest.raises(Withheld) as caught:
        stream.feed(CLOUD_KEY + b" and more")
    assert caught.value.findings[0].rule == "cloud-key"
    assert CLOUD_KEY.decode() not in repr(caught.value.findings) + str(caught.value)
    assert stream.verdict is Verdict.QUARANTINE
    with pytest.raises(LifecycleError):
        stream.feed(b"more")


def test_a_known_secret_does_not_pass() -> None:
    stream = scanner(known=[KnownSecret("DB_PASS", b"s3cr3t-value")])
    assert stream.feed(b"x s3cr3t") + stream.feed(b"-value y.") + stream.close() == b"x [REDACTED:db_pass] y."


def test_a_scanner_that_raises_releases_nothing_more() -> None:
    class Broken:
        name = "secrets"
        rules = SCANNERS[0].rules

        def inspect(self, text: bytes, marks: object) -> object:
            raise ZeroDivisionError("with some text: " + text.decode())

    stream = StreamScanner(scanners=(Broken(),))  # type: ignore[arg-type]
    assert stream.feed(b"fine! ") == b"fine! "
    with pytest.raises(Withheld) as caught:
        stream.feed(CLOUD_KEY + b" \n and more")
    assert "ZeroDivisionError" in str(caught.value)
    assert CLOUD_KEY.decode() not in str(caught.value)
    with pytest.raises(LifecycleError):
        stream.close()


def test_a_policy_that_is_off_lets_everything_pass_unscanned() -> None:
    stream = scanner(ExternalizationPolicy.off())
    assert stream.feed(CLOUD_KEY) + stream.close() == CLOUD_KEY
    assert stream.verdict is Verdict.NOT_SCANNED


def test_a_closed_stream_takes_nothing() -> None:
    stream = scanner()
    stream.close()
    with pytest.raises(LifecycleError):
        stream.feed(b"x")


def test_what_is_no_bytes_is_refused_by_name() -> None:
    with pytest.raises(ConfigError) as caught:
        scanner().feed("text")  # type: ignore[arg-type]
    assert caught.value.key == "chunk"
    with pytest.raises(ConfigError) as caught:
        StreamScanner("redact")  # type: ignore[arg-type]
    assert caught.value.key == "policy"


def test_what_is_held_stays_bounded() -> None:
    stream = scanner()
    fed = released = 0
    for _ in range(20):
        chunk = b"QUJDREVGRw" * 2000
        fed += len(chunk)
        released += len(stream.feed(chunk))
        assert fed - released <= 64 << 10
