"""How a run ended, as an exit code and a few words.

Guarantees: the code of `kavach run`: the command's own; 124 timed out; 125 Kavach could not, or lost it; 126 and 127 as
a shell's; 128 + n ended by signal n; 120 withheld; 137 ended by a limit, which standard error names.
Does not: write. Pure. May be called by: kavach.cli.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kavach.gate.judge import Action, decide
from kavach.model.result import EndReason, fate_of
from kavach.model.verdict import ExternalizationPolicy, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kavach.model.enforcement import Enforcement
    from kavach.model.policy import SandboxPolicy
    from kavach.model.result import ExecResult

WITHHELD, TIMED_OUT, COULD_NOT, BY_LIMIT, BY_SIGNAL = 120, 124, 125, 137, 128
_TIMEOUTS = frozenset({EndReason.TIMEOUT, EndReason.TIMEOUT_SIBLING})
_SIGSYS = 31  # asm-generic/signal.h
_LIMITS = {
    EndReason.OOM: "memory_limit_mb",
    EndReason.PIDS: "max_pids",
    EndReason.DISK: "disk_bytes or tmp_bytes",
    EndReason.OUTPUT_LIMIT: "output_bytes",
}


def exit_code(result: ExecResult) -> int:
    """Return what the process that ran it exits with."""
    reason = result.reason
    if reason in _TIMEOUTS:
        return TIMED_OUT
    if reason in _LIMITS:
        return BY_LIMIT
    if reason is EndReason.WITHHELD:
        return WITHHELD
    if reason is EndReason.BACKEND_LOST:
        return COULD_NOT
    if reason is EndReason.NOT_RUN:
        return result.exit_code or 0
    if result.signal is not None:
        return BY_SIGNAL + result.signal
    return COULD_NOT if result.exit_code is None else result.exit_code


def words(result: ExecResult, policy: SandboxPolicy, timeout_ms: int | None) -> Iterator[str]:
    """Yield what a person should know about the ending that the exit code does not say."""
    limit = _LIMITS.get(result.reason)
    if result.reason in _TIMEOUTS:
        after = "" if timeout_ms is None else f" after {timeout_ms / 1000:g} s"
        yield f"timed out{after}; --timeout S gives it more"
    elif limit is not None:
        leaf = limit.split()[0]
        value = getattr(policy.limits, leaf, None)
        yield f"ended by a limit: {result.reason} (limits.{limit}{'' if value is None else f' = {value}'})"
    elif result.reason is EndReason.WITHHELD:
        yield f"the output was withheld: {result.verdict}; {_kept(result)}"
    elif result.reason is EndReason.BACKEND_LOST:
        yield "the wall was lost while the command ran; nothing of the command lives on"
    elif result.reason is EndReason.NOT_RUN:
        yield "nothing was run: noop is no wall"
    elif result.signal == _SIGSYS:
        yield "ended by signal SIGSYS: a system call was refused; --why names it"
    elif result.reason is EndReason.POLICY_KILL:
        yield "ended by the policy"
    if redacted := _count_redacted(result, policy):
        yield f"{redacted} finding{'' if redacted == 1 else 's'}, redacted"
    for name in ("stdout", "stderr"):
        dropped = getattr(result, f"{name}_dropped_bytes")
        if dropped:
            kept = policy.limits.output_bytes
            yield f"{name} was cut: {dropped} bytes dropped beyond limits.output_bytes = {kept}"


def _kept(result: ExecResult) -> str:
    return fate_of(result.quarantine_id) + ("; kavach quarantine show says why" if result.quarantine_id else "")


def _count_redacted(result: ExecResult, policy: SandboxPolicy) -> int:
    """Return how many findings were replaced by a label in what was released."""
    if result.verdict is not Verdict.WARN:
        return 0
    gate = ExternalizationPolicy.for_preset(policy.preset)
    return sum(decide(seen.scanner, seen.severity, gate) is Action.REDACT for seen in result.findings)


def lacking(enforcement: Enforcement) -> str:
    """Return one line that names the controls that were asked for and are not fully in force, or an empty text."""
    rows = [row for row in enforcement.rows if row.asked and row.state not in {"enforced", "not_asked"}]
    named = ", ".join(f"{row.control} ({row.state}{f': {row.detail}' if row.detail else ''})" for row in rows)
    return f"not fully in force: {named}; kavach doctor says why and how to fix it" if named else ""
