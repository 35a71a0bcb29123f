"""Where in the end of a text something may be beginning that only more text would show.

Enforces: nothing that is released could still have become part of a match; what could not is released at once. Does
not: hold anything. May be used by: kavach.gate.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, NamedTuple

from kavach.gate.expression import parse, render
from kavach.gate.linear import compile_expression
from kavach.gate.prefixes import prefixes_of
from kavach.gate.seeds import members_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from kavach.gate.rule import Rule


class _Opening(NamedTuple):
    reach: int
    expression: Any


class Openings:
    """The beginnings of what rules match, each compiled when a text first ends in one of its bytes.

    Args:
        rules: what gives them, when they are first needed: a text that is whole never asks.
    """

    def __init__(self, rules: Callable[[], Iterable[Rule]]) -> None:
        self._given = rules
        self._compiled: dict[int, _Opening] = {}
        self._by_last_byte: dict[int, tuple[_Opening, ...]] = {}

    def first(self, text: bytes) -> int:
        """Return the first place from where a match could go on when more comes; the text's length if there is none."""
        size = first = len(text)
        if not size:
            return 0
        for opening in self._of(text[-1]):
            found = opening.expression.search(text, max(0, size - opening.reach))
            if found is not None and found.start() < first:
                first = found.start()
        return first

    @functools.cached_property
    def _rules(self) -> tuple[Rule, ...]:
        return tuple(self._given())

    @functools.cached_property
    def _members(self) -> list[int]:
        return [members_of(parse(rule.expression)) for rule in self._rules]

    def _of(self, last_byte: int) -> tuple[_Opening, ...]:
        if last_byte not in self._by_last_byte:
            self._by_last_byte[last_byte] = tuple(
                self._compile(number) for number, bits in enumerate(self._members) if bits >> last_byte & 1
            )
        return self._by_last_byte[last_byte]

    def _compile(self, number: int) -> _Opening:
        if number not in self._compiled:
            rule = self._rules[number]
            beginnings = render(prefixes_of(parse(rule.expression)))
            self._compiled[number] = _Opening(rule.max_bytes, compile_expression(f"(?:{beginnings})\\z", rule.name))
        return self._compiled[number]
