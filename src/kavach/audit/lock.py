"""One writer at a time, among log objects and processes, by `flock` on the head file.

Enforces: whoever waits too long is told. Does not: exclude a program that takes no lock. The lock belongs to an open
file description: it ends with the process, however that ends. May be used by: kavach.audit.
"""

from __future__ import annotations

import errno
import time

from kavach.errors import AuditError, UnsupportedError

try:
    import fcntl
except ImportError:  # another platform: `import kavach` works there, logs do not
    fcntl = None  # type: ignore[assignment]  # as said

__all__ = ["lock_file", "unlock_file"]

LOCK_TIMEOUT_S = 10.0  # protects a sandbox from a writer that was stopped while it held the lock
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.0001, 0.005


def lock_file(descriptor: int, *, shared: bool = False) -> None:
    """Return when the file is locked.

    Args:
        descriptor: the head file's.
        shared: only to read; other readers may hold it too.

    Raises:
        AuditError: another process held it for ten seconds, or this file system has no locks; `.check` is `lock`.
        UnsupportedError: this platform has no `flock`.
    """
    if fcntl is None:
        raise UnsupportedError("the audit log needs flock, which this platform lacks", control="audit")
    act = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB
    try:
        fcntl.flock(descriptor, act)
    except OSError as error:
        _wait(descriptor, act, error)


def _wait(descriptor: int, act: int, error: OSError) -> None:
    deadline_s, pause_s = time.monotonic() + LOCK_TIMEOUT_S, _FIRST_PAUSE_S
    while True:
        if error.errno not in {errno.EAGAIN, errno.EINTR} or time.monotonic() > deadline_s:
            raise AuditError(f"the log's lock cannot be had: {error.strerror}", check="lock") from None
        time.sleep(pause_s)
        pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
        try:
            fcntl.flock(descriptor, act)
            return
        except OSError as again:
            error = again


def unlock_file(descriptor: int) -> None:
    """Let others have the file."""
    fcntl.flock(descriptor, fcntl.LOCK_UN)
