"""What the beginning of a match looks like: the question of a stream that may go on.

Enforces: a text's rest is in the prefixes of an expression if some continuation makes it match from there; so the
engine itself tells what has to be held back. Does not: match, or hold anything back. May be used by:
kavach.gate.engine.
"""

from __future__ import annotations

from kavach.gate.expression import EMPTY, Choice, Class, Edge, Node, Repeat, Sequence, join

_COUNTED = 64
"""Longer repeats are not counted: a little more is held back, and the engine's program stays small."""


def prefixes_of(node: Node) -> Node:
    """Return the node of all beginnings of what a node matches, the empty one included.

    P(rs) = P(r) | r P(s); P(r{n,m}) = r{0,m-1} P(r); a place between bytes that nothing follows yet is undecided, so
    it counts as given.
    """
    match node:
        case Class():
            return _maybe(node)
        case Edge():
            return EMPTY
        case Choice(parts):
            return Choice(tuple(prefixes_of(part) for part in parts))
        case Repeat(part, _, most, _):
            if most == 0:
                return EMPTY
            before = Repeat(part, 0, None if most is None or most > _COUNTED else most - 1, is_greedy=True)
            return join((before, prefixes_of(part)))
        case Sequence(parts):
            return _prefixes_of_sequence(parts)


def _prefixes_of_sequence(parts: tuple[Node, ...]) -> Node:
    """Return (a (b (c)?)?)? for a b c, where the last of each is replaced by its own prefixes."""
    if not parts:
        return EMPTY
    rest = prefixes_of(parts[-1])
    for part in reversed(parts[:-1]):
        following = join((part, rest))
        rest = _maybe(following) if isinstance(part, Class | Edge) else Choice((following, prefixes_of(part)))
    return rest


def _maybe(node: Node) -> Node:
    return Repeat(node, 0, 1, is_greedy=True)
