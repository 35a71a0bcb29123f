"""One parser for one sub-command, whose complaints name the thing and end with exit code 2.

Guarantees: options are never abbreviated; a command begins after `--` and nowhere else, so that no word of it is taken
for ours. Does not: know a sub-command. May be called by: kavach.cli.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, NoReturn

from kavach.cli.streams import say, write_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from _typeshed import SupportsWrite

USAGE = 2


class Parser(argparse.ArgumentParser):
    """The parser of one sub-command.

    Args:
        name: how it is called: `kavach run`.
        about: one sentence for its help.
        command: it takes a command after `--`.
    """

    def __init__(self, name: str, about: str, *, command: bool = False) -> None:
        tail = " -- CMD ARGS..." if command else ""
        super().__init__(prog=name, description=about, allow_abbrev=False, usage=None)
        self._tail = tail

    def format_usage(self) -> str:
        """Return the usage line, with the place of the command."""
        return super().format_usage().rstrip("\n") + f"{self._tail}\n"

    def format_help(self) -> str:
        """Return the help, with the place of the command."""
        head, gap, rest = super().format_help().partition("\n\n")
        return head + self._tail + gap + rest

    def print_help(self, file: SupportsWrite[str] | None = None) -> None:
        """Write the help to standard output."""
        del file
        write_text(self.format_help())

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and end with exit code 2."""
        say(f"{self.prog.removeprefix('kavach ')}: {message}", hint=f"{self.prog} --help")
        raise SystemExit(USAGE)

    def split(self, words: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
        """Return the options before `--` and the command after it."""
        if "--" in words:
            cut = list(words).index("--")
            options, command = self.parse_args(list(words[:cut])), list(words[cut + 1 :])
            if not command:
                self.error("there is no command after --; expected -- CMD ARGS")
            return options, command
        options, extra = self.parse_known_args(list(words))
        unknown = [word for word in extra if word.startswith("-")]
        if extra and (not unknown or extra[0] != unknown[0]):
            self.error(f"expected -- before the command: {self.prog} [options] -- {extra[0]} ...")
        if unknown:
            self.error(f"there is no option {unknown[0]}")
        return self.error("there is no command; expected -- CMD ARGS at the end")


def whole_number(least: int, most: int) -> type[int]:
    """Return a reader of whole numbers within bounds, for an option's `type`."""

    def read(text: str) -> int:
        if not text.isdecimal() or not text.isascii() or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"expected a whole number from {least} to {most}, got {text!r}")
        return int(text)

    return read  # type: ignore[return-value]  # argparse only calls it


def seconds(text: str) -> float | None:
    """Return a time limit, None for the word `none`."""
    if text == "none":
        return None
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    if not 0 < found <= 315_360_000:
        raise argparse.ArgumentTypeError(f"expected more than 0 seconds, or none for no limit, got {text!r}")
    return found


def variable(text: str) -> tuple[str, str]:
    """Return NAME=VALUE as a pair; the message never quotes a value."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise argparse.ArgumentTypeError("expected NAME=VALUE; the host's own variables are never passed on by name")
    return name, value
