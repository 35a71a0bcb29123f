"""What the hand-written documents claim exists: files, steps, links, limitations, decisions."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kavach.doctor.surroundings import FALLBACKS
from kavach.launcher import build, child
from kavach.linux import landlock_abi
from kavach.model.enforcement import Control
from kavach.policy.strength import BASE_SPLIT, MODIFIERS

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
LIMITATIONS = (ROOT / "docs/limitations.md").read_text(encoding="utf-8")
KERNEL = (ROOT / "docs/kernel-support.md").read_text(encoding="utf-8")
TRAPS = re.findall(r"^\| (\d+) \| ([^|]+) \| (.+) \|$", LIMITATIONS, re.MULTILINE)
OPTIONS = re.findall(
    r"^\[(\w+)\]", (ROOT / "src/kavach/policy/seccomp_profiles/options.toml").read_text(), re.MULTILINE
)
WORDS = {name.decode() for name in (*build.STEPS, *child.STEPS)} | {control.value for control in Control} | {*OPTIONS}
ADRS = sorted((ROOT / "docs/adr").glob("[0-9]*.md"))


def test_each_of_the_44_traps_has_one_row():
    assert [int(number) for number, *_ in TRAPS] == list(range(1, 45))


@pytest.mark.parametrize(("number", "answer"), [(number, answer) for number, _, answer in TRAPS])
def test_what_a_trap_is_answered_with_exists(number, answer):
    for path in re.findall(r"`([\w/.-]+\.(?:py|toml))`", answer):
        assert (ROOT / "src/kavach" / path).is_file(), f"trap {number}: {path}"
    for path in re.findall(r"tests/[\w/]+\.py", answer):
        assert (ROOT / path).is_file(), f"trap {number}: {path}"
    for word in re.findall(r"`([a-z]+_[a-z_]+)`", answer):
        assert word in WORDS or "_lost" in word, f"trap {number}: {word} is no step, control or option"
    for limit in re.findall(r"\bL(\d+)\b", answer):
        assert re.search(rf"^L{limit}\. ", LIMITATIONS, re.MULTILINE), f"trap {number}: there is no L{limit}"


def test_every_trap_names_something():
    empty = [number for number, _, answer in TRAPS if not re.search(r"`|\bL\d+\b|\]\(|not used", answer)]
    assert not empty


def test_limitations_are_numbered_without_a_gap():
    numbers = [int(number) for number in re.findall(r"^L(\d+)\. ", LIMITATIONS, re.MULTILINE)]
    assert numbers == list(range(1, len(numbers) + 1))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_between_documents_lead_somewhere(document):
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", document.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (document.parent / target).exists(), target


@pytest.mark.parametrize("call", FALLBACKS)
def test_kernel_support_names_each_call_that_doctor_knows(call):
    assert re.search(rf"^\| [^|]*`{call}`", KERNEL, re.MULTILINE)


@pytest.mark.parametrize("control", [control.value for control in (*BASE_SPLIT["process"], *MODIFIERS)])
def test_kernel_support_has_a_row_for_each_control_that_earns_points(control):
    first_cells = ", ".join(re.findall(r"^\| ([^|]+) \|", KERNEL, re.MULTILINE)).split(", ")
    assert control in first_cells


@pytest.mark.parametrize(("abi", "kernel"), [(abi, kernel) for abi, kernel, _ in landlock_abi.ABI_TABLE])
def test_kernel_support_lists_the_landlock_versions_of_the_table(abi, kernel):
    assert f"\n| {abi} | {kernel} | " in KERNEL


@pytest.mark.parametrize("path", ADRS, ids=lambda path: path.name)
def test_decision_is_at_most_a_page_and_in_the_index(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 60
    for part in ("Status:", "## Question", "## Decision"):
        assert part in text
    if not path.name.startswith("0000"):
        assert f"({path.name})" in (ROOT / "docs/adr/README.md").read_text(encoding="utf-8")
