"""Where in the end of a text something may be beginning that only more text would show.

Enforces: nothing that is released could still have become part of a match; what could not is released at once. Does
not: hold anything. May be used by: kavach.gate.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, NamedTuple

from kavach.errors import InternalError
from kavach.gate.expression import EMPTY, Choice, Edge, Node, Sequence, join, parse, render, text_before_group
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
        self._by_last_byte: dict[int, tuple[_Opening, ...]] = {}

    def first(self, text: bytes, *, is_start: bool, free: frozenset[str] = frozenset()) -> Beginning:
        """Return the first place from where a match could go on when more comes; the text's length if there is none.

        Args:
            text: what has come.
            is_start: nothing stood before it.
            free: scanners whose finds are only reported: nothing is held for them.
        """
        size = start = thing = len(text)
        for opening in self._of(text[-1]) if size else ():
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

    def _of(self, last_byte: int) -> tuple[_Opening, ...]:
        if last_byte not in self._by_last_byte:
            self._by_last_byte[last_byte] = tuple(
                self._compile(number) for number, bits in enumerate(self._members) if bits >> last_byte & 1
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
