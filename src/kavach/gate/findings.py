"""Marks become findings: counted whole, listed up to a limit, masked.

Enforces: the limit drops the least bad first, never what decides; a finding holds nothing that was found. Does not:
judge. May be used by: kavach.gate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kavach.gate.evidence import mask
from kavach.model.verdict import Finding, Severity

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kavach.gate.rule import Mark

FINDINGS_LISTED = 1000
"""How many findings of one severity a result lists; verdict and redaction count all of them."""


class Tally:
    """The findings of one stream.

    Args:
        stream: where: stdout, stderr, or the name of a file.
        salt: random, 16 to 64 bytes, one for a result.
    """

    def __init__(self, stream: str, salt: bytes) -> None:
        self._stream = stream
        self._salt = salt
        self._listed: dict[Severity, list[tuple[Mark, str]]] = {severity: [] for severity in Severity}
        self.counts: dict[Severity, int] = dict.fromkeys(Severity, 0)

    def add(self, mark: Mark, thing: bytes) -> None:
        """Count a find; list it if its severity has room.

        Args:
            mark: what was found.
            thing: its bytes.
        """
        self.counts[mark.severity] += 1
        listed = self._listed[mark.severity]
        if len(listed) < FINDINGS_LISTED:
            listed.append((mark, mask(mark.category, thing, self._salt)))

    @property
    def worst(self) -> Severity | None:
        """The highest severity that was counted."""
        return max((severity for severity, count in self.counts.items() if count), default=None)

    def findings(self) -> tuple[Finding, ...]:
        """Return the listed findings by place: at most `FINDINGS_LISTED`, the worst of all."""
        kept = [pair for severity in sorted(Severity, reverse=True) for pair in self._listed[severity]]
        kept = sorted(kept[:FINDINGS_LISTED], key=lambda pair: place_of(pair[0]))
        return tuple(
            _finding(f"{self._stream}:{number}", self._stream, mark, evidence)
            for number, (mark, evidence) in enumerate(kept, 1)
        )


def place_of(mark: Mark) -> tuple[int, int, str, str]:
    """Return what marks are sorted by."""
    return mark.start, mark.end, mark.scanner, mark.rule


def _finding(name: str, stream: str, mark: Mark, evidence: str) -> Finding:
    return Finding(
        id=name,
        scanner=mark.scanner,
        rule=mark.rule,
        category=mark.category,
        severity=mark.severity,
        message=mark.message,
        stream=stream,
        start=mark.start,
        end=mark.end,
        evidence=evidence,
    )


def findings_of(data: bytes, marks: Iterable[Mark], *, stream: str, salt: bytes) -> tuple[Finding, ...]:
    """Return marks as findings, safe to print.

    Args:
        data: the text that the marks are in.
        marks: what was found in it, by place.
        stream: where it came from: stdout, stderr, or a file's name.
        salt: random, 16 to 64 bytes, one for a result.
    """
    tally = Tally(stream, salt)
    for one in marks:
        tally.add(one, data[one.start : one.end])
    return tally.findings()
