"""Runs of text that hold other text: base64, hex, URL and string escapes, gzip and zlib.

Enforces: a run is decoded in pieces of bounded size, a compressed one to a bounded size and a budget over all of them;
what could not be read within it is reported, never passed over. Does not: scan what comes out (`kavach.gate.layer`
does), or guess at encryption. May be used by: kavach.gate.
"""

from __future__ import annotations

import binascii
import functools
import urllib.parse
import zlib
from typing import TYPE_CHECKING, Any, NamedTuple

from kavach.gate.linear import compile_expression
from kavach.gate.rule import Rule
from kavach.model.verdict import Severity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DEPTH = 2
"""How many encodings may lie in one another (gate.md)."""
RUN_BYTES = 32 << 10
"""A longer run is read in pieces of this size, which overlap; it bounds what a stream holds."""
ARCHIVE_BYTES = 256 << 10
"""How much of a compressed run is read."""
INFLATED_BYTES = 1 << 20
"""How much one compressed run may become."""
BUDGET_BYTES = 8 << 20
"""What all compressed runs of an output may become, beside `BUDGET_SHARE` for each byte of output before them."""
BUDGET_SHARE = 4
_SHORTEST_RUN = 20  # base64 of 15 bytes; the shortest secrets that rules know have 16
_TELLING = r"[\t\n\r\x20-\x7e]{12}|(?:[\x20-\x7e]\x00){8}|\x1f\x8b\x08"  # what no rule could hold without


class Inner(NamedTuple):
    """What a run turned out to hold.

    Args:
        texts: what it may mean; base64 that begins in the middle of a word has four readings.
        used_bytes: how much of the run they come from.
        spent_bytes: what of the budget was used.
        is_whole: False where the budget or a limit left something unread.
    """

    texts: tuple[bytes, ...]
    used_bytes: int
    spent_bytes: int = 0
    is_whole: bool = True


_BREAK = r"\\?\r?\n"


def _rule(name: str, expression: str, max_bytes: int, literals: tuple[bytes, ...] = ()) -> Rule:
    return Rule(
        name=name,
        category="encoding",
        severity=Severity.INFO,
        message="",
        expression=expression,
        max_bytes=max_bytes,
        literals=literals,
    )


_LETTER = "[A-Za-z0-9+/_-]"
_LINE = f"{_LETTER}{{{_SHORTEST_RUN},}}"
_PLAIN = r"[!#-\[\]-~]*"
_ESCAPE = r"\\u[0-9A-Fa-f]{4}|\\x[0-9A-Fa-f]{2}|\\/"
RUNS = (
    _rule("base64", f"{_LINE}(?:{_BREAK}{_LINE})*(?:{_BREAK}{_LETTER}+)?={{0,2}}", RUN_BYTES),
    _rule("hex", r"(?:[0-9A-Fa-f]{2}){12,}(?:\\?\r?\n(?:[0-9A-Fa-f]{2})+)*", RUN_BYTES),
    _rule("url", r"[A-Za-z0-9._~+-]*(?:%[0-9A-Fa-f]{2}[A-Za-z0-9._~+-]*)+", RUN_BYTES, (b"%",)),
    _rule("escapes", f"(?:{_PLAIN}(?:{_ESCAPE}))+{_PLAIN}", RUN_BYTES, (b"\\u", b"\\x", b"\\/")),
    _rule("gzip", r"\x1f\x8b\x08[\x00-\x1f][\x00-\xff]*", ARCHIVE_BYTES, (b"\x1f\x8b\x08",)),
)


def inner_of(kind: str, run: bytes, budget_bytes: int) -> Inner:
    """Return what a run holds.

    Args:
        kind: the name of one of `RUNS`.
        run: its bytes.
        budget_bytes: how much may come out of what is compressed.
    """
    if kind == "gzip":
        return _inflate(run, budget_bytes, zlib.MAX_WBITS | 16)  # zlib.h, inflateInit2: 16 = a gzip header is expected
    texts = list(_DECODERS[kind](run))
    for text in texts:
        if _is_zlib(text) and (inner := _inflate(text, budget_bytes, zlib.MAX_WBITS)).texts:
            return inner._replace(used_bytes=len(run))
    return Inner(tuple(text for text in texts if _telling().search(text) is not None), len(run))


@functools.cache
def _telling() -> Any:  # noqa: ANN401 - the engine ships no types
    return compile_expression(_TELLING, "telling")


def _is_zlib(text: bytes) -> bool:
    """Return whether a text begins like a zlib stream (RFC 1950, section 2.2)."""
    return len(text) > 2 and text[0] & 0x0F == 8 and text[0] >> 4 <= 7 and (text[0] << 8 | text[1]) % 31 == 0


def _inflate(run: bytes, budget_bytes: int, window_bits: int) -> Inner:
    most = max(0, min(INFLATED_BYTES, budget_bytes))
    machine = zlib.decompressobj(window_bits)
    try:
        text = machine.decompress(run, most + 1)
    except zlib.error:
        return Inner((), len(run))
    used = len(run) - len(machine.unused_data)
    return Inner((text[:most],), used, min(len(text), most), len(text) <= most)


def _base64(run: bytes) -> Iterator[bytes]:
    """Yield the four readings of a run: it may begin in the middle of a word that is glued to it."""
    letters = run.translate(_STANDARD, b"\\\r\n=")
    if not _looks_encoded(letters):
        return
    for skipped in range(4):
        usable = letters[skipped:]
        usable = usable[: len(usable) - (len(usable) % 4 == 1)]
        yield binascii.a2b_base64(usable + b"=" * (-len(usable) % 4))


_STANDARD = bytes.maketrans(b"-_", b"+/")


def _looks_encoded(letters: bytes) -> bool:
    """Return whether a run mixes its alphabet, as nearly all base64 of so many bytes does and few words do."""
    has_digit = len(letters.translate(None, b"0123456789")) != len(letters)
    return letters != letters.lower() and letters != letters.upper() and (has_digit or len(letters) < 3 * _SHORTEST_RUN)


def _hex(run: bytes) -> Iterator[bytes]:
    digits = run.translate(None, b"\\\r\n")
    for skipped in range(2):
        usable = digits[skipped:]
        yield binascii.a2b_hex(usable[: len(usable) // 2 * 2])


def _url(run: bytes) -> Iterator[bytes]:
    yield urllib.parse.unquote_to_bytes(run)


_ESCAPED = {0x75: 4, 0x78: 2}  # \u and \x, and how many digits follow


def _escapes(run: bytes) -> Iterator[bytes]:
    r"""Yield a run without its backslashes: \\u0041 and \\x41 are A, \\/ is /; any other escape stays."""
    head, *parts = run.split(b"\\")
    made = [head]
    for part in parts:
        count = _ESCAPED.get(part[0], 0) if part else 0
        try:
            code = int(part[1 : 1 + count], 16) if count else -1
        except ValueError:
            code = -1
        if code >= 0:
            made.append(chr(code).encode("utf-8", "surrogatepass") if count == 4 else bytes((code,)))
            made.append(part[1 + count :])
        else:
            made.append(part if part.startswith(b"/") else b"\\" + part)
    yield b"".join(made)


_DECODERS: dict[str, Callable[[bytes], Iterator[bytes]]] = {
    "base64": _base64,
    "hex": _hex,
    "url": _url,
    "escapes": _escapes,
}
