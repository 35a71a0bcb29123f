"""Lists of names as they are read best: one line of words.

Enforces: nothing. May be used by: kavach.gate.code.
"""

from __future__ import annotations


def names(text: str) -> tuple[str, ...]:
    """Return the words of a text, in order."""
    return tuple(text.split())
