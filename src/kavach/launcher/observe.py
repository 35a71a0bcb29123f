"""What was seen, judged: compares canaries with their controls, and answers each ask with a row.

Guarantees: a row says `enforced` only where the kernel, asked from outside, and the canary, tried from inside, both
said so; nothing counts because it was asked for or because a call returned 0. Does not: decide whether the run may go
on (kavach.backends.process does). May be called by: kavach.backends.process.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from kavach.launcher import canary
from kavach.launcher.evidence import own_filters
from kavach.linux import landlock_abi as abi
from kavach.model.enforcement import Control, ControlState, Enforcement, Hole
from kavach.policy.strength import asks

if TYPE_CHECKING:
    from kavach.launcher.evidence import Sight
    from kavach.launcher.groups import Group
    from kavach.launcher.lower import LaunchPlan
    from kavach.model.enforcement import Ask, ControlRow
    from kavach.model.policy import SandboxPolicy

_REFUSED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ELOOP})
_NO_SOCKET = frozenset({errno.EPERM, errno.EACCES, errno.EAFNOSUPPORT})
_CONNECTED = frozenset({0, errno.EAGAIN, errno.EINPROGRESS, errno.EPROTOTYPE})  # EPROTOTYPE: there, of another kind
_CAPABILITY_SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
Answer = tuple[ControlState, str, str, str]  # state, detail, evidence, reason

ENFORCED, DEGRADED, UNSUPPORTED, FAILED = (
    ControlState.ENFORCED,
    ControlState.DEGRADED,
    ControlState.UNSUPPORTED,
    ControlState.FAILED,
)


def judge(
    policy: SandboxPolicy,
    plan: LaunchPlan,
    group: Group,
    driver: str,
    sight: Sight,
    *,
    allow_list: bool,
    bypass: bool,
    secret_files: tuple[str, ...] | None = None,
) -> Enforcement:
    """Return one row a control, and the holes that canaries found.

    Args:
        policy: what was asked.
        plan: how it was lowered.
        group: the limits and what was read back of them.
        driver: the name of the limits' driver.
        sight: what was seen.
        allow_list: whether the filter's default is to refuse.
        bypass: whether a host folder is bound writable, past the gate.
        secret_files: where secrets become files inside, None where no secret is injected.
    """
    view = _View(policy, plan, group, driver, sight, allow_list=allow_list, secret_files=secret_files or ())
    rows: list[ControlRow] = []
    also = [Control.SECRETS] if secret_files is not None else []
    also += [Control.WORKDIR, Control.FILES_GATED] if bypass else []
    for ask in asks(policy, also=also):
        if not ask.asked:
            rows.append(ask.row(ControlState.NOT_ASKED))
            continue
        state, detail, evidence, reason = view.answer(ask)
        rows.append(ask.row(state, detail=detail, evidence=evidence, reason=reason))
    return Enforcement.of("process", rows, holes=view.holes())


class _View:
    """One judgement: a method a control."""

    def __init__(
        self,
        policy: SandboxPolicy,
        plan: LaunchPlan,
        group: Group,
        driver: str,
        sight: Sight,
        *,
        allow_list: bool,
        secret_files: tuple[str, ...],
    ) -> None:
        self._policy = policy
        self._plan = plan
        self._group = group
        self._driver = driver
        self._sight = sight
        self._allow_list = allow_list
        self._secret_files = secret_files

    def answer(self, ask: Ask) -> Answer:
        method = _METHODS.get(ask.control)
        return method(self) if method is not None else (UNSUPPORTED, "", "", "not a control of this wall")

    def holes(self) -> list[Hole]:
        found = []
        if self._policy.network.mode == "none" and self._outcome("udp") == 0:
            found.append(Hole.NETWORK_ESCAPED)
        if 0 in self._outcomes("denied"):
            found.append(Hole.DENIED_PATH_READABLE)
        if self._outcomes("host_socket") & _CONNECTED:
            found.append(Hole.HOST_SOCKET_REACHABLE)
        if self._outcome("host_init") == 0:
            found.append(Hole.HOST_INIT_SIGNALABLE)
        if self._outcome("environment") == 0:
            found.append(Hole.HOST_SECRET_IN_ENVIRONMENT)
        if "user" not in self._plan.namespaces and self._sight.status.get("Uid", "").split()[:1] == ["0"]:
            found.append(Hole.HOST_ROOT)
        return found

    def _outcome(self, name: str, phase: int = canary.FINAL) -> int | None:
        return self._sight.outcomes.get((name, phase))

    def _outcomes(self, name: str) -> frozenset[int]:
        """Return what the canaries `name:0`, `name:1`, ... answered."""
        return frozenset(code for (one, _), code in self._sight.outcomes.items() if one.startswith(f"{name}:"))

    def _silent(self, *kinds: str) -> list[str]:
        """Return the canaries of these kinds that the plan has and that nobody answered: no evidence, no control."""
        planned = ((str(name, "ascii"), int(phase)) for phase, name, *_ in self._plan.canaries)  # type: ignore[call-overload]  # plain rows
        return [
            name for name, phase in planned if name.split(":")[0] in kinds and (name, phase) not in self._sight.outcomes
        ]

    def _namespace(self, name: str) -> Answer:
        own, host = self._sight.inodes[name], self._sight.host_inodes[name]
        if name in self._plan.namespaces and own != host:
            return ENFORCED, "", f"{name}:[{own}], the host's is [{host}]", ""
        return UNSUPPORTED, "", "", f"this host does not let the caller make a {name} namespace"

    def user_ns(self) -> Answer:
        return self._namespace("user")

    def pid_ns(self) -> Answer:
        return self._namespace("pid")

    def ipc_ns(self) -> Answer:
        return self._namespace("ipc")

    def uts_ns(self) -> Answer:
        return self._namespace("uts")

    def mount_view(self) -> Answer:
        state, detail, evidence, reason = self._namespace("mnt")
        if state is not ENFORCED:
            return state, detail, evidence, reason
        stray = _writable_host_mounts(self._sight.mounts, self._plan)
        if stray:
            return FAILED, "", evidence, f"writable in mountinfo: {', '.join(stray[:3])}"
        if self._outcome("system") not in _REFUSED:
            return FAILED, "", evidence, f"writing to /usr answered {_name(self._outcome('system'))}"
        if not any(kind == b"proc" and point == b"/proc" for point, _, kind, _ in self._sight.mounts):
            return (
                DEGRADED,
                "",
                evidence,
                "no fresh /proc: the visible one has files masked, so the kernel refuses another",
            )
        written = _name(self._outcome("system"))
        seen = f"{evidence}; {len(self._sight.mounts)} mounts, none of the host writable; write to /usr: {written}"
        return ENFORCED, "", seen, ""

    def no_caps(self) -> Answer:
        values = {name: self._sight.status.get(name, "") for name in _CAPABILITY_SETS}
        held = [name for name, value in values.items() if not value or int(value, 16)]
        if held == ["CapBnd"] and "user" not in self._plan.namespaces:
            return (
                DEGRADED,
                "",
                "/proc/PID/status: CapInh, CapPrm, CapEff, CapAmb empty; CapBnd not",
                "without a user namespace the bounding set cannot be emptied; no_new_privs keeps it without effect",
            )
        if held:
            return FAILED, "", "", f"/proc/PID/status: {', '.join(held)} not empty"
        return ENFORCED, "", "/proc/PID/status: all five capability sets empty", ""

    def no_new_privs(self) -> Answer:
        if self._sight.status.get("NoNewPrivs") == "1":
            return ENFORCED, "", "/proc/PID/status: NoNewPrivs 1", ""
        return FAILED, "", "", "/proc/PID/status does not say NoNewPrivs 1"

    def seccomp(self) -> Answer:
        mode = self._sight.status.get("Seccomp")
        if mode != "2":
            return FAILED, "", "", f"/proc/PID/status: Seccomp {mode}"
        count = self._sight.status.get("Seccomp_filters")  # proc(5); 5.9
        if count is not None and int(count) < self._plan.filters + own_filters():
            return FAILED, "", "", f"/proc/PID/status: Seccomp_filters {count}, expected {self._plan.filters} of ours"
        tried = {name: (self._outcome(name), self._sight.outside.get(name)) for name in ("ptrace", "add_key")}
        for name, (inside, outside) in tried.items():
            if inside != errno.EPERM:
                return FAILED, "", "", f"canary {name}: {_name(inside)} inside, {_name(outside)} outside"
        if self._silent("user_namespace") or self._outcome("user_namespace") not in {None, errno.EPERM}:
            return FAILED, "", "", f"canary user_namespace: {_name(self._outcome('user_namespace'))}"
        # What an outer filter refuses already says nothing about ours: a container's refuses add_key.
        telling = [name for name, (_, outside) in tried.items() if outside not in {None, errno.EPERM}]
        if not telling and count is None:
            return FAILED, "", "", "canaries ptrace and add_key: EPERM outside too, so nothing shows our filter"
        told = ", ".join(f"{name}: {_name(tried[name][1])} outside" for name in telling)
        return (
            ENFORCED,
            "allow_list" if self._allow_list else "deny_list",
            f"Seccomp 2, {count} filters; ptrace, add_key: EPERM inside; {told or f'{own_filters()} filters outside'}",
            "",
        )

    def filesystem(self) -> Answer:
        if silent := self._silent("denied", "allowed", "device"):
            return FAILED, "", "", f"nothing answered the canary {silent[0]}"
        denied, allowed = self._outcomes("denied"), self._outcomes("allowed")
        if not denied <= _REFUSED:
            return FAILED, "", "", f"opening a denied path answered {_names(denied - _REFUSED)}"
        if not allowed <= {0}:
            return FAILED, "", "", f"opening an allowed path answered {_names(allowed - {0})}"
        has_view = "mnt" in self._plan.namespaces
        tried = self._outcome("system") if has_view else self._outcome("host_write")
        if tried not in _REFUSED or tried == errno.ENOENT:
            return UNSUPPORTED, "", "", f"a write outside the view answered {_name(tried)}"
        evidence = f"write outside: {_name(tried)}; denied paths: {_names(denied)}; allowed paths: {_names(allowed)}"
        if self._plan.landlock[0]:
            before, after = (
                self._outcome("device", canary.BEFORE_LANDLOCK),
                self._outcome("device", canary.AFTER_LANDLOCK),
            )
            if (before, after) == (errno.EPERM, errno.EPERM) and self._domain_was_seen():
                return (
                    ENFORCED,
                    "landlock",
                    f"{evidence}; the ruleset's scopes were seen in force, an outer filter hides the rest",
                    "",
                )
            if after is not None and (before, after) != (errno.EPERM, errno.EACCES):
                return (
                    FAILED,
                    "",
                    evidence,
                    f"making a device: {_name(before)} before the ruleset, {_name(after)} after it",
                )
            if after is not None:
                evidence += "; making a device: EPERM before the ruleset, EACCES after it"
            return ENFORCED, "landlock", evidence, ""
        why = (
            "a nested sandbox must mount, which a Landlock domain refuses"
            if self._policy.nested
            else "no Landlock on this kernel"
        )
        return DEGRADED, "mount_view", evidence, why

    def _domain_was_seen(self) -> bool:
        """Return whether a scope of the same ruleset refused what had worked before the ruleset."""
        pairs = [
            (self._outcome(name, canary.BEFORE_LANDLOCK), self._outcome(name, canary.AFTER_LANDLOCK))
            for name in ("signal", "abstract")
        ]
        return (0, errno.EPERM) in pairs

    def network(self) -> Answer:
        if self._policy.network.mode == "host":
            return UNSUPPORTED, "", "", "the host's network was asked for"
        tried = self._outcome("udp")
        if "net" in self._plan.namespaces and self._sight.inodes["net"] != self._sight.host_inodes["net"]:
            if tried != errno.ENETUNREACH:
                return FAILED, "", "", f"connect to {_NOWHERE_TEXT} answered {_name(tried)}"
            devices = self._sight.interfaces
            if devices is not None and [one for one in devices if one != "lo"] and not _only_templates(devices):
                return FAILED, "", "", f"network devices beside lo: {', '.join(devices)}"
            seen = "lo alone" if devices is not None else "devices not readable from outside"
            return ENFORCED, "namespace", f"own network namespace, {seen}; connect: ENETUNREACH", ""
        if tried in _NO_SOCKET and self._plan.has_filter:
            return ENFORCED, "seccomp", f"no network namespace; socket: {_name(tried)} by the filter", ""
        return UNSUPPORTED, "", "", f"no network namespace, and a socket call answered {_name(tried)}"

    def read_only_root(self) -> Answer:
        tried = self._outcome("root") if "mnt" in self._plan.namespaces else self._outcome("host_write")
        if tried in {errno.EROFS, errno.EACCES}:
            return ENFORCED, "", f"creating a file in the root: {_name(tried)}", ""
        return UNSUPPORTED, "", "", f"creating a file in the root answered {_name(tried)}"

    def limits(self) -> Answer:
        asked = {name: state for name, state in self._group.states.items() if state != "not_asked"}
        evidence = (
            ", ".join(f"{key}={value}" for key, value in self._group.readback.items())
            or "rlimits, affinity and a watchdog"
        )
        word = self._driver if self._driver in {"cgroup2", "cgroup1"} else "rlimits"
        if "failed" in asked.values():
            return FAILED, "", evidence, "a limit was not taken over as asked"
        if "degraded" in asked.values():
            return (
                DEGRADED,
                "rlimits",
                evidence,
                "no writable cgroup: "
                + ", ".join(sorted(name for name, state in asked.items() if state == "degraded")),
            )
        return ENFORCED, word, f"{word}: {evidence}", ""

    def tcp_ports(self) -> Answer:
        if not self._plan.landlock[1]:
            return UNSUPPORTED, "", "", "Landlock below ABI 4 (6.7) has no TCP rules"
        if silent := self._silent("connect", "bind"):
            return FAILED, "", "", f"nothing answered the canary {silent[0]}"
        for name in ("connect", "bind"):
            after = self._outcome(name, canary.AFTER_LANDLOCK)
            if after is not None and (
                after != errno.EACCES or self._outcome(name, canary.BEFORE_LANDLOCK) == errno.EACCES
            ):
                return FAILED, "", "", f"{name} to an unnamed port answered {_name(after)}"
        return ENFORCED, "", "unnamed ports: EACCES by Landlock, not before it", ""

    def scope_abstract(self) -> Answer:
        return self._scope("abstract", abi.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET, "net")

    def scope_signal(self) -> Answer:
        return self._scope("signal", abi.LANDLOCK_SCOPE_SIGNAL, "pid")

    def _scope(self, name: str, bit: int, namespace: str) -> Answer:
        before, after = (
            self._outcome(name, canary.BEFORE_LANDLOCK),
            self._outcome(name, canary.AFTER_LANDLOCK),
        )
        if self._plan.landlock[2] & bit and (before, after) == (0, errno.EPERM):
            return ENFORCED, "landlock", "init reached before the ruleset, EPERM after it", ""
        if self._plan.landlock[2] & bit and "pid" in self._plan.namespaces:
            return FAILED, "", "", f"canary: {_name(before)} before the ruleset, {_name(after)} after it"
        if namespace in self._plan.namespaces and self._sight.inodes[namespace] != self._sight.host_inodes[namespace]:
            return ENFORCED, "namespace", f"own {namespace} namespace; Landlock below ABI 6 (6.12)", ""
        return UNSUPPORTED, "", "", "Landlock below ABI 6 (6.12), and no namespace in its place"

    def init_separation(self) -> Answer:
        command = self._sight.status.get("Uid", "").split()
        if command and self._sight.init_ids and not set(command) & set(self._sight.init_ids):
            seen = f"/proc/PID/status: Uid {command[0]}, init's {self._sight.init_ids[0]}"
            return ENFORCED, "separate", seen, ""
        ids = f"Uid {' '.join(command) or 'unread'}, init's {' '.join(self._sight.init_ids) or 'unread'}"
        return DEGRADED, "shared", f"/proc/PID/status: {ids}", "init is not seen to have user ids of its own"

    def no_orphans(self) -> Answer:
        state, _, evidence, _ = self.pid_ns()
        if state is ENFORCED:
            return ENFORCED, "", evidence, ""
        return (
            DEGRADED,
            "",
            f"pid:[{self._sight.inodes['pid']}], the host's is [{self._sight.host_inodes['pid']}]",
            "no PID namespace: if host and launcher are killed at once, processes may live on",
        )

    def files_gated(self) -> Answer:
        return UNSUPPORTED, "", "", "a host folder is bound writable: its files bypass the gate"

    def devices(self) -> Answer:
        shown = {point.decode("utf-8", "replace") for point, *_ in self._sight.mounts}
        absent = [node for node in self._policy.devices if node not in shown]
        if absent:
            return UNSUPPORTED, "", "", f"not shown: {', '.join(absent)}"
        closed = [
            node for index, node in enumerate(self._policy.devices) if self._outcome(f"node:{index}") == errno.EACCES
        ]
        if closed:
            return UNSUPPORTED, "", "", f"its permissions keep the command's user from it: {', '.join(closed)}"
        return ENFORCED, "", f"bound: {', '.join(self._policy.devices)}", ""

    def workdir(self) -> Answer:
        shown = [options for point, options, _, _ in self._sight.mounts if point == b"/workspace"]
        if "mnt" not in self._plan.namespaces:
            return DEGRADED, "", "the folder itself, held by Landlock", "no mount view: it is not shown at /workspace"
        if not shown or not {b"nosuid", b"nodev"} <= set(shown[-1].split(b",")):
            return FAILED, "", "", "mountinfo shows no /workspace with nosuid and nodev"
        return ENFORCED, "", f"mountinfo: /workspace {shown[-1].decode('ascii', 'replace')}", ""

    def secrets(self) -> Answer:
        for path in self._secret_files:
            above = [row for row in self._sight.mounts if f"{path}/".startswith(f"{row[0].decode().rstrip('/')}/")]
            deepest = max(above, key=lambda row: len(row[0]), default=None)
            if "mnt" not in self._plan.namespaces or deepest is None or deepest[2:] != (b"tmpfs", b"kavach"):
                kind = "the host's files" if deepest is None else deepest[2].decode("ascii", "replace")
                return UNSUPPORTED, "", "", f"{path} would not lie in memory of the sandbox's own, but on {kind}"
        files = f"; files in memory: {', '.join(self._secret_files)}" if self._secret_files else ""
        return ENFORCED, "", f"each value in a sealed memfd that only the command's child receives{files}", ""

    def nested(self) -> Answer:
        if self._outcome("nested") == errno.EINVAL:
            return ENFORCED, "", "an unshare of a namespace that does not exist reached the kernel: EINVAL", ""
        return (
            FAILED,
            "",
            "",
            f"an unshare of a namespace that does not exist answered {_name(self._outcome('nested'))}",
        )


_NOWHERE_TEXT = "192.0.2.1"
_METHODS = {control: getattr(_View, control.value) for control in Control if hasattr(_View, control.value)}
#: Devices that some kernels put into every new network namespace: without an address, down, of no use.
_TEMPLATES = (
    "lo",
    "tunl0",
    "sit0",
    "ip6tnl0",
    "gre0",
    "gretap0",
    "erspan0",
    "ip_vti0",
    "ip6_vti0",
    "ip6gre0",
)


def _only_templates(devices: tuple[str, ...]) -> bool:
    return all(device in _TEMPLATES for device in devices)


def _writable_host_mounts(rows: tuple[tuple[bytes, bytes, bytes, bytes], ...], plan: LaunchPlan) -> list[str]:
    """Return the mount points that take writes and that no rule of the plan made writable."""
    bound = {source: attributes for source, attributes, _ in plan.trees}
    meant = {point for point, attributes in bound.items() if not attributes & 1}
    stray = []
    for point, options, kind, source in rows:
        if b"ro" in options.split(b",") or kind in {b"proc", b"devpts"} or source == b"kavach":
            continue
        if point in meant or point == b"/workspace" or point.startswith(b"/dev/"):
            continue
        if any(point.startswith(one + b"/") for one in meant) or point.startswith(b"/workspace/"):
            continue
        stray.append(point.decode("utf-8", "replace"))
    return stray


def _names(codes: frozenset[int]) -> str:
    return ", ".join(sorted(_name(code) for code in codes)) or "none named"


def _name(code: int | None) -> str:
    if code is None:
        return "nothing"
    return "success" if code == 0 else errno.errorcode.get(code, str(code))
