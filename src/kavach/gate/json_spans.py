"""Spans over JSON text are fitted to its tokens, so that labels in their place leave it valid.

Enforces: a number or word under a span becomes a string; a span that cuts an escape or a UTF-8 character takes all of
it; quotes, brackets, commas and colons under a span stay. Does not: touch a text that is not valid JSON, where those
could be part of the thing itself. Linear in the text, whatever the number of spans. May be used by:
kavach.gate.redact.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kavach.gate.redact import Span

_QUOTE = b'"'
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"')  # RFC 8259 section 7
_STRINGS = re.compile(rb'(?:[^"]*"[^"\\]*(?:\\.[^"\\]*)*")*')
_WORD = re.compile(rb"[^\s\[\]{},:\"]+")  # section 3: numbers and literals
_BETWEEN = b' \t\r\n[]{},:"'  # section 2: white space and the structural characters; and what bounds a string
# Section 7: a character by its escape, a pair of surrogates being one; RFC 3629: a character of several bytes.
_UNIT = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u[0-9a-fA-F]{4}|\\.|[\xc0-\xff][\x80-\xbf]{1,3}"
)
_UNITS = re.compile(rb"(?:[^\\\xc0-\xff]*(?:" + _UNIT.pattern + rb"|[\xc0-\xff]))*")
_UNIT_BYTES = 12  # the longest unit: a pair of surrogates


def fit_json(data: bytes, spans: Sequence[Span]) -> Iterator[Span]:
    """Yield the spans so that replacing them leaves every JSON text valid: the whole, or a line by itself.

    Args:
        data: a whole text.
        spans: disjoint and in order.
    """
    if not spans:
        return
    if _is_json(data):
        yield from _fit_text(data, spans, 0, len(data))
        return
    starts = [span.start for span in spans]
    at = 0
    while at < len(spans):
        start, end = _line_around(data, spans[at].start)
        stop = bisect_left(starts, end, lo=at + 1)
        own = spans[at:stop]
        # A line out of which a span leads is part of something larger, and no JSON text by itself.
        is_alone = own[-1].end <= end
        yield from _fit_text(data, own, start, end) if is_alone and _is_json(data[start:end]) else own
        at = stop


def _line_around(data: bytes, offset: int) -> tuple[int, int]:
    end = data.find(b"\n", offset)
    return data.rfind(b"\n", 0, offset) + 1, len(data) if end < 0 else end


def _is_json(text: bytes) -> bool:
    """Return whether the text is an object, an array or a string in JSON; a bare number is not worth keeping."""
    if text.lstrip(b" \t\r\n")[:1] not in {b"{", b"[", _QUOTE}:
        return False
    try:
        msgspec.json.decode(text, type=msgspec.Raw)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


def _fit_text(data: bytes, spans: Sequence[Span], start: int, end: int) -> Iterator[Span]:
    """Yield what to replace in one valid JSON text, which stands at `start` to `end` of the data."""
    outside = start  # a place outside every string; all before it is done
    opened = closed = start  # the string that was read last
    done = start
    for span in spans:
        left = max(span.start, done)
        while left < span.end:
            if left >= closed:
                opened, closed, outside = _next_string(data, outside, left, span.end, end)
            if left < opened:
                right = min(span.end, opened)
                fitted = list(_fit_words(data, span, max(left, done), right, (done, end)))
            else:
                right = min(span.end, closed)
                fitted = _fit_string(data, span, max(left, done), right, (max(opened + 1, done), closed - 1))
            yield from fitted
            done = fitted[-1].end if fitted else done
            left = max(right, done)


def _next_string(data: bytes, outside: int, left: int, right: int, end: int) -> tuple[int, int, int]:
    """Return where the string around or after `left` opens and closes, and a place outside strings behind it.

    Where no string opens before `right`, all three are `right`.
    """
    # No string of JSON holds a line end, so that reading may begin with the line.
    outside = max(outside, data.rfind(b"\n", outside, left) + 1)
    found = _STRINGS.match(data, outside, left)
    opened = data.find(_QUOTE, found.end() if found else outside, right)
    string = _STRING.match(data, opened, end) if opened >= 0 else None
    if string is None:
        return right, right, right
    return opened, string.end(), string.end()


def _fit_words(data: bytes, span: Span, left: int, right: int, bounds: tuple[int, int]) -> Iterator[Span]:
    while left > bounds[0] and data[left - 1] not in _BETWEEN:
        left -= 1
    while right < bounds[1] and data[right - 1] not in _BETWEEN and data[right] not in _BETWEEN:
        right += 1
    for word in _WORD.finditer(data, left, right):
        yield span._replace(start=word.start(), end=word.end(), label=_QUOTE + span.label + _QUOTE)


def _fit_string(data: bytes, span: Span, left: int, right: int, inside: tuple[int, int]) -> list[Span]:
    left, right = max(left, inside[0]), min(right, inside[1])
    if left >= right:
        return []
    start, _ = _unit_at(data, left, inside)
    _, end = _unit_at(data, right, (start, inside[1]))
    return [span._replace(start=start, end=end)]


def _unit_at(data: bytes, offset: int, inside: tuple[int, int]) -> tuple[int, int]:
    """Return the bounds of the character that the offset cuts, or the offset twice where it cuts none."""
    found = _UNITS.match(data, inside[0], max(inside[0], offset - _UNIT_BYTES))
    for unit in _UNIT.finditer(data, found.end() if found else inside[0], min(inside[1], offset + _UNIT_BYTES)):
        if unit.start() < offset < unit.end():
            return unit.start(), unit.end()
    return offset, offset
