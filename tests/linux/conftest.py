"""What the rows of an enforcement are worth, written out a second time, and an audit log that must verify in the end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from kavach.audit.log import AuditLog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

#: What each row that a host can withhold is worth at most, by the published tables.
POINTS = {
    "user_ns": 10,
    "pid_ns": 10,
    "mount_view": 10,
    "ipc_ns": 3,
    "uts_ns": 2,
    "no_caps": 8,
    "no_new_privs": 7,
    "network": 5,
    "read_only_root": 3,
}
BY_DETAIL = {
    ("seccomp", "allow_list"): 5,
    ("seccomp", "deny_list"): 3,
    ("limits", "cgroup1"): 2,
    ("limits", "cgroup2"): 2,
    ("limits", "rlimits"): 1,
    ("scope_abstract", "landlock"): 2,
    ("scope_abstract", "namespace"): 1,
    ("scope_signal", "landlock"): 2,
    ("scope_signal", "namespace"): 1,
}


@pytest.fixture
def log(tmp_path: Path) -> Iterator[AuditLog]:
    with AuditLog(tmp_path / "audit.log", key=b"k" * 32) as made:
        yield made
        made.verify()


@pytest.fixture(scope="session")
def sum_of_rows() -> Callable[..., int]:
    """`sum_of_rows(found, strict=True)`: what the rows in force are worth; basic asks no limit that scores."""

    def add(found: dict[str, Any], *, strict: bool) -> int:
        total = 0
        for control, (state, detail, _) in found["rows"].items():
            if control in POINTS:
                total += POINTS[control] if state == "enforced" else 0
            elif state in {"enforced", "degraded"} and (control != "limits" or strict):
                total += BY_DETAIL.get((control, detail), 0)
        return total

    return add
