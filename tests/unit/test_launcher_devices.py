"""Families of devices become the nodes that the host has; a family it has not is refused by name."""

from __future__ import annotations

import pytest

from kavach.errors import ConfigError, UnsupportedError
from kavach.launcher.devices import expand_families
from kavach.launcher.view import HostFiles
from kavach.linux import uapi
from kavach.model.policy import SandboxPolicy

NODES = {"dri": ("/dev/dri/card0", "/dev/dri/renderD128"), "nvidia": ("/dev/nvidia0", "/dev/nvidiactl")}


class Sysfs(HostFiles):
    def exists(self, path):
        return path != "/sys/class/drm"


def test_policy_without_families_stays_as_it_is():
    policy = SandboxPolicy.strict(devices=["/dev/fuse"])
    assert expand_families(policy, Sysfs(), NODES) == (policy, ())


def test_family_becomes_its_nodes_beside_those_named_one_by_one():
    policy, beside = expand_families(SandboxPolicy.strict(devices=["dri", "/dev/fuse"]), Sysfs(), NODES)
    assert policy.devices == ("/dev/dri/card0", "/dev/dri/renderD128", "/dev/fuse")
    assert [tree.target for tree in beside] == ["/sys/dev/char", "/sys/devices"]


def test_what_drivers_read_beside_the_nodes_is_read_only_and_not_executable():
    _, beside = expand_families(SandboxPolicy.strict(devices=["dri"]), Sysfs(), NODES)
    wanted = uapi.MOUNT_ATTR_RDONLY | uapi.MOUNT_ATTR_NOEXEC | uapi.MOUNT_ATTR_NOSUID | uapi.MOUNT_ATTR_NODEV
    assert all(tree.attributes == wanted for tree in beside)


def test_family_that_the_host_has_not_is_refused_by_name():
    with pytest.raises(UnsupportedError, match="'kfd'") as caught:
        expand_families(SandboxPolicy.strict(devices=["kfd", "dri"]), Sysfs(), NODES)
    assert caught.value.control == "devices"


def test_word_that_is_no_family_is_a_mistake_of_the_caller():
    with pytest.raises(ConfigError, match="nvidia, dri, kfd, accel"):
        SandboxPolicy.strict(devices=["gpu"])
