"""What the command scanner finds in corpora that nobody here made, and what it leaves alone."""

from __future__ import annotations

import functools
import gzip
import json
import os
import sysconfig
from collections import Counter
from pathlib import Path

import pytest

from kavach.gate.code import CODE
from kavach.gate.command import scan_argv
from kavach.gate.scan import scan_bytes
from kavach.model.verdict import ExternalizationPolicy, Severity

FILLED = {"{ip}": "10.0.0.5", "{port}": "4444", "{shell}": "/bin/bash"}


@functools.cache
def corpus() -> list[dict[str, str]]:
    with gzip.open(Path(os.environ["KAVACH_VECTORS"]) / "commands/commands.jsonl.gz", "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def filled(text: str) -> str:
    for name, value in FILLED.items():
        text = text.replace(name, value)
    return text


def worst(command) -> Severity | None:
    return max((mark.severity for mark in scan_argv(command).marks), default=None)


def is_high(command) -> bool:
    found = worst(command)
    return found is not None and found >= Severity.HIGH


@pytest.mark.vectors
@pytest.mark.parametrize("form", ["as written", "filled in", "handed to a shell"])
def test_reverse_shells_are_found(form):
    rows = [row["text"] for row in corpus() if row.get("kind") == "reverse_shell"]
    forms = {"as written": str, "filled in": filled, "handed to a shell": lambda text: ["bash", "-c", filled(text)]}
    found = sum(is_high(forms[form](text)) for text in rows)
    assert found / len(rows) >= 0.95


@pytest.mark.vectors
def test_benign_commands_are_left_alone():
    rows = [row["text"] for row in corpus() if row["label"] == "benign"]
    high = [text for text in rows if is_high(text)]
    assert len(high) / len(rows) <= 0.01, high[:20]


@pytest.mark.vectors
def test_techniques_of_atomic_red_team_are_counted_by_kind(capsys):
    rows = [row for row in corpus() if row["source"] == "atomic-red-team"]
    seen: dict[str, Counter[str]] = {}
    for row in rows:
        found = worst(row["text"])
        seen.setdefault(row["kind"].partition(".")[0], Counter())[found.value if found else "none"] += 1
    with capsys.disabled():
        for kind, counts in sorted(seen.items()):
            print(kind, dict(counts))
    found_medium = sum(
        n for counts in seen.values() for name, n in counts.items() if name in {"medium", "high", "critical"}
    )
    assert found_medium / len(rows) >= 0.33  # many of its lines are ordinary commands


def test_standard_library_stays_below_quarantine():
    folder = Path(sysconfig.get_paths()["stdlib"])
    policy = ExternalizationPolicy.enforce()
    for path in sorted(folder.glob("*.py"))[::4]:
        marks = scan_bytes(path.read_bytes(), policy, scanners=(CODE,))
        assert {mark.severity for mark in marks} <= {Severity.INFO}, path.name
