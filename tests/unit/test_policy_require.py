"""Fail closed: what is missing refuses, unless the policy says it may."""

from __future__ import annotations

import pytest

from kavach.errors import UnsupportedError
from kavach.model.enforcement import Control, ControlState, Enforcement, Hole
from kavach.model.policy import SandboxPolicy
from kavach.policy.require import find_lacks, require_standing
from kavach.policy.strength import asks, score_enforcement

S = ControlState
NAMESPACES = ("user_ns", "pid_ns", "mount_view", "ipc_ns", "uts_ns")


def report(policy, holes=(), **changed):
    rows = []
    for ask in asks(policy):
        state, detail = changed.get(ask.control.value, (S.ENFORCED, ""))
        rows.append(ask.row(state, detail=detail, reason="this kernel has none"))
    return Enforcement.of("process", rows, holes=holes)


def lacking(policy, **changed):
    return [row.control.value for row in find_lacks(report(policy, **changed), policy)]


def test_a_whole_wall_is_lacking_nothing():
    for policy in (SandboxPolicy.minimal(), SandboxPolicy.basic(), SandboxPolicy.strict()):
        assert lacking(policy) == []
        require_standing(report(policy), policy)


@pytest.mark.parametrize("state", [S.FAILED, S.UNSUPPORTED, S.DEGRADED])
@pytest.mark.parametrize("control", ["seccomp", "pid_ns", "network", "scope_signal", "no_new_privs"])
def test_strict_refuses_whatever_is_not_enforced(control, state):
    policy = SandboxPolicy.strict()
    assert lacking(policy, **{control: (state, "")}) == [control]
    with pytest.raises(UnsupportedError, match="this kernel has none") as caught:
        require_standing(report(policy, **{control: (state, "")}), policy)
    assert caught.value.control == control


def test_strict_runs_on_rlimits_but_not_if_told_that_nothing_may_lack():
    rlimits = {"limits": (S.DEGRADED, "rlimits")}
    assert lacking(SandboxPolicy.strict(), **rlimits) == []
    assert lacking(SandboxPolicy.strict(may_lack=()), **rlimits) == ["limits"]


def test_strict_refuses_without_landlock():
    assert lacking(SandboxPolicy.strict(), filesystem=(S.DEGRADED, "mount_view")) == ["filesystem"]


def test_basic_runs_in_a_container_without_namespaces_if_landlock_holds_the_files():
    gone = dict.fromkeys(NAMESPACES, (S.UNSUPPORTED, ""))
    assert lacking(SandboxPolicy.basic(), **gone, filesystem=(S.ENFORCED, "landlock")) == []


def test_basic_refuses_with_neither_mount_view_nor_landlock():
    gone = dict.fromkeys(NAMESPACES, (S.UNSUPPORTED, ""))
    missing = lacking(SandboxPolicy.basic(), **gone, filesystem=(S.UNSUPPORTED, ""))
    assert missing == ["mount_view", "filesystem"]


def test_basic_runs_on_a_kernel_without_landlock_if_the_mount_view_holds_the_files():
    held = {"filesystem": (S.DEGRADED, "mount_view")}
    assert lacking(SandboxPolicy.basic(), **held) == []
    assert lacking(SandboxPolicy.basic(may_lack=()), **held) == ["filesystem"]


def test_a_mount_view_that_failed_stands_in_for_nothing():
    half = {"mount_view": (S.FAILED, ""), "filesystem": (S.DEGRADED, "mount_view")}
    assert lacking(SandboxPolicy.basic(), **half) == ["mount_view", "filesystem"]


def test_minimal_may_lack_everything_and_holes_too():
    policy = SandboxPolicy.minimal()
    everything = {control.value: (S.FAILED, "") for control in Control}
    assert lacking(policy, **everything) == []
    require_standing(report(policy, holes=list(Hole), **everything), policy)


@pytest.mark.parametrize("hole", [hole for hole in Hole if hole is not Hole.HOST_ROOT])
def test_a_canary_that_got_through_refuses(hole):
    policy = SandboxPolicy.strict()
    with pytest.raises(UnsupportedError, match=hole.value):
        require_standing(report(policy, holes=[hole]), policy)


def test_host_root_caps_and_does_not_refuse_by_itself():
    policy = SandboxPolicy.basic()
    require_standing(report(policy, holes=[Hole.HOST_ROOT]), policy)


@pytest.mark.parametrize("control", ["init_separation", "no_orphans"])
def test_rows_that_only_inform_never_refuse(control):
    assert lacking(SandboxPolicy.strict(), **{control: (S.UNSUPPORTED, "")}) == []


def test_devices_that_are_missing_refuse():
    policy = SandboxPolicy.basic(devices=["/dev/dri/renderD128"])
    assert lacking(policy, devices=(S.FAILED, "")) == ["devices"]


def test_a_hole_in_a_control_that_may_be_missing_is_let_through_and_caps_the_score():
    policy = SandboxPolicy.basic()
    assert "pid_ns" in policy.may_lack
    seen = report(policy, holes=[Hole.HOST_INIT_SIGNALABLE])
    require_standing(seen, policy)
    assert score_enforcement(seen) <= 29
