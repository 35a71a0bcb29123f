r"""Rules' expressions as trees: what two engines can read, and what the beginnings of their matches look like.

Enforces: one reading of an expression for every engine (each class is spelt out as bytes, so that no engine's own idea
of `\s` or of upper case matters); a superset stays a superset. Does not: match. Expressions are ours, never foreign:
what this small grammar does not hold is refused when the rules are compiled. May be used by: kavach.gate.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, NamedTuple

from kavach.errors import InternalError

if TYPE_CHECKING:
    from collections.abc import Iterable

ALL_BYTES = (1 << 256) - 1


class Class(NamedTuple):
    """One byte out of a set, as a bit mask."""

    bits: int


class Sequence(NamedTuple):
    """One node after the other."""

    parts: tuple[Node, ...]


class Choice(NamedTuple):
    """One of several nodes, the first that fits."""

    parts: tuple[Node, ...]


class Repeat(NamedTuple):
    """A node several times; `most` None = without end."""

    part: Node
    least: int
    most: int | None
    is_greedy: bool


class Edge(NamedTuple):
    r"""A place between two bytes: `\b`, `\B`, `^`, `$`, `\A`, `\z`, or a line's (`(?m:^)`, `(?m:$)`)."""

    text: str


Node = Class | Sequence | Choice | Repeat | Edge
EMPTY = Sequence(())


def _mask(members: Iterable[int]) -> int:
    bits = 0
    for member in members:
        bits |= 1 << member
    return bits


_DIGIT = _mask(range(0x30, 0x3A))
_UPPER = _mask(range(0x41, 0x5B))
_LOWER = _mask(range(0x61, 0x7B))
_WORD = _DIGIT | _UPPER | _LOWER | 1 << 0x5F
_SPACE = _mask(b"\t\n\f\r ")  # RE2 syntax, \s
_PERL = {"d": _DIGIT, "w": _WORD, "s": _SPACE}
_PERL |= {name.upper(): ALL_BYTES & ~bits for name, bits in _PERL.items()}
_ESCAPES = {"n": 10, "r": 13, "t": 9, "f": 12, "v": 11, "a": 7}
_NEWLINE = 1 << 10


class _Reader:
    """Reads one expression from left to right."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.flags: frozenset[str] = frozenset()

    def peek(self) -> str:
        return self.text[self.at : self.at + 1]

    def take(self, expected: str = "") -> str:
        found = self.peek()
        if not found or (expected and found != expected):
            raise InternalError(f"expression {self.text!r}: expected {expected or 'more'!r} at {self.at}")
        self.at += 1
        return found

    def skip(self, text: str) -> bool:
        if self.text.startswith(text, self.at):
            self.at += len(text)
            return True
        return False

    def choice(self) -> Node:
        before = self.flags
        parts = [self.sequence()]
        while self.skip("|"):
            parts.append(self.sequence())
        self.flags = before
        return parts[0] if len(parts) == 1 else Choice(tuple(parts))

    def sequence(self) -> Node:
        parts: list[Node] = []
        while self.peek() not in {"", "|", ")"}:
            if (part := self.atom()) is not None:
                parts.append(self.repeated(part))
        return join(parts)

    def repeated(self, part: Node) -> Node:
        sign = self.peek()
        if sign not in {"*", "+", "?", "{"}:
            return part
        self.take()
        least, most = {"*": (0, None), "+": (1, None), "?": (0, 1)}.get(sign) or self.bounds()
        return Repeat(part, least, most, not self.skip("?"))

    def bounds(self) -> tuple[int, int | None]:
        end = self.text.index("}", self.at)
        low, comma, high = self.text[self.at : end].partition(",")
        self.at = end + 1
        return int(low), int(high) if high else None if comma else int(low)

    def atom(self) -> Node | None:
        sign = self.take()
        if sign == "(":
            return self.group()
        if sign == "[":
            return Class(self.folded(self.members()))
        if sign == ".":
            return Class(ALL_BYTES if "s" in self.flags else ALL_BYTES & ~_NEWLINE)
        if sign in "^$":
            return Edge(f"(?m:{sign})" if "m" in self.flags else sign)
        if sign == "\\":
            return self.escaped()
        return Class(self.folded(1 << ord(sign)))

    def group(self) -> Node | None:
        before = self.flags
        if self.skip("?"):
            if self.skip("P<") or self.skip("<"):
                self.at = self.text.index(">", self.at) + 1
            elif not self.skip(":"):
                return self.flagged()
        inner = self.choice()
        self.take(")")
        self.flags = before
        return inner

    def flagged(self) -> Node | None:
        """Read `(?i)`, which holds up to the end of its group, or `(?i:...)`."""
        before, is_on = self.flags, True
        while (sign := self.take()) not in ":)":
            if sign == "-":
                is_on = False
            elif sign in "ims":
                self.flags = self.flags | {sign} if is_on else self.flags - {sign}
            else:
                raise InternalError(f"expression {self.text!r}: flag {sign!r} is not one of ours")
        if sign == ")":
            return None
        inner = self.choice()
        self.take(")")
        self.flags = before
        return inner

    def escaped(self) -> Node:
        sign = self.take()
        if sign in "bBAz":
            return Edge("\\" + sign)
        return Class(self.folded(self.escape(sign)))

    def escape(self, sign: str) -> int:
        if sign in _PERL:
            return _PERL[sign]
        if sign == "x":
            digits = self.text[self.at : self.at + 2]
            self.at += 2
            return 1 << int(digits, 16)
        if sign in _ESCAPES:
            return 1 << _ESCAPES[sign]
        if sign.isalnum():
            raise InternalError(f"expression {self.text!r}: escape \\{sign} is not one of ours")
        return 1 << ord(sign)

    def members(self) -> int:
        is_negated = self.skip("^")
        bits, first = 0, True
        while first or self.peek() != "]":
            first = False
            low = self.member()
            if self.peek() == "-" and self.text[self.at + 1 : self.at + 2] != "]":
                self.take()
                low = _mask(range(low.bit_length() - 1, self.member().bit_length()))
            bits |= low
        self.take("]")
        return ALL_BYTES & ~self.folded(bits) if is_negated else bits

    def member(self) -> int:
        sign = self.take()
        if sign == "[" and self.peek() == ":":
            raise InternalError(f"expression {self.text!r}: named classes are not ours")
        return self.escape(self.take()) if sign == "\\" else 1 << ord(sign)

    def folded(self, bits: int) -> int:
        if "i" not in self.flags:
            return bits
        return bits | (bits & _UPPER) << 32 | (bits & _LOWER) >> 32


@functools.lru_cache(maxsize=2048)
def parse(expression: str) -> Node:
    """Return an expression's tree.

    Raises:
        InternalError: it uses what this grammar does not hold.
    """
    reader = _Reader(expression)
    tree = reader.choice()
    if reader.at != len(expression):
        raise InternalError(f"expression {expression!r}: unbalanced at {reader.at}")
    return tree


def text_before_group(expression: str, number: int) -> str:
    """Return what of an expression stands before one of its capturing groups.

    Args:
        expression: one of ours.
        number: which group, from 1.
    """
    reader = _Reader(expression)
    while number and reader.peek():
        sign = reader.take()
        if sign == "\\":
            reader.take()
        elif sign == "[":
            reader.members()
        elif sign == "(" and (reader.peek() != "?" or expression.startswith(("?P<", "?<"), reader.at)):
            number -= 1
    return expression[: reader.at - 1]


def join(parts: Iterable[Node]) -> Node:
    """Return the nodes one after the other."""
    flat: list[Node] = []
    for part in parts:
        flat.extend(part.parts if isinstance(part, Sequence) else (part,))
    return flat[0] if len(flat) == 1 else Sequence(tuple(flat))


def render(node: Node) -> str:
    """Return a tree as text that RE2 and Hyperscan read alike; groups do not capture."""
    match node:
        case Class(bits):
            return _render_class(bits)
        case Edge(text):
            return text
        case Sequence(parts):
            return "".join(f"(?:{render(part)})" if isinstance(part, Choice) else render(part) for part in parts)
        case Choice(parts):
            return "|".join(render(part) for part in parts)
        case Repeat(part, least, most, is_greedy):
            inner = render(part) if isinstance(part, Class) else f"(?:{render(part)})"
            return inner + _render_bounds(least, most) + ("" if is_greedy else "?")


@functools.lru_cache(maxsize=4096)
def _render_class(bits: int) -> str:
    runs: list[str] = []
    at = 0
    while bits >> at:
        if not bits >> at & 1:
            at += 1
            continue
        end = at
        while bits >> end & 1:
            end += 1
        runs.append(f"\\x{at:02x}" if end == at + 1 else f"\\x{at:02x}-\\x{end - 1:02x}")
        at = end
    return runs[0] if len(runs) == 1 and "-" not in runs[0] else f"[{''.join(runs)}]"


def _render_bounds(least: int, most: int | None) -> str:
    if (least, most) in {(0, None), (1, None), (0, 1)}:
        return {(0, None): "*", (1, None): "+", (0, 1): "?"}[least, most]
    return f"{{{least}}}" if least == most else f"{{{least},{'' if most is None else most}}}"
