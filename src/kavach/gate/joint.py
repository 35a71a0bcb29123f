"""Both output streams of a command, read as one text for the secrets that it was given.

Enforces: a known value whose parts come on standard output and on standard error, one behind the other in the order in
which they were read, is marked in both; the end of either that could be the beginning of one is told, whichever stream
goes on. Does not: know the order of what a command wrote to both before either was read, or look for anything but known
values. May be used by: kavach.sandbox.passage.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from kavach.gate.scan import Reading

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kavach.gate.known import KnownSecret
    from kavach.gate.rule import Mark


class _Stretch(NamedTuple):
    start: int  # in the joint text
    end: int
    is_error: bool
    origin: int  # in its own stream


class Joint:
    """Both streams as one text.

    Args:
        known: values that must not come out.
    """

    def __init__(self, known: Sequence[KnownSecret]) -> None:
        self._reading = Reading((), known, depth=0)
        self._stretches: list[_Stretch] = []  # of what is not decided
        self._size = 0
        self._sizes = [0, 0]
        self._news: tuple[list[Mark], list[Mark]] = ([], [])
        self._all: tuple[list[Mark], list[Mark]] = ([], [])
        self._is_over = False

    @property
    def marks(self) -> tuple[Sequence[Mark], Sequence[Mark]]:
        """Every part that was found of a value that stands on both streams, in each stream's own offsets."""
        return self._all

    def feed(self, chunk: bytes, *, is_error: bool) -> tuple[list[Mark], int]:
        """Take the next bytes of one stream.

        Returns:
            The marks in that stream that were not told before, and up to where everything is known of it.
        """
        if chunk:
            self._append(chunk, is_error=is_error)
            self._place(self._reading.feed(chunk))
        return self._tell(is_error=is_error)

    def close(self, *, is_error: bool) -> tuple[list[Mark], int]:
        """End both streams; return the rest as `feed` does."""
        if not self._is_over:
            self._is_over = True
            self._place(self._reading.close())
        return self._tell(is_error=is_error)

    def _append(self, chunk: bytes, *, is_error: bool) -> None:
        start, origin = self._size, self._sizes[is_error]
        self._size += len(chunk)
        self._sizes[is_error] += len(chunk)
        if self._stretches and self._stretches[-1].is_error == is_error:
            self._stretches[-1] = self._stretches[-1]._replace(end=self._size)
        else:
            self._stretches.append(_Stretch(start, self._size, is_error, origin))

    def _place(self, marks: Sequence[Mark]) -> None:
        """Keep what stands on both streams; what stands on one, its own reading finds."""
        for mark in marks:
            touched = [one for one in self._stretches if one.start < mark.end and mark.start < one.end]
            for one in touched if len(touched) > 1 else ():
                start, end = max(mark.start, one.start), min(mark.end, one.end)
                shift = one.origin - one.start
                part = mark._replace(start=start + shift, end=end + shift)
                self._news[one.is_error].append(part)
                self._all[one.is_error].append(part)
        if not self._is_over:
            self._stretches = [one for one in self._stretches if one.end > self._reading.decided]

    def _tell(self, *, is_error: bool) -> tuple[list[Mark], int]:
        news = self._news[is_error][:]
        self._news[is_error].clear()
        if self._is_over:
            return news, self._sizes[is_error]
        decided = self._reading.decided
        waiting = next((one for one in self._stretches if one.is_error == is_error), None)
        if waiting is None:
            return news, self._sizes[is_error]
        return news, waiting.origin + max(0, decided - waiting.start)


class Side(NamedTuple):
    """One of the two streams of a `Joint`."""

    joint: Joint
    is_error: bool

    def feed(self, chunk: bytes) -> tuple[list[Mark], int]:
        """Take the next bytes; return as `Joint.feed` does."""
        return self.joint.feed(chunk, is_error=self.is_error)

    def close(self) -> tuple[list[Mark], int]:
        """End both streams; return as `Joint.feed` does."""
        return self.joint.close(is_error=self.is_error)
