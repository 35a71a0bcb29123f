"""How much one run's findings look like an attack: one number, its class and its tier.

Enforces: the weights and borders below, and nothing else; the same findings give the same number. Does not: act, or
remember (`kavach.gate.offenders` does): a single assessment is reported and recorded. May be used by: kavach.sandbox,
kavach.cli.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, NamedTuple

from kavach.gate.code.groups import SCANNER, group_of
from kavach.model.verdict import Severity

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from kavach.model.verdict import Finding

STAGES = (
    "reconnaissance",
    "weaponization",
    "delivery",
    "exploitation",
    "installation",
    "command_and_control",
    "exfiltration",
)
"""The steps of an attack, in order (gate.md)."""
WEIGHTS = {
    Severity.INFO: 0.05,
    Severity.LOW: 0.15,
    Severity.MEDIUM: 0.35,
    Severity.HIGH: 0.60,
    Severity.CRITICAL: 0.90,
}
"""What one finding adds (gate.md)."""
AMPLIFICATION = {0: 1.0, 1: 1.0, 2: 1.3}
"""By how many stages of an attack were seen; three or more: `MANY_STAGES` (gate.md)."""
MANY_STAGES = 1.5
BENIGN_BELOW, SUSPICIOUS_BELOW, LIKELY_BELOW = 0.2, 0.5, 0.8
"""Where the classes begin (gate.md)."""
HARMLESS_AT_MOST = 0.19
"""What personal data alone, or reports alone, come to at most: printing a customer's address is no attack, and no
listing of a program is either."""


class ThreatClass(enum.StrEnum):
    """What the number means."""

    BENIGN = "benign"
    SUSPICIOUS = "suspicious"
    LIKELY_MALICIOUS = "likely_malicious"
    MALICIOUS = "malicious"


class Tier(enum.IntEnum):
    """What follows: for one assessment as advice, for an agent's sum as an act."""

    LOG = 1
    ALERT = 2
    SUSPEND = 3
    REVOKE = 4


_TIERS = dict(zip(ThreatClass, Tier, strict=True))


class Assessment(NamedTuple):
    """What one run's findings come to.

    Args:
        intent: 0 to 1.
        stages: which steps of an attack were seen, in their order.
        amplification: what the stages multiplied the sum by.
        threat_class: what the number means.
        tier: what it would ask for; only an agent's sum acts.
    """

    intent: float
    stages: tuple[str, ...]
    amplification: float
    threat_class: ThreatClass
    tier: Tier


def assess(findings: Iterable[Finding], *, redacted: Collection[str] = ()) -> Assessment:
    """Return what findings come to: min(1, sum of weights x amplification).

    A redacted secret and redacted personal data count half. Personal data alone, reports (`info`) alone, and both
    together stay below `BENIGN_BELOW`; beside something else reports add at most `HARMLESS_AT_MOST` and are no stage.

    Args:
        findings: of one run: its command, its output, its files.
        redacted: ids of the findings whose bytes were replaced before anybody saw them.
    """
    given = list(findings)
    hidden = frozenset(redacted)
    reports = sum(_weight(one, hidden) for one in given if one.severity is Severity.INFO)
    total = min(reports, HARMLESS_AT_MOST)
    total += sum(_weight(one, hidden) for one in given if one.severity is not Severity.INFO)
    seen = {stage_of(one) for one in given if one.severity is not Severity.INFO}
    stages = tuple(stage for stage in STAGES if stage in seen)
    amplification = AMPLIFICATION.get(len(stages), MANY_STAGES)
    intent = min(1.0, round(total * amplification, 6))
    if all(one.scanner == "personal" or one.severity is Severity.INFO for one in given):
        intent = min(intent, HARMLESS_AT_MOST)
    threat_class = classify(intent)
    return Assessment(intent, stages, amplification, threat_class, _TIERS[threat_class])


def classify(intent: float) -> ThreatClass:
    """Return the class of a number.

    Args:
        intent: 0 to 1.
    """
    if intent < BENIGN_BELOW:
        return ThreatClass.BENIGN
    if intent < SUSPICIOUS_BELOW:
        return ThreatClass.SUSPICIOUS
    return ThreatClass.LIKELY_MALICIOUS if intent < LIKELY_BELOW else ThreatClass.MALICIOUS


def stage_of(finding: Finding) -> str | None:
    """Return the step of an attack that a finding shows, or None for what is none.

    Args:
        finding: of any scanner. A secret or personal data on its way out is exfiltration, an artifact a delivery.
    """
    if finding.scanner == SCANNER:
        group = group_of(finding.rule)
        return group.stage if group is not None else None
    return "delivery" if finding.scanner == "binary" else "exfiltration"


def _weight(finding: Finding, redacted: frozenset[str]) -> float:
    is_halved = finding.id in redacted and finding.scanner not in {SCANNER, "binary"}
    return WEIGHTS[finding.severity] * (0.5 if is_halved else 1.0)
