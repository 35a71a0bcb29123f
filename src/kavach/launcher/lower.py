"""Policy words become kernel steps here, and nowhere else.

Guarantees: the plan is a pure function of the policy, the host's facts and the limits' means; every control that the
policy asks for is either a required step, or one that `may_lack` names, or is refused here. Does not: run anything.
May be called by: kavach.backends.process, and tools that print the plan.
"""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING, NamedTuple

from kavach.errors import UnsupportedError
from kavach.launcher import canary
from kavach.launcher.filters import command_filter, init_filter, rest_filter
from kavach.launcher.lower_canaries import canaries_for
from kavach.launcher.lower_files import landlock_paths, mount_steps
from kavach.launcher.situation import INNER_ID, Layout, Situation, Step
from kavach.launcher.view import WORKSPACE
from kavach.linux import landlock_abi as abi
from kavach.linux import uapi

if TYPE_CHECKING:
    from kavach.model.policy import SandboxPolicy


FLAGS = {
    "user": uapi.CLONE_NEWUSER,
    "pid": uapi.CLONE_NEWPID,
    "mnt": uapi.CLONE_NEWNS,
    "ipc": uapi.CLONE_NEWIPC,
    "uts": uapi.CLONE_NEWUTS,
    "net": uapi.CLONE_NEWNET,
    "cgroup": uapi.CLONE_NEWCGROUP,
}
#: What may be missing where a namespace is: the control's name in `may_lack`.
CONTROL_OF = {
    "user": "user_ns",
    "pid": "pid_ns",
    "mnt": "mount_view",
    "ipc": "ipc_ns",
    "uts": "uts_ns",
    "net": "network",
    "cgroup": "limits",
}


class LaunchPlan(NamedTuple):
    """Everything the launcher needs for one sandbox, and what the observer has to see afterwards."""

    namespaces: frozenset[str]
    maps: tuple[bytes, bytes, int]
    trees: tuple[tuple[bytes, int, int], ...]
    launcher_opens: bool
    init_steps: tuple[Step, ...]
    command_steps: tuple[Step, ...]
    canaries: tuple[tuple[object, ...], ...]
    layout: Layout
    landlock: tuple[int, int, int]
    separate_init: bool
    filters: int

    @property
    def has_filter(self) -> bool:
        """Whether the command runs under a filter of ours."""
        return self.filters > 0

    @property
    def flags(self) -> int:
        """The CLONE_NEW* bits."""
        bits = 0
        for name in self.namespaces:
            bits |= FLAGS[name]
        return bits

    def wire(self) -> tuple[object, ...]:
        """Return what init gets."""
        return (self.init_steps, self.command_steps, self.canaries, int("pid" not in self.namespaces))


def lower(policy: SandboxPolicy, situation: Situation) -> LaunchPlan:
    """Return the plan for one sandbox.

    Args:
        policy: validated.
        situation: what else the plan depends on.

    Raises:
        UnsupportedError: this host cannot do what the policy asks for and `may_lack` does not name it.
        ConfigError: a seccomp profile cannot be loaded.
    """
    _require_expressible(policy)
    rights = _landlock_rights(policy, situation)
    has_mounts = "mnt" in situation.namespaces
    scratch = None if has_mounts else situation.scratch
    layout = Layout(WORKSPACE if has_mounts else (scratch or "/"), scratch, situation.view.path)
    separate = situation.facts.can_map_range
    trees = (
        tuple((tree.source.encode(), tree.attributes, tree.owned if separate else 0) for tree in situation.view.trees)
        if has_mounts
        else ()
    )
    launcher_opens = has_mounts and situation.facts.is_privileged
    canaries = canaries_for(policy, situation, rights)
    return LaunchPlan(
        namespaces=situation.namespaces,
        maps=_maps(situation),
        trees=trees,
        launcher_opens=launcher_opens,
        init_steps=tuple(_init_steps(policy, situation, rights, layout, trees, launcher_opens=launcher_opens)),
        command_steps=tuple(_command_steps(policy, situation, rights, canaries)),
        canaries=canaries,
        layout=layout,
        landlock=rights,
        separate_init=separate,
        filters=0 if policy.seccomp.profiles is None else 1 if situation.listening else 2,
    )


def may_lack(policy: SandboxPolicy, control: str) -> bool:
    """Return whether the policy lets this control be missing."""
    return "*" in policy.may_lack or control in policy.may_lack


def _require_expressible(policy: SandboxPolicy) -> None:
    if policy.network.mode == "allow":
        raise UnsupportedError(
            "network 'allow' needs the egress proxy, which this version does not have; use 'none' or 'host'",
            control="egress",
            needed="the egress proxy",
            found="no egress proxy in this version",
        )


def _landlock_rights(policy: SandboxPolicy, situation: Situation) -> tuple[int, int, int]:
    """Return (file system, network, scopes) that are asked of Landlock and that it has."""
    has_fs, has_net, has_scopes = situation.facts.landlock
    # A domain that handles files refuses every mount inside it, and a nested sandbox has to mount.
    fs = 0 if policy.nested else abi.rights(abi.HIGHEST_ABI)[0] & has_fs
    net = 0
    if policy.landlock.tcp_bind_ports is not None:
        net |= abi.LANDLOCK_ACCESS_NET_BIND_TCP
    if policy.landlock.tcp_connect_ports is not None:
        net |= abi.LANDLOCK_ACCESS_NET_CONNECT_TCP
    scopes = 0
    if policy.landlock.scope_abstract or (policy.network.mode == "none" and "net" not in situation.namespaces):
        scopes |= abi.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET
    # SECURITY: where no PID namespace hides the caller's other processes, this alone keeps them from being killed.
    if policy.landlock.scope_signal or "pid" not in situation.namespaces:
        scopes |= abi.LANDLOCK_SCOPE_SIGNAL
    return fs, net & has_net, scopes & has_scopes


def _maps(situation: Situation) -> tuple[bytes, bytes, int]:
    facts = situation.facts
    if "user" not in situation.namespaces:
        return b"", b"", 0
    if facts.can_map_range:
        first = facts.first_id + 2 * situation.slot
        lines = b"0 %d 1\n%d %d 1" % (first, INNER_ID, first + 1)
        return lines, lines, 0
    return b"%d %d 1" % (INNER_ID, facts.uid), b"%d %d 1" % (INNER_ID, facts.gid), 1


def _init_steps(
    policy: SandboxPolicy,
    situation: Situation,
    rights: tuple[int, int, int],
    layout: Layout,
    trees: tuple[tuple[bytes, int, int], ...],
    *,
    launcher_opens: bool,
) -> list[Step]:
    names = situation.namespaces
    separate = situation.facts.can_map_range and "user" in names
    steps: list[Step] = [(b"die_with_launcher", 1, ()), (b"oom_score", 0, (200,))]
    if "pid" not in names:
        steps.append((b"adopt_orphans", 1, ()))
    if separate:
        steps.append((b"take_ids", 1, (0, 0, 1)))
    steps.append((b"leave_keyring", 1, ()))
    if "mnt" in names:
        steps += mount_steps(policy, situation, trees, launcher_opens=launcher_opens)
    if "uts" in names:
        steps.append((b"name_host", 1, (situation.hostname.encode(), situation.domainname.encode())))
    if "net" in names:
        steps.append((b"loopback_up", 1, ()))
    ports = (*(policy.landlock.tcp_connect_ports or ()),) if rights[1] and "net" in names else ()
    steps.append((b"listen", 1, (situation.witness, ports[:0])))
    steps.append((b"core_limit", 1, ()))
    if any(rights):
        steps.append(
            (
                b"landlock_ruleset",
                1,
                (*rights, landlock_paths(policy, situation, rights[0], layout), _ports(policy, rights[1])),
            )
        )
    steps.append((b"no_new_privileges", 1, ()))
    if "user" not in names and situation.facts.can_map_range:
        all_four = (uapi.CAP_KILL, uapi.CAP_SETGID, uapi.CAP_SETUID, uapi.CAP_SETPCAP)
        steps.append((b"keep_capabilities", 1, (all_four,)))
    elif "user" in names:
        kept = (uapi.CAP_KILL, uapi.CAP_SETGID, uapi.CAP_SETUID) if separate else (uapi.CAP_KILL,)
        steps += [(b"drop_bounding_set", 1, ()), (b"keep_capabilities", 1, (kept,))]
    steps.append((b"become_undumpable", 1, ()))
    program = init_filter(policy, situation.facts.machine, has_network_namespace="net" in names)
    # A call that init's filter refuses would never reach a listener: where one listens, init has none.
    if program and not situation.listening:
        steps.append((b"filter_init", 1, (program,)))
    return steps


def _ports(policy: SandboxPolicy, handled: int) -> tuple[tuple[int, int], ...]:
    rows = [(port, abi.LANDLOCK_ACCESS_NET_BIND_TCP) for port in policy.landlock.tcp_bind_ports or ()]
    rows += [(port, abi.LANDLOCK_ACCESS_NET_CONNECT_TCP) for port in policy.landlock.tcp_connect_ports or ()]
    return tuple((port, access) for port, access in rows if access & handled)


def _command_steps(
    policy: SandboxPolicy,
    situation: Situation,
    rights: tuple[int, int, int],
    canaries: tuple[tuple[object, ...], ...],
) -> list[Step]:
    names = situation.namespaces
    separate = situation.facts.can_map_range
    phases = {row[0] for row in canaries}
    steps: list[Step] = [(b"own_session", 1, ()), (b"limits", 1, (_rlimits(policy, situation),))]
    if situation.group.cores is not None:
        steps.append((b"processor", 1, (tuple(sorted(situation.group.cores)),)))
    # ORDER: no_new_privs before Landlock (EPERM otherwise), Landlock before the ids, the ids before the last
    # capability, the death signal after the ids (a change of ids clears it), the filter last of all.
    steps.append((b"no_new_privileges", 1, ()))
    if canary.BEFORE_LANDLOCK in phases:
        steps.append((b"try_before", 1, ()))
    if any(rights):
        steps.append((b"restrict", 1, ()))
    if canary.AFTER_LANDLOCK in phases:
        steps.append((b"try_after", 1, ()))
    if "user" not in names and separate:
        # Where CAP_SETPCAP is missing the row no_caps says so.
        steps.append((b"empty_bounding_set", 0, ()))
    if separate and "user" in names:
        steps.append((b"ids", 1, (INNER_ID, INNER_ID, 1)))
    elif separate:
        outer = situation.facts.first_id + 2 * situation.slot + 1
        steps.append((b"ids", 1, (outer, outer, 1)))
    steps += [
        (b"no_capabilities", 1, ()),
        (b"die_with_init", 1, ()),
        (b"close_descriptors", 1, ()),
        (b"niceness", 1, (0, 0o22)),
    ]
    make = command_filter if situation.listening else rest_filter
    program, flags = make(policy, situation.facts.machine, situation.group, has_network_namespace="net" in names)
    if program:
        steps.append((b"system_call_filter", 1, (program, flags)))
    steps.append((b"try_final", 1, ()))
    return steps


def _rlimits(policy: SandboxPolicy, situation: Situation) -> tuple[tuple[int, int, int], ...]:
    limits = policy.limits
    rows = []
    for number, value in (
        (resource.RLIMIT_NOFILE, limits.open_files),
        (resource.RLIMIT_FSIZE, limits.file_size),
        (resource.RLIMIT_CPU, limits.cpu_time_s),
    ):
        if value is not None:
            rows.append((number, value, value + 1 if number == resource.RLIMIT_CPU else value))
    # Where init shares the commands' user id it counts towards their number of processes.
    own = 0 if situation.facts.can_map_range else 1 + situation.user_tasks
    rows += [(number, soft + own, hard + own) for number, soft, hard in situation.group.rlimits]
    return tuple(rows)
