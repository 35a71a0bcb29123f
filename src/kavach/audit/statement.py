"""What a receipt says: an in-toto Statement, version 1, about one command.

Enforces: the statement is made of what was seen; what is unknown is null, never left out or made up. It holds digests,
names and numbers, no output and no argument. Does not: sign (`kavach.audit.receipt` does), read the clock or the host.
Pure. May be used by: kavach.audit.receipt.
"""

from __future__ import annotations

import functools
from collections import Counter
from typing import TYPE_CHECKING, Any

import msgspec

from kavach.audit.canonical import CanonicalText, canonical_json
from kavach.audit.digest import argv_sha256, sha256_hex
from kavach.model.verdict import Severity
from kavach.policy.strength import WEIGHTS_VERSION

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from kavach.audit.log import AppendedRecord
    from kavach.model.command import Command
    from kavach.model.enforcement import Enforcement
    from kavach.model.policy import SandboxPolicy
    from kavach.model.result import ExecResult
    from kavach.model.verdict import Finding

__all__ = ["PREDICATE_TYPE", "RECEIPT_VERSION", "STATEMENT_TYPE", "count_findings", "make_statement"]

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"  # in-toto attestation, spec/v1/statement.md
PREDICATE_TYPE = "urn:kavach:receipt:1"
RECEIPT_VERSION = 1
"""The version of the predicate; a field may be added within it, none changes meaning or goes."""


def make_statement(
    result: ExecResult,
    *,
    command: Command,
    policy: SandboxPolicy,
    policy_digest: str,
    agent_id: str | None,
    time_utc: str,
    host: Mapping[str, str],
    intent: AppendedRecord | None,
    image_digest: str | None = None,
    runtime_digest: str | None = None,
    evidence: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the statement about one command, for `canonical_json`.

    Args:
        result: what became of it, as it was released.
        command: what was run; its arguments and input are digested.
        policy: in force.
        policy_digest: `policy_sha256(policy)`, which a sandbox computes once.
        agent_id: on whose behalf.
        time_utc: when the statement was made.
        host: what is known of the host, `host_facts()`.
        intent: the record of the intent, or None without an audit log.
        image_digest: of the image that ran, in hex; None = none.
        runtime_digest: of the runtime that ran it; None = none.
        evidence: hardware evidence; None = none.
    """
    return {
        "_type": STATEMENT_TYPE,
        "subject": _subjects(result, command),
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "version": RECEIPT_VERSION,
            "time_utc": time_utc,
            "sandbox_id": result.sandbox_id,
            "agent_id": agent_id,
            "policy": {"preset": policy.preset, "sha256": policy_digest},
            "limits": msgspec.to_builtins(policy.limits),
            "argv_sha256": argv_sha256(command.argv),
            "stdin": _stream(command.stdin),
            "stdout": _released(result, result.stdout_bytes, result.stdout_dropped_bytes),
            "stderr": _released(result, result.stderr_bytes, result.stderr_dropped_bytes),
            "image_sha256": image_digest,
            "runtime_sha256": runtime_digest,
            "host": dict(host),
            "enforcement": None if result.enforcement is None else _rows_text(result.enforcement),
            "strength": _strength(result),
            "ending": _ending(result),
            "gate": {"verdict": result.verdict, "findings": count_findings(result.findings)},
            "audit": None if intent is None else {"intent_serial": intent.serial, "intent_mac": intent.mac},
            "evidence": None if evidence is None else dict(evidence),
        },
    }


def _strength(result: ExecResult) -> dict[str, Any]:
    return {
        "value": int(result.score),
        "label": result.score.label,
        "requested": int(result.requested_score),
        "weights_version": WEIGHTS_VERSION,
    }


def _ending(result: ExecResult) -> dict[str, Any]:
    return {
        "reason": result.reason,
        "exit_code": result.exit_code,
        "signal": result.signal,
        "duration_ms": round(result.duration_ms, 3),
        "limits_hit": None if result.limits_hit is None else list(result.limits_hit),
        "usage": msgspec.to_builtins(result.usage),
    }


@functools.lru_cache(maxsize=64)
def _rows_text(enforcement: Enforcement) -> CanonicalText:
    """Return the rows as canonical JSON; a sandbox sees the same wall at every command."""
    return CanonicalText(canonical_json(enforcement.to_dict()).decode())


def count_findings(findings: Iterable[Finding]) -> dict[str, int]:
    """Return how many findings there are of each severity; every severity is named."""
    found = Counter(str(finding.severity) for finding in findings)
    return {severity.value: found[severity.value] for severity in Severity}


def _subjects(result: ExecResult, command: Command) -> list[dict[str, Any]]:
    """Return what the statement is about: what the holder of a released output can digest and compare."""
    named = [("argv", argv_sha256(command.argv))]
    if result.verdict.is_released:
        named += [("stdout", sha256_hex(result.stdout_bytes)), ("stderr", sha256_hex(result.stderr_bytes))]
    return [{"name": name, "digest": {"sha256": digest}} for name, digest in named]


def _stream(data: bytes | None) -> dict[str, Any] | None:
    return None if data is None else {"sha256": sha256_hex(data), "bytes": len(data)}


def _released(result: ExecResult, data: bytes, dropped: int) -> dict[str, Any] | None:
    """Return what is known of a released stream; of a withheld one nothing, for a digest confirms a guess."""
    return (
        {"sha256": sha256_hex(data), "bytes": len(data), "dropped_bytes": dropped}
        if result.verdict.is_released
        else None
    )
