"""What this host can do, what it cannot, why not, how to fix it, and which wall is left meanwhile.

Guarantees: `diagnose` is pure and names a cause and a fix for every control it reports as missing; what was
seen in a run outweighs what files suggest. Does not: change the host, earn a point of strength (only a run's
own evidence does), or print. May be called by: the CLI and anyone before the first run; no run depends on it.
"""

from __future__ import annotations

import platform
import sys
from typing import TYPE_CHECKING

import msgspec

from kavach.backends import require_platform
from kavach.doctor.diagnosis import diagnose
from kavach.doctor.facts import CgroupFacts, HostFacts, HostFiles, KernelAnswers, ask_kernel, read_files
from kavach.doctor.report import Availability, Report, Row
from kavach.errors import KavachError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from kavach.doctor.diagnosis import Observation

__all__ = [
    "Availability",
    "CgroupFacts",
    "HostFacts",
    "HostFiles",
    "KernelAnswers",
    "Report",
    "Row",
    "ask_kernel",
    "diagnose",
    "examine",
    "read_files",
]


def examine(*, probe: Callable[[], Iterable[Observation]] | None = None) -> Report:
    """Return the report on this host; takes about 50 ms and leaves nothing behind.

    Args:
        probe: runs the process wall once and returns (control, state, evidence) for each of its rows. Without
            it the report is concluded from files, system calls and one attempt at namespaces.
    """
    try:
        require_platform()
    except UnsupportedError as error:
        return _foreign_platform(error)
    facts = HostFacts(machine=platform.machine(), files=read_files(), kernel=ask_kernel())
    if probe is None:
        return diagnose(facts)
    try:
        return diagnose(facts, observed=tuple(probe()))
    except KavachError as error:
        report = diagnose(facts)
        row = Row(
            control="process_wall",
            available=Availability.NO,
            cause=f"the process wall did not stand: {error}",
            fix=error.hint or "see the other rows",
            observed=True,
        )
        return msgspec.structs.replace(report, rows=(row, *report.rows))


def _foreign_platform(error: UnsupportedError) -> Report:
    row = Row(
        control="platform",
        available=Availability.NO,
        cause=f"commands run only on {error.needed}, this is {error.found}",
        fix="run Kavach on such a Linux or in a virtual machine with one",
        wall_left="none; policies, scans and verification work here",
    )
    return Report(
        kernel=platform.release(),
        machine=platform.machine(),
        host=sys.platform,
        container="",
        best_wall="none",
        rows=(row,),
    )
