"""Policy words become kernel steps here, and nowhere else.

Guarantees: the plan is a pure function of the policy, the host's facts and the limits' means; every control that the
policy asks for is either a required step, or one that `may_lack` names, or is refused here. Does not: run anything. May be
called by: kavach.backends.process, and tools that print the plan.
"""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING, NamedTuple

from kavach.errors import UnsupportedError
from kavach.launcher import canary
from kavach.launcher.filters import command_filter, init_filter
from kavach.launcher.view import MASKED_PROC, READ_ONLY_PROC, WORKSPACE, View
from kavach.linux import landlock_abi as abi
from kavach.linux import uapi

if TYPE_CHECKING:
    from kavach.launcher.facts import Facts
    from kavach.launcher.groups import Group
    from kavach.model.policy import SandboxPolicy

Step = tuple[bytes, int, tuple[object, ...]]

INNER_ID = 1000  # the command's user and group inside; any number but 0 would do
WITNESS = b"kavach-witness"  # abstract name of the socket that init keeps for the canaries
NOWHERE = b"192.0.2.1"  # RFC 5737, TEST-NET-1: an address that is never routed
DISCARD = 9  # RFC 863
SECRETS_FOLDER = "/run/secrets"

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

READ = abi.LANDLOCK_ACCESS_FS_READ_FILE | abi.LANDLOCK_ACCESS_FS_READ_DIR
EXECUTE = abi.LANDLOCK_ACCESS_FS_EXECUTE
WRITE = (
    abi.LANDLOCK_ACCESS_FS_WRITE_FILE
    | abi.LANDLOCK_ACCESS_FS_REMOVE_DIR
    | abi.LANDLOCK_ACCESS_FS_REMOVE_FILE
    | abi.LANDLOCK_ACCESS_FS_MAKE_DIR
    | abi.LANDLOCK_ACCESS_FS_MAKE_REG
    | abi.LANDLOCK_ACCESS_FS_MAKE_SOCK
    | abi.LANDLOCK_ACCESS_FS_MAKE_FIFO
    | abi.LANDLOCK_ACCESS_FS_MAKE_SYM
    | abi.LANDLOCK_ACCESS_FS_REFER
    | abi.LANDLOCK_ACCESS_FS_TRUNCATE
)
DEVICE = abi.LANDLOCK_ACCESS_FS_WRITE_FILE | abi.LANDLOCK_ACCESS_FS_TRUNCATE | abi.LANDLOCK_ACCESS_FS_IOCTL_DEV


class Layout(NamedTuple):
    """Where things are, inside: the same words whether there is a mount view or not."""

    workspace: str
    scratch: str | None
    path: tuple[str, ...]


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
    has_filter: bool

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


class Situation(NamedTuple):
    """What a plan depends on beside the policy: the host, the limits' means, this sandbox's own names."""

    facts: Facts
    group: Group
    namespaces: frozenset[str]
    view: View
    hostname: str
    domainname: str
    own_workdir: bool
    scratch: str | None
    slot: int
    has_secret_files: bool
    listening: bool
    has_proc: bool = True


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
        tuple((tree.source.encode(), tree.attributes, int(tree.owned and separate)) for tree in situation.view.trees)
        if has_mounts
        else ()
    )
    launcher_opens = has_mounts and situation.facts.is_privileged
    canaries = _canaries(policy, situation, rights)
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
        has_filter=policy.seccomp.profiles is not None,
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
    if policy.landlock.scope_abstract:
        scopes |= abi.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET
    if policy.landlock.scope_signal:
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
        steps += _mount_steps(policy, situation, trees, launcher_opens=launcher_opens)
    if "uts" in names:
        steps.append((b"name_host", 1, (situation.hostname.encode(), situation.domainname.encode())))
    if "net" in names:
        steps.append((b"loopback_up", 1, ()))
    ports = (*(policy.landlock.tcp_connect_ports or ()),) if rights[1] and "net" in names else ()
    steps.append((b"listen", 1, (WITNESS, ports[:0])))
    steps.append((b"core_limit", 1, ()))
    if any(rights):
        steps.append(
            (
                b"landlock_ruleset",
                1,
                (*rights, _paths(policy, situation, rights[0], layout), _ports(policy, rights[1])),
            )
        )
    steps.append((b"no_new_privileges", 1, ()))
    if "user" in names:
        kept = (uapi.CAP_KILL, uapi.CAP_SETGID, uapi.CAP_SETUID) if separate else (uapi.CAP_KILL,)
        steps += [(b"drop_bounding_set", 1, ()), (b"keep_capabilities", 1, (kept,))]
    steps.append((b"become_undumpable", 1, ()))
    program = init_filter(policy, situation.facts.machine, has_network_namespace="net" in names)
    if program:
        steps.append((b"filter_init", 1, (program,)))
    return steps


def _mount_steps(
    policy: SandboxPolicy,
    situation: Situation,
    trees: tuple[tuple[bytes, int, int], ...],
    *,
    launcher_opens: bool,
) -> list[Step]:
    view = situation.view
    steps: list[Step] = [(b"private_mounts", 1, ())]
    if not launcher_opens:
        steps.append((b"open_trees", 1, (trees,)))
    has_proc = situation.has_proc and "pid" in situation.namespaces
    attachments = [(index, tree.target.encode()) for index, tree in enumerate(view.trees)]
    if has_proc:
        steps.append((b"open_proc", 1, (((b"hidepid", b"2"),),)))
        attachments.append((len(trees), b"/proc"))
    sizes = _sizes(policy)
    owner = f"uid={INNER_ID},gid={INNER_ID}"
    steps += [
        (b"new_root", 1, (f"mode=755,nr_inodes=4096,size=4m,{owner}".encode(),)),
        (
            b"folders",
            1,
            (
                (
                    (b"/.kavach", 0o755),
                    (b"/.kavach/folder", 0),
                    (b"/proc", 0o555),
                    (b"/etc", 0o755),
                    (b"/dev", 0o755),
                    (b"/tmp", 0o755),
                    (b"/workspace", 0o755),
                ),
            ),
        ),
        (
            b"files",
            1,
            (
                (
                    (b"/.kavach/file", 0, b""),
                    *(
                        (path.encode(), mode, text.encode())
                        for path, mode, text in view.files
                        if not path.startswith("/.kavach")
                    ),
                ),
            ),
        ),
        (
            b"links",
            1,
            (tuple((target.encode(), path.encode()) for target, path in (*view.links, *_DEVICE_LINKS)),),
        ),
    ]
    flags = uapi.MS_NOSUID | uapi.MS_NODEV
    steps += [
        (b"mount_new", 1, (b"tmpfs", b"/tmp", flags, f"mode=1777,{sizes['tmp']}{owner}".encode())),
        (
            b"mount_new",
            1,
            (b"tmpfs", b"/dev/shm", flags | uapi.MS_NOEXEC, f"mode=1777,{sizes['shm']}{owner}".encode()),
        ),
        (
            b"mount_new",
            0,
            (b"devpts", b"/dev/pts", uapi.MS_NOSUID | uapi.MS_NOEXEC, b"newinstance,ptmxmode=0666,mode=620"),
        ),
    ]
    if situation.own_workdir:
        steps.append(
            (
                b"mount_new",
                1,
                (b"tmpfs", b"/workspace", flags, f"mode=755,{sizes['workspace']}{owner}".encode()),
            )
        )
    if situation.has_secret_files:
        steps.append(
            (
                b"mount_new",
                1,
                (
                    b"tmpfs",
                    SECRETS_FOLDER.encode(),
                    flags | uapi.MS_NOEXEC,
                    f"mode=700,size=2m,{owner}".encode(),
                ),
            )
        )
    steps.append((b"attach", 1, (tuple(attachments),)))
    if view.masked:
        steps.append((b"mask", 1, (tuple(path.encode() for path in view.masked),)))
    if not policy.nested:
        steps.append((b"forbid_user_namespaces", 0, ()))
        if has_proc:
            steps.append((b"mask", 1, (tuple(f"/proc/{name}".encode() for name in MASKED_PROC),)))
            steps.append((b"make_read_only", 1, (tuple(f"/proc/{name}".encode() for name in READ_ONLY_PROC),)))
    if policy.filesystem.read_only_rootfs:
        steps.append((b"seal_root", 1, ()))
    steps.append((b"hold_folder", 1, (WORKSPACE.encode(),)))
    return steps


_DEVICE_LINKS = (
    ("/proc/self/fd", "/dev/fd"),
    ("fd/0", "/dev/stdin"),
    ("fd/1", "/dev/stdout"),
    ("fd/2", "/dev/stderr"),
    ("pts/ptmx", "/dev/ptmx"),
)


def _sizes(policy: SandboxPolicy) -> dict[str, str]:
    """Return the tmpfs options: all together at most half of the memory limit, for what they hold counts as memory."""
    memory = policy.limits.memory_limit_mb
    half = None if memory is None else memory * (1 << 20) // 2
    wanted = {"workspace": policy.limits.disk_bytes, "tmp": policy.filesystem.tmp_bytes, "shm": None}
    shares = {"workspace": 4, "tmp": 3, "shm": 1}
    options = {}
    for name, asked in wanted.items():
        share = None if half is None else half * shares[name] // 8
        size = asked if share is None else min(asked or share, half or 0)
        options[name] = "" if size is None else f"size={size},nr_inodes={max(1024, size // 4096)},"
    return options


def _paths(policy: SandboxPolicy, situation: Situation, handled: int, layout: Layout) -> tuple[tuple[bytes, int], ...]:
    """Return the Landlock rules as (path, rights)."""
    if not handled:
        return ()
    everything = READ | EXECUTE | WRITE
    if "mnt" in situation.namespaces:
        rows = {
            "/": READ | EXECUTE,
            "/dev": READ | EXECUTE | DEVICE,
            "/tmp": everything,
            "/dev/shm": everything,
            WORKSPACE: everything,
        }
        if situation.has_secret_files:
            rows[SECRETS_FOLDER] = READ | WRITE
        if not policy.filesystem.read_only_rootfs:
            rows["/"] = everything
            rows["/dev"] = everything | DEVICE
    else:
        rows = {tree.target: READ | EXECUTE for tree in situation.view.trees if not tree.target.startswith("/dev/")}
        rows |= {
            f"/dev/{name}": READ | DEVICE
            for name in ("null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts")
        }
        rows |= {"/proc": READ}
        if layout.scratch is not None:
            rows[layout.scratch] = everything
    rows |= dict.fromkeys(situation.view.writable, everything)
    rows |= dict.fromkeys(policy.devices, READ | DEVICE)
    return tuple((path.encode(), access & handled) for path, access in rows.items())


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
    if "user" not in names and situation.facts.is_privileged:
        steps.append((b"empty_bounding_set", 1, ()))
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
    program, flags = command_filter(
        policy,
        situation.facts.machine,
        situation.group,
        has_network_namespace="net" in names,
        listening=situation.listening,
    )
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
    own = 0 if situation.facts.can_map_range else 1
    rows += [(number, soft + own, hard + own) for number, soft, hard in situation.group.rlimits]
    return tuple(rows)


def _canaries(
    policy: SandboxPolicy, situation: Situation, rights: tuple[int, int, int]
) -> tuple[tuple[object, ...], ...]:
    names = situation.namespaces
    before, after, final = canary.BEFORE_LANDLOCK, canary.AFTER_LANDLOCK, canary.FINAL
    rows: list[tuple[object, ...]] = []
    if rights[2] & abi.LANDLOCK_SCOPE_SIGNAL and "pid" in names:
        rows += [(when, b"signal", b"signal", 1) for when in (before, after)]
    if rights[2] & abi.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET:
        rows += [(when, b"abstract", b"abstract", WITNESS) for when in (before, after)]
    if rights[1]:
        rows += _port_canaries(policy, rights[1])
    if policy.seccomp.profiles is not None:
        rows += [(final, b"ptrace", b"ptrace"), (final, b"add_key", b"add_key")]
    if policy.network.mode == "none":
        rows.append((final, b"udp", b"udp", NOWHERE, DISCARD))
    if "mnt" in names:
        rows.append((final, b"root", b"create", b"/.kavach-canary"))
        rows.append((final, b"system", b"create", b"/usr/.kavach-canary"))
    elif rights[0]:
        rows.append((final, b"host_file", b"open", b"/proc/1/environ"))
        rows.append((final, b"host_write", b"create", b"/var/tmp/.kavach-canary"))
    rows += [(final, b"denied", b"open", rule.path.encode()) for rule in policy.filesystem.deny]
    rows += [
        (final, b"allowed", b"open", rule.path.encode())
        for rule in (*policy.filesystem.read, *policy.filesystem.execute)
    ]
    if not policy.nested and ("mnt" in names or policy.seccomp.profiles is not None):
        rows.append((final, b"user_namespace", b"user_namespace"))
    return tuple(rows)


def _port_canaries(policy: SandboxPolicy, handled: int) -> list[tuple[object, ...]]:
    """Try ports that no rule names: refused by Landlock itself (EACCES), whether or not anything listens."""
    rows: list[tuple[object, ...]] = []
    if handled & abi.LANDLOCK_ACCESS_NET_CONNECT_TCP:
        port = _unnamed(policy.landlock.tcp_connect_ports or ())
        rows += [
            (when, b"connect", b"tcp", b"127.0.0.1", port) for when in (canary.BEFORE_LANDLOCK, canary.AFTER_LANDLOCK)
        ]
    if handled & abi.LANDLOCK_ACCESS_NET_BIND_TCP:
        port = _unnamed(policy.landlock.tcp_bind_ports or ())
        rows += [(when, b"bind", b"bind", port) for when in (canary.BEFORE_LANDLOCK, canary.AFTER_LANDLOCK)]
    return rows


def _unnamed(ports: tuple[int, ...]) -> int:
    return next(port for port in range(1024, 65536) if port not in ports)
