"""Findings on what surrounds the wall: the host, its kernel, its namespaces and its /proc.

Guarantees: pure; a refusal without a known cause says so. Does not: read the host. May be called by:
`diagnosis`.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from kavach.doctor.report import DEGRADED, NO, YES, Row, have
from kavach.doctor.walls import best_wall, has_namespace, has_namespaces, has_seccomp, wall_without

if TYPE_CHECKING:
    from kavach.doctor.facts import HostFacts

# clone3, close_range, mount_setattr, Landlock ABI 1, cgroup.kill, RLIMIT_NPROC per user namespace.
KERNEL_FLOOR = (5, 14)
_NO_VIEW = "no mount view: a policy that may lack mount_view runs by Landlock alone, another is refused"
# What the wall does where a call is not there (docs/kernel-support.md has the same table).
FALLBACKS = {
    "pidfd_open": "none: the launcher does not start",
    "clone3": "clone; where control groups v2 hold the limits, which need it, runs are refused",
    "close_range": "descriptors are closed one by one",
    "openat2": "nothing is lost: the wall does not call it",
    "mount_setattr": _NO_VIEW,
    "open_tree": _NO_VIEW,
}
EMULATIONS = {
    "wsl1": (
        NO,
        "WSL 1 translates system calls and has neither namespaces nor seccomp nor Landlock",
        "convert the distribution: wsl --set-version NAME 2",
    ),
    "wsl2": (
        DEGRADED,
        "WSL 2: Windows folders under /mnt and Windows programs can be reached from this Linux",
        "in /etc/wsl.conf switch [interop] and [automount] off (enabled=false); then wsl --shutdown",
    ),
    "gvisor": (
        DEGRADED,
        "gVisor plays the kernel here: it lacks controls of Linux, and refusals are its own",
        "run Kavach outside and use its gvisor wall, or take the outer gVisor for a second layer",
    ),
}


_OUTER_FILTER = (
    "the seccomp filter of the outer container or service refuses it",
    "allow clone, unshare, mount and pivot_root there (Docker: a seccomp profile of your own)",
)


def host_rows(facts: HostFacts) -> list[Row]:
    """Return the rows of who plays the kernel and whose container this is."""
    files, rows, left = facts.files, [], best_wall(facts)
    if files.emulated_by:
        available, cause, fix = EMULATIONS[files.emulated_by]
        rows.append(Row(control="host", available=available, cause=cause, fix=fix, wall_left=left))
    if files.container or files.in_user_namespace:
        kind = files.container or "a user namespace that is not the first"
        rows.append(
            Row(
                control="host",
                available=DEGRADED,
                cause=f"this is inside a container ({kind}): its own filter, masks and control groups bound"
                " what Kavach may use",
                fix="run Kavach on the container's host, or lift the single refusals that other rows name",
                wall_left=left,
            )
        )
    return rows or [have("host", "a Linux kernel of its own")]


def kernel_rows(facts: HostFacts) -> list[Row]:
    """Return the rows of the kernel's age and of each newer call that is not there."""
    version, rows = facts.files.version, []
    if (0, 0) < version < KERNEL_FLOOR:
        rows.append(
            Row(
                control="kernel",
                available=DEGRADED,
                cause=f"Linux {version[0]}.{version[1]} is older than 5.14, for which the wall is made",
                fix="use a kernel of 5.14 or later",
                wall_left="fallbacks call by call; what has none is refused",
                evidence=facts.files.release,
            )
        )
    for name, state in facts.kernel.calls.items():
        if state == "present":
            continue
        absent = state == "absent"
        rows.append(
            Row(
                control="kernel",
                available=DEGRADED,
                cause=f"{name} " + ("does not exist here" if absent else "is refused by an outer filter"),
                fix="use a newer kernel" if absent else f"allow {name} in the outer filter",
                wall_left=FALLBACKS.get(name, ""),
            )
        )
    return rows or [have("kernel", facts.files.release)]


def user_namespace_rows(facts: HostFacts) -> list[Row]:
    """Return one row per cause that keeps user namespaces away."""
    stage, code = facts.kernel.attempt
    if has_namespaces(facts):
        return [have("user_ns", "made and mapped in a victim process")]
    evidence = f"{stage}: {errno.errorcode.get(code, code)}" if code else "the victim process did not run"
    left = wall_without(facts, "namespaces")
    return [
        Row(control="user_ns", available=NO, cause=cause, fix=fix, wall_left=left, evidence=evidence)
        for cause, fix in _namespace_causes(facts) or [_unknown_cause(stage, code)]
    ]


def _namespace_causes(facts: HostFacts) -> list[tuple[str, str]]:
    """Return each known cause that holds here and its fix."""
    files, found = facts.files, []
    if files.namespaces and "user" not in files.namespaces:
        found.append(("the kernel is built without user namespaces", "use a kernel with CONFIG_USER_NS=y"))
    found += _limit_causes(facts, "user")
    if not files.is_privileged:
        found += _plain_user_causes(files.sysctls)
    if files.seccomp_mode == 2:
        found.append(_OUTER_FILTER)
    return found


def _limit_causes(facts: HostFacts, kind: str) -> list[tuple[str, str]]:
    name = f"user.max_{kind}_namespaces"
    if facts.files.sysctls.get(name) != 0:
        return []
    return [(f"{name}=0 forbids new ones", f"sysctl -w {name}=15000")]


def _plain_user_causes(sysctls: dict[str, int]) -> list[tuple[str, str]]:
    found = []
    switch = "kernel.unprivileged_userns_clone"
    if sysctls.get(switch) == 0:
        found.append((f"{switch}=0 keeps them for root", f"sysctl -w {switch}=1"))
    switch = "kernel.apparmor_restrict_unprivileged_userns"
    if sysctls.get(switch, 0) > 0:
        found.append(
            (
                f"AppArmor takes the capabilities from a plain user's namespace ({switch}=1)",
                f"an AppArmor profile with `userns,` for the Python interpreter, or sysctl -w {switch}=0",
            )
        )
    return found


def _unknown_cause(stage: str, code: int) -> tuple[str, str]:
    if code == 0:
        return "the probe did not run", "check that this account can start the Python interpreter with -I -S"
    if code in {errno.ENOSPC, errno.EUSERS}:
        return "too many namespaces, or nested too deep", "raise user.max_user_namespaces, or nest less"
    words = os.strerror(code)
    return (
        f"the step {stage} was refused ({words}): by a security module, a chroot or an outer sandbox",
        "look for a denial in the kernel log, and try outside of the chroot or container",
    )


def other_namespace_rows(facts: HostFacts) -> list[Row]:
    """Return the rows of the namespaces that need a user namespace, and can be refused beside it."""
    controls = {"pid": "pid_ns", "mnt": "mount_view", "ipc": "ipc_ns", "uts": "uts_ns", "net": "network"}
    return [_namespace_row(facts, kind, control) for kind, control in controls.items()]


def _namespace_row(facts: HostFacts, kind: str, control: str) -> Row:
    if has_namespace(facts, kind):
        return have(control, "made in a victim process")
    is_replaced = kind == "net" and has_seccomp(facts)
    cause, fix = _kind_cause(facts, kind)
    return Row(
        control=control,
        available=YES if is_replaced else NO,
        cause=cause,
        fix=fix,
        wall_left=best_wall(facts),
        evidence="without a namespace the filter refuses every socket family but unix" if is_replaced else "",
    )


def _kind_cause(facts: HostFacts, kind: str) -> tuple[str, str]:
    """Return why a namespace of this kind cannot be made, and the fix."""
    if facts.files.namespaces and kind not in facts.files.namespaces:
        return f"the kernel has no {kind} namespaces", "use a kernel built with them"
    if not has_namespaces(facts):
        return "it needs a user namespace", "see user_ns"
    if kind not in facts.kernel.refused:
        return "a mount view needs a PID namespace, whose /proc it shows", "see pid_ns"
    known = _limit_causes(facts, kind)
    if not known and facts.files.seccomp_mode == 2:
        known = [_OUTER_FILTER]
    words = f"the kernel or a security module refuses {kind} namespaces", "look for a denial in the kernel log"
    return known[0] if known else words


def proc_rows(facts: HostFacts) -> list[Row]:
    """Return the row of a fresh /proc: an attempt decides, masks explain."""
    masks, (stage, code) = facts.files.masked_proc, facts.kernel.attempt
    if not masks and stage != "fresh_proc":
        return [have("proc", "mounted in a victim process" if stage == "" else "not masked")]
    if stage == "":
        return [have("proc", f"a fresh one stood, although {len(masks)} parts are masked")]
    shown = ", ".join(masks[:4]) + (" and more" if len(masks) > 4 else "")
    why = f"/proc is masked ({shown})" if masks else "the kernel or a security module refuses it"
    return [
        Row(
            control="proc",
            available=DEGRADED,
            cause=f"no fresh /proc may be mounted: {why}",
            fix="Docker: --security-opt systempaths=unconfined; Kubernetes: procMount: Unmasked",
            wall_left="the sandbox without a /proc of its own",
            evidence=f"mount: {errno.errorcode.get(code, code)}" if stage == "fresh_proc" else "mountinfo",
        )
    ]
