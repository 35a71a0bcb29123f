"""The topics, all below `sandbox/<id>/`, and the traces of commands beside them.

A subscriber of `sandbox/#` sees exactly these; `limit/<kind>` has one for each counter in `ExecResult.limits_hit`.
`trace/<id>/exec` carries the times of the six steps of each ended command, for metrics and traces. Pure. May be used
by: everybody.
"""

from __future__ import annotations

__all__ = [
    "ATTESTATION_FAILED",
    "ATTESTATION_PASSED",
    "CREATED",
    "DESTROYED",
    "EGRESS_ALLOWED",
    "EGRESS_DENIED",
    "EXEC",
    "KINDS",
    "PAUSED",
    "POLICY_BLOCKED",
    "POLICY_DEGRADED",
    "POLICY_VIOLATION",
    "RESUMED",
    "SCAN_BLOCKED",
    "SCAN_QUARANTINED",
    "SCAN_WARNING",
    "STARTED",
    "STOPPED",
    "limit",
    "sandbox_topic",
    "trace_topic",
]

CREATED = "lifecycle/created"
STARTED = "lifecycle/started"
PAUSED = "lifecycle/paused"
RESUMED = "lifecycle/resumed"
STOPPED = "lifecycle/stopped"
DESTROYED = "lifecycle/destroyed"
POLICY_VIOLATION = "policy/violation"
POLICY_BLOCKED = "policy/blocked"
POLICY_DEGRADED = "policy/degraded"
ATTESTATION_PASSED = "attestation/passed"
ATTESTATION_FAILED = "attestation/failed"
SCAN_BLOCKED = "scan/blocked"
SCAN_WARNING = "scan/warning"
SCAN_QUARANTINED = "scan/quarantined"
EGRESS_ALLOWED = "egress/allowed"
EGRESS_DENIED = "egress/denied"
EXEC = "exec"  # the kind of a trace

KINDS = (
    *(CREATED, STARTED, PAUSED, RESUMED, STOPPED, DESTROYED),
    *(POLICY_VIOLATION, POLICY_BLOCKED, POLICY_DEGRADED),
    *(ATTESTATION_PASSED, ATTESTATION_FAILED),
    *(SCAN_BLOCKED, SCAN_WARNING, SCAN_QUARANTINED),
    *(EGRESS_ALLOWED, EGRESS_DENIED),
)
"""Every kind of `sandbox/<id>/` but `limit/<kind>`."""


def limit(counter: str) -> str:
    """Return the kind of an event about a limit: `limit/memory`."""
    return f"limit/{counter}"


def sandbox_topic(sandbox_id: str, kind: str) -> str:
    """Return the topic of something that happened to a sandbox."""
    return f"sandbox/{sandbox_id}/{kind}"


def trace_topic(sandbox_id: str) -> str:
    """Return the topic of the steps of a sandbox's ended commands."""
    return f"trace/{sandbox_id}/{EXEC}"
