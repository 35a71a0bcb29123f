"""The documents that are made from the code say what the code says."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from kavach.policy import strength

ROOT = Path(__file__).resolve().parents[2]


def rendered(tool: str) -> str:
    spec = importlib.util.spec_from_file_location(f"tool_{tool}", ROOT / "tools" / f"{tool}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.render()


@pytest.mark.parametrize(("tool", "document"), [("print_plan", "plan-order.md"), ("print_api", "api.md")])
def test_generated_document_is_what_its_tool_prints_today(tool, document):
    found = (ROOT / "docs" / document).read_text(encoding="utf-8")
    assert found == rendered(tool), f"run: python tools/{tool}.py > docs/{document}"


def test_plan_order_shows_both_ways_and_every_phase_of_canaries():
    text = rendered("print_plan")
    root, plain = text.split("## As a plain user")
    assert "`take_ids`" in root
    assert "`take_ids`" not in plain
    for phase in ("before Landlock", "after Landlock", "final"):
        assert phase in root
        assert phase in plain


def strength_rows():
    presets = ("minimal", "basic", "strict")
    for name, base in strength.BASE.items():
        yield [name, base, *(int(strength.score_backend(name, preset)) for preset in presets)]
    yield from ([control.value, points] for control, points in strength.BASE_SPLIT["process"].items())
    yield from ([control.value, points] for control, points in strength.MODIFIERS.items())
    yield from ([control.value, word, n] for control, words in strength.MECHANISMS.items() for word, n in words.items())
    yield from ([hole.value, points] for hole, points in strength.CAPS.items())


@pytest.mark.parametrize("row", [" | ".join(map(str, row)) for row in strength_rows()])
def test_strength_document_has_the_tables_of_the_code(row):
    text = (ROOT / "docs/strength.md").read_text(encoding="utf-8")
    assert f"| {row} |" in text


def test_strength_document_names_the_version_of_the_weights():
    text = (ROOT / "docs/strength.md").read_text(encoding="utf-8")
    assert f"Weights version: {strength.WEIGHTS_VERSION}." in text
