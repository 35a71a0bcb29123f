"""The code scanner: patterns over everything, parsers over the few regions where they can tell more.

Enforces: only a chain that is complete rises above a report in a text that is merely printed. A region that a parser
cannot follow is reported as `unparsed` and patterns alone read it. Does not: withhold or redact. May be used by:
kavach.gate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kavach.gate.code.analysis import read_shell
from kavach.gate.code.chains import chains_in
from kavach.gate.code.groups import SCANNER, mark
from kavach.gate.code.python import Unparsed, python_hits
from kavach.gate.code.rules import RULES
from kavach.model.verdict import Severity

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kavach.gate.rule import Mark, Rule

LINE_BYTES = 1 << 12
"""The longest line that is parsed as a shell's."""
PARSED_BYTES = 1 << 13
"""So much of one block of 64 KiB is parsed at most: patterns read hundreds of bytes in the time a parser reads one."""
MAX_OPERATORS = 128
"""A line with more operators of a shell than this is no command that anybody would type."""
_SHELL_SIGNS = frozenset({"network-tools", "pipe-to-shell", "shell-invocation", "base64-obfuscation"})
_SOURCE_SIGNS = frozenset({"network-tools", "process-spawn"})
_NEAR_BYTES = 1 << 11
_CONNECTIONS = (
    b"/dev/tcp",
    b"/dev/udp",
    b"nc",
    b"netcat",
    b"socat",
    b"telnet",
    b"s_client",
    b"ztcp",
    b"rcat",
    b"/inet/",
)


class CodeScanner:
    """The rules of the code scanner and the parsers behind them.

    Attributes:
        name: how marks and findings call it.
        rules: what the engine looks for.
    """

    name: str = SCANNER
    rules: tuple[Rule, ...] = RULES

    def inspect(self, text: bytes, marks: Sequence[Mark]) -> Iterator[Mark]:
        """Yield the complete chains that patterns alone cannot tell, and what could not be parsed.

        Args:
            text: one whole text, or a region of a stream cut at line ends.
            marks: what the rules found in it.
        """
        known = [(one.start, one.end) for one in marks if one.rule == "reverse-shell"]
        budget = PARSED_BYTES
        for start, end, is_source in _regions(text, marks):
            budget -= end - start
            if budget < 0:
                return
            if any(start <= at < end for at, _ in known):
                continue
            found = _source(text[start:end]) if is_source else _line(text[start:end])
            yield from (one._replace(start=one.start + start, end=one.end + start) for one in found)


def _regions(text: bytes, marks: Sequence[Mark]) -> Iterator[tuple[int, int, bool]]:
    """Yield (start, end, is source) of what is worth parsing, no region twice."""
    seen_line = seen_source = -1
    for one in sorted(marks, key=lambda found: found.start):
        if one.rule in _SHELL_SIGNS and one.start >= seen_line:
            start = text.rfind(b"\n", max(0, one.start - LINE_BYTES), one.start) + 1 or max(0, one.start - LINE_BYTES)
            stop = text.find(b"\n", one.start, start + LINE_BYTES)
            seen_line = stop if stop >= 0 else min(len(text), start + LINE_BYTES)
            yield start, seen_line, False
        if one.rule in _SOURCE_SIGNS and one.start >= seen_source:
            start = max(0, one.start - _NEAR_BYTES)
            seen_source = min(len(text), one.start + _NEAR_BYTES)
            yield start, seen_source, True


def _line(line: bytes) -> list[Mark]:
    """Return a reverse shell in one line, or that it could not be read."""
    if not any(word in line for word in _CONNECTIONS):
        return []
    if sum(line.count(sign) for sign in b"|;&(`<>") > MAX_OPERATORS:
        return [mark("unparsed", Severity.INFO, 0, len(line))]
    reading = read_shell(line.decode("latin-1"))
    worst = [hit for hit in reading.hits if hit.group == "reverse-shell"]
    if worst:
        return [mark("reverse-shell", Severity.HIGH, worst[0].start, worst[0].end)]
    return [mark("unparsed", Severity.INFO, 0, len(line)) for hit in reading.hits if hit.group == "unparsed"][:1]


def _source(region: bytes) -> list[Mark]:
    """Return a reverse shell in a source of any language; Python's has to parse if it is Python at all."""
    if not any(chains_in(region.decode("latin-1"), only_sure=True)):
        return []
    start = region.find(b"import ")
    try:
        hits = python_hits(region[max(start, 0) :])
    except Unparsed:
        return [mark("reverse-shell", Severity.HIGH, 0, len(region))]
    tied = [hit for hit in hits if hit.group == "reverse-shell"]
    return [mark("reverse-shell", Severity.HIGH, hit.start + max(start, 0), hit.end + max(start, 0)) for hit in tied]


CODE = CodeScanner()
"""The code scanner; it holds no state."""
