"""A text without what a reader does not see: escape sequences, zero-width characters, NULs, control characters.

Enforces: what was found in the plain text maps back to exactly the bytes that hold it, noise included; UTF-16 is plain
text when its NULs are gone. Does not: join lines (`kavach.gate.wrapping` does) or decode. May be used by: kavach.gate.
"""

from __future__ import annotations

import bisect
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from kavach.gate.expression import parse, render
from kavach.gate.linear import compile_expression
from kavach.gate.prefixes import prefixes_of

if TYPE_CHECKING:
    from collections.abc import Sequence

GAP_BYTES = 256
"""Noise between two characters up to this length is as if it were not there; more of it separates them. It bounds
what a stream has to hold."""
_NOISE = (
    r"\x1b\[[0-?]{0,64}[ -/]{0,8}[@-~]"  # ECMA-48 5.4: control sequences, colours among them
    r"|\x1b[\]PX^_][^\x07\x1b]{0,200}(?:\x07|\x1b\\)"  # ECMA-48 5.6: strings; window titles, hyperlinks
    r"|\x1b[ -/]{0,4}[0-OQ-WYZ\\`-~]"  # ECMA-35: what else an escape begins
    r"|\xe2\x80[\x8b-\x8f\xaa-\xae]|\xe2\x81[\xa0-\xa4\xa6-\xa9]|\xef\xbb\xbf"  # Unicode Cf, zero width
    r"|\xc2\xad|\xcd\x8f|\xe1\xa0\x8e"  # soft hyphen, joiners
    r"|\xef\xb8[\x80-\x8f]|\xf3\xa0[\x80-\x81][\x80-\xbf]"  # variation selectors and tags
    r"|[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]"  # C0 without what ends a line
)
# SECURITY: atomic and possessive: Python's own engine, ten times as fast here as calls of RE2, cannot backtrack.
_RUNS = re.compile(f"(?>{_NOISE})+".encode("latin-1"))
_NOISE_BYTES = 256  # the longest of these
_FIRST_BYTES = r"[\x00-\x08\x0e-\x1f\x7f\xc2\xcd\xe1\xe2\xef\xf3]"
_SEPARATOR = b"\n"
_LETTERS = bytes(range(0x30, 0x3A)) + bytes(range(0x41, 0x5B)) + bytes(range(0x61, 0x7B))
_LETTERS_MASKED = bytes.maketrans(_LETTERS, b"\x1b" * len(_LETTERS))


class Plain(NamedTuple):
    """A text without its noise.

    Args:
        text: what is left.
        starts: where in `text` each kept stretch begins, in order.
        origins: where in the original it began.
        length: of the original.
        masked: the original, in which escape sequences end in no letter: what follows begins a word.
    """

    text: bytes
    starts: Sequence[int]
    origins: Sequence[int]
    length: int
    masked: bytes

    def origin(self, offset: int) -> int:
        """Return where in the original the byte at `offset` stands; the original's length at the end."""
        if offset >= len(self.text):
            return self.length
        at = bisect.bisect_right(self.starts, offset) - 1
        return self.origins[at] + offset - self.starts[at]

    def origin_end(self, offset: int) -> int:
        """Return where in the original the stretch that ends before `offset` ends."""
        return self.origin(offset - 1) + 1 if offset > 0 else 0

    def offset(self, origin: int) -> int:
        """Return how many bytes of the plain text stand before a place in the original."""
        at = bisect.bisect_right(self.origins, origin) - 1
        if at < 0:
            return 0
        end = self.starts[at + 1] if at + 1 < len(self.starts) else len(self.text)
        return min(end, self.starts[at] + origin - self.origins[at])


class _Engines(NamedTuple):
    first: Any
    opening: Any


_engines: list[_Engines] = []


def _compiled() -> _Engines:
    if not _engines:
        opening = f"(?:{render(prefixes_of(parse(f'(?:{_NOISE})+')))})\\z"
        _engines.append(
            _Engines(
                compile_expression(_FIRST_BYTES, "noise"),
                compile_expression(opening, "noise"),
            )
        )
    return _engines[0]


def plain(text: bytes, *, is_last: bool) -> Plain | None:
    """Return the text without its noise; None where there is none.

    Args:
        text: what to read; it does not begin within noise.
        is_last: nothing follows. Otherwise what may be the beginning of noise at its end counts as noise.
    """
    engines = _compiled()
    first = engines.first.search(text)
    if first is None:
        return None
    spans = _noise(engines, text, first.start(), is_last=is_last)
    if not spans:
        return None
    kept: list[bytes] = []
    starts, origins = [0], [0]
    at = size = 0
    for start, end in spans:
        kept.append(text[at:start])
        size += start - at
        if end - start > GAP_BYTES:
            kept.append(_SEPARATOR)
            starts.append(size)
            origins.append(start)
            size += 1
        starts.append(size)
        origins.append(end)
        at = end
    kept.append(text[at:])
    return Plain(b"".join(kept), starts, origins, len(text), _masked(text, spans))


def _masked(text: bytes, spans: Sequence[tuple[int, int]]) -> bytes:
    if b"\x1b" not in text:
        return text
    masked = bytearray(text)
    for start, end in spans:
        noise = masked[start:end]
        if b"\x1b" in noise:
            masked[start:end] = noise.translate(_LETTERS_MASKED)
    return bytes(masked)


def _noise(engines: _Engines, text: bytes, first: int, *, is_last: bool) -> list[tuple[int, int]]:
    spans = [found.span() for found in _RUNS.finditer(text, first)]
    if not is_last:
        rest = engines.opening.search(text, max(spans[-1][1] if spans else first, len(text) - _NOISE_BYTES))
        if rest is not None and rest.start() < len(text):
            start = rest.start()
            if spans and spans[-1][1] == start:
                start = spans.pop()[0]
            spans.append((start, len(text)))
    return spans


def border(text: bytes, at: int) -> int:
    """Return the last place up to `at` where a text may be cut without cutting noise."""
    low = max(0, at - GAP_BYTES - _NOISE_BYTES)
    for found in _RUNS.finditer(text, low):
        if found.start() >= at:
            break
        if found.end() > at:
            return int(found.start())
    return at
