"""What a shell text is made of: words, redirections, simple and compound commands, pipelines.

Enforces: offsets are bytes of the text that was read. Does not: read (`kavach.gate.code.shell` does) or expand. May be
used by: kavach.gate.code.
"""

from __future__ import annotations

from typing import NamedTuple

MAX_DEPTH = 40
"""How deeply substitutions and compound commands may nest; nobody writes half of it, and our own stack is bounded."""


class TooDeep(ValueError):
    """The text nests more than `MAX_DEPTH` levels."""


class Part(NamedTuple):
    """A piece of a word.

    Args:
        kind: `text`, `quoted`, `name` (an unquoted parameter), `quoted name`, or `run` (a substitution).
        text: the characters, the parameter's name, or the operator of the substitution: `$(`, `<(` or `>(`.
        pipelines: what a substitution runs.
    """

    kind: str
    text: str
    pipelines: tuple[Pipeline, ...] = ()


class Word(NamedTuple):
    """One word before expansion.

    Args:
        parts: its pieces, quotes and escapes resolved.
        start: the first byte.
        end: the byte after the last.
    """

    parts: tuple[Part, ...]
    start: int
    end: int

    @property
    def literal(self) -> str:
        """The word as far as nothing has to be expanded; parameters stand as `$NAME`, substitutions as `$()`."""
        return "".join(_shown(part) for part in self.parts)


class Redirect(NamedTuple):
    """One redirection.

    Args:
        fd: the descriptor's digits, empty for the operator's own.
        operator: `<`, `>&`, `<<`, ...
        target: what follows the operator.
    """

    fd: str
    operator: str
    target: Word


class Call(NamedTuple):
    """A simple command.

    Args:
        words: its name and arguments.
        redirects: where its descriptors go.
        assigns: `NAME=word` before the name.
        start: the first byte.
        end: the byte after the last.
    """

    words: tuple[Word, ...]
    redirects: tuple[Redirect, ...]
    assigns: tuple[tuple[str, Word], ...]
    start: int
    end: int


class Block(NamedTuple):
    """A compound command or a function.

    Args:
        opener: `(`, `{`, `if`, `while`, ...
        function: the name it is defined under, or empty.
        pipelines: what it runs.
        redirects: what holds for all of it.
        start: the first byte.
        end: the byte after the last.
    """

    opener: str
    function: str
    pipelines: tuple[Pipeline, ...]
    redirects: tuple[Redirect, ...]
    start: int
    end: int


class Pipeline(NamedTuple):
    """Commands of which each reads what the one before it prints.

    Args:
        stages: at least one.
        is_background: `&` follows.
    """

    stages: tuple[Call | Block, ...]
    is_background: bool = False


class Script(NamedTuple):
    """A text as a shell reads it.

    Args:
        pipelines: in the order in which they stand.
        bodies: the texts of its here-documents, by the offset of the delimiter after `<<`.
        is_whole: every quote and every compound command is closed.
    """

    pipelines: tuple[Pipeline, ...]
    bodies: dict[int, str]
    is_whole: bool


def _shown(part: Part) -> str:
    if part.kind == "run":
        return f"{part.text})"
    return f"${part.text}" if part.kind.endswith("name") else part.text
