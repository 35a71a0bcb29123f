"""Records reach the disk within a tenth of a second, without the sandbox waiting for it.

Enforces: between a record and the start of its `fdatasync` there are at most 50 ms; what fails there makes every later
record fail. Does not: make a record durable before `append` returns (`fsync="always"` does). May be used by:
kavach.audit.log.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from kavach.errors import AuditError

if TYPE_CHECKING:
    from kavach.audit.chain import Chain

__all__ = ["Flusher"]

INTERVAL_S = 0.05  # half of the promised 100 ms; the other half is the disk's


class Flusher:
    """A thread that synchronises a chain after records were written; it is started by the first of them."""

    def __init__(self, chain: Chain) -> None:
        self._chain = chain
        self._dirty = threading.Event()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._guard = threading.Lock()

    def note(self) -> None:
        """There is a record to be synchronised."""
        if not self._dirty.is_set():
            self._dirty.set()
            self._start()

    def stop(self) -> None:
        """End the thread; what it has not synchronised yet, `Chain.close` does."""
        self._stop.set()
        self._dirty.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _start(self) -> None:
        with self._guard:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="kavach-audit-flush", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while True:
            self._dirty.wait()
            self._stop.wait(INTERVAL_S)
            # ORDER: cleared before `stop` is looked at; the other way round, a `stop` in between is never seen.
            self._dirty.clear()
            if self._stop.is_set():
                return
            try:
                self._chain.sync()
            except AuditError:
                return  # the chain remembers, and refuses the next record
