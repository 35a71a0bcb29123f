"""Text as a shell reads it: words, redirections, pipelines and what is nested in them, with exact offsets.

Enforces: one pass, time linear in the text, nesting bounded; quotes, escapes, substitutions, here-documents, compound
commands and functions as the POSIX shell grammar has them (Shell Command Language, 2.2 to 2.10), and bash's `$'..'`,
`<(..)`, `&>`, `<<<`, `[[`. What is no shell is read as far as it goes and `is_whole` tells. Does not: run, expand
globs, or refuse anything that a shell would refuse. Why our own: ADR 0017. May be used by: kavach.gate.code.
"""

from __future__ import annotations

import re

from kavach.gate.code.syntax import MAX_DEPTH, Block, Call, Part, Pipeline, Redirect, Script, TooDeep, Word
from kavach.gate.code.words import WordReader

_ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?:\[[^\]\s]*\])?\+?=")
_REDIRECT = re.compile(r"(\d{0,4})(<<<|<<-|<<|<>|<&|>>|>&|>\||&>>|&>|<|>)")
_CLOSED_BY = {"{": "}", "if": "fi", "while": "done", "until": "done", "for": "done", "select": "done", "case": "esac"}
_CLOSERS = frozenset(_CLOSED_BY.values())
_PASSED_OVER = frozenset({"then", "else", "elif", "do", "!", "in"})


def read(text: str) -> Script:
    """Return what a shell would make of a text.

    Args:
        text: one character a byte (Latin-1), so that offsets are the bytes'.

    Raises:
        TooDeep: it nests too deeply to be read.
    """
    reader = _Reader(text, 0, len(text))
    pipelines = reader.pipelines("")
    return Script(pipelines, reader.bodies, reader.is_whole)


class _Reader(WordReader):
    """Reads commands, and the here-documents that they wait for."""

    def __init__(self, text: str, at: int, end: int, depth: int = 0) -> None:
        super().__init__(text, at, end, depth)
        self.bodies: dict[int, str] = {}
        self._waiting: list[Word] = []

    def part_of(self, start: int, stop: int) -> tuple[Pipeline, ...]:
        """Return the commands in a stretch of the same text."""
        inner = _Reader(self.text, start, stop, self.depth)
        found = inner.pipelines("")
        self.bodies |= inner.bodies
        return found

    def pipelines(self, closer: str) -> tuple[Pipeline, ...]:
        """Read up to and over `closer`: `)`, a reserved word, `;;`, or the end of the text for an empty one."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise TooDeep
        found: list[Pipeline] = []
        while not self._closes(closer):
            before = self.at
            pipeline = self._pipeline(closer)
            if pipeline.stages:
                found.append(pipeline)
            if self.at == before:  # nothing here starts a command
                self.at += 1
        self.depth -= 1
        return tuple(found)

    def _closes(self, closer: str) -> bool:
        while self.at < self.end:
            char = self.text[self.at]
            if char == "\n":
                self._newline()
            elif closer == ";;" and self.text.startswith((";;", ";&"), self.at):
                self.at += 2
                return True
            elif char in " \t\r;&":
                self.at += 1
            elif char == "#":
                self._comment()
            else:
                break
        if self.at >= self.end:
            self.is_whole = self.is_whole and not closer
            return True
        if self.text[self.at] == ")":
            self.at += closer == ")"
            return closer == ")" or bool(closer and self.depth > 1)
        word = self._reserved()
        if word in _CLOSERS:
            if closer == ";;":
                return True
            self.at += len(word)
            return bool(closer) and closer != ")"
        return False

    def _pipeline(self, closer: str) -> Pipeline:
        stages: list[Call | Block] = []
        while True:
            stage = self._stage(closer)
            if stage is not None:
                stages.append(stage)
            self._blanks()
            if self.at >= self.end or self.text[self.at] != "|" or self.text.startswith("||", self.at):
                break
            self.at += 2 if self.text.startswith("|&", self.at) else 1
            self._newlines()
        is_background = self.text.startswith("&", self.at) and not self.text.startswith("&&", self.at)
        while self.at < self.end and self.text[self.at] in "&|;" and not (closer == ";;" and self._at_case_end()):
            self.at += 1
        return Pipeline(tuple(stages), is_background)

    def _at_case_end(self) -> bool:
        return self.text.startswith((";;", ";&"), self.at)

    def _stage(self, closer: str) -> Call | Block | None:
        self._blanks()
        while (word := self._reserved()) in _PASSED_OVER:
            self.at += len(word)
            self._newlines()
        if self.at >= self.end:
            return None
        start = self.at
        if self.text.startswith("((", start):
            close = self.text.find("))", start, self.end)
            self.at = self.end if close < 0 else close + 2
            return None
        if self.text[start] == "(":
            self.at += 1
            return self._rest_of_block("(", "", self.pipelines(")"), start)
        if word in _CLOSED_BY:
            return self._compound(word, "")
        if word in _CLOSERS and closer:
            return None
        return self._call()

    def _compound(self, opener: str, function: str) -> Block:
        start = self.at
        self.at += len(opener)
        head: list[Word] = []
        if opener in {"for", "select", "case"}:
            head = self._head(opener)
        pipelines = self._cases() if opener == "case" else self.pipelines(_CLOSED_BY[opener])
        if any(part.pipelines for word in head for part in word.parts):
            listed = Call(tuple(head), (), (), start, head[-1].end)
            pipelines = (Pipeline((listed,)), *pipelines)
        return self._rest_of_block(opener, function, pipelines, start)

    def _head(self, opener: str) -> list[Word]:
        """Read what stands between `for` and `do`, or `case` and `in`."""
        words: list[Word] = []
        self._blanks()
        while self.at < self.end and self.text[self.at] not in "\n;&|()<>":
            words.append(self._word())
            self._blanks()
            if opener == "case" and words[-1].literal == "in":
                break
        return words

    def _cases(self) -> tuple[Pipeline, ...]:
        found: list[Pipeline] = []
        while True:
            self._newlines()
            if self.at >= self.end:
                self.is_whole = False
                return tuple(found)
            if self._reserved() == "esac":
                self.at += 4
                return tuple(found)
            close = self.text.find(")", self.at + 1, self.end)
            self.at = self.end if close < 0 else close + 1
            found += self.pipelines(";;")

    def _rest_of_block(self, opener: str, function: str, pipelines: tuple[Pipeline, ...], start: int) -> Block:
        redirects: list[Redirect] = []
        self._blanks()
        while self._redirect(redirects):
            self._blanks()
        return Block(opener, function, pipelines, tuple(redirects), start, self.at)

    def _call(self) -> Call | Block | None:
        start = last = self.at
        words: list[Word] = []
        redirects: list[Redirect] = []
        assigns: list[tuple[str, Word]] = []
        while self.at < self.end:
            self._blanks()
            if self._redirect(redirects):
                last = self.at
                continue
            if self.at >= self.end or (self._is_operator() and not (words and words[0].literal == "[[")):
                break
            if self.text[self.at] == "#":
                self._comment()
                break
            found = None if words else _ASSIGNMENT.match(self.text, self.at, self.end)
            if found is not None:
                self.at = found.end()
                assigns.append((found[1], self._value()))
            else:
                words.append(self._word() if not self._is_operator() else self._operator())
                if (words[0].literal, words[-1].literal) == ("[[", "]]") or _is_function(words):
                    break
            last = self.at
        function = self._function(words)
        if function is not None:
            return function
        if not words and not redirects and not assigns:
            return None
        if words and self.text.startswith("(", self.at):  # `f(x)` is no shell's
            self.is_whole = False
        return Call(tuple(words), tuple(redirects), tuple(assigns), start, last)

    def _function(self, words: list[Word]) -> Block | None:
        """Read a function's body if what stands before is its name."""
        if not _is_function(words) and not (len(words) == 1 and self.text.startswith("(", self.at)):
            return None
        if self.text.startswith("(", self.at):
            at = self.at + 1
            while at < self.end and self.text[at] in " \t":
                at += 1
            if not self.text.startswith(")", at):
                return None
            self.at = at + 1
        self._newlines()
        body = self._reserved()
        if body == "{":
            return self._compound("{", words[-1].literal)
        if self.text.startswith("(", self.at):
            start, self.at = self.at, self.at + 1
            return self._rest_of_block("(", words[-1].literal, self.pipelines(")"), start)
        return None

    def _value(self) -> Word:
        """Read what is assigned: a word, an array's words as one, or nothing."""
        start = self.at
        if self.text.startswith("(", start):
            self.at += 1
            parts: list[Part] = []
            self._newlines()
            while self.at < self.end and self.text[self.at] not in ";&|()<>":
                parts += self._word().parts
                self._newlines()
            self.at += self.text.startswith(")", self.at)
            return Word(tuple(parts), start, self.at)
        if self.at >= self.end or self._is_operator() or self.text[self.at] in " \t":
            return Word((), start, start)
        return self._word()

    def _redirect(self, redirects: list[Redirect]) -> bool:
        """Read one redirection if it stands here."""
        found = _REDIRECT.match(self.text, self.at, self.end)
        if found is None or (self.text.startswith("(", found.end()) and found[2] in {"<", ">"} and not found[1]):
            return False
        self.at = found.end()
        self._blanks()
        is_missing = self.at >= self.end or self._is_operator()
        target = Word((), self.at, self.at) if is_missing else self._word()
        redirects.append(Redirect(found[1], found[2], target))
        if found[2] in {"<<", "<<-"}:
            self._waiting.append(target)
        return True

    def _newline(self) -> None:
        self.at += 1
        for delimiter in self._waiting:
            lines: list[str] = []
            while self.at < self.end:
                stop = self.text.find("\n", self.at, self.end)
                stop = self.end if stop < 0 else stop
                line = self.text[self.at : stop].rstrip("\r")
                self.at = min(stop + 1, self.end)
                if delimiter.literal in {line, line.lstrip("\t")}:
                    break
                lines.append(line)
            self.bodies[delimiter.start] = "\n".join(lines)
        self._waiting.clear()

    def _operator(self) -> Word:
        """Read an operator as a word, as `[[` does."""
        self.at += 1
        return Word((Part("text", self.text[self.at - 1]),), self.at - 1, self.at)

    def _reserved(self) -> str:
        """Return the reserved word that stands here, or the empty string."""
        stop = self.at
        while stop < min(self.end, self.at + 7) and self.text[stop] not in " \t\r\n;&|()<>":
            stop += 1
        word = self.text[self.at : stop]
        return word if word in _CLOSED_BY or word in _CLOSERS or word in _PASSED_OVER else ""

    def _newlines(self) -> None:
        self._blanks()
        while self.at < self.end and self.text[self.at] in "\n#":
            if self.text[self.at] == "#":
                self._comment()
            else:
                self._newline()
            self._blanks()

    def _comment(self) -> None:
        stop = self.text.find("\n", self.at, self.end)
        self.at = self.end if stop < 0 else stop


def _is_function(words: list[Word]) -> bool:
    return len(words) == 2 and words[0].literal == "function"
