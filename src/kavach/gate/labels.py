"""Our own labels, in a text that was through the gate before.

Enforces: what was replaced once is not found again, so that redacting twice changes nothing; only the names of rules
and secrets that are looked for now count, and nothing else may stand beside a label. Does not: write labels
(`kavach.gate.redact` does). May be used by: kavach.gate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kavach.gate.redact import label_of

if TYPE_CHECKING:
    from collections.abc import Iterable

_BEGIN = b"[REDACTED:"
_OTHERS = ("cut-off", "unread-archive")  # labels that no rule has
_LEFT_BYTES = 5  # what is shorter than any secret that is looked for


class Labels:
    """Labels that mean something here.

    Args:
        names: of the rules and of the known secrets.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._given = names
        self._labels: frozenset[bytes] | None = None

    def is_all_of(self, thing: bytes) -> bool:
        """Return whether a thing is labels and next to nothing else.

        Args:
            thing: what a mark covers.
        """
        if _BEGIN not in thing:
            return False
        if self._labels is None:
            self._labels = frozenset(map(label_of, (*self._given, *_OTHERS)))
        head, *parts = thing.split(_BEGIN)
        left = len(head)
        for part in parts:
            name, end, rest = part.partition(b"]")
            left += len(rest) if _BEGIN + name + end in self._labels else len(part)
        return left <= _LEFT_BYTES
