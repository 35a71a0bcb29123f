"""The words of a report: findings, and the report that holds them.

Guarantees: frozen values that JSON can hold. Does not: decide anything. May be used by: everybody above
`doctor`.
"""

from __future__ import annotations

import enum

import msgspec


class Availability(enum.StrEnum):
    """Whether a control can be had here: fully, in a weaker form, or not at all."""

    YES = "yes"
    DEGRADED = "degraded"
    NO = "no"


YES, DEGRADED, NO = Availability.YES, Availability.DEGRADED, Availability.NO


class Row(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One finding about one control; a control with several causes has several rows.

    Args:
        control: a name of `Control`, or the part of the host the finding is about.
        available: whether the control can be had.
        cause: why it cannot, or only in part; empty when there is nothing to say.
        fix: what a person can do about it.
        wall_left: what still stands while it is not fixed.
        evidence: what was read or seen.
        observed: True when it was seen in a run of the wall, False when it was concluded from the host.
    """

    control: str
    available: Availability
    cause: str = ""
    fix: str = ""
    wall_left: str = ""
    evidence: str = ""
    observed: bool = False


def have(control: str, evidence: str) -> Row:
    """Return the row of a control that can be had."""
    return Row(control=control, available=YES, evidence=evidence)


class Report(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The host in one value that JSON can hold.

    Args:
        kernel: its release.
        machine: the processor architecture.
        host: "linux", "wsl1", "wsl2", "gvisor", or the platform's name.
        container: the manager of the container this runs in, or empty.
        best_wall: the strongest process wall that this host allows now.
        rows: the findings.
        devices: accelerator nodes by family.
        calls: the newer system calls, "present", "absent" or "refused".
        schema_version: of this report.
    """

    kernel: str
    machine: str
    host: str
    container: str
    best_wall: str
    rows: tuple[Row, ...]
    devices: dict[str, tuple[str, ...]] = {}
    calls: dict[str, str] = {}
    schema_version: int = 1

    @property
    def problems(self) -> tuple[Row, ...]:
        """The rows that are not `yes`."""
        return tuple(row for row in self.rows if row.available is not Availability.YES)

    def of(self, control: str) -> tuple[Row, ...]:
        """Return the rows about one control."""
        return tuple(row for row in self.rows if row.control == control)
