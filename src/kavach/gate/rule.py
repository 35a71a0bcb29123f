"""What scanners are made of: rules that a linear-time engine runs, and the marks they leave.

Enforces: a rule sees a bounded neighbourhood only, so that cutting a text into chunks elsewhere changes nothing. Does
not: scan, judge or redact. A mark's span still points at the thing itself: marks stay inside the gate, findings leave.
May be used by: kavach.gate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from kavach.model.verdict import Severity

CONTEXT_BYTES = 256
"""How far before and after its match a rule's `accept` may look."""


def text_parts(value: bytes) -> list[bytes]:
    """Return the runs of printable UTF-8 in a value, in order.

    A shape that takes every byte above 0x7f for a letter stands in each megabyte of a picture or an archive, and runs
    on into the noise behind a true find; the runs tell the two apart.
    """
    read = "".join(one if one.isprintable() else "\ufffd" for one in value.decode("utf-8", "replace"))
    return [part.encode() for part in read.split("\ufffd") if part]


class Unseen(Exception):
    """A rule looked behind its match, at bytes that have not come yet; never leaves the gate."""


class Match(NamedTuple):
    """Where one rule's expression holds.

    Args:
        text: the whole scanned text. An `accept` reads it by `group`, `before` and `after` only: what else stands in
            it depends on how a stream was cut.
        spans: (start, end) of the match, then of each group; (-1, -1) for a group that took no part.
        is_last: nothing comes behind `text`.
    """

    text: bytes
    spans: tuple[tuple[int, int], ...]
    is_last: bool = True

    def group(self, number: int = 0) -> bytes:
        """Return the bytes of a group, empty where it took no part."""
        start, end = self.spans[number]
        return self.text[start:end] if start >= 0 else b""

    def before(self, count: int = CONTEXT_BYTES) -> bytes:
        """Return what stands before the match.

        Args:
            count: how many bytes, at most `CONTEXT_BYTES`.
        """
        start = self.spans[0][0]
        return self.text[max(0, start - min(count, CONTEXT_BYTES)) : start]

    def after(self, count: int = CONTEXT_BYTES) -> bytes:
        """Return what stands after the match. A stream has to wait for so many bytes: ask for few.

        Args:
            count: how many bytes, at most `CONTEXT_BYTES`.

        Raises:
            Unseen: they have not come yet; for the engine, which asks again when they have.
        """
        end = self.spans[0][1] + min(count, CONTEXT_BYTES)
        if end > len(self.text) and not self.is_last:
            raise Unseen
        return self.text[self.spans[0][1] : end]


class Rule(NamedTuple):
    """One thing to look for.

    Args:
        name: kebab-case, unique in its scanner; stands in `[REDACTED:<name>]`.
        category: the family or group it belongs to.
        severity: how bad a find is.
        message: one sentence, without the thing itself.
        expression: RE2 syntax over bytes read as Latin-1; no backreference, no look-around, no unbounded repeat of
            more than one line but in block rules.
        max_bytes: the longest text it can match; what a stream may have to hold back for it.
        literals: lower-case words; without one of them in the text the rule cannot hold. Empty: always tried.
        group: which group is the thing itself, to be redacted; 0 = the whole match.
        accept: a check of structure, digits or stop-words; None = every match counts. Looks no further than
            `CONTEXT_BYTES` around the match.
    """

    name: str
    category: str
    severity: Severity
    message: str
    expression: str
    max_bytes: int
    literals: tuple[bytes, ...] = ()
    group: int = 0
    accept: Callable[[Match], bool] | None = None


class Mark(NamedTuple):
    """A span that a rule holds for, in the offsets of the text that was given.

    Args:
        scanner: whose rule it is.
        rule: the rule's name.
        category: the rule's category.
        severity: how bad it is.
        message: one sentence.
        start: the first byte.
        end: the byte after the last.
    """

    scanner: str
    rule: str
    category: str
    severity: Severity
    message: str
    start: int
    end: int


class Scanner(Protocol):
    """A set of rules, and what a parser adds to them.

    Args:
        name: secrets, code, personal, binary.
        rules: what the engine looks for.
    """

    name: str
    rules: tuple[Rule, ...]

    def inspect(self, text: bytes, marks: Sequence[Mark]) -> Iterable[Mark]:
        """Yield what only parsing can tell, from regions that its own rules' marks point at.

        Args:
            text: one whole text, or a region of a stream cut at line ends.
            marks: what this scanner's rules found in it.
        """
        ...
