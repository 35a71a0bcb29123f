"""What each kind of record says: the words, and the payloads that are made from Kavach's own nouns.

Enforces: a payload holds digests, names, numbers and masked findings; no output, no secret, no value of a variable, and
arguments only where the log was told to. Does not: write (`AuditLog.append` does). Pure. May be used by: kavach.sandbox
and whoever else records.
"""

from __future__ import annotations

import enum
import os
from typing import TYPE_CHECKING, Any

import msgspec

from kavach.audit.digest import argv_sha256, sha256_hex
from kavach.audit.statement import count_findings
from kavach.errors import KavachError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from kavach.audit.receipt import Receipt
    from kavach.model.command import Command
    from kavach.model.config import SandboxConfig
    from kavach.model.enforcement import Enforcement
    from kavach.model.guard import GuardTrip
    from kavach.model.result import EndReason, ExecResult
    from kavach.model.score import StrengthScore
    from kavach.model.verdict import Finding

__all__ = [
    "AuditEvent",
    "attestation_payload",
    "created_payload",
    "credential_payload",
    "egress_payload",
    "enforcement_payload",
    "escalation_payload",
    "findings_payload",
    "guard_payload",
    "intent_payload",
    "limits_payload",
    "outcome_payload",
    "quarantine_payload",
    "refused_payload",
    "transition_payload",
]

_MOST_ARGV_BYTES = 1 << 16  # protects the log from a command line that is megabytes long; its digest is always there
_MOST_FINDINGS = 100  # likewise; the counts are of all


class AuditEvent(enum.StrEnum):
    """The events that Kavach itself records; a caller may record others."""

    CREATED = "sandbox.created"
    TRANSITION = "sandbox.transition"
    DESTROYED = "sandbox.destroyed"
    INTENT = "exec.intent"
    OUTCOME = "exec.outcome"
    ENFORCEMENT = "exec.enforcement"
    FINDINGS = "exec.findings"
    LIMITS = "exec.limits"
    EGRESS = "egress"
    CREDENTIAL = "credential"
    QUARANTINE = "quarantine"
    GUARD = "guard"
    ESCALATION = "escalation"
    ATTESTATION = "attestation"


def created_payload(config: SandboxConfig, *, policy_digest: str, requested: StrengthScore) -> dict[str, Any]:
    """Return what is recorded of a new sandbox."""
    return {
        "backend": config.backend,
        "policy_sha256": policy_digest,
        "requested_score": int(requested),
        "min_score": config.min_score,
        "timeout_ms": config.timeout_ms,
        "workdir": config.workdir,
        "workdir_rw": config.workdir_rw,
        "env_names": sorted(config.env),
        "labels": dict(config.labels),
    }


def transition_payload(before: str, after: str) -> dict[str, Any]:
    """Return what is recorded of a step in a sandbox's life; also of its end."""
    return {"from": str(before), "to": str(after)}


def intent_payload(command: Command, *, policy_digest: str, record_argv: bool) -> dict[str, Any]:
    """Return what is recorded before a command is let go.

    Args:
        command: what will be run.
        policy_digest: of the policy in force.
        record_argv: hold the arguments too (`AuditLog.record_argv`); they may hold secrets.
    """
    payload: dict[str, Any] = {
        "argv_sha256": argv_sha256(command.argv),
        "arguments": len(command.argv),
        "cwd": command.cwd,
        "env_names": sorted(command.env),
        "stdin_sha256": None if command.stdin is None else sha256_hex(command.stdin),
        "stdin_bytes": None if command.stdin is None else len(command.stdin),
        "timeout_ms": command.timeout_ms,
        "policy_sha256": policy_digest,
    }
    if record_argv:
        fits = sum(map(len, command.argv)) <= _MOST_ARGV_BYTES
        payload["argv"] = [_shown(argument) for argument in command.argv] if fits else None
    return payload


def outcome_payload(result: ExecResult, *, intent_serial: int, receipt: Receipt) -> dict[str, Any]:
    """Return what is recorded before a result is handed over.

    Args:
        result: as it was released.
        intent_serial: the record of the intent.
        receipt: whose digest is recorded.
    """
    return {
        "intent_serial": intent_serial,
        "receipt_sha256": receipt.digest,
        "reason": result.reason,
        "exit_code": result.exit_code,
        "signal": result.signal,
        "duration_ms": round(result.duration_ms, 3),
        "verdict": result.verdict,
        "findings": count_findings(result.findings),
        "quarantine_id": result.quarantine_id,
        "score": int(result.score),
        "limits_hit": None if result.limits_hit is None else list(result.limits_hit),
        "stdout_bytes": len(result.stdout_bytes),
        "stderr_bytes": len(result.stderr_bytes),
    }


def enforcement_payload(enforcement: Enforcement, score: StrengthScore) -> dict[str, Any]:
    """Return what is recorded of a wall that was seen standing: every row."""
    return {"score": int(score), **enforcement.to_dict()}


def findings_payload(findings: Sequence[Finding]) -> dict[str, Any]:
    """Return what is recorded of what scanners saw: masked, at most 100 of them, and the counts of all."""
    shown = [msgspec.to_builtins(finding) for finding in findings[:_MOST_FINDINGS]]
    return {"counts": count_findings(findings), "findings": shown, "omitted": len(findings) - len(shown)}


def limits_payload(limits_hit: Iterable[str]) -> dict[str, Any]:
    """Return what is recorded of limits that were hit."""
    return {"limits_hit": sorted(limits_hit)}


def guard_payload(trips: Iterable[GuardTrip]) -> dict[str, Any]:
    """Return what is recorded of guards that tripped."""
    return {"trips": [[str(trip.kind), trip.message] for trip in trips]}


def egress_payload(*, allowed: bool, host: str, port: int, rule: str) -> dict[str, Any]:
    """Return what is recorded of a connection that was asked for."""
    return {"allowed": allowed, "host": host, "port": port, "rule": rule}


def credential_payload(name: str, how: str) -> dict[str, Any]:
    """Return what is recorded of a secret's use: its name and how it was delivered."""
    return {"name": name, "how": how}


def quarantine_payload(quarantine_id: str, *, before: str | None, after: str, by: str | None) -> dict[str, Any]:
    """Return what is recorded of a step of a quarantined output.

    Args:
        quarantine_id: which.
        before: the state it was in; None = it is new.
        after: the state it is in.
        by: the person who decided, or None.
    """
    return {"quarantine_id": quarantine_id, "from": before, "to": after, "by": by}


def escalation_payload(
    *, tier: int, action: str, sum_before: float, sum_after: float, by: str | None
) -> dict[str, Any]:
    """Return what is recorded when an agent's sum of findings has consequences, or a person takes them back."""
    return {"tier": tier, "action": action, "sum_before": sum_before, "sum_after": sum_after, "by": by}


def attestation_payload(*, kind: str, passed: bool, check: str | None, evidence_sha256: str | None) -> dict[str, Any]:
    """Return what is recorded of evidence that was verified, or was not."""
    return {"kind": kind, "passed": passed, "check": check, "evidence_sha256": evidence_sha256}


def _shown(argument: bytes) -> str:
    """Return an argument as text; bytes that are no UTF-8 are spelt out."""
    return os.fsdecode(argument).encode("utf-8", "backslashreplace").decode()


def refused_payload(error: BaseException, *, reason: EndReason, intent_serial: int) -> dict[str, Any]:
    """Return what is recorded as the outcome of a command that has no result.

    Args:
        error: what its caller gets; of ours its words, of others only the kind, for their words may quote anything.
        reason: how far it came: `not_run`, `policy_kill`, `backend_lost` or `withheld`.
        intent_serial: the record of the intent.
    """
    return {
        "intent_serial": intent_serial,
        "reason": reason,
        "error": type(error).__name__,
        "message": str(error) if isinstance(error, KavachError) else None,
    }
