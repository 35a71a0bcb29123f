"""Where in the end of a text something may be beginning that only more text would show.

Enforces: nothing that is released could still have become part of a match; what could not is released at once. Does
not: hold anything. May be used by: kavach.gate.
"""

from __future__ import annotations

import functools
import operator
from typing import TYPE_CHECKING, Any, NamedTuple

from kavach.errors import InternalError
from kavach.gate.expression import (
    EMPTY,
    Choice,
    Class,
    Edge,
    Node,
    Repeat,
    Sequence,
    join,
    parse,
    render,
    text_before_group,
)
from kavach.gate.linear import compile_expression
from kavach.gate.prefixes import prefixes_of
from kavach.gate.seeds import members_of, shortest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from kavach.gate.rule import Rule


class _Opening(NamedTuple):
    reach: int
    expression: Any
    lead: int
    scanner: str


class Word(NamedTuple):
    """The letters that every match of a rule begins with, behind at most one byte.

    Args:
        letters: in lower case.
        reach: how long a match can be.
    """

    letters: bytes
    reach: int

    def may_begin(self, lower: bytes) -> bool:
        """Return whether a match may be beginning in the end of a text, given in lower case."""
        letters = self.letters
        if letters in lower[max(0, len(lower) - self.reach) :]:
            return True
        return any(lower.endswith(letters[:size]) for size in range(len(letters) - 1, 0, -1))


class Beginning(NamedTuple):
    """Where in a text's end a match may be beginning.

    Args:
        start: its first byte, context included: what has to be looked at again.
        thing: the first byte that would be marked: what has to be held.
    """

    start: int
    thing: int


class Openings:
    """The beginnings of what rules match, each compiled when a text first ends in one of its bytes.

    Args:
        rules: what gives them, each with its scanner's name, when they are first needed: a text that is whole never
            asks.
    """

    def __init__(self, rules: Callable[[], Iterable[tuple[str, Rule]]]) -> None:
        self._given = rules
        self._compiled: dict[int, _Opening] = {}
        self._by_last_byte: dict[int, tuple[int, ...]] = {}

    def first(self, text: bytes, *, is_start: bool, free: frozenset[str] = frozenset()) -> Beginning:
        """Return the first place from where a match could go on when more comes; the text's length if there is none.

        Args:
            text: what has come.
            is_start: nothing stood before it.
            free: scanners whose finds are only reported: nothing is held for them.
        """
        size = start = thing = len(text)
        lower = text.lower()
        present = sum(1 << byte for byte in set(text))
        for number in self._of(text[-1]) if size else ():
            word = self._words[number]
            if not self._firsts[number] & present or (word is not None and not word.may_begin(lower)):
                start = min(start, size - 1)  # what stands before the word may be the last byte
                continue
            opening = self._compile(number)
            found = opening.expression.search(text, max(0, size - opening.reach))
            if found is not None and (at := found.start()) < size:
                start = min(start, at)
                # What a rule wants to see before the thing itself may go on: at the text's start nothing stands there.
                if opening.scanner not in free:
                    thing = min(thing, at if is_start and at == 0 else at + opening.lead)
        return Beginning(start, thing)

    @functools.cached_property
    def _rules(self) -> tuple[tuple[str, Rule], ...]:
        return tuple(self._given())

    @functools.cached_property
    def _members(self) -> list[int]:
        return [members_of(parse(rule.expression)) for _, rule in self._rules]

    @functools.cached_property
    def _firsts(self) -> list[int]:
        return [_first_of(join(_behind_lead(rule)))[0] for _, rule in self._rules]

    @functools.cached_property
    def _words(self) -> list[Word | None]:
        return [word_of(rule) for _, rule in self._rules]

    def _of(self, last_byte: int) -> tuple[int, ...]:
        if last_byte not in self._by_last_byte:
            self._by_last_byte[last_byte] = tuple(
                number for number, bits in enumerate(self._members) if bits >> last_byte & 1
            )
        return self._by_last_byte[last_byte]

    def _compile(self, number: int) -> _Opening:
        if number not in self._compiled:
            scanner, rule = self._rules[number]
            beginnings = render(prefixes_of(parse(rule.expression)))
            expression = compile_expression(f"(?:{beginnings})\\z", rule.name)
            self._compiled[number] = _Opening(rule.max_bytes, expression, lead_of(rule), scanner)
        return self._compiled[number]


def lead_of(rule: Rule) -> int:
    """Return how many bytes always stand before the thing in a rule's match, but at the start of a text."""
    before = text_before_group(rule.expression, rule.group) if rule.group else None
    if not before:
        return 0
    try:
        return shortest(_without_start(parse(before)))
    except InternalError:  # the group stands inside another one
        return 0


def _without_start(node: Node) -> Node:
    """Return a node without the choice to stand at the start of the text."""
    if isinstance(node, Choice):
        return Choice(tuple(part for part in node.parts if part not in _STARTS) or (EMPTY,))
    return join(_without_start(part) for part in node.parts) if isinstance(node, Sequence) else node


_STARTS = (Edge("^"), Edge("\\A"))


def word_of(rule: Rule) -> Word | None:
    """Return the word that every match of a rule begins with; None where there is none."""
    letters = bytearray()
    for part in _behind_lead(rule):
        letter = _letter(part)
        if letter is None:
            break
        letters.append(letter)
    return Word(bytes(letters), rule.max_bytes + 1) if len(letters) >= _LEAST_LETTERS else None


def _behind_lead(rule: Rule) -> list[Node]:
    """Return the parts of a rule behind what may stand before it: a place, or one byte."""
    node = parse(rule.expression)
    parts: list[Node] = [*node.parts] if isinstance(node, Sequence) else [node]
    return parts[1:] if len(parts) > 1 and _is_one_byte_at_most(parts[0]) else parts


def _first_of(node: Node) -> tuple[int, bool]:
    """Return the bytes, as a mask, that what a node matches can begin with, and whether it may match nothing."""
    match node:
        case Class(bits):
            return bits, False
        case Edge():
            return 0, True
        case Choice(parts):
            found = [_first_of(part) for part in parts]
            return functools.reduce(operator.or_, (bits for bits, _ in found), 0), any(empty for _, empty in found)
        case Repeat(part, least, _, _):
            bits, empty = _first_of(part)
            return bits, empty or least == 0
        case Sequence(parts):
            mask = 0
            for part in parts:
                bits, empty = _first_of(part)
                mask |= bits
                if not empty:
                    return mask, False
            return mask, True


def _is_one_byte_at_most(node: Node) -> bool:
    """Return whether a node is a place, or a choice between places and single bytes: what stands before a word."""
    if isinstance(node, Choice):
        return all(isinstance(part, Edge | Class) or part == EMPTY for part in node.parts)
    return isinstance(node, Edge) or (isinstance(node, Class) and _letter(node) is None)


def _letter(node: Node) -> int | None:
    """Return the one byte that a node stands for, in lower case, whatever its case in the text."""
    if not isinstance(node, Class):
        return None
    found = [byte for byte in range(256) if node.bits >> byte & 1] if node.bits.bit_count() <= 2 else []
    lower = {ord(chr(byte).lower()) if byte < 128 else byte for byte in found}
    return lower.pop() if len(lower) == 1 else None


_LEAST_LETTERS = 3
