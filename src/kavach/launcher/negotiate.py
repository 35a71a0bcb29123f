"""Which namespaces this host really gives, found by trying, and how a refused step is told to the caller.

Guarantees: a namespace is left out only after the kernel refused it and only where the policy's `may_lack` names its
control; everything else raises before anything untrusted runs. Does not: retry what failed for another reason. May be
called by: kavach.backends.process.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from kavach.errors import LaunchError, UnsupportedError
from kavach.launcher.client import END_TIMEOUT_S, Request
from kavach.launcher.lower import CONTROL_OF, FLAGS, may_lack
from kavach.launcher.prepared import StepError

if TYPE_CHECKING:
    from kavach.launcher.client import Launcher
    from kavach.launcher.lower import LaunchPlan
    from kavach.model.policy import SandboxPolicy

ALL = frozenset(FLAGS)
#: The step that failed -> the control that is missing by it; a step that is not here is a LaunchError.
_CONTROL_OF_STEP = {
    "clone": "user_ns",
    "id_maps": "user_ns",
    "take_ids": "user_ns",
    "private_mounts": "mount_view",
    "open_trees": "mount_view",
    "open_proc": "mount_view",
    "new_root": "mount_view",
    "mount_new": "mount_view",
    "attach": "mount_view",
    "mask": "mount_view",
    "seal": "mount_view",
    "loopback_up": "network",
    "name_host": "uts_ns",
    "landlock_ruleset": "filesystem",
    "restrict": "filesystem",
    "filter_init": "seccomp",
    "system_call_filter": "seccomp",
    "no_new_privileges": "no_new_privs",
    "drop_bounding_set": "no_caps",
    "keep_capabilities": "no_caps",
    "no_capabilities": "no_caps",
    "empty_bounding_set": "no_caps",
    "cgroup": "limits",
    "processor": "limits",
}
#: Steps that fail in this way where an outer wall (a filter, AppArmor) refuses every mount, and only there.
_MOUNT_STEPS = frozenset({"private_mounts", "open_trees", "open_proc", "new_root"})
_MOUNTING_REFUSED = frozenset({errno.EPERM, errno.ENOSYS})
_NOT_PERMITTED = frozenset(
    {errno.EPERM, errno.EACCES, errno.ENOSYS, errno.EINVAL, errno.ENOSPC, errno.EUSERS, errno.EOPNOTSUPP}
)
_IDMAP_REFUSED = frozenset({errno.EINVAL, errno.EOPNOTSUPP})


def find_namespaces(launcher: Launcher, maps: tuple[bytes, bytes, int]) -> frozenset[str]:
    """Return the namespaces that can be made here, each tried by itself below a user namespace."""
    found = set()
    if not _can_clone(launcher, frozenset({"user"}), maps):
        return frozenset()
    found.add("user")
    for name in sorted(ALL - found):
        if _can_clone(launcher, frozenset({"user", name}), maps):
            found.add(name)
    # A mount view needs a PID namespace: without one there is no proc to mount, by which init finds what it has to end.
    return frozenset(found if "pid" in found else found - {"mnt"})


def _can_clone(launcher: Launcher, names: frozenset[str], maps: tuple[bytes, bytes, int]) -> bool:
    flags = 0
    for name in names:
        flags |= FLAGS[name]
    try:
        standing = launcher.create(
            Request(flags=flags, maps=maps, sources=(), plan=((), (), (), int("pid" not in names)))
        )
    except StepError:
        return False
    standing.kill()
    standing.wait_gone(END_TIMEOUT_S)
    standing.release()
    return True


def require_lackable(policy: SandboxPolicy, missing: frozenset[str], reason: str) -> None:
    """Return if the policy lets every one of these namespaces be missing.

    Raises:
        UnsupportedError: it does not; names the first control.
    """
    for name in FLAGS:
        if name in missing and not may_lack(policy, CONTROL_OF[name]) and not _is_replaceable(policy, name):
            raise UnsupportedError(
                f"this host does not let Kavach make a {name} namespace ({reason}); nothing was run",
                control=CONTROL_OF[name],
                needed=f"an unprivileged {name} namespace",
                found=reason,
                hint="kavach doctor names the cause and the fix; may_lack lets a run go on without it",
            )


def _is_replaceable(policy: SandboxPolicy, name: str) -> bool:
    """Return whether something else can hold the control: the filter holds the network, nothing needs cgroup's."""
    return name == "cgroup" or (name == "net" and policy.seccomp.profiles is not None)


def is_mounting_refused(error: StepError) -> bool:
    """Return whether this host lets the caller mount nothing, so that a wall without a mount view may be tried."""
    return error.step in _MOUNT_STEPS and error.errno in _MOUNTING_REFUSED


def refusal(error: StepError, plan: LaunchPlan) -> UnsupportedError | LaunchError:
    """Return what to raise for a step that the kernel refused."""
    said = os.strerror(error.errno)
    if error.step == "system_call_filter" and error.errno == errno.EBUSY:
        return UnsupportedError(
            "something outside listens to this process's system calls already, so `why` cannot; nothing was run",
            control="why",
            needed="a process tree without another seccomp listener (the kernel lets one filter of a chain have one)",
            found=said,
            hint="run without why, or outside the container or sandbox that listens",
        )
    if error.step == "open_trees" and error.errno in _IDMAP_REFUSED and any(owned for *_, owned in plan.trees):
        return UnsupportedError(
            "the file system of the workdir cannot be shown under another owner (idmapped mount); nothing was run",
            control="workdir",
            needed="an idmapped mount (Linux 5.12 and a file system that can)",
            found=said,
            hint="use a workdir on ext4, xfs, btrfs or tmpfs, or leave workdir out and use sb.files",
        )
    if error.step == "open_trees" and error.errno == errno.ELOOP:
        return LaunchError(
            "a writable folder (workdir, write rule or data_dir) is or lies below a symbolic link; nothing was run",
            step=error.step,
            errno=error.errno,
            hint="name the real path: a link may have been planted by an earlier command",
        )
    control = _CONTROL_OF_STEP.get(error.step)
    if control == "mount_view" and not is_mounting_refused(error) and error.step != "seal":
        control = None  # a path of the caller's, not the host
    if control is not None and error.errno in _NOT_PERMITTED:
        return UnsupportedError(
            f"this host refused step {error.step!r} ({said}), so {control} cannot be had; nothing was run",
            control=control,
            needed=f"step {error.step!r}",
            found=said,
            hint="kavach doctor names the cause and the fix",
        )
    return LaunchError(f"step {error.step!r} failed: {said}; nothing untrusted ran", step=error.step, errno=error.errno)
