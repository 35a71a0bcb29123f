"""The only door from untrusted bytes to a result.

Guarantees: nobody else makes an `ExecResult` with output in it; what was found is replaced or all of it withheld, as
the policy says; a scanner that raises or hangs withholds; of an output that was cut, what could be the beginning of a
find at its end stays behind. Does not: store what is quarantined, write records, or know more than this one command.
May be called by: kavach.sandbox and its twins.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from kavach.gate.findings import findings_of, place_of
from kavach.gate.guarded import deadline_s, run_guarded
from kavach.gate.judge import Action, decide, judge, worst_verdict
from kavach.gate.redact import redact
from kavach.gate.scan import scan_bytes, scan_junction
from kavach.model.result import EndReason, ExecResult
from kavach.model.verdict import ExternalizationPolicy, Finding, Severity, Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kavach.gate.known import KnownSecret
    from kavach.gate.rule import Mark, Scanner
    from kavach.model.result import RawResult
    from kavach.model.score import StrengthScore

_PASSES = 4  # how often what was redacted is read again before all of it is withheld


class Judged(NamedTuple):
    """What became of one stream or file.

    Args:
        verdict: what it is worth.
        released: what may leave of it; empty where the verdict withholds.
        findings: what was seen, masked.
    """

    verdict: Verdict
    released: bytes
    findings: tuple[Finding, ...]


def release(
    raw: RawResult,
    *,
    sandbox_id: str,
    score: StrengthScore,
    requested: StrengthScore,
    policy: ExternalizationPolicy | None = None,
    known: Sequence[KnownSecret] = (),
    scanners: Sequence[Scanner] | None = None,
    salt: bytes = b"",
    also: tuple[Sequence[Mark], Sequence[Mark]] = ((), ()),
) -> ExecResult:
    """Return what may be known of a run.

    Args:
        raw: what the wall returned.
        sandbox_id: whose it is.
        score: the strength that was observed.
        requested: the strength that was asked for.
        policy: what may leave; None = everything, not scanned.
        known: the secrets that the run was given, and planted canaries.
        scanners: what to look with; None = all there are.
        salt: random, 16 to 64 bytes, of this result alone; evidence is masked with it.
        also: what was found in standard output and in standard error while they came, and cannot be seen afterwards.

    Returns:
        The result; with verdict `quarantine` or `block` its reason is `withheld` and it holds no output byte. Whoever
        keeps a quarantine store puts `raw` there when the verdict is `quarantine`.
    """
    if policy is None or not policy.enabled:
        return _result(raw, sandbox_id, score, requested, (Verdict.NOT_SCANNED, raw.stdout, raw.stderr, ()))
    size = len(raw.stdout) + len(raw.stderr)
    if not size and not raw.stdout_dropped_bytes and not raw.stderr_dropped_bytes:
        return _result(raw, sandbox_id, score, requested, (Verdict.PASS, b"", b"", ()))
    done, why = run_guarded(lambda: _judge_both(raw, policy, known, scanners, salt, also), deadline_s(size))
    judged = (Verdict.QUARANTINE, b"", b"", (_failure(why),)) if done is None else done
    return _result(raw, sandbox_id, score, requested, judged)


def release_bytes(
    data: bytes,
    *,
    name: str,
    policy: ExternalizationPolicy,
    known: Sequence[KnownSecret] = (),
    scanners: Sequence[Scanner] | None = None,
    salt: bytes,
) -> Judged:
    """Return what may leave of one file or text.

    Args:
        data: all of it.
        name: what findings call it.
        policy: what may leave.
        known: as for `release`.
        scanners: likewise.
        salt: likewise.
    """
    if not policy.enabled:
        return Judged(Verdict.NOT_SCANNED, data, ())

    def work() -> Judged:
        marks = scan_bytes(data, policy, known=known, scanners=scanners)
        return release_marked(data, marks, name=name, policy=policy, known=known, scanners=scanners, salt=salt)

    done, why = run_guarded(work, deadline_s(len(data)))
    return Judged(Verdict.QUARANTINE, b"", (_failure(why),)) if done is None else done


def release_marked(
    data: bytes,
    marks: Sequence[Mark],
    *,
    name: str,
    policy: ExternalizationPolicy,
    known: Sequence[KnownSecret] = (),
    scanners: Sequence[Scanner] | None = None,
    salt: bytes,
) -> Judged:
    """Return what may leave of a text in which marks were found, read again after they were replaced.

    Args:
        data: all of it.
        marks: what was found in it, by place.
        name: what findings call it.
        policy: what may leave.
        known: as for `release`.
        scanners: likewise.
        salt: likewise.
    """
    judgement = judge(marks, policy, size_bytes=len(data))
    pairs = list(zip(marks, judgement.actions, strict=False))
    listed = [mark for mark, act in pairs if act is not Action.IGNORE]
    findings = findings_of(data, listed, stream=name, salt=salt) if listed else ()
    if not judgement.verdict.is_released:
        return Judged(judgement.verdict, b"", findings)
    released, limit = data, judgement.limit_bytes
    for _ in range(_PASSES):
        bad = [mark for mark, act in pairs if act is Action.REDACT]
        if not bad and limit is None:
            return Judged(judgement.verdict, released, findings)
        released, limit = redact(released, bad, limit_bytes=limit), None
        again = scan_bytes(released, policy, known=known, scanners=scanners) if bad else []
        pairs = [(mark, decide(mark.scanner, mark.severity, policy)) for mark in again]
    return Judged(Verdict.QUARANTINE, b"", findings)


def _judge_both(
    raw: RawResult,
    policy: ExternalizationPolicy,
    known: Sequence[KnownSecret],
    scanners: Sequence[Scanner] | None,
    salt: bytes,
    seen: tuple[Sequence[Mark], Sequence[Mark]],
) -> tuple[Verdict, bytes, bytes, tuple[Finding, ...]]:
    out_marks, err_marks = scan_junction(raw.stdout, raw.stderr, policy, known=known, scanners=scanners)
    done: list[Judged] = []
    for name, data, also, dropped in (
        ("stdout", raw.stdout, {*out_marks, *seen[0]}, raw.stdout_dropped_bytes),
        ("stderr", raw.stderr, {*err_marks, *seen[1]}, raw.stderr_dropped_bytes),
    ):
        marks = scan_bytes(data, policy, known=known, scanners=scanners, is_cut=dropped > 0)
        marks = sorted((*marks, *also), key=place_of)
        done.append(release_marked(data, marks, name=name, policy=policy, known=known, scanners=scanners, salt=salt))
    out, err = done
    return worst_verdict((out.verdict, err.verdict)), out.released, err.released, out.findings + err.findings


def _failure(why: str) -> Finding:
    return Finding(
        id="gate:1",
        scanner="gate",
        rule="scanner-failed",
        category="gate",
        severity=Severity.CRITICAL,
        message=f"The output was withheld because it could not be read: {why}.",
        stream="",
        start=0,
        end=0,
        evidence="none",
    )


def _result(
    raw: RawResult,
    sandbox_id: str,
    score: StrengthScore,
    requested: StrengthScore,
    judged: tuple[Verdict, bytes, bytes, tuple[Finding, ...]],
) -> ExecResult:
    verdict, stdout, stderr, findings = judged
    # SECURITY: one stream that withholds takes the other along; they are one command's.
    is_released = verdict.is_released
    return ExecResult(
        sandbox_id=sandbox_id,
        reason=raw.reason if is_released else EndReason.WITHHELD,
        exit_code=raw.exit_code,
        signal=raw.signal,
        stdout_bytes=stdout if is_released else b"",
        stderr_bytes=stderr if is_released else b"",
        truncated_stdout=raw.stdout_dropped_bytes > 0,
        truncated_stderr=raw.stderr_dropped_bytes > 0,
        stdout_dropped_bytes=raw.stdout_dropped_bytes,
        stderr_dropped_bytes=raw.stderr_dropped_bytes,
        duration_ms=raw.duration_ms,
        usage=raw.usage,
        enforcement=raw.enforcement,
        score=score,
        requested_score=requested,
        verdict=verdict,
        findings=findings,
        limits_hit=raw.limits_hit,
        denials=raw.denials,
    )
