"""The corpus against the outer host from a sandbox inside a sandbox: what one wall refuses, no inner one gives back.

The targets, the acts and the controls are those of test_process_wall_escapes.py. Each outer sandbox is strict and
`nested`, which lets its commands make namespaces of their own; the innermost is plain strict, and acts.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from escape_case import ROOT, Case, load_cases, sample

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.needs("linux", "x86_64", "userns", "seccomp", "landlock:6")
CASES = load_cases()
SAMPLE = sample(CASES)
#: Landlock refuses to move a file between folders where any outer domain does not grant it (LANDLOCK_ACCESS_FS_REFER is
#: denied by default), and one that handles files would refuse the inner sandbox's mounts: the act ends one line earlier.
ALSO = {"a folder renamed while it is open does not lead out": ("EXDEV",)}


def test_every_case_was_tried_at_depth_2_and_a_sample_at_depth_3(innermost: dict[int, dict[str, str]]) -> None:
    assert set(innermost[2]) == {case.name for case in CASES}
    assert set(innermost[3]) == {case.name for case in SAMPLE}
    assert len(SAMPLE) >= 90


@pytest.mark.parametrize(
    ("depth", "case"),
    [*((2, case) for case in CASES), *((3, case) for case in SAMPLE)],
    ids=[*(f"2-{case.name}" for case in CASES), *(f"3-{case.name}" for case in SAMPLE)],
)
def test_from_inside_two_walls_and_more(
    depth: int,
    case: Case,
    innermost: dict[int, dict[str, str]],
    outside: dict[str, str],
    require: Callable[..., None],
) -> None:
    assert innermost[depth][case.name] in (*case.inside.split("|"), *ALSO.get(case.name, ()))
    if case.control == ROOT and os.geteuid() != 0:
        require("root")
    if outside[case.name] == "ABSENT":
        pytest.skip("this host has nothing to attack, or its root lacks the capability")
    assert outside[case.name] in case.outside.split("|"), "the control: the act does not work without the wall either"
