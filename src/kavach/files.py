"""Files of a sandbox, as the host asks for them: always through a child inside that has no more rights than a command.

Guarantees: nothing outside the sandbox's own view is reached, whatever links or trees were planted; only regular
files are read and written; a written file is there whole or not at all. What is read leaves through
the gate. Does not: scan names.
May be called by: kavach.sandbox and its async twin.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from kavach.errors import ConfigError, KavachError
from kavach.model.paths import path_problem
from kavach.model.result import EndReason

if TYPE_CHECKING:
    from collections.abc import Callable

    from kavach.model.result import RawResult

    Transfer = Callable[[tuple[bytes, ...], bytes | None], RawResult]


class Entry(NamedTuple):
    """One entry of a folder.

    Args:
        name: without the folder.
        kind: `file`, `folder`, `link` or `other`.
        size_bytes: of a file.
        mode: permission bits.
    """

    name: str
    kind: str
    size_bytes: int
    mode: int


class SandboxFiles:
    """`sandbox.files`: read, write, list, make folders, remove; paths are absolute and inside."""

    def __init__(self, transfer: Transfer, release: Callable[[str, bytes], bytes]) -> None:
        self._transfer = transfer
        self._release = release

    def write(self, path: str, content: bytes | str, *, mode: int = 0o644) -> None:
        """Put a file there, replacing one that is there.

        Raises:
            ConfigError: the path, content or mode is wrong.
            KavachError: the sandbox refused it, as it would refuse a command.
        """
        try:
            data = content.encode() if isinstance(content, str) else content
        except UnicodeEncodeError:
            raise ConfigError(
                "content: expected text that UTF-8 can hold; pass bytes for other", key="content"
            ) from None
        if not isinstance(data, bytes | bytearray | memoryview):
            raise ConfigError(f"content: expected bytes or str, got {type(content).__name__}", key="content")
        self._do(b"write", path, _octal(mode), content=bytes(data))

    def read(self, path: str) -> bytes:
        """Return what may leave of a regular file.

        Raises:
            ConfigError: the path is wrong.
            Withheld: the gate lets nothing of it out.
            KavachError: there is none, it is a link, a device, a pipe, or not readable by a command.
        """
        return self._release(path, self._do(b"read", path))

    def list(self, path: str = "/workspace") -> tuple[Entry, ...]:
        """Return a folder's entries, sorted by name.

        Raises:
            ConfigError: the path is wrong.
            KavachError: it is no folder, or not readable by a command.
        """
        rows = self._do(b"list", path).split(b"\0")[:-1]
        entries = []
        for row in rows:
            kind, size, mode, name = row.split(b" ", 3)
            entries.append(Entry(os.fsdecode(name), kind.decode(), int(size), int(mode, 8)))
        return tuple(entries)

    def mkdir(self, path: str, *, mode: int = 0o755) -> None:
        """Make a folder.

        Raises:
            ConfigError: the path or mode is wrong.
            KavachError: the sandbox refused it.
        """
        self._do(b"make_folder", path, _octal(mode))

    def remove(self, path: str) -> None:
        """Remove a file, a link, or an empty folder.

        Raises:
            ConfigError: the path is wrong.
            KavachError: the sandbox refused it.
        """
        self._do(b"remove", path)

    def _do(self, verb: bytes, path: str, *more: bytes, content: bytes | None = None) -> bytes:
        if not isinstance(path, str):
            raise ConfigError(f"path: expected str, got {type(path).__name__}", key="path")
        found = path_problem(path)
        if found is not None:
            raise ConfigError(f"path: {found}", key="path")
        raw = self._transfer((verb, os.fsencode(path), *more), content)
        if raw.reason is not EndReason.EXIT or raw.exit_code != 0:
            said = raw.stderr.decode("utf-8", "replace").removeprefix("kavach: ").strip() or f"ended by {raw.reason}"
            raise KavachError(f"{path!r}: {said}; nothing was changed")
        return raw.stdout


def _octal(mode: object) -> bytes:
    if isinstance(mode, bool) or not isinstance(mode, int) or not 0 <= mode <= 0o777:
        raise ConfigError(f"mode: expected 0 to 0o777, got {mode!r}", key="mode")
    return b"%o" % mode
