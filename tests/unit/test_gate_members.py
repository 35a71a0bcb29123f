"""What lies packed in an artifact is read, or the artifact counts as unread."""

from __future__ import annotations

import bz2
import io
import lzma
import os
import tarfile
import zipfile
import zlib

import pytest

from kavach import ExternalizationPolicy
from kavach.gate import members
from kavach.gate.members import packed_texts
from kavach.gate.public import scan
from kavach.model.verdict import Verdict

KEY = b"aws_access_key_id = AKIA" + b"Z7QX4N2MK5RT3WPL"
TEXT = b"a line of a file\n" * 50 + KEY + b"\n" + b"and more of it\n" * 50


def zipped(*texts: bytes, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", method) as archive:
        for number, text in enumerate(texts):
            archive.writestr(f"folder/{number}.txt", text)
    return made.getvalue()


def tarred(text: bytes) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        entry = tarfile.TarInfo("file")
        entry.size = len(text)
        archive.addfile(entry, io.BytesIO(text))
    return made.getvalue()


PACKED = {
    "zip": zipped(b"clean", TEXT),
    "stored zip": zipped(TEXT, method=zipfile.ZIP_STORED),
    "zip in a zip": zipped(zipped(TEXT)),
    "zip in a stored zip": zipped(zipped(TEXT), method=zipfile.ZIP_STORED),
    "zip behind a script": b"#!/bin/sh\nexit\n" + zipped(TEXT),
    "zip without a directory": zipped(TEXT).partition(b"PK\x01\x02")[0],
    "bzip2": bz2.compress(TEXT),
    "bzip2 of two streams": bz2.compress(b"clean") + bz2.compress(TEXT),
    "xz": lzma.compress(TEXT),
    "tar.xz": lzma.compress(tarred(TEXT)),
    "tar.bz2 in a zip": zipped(bz2.compress(tarred(TEXT))),
}


@pytest.mark.parametrize("name", PACKED)
def test_a_key_packed_in_an_artifact_is_found_and_does_not_leave(name: str) -> None:
    data = PACKED[name]
    result = scan(data)
    assert any(one.rule == "aws-access-key-id" for one in result.findings)
    assert result.redacted != data
    assert all(KEY not in (text or b"") for text in packed_texts(result.redacted))
    assert KEY not in result.redacted
    withheld = scan(data, ExternalizationPolicy.enforce())
    assert (withheld.verdict.is_released, withheld.redacted) == (False, None)


CLEAN = {
    "zip": zipped(b"clean\n" * 1000, os.urandom(5000)),
    "stored zip": zipped(b"clean\n" * 1000, method=zipfile.ZIP_STORED),
    "bzip2": bz2.compress(b"clean\n" * 1000),
    "xz of two streams": lzma.compress(b"clean\n") * 2,
    "empty zip": zipped(),
    "a program that knows ZIPs": b"\x7fELF" + b"code PK\x03\x04 more \xff\xff\xff\xff" * 3 + bytes(500),
    "text": b"nothing is packed in this",
}


@pytest.mark.parametrize("name", CLEAN)
def test_clean_artifacts_leave_as_they_are(name: str) -> None:
    assert scan(CLEAN[name]).redacted == CLEAN[name]


def _with_flag(data: bytes, offset: int, value: int) -> bytes:
    return data[:offset] + bytes([value]) + data[offset + 1 :]


UNREAD = {
    "encrypted": _with_flag(zipped(TEXT), 6, 1),
    "unknown method": _with_flag(zipped(TEXT), 8, 93),
    "cut off": zipped(os.urandom(5000))[:2000],
    "broken": b"PK\x03\x04"
    + bytes(4)
    + b"\x08"
    + bytes(21)
    + b"\x07 is no kind of block",  # RFC 1951, 3.2.3: 11 is none
    "xz cut off": lzma.compress(TEXT)[:-20],
    "bzip2 with a tail": bz2.compress(b"clean") + b"BZh9 and no more",
    "too deep": zipped(zipped(zipped(zipped(zipped(b"clean\n" * 20))))),
    "a bomb": zipped(bytes(members.UNPACKED_BYTES + 1)),
    "many small bombs": zipped(*[b"ab " * (members.UNPACKED_BYTES // 9)] * 4),
    "an xz bomb": lzma.compress(bytes(members.UNPACKED_BYTES + 1)),
}


@pytest.mark.parametrize("name", UNREAD)
def test_what_cannot_be_read_whole_does_not_leave(name: str) -> None:
    result = scan(UNREAD[name])
    assert [one.rule for one in result.findings if one.scanner == "encoded"] == ["unread-archive"]
    assert result.verdict is Verdict.WARN
    assert result.redacted.strip(b"\r\n") == b"[REDACTED:unread-archive]"


def test_a_header_that_contradicts_the_directory_hides_nothing() -> None:
    data = _with_flag(zipped(TEXT), 8, 0)  # the header says stored; unzip believes the directory
    assert any(one.rule == "aws-access-key-id" for one in scan(data).findings)


def test_a_member_hidden_in_another_ones_bytes_is_found() -> None:
    raw = zlib.compressobj(0, zlib.DEFLATED, -15)
    inner = raw.compress(zipped(TEXT)) + raw.flush()  # deflate's stored blocks
    header = bytearray(zipped(b"x" * 500).partition(b"folder")[0])
    header[26:30] = bytes(4)
    assert any(one.rule == "aws-access-key-id" for one in scan(bytes(header) + inner).findings)


def test_what_is_told_by_a_name_alone_takes_no_archive_along() -> None:
    text = b'password = "Tr0ub4dor&3-horse"\n'
    assert b"[REDACTED:" in scan(text).redacted
    data = zipped(text)
    result = scan(data)
    assert (result.redacted, [one.rule for one in result.findings]) == (data, ["generic-password"])


def test_nothing_is_unpacked_where_no_scanner_would_read_it() -> None:
    policy = ExternalizationPolicy(secrets="off", personal="redact")
    assert scan(PACKED["zip"], policy).redacted == PACKED["zip"]
