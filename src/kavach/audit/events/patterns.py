"""Which topics a pattern means: `*` stands for one segment, `#` at the end for the rest, also none.

Guarantees: a topic or pattern that cannot mean anything is refused when it is given, not silently never matched.
Pure. May be called by: kavach.audit.
"""

from __future__ import annotations

from kavach.errors import ConfigError

__all__ = ["Pattern", "parse_pattern", "require_topic"]

_LONGEST = 512  # protects the bus from a caller's mistake; Kavach's own topics have under 100 characters


class Pattern:
    """A pattern, ready to be compared.

    Args:
        text: as the caller gave it.
        segments: its segments, without the final `#`.
        is_open: it ended with `#`.
    """

    __slots__ = ("_exact", "_length", "is_open", "segments", "text")

    def __init__(self, text: str, segments: tuple[str, ...], *, is_open: bool) -> None:
        self.text: str = text
        self.segments: tuple[str, ...] = segments
        self.is_open: bool = is_open
        self._exact = tuple((at, one) for at, one in enumerate(segments) if one != "*")
        self._length = len(segments)

    def matches(self, topic: list[str]) -> bool:
        """Return whether a topic, split at `/`, is one of those that the pattern means."""
        if len(topic) < self._length if self.is_open else len(topic) != self._length:
            return False
        return all(topic[at] == one for at, one in self._exact)

    def __repr__(self) -> str:
        return f"Pattern({self.text!r})"


def parse_pattern(text: object) -> Pattern:
    """Return a pattern that `matches` can be asked of.

    Raises:
        ConfigError: it is no text, has an empty segment, or a wildcard where none can stand.
    """
    segments = _segments(text, "pattern")
    is_open = segments[-1] == "#"
    kept = segments[:-1] if is_open else segments
    for segment in kept:
        if "#" in segment:
            raise ConfigError("pattern: expected '#' as the last segment only", key="pattern")
        if "*" in segment and segment != "*":
            raise ConfigError("pattern: expected '*' as a whole segment, not as part of one", key="pattern")
    return Pattern("/".join(segments), tuple(kept), is_open=is_open)


def require_topic(text: object) -> list[str]:
    """Return a topic's segments.

    Raises:
        ConfigError: it is no text, has an empty segment, fewer than three, or a wildcard.
    """
    segments = _segments(text, "topic")
    if len(segments) < 3 or "*" in text or "#" in text:  # type: ignore[operator]  # _segments has seen a str
        raise ConfigError("topic: expected area/<sandbox id>/what, without wildcards", key="topic")
    return segments


def _segments(text: object, name: str) -> list[str]:
    if not isinstance(text, str):
        raise ConfigError(f"{name}: expected str, got {type(text).__name__}", key=name)
    segments = text.split("/")
    if "" in segments or len(text) > _LONGEST or not text.isprintable():
        raise ConfigError(f"{name}: expected printable segments split by '/', none of them empty", key=name)
    return segments
