"""What a shell text would do: each program that would start, with its arguments, and what feeds it.

Enforces: names are known through wrappers (`sudo`, `env`, `xargs`, `find -exec`, ...), through variables that the text
sets itself, and in texts handed on to a shell (`sh -c`, `eval`, here-documents, `echo '..' | sh`). Does not: run or
expand globs; what only a run can tell stays as `$NAME` and `$()`. May be used by: kavach.gate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from kavach.gate.code.shell import read
from kavach.gate.code.syntax import Block, Call, Redirect, TooDeep, Word
from kavach.gate.code.words import unescape
from kavach.gate.code.wrappers import is_shell, program_name, unwrap

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kavach.gate.code.syntax import Part, Pipeline, Script

MAX_NESTED = 6
"""How many texts inside texts are followed; a stack of our own is bounded by it."""
MAX_ACTS = 1000
"""So many programs are looked at in one text."""
MAX_TEXT = 1 << 16
"""The longest text that is read, also after variables were put into it."""
_ECHO_OPTIONS = frozenset({"-e", "-n", "-ne", "-en", "-E"})
MAX_TEXTS = 200
"""So many texts inside a text are read."""
MAX_VALUE = 512
"""The longest value that a variable is followed with: a text must not grow by doubling."""


class Act(NamedTuple):
    """A program that would start.

    Args:
        name: its file's name in lower case, without `.exe`; `$X` where only a run can tell.
        path: its first word as written.
        args: its arguments as far as they are known.
        redirects: (descriptor, operator, target).
        assigns: variables set for it, or by it.
        fed_by: what prints into its standard input.
        fed_text: a here-document or here-string.
        inner: what runs in substitutions inside its words.
        wrappers: the programs that start it, outermost first.
        start: the first byte.
        end: the byte after the last.
        is_pieced: its name is written in pieces.
    """

    name: str
    path: str
    args: tuple[str, ...]
    redirects: tuple[tuple[str, str, str], ...]
    assigns: tuple[tuple[str, str], ...]
    fed_by: tuple[Act, ...]
    fed_text: str
    inner: tuple[Act, ...]
    wrappers: tuple[str, ...]
    start: int
    end: int
    is_pieced: bool

    @property
    def line(self) -> str:
        """Name and arguments, one space between them."""
        return " ".join((self.name, *self.args))

    def has_option(self, *options: str) -> bool:
        """Whether one of these is among the arguments: `-x` also inside `-ax`, `--name` also as `--name=value`."""
        for arg in self.args:
            for option in options:
                if arg == option or (option.startswith("--") and arg.startswith(f"{option}=")):
                    return True
                if len(option) == 2 and arg[:1] == "-" and arg[1:2] != "-" and option[1] in arg[1:]:
                    return True
        return False


class Deeds(NamedTuple):
    """What a text would do.

    Args:
        acts: every program, in the order in which the words stand.
        bombs: the spans of functions that call themselves twice at once.
        is_whole: it reads as a shell text from end to end.
    """

    acts: tuple[Act, ...]
    bombs: tuple[tuple[int, int], ...]
    is_whole: bool


def deeds_of(text: str) -> Deeds:
    """Return what a shell would do with a text.

    Args:
        text: one character a byte.

    Raises:
        TooDeep: it nests too deeply to be read.
    """
    walk = _Walk()
    is_whole = walk.text(text, None, ())
    return Deeds(tuple(walk.acts), tuple(walk.bombs), is_whole)


class _Walk:
    """The variables known so far and the programs seen so far."""

    def __init__(self) -> None:
        self.acts: list[Act] = []
        self.bombs: list[tuple[int, int]] = []
        self.names: dict[str, str] = {"IFS": " "}
        self._nested = self._texts = 0
        self._span: tuple[int, int] | None = None
        self._bodies: dict[int, str] = {}

    def text(self, text: str, span: tuple[int, int] | None, fed_by: tuple[Act, ...]) -> bool:
        """Walk a text; one that stands inside a word has that word's span throughout."""
        self._texts += 1
        if self._nested >= MAX_NESTED or self._texts > MAX_TEXTS or len(text) > MAX_TEXT:
            raise TooDeep
        script: Script = read(text)
        kept = self._span, self._bodies
        self._span, self._bodies = span or self._span, script.bodies
        self._nested += 1
        self._pipelines(script.pipelines, fed_by)
        self._nested -= 1
        self._span, self._bodies = kept
        return script.is_whole

    def _pipelines(self, pipelines: Sequence[Pipeline], fed_by: tuple[Act, ...]) -> None:
        for pipeline in pipelines:
            feeding = fed_by
            for stage in pipeline.stages:
                if len(self.acts) >= MAX_ACTS:
                    raise TooDeep
                first = len(self.acts)
                if isinstance(stage, Block):
                    self._block(stage, feeding)
                else:
                    self._call(stage, feeding)
                feeding = tuple(self.acts[first:])

    def _block(self, block: Block, fed_by: tuple[Act, ...]) -> None:
        first = len(self.acts)
        self._pipelines(block.pipelines, fed_by)
        if block.function and _calls_itself_twice(block):
            self.bombs.append(self._span or (block.start, block.end))
        redirects, inner = self._redirects(block.redirects)
        if redirects or inner:
            self.acts[first:] = [
                act._replace(redirects=act.redirects + redirects, fed_by=act.fed_by + inner)
                for act in self.acts[first:]
            ]

    def _call(self, call: Call, fed_by: tuple[Act, ...]) -> None:
        assigns = tuple((name, " ".join(self._fields(word))) for name, word in call.assigns)
        fields = [field for word in call.words for field in self._fields(word)]
        inner = self._substituted(call, fed_by)
        redirects, sources = self._redirects(call.redirects)
        if fields and fields[0] in {"export", "declare", "local", "readonly", "typeset", "set", "alias"}:
            assigns += tuple((name, value) for name, sep, value in (f.partition("=") for f in fields[1:]) if sep)
        if not call.words or assigns:
            known = {name: value for name, value in assigns if "$" not in value and len(value) <= MAX_VALUE}
            self.names |= {name: value for name, value in known.items() if name != "IFS"}
        act = Act(
            name="",
            path="",
            args=(),
            redirects=redirects,
            assigns=assigns,
            fed_by=fed_by + sources,
            fed_text=self._fed_text(call.redirects),
            inner=inner,
            wrappers=(),
            start=self._span[0] if self._span else call.start,
            end=self._span[1] if self._span else call.end,
            is_pieced=bool(call.words) and _is_pieced(call.words[0].parts),
        )
        self._unwrapped(act, fields)

    def _unwrapped(self, act: Act, fields: list[str]) -> None:
        wrappers: list[str] = []
        for words, text in unwrap(fields):
            path = words[0] if words else ""
            one = act._replace(name=program_name(path), path=path, args=tuple(words[1:]), wrappers=tuple(wrappers))
            self.acts.append(one)
            wrappers.append(one.name)
            if text is not None:
                self.text(text, (act.start, act.end), act.fed_by)
            elif is_shell(one.name):
                for handed in _handed_texts(one):
                    self.text(handed, (act.start, act.end), ())
        if not fields:
            self.acts.append(act)

    def _substituted(self, call: Call, fed_by: tuple[Act, ...]) -> tuple[Act, ...]:
        """Walk what runs inside a call's words."""
        first = len(self.acts)
        words = (*call.words, *(word for _, word in call.assigns))
        for part in (part for word in words for part in word.parts if part.pipelines):
            self._pipelines(part.pipelines, fed_by)
        return tuple(self.acts[first:])

    def _redirects(self, redirects: Sequence[Redirect]) -> tuple[tuple[tuple[str, str, str], ...], tuple[Act, ...]]:
        """Return redirections as words, and the programs that run in their targets."""
        first = len(self.acts)
        for part in (part for redirect in redirects for part in redirect.target.parts if part.pipelines):
            self._pipelines(part.pipelines, ())
        listed = tuple((r.fd, r.operator, " ".join(self._fields(r.target))) for r in redirects)
        return listed, tuple(self.acts[first:])

    def _fed_text(self, redirects: Sequence[Redirect]) -> str:
        for redirect in reversed(redirects):
            if redirect.operator in {"<<", "<<-"}:
                return self._bodies.get(redirect.target.start, "")
            if redirect.operator == "<<<":
                return " ".join(self._fields(redirect.target))
        return ""

    def _fields(self, word: Word) -> list[str]:
        """Return what a word becomes: one field, or several where an unquoted variable holds spaces."""
        pieces: list[str] = []
        for part in word.parts:
            value = self.names.get(part.text) if part.kind.endswith("name") and len(pieces) < MAX_VALUE else None
            if value is not None:
                pieces.append(value if part.kind == "quoted name" else value.replace(" ", "\0"))
            else:
                pieces.append(Word((part,), 0, 0).literal)
        fields = "".join(pieces).split("\0")
        return [field for field in fields if field] or ([""] if len(fields) == 1 else [])


def _handed_texts(act: Act) -> list[str]:
    """Return the texts that a shell without a text of its own would read from its standard input."""
    if any(not arg.startswith(("-", "+")) for arg in act.args):
        return []
    found = [act.fed_text] if act.fed_text else []
    printed = (source.args for source in act.fed_by if source.name in {"echo", "printf"})
    found += [unescape(" ".join(arg for arg in args if arg not in _ECHO_OPTIONS)) for args in printed]
    return found


def _calls_itself_twice(block: Block) -> bool:
    """Whether a function runs itself beside itself: the shape of a fork bomb."""
    own = 0
    is_parallel = False
    for pipeline in block.pipelines:
        calls = [s for s in pipeline.stages if isinstance(s, Call) and s.words and s.words[0].literal == block.function]
        own += len(calls)
        is_parallel = is_parallel or (bool(calls) and (pipeline.is_background or len(calls) > 1))
    return is_parallel and own >= 1


def _is_pieced(parts: Sequence[Part]) -> bool:
    """Whether a name is written as no person writes it: `c'ur'l`, `$a$b`, `wget${IFS}`."""
    text = [part for part in parts if part.text]
    if len(text) < 2:
        return False
    if any(part.text == "IFS" for part in text):
        return True
    if any(part.kind == "run" or "/" in part.text or "=" in part.text for part in text):
        return False
    kinds = {part.kind for part in text}
    if "name" in kinds or "quoted name" in kinds:
        return sum(part.kind.endswith("name") for part in text) > 1
    return "quoted" in kinds and all(part.text.isalnum() for part in text)
