"""`sandbox.files`, awaited: the same operations with the same limits, each in a worker thread.

Guarantees: those of kavach.files; a cancelled task goes on when the operation has ended. Does not: add any. May be
called by: kavach.aio.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from kavach.aio.calls import in_thread

if TYPE_CHECKING:
    from kavach.files import Entry, SandboxFiles


class AsyncSandboxFiles:
    """Read, write, list, make folders, remove; paths are absolute and inside. Arguments and errors: `SandboxFiles`."""

    def __init__(self, files: SandboxFiles) -> None:
        self._files = files

    async def write(self, path: str, content: bytes | str, *, mode: int = 0o644) -> None:
        """Put a file there, replacing one that is there."""
        await in_thread(partial(self._files.write, path, content, mode=mode))

    async def read(self, path: str) -> bytes:
        """Return a regular file's bytes."""
        return await in_thread(partial(self._files.read, path))

    async def list(self, path: str = "/workspace") -> tuple[Entry, ...]:
        """Return a folder's entries, sorted by name."""
        return await in_thread(partial(self._files.list, path))

    async def mkdir(self, path: str, *, mode: int = 0o755) -> None:
        """Make a folder."""
        await in_thread(partial(self._files.mkdir, path, mode=mode))

    async def remove(self, path: str) -> None:
        """Remove a file, a link, or an empty folder."""
        await in_thread(partial(self._files.remove, path))
