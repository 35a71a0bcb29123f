"""The lifecycle under any sequence of requests: the model decides, a refused step changes nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kavach.errors import LifecycleError
from kavach.model.state import SandboxState, transition

FOLLOWS = {
    "created": {"running"},
    "running": {"paused", "stopped", "destroyed"},
    "paused": {"running", "stopped", "destroyed"},
    "stopped": {"destroyed"},
    "destroyed": set(),
}


@given(st.lists(st.sampled_from(SandboxState), max_size=30))
def test_any_sequence_of_requests_follows_the_table(requests):
    state, passed = SandboxState.CREATED, ["created"]
    for target in requests:
        if target.value in FOLLOWS[passed[-1]]:
            state = transition(state, target)
            passed.append(target.value)
        else:
            with pytest.raises(LifecycleError):
                transition(state, target)
        assert state.value == passed[-1]
    assert "created" not in passed[1:]
    assert passed.count("destroyed") <= 1
