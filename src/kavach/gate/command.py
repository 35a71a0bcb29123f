"""A command read before it runs: what it would start, and what that would do.

Enforces: words are judged where a program would get them, not where a sentence names them. Does not: refuse anything
(`kavach.gate.guards` does, if a policy says so), nor replace a wall: a text that is computed while it runs cannot be
read before. May be used by: kavach.gate and kavach.sandbox.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, NamedTuple

from kavach.errors import ConfigError
from kavach.gate.code import CODE
from kavach.gate.code.analysis import read_code, read_shell, read_strings
from kavach.gate.code.groups import mark
from kavach.gate.scan import scan_bytes
from kavach.model.command import make_command
from kavach.model.verdict import ExternalizationPolicy, Severity

if TYPE_CHECKING:
    from kavach.gate.code.analysis import Hit
    from kavach.gate.rule import Mark
    from kavach.model.command import Argv

MAX_READ_BYTES = 1 << 16
"""So much of a command is parsed; patterns read all of it."""
_READ_BY_SIGHT = frozenset({"unicode-obfuscation", "reverse-shell"})
_EVERYTHING = ExternalizationPolicy.redact()


class CommandScan(NamedTuple):
    """What a command would do.

    Args:
        text: the command as one text, an argument vector with its quotes as a shell would need them.
        marks: every technique, by place, in the offsets of `text`.
    """

    text: bytes
    marks: tuple[Mark, ...]


def scan_argv(command: Argv) -> CommandScan:
    """Return what a command would do; a str is read as a shell would read it, with every operator.

    Args:
        command: an argument vector, or a text with shell syntax.

    Raises:
        ConfigError: it can be no command: no words, no text, a NUL byte, or too long for the kernel.
    """
    if isinstance(command, str):
        try:
            text = command.encode("utf-8")
        except UnicodeEncodeError:
            raise ConfigError("command: expected text that can be encoded as UTF-8", key="command") from None
    else:
        words = [word.decode("utf-8", "surrogateescape") for word in make_command(command).argv]
        text = shlex.join(words).encode("utf-8", "surrogateescape")
    return CommandScan(text, tuple(_marks(text)))


def _marks(text: bytes) -> list[Mark]:
    head = text[:MAX_READ_BYTES].decode("latin-1")
    reading = read_shell(head)
    hits = reading.hits + read_code(head) + _quoted(head, is_shell=reading.is_shell)
    parsed = {hit.group for hit in hits}
    seen = [one for one in scan_bytes(text, _EVERYTHING, scanners=(CODE,)) if one.rule not in parsed]
    if reading.is_shell and len(text) <= MAX_READ_BYTES:
        seen = [one for one in seen if one.rule in _READ_BY_SIGHT]
    elif len(text) > MAX_READ_BYTES:
        seen.append(mark("unparsed", Severity.LOW, MAX_READ_BYTES, len(text)))
    return _worst_of_each([*(_mark(hit, len(text)) for hit in hits), *seen])


def _quoted(text: str, *, is_shell: bool) -> list[Hit]:
    """Return what the strings in a command do. What a shell command merely quotes is text, but for a reverse shell."""
    hits = read_strings(text)
    if is_shell:
        hits = [hit._replace(severity=Severity.HIGH) for hit in hits if hit.group == "reverse-shell"]
    return hits


def _mark(hit: Hit, size: int) -> Mark:
    start = min(hit.start, size)
    return mark(hit.group, hit.severity, start, max(start, min(hit.end, size)))


def _worst_of_each(marks: list[Mark]) -> list[Mark]:
    """Return one mark for each place and group, the worst: two readings may see the same thing."""
    worst: dict[tuple[int, int, str], Mark] = {}
    for one in marks:
        key = (one.start, one.end, one.rule)
        if key not in worst or one.severity > worst[key].severity:
            worst[key] = one
    return sorted(worst.values(), key=lambda one: (one.start, one.end, one.rule))
