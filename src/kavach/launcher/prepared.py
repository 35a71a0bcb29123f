"""A command child that stands and waits: its channel, what it reported, and how its messages are read.

Guarantees: a message of another shape than a child's ends the wait, it is never interpreted; every wait has a deadline;
a forked child of the host can let go of every handle (`handles`). Does not: start or judge a child. May be called by:
kavach.launcher.client, kavach.backends.process.
"""

from __future__ import annotations

import errno
import os
import select
import time
import weakref
from typing import TYPE_CHECKING, Any, Protocol

from kavach.launcher import wire

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from kavach.model.result import Denial

#: What a forked child of the host abandons.
handles: weakref.WeakSet[Any] = weakref.WeakSet()


class Watching(Protocol):
    """Who answers a listening filter (kavach.launcher.watch)."""

    def arm(self) -> None:
        """Keep what is refused from now on."""

    def not_found(self, program: str) -> None:
        """Keep that a command's own program was not found."""

    def denials(self) -> tuple[Denial, ...]:
        """Return what was refused."""

    def close(self) -> None:
        """Answer nothing more."""

    def abandon(self) -> None:
        """Let go of what belongs to the parent."""


class StepError(Exception):
    """A step was refused by the kernel: its name and errno. Caught by the process backend, never public."""

    def __init__(self, step: str, code: int) -> None:
        super().__init__(f"{step}: {os.strerror(code)}")
        self.step = step
        self.errno = code


class Prepared:
    """One command child: its channel, and what it reported when it stood."""

    def __init__(self, channel: socket.socket, on_listener: Callable[[int], Watching] | None = None) -> None:
        self.channel = channel
        self._on_listener = on_listener
        #: Who answers the filter's questions; None where it asks none.
        self.watch: Watching | None = None
        self.pid: int = 0
        self.inner_pid: int = 0
        self.outcomes: tuple[tuple[bytes, int, int], ...] = ()
        self.lost: tuple[tuple[bytes, int], ...] = ()
        handles.add(self)

    def accept(self, message: object, descriptors: list[int], pid: int) -> bool:
        """Take one message in; return whether the child stands now.

        Raises:
            StepError: a step failed, nothing was run.
            ValueError: not a message of a child.
        """
        if not isinstance(message, tuple) or not message:
            wire.close_all(descriptors)
            raise ValueError("not a message of a command child")
        if message[0] == b"listener" and len(descriptors) == 1 and self._on_listener and self.watch is None:
            # ORDER: before the child's last canaries, whose calls wait for an answer.
            self.watch = self._on_listener(descriptors.pop())
            return False
        wire.close_all(descriptors)
        if message[0] == b"not_started":
            raise step_error(message)
        inner, self.outcomes, self.lost = read_rows(message, b"standing")
        self.pid, self.inner_pid = pid, int(inner)
        return True

    def wait_standing(self, timeout_s: float) -> None:
        """Return when the child stands, its pid (as seen here, vouched for by the kernel) known.

        Raises:
            StepError: a step failed, nothing was run.
            BrokenPipeError: the sandbox is gone.
            TimeoutError: not within `timeout_s`.
        """
        deadline = time.monotonic() + timeout_s
        try:
            while not self.accept(*receive_within(self.channel, max(0.0, deadline - time.monotonic()))):
                continue
        except (EOFError, ValueError) as error:
            raise BrokenPipeError(errno.EPIPE, "the sandbox is gone") from error

    def go(self, message: tuple[object, ...], descriptors: tuple[int, ...]) -> None:
        """Let the child become the command (kavach.launcher.child describes the message)."""
        wire.send(self.channel, message, descriptors)

    def has_ended(self) -> bool:
        """Return whether nobody holds the child's end of the channel any more."""
        poll = select.poll()
        poll.register(self.channel, 0)
        return bool(poll.poll(0))

    def close(self) -> None:
        """Close the channel; a child that still waits for `go` ends. Idempotent."""
        self.channel.close()

    abandon = close


def receive_within(channel: socket.socket, timeout_s: float) -> tuple[Any, list[int], int]:
    """Return one message (kavach.launcher.wire.receive), or raise TimeoutError."""
    if not is_readable(channel.fileno(), timeout_s):
        raise TimeoutError(errno.ETIMEDOUT, "no answer in time")
    return wire.receive_measured(channel)


def read_rows(message: object, verb: bytes) -> tuple[Any, ...]:
    """Return what follows the verb of a message.

    Raises:
        ValueError: it is no message of that verb.
    """
    if not isinstance(message, tuple) or len(message) < 2 or message[0] != verb:
        raise ValueError(f"expected {verb!r}")
    return message[1:]


def step_error(message: object) -> StepError:
    """Return the refused step that a message tells of.

    Raises:
        ValueError: it tells of none.
    """
    if (
        isinstance(message, tuple)
        and len(message) == 3
        and isinstance(message[1], bytes)
        and isinstance(message[2], int)
    ):
        return StepError(message[1].decode("ascii", "replace"), message[2])
    raise ValueError("not a message")


def is_readable(handle: int, timeout_s: float) -> bool:
    """Return whether a descriptor becomes readable, or its other end closes, within `timeout_s`."""
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    return bool(poll.poll(max(0, int(timeout_s * 1000 + 0.999))))
