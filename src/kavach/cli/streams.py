"""The command line's own three streams: whole writes, one prefix, tables on a terminal only.

Guarantees: what is written is written whole or `StreamLost` says why; Kavach's words are one line each on standard
error, with control characters made visible, and never fail the caller. Does not: buffer. May be called by: kavach.cli.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
from typing import TYPE_CHECKING

from kavach.cli.visible import make_visible

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from kavach.errors import KavachError

STDIN, STDOUT, STDERR = 0, 1, 2
_NAMES = {STDOUT: "standard output", STDERR: "standard error"}
_COLOURS = {"good": "32", "weak": "33", "bad": "31", "head": "1"}
_WORDS = {
    "good": frozenset({"enforced", "yes", "ok", "present"}),
    "weak": frozenset({"degraded", "refused"}),
    "bad": frozenset({"failed", "unsupported", "no"}),
}


class StreamLost(Exception):
    """One of the command line's own streams takes no more.

    Args:
        handle: which.
        error: the kernel's answer.
    """

    def __init__(self, handle: int, error: OSError) -> None:
        super().__init__(f"{_NAMES.get(handle, handle)}: {error.strerror}")
        self.is_reader_gone: bool = error.errno == errno.EPIPE


def open_missing_streams() -> None:
    """Fill 0, 1 and 2 where the caller closed them, so that no file or pipe of ours ever gets such a number."""
    for handle in (STDIN, STDOUT, STDERR):
        try:
            os.fstat(handle)
        except OSError:
            os.open(os.devnull, os.O_RDONLY)  # takes the lowest free number; writing to it fails, as it should


def is_terminal(handle: int) -> bool:
    """Return whether that stream is a terminal."""
    return os.isatty(handle)


def write(handle: int, content: bytes) -> None:
    """Write all of it, also where the stream was left non-blocking by whoever shares it.

    Raises:
        StreamLost: it takes no more.
    """
    view = memoryview(content)
    while view:
        try:
            view = view[os.write(handle, view) :]
        except BlockingIOError:
            poll = select.poll()
            poll.register(handle, select.POLLOUT)
            poll.poll()
        except OSError as error:
            raise StreamLost(handle, error) from None


def write_text(text: str) -> None:
    """Write a text to standard output.

    Raises:
        StreamLost: it takes no more.
    """
    write(STDOUT, text.encode("utf-8", "backslashreplace"))


def say(message: str, *, hint: str | None = None) -> None:
    """Say one thing on standard error; a stream that takes nothing is not a second failure."""
    text = f"{message} ({hint})" if hint else message
    line = make_visible(text).replace("\n", " ")
    with contextlib.suppress(StreamLost):
        write(STDERR, f"kavach: {line}\n".encode("utf-8", "backslashreplace"))


def say_error(error: KavachError) -> None:
    """Say what an exception of ours says, with the file it is about and the next step."""
    source = getattr(error, "source", None)
    message = str(error)
    say(f"{source}: {message}" if source and source not in message else message, hint=error.hint)


def write_json(value: object) -> None:
    """Write one line of JSON to standard output."""
    import msgspec

    write(STDOUT, msgspec.json.encode(value) + b"\n")


def write_table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write rows: aligned, with colour, on a terminal; else one line each, split by tabs, for other programs."""
    cells = [[make_visible(str(cell)).replace("\n", " ").replace("\t", " ") for cell in row] for row in rows]
    if not is_terminal(STDOUT):
        write_text("".join("\t".join(row) + "\n" for row in [list(head), *cells]))
        return
    widths = [max(len(row[at]) for row in [list(head), *cells]) for at in range(len(head))]
    room = os.get_terminal_size(STDOUT).columns or 80  # 0 where nobody told the terminal its size
    write_text(_line(head, widths, room, "head"))
    for row in cells:
        write_text(_line(row, widths, room, next((hue for hue, words in _WORDS.items() if words & set(row)), "")))


def _line(row: Sequence[str], widths: Sequence[int], room: int, hue: str) -> str:
    text = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
    text = text if len(text) <= room else text[: room - 1] + "…"
    code = "" if os.environ.get("NO_COLOR") else _COLOURS.get(hue, "")
    return f"\x1b[{code}m{text}\x1b[0m\n" if code else text + "\n"


class Progress:
    """One line on standard error that says what is being done; only on a terminal."""

    def __init__(self) -> None:
        self._shown = is_terminal(STDERR)

    def __call__(self, words: str) -> None:
        """Replace the line; empty words take it away."""
        if self._shown:
            with contextlib.suppress(StreamLost):
                write(STDERR, f"\r\x1b[K{'kavach: ' if words else ''}{words}".encode())
