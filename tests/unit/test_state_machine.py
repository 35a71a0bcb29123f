"""The lifecycle: exactly eight steps, whatever is asked."""

from __future__ import annotations

from itertools import pairwise, product

import pytest

from kavach.errors import LifecycleError
from kavach.model.state import TRANSITIONS, SandboxState, can_transition, require_state, transition

S = SandboxState
EIGHT = {
    (S.CREATED, S.RUNNING),
    (S.RUNNING, S.PAUSED),
    (S.RUNNING, S.STOPPED),
    (S.RUNNING, S.DESTROYED),
    (S.PAUSED, S.RUNNING),
    (S.PAUSED, S.STOPPED),
    (S.PAUSED, S.DESTROYED),
    (S.STOPPED, S.DESTROYED),
}


@pytest.mark.parametrize(("state", "target"), list(product(S, S)))
def test_each_of_the_25_pairs_is_a_step_or_an_error(state, target):
    if (state, target) in EIGHT:
        assert transition(state, target) is target
        assert can_transition(state, target)
    else:
        assert not can_transition(state, target)
        with pytest.raises(LifecycleError) as caught:
            transition(state, target)
        assert (caught.value.state, caught.value.target) == (state.value, target.value)


def test_the_table_holds_the_eight_and_every_state():
    assert {(a, b) for a, targets in TRANSITIONS.items() for b in targets} == EIGHT
    assert set(TRANSITIONS) == set(S)


def test_every_sequence_to_depth_six_stays_in_the_table_and_destroyed_is_final():
    reached = {(S.CREATED,)}
    for _ in range(6):
        reached |= {(*path, target) for path in reached for target in S if can_transition(path[-1], target)}
    for path in reached:
        assert all(pair in EIGHT for pair in pairwise(path))
        assert S.DESTROYED not in path[:-1]
        assert S.CREATED not in path[1:]
    assert (S.CREATED, S.RUNNING, S.DESTROYED) in reached


def test_an_act_names_the_states_that_allow_it():
    require_state(S.RUNNING, (S.RUNNING,), "exec")
    with pytest.raises(LifecycleError, match="exec needs a sandbox that is running; this one is paused"):
        require_state(S.PAUSED, (S.RUNNING,), "exec")
