"""Many rules over one text, in time linear in its length.

Enforces: every match of every rule is found, from each place where one begins, also where matches overlap; what is
found does not depend on the pieces in which the text came. Two engines do the work and neither backtracks: Hyperscan
tells which rules may hold in a window of the text, RE2 tells exactly where (ADR 0016). Does not: normalise or decode.
May be used by: kavach.gate.
"""

from __future__ import annotations

import functools
import importlib.util
import threading
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

from kavach.gate.expression import parse, render
from kavach.gate.linear import compile_expression
from kavach.gate.rule import CONTEXT_BYTES, Mark, Match, Rule, Unseen
from kavach.gate.seeds import SEED_BYTES, seed_of, shortest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

WINDOW_BYTES = 4096
"""How finely the set engine tells where a rule may hold; a find costs the exact engine so much text."""
FEW_BYTES = 1 << 17
"""Up to so much text in all, rules are chosen by their literals: compiling the set takes longer than that saves."""
BLOCK_BYTES = 4096
"""A rule that can match more than this is a block rule: matches inside one that was accepted are part of it."""
CUT_BYTES = 2048
"""By how much the pieces of a match that is longer than its rule allows overlap."""


class Entry(NamedTuple):
    """One rule of a set.

    Args:
        scanner: whose it is.
        rule: what is looked for.
        adapt: what makes of it the rule that the exact engine looks for, when it is first needed; None = itself.
    """

    scanner: str
    rule: Rule
    adapt: Callable[[Rule], Rule] | None = None


class Progress:
    """How far each rule of a set has come in a text that arrives in pieces.

    Attributes:
        floor: the first place where a match may begin that nobody has looked at, for every rule not in `own`.
        own: that place for the few rules that wait behind the floor or are beyond it.
        covered: the end of the last thing that a rule marked, where it marked one: what lies inside is part of it.
    """

    __slots__ = ("covered", "floor", "own")

    def __init__(self) -> None:
        self.floor: int = 0
        self.own: dict[int, int] = {}
        self.covered: dict[int, int] = {}

    def next_start(self, number: int) -> int:
        """Return the first place where a match of a rule may begin that nobody has looked at."""
        return self.own.get(number, self.floor)

    def first_start(self) -> int:
        """Return the least of all rules' places."""
        return min(self.floor, min(self.own.values(), default=self.floor))

    def move_on(self, stop: int, waits: dict[int, int]) -> None:
        """Let every rule go on at `stop`, or where it has been beyond that, or where it waits."""
        self.floor = stop
        self.own = {number: at for number, at in self.own.items() if at > stop} | waits

    def copy(self) -> Progress:
        """Return one that goes its own way from here."""
        made = Progress()
        made.floor, made.own, made.covered = self.floor, dict(self.own), dict(self.covered)
        return made

    def shift(self, count: int) -> None:
        """Let offsets count from a place `count` bytes further on."""
        self.floor = max(0, self.floor - count)
        self.own = {number: max(0, at - count) for number, at in self.own.items()}
        self.covered = {number: at - count for number, at in self.covered.items() if at > count}


class PatternSet:
    """Rules compiled for both engines, each when it is first needed. Safe to use from any thread.

    Args:
        entries: what to look for.
        reading: how the set engine reads a piece of the text; a match may hold so many more bytes than its seed.
        stretch: how many bytes of text one byte of the reading may be.

    Raises:
        InternalError: a rule's expression is not one of ours.
    """

    def __init__(
        self, entries: Sequence[Entry], *, reading: Callable[[bytes], bytes] | None = None, stretch: int = 1
    ) -> None:
        self._rules = tuple(_Exact(entry) for entry in entries)
        self._reading = reading
        self._stretch = stretch
        self._unconditional = [  # and the fewest bytes that one matches
            (number, shortest(parse(entry.rule.expression)))
            for number, entry in enumerate(entries)
            if not entry.rule.literals
        ]
        by_literal: dict[bytes, list[int]] = {}
        for number, entry in enumerate(entries):
            for literal in entry.rule.literals:
                by_literal.setdefault(literal, []).append(number)
        self._by_first_byte: dict[int, list[tuple[bytes, list[int]]]] = {}
        for literal, numbers in by_literal.items():
            self._by_first_byte.setdefault(literal[0], []).append((literal, numbers))
        self._lock = threading.Lock()
        self._windows: _Windows | None = None
        self._seen_bytes = 0

    def sweep(self, text: bytes, stop: int, progress: Progress, *, is_last: bool) -> tuple[list[Mark], int]:
        """Find what begins before `stop` and has not been looked at yet.

        Args:
            text: the text so far.
            stop: where to end looking for beginnings; what begins before it may end behind it.
            progress: how far each rule has come; it is moved on.
            is_last: nothing comes behind `text`.

        Returns:
            The marks, in no order, and the first place where a rule has to see more before it can tell, else `stop`.
        """
        marks: list[Mark] = []
        waits: dict[int, int] = {}
        for low, high, number in self._candidates(text, progress.first_start(), stop):
            if number not in waits:
                waits_at = self._rules[number].sweep(text, low, high, number, progress, marks, is_last=is_last)
                if waits_at is not None:
                    waits[number] = waits_at
        progress.move_on(stop, waits)
        return marks, min(waits.values(), default=stop)

    def _candidates(self, text: bytes, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """Yield (from, to, rule) in order, so that every match that begins in [start, stop) begins in one of them."""
        if start >= stop or not self._rules:
            return
        self._seen_bytes += stop - start
        if self._windows is None and (self._seen_bytes <= FEW_BYTES or not _has_set_engine()):
            around = text[max(0, start - CONTEXT_BYTES) :]
            lowered = (around if self._reading is None else self._reading(around)).lower()
            chosen = {number for number, fewest in self._unconditional if fewest <= len(text) - start}
            for first in set(lowered):
                for literal, numbers in self._by_first_byte.get(first, ()):
                    if literal in lowered:
                        chosen.update(numbers)
            for number in sorted(chosen):
                yield start, stop, number
            return
        with self._lock:
            if self._windows is None:
                self._windows = _Windows(self._rules, self._reading, self._stretch)
        yield from self._windows.candidates(text, start, stop)


class _Exact:
    """One rule in the exact engine."""

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self._rule: Rule | None = None
        self._expression: Any = None
        self._groups = range(1)

    @property
    def rule(self) -> Rule:
        if self._rule is None:
            self._rule = self.entry.rule if self.entry.adapt is None else self.entry.adapt(self.entry.rule)
        return self._rule

    def sweep(
        self, text: bytes, low: int, high: int, number: int, progress: Progress, marks: list[Mark], *, is_last: bool
    ) -> int | None:
        """Append the marks of matches that begin in [low, high); return where one has to wait, None = nowhere."""
        at = max(low, progress.next_start(number))
        while at < high and (found := self._find(text, at, high, is_last=is_last)) is not None:
            match, is_cut = found
            at, end = match.spans[0]
            try:
                is_held = end > at and (self.rule.accept is None or self.rule.accept(match))
            except Unseen:
                return at
            if is_held:
                self._mark(match, number, progress, marks)
            at = max(at + 1, end - CUT_BYTES if is_cut else end if is_held and self.rule.max_bytes > BLOCK_BYTES else 0)
        progress.own[number] = max(progress.next_start(number), high, at)
        return None

    def _mark(self, match: Match, number: int, progress: Progress, marks: list[Mark]) -> None:
        rule, (start, end) = self.rule, match.spans[self.rule.group]
        if start < 0:  # the thing itself took no part: the whole match stands for it
            start, end = match.spans[0]
        if end > progress.covered.get(number, 0):
            progress.covered[number] = end
            marks.append(Mark(self.entry.scanner, rule.name, rule.category, rule.severity, rule.message, start, end))

    def _find(self, text: bytes, start: int, stop: int, *, is_last: bool) -> tuple[Match, bool] | None:
        """Return the first match that begins in [start, stop), and whether it was cut to its rule's length."""
        if self._expression is None:
            self._expression = compile_expression(self.rule.expression, self.rule.name)
            self._groups = range(self.rule.group + 1 if self.rule.accept is None else self._expression.groups + 1)
        longest = self.rule.max_bytes
        while start < stop:
            found = self._expression.search(text, start, stop + longest)
            if found is None or (start := found.start()) >= stop:
                return None
            is_cut = found.end() - start > longest
            if is_cut:
                found = self._expression.match(text, start, start + longest)
            if found is not None:
                return Match(text, tuple(found.span(group) for group in self._groups), is_last), is_cut
            start += 1
        return None


class _Windows:
    """All rules' seeds in one database of the set engine."""

    def __init__(self, rules: Sequence[_Exact], reading: Callable[[bytes], bytes] | None, stretch: int) -> None:
        seeds = [seed_of(parse(exact.entry.rule.expression)) for exact in rules]
        self._always = [number for number, seed in enumerate(seeds) if shortest(seed.node) == 0]
        self._lead = [
            exact.rule.max_bytes if seed.lead_bytes is None else min(seed.lead_bytes * stretch, exact.rule.max_bytes)
            for exact, seed in zip(rules, seeds, strict=True)
        ]
        self._overlap = (SEED_BYTES + 1) * stretch
        self._reading = reading
        self._idle: list[Any] = []  # scratch spaces that nobody is using
        numbers: dict[str, list[int]] = {}  # rules with one seed share it
        for number, seed in enumerate(seeds):
            if shortest(seed.node):
                numbers.setdefault(render(seed.node), []).append(number)
        self._groups = list(numbers.values())
        self._database = _compile_set(list(numbers)) if numbers else None

    def candidates(self, text: bytes, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """Yield (from, to, rule), window after window."""
        view = memoryview(text)
        for low in range(start, min(len(text), stop + self._overlap), WINDOW_BYTES):
            high = min(len(text), low + WINDOW_BYTES)
            groups: list[int] = []
            window: bytes | memoryview = view[max(0, low - self._overlap) : high]
            if self._reading is not None:
                window = self._reading(bytes(window))
            self._scan(window, groups)
            for number in chain(self._always, *(self._groups[group] for group in groups)):
                yield max(start, low - self._overlap - self._lead[number]), min(stop, high), number

    def _scan(self, window: bytes | memoryview, groups: list[int]) -> None:
        if self._database is None:
            return
        # SECURITY: the engine must not be entered twice with one scratch space; a scan that raises loses its own.
        try:
            scratch = self._idle.pop()
        except IndexError:
            scratch = self._database.scratch.clone()
        self._database.scan(window, _note, context=groups, scratch=scratch)
        self._idle.append(scratch)


def _compile_set(seeds: list[str]) -> Any:  # noqa: ANN401 - the engine's own type
    import hyperscan

    database = hyperscan.Database(mode=hyperscan.HS_MODE_BLOCK)
    database.compile(
        expressions=[seed.encode("ascii") for seed in seeds],
        ids=list(range(len(seeds))),
        elements=len(seeds),
        flags=[hyperscan.HS_FLAG_SINGLEMATCH] * len(seeds),
    )
    return database


@functools.cache
def _has_set_engine() -> bool:
    """Return whether the set engine is there; without it rules are chosen by their literals, which is slower."""
    return importlib.util.find_spec("hyperscan") is not None


def _note(group: int, _start: int, _end: int, _flags: int, groups: list[int]) -> None:
    groups.append(group)
