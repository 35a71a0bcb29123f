"""`kavach report`: one result or one audit log as a self-contained HTML page that can be shown to somebody else.

Guarantees: the page loads nothing and runs nothing; nothing of what the command wrote is on it; everything that the
file says is escaped. The page is there whole or not at all. Does not: verify the file; the page names its SHA-256. May
be called by: kavach.cli. Exit code: 0.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from typing import TYPE_CHECKING, BinaryIO

import msgspec

from kavach.cli.page import element, join, page
from kavach.cli.report_log import log_page, read_log
from kavach.cli.report_run import SCHEMA, ResultFile, run_page
from kavach.cli.streams import STDIN, write_text
from kavach.cli.words import Parser
from kavach.errors import ConfigError
from kavach.model.validate import reworded

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kavach.cli.page import Markup

_MOST_RESULT_BYTES = 256 << 20  # protects this process; the largest result has two streams of at most 64 MiB
_LONGEST_LINE = 1 << 21  # a record has at most 1 MiB


class _Reader:
    """Lines of a file, and the digest of all that was read of it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._digest = hashlib.sha256()

    def lines(self) -> Iterator[bytes]:
        while line := self._file.readline(_LONGEST_LINE):
            self._digest.update(line)
            yield line

    def rest(self, limit: int) -> bytes:
        content = self._file.read(limit)
        self._digest.update(content)
        return content

    def digest(self) -> str:
        return self._digest.hexdigest()


def main(argv: Sequence[str]) -> int:
    """Write the page; see the module.

    Raises:
        KavachError: the file cannot be read, or is neither a result nor an audit log.
    """
    parser = Parser("kavach report", "Make a self-contained HTML page of one result or one audit log.")
    parser.add_argument(
        "source", metavar="FILE", help="what kavach run --json printed, or an audit log; - = standard input"
    )
    parser.add_argument("-o", "--output", metavar="PAGE", help="where the page goes (default: standard output)")
    options = parser.parse_args(argv)
    text = make_page(options.source)
    if options.output is None:
        write_text(text)
    else:
        _write(options.output, text)
    return 0


def make_page(source: str) -> str:
    """Return the page of a file.

    Raises:
        ConfigError: it cannot be read, or is neither a result nor an audit log.
    """
    name = "standard input" if source == "-" else os.path.basename(source)
    try:
        with open(STDIN if source == "-" else source, "rb", closefd=source != "-") as file:
            reader = _Reader(file)
            title, body = _read(reader, source, name)
            reader.rest(0)
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", source=source) from error
    digest = element("code", f"SHA-256 {reader.digest()}")
    foot = join(f"Made by Kavach from {name} (", digest, "). It shows what that file says; it is no proof of it.")
    return page(title, body, foot)


def _read(reader: _Reader, source: str, name: str) -> tuple[str, Markup]:
    lines = reader.lines()
    first = next(lines, b"")
    try:
        head = msgspec.json.decode(first)
    except msgspec.DecodeError:
        head = None
    if isinstance(head, dict) and {"serial", "prev", "mac"} <= head.keys():
        return log_page(read_log(_chained(first, lines)), name)
    content = first + reader.rest(_MOST_RESULT_BYTES)
    try:
        result = msgspec.json.decode(content, type=ResultFile)
    except msgspec.ValidationError as error:
        raise reworded(error, source=source) from error
    except msgspec.DecodeError as error:
        raise ConfigError("expected what `kavach run --json` printed, or an audit log", source=source) from error
    if result.schema != SCHEMA:
        raise ConfigError(f"$.schema: expected {SCHEMA}", key="$.schema", source=source)
    return run_page(result)


def _chained(first: bytes, lines: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from lines


def _write(path: str, text: str) -> None:
    """Put the page there, whole or not at all.

    Raises:
        ConfigError: it cannot be written.
    """
    fresh = f"{path}.{os.getpid()}.new"
    try:
        with open(fresh, "x", encoding="utf-8") as file:
            file.write(text)
        os.rename(fresh, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(fresh)
        raise ConfigError(f"{path}: cannot be written: {error.strerror}", source=path) from error
