"""Artifacts that are more than data: programs, pickles, archives that write elsewhere, files of two formats, formulas.

Enforces: what is only recognised is `info`; what acts on whoever opens it is `high`, a spreadsheet formula that reaches
out `medium`. A find by magic spans the whole artifact. Does not: load, unpack to disk or run anything; say that a
program is harmful. Magic needs whole artifacts, so that only formulas are found in streams. May be used by:
kavach.gate.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from kavach.gate.archives import has_escapes, is_tar, is_zip, unpack_head
from kavach.gate.pickles import has_calls, is_pickle
from kavach.gate.rule import Mark, Rule
from kavach.model.verdict import Severity

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["BINARY", "BinaryScanner"]

_PROGRAMS: tuple[tuple[bytes, str, str], ...] = (
    (b"\x7fELF", "elf", "A program or library for Linux (ELF)."),
    (b"\xfe\xed\xfa\xce", "mach-o", "A program or library for macOS (Mach-O)."),  # mach-o/loader.h MH_MAGIC
    (b"\xfe\xed\xfa\xcf", "mach-o", "A program or library for macOS (Mach-O)."),  # MH_MAGIC_64
    (b"\xce\xfa\xed\xfe", "mach-o", "A program or library for macOS (Mach-O)."),  # MH_CIGAM
    (b"\xcf\xfa\xed\xfe", "mach-o", "A program or library for macOS (Mach-O)."),  # MH_CIGAM_64
    (b"\x00asm", "wasm", "A WebAssembly module."),
)
_FAT = b"\xca\xfe\xba\xbe"  # mach-o/fat.h FAT_MAGIC; also a Java class, whose next word is a version of 45 or more
_FEWEST_JAVA = 45
_PICTURES = (b"GIF87a", b"GIF89a", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF")
_PDF = b"%PDF-"
_PDF_HEAD_BYTES = 1024  # ISO 32000-1 annex H.3: readers look for the header so far in
_ACTIVE = re.compile(rb"(?i)<\?php\s|<script[\s>]|\x7fELF[\x01\x02][\x01\x02]\x01")

_FUNCTIONS = ("hyperlink", "webservice", "filterxml", "rtd", "importxml", "importdata", "importrange", "importhtml")
_PROGRAM_NAMES = ("cmd", "powershell", "pwsh", "mshta", "rundll32", "regsvr32", "wscript", "cscript", "msexcel")
_CELL = r"(?:^|[\n,;\t])\"?"
_FORMULAS = (
    Rule(
        name="csv-command",
        category="formula",
        severity=Severity.HIGH,
        message="A spreadsheet cell that starts a program (dynamic data exchange).",
        expression=(
            rf"{_CELL}([=+@-][^\n,;\t|]{{0,40}}\b(?i:{'|'.join(_PROGRAM_NAMES)})(?i:\.exe)?"
            r"\|[^\n]{1,200}![A-Za-z0-9_$]+)"
        ),
        max_bytes=512,
        literals=(*(f"{name}|".encode() for name in _PROGRAM_NAMES), b".exe|"),
        group=1,
    ),
    Rule(
        name="csv-formula",
        category="formula",
        severity=Severity.MEDIUM,
        message="A spreadsheet cell whose formula reaches another machine.",
        expression=rf"{_CELL}([=+@-][^\n,;\t]{{0,40}}?\b(?i:{'|'.join(_FUNCTIONS)})\([^\n]{{1,200}}\))",
        max_bytes=512,
        literals=tuple(f"{name}(".encode() for name in _FUNCTIONS),
        group=1,
    ),
)


class BinaryScanner:
    """Formulas by rules, everything else by magic."""

    name: str = "binary"
    rules: tuple[Rule, ...] = _FORMULAS

    def inspect(self, text: bytes, marks: Sequence[Mark]) -> Iterator[Mark]:  # noqa: ARG002 - the magic needs no mark
        """Yield what the artifact is, in marks over all of it.

        Args:
            text: a whole artifact, not a piece of a stream.
            marks: what the rules found; they point at nothing that parsing could add to.
        """
        yield from _programs(text)
        yield from _polyglots(text)
        yield from _pickles(text)
        yield from _archives(text)


BINARY = BinaryScanner()
"""The one scanner for binary artifacts; it has no state."""


def _mark(text: bytes, rule: str, category: str, severity: Severity, message: str) -> Mark:
    return Mark("binary", rule, category, severity, message, 0, len(text))


def _programs(text: bytes) -> Iterator[Mark]:
    for magic, rule, message in _PROGRAMS:
        if text.startswith(magic):
            yield _mark(text, rule, "program", Severity.INFO, message)
    if text.startswith(_FAT):
        is_java = int.from_bytes(text[4:8], "big") >= _FEWEST_JAVA
        name, message = ("java-class", "A Java class.") if is_java else ("mach-o", _PROGRAMS[1][2])
        yield _mark(text, name, "program", Severity.INFO, message)
    if text.startswith(b"MZ"):
        header = int.from_bytes(text[0x3C:0x40], "little")  # winnt.h IMAGE_DOS_HEADER e_lfanew
        if text[header : header + 4] == b"PE\0\0":
            yield _mark(text, "pe", "program", Severity.INFO, "A program or library for Windows (PE).")


def _polyglots(text: bytes) -> Iterator[Mark]:
    """Yield a mark for a picture or document that is a second thing to whoever opens it otherwise.

    A program or script with a ZIP behind it is how self-extracting archives are made, and no polyglot.
    """
    is_picture = text.startswith(_PICTURES)
    is_two = is_picture and (_PDF in text[:_PDF_HEAD_BYTES] or _ACTIVE.search(text) is not None)
    if is_two or ((is_picture or text.startswith(_PDF)) and is_zip(text)):
        yield _mark(
            text, "polyglot", "polyglot", Severity.HIGH, "A file of two formats: a picture or document and more."
        )


def _pickles(text: bytes) -> Iterator[Mark]:
    if not is_pickle(text):
        return
    try:
        if has_calls(text):
            yield _mark(text, "pickle-call", "pickle", Severity.HIGH, "A pickle that runs code when it is loaded.")
        else:
            yield _mark(text, "pickle", "pickle", Severity.INFO, "A pickle.")
    except ValueError:
        yield _mark(text, "unparsed", "pickle", Severity.INFO, "Looks like a pickle, but cannot be read as one.")


def _archives(text: bytes) -> Iterator[Mark]:
    unpacked = text if is_tar(text) or is_zip(text) else unpack_head(text)
    if not is_tar(unpacked) and not is_zip(unpacked):
        return
    try:
        if has_escapes(unpacked):
            message = "An archive with members that leave the folder they are unpacked in."
            yield _mark(text, "archive-traversal", "archive", Severity.HIGH, message)
    except ValueError:
        yield _mark(text, "unparsed", "archive", Severity.INFO, "An archive that cannot be read to its end.")
