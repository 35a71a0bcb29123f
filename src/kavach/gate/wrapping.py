"""A token that a terminal, a mailer or an attacker has broken over lines is found as if it stood on one.

Enforces: a line break behind the third byte of a token or later is as if it were not there, and only there: the line
after the token stays apart. Breaks before that are not looked for: of nearly every line a stream would have to hold
back the end. Does not: look at rules that do not begin with a literal of their own: with those any two
lines that follow one another would make something. May be used by: kavach.gate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kavach.gate.expression import Choice, Class, Edge, Node, Repeat, Sequence, join, parse, render
from kavach.gate.linear import compile_expression
from kavach.gate.rule import CONTEXT_BYTES, Match, Rule
from kavach.gate.seeds import longest, seed_of, shortest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_LITERAL_BYTES = 3
_MOST_BYTES = 2048
_NEWLINE = 1 << 10
_BREAK = parse(r"(?:\\?\r?\n)?")  # a backslash is how shells and C go on
BREAK_BYTES = 3
"""The longest line break."""


def is_wrappable(rule: Rule) -> bool:
    """Return whether a rule begins with a literal of its own and stays on one line."""
    tree = parse(rule.expression)
    seed = seed_of(tree)
    if seed.lead_bytes != 0 or rule.max_bytes > _MOST_BYTES or longest(tree) is None or rule.group != 0:
        return False
    heads = seed.node.parts if isinstance(seed.node, Choice) else (seed.node,)
    return all(_begins_literally(head) for head in heads) and not any(bits & _NEWLINE for bits in _classes(tree))


def _begins_literally(head: Node) -> bool:
    parts = head.parts if isinstance(head, Sequence) else (head,)
    first = [part for part in parts if not isinstance(part, Edge)][:_LITERAL_BYTES]
    return len(first) == _LITERAL_BYTES and all(
        isinstance(part, Class) and part.bits.bit_count() <= 2 for part in first
    )


def _classes(node: Node) -> Iterator[int]:
    match node:
        case Class(bits):
            yield bits
        case Sequence(parts) | Choice(parts):
            for part in parts:
                yield from _classes(part)
        case Repeat(part):
            yield from _classes(part)


def wrapped(rule: Rule) -> Rule:
    """Return the rule that finds what `rule` finds where line breaks were put into it, and only there."""
    tree = _broken(parse(rule.expression), _LITERAL_BYTES)[0]
    return rule._replace(
        expression=render(tree),
        max_bytes=rule.max_bytes * (1 + BREAK_BYTES),
        accept=_acceptance(rule),
    )


def unwrap(text: bytes) -> bytes:
    """Return a text without its line breaks."""
    return text.replace(b"\\\n", b"").replace(b"\\\r\n", b"").replace(b"\r\n", b"").replace(b"\n", b"")


def _broken(node: Node, whole: int) -> tuple[Node, int]:
    """Return the node with an optional break before every byte but the first `whole`, and what is left of these."""
    match node:
        case Class():
            return (node, whole - 1) if whole > 0 else (join((_BREAK, node)), 0)
        case Edge():
            return node, whole
        case Choice(parts):
            done = [_broken(part, whole) for part in parts]
            return Choice(tuple(one for one, _ in done)), max(left for _, left in done)
        case Sequence(parts):
            made: list[Node] = []
            for part in parts:
                one, whole = _broken(part, whole)
                made.append(one)
            return join(made), whole
        case Repeat(part, least, most, is_greedy):
            return Repeat(_broken(part, 0)[0], least, most, is_greedy), max(0, whole - least * shortest(part))


def _acceptance(rule: Rule) -> Callable[[Match], bool]:
    compiled: list[object] = []

    def accept(match: Match) -> bool:
        broken = match.group()
        if b"\n" not in broken:
            return False
        if not compiled:
            compiled.append(compile_expression(rule.expression, rule.name))
        start = match.spans[0][0]
        if _holds(rule, compiled[0], match.text, start, is_last=match.is_last):
            return False  # it stands here unbroken; the next line is not part of it
        before, after = match.before(), match.text[match.spans[0][1] :][:CONTEXT_BYTES]
        whole = before + unwrap(broken) + after
        is_last = match.is_last or len(after) == CONTEXT_BYTES
        return _holds(rule, compiled[0], whole, len(before), is_last=is_last)

    return accept


def _holds(rule: Rule, compiled: object, text: bytes, start: int, *, is_last: bool) -> bool:
    found = compiled.match(text, start, start + rule.max_bytes)  # type: ignore[attr-defined]  # the engine ships no types
    if found is None:
        return False
    spans = tuple(found.span(group) for group in range(compiled.groups + 1))  # type: ignore[attr-defined]  # likewise
    return rule.accept is None or rule.accept(Match(text, spans, is_last))
