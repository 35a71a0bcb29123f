"""What becomes of an output: what was seen in it, read against the policy.

Enforces: `redact` withholds nothing and `enforce` releases nothing at or above its thresholds; a scanner that the
policy does not name goes by the action for secrets. Does not: look at a byte, clock or file. May be used by:
kavach.gate, and by kavach.sandbox for the verdict over several streams.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, NamedTuple, Protocol

from kavach.model.verdict import Severity, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kavach.model.verdict import ExternalizationPolicy, ScannerAction


class Seen(Protocol):
    """What judging needs of a mark or a finding."""

    @property
    def scanner(self) -> str:
        """Whose rule saw it."""

    @property
    def severity(self) -> Severity:
        """How bad it is."""


class Action(enum.StrEnum):
    """What one finding does to the output it was found in; ordered from nothing to the worst."""

    IGNORE = "ignore"  # its scanner is off: not even listed
    REPORT = "report"  # listed; the bytes stay
    WARN = "warn"  # listed and the verdict says so; the bytes stay
    REDACT = "redact"  # its bytes are replaced by a label
    QUARANTINE = "quarantine"  # all of the output is withheld and stored
    BLOCK = "block"  # all of the output is withheld and destroyed

    @property
    def verdict(self) -> Verdict:
        """What the output is worth if this is the worst that happens to it."""
        return _VERDICTS[self]


_VERDICTS = {
    Action.IGNORE: Verdict.PASS,
    Action.REPORT: Verdict.PASS,
    Action.WARN: Verdict.WARN,
    Action.REDACT: Verdict.WARN,
    Action.QUARANTINE: Verdict.QUARANTINE,
    Action.BLOCK: Verdict.BLOCK,
}
_LOWEST_REDACTED = {"redact": Severity.MEDIUM, "enforce": Severity.LOW}  # gate.md: "medium and above"; "above info"


class Judgement(NamedTuple):
    """What becomes of one output.

    Args:
        verdict: the worst that any finding, or the size, leads to.
        actions: one for each thing seen, in its order; empty where nothing was to be read.
        worst: the highest severity among what is not ignored, or None.
        limit_bytes: release nothing that stood at or after this offset; None = no such limit.
    """

    verdict: Verdict
    actions: tuple[Action, ...] = ()
    worst: Severity | None = None
    limit_bytes: int | None = None


def decide(scanner: str, severity: Severity, policy: ExternalizationPolicy) -> Action:
    """Return what one finding does to its output.

    Args:
        scanner: whose rule saw it, as `action_of` reads it.
        severity: how bad it is.
        policy: what may leave.
    """
    action = action_of(scanner, policy)
    if action == "off":
        return Action.IGNORE
    if action == "report":
        return Action.REPORT
    if action == "verdict" and policy.mode == "enforce":
        if severity >= policy.block_threshold:
            return Action.BLOCK
        if severity >= policy.quarantine_threshold:
            return Action.QUARANTINE
    if severity < _LOWEST_REDACTED[policy.mode]:
        return Action.REPORT
    is_kept = scanner not in {"code", "binary", "personal"} and not policy.redact_secrets
    return Action.WARN if is_kept else Action.REDACT


def action_of(scanner: str, policy: ExternalizationPolicy) -> ScannerAction:
    """Return what the policy says for a scanner.

    Args:
        scanner: its name. Binary artifacts count as code; a name that the policy lacks, as a secret.
        policy: what may leave.
    """
    if scanner in {"code", "binary"}:
        return policy.code
    # SECURITY: what nobody classified is treated as a secret, so that a new scanner cannot be weaker by its name.
    return policy.personal if scanner == "personal" else policy.secrets


def judge(seen: Iterable[Seen], policy: ExternalizationPolicy, *, size_bytes: int = 0) -> Judgement:
    """Return what becomes of one output: the worst of what was seen in it and of its size.

    Args:
        seen: every mark or finding, none left out: caps on lists come after judging.
        policy: what may leave.
        size_bytes: how much the output holds. Above `max_artifact_size_bytes` it is cut in `redact` and withheld,
            stored, in `enforce`.
    """
    if not policy.enabled:
        return Judgement(Verdict.NOT_SCANNED)
    table: dict[tuple[str, Severity], Action] = {}
    actions: list[Action] = []
    for one in seen:
        kind = (one.scanner, one.severity)
        if kind not in table:
            table[kind] = decide(*kind, policy)
        actions.append(table[kind])
    listed = [severity for (_, severity), action in table.items() if action is not Action.IGNORE]
    is_too_large = size_bytes > policy.max_artifact_size_bytes
    verdicts = [action.verdict for action in table.values()]
    if is_too_large:
        verdicts.append(Verdict.WARN if policy.mode == "redact" else Verdict.QUARANTINE)
    return Judgement(
        verdict=worst_verdict(verdicts),
        actions=tuple(actions),
        worst=max(listed, default=None),
        limit_bytes=policy.max_artifact_size_bytes if is_too_large else None,
    )


def worst_verdict(verdicts: Iterable[Verdict]) -> Verdict:
    """Return the verdict over several outputs: the worst, `pass` if there is none, `not_scanned` if one is.

    Args:
        verdicts: one for each output. `not_scanned` yields only to a verdict that withholds.
    """
    given = list(verdicts)
    scanned = [verdict for verdict in given if verdict is not Verdict.NOT_SCANNED]
    worst = max(scanned, default=Verdict.PASS)
    return Verdict.NOT_SCANNED if len(scanned) < len(given) and worst.is_released else worst
