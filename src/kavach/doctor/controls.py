"""Findings on the controls themselves: seccomp, Landlock, limits, and what of the host weakens them.

Guarantees: pure; each weaker form names what is lost. Does not: read the host. May be called by: `diagnosis`.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from kavach.doctor.report import DEGRADED, NO, YES, Row, have
from kavach.doctor.walls import has_namespace, has_seccomp, usable_abi, wall_without
from kavach.linux import landlock_abi

if TYPE_CHECKING:
    from kavach.doctor.facts import HostFacts

WANTED_CONTROLLERS = ("memory", "pids", "cpu")
UNIFY = "boot with systemd.unified_cgroup_hierarchy=1 (or cgroup_no_v1=all)"
_READ, _TRUNCATE = landlock_abi.LANDLOCK_ACCESS_FS_READ_FILE, landlock_abi.LANDLOCK_ACCESS_FS_TRUNCATE
_CONNECT = landlock_abi.LANDLOCK_ACCESS_NET_CONNECT_TCP
_ABSTRACT = landlock_abi.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET
_SIGNAL = landlock_abi.LANDLOCK_SCOPE_SIGNAL


def privilege_rows(facts: HostFacts) -> list[Row]:
    """Return the rows of what every kernel has, and of the root that only an own view makes read-only."""
    rows = [have(name, "every supported kernel has it") for name in ("no_new_privs", "no_caps")]
    if has_namespace(facts, "mnt"):
        return [*rows, have("read_only_root", "mounted in the own view")]
    instead = usable_abi(facts) > 0
    lost = Row(
        control="read_only_root",
        available=DEGRADED if instead else NO,
        cause="without a mount namespace the root cannot be mounted read-only",
        fix="see mount_view",
        wall_left="Landlock refuses writing" if instead else wall_without(facts, "namespaces"),
    )
    return [*rows, lost]


def seccomp_rows(facts: HostFacts) -> list[Row]:
    """Return the row of system call filters."""
    if has_seccomp(facts):
        return [have("seccomp", "the kernel offers filters that answer with an errno")]
    if facts.files.seccomp_mode is None:
        cause, fix = "the kernel is built without seccomp", "use a kernel with CONFIG_SECCOMP_FILTER=y"
    else:
        cause = "an outer filter refuses the seccomp call, or the kernel is older than 4.14"
        fix = "allow seccomp and prctl in the outer filter"
    left = wall_without(facts, "seccomp")
    return [Row(control="seccomp", available=NO, cause=cause, fix=fix, wall_left=left)]


def landlock_rows(facts: HostFacts) -> list[Row]:
    """Return the row of Landlock itself and those of what it holds, each with what replaces it here."""
    abi = usable_abi(facts)
    cause, fix = _landlock_cause(facts, abi)
    rows = [have("landlock", f"ABI {abi}, seen by making a ruleset")]
    if cause:
        left = wall_without(facts, "landlock")
        held = DEGRADED if abi else NO
        rows = [Row(control="landlock", available=held, cause=cause, fix=fix, wall_left=left)]
    view = "the mount view alone" if has_namespace(facts, "mnt") else ""
    names = {kind: "the own namespace alone" if has_namespace(facts, kind) else "" for kind in ("net", "pid")}
    return [
        *rows,
        _right_row(facts, "filesystem", (_READ, 0, 0, 0), view, fix),
        _right_row(facts, "truncate", (_TRUNCATE, 0, 0, 0), view, fix),
        _right_row(facts, "tcp_ports", (0, _CONNECT, 0, 0), "", fix),
        _right_row(facts, "scope_abstract", (0, 0, _ABSTRACT, 0), names["net"], fix),
        _right_row(facts, "scope_signal", (0, 0, _SIGNAL, 0), names["pid"], fix),
    ]


def _right_row(facts: HostFacts, control: str, wanted: tuple[int, int, int, int], instead: str, fix: str) -> Row:
    """Return the row of one right; `instead` names what holds the control without it."""
    abi, needed = usable_abi(facts), landlock_abi.minimum_abi(wanted)
    if abi >= needed:
        return have(control, f"Landlock ABI {abi}")
    kernel = landlock_abi.kernel_of(needed)
    return Row(
        control=control,
        available=DEGRADED if instead else NO,
        cause=f"it needs Landlock ABI {needed} (Linux {kernel}), here is {f'ABI {abi}' if abi else 'none'}",
        fix=fix or f"use a kernel of {kernel} or later",
        wall_left=instead or wall_without(facts, "landlock"),
    )


def _landlock_cause(facts: HostFacts, abi: int) -> tuple[str, str]:
    """Return why Landlock is absent or less than it claims, and the fix; empty when it keeps its word."""
    claimed, code = facts.kernel.landlock_claimed, facts.kernel.landlock_errno
    if code == errno.EOPNOTSUPP:
        active = ",".join(facts.files.security_modules)
        return (
            f"Landlock is built in but not in the kernel's lsm= list{f' ({active})' if active else ''}",
            f"boot with lsm=landlock,{active}" if active else "add landlock to lsm= on the boot line",
        )
    if code:
        return _absent_landlock(facts, code)
    if claimed < 1 or abi < min(claimed, landlock_abi.HIGHEST_ABI):
        taken = f"only the rights of ABI {abi}" if abi else "no rights at all"
        return (
            f"the kernel claims Landlock ABI {claimed} but its rulesets take {taken}",
            "an outer sandbox answers in the kernel's place: allow the calls 444 to 446 in its filter",
        )
    return "", ""


def _absent_landlock(facts: HostFacts, code: int) -> tuple[str, str]:
    version = facts.files.version
    if facts.files.emulated_by == "gvisor":
        return "this gVisor has no Landlock", "run Kavach outside of gVisor"
    if (0, 0) < version < (5, 13):
        return f"Linux {version[0]}.{version[1]} has no Landlock (5.13 brought it)", "use a newer kernel"
    if facts.files.seccomp_mode == 2 or code in {errno.EPERM, errno.EACCES}:
        return "an outer seccomp filter hides Landlock", "allow the calls 444 to 446 in the outer filter"
    return "the kernel is built without Landlock", "use a kernel with CONFIG_SECURITY_LANDLOCK=y"


def limits_rows(facts: HostFacts) -> list[Row]:
    """Return the row of resource limits: the driver that can be used, and what keeps a better one away."""
    group = facts.files.cgroup
    lacking = [name for name in WANTED_CONTROLLERS if name not in group.v2_controllers]
    if group.v2_delegated and not lacking:
        return [have("limits", f"cgroup v2, delegated: {group.v2_folder}")]
    usable_v1 = all(name in group.v1_writable for name in WANTED_CONTROLLERS)
    if usable_v1:
        layout = "hybrid" if group.layout == "hybrid" else "version 1"
        cause, fix = f"control groups are {layout}: joining them is slow and pausing is weaker", UNIFY
    else:
        cause, fix = _cgroup_cause(facts, lacking)
    watched = "rlimits, CPU affinity and a watchdog: a limit can be overshot before the run is ended"
    return [
        Row(
            control="limits",
            available=YES if usable_v1 else DEGRADED,
            cause=cause,
            fix=fix,
            wall_left="limits by cgroup v1" if usable_v1 else watched,
            evidence=f"cgroup {group.layout}",
        )
    ]


def _cgroup_cause(facts: HostFacts, lacking: list[str]) -> tuple[str, str]:
    group = facts.files.cgroup
    if group.layout == "none":
        return "no control groups are mounted", "mount cgroup2 on /sys/fs/cgroup"
    disabled = ", ".join(name for name in lacking if name in group.disabled)
    if disabled:
        return f"the boot line takes {disabled} away from control groups", "take them out of cgroup_disable= there"
    if group.layout == "v1":
        return "control groups are version 1, and not writable for this user", f"{UNIFY}, or run as root"
    if group.layout == "hybrid":
        names = ", ".join(lacking) or "delegated folder"
        return f"control groups are hybrid: version 2 has no {names} here", f"{UNIFY}, or run as root"
    if group.v2_delegated:
        wanted = " ".join(WANTED_CONTROLLERS)
        return (
            f"the delegated control group lacks {', '.join(lacking)}",
            f"Delegate={wanted} in user@.service, or in the unit that starts this",
        )
    cause = f"the own control group {group.v2_folder} is not delegated: it may not be written"
    if facts.files.container:
        return cause, "Docker: --cgroupns=private and /sys/fs/cgroup mounted read-write"
    return cause, "start under: systemd-run --user --scope -p Delegate=yes"


def hardening_rows(facts: HostFacts) -> list[Row]:
    """Return the rows of host switches that do not make the wall but bear on it."""
    return [_yama_row(facts.files.ptrace_scope), _core_row(facts.files.core_pattern)]


def _yama_row(scope: int | None) -> Row:
    if scope:
        return have("yama", f"kernel.yama.ptrace_scope={scope}")
    absent = scope is None
    found = "the kernel has no Yama" if absent else "kernel.yama.ptrace_scope=0"
    return Row(
        control="yama",
        available=DEGRADED,
        cause=f"{found}: outside of sandboxes processes of one user may trace one another",
        fix="use a kernel with CONFIG_SECURITY_YAMA=y" if absent else "sysctl -w kernel.yama.ptrace_scope=1",
        wall_left="the PID namespace, undumpable launchers and the filter keep commands from tracing",
    )


def _core_row(pattern: str) -> Row:
    if not pattern.startswith("|"):
        return have("core_dumps", f"kernel.core_pattern={pattern}")
    handler = pattern[1:].split(" ", maxsplit=1)[0]
    return Row(
        control="core_dumps",
        available=DEGRADED,
        cause=f"core dumps are piped to {handler}: root on the host would read a command's bytes",
        fix="sysctl -w kernel.core_pattern=core",
        wall_left="a core limit of 1 byte, which keeps the kernel from starting the handler",
    )


def devices_rows(facts: HostFacts) -> list[Row]:
    """Return the rows of accelerators present and of KVM, which the virtual machine walls need."""
    found = "; ".join(f"{family}: {', '.join(nodes)}" for family, nodes in facts.files.devices.items())
    return [have("devices", found or "no accelerator nodes"), _kvm_row(facts.files.kvm)]


def _kvm_row(kvm: dict[str, bool]) -> Row:
    available = NO
    if not kvm.get("present"):
        cause, fix = "there is no /dev/kvm", "switch virtualisation on in firmware or the outer hypervisor"
    elif not kvm.get("accessible"):
        cause, fix = "/dev/kvm may not be opened by this user", "add the user to the group kvm"
    elif kvm.get("pvm"):
        available = DEGRADED
        cause, fix = "this KVM (pvm) does not boot stock guest kernels", "use a host with vmx or svm"
    else:
        return have("kvm", "/dev/kvm may be opened; a wall that needs it boots something first")
    left = "walls without a virtual machine, or an emulated one"
    return Row(control="kvm", available=available, cause=cause, fix=fix, wall_left=left)
