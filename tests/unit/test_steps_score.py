"""The strength a result carries is that of the rows it carries, also when they change from one command to the next."""

from __future__ import annotations

from kavach import Sandbox
from kavach.model.enforcement import ControlState, Enforcement
from kavach.model.policy import SandboxPolicy
from kavach.policy.strength import asks, score_enforcement


def seen(state):
    return Enforcement.of("process", [ask.row(state) for ask in asks(SandboxPolicy.basic())])


def test_other_rows_have_another_score(fake):
    with Sandbox(**fake) as sandbox:
        whole, nothing = seen(ControlState.ENFORCED), seen(ControlState.FAILED)
        expected = [score_enforcement(whole), score_enforcement(nothing)]
        assert expected[0] > expected[1]
        for _ in range(2):
            assert [sandbox.steps.score(one) for one in (whole, nothing)] == expected


def test_no_rows_are_worth_nothing(fake):
    with Sandbox(**fake) as sandbox:
        sandbox.steps.score(seen(ControlState.ENFORCED))
        assert sandbox.steps.score(None) == 0
