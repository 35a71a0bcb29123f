"""The open files of a log, one holder at a time: its head file, whose lock is the log's, and its current file.

Enforces: inside a `with` block nobody else who takes the lock writes, thread or process; a file that was replaced or
removed behind its descriptor is noticed. Does not: know what is in the files. May be used by: kavach.audit.chain.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from typing import Self

from kavach.audit.head import BLOCK_BYTES, head_path
from kavach.audit.lock import lock_file, unlock_file
from kavach.audit.segments import Identity, cannot, closed_path, identify, open_file, open_head, sync_folder
from kavach.errors import AuditError

__all__ = ["LogFiles"]

_CLOSED = -1


class LogFiles:
    """The files of one log in this process; `with` holds them.

    Args:
        path: the current file's.
    """

    __slots__ = ("_failed", "_head", "_identity", "_log", "_mutex", "path")

    def __init__(self, path: str) -> None:
        self.path: str = path
        self._forget()

    def _forget(self) -> None:
        self._mutex = threading.Lock()
        self._head = self._log = _CLOSED
        self._identity = Identity(0, 0)
        self._failed: str | None = None

    def __enter__(self) -> Self:
        self._mutex.acquire()
        try:
            if self._failed is not None:
                raise AuditError(self._failed, check="write")
            if self._head == _CLOSED:
                self._head = open_head(self.path)
            lock_file(self._head)
        except BaseException:
            self._mutex.release()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            unlock_file(self._head)
        finally:
            self._mutex.release()

    def abandon(self) -> None:
        """In a fork: close what was inherited, without unlocking what the parent may hold, and know nothing of it."""
        for descriptor in (self._head, self._log):
            with suppress(OSError):
                os.close(descriptor)
        self._forget()

    def close(self) -> None:
        """Let the files go; idempotent."""
        with self._mutex:
            for descriptor in (self._head, self._log):
                if descriptor != _CLOSED:
                    os.close(descriptor)
            self._head = self._log = _CLOSED

    @property
    def log(self) -> int:
        """The current file's descriptor."""
        return self._log

    def read_head(self) -> bytes:
        """Return the content of the head file, and a byte more where it is too long.

        Raises:
            AuditError: it cannot be read, or somebody removed it.
        """
        try:
            block = os.pread(self._head, BLOCK_BYTES + 1, 0)
            is_removed = os.fstat(self._head).st_nlink == 0
        except OSError as error:
            cannot("read", head_path(self.path), error, check="open")
        if is_removed:
            raise AuditError(f"{head_path(self.path)}: the head file was removed or replaced", check="head")
        return block

    def write_head(self, block: bytes) -> None:
        """Let the head file hold this block, by one write.

        Raises:
            AuditError: it cannot be written.
        """
        try:
            written = os.pwrite(self._head, block, 0)
        except OSError as error:
            cannot("write", head_path(self.path), error)
        if written != len(block):
            raise AuditError(f"{head_path(self.path)}: the disk took only a part of it", check="write")

    def has_size(self, size: int) -> bool:
        """Return whether the file that is called the log is the one that is open, and as large as that."""
        try:
            found = os.stat(self.path)
        except OSError:
            return False
        return found.st_size == size and identify(found) == self._identity

    def open_log(self) -> int:
        """Open what is now called the log, and return its size.

        Raises:
            FileNotFoundError: there is nothing of that name.
            AuditError: it cannot be opened.
        """
        self._hold(open_file(self.path, append=True))
        return os.fstat(self._log).st_size

    def create_log(self) -> None:
        """Begin a file.

        Raises:
            AuditError: it cannot be made.
        """
        self._hold(open_file(self.path, create=True, append=True))
        try:
            sync_folder(self.path)
        except OSError as error:
            cannot("make", self.path, error)

    def _hold(self, descriptor: int) -> None:
        if self._log != _CLOSED:
            os.close(self._log)
        self._log = descriptor
        self._identity = identify(os.fstat(descriptor))

    def close_segment(self, segment: int) -> None:
        """Give the current file the name of a closed one.

        Raises:
            AuditError: it cannot be renamed.
        """
        try:
            os.rename(self.path, closed_path(self.path, segment))
            sync_folder(self.path)
        except OSError as error:
            cannot("close the file", self.path, error)

    def append(self, line: bytes, size: int) -> None:
        """Add one line by one write, whole or not at all.

        Args:
            line: what is added.
            size: of the file before it.

        Raises:
            AuditError: it cannot be written; nothing was.
        """
        written, problem = 0, "the disk took only a part of it"
        try:
            written = os.write(self._log, line)
        except OSError as error:
            problem = str(error.strerror)
        if written != len(line):
            self.cut(size)
            raise AuditError(f"{self.path}: cannot write: {problem}; nothing was recorded", check="write")

    def cut(self, size: int) -> None:
        """Take back what was written beyond a size; where even that fails, the next to come sets it aside."""
        with suppress(OSError):
            os.ftruncate(self._log, size)

    def copy_descriptor(self) -> int | None:
        """Return another descriptor of the current file, or None where none is open."""
        with self._mutex:
            return None if self._log == _CLOSED else os.dup(self._log)

    def sync(self, descriptor: int | None = None) -> None:
        """Put the current file on the disk.

        Args:
            descriptor: the file, where it is not held; None = the current one.

        Raises:
            AuditError: the disk refused; nothing can be written from now on.
        """
        try:
            os.fdatasync(self._log if descriptor is None else descriptor)
        except OSError as error:
            # SECURITY: after a failed fsync the kernel may call lost pages clean; a later success would mean nothing.
            self._failed = f"{self.path}: the disk refused to keep the records: {error.strerror}"
            raise AuditError(self._failed, check="write") from None
