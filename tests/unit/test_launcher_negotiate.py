"""How a refused step is told to the caller: as what this host cannot do, or as a step that failed."""

from __future__ import annotations

import errno
from types import SimpleNamespace

import pytest

from kavach.errors import LaunchError, UnsupportedError
from kavach.launcher import build, child
from kavach.launcher.negotiate import _CONTROL_OF_STEP, refusal, require_lackable
from kavach.launcher.prepared import StepError
from kavach.model.enforcement import Control
from kavach.model.policy import SandboxPolicy

PLAN = SimpleNamespace(trees=())


@pytest.mark.parametrize(
    ("step", "control"),
    [
        ("clone", "user_ns"),
        ("id_maps", "user_ns"),
        ("new_root", "mount_view"),
        ("seal", "mount_view"),
        ("restrict", "filesystem"),
        ("filter_init", "seccomp"),
    ],
)
def test_step_that_is_not_permitted_names_its_control(step, control):
    found = refusal(StepError(step, errno.EPERM), PLAN)
    assert isinstance(found, UnsupportedError)
    assert found.control == control


@pytest.mark.parametrize(
    ("step", "code"),
    [("attach", errno.EPERM), ("new_root", errno.EIO), ("own_session", errno.EPERM), ("limits", errno.EPERM)],
)
def test_step_that_failed_otherwise_is_a_launch_error(step, code):
    found = refusal(StepError(step, code), PLAN)
    assert isinstance(found, LaunchError)
    assert (found.step, found.errno) == (step, code)


def test_file_system_that_cannot_be_translated_names_the_workdir():
    owned = SimpleNamespace(trees=((b"/home/me", 0, 1),))
    assert refusal(StepError("open_trees", errno.EINVAL), owned).control == "workdir"
    assert isinstance(refusal(StepError("open_trees", errno.EINVAL), PLAN), LaunchError)
    assert refusal(StepError("open_trees", errno.EPERM), owned).control == "mount_view"


def test_second_listener_names_why():
    assert refusal(StepError("system_call_filter", errno.EBUSY), PLAN).control == "why"


def test_every_control_and_step_of_the_table_exists():
    steps = {name.decode() for name in (*build.STEPS, *child.STEPS)} | {"clone", "id_maps", "cgroup"}
    assert set(_CONTROL_OF_STEP) <= steps
    assert set(_CONTROL_OF_STEP.values()) <= {control.value for control in Control}


def test_namespace_may_be_missing_where_the_policy_names_it_or_something_else_holds_it():
    require_lackable(SandboxPolicy.strict(), frozenset({"cgroup", "net"}), "x")
    require_lackable(SandboxPolicy.strict(may_lack=("user_ns",)), frozenset({"user"}), "x")
    require_lackable(SandboxPolicy.strict(), frozenset(), "x")


@pytest.mark.parametrize(
    ("name", "control"),
    [("user", "user_ns"), ("pid", "pid_ns"), ("mnt", "mount_view"), ("ipc", "ipc_ns"), ("uts", "uts_ns")],
)
def test_namespace_that_strict_needs_is_refused_by_name(name, control):
    with pytest.raises(UnsupportedError, match="the reason") as caught:
        require_lackable(SandboxPolicy.strict(), frozenset({name}), "the reason")
    assert caught.value.control == control


def test_network_without_namespace_and_without_filter_is_refused():
    with pytest.raises(UnsupportedError) as caught:
        require_lackable(SandboxPolicy.minimal(may_lack=()), frozenset({"net"}), "x")
    assert caught.value.control == "network"
