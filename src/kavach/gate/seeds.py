"""What a match of an expression cannot be without: a short superset that a set engine finds fast.

Enforces: wherever the expression holds, its seed holds inside the match; a seed is bounded, so that a text may be read
in windows. Does not: find matches exactly. Left out are what may be missing, all but the least of a repeat at either
end, and whatever comes when the seed says enough: one rule's seed of twenty optional separators made a set of 200
read 80 MB/s instead of 400 (ADR 0016). May be used by: kavach.gate.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, NamedTuple

from kavach.gate.expression import Choice, Class, Edge, Node, Repeat, Sequence, join

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SEED_BYTES = 128
"""The longest seed: windows overlap by as much."""
ENOUGH_BITS = 32.0
"""How much a seed without a literal says at most: random text holds it once in 4 GiB. What follows a literal costs
nothing where the literal is not."""
_NUMERIC = functools.reduce(int.__or__, (1 << byte for byte in b"0123456789"))
_FEW_BYTES = 20
_LITERAL_BYTES = 3  # the set engine looks for literals first, and they are fast from this length on


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
    return int(_at_least(node, lambda _: 1))


def bits_of(node: Node) -> float:
    """Return how much a match of a node says at least: 8 bits for a given byte, 0 for what may be missing."""
    return _at_least(node, lambda bits: 8 - math.log2(bits.bit_count()))


def _at_least(node: Node, worth: Callable[[int], float]) -> float:
    """Return the least that a match of a node adds up to, `worth` being what one byte out of a set counts."""
    match node:
        case Class(bits):
            return worth(bits)
        case Edge():
            return 0
        case Sequence(parts):
            return sum(_at_least(part, worth) for part in parts)
        case Choice(parts):
            return min(_at_least(part, worth) for part in parts)
        case Repeat(part, least, _, _):
            return _at_least(part, worth) * least


def seed_of(node: Node) -> Seed:
    """Return the seed of an expression: a stretch of it with a literal that says enough, else what says most."""
    return _seed_of(widened(node))


def widened(node: Node) -> Node:
    """Return a simpler superset: choices between ranges of numbers become numbers of any value."""
    match node:
        case Choice(parts):
            bits = members_of(node)
            size = longest(node)
            if size is not None and 0 < size <= _FEW_BYTES and not bits & ~_NUMERIC:
                return Repeat(Class(bits), shortest(node), size, is_greedy=True)
            return Choice(tuple(widened(part) for part in parts))
        case Sequence(parts):
            return join(widened(part) for part in parts)
        case Repeat(part, least, most, is_greedy):
            return Repeat(widened(part), least, most, is_greedy)
        case _:
            return node


def members_of(node: Node) -> int:
    """Return every byte that a match can hold, as a bit mask."""
    match node:
        case Class(bits):
            return bits
        case Sequence(parts) | Choice(parts):
            return functools.reduce(int.__or__, map(members_of, parts), 0)
        case Repeat(part):
            return members_of(part)
        case _:
            return 0


def _seed_of(node: Node) -> Seed:
    if isinstance(node, Choice):
        seeds = [_seed_of(part) for part in node.parts]
        if any(shortest(seed.node) == 0 for seed in seeds):
            return Seed(join(()), None)
        leads = [seed.lead_bytes for seed in seeds]
        lead = None if None in leads else max(size for size in leads if size is not None)
        return Seed(Choice(tuple(seed.node for seed in seeds)), lead)
    return _seed_of_parts(_parts_of(node))


def _seed_of_parts(parts: tuple[Node, ...]) -> Seed:
    best, most = Seed(join(()), None), (0, 0.0)
    lead: int | None = 0
    for at, part in enumerate(parts):
        if shortest(part) > 0:
            found = _inner_seed(part)
            stretch = join(_stretch(parts[at:]))
            if (worth := _worth(stretch)) > most:
                best, most = Seed(stretch, _add(lead, _trimmed(part))), worth
            if found is not None and (worth := _worth(found.node)) > most:
                best, most = Seed(found.node, _add(lead, found.lead_bytes)), worth
        if most[0] >= _LITERAL_BYTES:
            break
        lead = _add(lead, longest(part))
    return best


def _worth(node: Node) -> tuple[int, float]:
    return min(_LITERAL_BYTES, _literal_of(node)), bits_of(node)


def _inner_seed(part: Node) -> Seed | None:
    """Return the seed of a part that has parts of its own."""
    match part:
        case Choice():
            return _seed_of(part)
        case Repeat(inner) if not isinstance(inner, Class):
            return Seed(_seed_of(inner).node, longest(part))
        case _:
            return None


def _trimmed(part: Node) -> int | None:
    """Return how many bytes of a part may stand before the least of it."""
    return longest(part) if isinstance(part, Repeat) else 0


def _literal_of(node: Node) -> int:
    """Return the longest run of given bytes, upper or lower case, in what a node matches at least."""
    match node:
        case Class(bits):
            return int(bits.bit_count() <= 2)
        case Choice(parts):
            return min(_literal_of(part) for part in parts)
        case Repeat(part, least, _, _):
            return _literal_of(part) * least if isinstance(part, Class) else _literal_of(part) * min(least, 1)
        case Sequence(parts):
            run = longest_run = 0
            for part in parts:
                own = _literal_of(part)
                run = run + own if isinstance(part, Class | Edge) and (own or isinstance(part, Edge)) else 0
                longest_run = max(longest_run, run, own)
            return longest_run
        case _:
            return 0


def _parts_of(node: Node) -> tuple[Node, ...]:
    return node.parts if isinstance(node, Sequence) else (node,)


def _add(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one + other


def _stretch(parts: tuple[Node, ...]) -> Iterator[Node]:
    """Yield what must be there, from the front, until it says enough or could become too long."""
    left, bits, most = SEED_BYTES, 0.0, ENOUGH_BITS
    kept: list[Node] = []
    for number, part in enumerate(parts):
        size = longest(part)
        is_end = number == 0 and isinstance(part, Repeat)  # what stands before the least of it is not looked at
        if is_end or size is None or size > left or bits + bits_of(part) > most:
            least = _least(part, left)
            kept.extend(least)
            if not is_end or not least:
                break
            size = sum(longest(one) or 0 for one in least)
        else:
            kept.append(part)
        left -= size
        bits += bits_of(part)
        if _literal_of(join(kept)) >= _LITERAL_BYTES:
            most = math.inf
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
