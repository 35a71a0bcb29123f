"""A text read every way that fits it: as shell, as Python, and for what code of any language has to name.

Enforces: what stands inside a text is read too (`sh -c`, `python -c`, `os.system("..")`, strings in code), to a bounded
depth. Does not: decide where a text came from; severities are those of a command about to run. May be used by:
kavach.gate.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from kavach.gate.code import files, hiding, injection, network, privilege
from kavach.gate.code.acts import deeds_of
from kavach.gate.code.chains import chains_in
from kavach.gate.code.python import Unparsed, python_hits
from kavach.gate.code.syntax import TooDeep
from kavach.model.verdict import Severity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kavach.gate.code.acts import Act

MAX_DEPTH = 3
"""How many texts inside texts are read."""
_LANGUAGE = re.compile(
    r"(python|pypy|perl|ruby|php|node|nodejs|lua|luajit|deno|bun|osascript|pwsh|powershell|crystal|gawk|awk)[\d.]*"
)
_CODE_OPTIONS = {
    "perl": re.compile(r"-[a-zA-Z0-9]*[eE]"), "ruby": re.compile(r"-[a-zA-Z]*e"), "php": re.compile(r"-r"),
    "lua": re.compile(r"-e"), "luajit": re.compile(r"-e"), "node": re.compile(r"-e|-p|-pe|--eval|--print"),
    "nodejs": re.compile(r"-e|-p|--eval"), "deno": re.compile(r"eval"), "bun": re.compile(r"-e"),
    "crystal": re.compile(r"eval"), "osascript": re.compile(r"-e"), "python": re.compile(r"-[a-zA-Z]*c"),
    "pypy": re.compile(r"-c"), "powershell": re.compile(r"(?i:-c|-command)"), "pwsh": re.compile(r"(?i:-c|-command)"),
}  # fmt: skip
_IN_STRINGS = ("/dev/tcp/", "/dev/udp/", "nc ", "ncat ", "nc.exe", "mkfifo", "socat", "| sh", "|sh", "| bash", "|bash")
_MANY = 6
_MANY_HITS = 64


class Hit(NamedTuple):
    """One technique in a text.

    Args:
        group: a group's name.
        severity: how bad it is in a command about to run.
        start: the first byte.
        end: the byte after the last.
    """

    group: str
    severity: Severity
    start: int
    end: int


class Reading(NamedTuple):
    """What a text holds.

    Args:
        hits: every technique, in no order.
        is_shell: it reads as a shell text from end to end, so that patterns add nothing.
    """

    hits: list[Hit]
    is_shell: bool


def read_shell(text: str, depth: int = 0) -> Reading:
    """Return what a text does if a shell reads it.

    Args:
        text: one character a byte.
        depth: how many texts it stands in.
    """
    try:
        deeds = deeds_of(text)
    except (TooDeep, RecursionError, MemoryError):
        return Reading([Hit("unparsed", Severity.LOW, 0, len(text))], is_shell=False)
    hits = [Hit("destructive", Severity.HIGH, start, end) for start, end in deeds.bombs]
    for part in (network, files, privilege, hiding, injection):
        hits += [Hit(group, severity, act.start, act.end) for group, severity, act in part.hits_of(deeds)]
    if depth < MAX_DEPTH:
        for act in deeds.acts:
            language, code = _code_of(act)
            hits += [hit._replace(start=act.start, end=act.end) for hit in read_code(code, language, depth + 1)]
    return Reading(hits, deeds.is_whole)


def read_code(text: str, language: str = "", depth: int = 0) -> list[Hit]:
    """Return what a source does that is no shell's.

    Args:
        text: one character a byte.
        language: its name if that is known.
        depth: how many texts it stands in.
    """
    if not text:
        return []
    hits = [Hit(group, _CHAIN_SEVERITY[group], 0, len(text)) for group in chains_in(text, only_sure=False)]
    if language in {"", "python", "pypy"}:
        hits += _read_python(text, depth)
    if text.count("$\xf0\x9f") >= _MANY:  # variables named by emoji: nobody writes that to be read
        hits.append(Hit("unicode-obfuscation", Severity.HIGH, 0, len(text)))
    return hits + (read_strings(text, depth) if language not in {"", "python"} else [])


_CHAIN_SEVERITY = {
    "reverse-shell": Severity.CRITICAL,
    "remote-script": Severity.HIGH,
    "shell-exec": Severity.HIGH,
    "base64-obfuscation": Severity.HIGH,
}


def _read_python(text: str, depth: int) -> list[Hit]:
    try:
        found = python_hits(text.encode("latin-1", "replace"))
    except Unparsed:
        return []
    hits = [Hit(hit.group, hit.severity, hit.start, hit.end) for hit in found]
    for hit in found:
        if hit.handed and depth < MAX_DEPTH:
            inner = (
                read_code(hit.handed, "python", depth + 1) if hit.is_python else read_shell(hit.handed, depth + 1).hits
            )
            hits += [one._replace(start=hit.start, end=hit.end) for one in inner]
    return hits


def read_strings(text: str, depth: int = 0) -> list[Hit]:
    """Return what is severe in the strings of a source that read like a shell's command.

    Args:
        text: one character a byte.
        depth: how many texts it stands in.
    """
    if depth >= MAX_DEPTH or not any(word in text for word in _IN_STRINGS):
        return []
    hits: list[Hit] = []
    for start, end in (*_strings(text, '"'), *_strings(text, "'")):
        string = text[start:end].replace('\\"', '"')
        if any(word in string for word in _IN_STRINGS):
            inner = read_shell(string, depth + 1).hits
            inner += read_strings(string, depth + 1)
            hits += [hit._replace(start=start, end=end) for hit in inner if hit.severity >= Severity.HIGH]
    return hits[:_MANY_HITS]


def _strings(text: str, quote: str) -> Iterator[tuple[int, int]]:
    """Yield where the strings between these quotes stand, up to the first that is not closed."""
    at = text.find(quote)
    while at >= 0:
        start = stop = at + 1
        while stop < len(text) and text[stop] != quote:
            stop += 2 if text[stop] == "\\" else 1
        if stop >= len(text):
            return
        yield start, stop
        at = text.find(quote, stop + 1)


def _code_of(act: Act) -> tuple[str, str]:
    """Return the language and the source that an interpreter is given on its command line or by a here-document."""
    found = _LANGUAGE.fullmatch(act.name)
    if found is None:
        return "", ""
    language = found[1]
    if language in {"awk", "gawk"}:
        return language, next((arg for arg in act.args if not arg.startswith("-")), "")
    option = _CODE_OPTIONS[language]
    for number, arg in enumerate(act.args[:-1]):
        if option.fullmatch(arg):
            return language, "\n".join(act.args[number + 1 :])
    glued = next((arg[2:] for arg in act.args if arg.startswith(("-e", "-r", "-c")) and len(arg) > 3), "")
    return language, glued or act.fed_text
