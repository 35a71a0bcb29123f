"""Exact search for known values, in a text that may come in pieces and over line breaks; no expression, no engine.

Enforces: every occurrence of every form is found, whatever its length; a text's end that could be the beginning of one
is told. Does not: know forms (`kavach.gate.known` does). It stands where compiled rules stand. May be used by:
kavach.gate.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from kavach.gate.opening import Beginning
from kavach.gate.rule import Mark
from kavach.gate.wrapping import unwrap

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kavach.gate.engine import Progress
    from kavach.gate.known import Needle

_BREAK = re.compile(rb"\\?\r?\n")  # what `unwrap` takes out: one alternative a byte, it cannot backtrack
_FIRST_BYTES = 3  # a form's beginning is looked for by so many bytes, then compared


class Needles(NamedTuple):
    """The forms of known values, in the place of compiled rules.

    Args:
        plain: finds them.
        broken: finds nothing: `plain` reads over line breaks.
        openings: what may be beginning.
    """

    plain: _Exact
    broken: _Nothing
    openings: _Beginnings


def compile_needles(needles: Sequence[Needle]) -> Needles:
    """Return known values, ready to be looked for."""
    return Needles(_Exact(needles), _Nothing(), _Beginnings(needles))


class _Exact:
    def __init__(self, needles: Sequence[Needle]) -> None:
        self._needles = [(one, frozenset(map(unwrap, one.forms))) for one in needles]

    def sweep(self, text: bytes, stop: int, progress: Progress, *, is_last: bool) -> tuple[list[Mark], int]:
        """Return the marks that begin before `stop` and were not told before; nothing of it ever waits."""
        del is_last
        start = progress.floor
        marks: list[Mark] = []
        if start < stop:
            whole = unwrap(text)
            for needle, forms in self._needles:
                for form in forms:
                    marks += (
                        needle.mark(begin, end)
                        for begin, end in _occurrences(text, whole, form)
                        if start <= begin < stop
                    )
            progress.move_on(stop, {})
        return marks, stop


class _Nothing:
    def sweep(self, text: bytes, stop: int, progress: Progress, *, is_last: bool) -> tuple[list[Mark], int]:
        """Return nothing, and that nothing waits."""
        del text, progress, is_last
        return [], stop


class _Beginnings:
    def __init__(self, needles: Sequence[Needle]) -> None:
        self._forms = tuple(frozenset(unwrap(form) for one in needles for form in one.forms))
        self._longest = max(map(len, self._forms), default=0)

    def first(self, text: bytes, *, is_start: bool, free: frozenset[str] = frozenset()) -> Beginning:
        """Return the first place from where a form could go on when more comes; the text's length if there is none."""
        del is_start, free
        # A break takes up to three bytes and may stand behind each byte of a form.
        tail = text[max(0, len(text) - 4 * self._longest) :]
        longest = 0
        for end in (tail, tail.rstrip(b"\\\r")):  # the beginning of a break is no byte of a form
            read = unwrap(end)
            longest = max([longest, *(_held(read, form) for form in self._forms)])
        if not longest:
            return Beginning(len(text), len(text))
        at = _origin_from_end(text, longest)
        return Beginning(at, at)


def _held(text: bytes, form: bytes) -> int:
    """Return the length of the longest end of a text that a form, longer than it, begins with."""
    start = max(0, len(text) - len(form) + 1)
    head = form[:_FIRST_BYTES]
    at = text.find(head, start)
    while at >= 0:
        if form.startswith(text[at:]):
            return len(text) - at
        at = text.find(head, at + 1)
    shorts = range(min(_FIRST_BYTES - 1, len(text), len(form) - 1), 0, -1)
    return next((size for size in shorts if text.endswith(form[:size])), 0)


def _occurrences(text: bytes, whole: bytes, form: bytes) -> Iterator[tuple[int, int]]:
    """Yield where a form stands in a text, over breaks; `whole` is the text without them."""
    at = whole.find(form)
    if at < 0:
        return
    pieces = list(_pieces(text))
    while at >= 0:
        yield _origin(pieces, at), _origin(pieces, at + len(form) - 1) + 1
        at = whole.find(form, at + 1)


def _pieces(text: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield each stretch without a break: where it begins without breaks, where in the text, and its length."""
    seen = at = 0
    for found in _BREAK.finditer(text):
        yield seen, at, found.start() - at
        seen += found.start() - at
        at = found.end()
    yield seen, at, len(text) - at


def _origin(pieces: list[tuple[int, int, int]], offset: int) -> int:
    """Return where in the text the byte is that has this offset without breaks."""
    low, high = 0, len(pieces) - 1
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if pieces[middle][0] <= offset else (low, middle - 1)
    seen, at, _ = pieces[low]
    return at + offset - seen


def _origin_from_end(text: bytes, count: int) -> int:
    """Return the earliest place behind which at most `count` bytes stand that are no break."""
    at = len(text)
    tail = text.rstrip(b"\\\r") if text.endswith((b"\\", b"\r")) else text
    for end in (text, tail):
        pieces = list(_pieces(end[max(0, len(end) - 4 * count - 8) :]))
        skipped = max(0, len(end) - 4 * count - 8)
        total = pieces[-1][0] + pieces[-1][2]
        at = min(at, skipped + _origin(pieces, max(0, total - count)))
    return at
