"""Families of devices, turned into the nodes that this host has and what their libraries read beside them.

Guarantees: a family without a node here is refused by name, never left out. Does not: open a node. May be called by:
kavach.backends.process.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kavach.errors import UnsupportedError
from kavach.launcher.view import READ_ONLY, Tree
from kavach.linux import uapi
from kavach.model.policy import DEVICE_FAMILIES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kavach.launcher.view import HostFiles
    from kavach.model.policy import SandboxPolicy

#: What user-space drivers read to find a node's card (libdrm: drmGetDevice; ROCm: the kfd topology).
_BESIDE = {
    "nvidia": (),  # /proc/driver/nvidia is part of every fresh proc
    "dri": ("/sys/dev/char", "/sys/class/drm", "/sys/devices"),
    "kfd": ("/sys/dev/char", "/sys/class/kfd", "/sys/devices"),
    "accel": ("/sys/dev/char", "/sys/class/accel", "/sys/devices"),
}


def expand_families(
    policy: SandboxPolicy, files: HostFiles, nodes: Mapping[str, tuple[str, ...]] | None = None
) -> tuple[SandboxPolicy, tuple[Tree, ...]]:
    """Return the policy with nodes in place of families, and the read-only trees that go with them.

    Args:
        policy: validated.
        files: the host's files.
        nodes: nodes by family; None = those of this host.

    Raises:
        UnsupportedError: this host has no node of a family.
    """
    named = [device for device in policy.devices if device in DEVICE_FAMILIES]
    if not named:
        return policy, ()
    present = _nodes_here() if nodes is None else nodes
    for family in named:
        if not present.get(family):
            raise UnsupportedError(
                f"this host has no device of the family {family!r}; nothing was run",
                control="devices",
                needed=f"a {family} node below /dev",
                found=f"nodes of {', '.join(sorted(present)) or 'no family'}",
                hint="kavach doctor lists the nodes there are",
            )
    single = [device for device in policy.devices if device not in DEVICE_FAMILIES]
    every = {*single, *(node for family in named for node in present[family])}
    beside = dict.fromkeys(path for family in named for path in _BESIDE[family] if files.exists(path))
    trees = tuple(Tree(path, path, READ_ONLY | uapi.MOUNT_ATTR_NOEXEC) for path in beside)
    return policy.replace(devices=tuple(sorted(every))), trees


def _nodes_here() -> Mapping[str, tuple[str, ...]]:
    from kavach.linux import host  # here, because few policies name a family and every command pays for an import

    return host.devices()
