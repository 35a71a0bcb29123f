"""The time of a record as text, cheap enough for every record.

Enforces: UTC, ISO 8601, microseconds. Does not: promise that time never goes back; the serial is the order. Pure. May
be used by: kavach.audit.
"""

from __future__ import annotations

import functools
import time

__all__ = ["utc_text"]


def utc_text(time_ns: int) -> str:
    """Return `2026-01-31T12:00:00.000000+00:00`.

    Args:
        time_ns: nanoseconds since 1970.
    """
    seconds, rest = divmod(time_ns, 1_000_000_000)
    return f"{_whole(seconds)}.{rest // 1000:06d}+00:00"


@functools.lru_cache(maxsize=4)
def _whole(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
