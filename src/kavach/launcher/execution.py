"""One command from `go` to its ending: the pipes, the channel, the deadline; shared by the sync and the async API.

Guarantees: pipes are drained whatever the caller does; after the ending every byte that the command wrote before it is
taken in; the descriptors are closed on every path. Does not: wait (the caller waits on `descriptors()` and calls
`ready` and `tick`). May be called by: kavach.backends.process. One thread at a time.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import TYPE_CHECKING

from kavach.launcher import wire
from kavach.launcher.supervise import Ended
from kavach.model.result import EndReason

if TYPE_CHECKING:
    from collections.abc import Callable

    from kavach.launcher.prepared import Prepared
    from kavach.launcher.supervise import Supervision

_CHUNK_BYTES = 1 << 16  # pipe(7): the default capacity of a pipe
_FIRST_BYTES = 1 << 12  # most output is short; the room for more is taken when there is more
SAMPLE_S = 0.05  # how often what only a look can tell is looked at; a command shorter than that is not looked at


class Execution:
    """A running command.

    Args:
        prepared: the child, already let go.
        course: the state machine.
        stdout: read end, non-blocking.
        stderr: read end, non-blocking.
        kill: ends the command's processes.
        give_up: ends the whole sandbox.
        sample: looks at what has no descriptor; None where nothing has to be looked at.
        on_chunk: told (is stderr, bytes) of what was kept.
    """

    def __init__(
        self,
        prepared: Prepared,
        course: Supervision,
        stdout: int,
        stderr: int,
        *,
        kill: Callable[[], None],
        give_up: Callable[[], None],
        sample: Callable[[Supervision, float], bool] | None,
        on_chunk: Callable[[bool, bytes], None] | None,
    ) -> None:
        self.prepared = prepared
        self.course = course
        self._pipes = {stdout: False, stderr: True}
        self._room_bytes = {stdout: _FIRST_BYTES, stderr: _FIRST_BYTES}
        self._kill = kill
        self._give_up = give_up
        self._sample = sample
        self._next_sample_s: float | None = None
        self._on_chunk = on_chunk

    def descriptors(self) -> list[int]:
        """Return what to wait on for reading."""
        channel = [] if self.course.is_over else [self.prepared.channel.fileno()]
        return [*self._pipes, *channel]

    def wait_s(self, now_s: float) -> float | None:
        """Return how long to wait at most, None for until something is readable."""
        left = self.course.wait_s(now_s)
        if self._sample is None:
            return left
        if self._next_sample_s is None:
            self._next_sample_s = now_s + SAMPLE_S
        sample = max(0.0, self._next_sample_s - now_s)
        return sample if left is None else min(left, sample)

    @property
    def is_finished(self) -> bool:
        """Whether the ending is known and everything written before it was taken in."""
        return self.course.is_over

    def ready(self, handle: int, now_s: float) -> None:
        """Take in what a descriptor has."""
        if handle in self._pipes:
            self._read(handle, now_s)
        elif handle == self.prepared.channel.fileno():
            self._hear(now_s)

    def tick(self, now_s: float) -> None:
        """Do what time demands: the deadline, a sample, giving up on what a kill did not end."""
        if self.course.tick(now_s):
            self._kill()
        if self._sample is not None and self._next_sample_s is not None and now_s >= self._next_sample_s:
            self._next_sample_s = now_s + SAMPLE_S
            if self._sample(self.course, now_s):
                self._kill()
        if self.course.is_stuck(now_s):
            self._give_up()
            self.course.lose()

    def end_by(self, cause: EndReason, now_s: float) -> None:
        """End the command for a reason of the caller's."""
        if self.course.end_by(cause, now_s):
            self._kill()

    def close(self) -> None:
        """Close every descriptor; idempotent."""
        for handle in list(self._pipes):
            self._drop(handle)
        self.prepared.close()
        # Both lead back to whoever holds this object: kept, they would keep a whole run until a collection.
        self._sample = self._on_chunk = None

    def _read(self, handle: int, now_s: float) -> bool:
        """Take one chunk; return whether there may be more."""
        try:
            chunk = os.read(handle, self._room_bytes[handle])
        except BlockingIOError:
            return False
        if not chunk:
            self._drop(handle)
            return False
        self._room_bytes[handle] = _CHUNK_BYTES if len(chunk) == self._room_bytes[handle] else _FIRST_BYTES
        kept, kill = self.course.output(error=self._pipes[handle], chunk=chunk, now_s=now_s)
        if kept and self._on_chunk is not None:
            self._on_chunk(self._pipes[handle], kept)
        if kill:
            self._kill()
        return True

    def _hear(self, now_s: float) -> None:
        try:
            message, descriptors, _ = self._receive()
        except BlockingIOError:
            return
        except (EOFError, OSError, ValueError):
            self._drain(now_s)
            self.course.lose()
            return
        wire.close_all(descriptors)
        if not isinstance(message, tuple):
            return
        if len(message) == 5 and message[0] == b"ended" and all(type(one) is int for one in message[1:]):
            self._drain(now_s)
            self.course.finish(Ended(*message[1:]))
        elif [type(one) for one in message] == [bytes, bytes, int] and message[0] == b"not_started":
            self.course.fail_to_start(message[1].decode("ascii", "replace"), message[2])

    def _receive(self) -> tuple[object, list[int], int]:
        try:
            return wire.receive_measured(self.prepared.channel)
        except ConnectionResetError:
            # unix(7): a command that was killed before it read `go` leaves this error in front of init's report.
            return wire.receive_measured(self.prepared.channel)

    def _drain(self, now_s: float) -> None:
        """Take what is in the pipes now; a process left behind may write on, so at most a pipe's capacity."""
        for handle in list(self._pipes):
            with contextlib.suppress(OSError):
                left = fcntl.fcntl(handle, fcntl.F_GETPIPE_SZ)
                while left >= 0:
                    left -= self._room_bytes[handle]
                    if not self._read(handle, now_s):
                        break

    def _drop(self, handle: int) -> None:
        del self._pipes[handle]
        os.close(handle)
