"""One text and all its scanners; its evasions."""

from __future__ import annotations

import base64
import gzip

import pytest

from gate_texts import CLOUD_KEY, HOST_TOKEN, KEY_BLOCK, SCANNERS
from kavach.gate.decode import ARCHIVE_BYTES
from kavach.gate.findings import FINDINGS_LISTED, findings_of
from kavach.gate.known import KnownSecret
from kavach.gate.scan import PIECE_BYTES, scan_bytes, scan_junction
from kavach.model.verdict import ExternalizationPolicy, Severity

POLICY = ExternalizationPolicy.redact()


def rules_in(data: bytes) -> set[str]:
    return {mark.rule for mark in scan_bytes(data, POLICY, scanners=SCANNERS)}


def covers(data: bytes, start: int, end: int) -> bool:
    return any(mark.start <= start and end <= mark.end for mark in scan_bytes(data, POLICY, scanners=SCANNERS))


@pytest.mark.parametrize(
    "hidden",
    [
        CLOUD_KEY,
        *(base64.b64encode(b"-" * lead + CLOUD_KEY + b" and more") for lead in range(3)),
        base64.b64encode(base64.b64encode(b"- " + CLOUD_KEY)),
        base64.b64encode(gzip.compress(b"- " + CLOUD_KEY)),
        base64.encodebytes(b"lorem ipsum " * 20 + CLOUD_KEY + b" dolor" * 20),
        CLOUD_KEY.hex().encode(),
        gzip.compress(b"some log\n" + CLOUD_KEY),
        "".join(f"%{byte:02x}" for byte in CLOUD_KEY).encode(),
        "".join(f"\\u{byte:04x}" for byte in CLOUD_KEY).encode(),
        CLOUD_KEY.decode().encode("utf-16-le"),
        CLOUD_KEY.decode().encode("utf-16-be"),
        b"\xff\xfe\x80\xc3" + CLOUD_KEY + b"\xf0\x9f",
        b"\x1b[1;31m" + CLOUD_KEY + b"\x1b[0m",
    ],
)
def test_a_hidden_key_is_found_and_all_that_holds_it_is_marked(hidden: bytes) -> None:
    before = b"some text, "
    data = before + hidden + b" , more"
    assert "cloud-key" in rules_in(data)
    middle = len(before) + len(hidden) // 2
    assert covers(data, middle - 4, middle + 4)


@pytest.mark.parametrize("noise", [b"\x1b[31m", b"\xe2\x80\x8b", b"\n", b"\r\n", b"\\\n", b"\x00"])
def test_a_key_with_noise_between_any_two_bytes_is_found(noise: bytes) -> None:
    for at in range(3 if b"\n" in noise else 1, len(HOST_TOKEN)):
        data = b"x " + HOST_TOKEN[:at] + noise + HOST_TOKEN[at:] + b"\nnext"
        assert covers(data, 2, 2 + len(HOST_TOKEN) + len(noise)), at


def test_the_line_after_a_key_is_no_part_of_it() -> None:
    marks = scan_bytes(b"a " + CLOUD_KEY + b"\nNEXTLINE\n", POLICY, scanners=SCANNERS)
    assert [(mark.start, mark.end) for mark in marks] == [(2, 22)]


def test_a_thousand_decoys_hide_neither_the_key_nor_its_severity() -> None:
    decoys = b"".join(b"password=decoy%04d " % number for number in range(1000)) * 2
    data = decoys + KEY_BLOCK
    marks = scan_bytes(data, POLICY, scanners=SCANNERS)
    assert len(marks) == 2001
    findings = findings_of(data, marks, stream="stdout", salt=b"s" * 16)
    assert len(findings) == FINDINGS_LISTED
    assert [one.rule for one in findings if one.severity is Severity.CRITICAL] == ["key-block"]


def test_a_key_behind_megabytes_and_across_pieces_is_found_at_its_place() -> None:
    for at in (PIECE_BYTES - 10, PIECE_BYTES, 2 * PIECE_BYTES + 5):
        data = b"lorem ip " * (at // 9) + b" " * (at % 9) + CLOUD_KEY + b" " + b"dolor " * 1000
        marks = scan_bytes(data, POLICY, scanners=SCANNERS)
        assert [(mark.rule, mark.start, mark.end) for mark in marks] == [("cloud-key", at, at + 20)]


def test_a_cut_text_ends_in_a_mark_over_what_may_have_been_beginning() -> None:
    marks = scan_bytes(b"text " + CLOUD_KEY[:9], POLICY, scanners=SCANNERS, is_cut=True)
    assert [(mark.rule, mark.start, mark.end) for mark in marks] == [("cut-off", 5, 14)]
    assert scan_bytes(b"a full line.\n", POLICY, scanners=SCANNERS, is_cut=True) == []


def test_a_bomb_is_reported_and_marked() -> None:
    assert "unread-archive" in rules_in(b"x" + gzip.compress(bytes(64 << 20))[: ARCHIVE_BYTES - 1])


def test_encoded_text_is_searched_for_secrets_only() -> None:
    assert rules_in(base64.b64encode(b"joe@example.com and sudo, and more of it")) == set()


def test_a_scanner_that_is_off_sees_nothing() -> None:
    policy = ExternalizationPolicy(personal="off", code="off")
    marks = scan_bytes(b"joe@some.org sudo " + CLOUD_KEY, policy, scanners=SCANNERS)
    assert {mark.scanner for mark in marks} == {"secrets"}


def test_a_parser_adds_to_what_its_rules_found() -> None:
    assert rules_in(b"joe@some.org patient 7\nsudo x") == {"mail", "health", "sudo", "parsed"}
    assert rules_in(b"joe@some.org\npatient 7") == {"mail"}


@pytest.mark.parametrize("at", range(1, 20))
def test_a_key_split_over_both_streams_is_marked_in_both(at: int) -> None:
    first, second = b"log\nkey " + CLOUD_KEY[:at] + b"\n", CLOUD_KEY[at:] + b"\nmore\n"
    for left, right in ((first, second), (second, first)):
        in_left, in_right = scan_junction(left, right, POLICY, scanners=SCANNERS)
        starts = {(mark.start, mark.end) for mark in (in_left if left is first else in_right)}
        ends = {(mark.start, mark.end) for mark in (in_right if left is first else in_left)}
        assert starts == {(8, 8 + at)}
        assert ends == {(0, 20 - at)}


def test_streams_that_only_follow_one_another_have_no_mark_at_their_junction() -> None:
    assert scan_junction(b"a " + CLOUD_KEY + b"\n", b"word\n", POLICY, scanners=SCANNERS) == ([], [])
    assert scan_junction(b"", b"word\n", POLICY, known=[KnownSecret("a", b"abcdefgh")], scanners=SCANNERS) == ([], [])
