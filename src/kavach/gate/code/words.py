"""One word of a shell text: quotes, escapes, parameters and substitutions.

Enforces: each character is read once. Does not: know commands (`kavach.gate.code.shell` does). May be used by:
kavach.gate.code.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod

from kavach.gate.code.syntax import MAX_DEPTH, Part, Pipeline, TooDeep, Word

_PLAIN = re.compile(r"[^\s;&|()<>\\'\"$`]+")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ESCAPE = re.compile(r"\\(?:x([0-9A-Fa-f]{1,2})|0?([0-7]{1,3})|u([0-9A-Fa-f]{1,4})|(.))", re.DOTALL)
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "e": "\x1b", "E": "\x1b", "f": "\f", "v": "\v"}


class WordReader(ABC):
    """Where reading has come.

    Attributes:
        text: one character a byte.
        at: the next character.
        end: where reading stops.
        depth: how much is open around this place.
        is_whole: everything that was opened so far was closed.
    """

    def __init__(self, text: str, at: int, end: int, depth: int) -> None:
        self.text = text
        self.at: int = at
        self.end = end
        self.depth: int = depth
        self.is_whole: bool = True

    @abstractmethod
    def pipelines(self, closer: str) -> tuple[Pipeline, ...]:
        """Read commands up to and over `closer`."""

    @abstractmethod
    def part_of(self, start: int, stop: int) -> tuple[Pipeline, ...]:
        """Return the commands in a stretch of the same text."""

    def _word(self) -> Word:
        start = self.at
        parts: list[Part] = []
        while self.at < self.end:
            plain = _PLAIN.match(self.text, self.at, self.end)
            if plain is not None:
                parts.append(Part("text", plain[0]))
                self.at = plain.end()
                continue
            char = self.text[self.at]
            if self.text.startswith(("<(", ">("), self.at):
                self.at += 2
                parts.append(Part("run", self.text[self.at - 2 : self.at], self.pipelines(")")))
            elif char == "\\":
                if not self.text.startswith("\\\n", self.at):
                    parts.append(Part("quoted", self.text[self.at + 1 : min(self.at + 2, self.end)]))
                self.at += 2
            elif char == "'":
                parts.append(Part("quoted", self._until("'")))
            elif char == '"':
                self.at += 1
                self._double(parts)
            elif char in "$`":
                self._dollar(parts, "name")
            else:
                break
        self.at = min(self.at, self.end)
        if self.at == start:  # a character that starts nothing: a form feed, a lone carriage return
            self.at += 1
        return Word(tuple(parts), start, self.at)

    def _until(self, close: str) -> str:
        start = self.at + 1
        found = self.text.find(close, start, self.end)
        if found < 0:
            self.is_whole = False
            found = self.end
        self.at = min(found + 1, self.end)
        return self.text[start:found]

    def _double(self, parts: list[Part]) -> None:
        """Read up to and over the closing double quote."""
        start = self.at
        while self.at < self.end:
            char = self.text[self.at]
            if char not in '\\"$`':
                self.at += 1
                continue
            parts.append(Part("quoted", self.text[start : self.at]))
            if char == '"':
                self.at += 1
                return
            if char == "\\":
                kept = 1 if self.text[self.at + 1 : self.at + 2] in {"$", "`", '"', "\\", "\n"} else 0
                start = self.at + kept
                self.at += 2
            else:
                self._dollar(parts, "quoted name")
                start = self.at
        self.is_whole = False
        parts.append(Part("quoted", self.text[start : self.end]))

    def _dollar(self, parts: list[Part], kind: str) -> None:
        """Read what `$` or a backtick starts; `kind` is what a parameter counts as here."""
        if self.text[self.at] == "`":
            self._backtick(parts)
            return
        self.at += 1
        follows = self.text[self.at : min(self.at + 1, self.end)]
        name = _NAME.match(self.text, self.at, self.end)
        if name is not None:
            self.at = name.end()
            parts.append(Part(kind, name[0]))
        elif self.text.startswith("((", self.at):
            close = self.text.find("))", self.at, self.end)
            self.at = self.end if close < 0 else close + 2
            parts.append(Part("quoted", "0"))
        elif follows == "(":
            self.at += 1
            parts.append(Part("run", "$(", self.pipelines(")")))
        elif follows == "{":
            self._parameter(parts, kind)
        elif follows == "'" and kind == "name":
            parts.append(Part("quoted", self._ansi()))
        elif follows and follows in "@*#?-$!0123456789":
            self.at += 1
            parts.append(Part(kind, follows))
        elif follows != '"' or kind != "name":  # $"..": the quotes that follow are read next
            parts.append(Part("text", "$"))

    def _parameter(self, parts: list[Part], kind: str) -> None:
        """Read `${NAME...}`: its name, and what is substituted in the rest."""
        name = _NAME.match(self.text, self.at + 1, self.end)
        self.at = name.end() if name is not None else self.at + 1
        parts.append(Part(kind, name[0] if name is not None else ""))
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise TooDeep
        while self.at < self.end and self.text[self.at] != "}":
            char = self.text[self.at]
            if char in "$`":
                self._dollar(parts, kind)
            elif char == "'" and kind == "name":
                self._until("'")
            else:
                self.at += 2 if char == "\\" else 1
        self.depth -= 1
        self.is_whole = self.is_whole and self.at < self.end
        self.at = min(self.at + 1, self.end)

    def _ansi(self) -> str:
        start = self.at + 1
        at = start
        while at < self.end and self.text[at] != "'":
            at += 2 if self.text[at] == "\\" else 1
        self.is_whole = self.is_whole and at < self.end
        self.at = min(at + 1, self.end)
        return unescape(self.text[start : min(at, self.end)])

    def _backtick(self, parts: list[Part]) -> None:
        start = at = self.at + 1
        while at < self.end and self.text[at] != "`":
            at += 2 if self.text[at] == "\\" else 1
        stop = min(at, self.end)
        self.is_whole = self.is_whole and at < self.end
        parts.append(Part("run", "$(", self.part_of(start, stop)))
        self.at = min(stop + 1, self.end)

    def _is_operator(self) -> bool:
        char = self.text[self.at]
        return char in "\n;&|()" or (char in "<>" and not self.text.startswith("(", self.at + 1))

    def _blanks(self) -> None:
        while self.at < self.end:
            if self.text[self.at] in " \t\r":
                self.at += 1
            elif self.text.startswith("\\\n", self.at):
                self.at += 2
            else:
                return


def unescape(text: str) -> str:
    """Return a text with the escapes of `$'..'`, `echo -e` and `printf` resolved.

    Args:
        text: what stands between the quotes.
    """
    return _ESCAPE.sub(_unescaped, text)


def _unescaped(found: re.Match[str]) -> str:
    for group, radix in ((1, 16), (2, 8), (3, 16)):
        if found[group] is not None:
            return chr(int(found[group], radix) & 0xFF)
    return _ESCAPED.get(found[4], found[4])
