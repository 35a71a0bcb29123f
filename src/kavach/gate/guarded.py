"""A scan that may not take for ever: whoever waits for it gets its result, or that it failed.

Enforces: a scanner that raises, or that is not done in time, yields `None`, never a part of its finds. Does not: end a
scan that hangs; Python cannot end a thread, so that one goes on in the background and what it finds is dropped. A
process could be ended, but would be handed the unread output and the run's secrets, cost more than most scans, and
open a second door to starting processes. Both engines are linear, so only a defect of ours can hang. May be used by:
kavach.gate.
"""

from __future__ import annotations

import _thread
import queue
import threading
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

_Found = TypeVar("_Found")

LEAST_S = 20.0
"""The shortest time that a scan is given: compiling all rules on a loaded machine takes a second or two."""
SLOWEST_BYTES_PER_S = 1_000_000
"""For each so many bytes a scan is given another second: a tenth of what the slowest adversarial text needs."""


def deadline_s(size_bytes: int) -> float:
    """Return how long a scan of so many bytes may take before it is held to hang."""
    return LEAST_S + size_bytes / SLOWEST_BYTES_PER_S


def attempt(scan: Callable[[], _Found]) -> tuple[_Found | None, str]:
    """Return what a scan returned and "", or None and the kind of what it raised, without a word of its message.

    Args:
        scan: what to call.
    """
    try:
        return scan(), ""
    except BaseException as error:  # whatever a scanner raises withholds
        if isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
            raise  # a person's, not a scanner's
        return None, f"a scanner raised {type(error).__name__}"


def run_guarded(scan: Callable[[], _Found], timeout_s: float) -> tuple[_Found | None, str]:
    """Return what a scan returned and "", or None and why there is nothing.

    Args:
        scan: what to call, in a thread of its own.
        timeout_s: how long to wait for it.
    """
    answers: queue.SimpleQueue[tuple[_Found | None, str]] = queue.SimpleQueue()
    # Not threading.Thread, whose handshake at the start costs as much as reading a small output.
    _thread.start_new_thread(lambda: answers.put(attempt(scan)), ())
    try:
        return answers.get(timeout=timeout_s)
    except queue.Empty:
        return None, "a scanner did not end in time"
