"""What a match of an expression cannot be without: a short superset that a set engine finds fast.

Enforces: wherever the expression holds, its seed holds inside the match; a seed is bounded, so that a text may be read
in windows. Does not: find matches exactly. Left out are what may be missing, all but the least of a repeat at either
end, and whatever comes when the seed says enough: one rule's seed of twenty optional separators made a set of 200
read 80 MB/s instead of 400 (ADR 0016). May be used by: kavach.gate.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from kavach.gate.expression import Choice, Class, Edge, Node, Repeat, Sequence, join

if TYPE_CHECKING:
    from collections.abc import Iterator

SEED_BYTES = 64
"""The longest seed: windows overlap by as much."""
ENOUGH_BITS = 32.0
"""How much a seed says at most: random text holds it once in 4 GiB."""


class Seed(NamedTuple):
    """A seed and where matches may begin before it.

    Args:
        node: what holds inside every match.
        lead_bytes: how many bytes of the match may stand before it; None = any number.
    """

    node: Node
    lead_bytes: int | None


def longest(node: Node) -> int | None:
    """Return how many bytes a node can match at most; None = without end."""
    match node:
        case Class():
            return 1
        case Edge():
            return 0
        case Sequence(parts):
            sizes = [longest(part) for part in parts]
            return None if None in sizes else sum(size for size in sizes if size is not None)
        case Choice(parts):
            sizes = [longest(part) for part in parts]
            return None if None in sizes else max(size for size in sizes if size is not None)
        case Repeat(part, _, most, _):
            size = longest(part)
            return 0 if size == 0 else None if size is None or most is None else size * most


def shortest(node: Node) -> int:
    """Return how many bytes a node matches at least."""
    match node:
        case Class():
            return 1
        case Edge():
            return 0
        case Sequence(parts):
            return sum(shortest(part) for part in parts)
        case Choice(parts):
            return min(shortest(part) for part in parts)
        case Repeat(part, least, _, _):
            return shortest(part) * least


def bits_of(node: Node) -> float:
    """Return how much a match of a node says at least: 8 bits for a given byte, 0 for what may be missing."""
    match node:
        case Class(bits):
            return 8 - math.log2(bits.bit_count())
        case Edge():
            return 0
        case Sequence(parts):
            return sum(bits_of(part) for part in parts)
        case Choice(parts):
            return min(bits_of(part) for part in parts)
        case Repeat(part, least, _, _):
            return bits_of(part) * least


def seed_of(node: Node) -> Seed:
    """Return the seed of an expression: the first stretch of it that says enough, else the one that says most."""
    parts = _parts_of(node)
    best, most = Seed(join(()), None), 0.0
    lead: int | None = 0
    for at, part in enumerate(parts):
        stretch = join(_stretch(parts[at:]))
        bits = bits_of(stretch)
        if bits > most:
            least = _least(part, SEED_BYTES) if isinstance(part, Repeat) else ()
            more = 0 if not isinstance(part, Repeat) else _subtract(longest(part), shortest(join(least)))
            best, most = Seed(stretch, _add(lead, more)), bits
        if most >= ENOUGH_BITS:
            break
        lead = _add(lead, longest(part))
    return best


def _parts_of(node: Node) -> tuple[Node, ...]:
    return node.parts if isinstance(node, Sequence) else (node,)


def _add(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one + other


def _subtract(one: int | None, other: int) -> int | None:
    return None if one is None else one - other


def _stretch(parts: tuple[Node, ...]) -> Iterator[Node]:
    """Yield what must be there, from the front, until it says enough or could become too long."""
    left, bits = SEED_BYTES, 0.0
    kept: list[Node] = []
    for number, part in enumerate(parts):
        size = longest(part)
        is_end = number == 0 and isinstance(part, Repeat)  # what stands before the least of it is not looked at
        if is_end or size is None or size > left or bits + bits_of(part) > ENOUGH_BITS:
            least = _least(part, left)
            kept.extend(least)
            if not is_end or not least:
                break
            size = sum(longest(one) or 0 for one in least)
        else:
            kept.append(part)
        left -= size
        bits += bits_of(part)
    while kept and shortest(kept[-1]) == 0:  # a place, or what may be missing: nothing is lost behind the last byte
        kept.pop()
    yield from kept


def _least(part: Node, left: int) -> tuple[Node, ...]:
    """Return the beginning of a part that must be there, within what is left of the seed."""
    match part:
        case Repeat(inner, least, _, _):
            size, bits = longest(inner), bits_of(inner)
            if least == 0 or size == 0:
                return ()
            if size is None or size > left:
                return tuple(_stretch(_parts_of(inner)))
            enough = math.ceil(ENOUGH_BITS / bits) if bits else least
            return (Repeat(inner, min(least, left // size, enough), min(least, left // size, enough), is_greedy=True),)
        case Choice(choices):
            cut = [join(_stretch(_parts_of(choice))) for choice in choices]
            return (Choice(tuple(cut)),) if all(shortest(one) for one in cut) else ()
        case Sequence(parts):
            return tuple(_stretch(parts))
        case _:
            return ()
