"""Observed strength stays in its range, never exceeds the requested one, and only falls when a row falls."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kavach.model.backend import Backend
from kavach.model.enforcement import DETAILS, Control, ControlState, Enforcement, Hole
from kavach.model.policy import SandboxPolicy
from kavach.policy.strength import CAPS, asks, score_backend, score_enforcement

POLICIES = st.builds(
    lambda preset, leaves: SandboxPolicy(preset=preset, **leaves),
    st.sampled_from(["minimal", "basic", "strict"]),
    st.fixed_dictionaries(
        {},
        optional={
            "profile": st.sampled_from([None, "basic", "strict"]),
            "deny": st.just(["/etc/ssh"]),
            "read_only_rootfs": st.booleans(),
            "memory_limit_mb": st.sampled_from([None, 5]),
            "cpu_limit": st.sampled_from([None, 1.0]),
            "tcp_connect_ports": st.sampled_from([None, []]),
            "scope_abstract": st.booleans(),
            "scope_signal": st.booleans(),
        },
    ),
)
STATES = st.fixed_dictionaries({control: st.sampled_from(ControlState) for control in Control})
WORDS = st.fixed_dictionaries(
    {control: st.sampled_from(["", *sorted(DETAILS.get(control, ()))]) for control in Control}
)


def score(policy, backend, states, words, holes):
    rows = [ask.row(states[ask.control], detail=words[ask.control]) for ask in asks(policy, backend)]
    return score_enforcement(Enforcement.of(backend, rows, holes=holes))


@given(POLICIES, st.sampled_from(Backend), STATES, WORDS, st.sets(st.sampled_from(Hole)))
def test_observed_never_exceeds_requested_nor_a_cap(policy, backend, states, words, holes):
    seen = score(policy, backend, states, words, holes)
    assert 0 <= seen <= score_backend(backend, policy)
    assert all(seen <= CAPS[hole] for hole in holes)
    assert sum(row.points for row in seen.rows) == seen


@given(POLICIES, STATES, WORDS, st.sampled_from(Control))
def test_a_control_that_falls_never_raises_the_number(policy, states, words, control):
    before = score(policy, "process", states, words, ())
    after = score(policy, "process", states | {control: ControlState.FAILED}, words, ())
    assert after <= before
