"""Bytes and marks become bytes in which a label stands for each thing that was marked.

Enforces: no byte under a mark is released; overlapping marks become one label; the number of lines stays; what was
valid JSON stays valid JSON; what lies outside every mark stays as it is. Does not: scan, or choose which marks to
redact (`kavach.gate.judge` does). Removing one thing may lay another bare (a number whose neighbour became a label):
whoever promises that nothing is found afterwards (`kavach.gate.release`) looks again. May be used by: kavach.gate.
"""

from __future__ import annotations

import functools
import operator
import re
from typing import TYPE_CHECKING, NamedTuple

from kavach.errors import InternalError
from kavach.gate.json_spans import fit_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from kavach.gate.rule import Mark

LABEL_BYTES = 64
"""The longest name that a label shows; a secret's name is at most that long (kavach.model.secret)."""

_LINE_END = re.compile(rb"\r\n|\n|\r")
_UNSAFE = re.compile(r"[^a-z0-9._-]")


class Span(NamedTuple):
    """One stretch to be replaced, and by what.

    Args:
        start: the first byte.
        end: the byte after the last.
        label: what stands there instead.
    """

    start: int
    end: int
    label: bytes


@functools.lru_cache(maxsize=1024)
def label_of(rule: str) -> bytes:
    """Return `[REDACTED:<rule>]`: lower case, and never a byte that would break a line, a string or a terminal.

    Args:
        rule: a rule's name, or the name of a secret that Kavach injected.
    """
    return f"[REDACTED:{_UNSAFE.sub('-', rule.lower()[:LABEL_BYTES])}]".encode("ascii")


def merge(marks: Iterable[Mark]) -> list[Span]:
    """Return disjoint spans in order. Of marks that overlap the most severe gives its name, then the longest.

    A tie is settled by the earlier start and then by the name, so that the order of the marks does not matter. Marks
    that only touch stay apart.

    Args:
        marks: what is to be replaced, in any order.
    """
    ordered = sorted((mark for mark in marks if mark.start < mark.end), key=operator.attrgetter("start", "end"))
    spans: list[Span] = []
    group: list[Mark] = []
    end = -1
    for mark in ordered:
        if group and mark.start >= end:
            spans.append(_span(group, end))
            group = []
        group.append(mark)
        end = mark.end if len(group) == 1 else max(end, mark.end)
    if group:
        spans.append(_span(group, end))
    return spans


def _span(group: Sequence[Mark], end: int) -> Span:
    if len(group) == 1:
        return Span(group[0].start, end, label_of(group[0].rule))
    best = min(group, key=lambda mark: (-mark.severity.rank, mark.start - mark.end, mark.start, mark.rule))
    return Span(group[0].start, end, label_of(best.rule))


def redact(data: bytes, marks: Iterable[Mark], *, limit_bytes: int | None = None) -> bytes:
    """Return the text with a label for everything marked; valid JSON, or a line of it, stays valid.

    A mark over several lines becomes one label and the line ends that it covered. Where the text, or a
    line, is JSON, `json_spans.fit_json` says what a mark takes.

    Args:
        data: a whole text.
        marks: what is to be replaced, by offsets in `data`.
        limit_bytes: leave out all that stood at or after this offset; a mark across it is replaced whole.

    Raises:
        InternalError: a mark points outside the text.
    """
    spans = merge(marks)
    if spans and (spans[0].start < 0 or spans[-1].end > len(data)):
        raise InternalError(f"a mark ends at {spans[-1].end} in a text of {len(data)} bytes")
    return replace(data, fit_json(data, spans), limit_bytes=limit_bytes)


def replace(data: bytes, spans: Iterable[Span], *, limit_bytes: int | None = None) -> bytes:
    """Return the text with each span's label in its place, and the line ends that it covered after it.

    Args:
        data: a text, or a piece of a stream.
        spans: disjoint and in order, as `merge` gives them.
        limit_bytes: as for `redact`.
    """
    limit = len(data) if limit_bytes is None else limit_bytes
    view = memoryview(data)
    pieces: list[bytes | memoryview] = []
    at = 0
    for span in spans:
        if span.start >= limit:
            break
        pieces += (view[at : span.start], span.label, *_LINE_END.findall(data, span.start, span.end))
        at = span.end
    pieces.append(view[at : max(at, limit)])
    return b"".join(pieces)
