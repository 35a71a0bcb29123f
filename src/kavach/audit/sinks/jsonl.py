"""Events -> a file of JSON Lines, one write an event.

Guarantees: lines of several processes that share a file do not mix; what could not be written is counted, and the line
after a torn one starts on a line of its own. Does not: chain, sign or rotate (the audit log does). May be called by:
users, kavach.cli.
"""

from __future__ import annotations

import os
import stat
import threading
from typing import TYPE_CHECKING, Self

from kavach.errors import ConfigError

if TYPE_CHECKING:
    from types import TracebackType

    from kavach.audit.events.event import Event

__all__ = ["JSONLSink"]

_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


class JSONLSink:
    """Appends each event it is called with to a file, made with mode 0600 where it is not there.

    Args:
        path: a regular file, or none yet; no symbolic link.

    Raises:
        ConfigError: it cannot be opened for appending, or is no regular file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        where = os.fspath(path)
        try:
            self._fd = os.open(where, _FLAGS, 0o600)
        except OSError as error:
            raise ConfigError(f"{where}: cannot append to it: {error.strerror}", key="path", source=where) from error
        if not stat.S_ISREG(os.fstat(self._fd).st_mode):  # writing to a pipe or a terminal may block for ever
            os.close(self._fd)
            raise ConfigError(f"{where}: expected a regular file", key="path", source=where)
        self._lock = threading.Lock()
        self._is_torn = False
        #: How many events could not be written whole.
        self.dropped: int = 0

    def __call__(self, event: Event) -> None:
        """Append one event."""
        line = event.to_json() + b"\n"
        with self._lock:
            if self._fd < 0:
                self.dropped += 1
                return
            content = b"\n" + line if self._is_torn else line
            try:
                written = os.write(self._fd, content)
            except OSError:  # a full disk; a line that was torn before stays so
                self.dropped += 1
                return
            self._is_torn = written < len(content)
            self.dropped += self._is_torn

    def close(self) -> None:
        """Close the file; idempotent."""
        with self._lock:
            handle, self._fd = self._fd, -1
        if handle >= 0:
            os.close(handle)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
