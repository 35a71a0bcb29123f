"""Every act of the corpus fails behind the strict process wall, and works where there is no wall."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from escape_case import ROOT, Case, load_cases

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.needs("linux", "x86_64", "userns", "seccomp", "landlock:6")
CASES = load_cases()


def test_the_corpus_holds_at_least_150_cases_each_with_a_name_of_its_own() -> None:
    assert len(CASES) >= 150
    assert len({case.name for case in CASES}) == len(CASES)


def test_no_case_accepts_from_the_wall_what_its_control_answers() -> None:
    assert [case.name for case in CASES if set(case.inside.split("|")) & set(case.outside.split("|"))] == []


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_behind_the_wall(
    case: Case, inside: dict[str, str], outside: dict[str, str], require: Callable[..., None]
) -> None:
    assert inside[case.name] in case.inside.split("|")
    if case.control == ROOT and os.geteuid() != 0:
        require("root")
    if outside[case.name] == "ABSENT":
        pytest.skip("this host has nothing to attack, or its root lacks the capability")
    assert outside[case.name] in case.outside.split("|"), "the control: the act does not work without the wall either"
