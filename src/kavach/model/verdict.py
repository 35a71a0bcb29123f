"""What the gate says about an output, and what it was told to look for.

Enforces: the order of verdicts and severities; `not_scanned` never passes for `pass`. Does not: scan, redact
or withhold (`kavach.gate` does). A finding holds no secret: whoever makes one masks its evidence. May be used
by: everybody.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Annotated, Literal

from msgspec import Meta

from kavach.model.validate import Model

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["ExternalizationPolicy", "Finding", "ScannerAction", "Severity", "Verdict"]


class Severity(enum.StrEnum):
    """How bad a finding is; ordered: info < low < medium < high < critical."""

    INFO = "info"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        """0 for info to 4 for critical."""
        return _SEVERITIES.index(self.value)

    def __lt__(self, other: object) -> bool:
        return self.rank < _severity(other).rank

    def __le__(self, other: object) -> bool:
        return self.rank <= _severity(other).rank

    def __gt__(self, other: object) -> bool:
        return self.rank > _severity(other).rank

    def __ge__(self, other: object) -> bool:
        return self.rank >= _severity(other).rank


_SEVERITIES = [severity.value for severity in Severity]


def _severity(other: object) -> Severity:
    # SECURITY: NotImplemented would let str compare by letters, where "critical" comes before "low".
    if not isinstance(other, Severity):
        raise TypeError(f"expected a Severity to compare with, got {type(other).__name__}")
    return other


class Verdict(enum.StrEnum):
    """What became of an output; ordered: pass < warn < quarantine < block.

    `not_scanned` stands outside the order: every comparison with it is False, so it is never >= pass and
    never <= block either.
    """

    PASS = "pass"  # noqa: S105 - a verdict, no password
    WARN = "warn"
    QUARANTINE = "quarantine"
    BLOCK = "block"
    NOT_SCANNED = "not_scanned"

    @property
    def is_released(self) -> bool:
        """Whether output bytes may be handed over under this verdict."""
        return self in {Verdict.PASS, Verdict.WARN, Verdict.NOT_SCANNED}

    def __lt__(self, other: object) -> bool:
        return _before(self, _verdict(other))

    def __le__(self, other: object) -> bool:
        return _before(self, _verdict(other)) or _same(self, _verdict(other))

    def __gt__(self, other: object) -> bool:
        return _before(_verdict(other), self)

    def __ge__(self, other: object) -> bool:
        return _before(_verdict(other), self) or _same(self, _verdict(other))


_VERDICTS = [verdict.value for verdict in Verdict if verdict is not Verdict.NOT_SCANNED]


def _verdict(other: object) -> Verdict:
    # SECURITY: as for severities; "block" comes before "pass" by letters.
    if not isinstance(other, Verdict):
        raise TypeError(f"expected a Verdict to compare with, got {type(other).__name__}")
    return other


def _before(a: Verdict, b: Verdict) -> bool:
    if Verdict.NOT_SCANNED in {a, b}:
        return False
    return _VERDICTS.index(a.value) < _VERDICTS.index(b.value)


def _same(a: Verdict, b: Verdict) -> bool:
    return a is b and a is not Verdict.NOT_SCANNED


class Finding(Model, frozen=True, kw_only=True):
    """One thing a scanner saw; safe to print, store and audit.

    Args:
        id: unique within one result.
        scanner: which scanner: secrets, code, personal, ...
        rule: the rule's name, as in `[REDACTED:<rule>]`.
        category: what kind of thing it is.
        severity: how bad.
        message: one sentence.
        stream: where: stdout, stderr, or the name of a file.
        start: the first byte.
        end: the byte after the last.
        evidence: masked: kind, length, a salted digest; never the thing itself.
    """

    id: str
    scanner: str
    rule: str
    category: str
    severity: Severity
    message: str
    stream: str
    start: int
    end: int
    evidence: str


ScannerAction = Literal["off", "report", "redact", "verdict"]


class ExternalizationPolicy(Model, frozen=True, kw_only=True):
    """What may leave a sandbox, and what happens to the rest; the default is `redact`.

    Args:
        enabled: False lets everything out, unread: verdict `not_scanned`.
        mode: `redact` never withholds; `enforce` withholds from the thresholds on.
        max_artifact_size_bytes: what is larger is withheld in `enforce` and cut in `redact`.
        block_threshold: in `enforce`, findings at or above it withhold and destroy.
        quarantine_threshold: in `enforce`, findings at or above it withhold and store.
        redact_secrets: replace secrets by their rule's name in what is released.
        secrets: what findings of the secrets scanner do.
        code: what findings of the code scanner do.
        personal: what findings of the data scanner do.
        escalation: whether an agent's sum of findings only reports or acts.
    """

    enabled: bool = True
    mode: Literal["redact", "enforce"] = "redact"
    max_artifact_size_bytes: Annotated[int, Meta(ge=0, le=1 << 40)] = 50 << 20
    block_threshold: Severity = Severity.CRITICAL
    quarantine_threshold: Severity = Severity.HIGH
    redact_secrets: bool = True
    secrets: ScannerAction = "redact"
    code: ScannerAction = "report"
    personal: ScannerAction = "redact"
    escalation: Literal["report", "act"] = "report"

    @classmethod
    def off(cls) -> ExternalizationPolicy:
        """Return the policy that reads nothing: `minimal`'s default."""
        return cls(enabled=False)

    @classmethod
    def redact(cls) -> ExternalizationPolicy:
        """Return the policy that hides secrets and personal data and withholds nothing: `basic`'s default."""
        return cls()

    @classmethod
    def enforce(cls) -> ExternalizationPolicy:
        """Return the policy whose thresholds withhold: `strict`'s default."""
        return cls(mode="enforce", secrets="verdict", code="verdict", personal="verdict")

    @classmethod
    def for_preset(cls, preset: str) -> ExternalizationPolicy:
        """Return the default of a policy that started from this preset.

        Args:
            preset: minimal, basic or strict.
        """
        return {"minimal": cls.off, "basic": cls.redact, "strict": cls.enforce}[preset]()

    def problems(self) -> Iterator[tuple[str, str]]:
        """Yield thresholds that contradict their order."""
        if self.quarantine_threshold > self.block_threshold:
            yield ".quarantine_threshold", "expected a severity at or below block_threshold"
