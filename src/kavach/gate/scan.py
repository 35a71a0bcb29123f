"""A text and all its scanners: the one pipeline that release, streams, exports and `kavach.scan` share.

Enforces: a text is read in pieces of bounded size, whole or as it comes, and what is found does not depend on the
pieces; nothing that a scanner saw is left out of what is judged. Does not: judge, redact, read a clock or stop a
scanner that hangs (`kavach.gate.release` does). May be used by: kavach.gate.
"""

from __future__ import annotations

import functools
import importlib
from itertools import chain
from typing import TYPE_CHECKING

from kavach.gate.decode import DEPTH
from kavach.gate.evidence import SHOWN_BYTES
from kavach.gate.findings import place_of
from kavach.gate.known import needles_of
from kavach.gate.labels import Labels
from kavach.gate.layer import Compiled, Layer, compile_rules
from kavach.gate.members import packed_texts
from kavach.gate.needles import Needles, compile_needles
from kavach.gate.normalise import border, plain
from kavach.gate.regions import WHOLE, Blocks
from kavach.gate.rule import CONTEXT_BYTES, Mark
from kavach.model.verdict import Severity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kavach.gate.known import KnownSecret
    from kavach.gate.normalise import Plain
    from kavach.gate.rule import Scanner
    from kavach.model.verdict import ExternalizationPolicy

_HOMES = (
    ("kavach.gate.secrets", "SECRETS"),
    ("kavach.gate.code", "CODE"),
    ("kavach.gate.personal", "PERSONAL"),
    ("kavach.gate.binary", "BINARY"),
)
_JUNCTION_BYTES = 4096  # how much of either stream is read over their junction
_UNREAD_MESSAGE = "An archive with a part that cannot be read, or that is larger than what is read of it."
_CUT_MESSAGE = "The output was cut here, within what may have been the beginning of a find."
PIECE_BYTES = 1 << 20
"""In pieces of this size a whole text is read: memory stays bounded, however long it is."""
_NOT_ENCODED = frozenset({"code", "personal", "binary"})  # decoded text is searched for secrets


@functools.cache
def all_scanners() -> tuple[Scanner, ...]:
    """Return the scanners that there are, imported when they are first needed."""
    return tuple(getattr(importlib.import_module(module), name) for module, name in _HOMES)


def scan_bytes(
    data: bytes,
    policy: ExternalizationPolicy,
    *,
    known: Sequence[KnownSecret] = (),
    scanners: Sequence[Scanner] | None = None,
    is_cut: bool = False,
) -> list[Mark]:
    """Return every mark that the policy's scanners leave in a text, by place; marks may overlap.

    Args:
        data: the whole text.
        policy: which scanners are off.
        known: what must not come out, whatever the scanners think.
        scanners: what to look with; None = all there are.
        is_cut: more came and was dropped: what could have become a find is marked as one, unless it is so short that
            evidence would show it.
    """
    if not data:
        return []
    chosen = chosen_scanners(policy, scanners)
    reading = Reading(chosen, known)
    marks: list[Mark] = []
    last = len(data) if is_cut else max(0, len(data) - 1) // PIECE_BYTES * PIECE_BYTES
    for start in range(0, last, PIECE_BYTES):
        marks += reading.feed(data[start : start + PIECE_BYTES])
    if is_cut and len(data) - reading.decided >= SHOWN_BYTES:
        marks.append(Mark("cut", "cut-off", "cut", Severity.MEDIUM, _CUT_MESSAGE, reading.decided, len(data)))
    marks += reading.close(data[last:])
    for scanner in chosen:
        if scanner.name in WHOLE:
            marks += scanner.inspect(data, [mark for mark in marks if mark.scanner == scanner.name])
    marks += _packed(data, chosen, known)
    return sorted(marks, key=place_of)


def _packed(data: bytes, chosen: Sequence[Scanner], known: Sequence[KnownSecret]) -> list[Mark]:
    """Return a mark over all of an artifact for each kind of thing that lies packed in it, or was not read there."""
    inner = tuple(one for one in chosen if one.name not in _NOT_ENCODED)
    if not inner and not known:
        return []
    seen: dict[tuple[str, str], Mark] = {}
    for text in packed_texts(data):
        if text is None:
            found = [Mark("encoded", "unread-archive", "encoding", Severity.MEDIUM, _UNREAD_MESSAGE, 0, 0)]
        else:
            found = Reading(inner, known).close(text)
        for mark in found:
            # All of the artifact would go: what is told by a name alone stands once in some megabytes of any source.
            severity = Severity.LOW if mark.category == "generic" else mark.severity
            seen.setdefault((mark.scanner, mark.rule), mark._replace(start=0, end=len(data), severity=severity))
    return list(seen.values())


def scan_junction(
    first: bytes,
    second: bytes,
    policy: ExternalizationPolicy,
    *,
    known: Sequence[KnownSecret] = (),
    scanners: Sequence[Scanner] | None = None,
) -> tuple[list[Mark], list[Mark]]:
    """Return the marks of what begins at the end of one stream and ends at the beginning of the other.

    Args:
        first: standard output.
        second: standard error; which of the two a command wrote first is not known, so both orders are read.
        policy: as for `scan_bytes`.
        known: likewise.
        scanners: likewise; only those for secrets look over a junction.

    Returns:
        The marks in the first and in the second.
    """
    if not first or not second:
        return [], []
    chosen = tuple(one for one in chosen_scanners(policy, scanners) if one.name not in _NOT_ENCODED)
    ends, begins = _across(first, second, chosen, known)
    more_ends, more_begins = _across(second, first, chosen, known)
    return ends + more_begins, begins + more_ends


def _across(
    left: bytes, right: bytes, scanners: Sequence[Scanner], known: Sequence[KnownSecret]
) -> tuple[list[Mark], list[Mark]]:
    """Return the parts, in either text, of what reaches from the end of the left into the right."""
    end = len(left.rstrip(b"\r\n"))
    start = max(0, end - _JUNCTION_BYTES)
    seam = end - start
    reading = Reading(scanners, known)
    over = [one for one in reading.close(left[start:end] + right[:_JUNCTION_BYTES]) if one.start < seam < one.end]
    if over:
        alone = {(mark.rule, mark.start) for mark in Reading(scanners, known).close(left[start:end])}
        over = [one for one in over if (one.rule, one.start) not in alone]
    return (
        [mark._replace(start=mark.start + start, end=end) for mark in over],
        [mark._replace(start=0, end=mark.end - seam) for mark in over],
    )


def chosen_scanners(policy: ExternalizationPolicy, scanners: Sequence[Scanner] | None = None) -> tuple[Scanner, ...]:
    """Return the scanners that a policy does not turn off."""
    given = all_scanners() if scanners is None else scanners
    return tuple(one for one in given if getattr(policy, one.name, policy.secrets) != "off")


class Reading:
    """A text that is read piece by piece.

    Args:
        scanners: what to look with.
        known: what must not come out.
        depth: how many encodings are looked into.
        free: scanners whose finds are only reported, so that a stream holds nothing for them.
        needles: `known`, ready to be looked for; None = not yet.

    Attributes:
        decided: up to where everything is known, counted from the text's beginning.
    """

    def __init__(
        self,
        scanners: Sequence[Scanner],
        known: Sequence[KnownSecret] = (),
        depth: int = DEPTH,
        free: frozenset[str] = frozenset(),
        needles: tuple[Needles, ...] | None = None,
    ) -> None:
        # Not cached beyond this reading and those within it: what it holds is secret.
        self._needles = _needles(known) if needles is None else needles
        rules: tuple[Compiled | Needles, ...] = (_compiled(tuple(scanners), decodes=depth > 0), *self._needles)
        self._inner = tuple(one for one in scanners if one.name not in _NOT_ENCODED)
        self._known = known
        self._depth = depth
        self._as_is = Layer(rules, scanners, self._look_inside, free)
        self._plain = Layer(rules, scanners, self._look_inside, free)
        self._blocks = Blocks(scanners)
        self._labels = Labels(chain((one.name.lower() for one in known), *_names(tuple(scanners))))
        self._text = b""
        self._base = 0
        self._recent: set[Mark] = set()
        self.decided: int = 0

    def feed(self, piece: bytes) -> list[Mark]:
        """Take more of the text; return the marks that can be told now, in offsets of the whole text."""
        return self._advance(piece, is_last=False) if piece else []

    def close(self, piece: bytes = b"") -> list[Mark]:
        """End the text, with a last piece of it; return the marks that waited for that."""
        return self._advance(piece, is_last=True)

    def _advance(self, piece: bytes, *, is_last: bool) -> list[Mark]:
        self._text += piece
        text = self._text
        view = plain(text, is_last=is_last)
        if view is None:
            marks, (stop, hold) = self._as_is.advance(text, self._base, is_last=is_last)
            self._plain.follow(self._as_is)
        else:
            marks, (stop, hold) = self._as_is.advance(view.masked, self._base, is_last=is_last)
            found, (plain_stop, plain_hold) = self._plain.advance(view.text, self._base, is_last=is_last)
            marks += [_original(mark, view) for mark in found]
            stop, hold = min(stop, view.origin(plain_stop)), min(hold, view.origin(plain_hold))
        marks = [mark for mark in marks if not self._labels.is_all_of(text[mark.start : mark.end])]
        placed = {mark._replace(start=mark.start + self._base, end=mark.end + self._base) for mark in marks}
        fresh = placed - self._recent
        self.decided = self._base + hold
        self._trim(stop, view)
        self._recent = {mark for mark in self._recent | placed if mark.end > self._base}
        parsed = self._blocks.inspect(piece, sorted(fresh, key=place_of), self.decided, is_last=is_last)
        return sorted((*fresh, *parsed), key=place_of)

    def _trim(self, stop: int, view: Plain | None) -> None:
        """Forget what nobody looks at any more: all but what begins at `stop`, and its context."""
        keep = stop - CONTEXT_BYTES
        if view is not None:
            keep = border(self._text, min(keep, view.origin(max(0, view.offset(stop) - CONTEXT_BYTES))))
        if keep <= 0:
            return
        self._as_is.shift(keep)
        self._plain.shift(keep if view is None else view.offset(keep))
        self._text = self._text[keep:]
        self._base += keep

    def _look_inside(self, text: bytes) -> list[Mark]:
        if self._depth == 0:
            return []
        reading = Reading(self._inner, self._known, self._depth - 1, needles=self._needles)
        return reading.close(text)


@functools.lru_cache(maxsize=64)
def _names(scanners: tuple[Scanner, ...]) -> tuple[frozenset[str], ...]:
    return (frozenset(rule.name for scanner in scanners for rule in scanner.rules),)


def _original(mark: Mark, view: Plain) -> Mark:
    return mark._replace(start=view.origin(mark.start), end=view.origin_end(mark.end))


@functools.lru_cache(maxsize=64)
def _compiled(scanners: tuple[Scanner, ...], *, decodes: bool) -> Compiled:
    return compile_rules([(scanner.name, rule) for scanner in scanners for rule in scanner.rules], decodes=decodes)


def _needles(known: Sequence[KnownSecret]) -> tuple[Needles, ...]:
    needles = needles_of(known)
    return (compile_needles(needles),) if needles else ()
