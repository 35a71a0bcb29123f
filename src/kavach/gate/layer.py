"""One reading of a text, as it is or without its noise, with everything that looks at it.

Enforces: rules, the same rules over broken lines, and what encoded runs hold are all looked at; what has to be seen
further before anybody can tell is said. Does not: keep text, or map offsets. May be used by: kavach.gate.scan.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from kavach.gate.decode import BUDGET_BYTES, BUDGET_SHARE, RUNS, inner_of
from kavach.gate.engine import Entry, PatternSet, Progress
from kavach.gate.opening import Beginning, Openings
from kavach.gate.regions import Lines
from kavach.gate.rule import Mark
from kavach.gate.wrapping import BREAK_BYTES, is_wrappable, unwrap, wrapped
from kavach.model.verdict import Severity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from kavach.gate.needles import Needles
    from kavach.gate.rule import Rule, Scanner

_ENCODED = "encoded"


class Compiled(NamedTuple):
    """Rules, ready to run.

    Args:
        plain: the rules as they are, and the runs that may hold other text.
        broken: those that begin with a literal, over line breaks.
        openings: what any of them may be beginning with.
    """

    plain: PatternSet
    broken: PatternSet
    openings: Openings


def compile_rules(pairs: Sequence[tuple[str, Rule]], *, decodes: bool) -> Compiled:
    """Return rules, each with its scanner's name, ready to run.

    Args:
        pairs: scanner and rule.
        decodes: whether encoded runs are looked into.
    """
    runs = [(_ENCODED, run) for run in RUNS] if decodes else []
    broken = [
        Entry(scanner, rule, wrapped) for scanner, rule in pairs if scanner not in _UNBROKEN and is_wrappable(rule)
    ]

    def opening() -> list[tuple[str, Rule]]:
        is_broken = {(entry.scanner, entry.rule.name) for entry in broken}
        whole = [pair for pair in (*pairs, *runs) if (pair[0], pair[1].name) not in is_broken]
        return [(entry.scanner, wrapped(entry.rule)) for entry in broken] + whole

    return Compiled(
        PatternSet([Entry(scanner, rule) for scanner, rule in (*pairs, *runs)]),
        PatternSet(broken, reading=unwrap, stretch=1 + BREAK_BYTES),
        Openings(opening),
    )


_UNBROKEN = frozenset({"code", "personal"})  # one line of code or data after another makes no third


class Layer:
    """A text's reading on its way through the rules.

    Args:
        rules: what to look for.
        scanners: whose parsers look at the lines of their finds.
        look_inside: what scans the text that a run holds.
        free: scanners whose finds are only reported: nothing is held for them.
    """

    def __init__(
        self,
        rules: Sequence[Compiled | Needles],
        scanners: Sequence[Scanner],
        look_inside: Callable[[bytes], list[Mark]],
        free: frozenset[str],
    ) -> None:
        self._free = free
        self._rules = rules
        self._lines = Lines(scanners)
        self._look_inside = look_inside
        self._progress = [(Progress(), Progress()) for _ in rules]
        self._spent_bytes = 0

    def follow(self, other: Layer) -> None:
        """Take over how far another reading of the same text has come."""
        self._progress = [(plain.copy(), broken.copy()) for plain, broken in other._progress]
        self._lines = other._lines.copy()
        self._spent_bytes = other._spent_bytes

    def shift(self, count: int) -> None:
        """Let offsets count from a place `count` bytes further on."""
        for plain, broken in self._progress:
            plain.shift(count)
            broken.shift(count)
        self._lines.shift(count)

    def advance(self, text: bytes, base: int, *, is_last: bool) -> tuple[list[Mark], Beginning]:
        """Return the marks that can be told now, and where something is that cannot be told yet.

        Args:
            text: the text that is still looked at; its beginning is as it was, but for what `shift` took.
            base: how many bytes stood before it, for the budget.
            is_last: nothing comes behind it.
        """
        stop = hold = len(text)
        if not is_last:
            firsts = [one.openings.first(text, is_start=base == 0, free=self._free) for one in self._rules]
            stop, hold = min(first.start for first in firsts), min(first.thing for first in firsts)
        marks: list[Mark] = []
        again = stop
        for one, (plain, broken) in zip(self._rules, self._progress, strict=True):
            for patterns, progress in ((one.plain, plain), (one.broken, broken)):
                found, waits_at = patterns.sweep(text, stop, progress, is_last=is_last)
                marks += found
                if waits_at < stop:
                    again, hold = min(again, waits_at), min(hold, waits_at)
        runs = sorted((mark for mark in marks if mark.scanner == _ENCODED), key=lambda mark: (mark.start, mark.rule))
        marks = [mark for mark in marks if mark.scanner != _ENCODED]
        for run in runs:
            marks += self._decode(run, text[run.start : run.end], base + run.start)
        added, waits_at = self._lines.inspect(text, marks, is_last=is_last)
        return marks + added, Beginning(min(again, waits_at), min(hold, waits_at))

    def _decode(self, run: Mark, encoded: bytes, offset: int) -> Iterator[Mark]:
        budget = BUDGET_BYTES + BUDGET_SHARE * offset - self._spent_bytes
        inner = inner_of(run.rule, encoded, budget)
        self._spent_bytes += inner.spent_bytes
        end = run.start + inner.used_bytes
        seen = {mark._replace(start=run.start, end=end) for text in inner.texts for mark in self._look_inside(text)}
        yield from sorted(seen)
        if not inner.is_whole:
            message = "A compressed run is larger than what is read of it."
            yield Mark("encoded", "unread-archive", "encoding", Severity.MEDIUM, message, run.start, end)
