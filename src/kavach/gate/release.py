"""The only door from untrusted bytes to a result.

Guarantees: nobody else makes an `ExecResult` with output in it. Does not: scan. In this version no scanner exists, so
every result says `not_scanned` and the bytes pass as they are; the step is here so that nothing has to move when
scanners come. May be called by: kavach.sandbox and its twins.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kavach.model.result import ExecResult
from kavach.model.verdict import Verdict

if TYPE_CHECKING:
    from kavach.model.result import RawResult
    from kavach.model.score import StrengthScore


def release(raw: RawResult, *, sandbox_id: str, score: StrengthScore, requested: StrengthScore) -> ExecResult:
    """Return what may be known of a run: everything, marked as not scanned.

    Args:
        raw: what the wall returned.
        sandbox_id: whose it is.
        score: the strength that was observed.
        requested: the strength that was asked for.
    """
    return ExecResult(
        sandbox_id=sandbox_id,
        reason=raw.reason,
        exit_code=raw.exit_code,
        signal=raw.signal,
        stdout_bytes=raw.stdout,
        stderr_bytes=raw.stderr,
        truncated_stdout=raw.stdout_dropped_bytes > 0,
        truncated_stderr=raw.stderr_dropped_bytes > 0,
        stdout_dropped_bytes=raw.stdout_dropped_bytes,
        stderr_dropped_bytes=raw.stderr_dropped_bytes,
        duration_ms=raw.duration_ms,
        usage=raw.usage,
        enforcement=raw.enforcement,
        score=score,
        requested_score=requested,
        verdict=Verdict.NOT_SCANNED,
        limits_hit=raw.limits_hit,
        denials=raw.denials,
    )


def release_chunk(chunk: bytes) -> bytes:
    """Return what of a streamed chunk may be seen now: all of it, for nothing scans in this version."""
    return chunk
