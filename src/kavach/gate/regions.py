"""Which part of a text a scanner's parser gets to see: the line around a find, or a block of whole lines.

Enforces: regions are a function of the text alone, not of the pieces in which it came; each is at most `BLOCK_BYTES`,
all blocks of an output at most `PARSED_BYTES`. Does not: parse. May be used by: kavach.gate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kavach.gate.rule import CONTEXT_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from kavach.gate.rule import Mark, Scanner

BLOCK_BYTES = 64 << 10
"""The longest text that a parser is given (gate.md)."""
PARSED_BYTES = 1 << 20
"""How much of one output parsers are given in all (gate.md)."""
BLOCKWISE = frozenset({"code"})
"""Scanners whose parsers read a block of lines."""
WHOLE = frozenset({"binary"})
"""Scanners whose parsers read a whole artifact, and that have nothing to read in a stream."""


class Lines:
    """Finds that wait for the end of their line, or for as much behind them as a rule may look at.

    Args:
        scanners: whose finds these are.
    """

    def __init__(self, scanners: Sequence[Scanner]) -> None:
        self._scanners = {one.name: one for one in scanners if one.name not in BLOCKWISE | WHOLE}
        self._waiting: list[Mark] = []

    def copy(self) -> Lines:
        """Return one that goes its own way from here."""
        made = Lines(())
        made._scanners, made._waiting = self._scanners, list(self._waiting)
        return made

    def shift(self, count: int) -> None:
        """Let offsets count from a place `count` bytes further on."""
        self._waiting = [mark._replace(start=mark.start - count, end=mark.end - count) for mark in self._waiting]

    def inspect(self, text: bytes, marks: Sequence[Mark], *, is_last: bool) -> tuple[list[Mark], int]:
        """Return what parsing adds to finds whose line is there, and the first place that still waits."""
        waiting, self._waiting = self._waiting + [mark for mark in marks if mark.scanner in self._scanners], []
        added: list[Mark] = []
        for mark in waiting:
            end = mark.end + CONTEXT_BYTES
            if is_last or end <= len(text) or text.find(b"\n", mark.end) >= 0:
                start = max(0, mark.start - CONTEXT_BYTES)
                own = mark._replace(start=mark.start - start, end=mark.end - start)
                added += _moved(self._scanners[mark.scanner].inspect(text[start:end], [own]), start)
            else:
                self._waiting.append(mark)
        return added, min((mark.start for mark in self._waiting), default=len(text))


class Blocks:
    """The text that parsers read in blocks, which end at the last line end within `BLOCK_BYTES`.

    Args:
        scanners: who parses.
    """

    def __init__(self, scanners: Sequence[Scanner]) -> None:
        self._scanners = tuple(one for one in scanners if one.name in BLOCKWISE)
        self._text = b""
        self._base = 0
        self._marks: list[Mark] = []
        self._parsed_bytes = 0

    def inspect(self, piece: bytes, marks: Sequence[Mark], decided: int, *, is_last: bool) -> list[Mark]:
        """Return what parsing tells of the blocks that are complete now.

        Args:
            piece: more of the text.
            marks: more finds, in offsets of the whole text.
            decided: up to where all finds are known.
            is_last: nothing comes behind it.
        """
        if not self._scanners:
            return []
        self._text += piece
        names = {scanner.name for scanner in self._scanners}
        self._marks += [mark for mark in marks if mark.scanner in names]
        added: list[Mark] = []
        while self._text and (is_last or len(self._text) > BLOCK_BYTES):
            size = self._text.rfind(b"\n", 0, BLOCK_BYTES) + 1 or BLOCK_BYTES
            size = len(self._text) if len(self._text) <= BLOCK_BYTES else size
            if not is_last and decided < self._base + size:
                break
            added += self._parse(self._text[:size])
            self._text = self._text[size:]
            self._base += size
        return added

    def _parse(self, block: bytes) -> Iterator[Mark]:
        end = self._base + len(block)
        inside = [mark for mark in self._marks if mark.start < end]
        self._marks = [mark for mark in self._marks if mark.start >= end]
        if inside and self._parsed_bytes + len(block) <= PARSED_BYTES:
            self._parsed_bytes += len(block)
            shifted = [
                mark._replace(start=mark.start - self._base, end=min(mark.end, end) - self._base) for mark in inside
            ]
            for scanner in self._scanners:
                own = [mark for mark in shifted if mark.scanner == scanner.name]
                yield from _moved(scanner.inspect(block, own) if own else (), self._base)


def _moved(marks: Iterable[Mark], count: int) -> Iterator[Mark]:
    for mark in marks:
        yield mark._replace(start=mark.start + count, end=mark.end + count)
