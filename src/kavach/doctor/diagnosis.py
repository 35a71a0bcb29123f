"""From facts to a report.

Guarantees: pure; every control that earns points gets at least one row; what was observed in a run overrules
what was concluded. Does not: read the host. May be called by: `doctor` and its tests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kavach.doctor.controls import (
    devices_rows,
    hardening_rows,
    landlock_rows,
    limits_rows,
    privilege_rows,
    seccomp_rows,
)
from kavach.doctor.report import DEGRADED, NO, YES, Report, Row
from kavach.doctor.surroundings import (
    host_rows,
    kernel_rows,
    other_namespace_rows,
    proc_rows,
    user_namespace_rows,
)
from kavach.doctor.walls import best_wall

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kavach.doctor.facts import HostFacts

    Observation = tuple[str, str, str]

_STATES = {"enforced": YES, "degraded": DEGRADED}


def diagnose(facts: HostFacts, *, observed: Iterable[Observation] = ()) -> Report:
    """Return the findings on a host.

    Args:
        facts: what was read and asked.
        observed: (control, state, evidence) of a run of the wall, with the states of `ControlState`.
    """
    files = facts.files
    rows = [
        *host_rows(facts),
        *kernel_rows(facts),
        *user_namespace_rows(facts),
        *other_namespace_rows(facts),
        *proc_rows(facts),
        *privilege_rows(facts),
        *seccomp_rows(facts),
        *landlock_rows(facts),
        *limits_rows(facts),
        *hardening_rows(facts),
        *devices_rows(facts),
    ]
    return Report(
        kernel=files.release,
        machine=facts.machine,
        host=files.emulated_by or "linux",
        container=files.container,
        best_wall=best_wall(facts),
        rows=_overruled(rows, tuple(observed)),
        devices=files.devices,
        calls=facts.kernel.calls,
    )


def _overruled(rows: list[Row], observed: tuple[Observation, ...]) -> tuple[Row, ...]:
    """Return the rows with a run's own put first; a conclusion that a run refuted is left out."""
    seen = [item for item in observed if item[1] != "not_asked"]
    enforced = {control for control, state, _evidence in seen if state == "enforced"}
    known_fix = {row.control: row.fix for row in rows if row.fix}
    first = [
        Row(
            control=control,
            available=_STATES.get(state, NO),
            cause="" if state == "enforced" else f"a run of the wall reported it as {state}",
            fix="" if state == "enforced" else known_fix.get(control, "see the evidence"),
            evidence=evidence,
            observed=True,
        )
        for control, state, evidence in seen
    ]
    rest = [row for row in rows if not (row.control in enforced and row.available is NO)]
    return (*first, *rest)
