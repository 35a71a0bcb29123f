"""How strong a wall is: asked for (names and policy) and observed (rows seen in force), never mixed.

Enforces: a row earns at most what it was worth in the request and at most what its mechanism is worth, so
observed strength never exceeds requested; a hole caps what all points add up to. Does not: observe, measure
or probe; the number orders walls and is no probability. Called by `kavach.scoring`, the sandbox, the CLI and
receipts; pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kavach.errors import BackendUnavailable
from kavach.model.backend import Backend
from kavach.model.enforcement import Ask, Control, ControlRow, ControlState, Enforcement, Hole
from kavach.model.policy import SandboxPolicy
from kavach.model.score import ScoreRow, StrengthScore

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["WEIGHTS_VERSION", "asks", "base_score", "earned", "score_backend", "score_enforcement"]

WEIGHTS_VERSION = 1
"""The version of every table here; stored in receipts, raised when a number changes."""

BASE: dict[str, int] = {
    "noop": 0,
    "process": 50,
    "oci": 55,
    "wasm": 65,
    "gvisor": 70,
    "sgx": 80,
    "sy-agnos": 80,
    "sev": 82,
    "tdx": 85,
    "firecracker": 90,
    "qemu": 75,
}
"""What a wall is worth by its name alone, before anything was seen."""

BASE_SPLIT: dict[str, dict[Control, int]] = {
    "noop": {},
    "process": {
        Control.USER_NS: 10,
        Control.PID_NS: 10,
        Control.MOUNT_VIEW: 10,
        Control.IPC_NS: 3,
        Control.UTS_NS: 2,
        Control.NO_CAPS: 8,
        Control.NO_NEW_PRIVS: 7,
    },
}
"""Which controls earn a wall's base; they add up to it. A wall without a split here has no observed base."""

MODIFIERS: dict[Control, int] = {
    Control.SECCOMP: 5,
    Control.FILESYSTEM: 3,
    Control.NETWORK: 5,
    Control.READ_ONLY_ROOT: 3,
    Control.LIMITS: 2,
    Control.TCP_PORTS: 3,
    Control.SCOPE_ABSTRACT: 2,
    Control.SCOPE_SIGNAL: 2,
}
"""What asking for a control adds to the requested strength."""

MECHANISMS: dict[Control, dict[str, int]] = {
    Control.SECCOMP: {"allow_list": 5, "deny_list": 3},
    Control.FILESYSTEM: {"landlock": 3, "mount_view": 1},
    Control.LIMITS: {"cgroup2": 2, "cgroup1": 2, "rlimits": 1},
    Control.SCOPE_ABSTRACT: {"landlock": 2, "namespace": 1},
    Control.SCOPE_SIGNAL: {"landlock": 2, "namespace": 1},
}
"""What a mechanism earns, enforced or degraded; without a named mechanism these controls earn nothing."""

CAPS: dict[Hole, int] = {
    Hole.NETWORK_ESCAPED: 29,
    Hole.DENIED_PATH_READABLE: 29,
    Hole.HOST_INIT_SIGNALABLE: 29,
    Hole.HOST_SECRET_IN_ENVIRONMENT: 29,
    Hole.HOST_SOCKET_REACHABLE: 29,
    Hole.HOST_ROOT: 49,
}
"""What strength cannot exceed while a hole is open."""

TO_RAISE: dict[Control, str] = {
    Control.USER_NS: "allow unprivileged user namespaces on this host",
    Control.PID_NS: "allow unprivileged user namespaces on this host",
    Control.MOUNT_VIEW: "allow unprivileged user namespaces on this host",
    Control.IPC_NS: "allow unprivileged user namespaces on this host",
    Control.UTS_NS: "allow unprivileged user namespaces on this host",
    Control.SECCOMP: "use an allow-list profile: profile='strict'",
    Control.FILESYSTEM: "add path rules, on a kernel with Landlock (5.13)",
    Control.NETWORK: "turn the network off: mode='none'",
    Control.READ_ONLY_ROOT: "set read_only_rootfs=True",
    Control.LIMITS: "set memory_limit_mb or cpu_limit, and delegate a cgroup to the caller",
    Control.TCP_PORTS: "set tcp_bind_ports or tcp_connect_ports, on Landlock ABI 4 (6.7)",
    Control.SCOPE_ABSTRACT: "set scope_abstract=True, on Landlock ABI 6 (6.12)",
    Control.SCOPE_SIGNAL: "set scope_signal=True, on Landlock ABI 6 (6.12)",
}
"""What would earn the points a row has not."""


def base_score(backend: Backend | str) -> int:
    """Return what a wall is worth by its name alone.

    Args:
        backend: one of the ten, or `qemu`.

    Raises:
        BackendUnavailable: no wall has that name.
    """
    return BASE[_name(backend)]


def score_backend(backend: Backend | str, policy: SandboxPolicy | str) -> StrengthScore:
    """Return the requested strength: what this wall would be worth if all that the policy asks were in force.

    Args:
        backend: one of the ten, or `qemu`.
        policy: a policy, a preset's name, or a profile file.

    Raises:
        BackendUnavailable: no wall has that name.
        ConfigError: the policy is none.
        PolicyError: the policy contradicts itself.
    """
    base = base_score(backend)
    rows = [ScoreRow(control="base", asked=True, state="requested", points=base, worth=base)]
    asked = asks(SandboxPolicy.resolve(policy), backend)
    rows.extend(_requested(ask) for ask in asked if ask.control in MODIFIERS)
    return _total(rows)


def score_enforcement(enforcement: Enforcement) -> StrengthScore:
    """Return the observed strength: the sum of what each row earned, capped by the holes that were seen.

    Args:
        enforcement: the rows of one run.

    Fails closed: a wall whose base has no published split, and a row without a known mechanism, earn nothing.
    """
    rows = [_observed(row, enforcement.backend) for row in enforcement.rows]
    kept = [row for row in rows if row.worth or row.asked]
    total = max(0, min(100, sum(row.points for row in kept)))
    for hole in sorted(enforcement.holes, key=CAPS.__getitem__):
        over = max(0, total - CAPS[hole])
        total -= over
        kept.append(ScoreRow(control="cap", asked=False, state=hole.value, points=-over, worth=0))
    return _total(kept)


def earned(row: ControlRow, backend: Backend | str) -> int:
    """Return the points one row earned: from control, state and mechanism, and never more than it was worth.

    Args:
        row: one row of a run.
        backend: the wall it was observed on.
    """
    split = BASE_SPLIT.get(str(backend), {})
    if row.control in split:
        return split[row.control] if row.asked and row.state is ControlState.ENFORCED else 0
    return max(0, min(row.worth, MODIFIERS.get(row.control, 0), _mechanism(row)))


def asks(policy: SandboxPolicy, backend: Backend | str = "process", *, also: Iterable[Control] = ()) -> tuple[Ask, ...]:
    """Return what a policy asks of each control, one per name of the closed set, in its order.

    Args:
        policy: a valid policy.
        backend: the wall; only `process` is asked for its own parts.
        also: controls that the configuration asks for: workdir, files_gated, secrets.
    """
    wall = str(backend)
    own = BASE_SPLIT.get(wall, {})
    asked = dict(_modifier_asks(policy))
    others = frozenset(also) | (_ALWAYS if wall != "noop" else frozenset())
    found: list[Ask] = []
    for control in Control:
        if control in own:
            found.append(Ask(control=control, asked=True, worth=own[control]))
        elif control in asked:
            found.append(asked[control])
        else:
            found.append(Ask(control=control, asked=control in others))
    return tuple(found)


_ALWAYS = frozenset({Control.INIT_SEPARATION, Control.NO_ORPHANS})


def _modifier_asks(policy: SandboxPolicy) -> Iterator[tuple[Control, Ask]]:
    files, seccomp, limits, landlock = policy.filesystem, policy.seccomp, policy.limits, policy.landlock
    added = bool(files.rules or files.data_dir)
    capped = limits.memory_limit_mb is not None or limits.cpu_limit is not None
    ports = landlock.tcp_bind_ports is not None or landlock.tcp_connect_ports is not None
    any_limit = capped or any(
        value is not None
        for value in (
            limits.max_pids,
            limits.file_size,
            limits.open_files,
            limits.disk_bytes,
            limits.cpu_time_s,
        )
    )
    for control, asked, full, words in (
        (Control.SECCOMP, seccomp.profiles is not None, True, " & ".join(seccomp.profiles or ())),
        (Control.FILESYSTEM, added or files.view != "all", added, _file_words(policy)),
        (Control.NETWORK, policy.network.mode != "host", policy.network.mode == "none", policy.network.mode),
        (Control.READ_ONLY_ROOT, files.read_only_rootfs, True, ""),
        (Control.LIMITS, any_limit, capped, _limit_words(policy)),
        (Control.TCP_PORTS, ports, True, ""),
        (Control.SCOPE_ABSTRACT, landlock.scope_abstract, True, ""),
        (Control.SCOPE_SIGNAL, landlock.scope_signal, True, ""),
        (Control.DEVICES, bool(policy.devices), False, ", ".join(policy.devices)),
        (Control.NESTED, policy.nested, False, ""),
    ):
        worth = MODIFIERS.get(control, 0) if asked and full else 0
        yield control, Ask(control=control, asked=asked, worth=worth, words=words if asked else "")


def _file_words(policy: SandboxPolicy) -> str:
    rules = len(policy.filesystem.rules)
    return f"view {policy.filesystem.view}" + (f", {rules} path rules" if rules else "")


def _limit_words(policy: SandboxPolicy) -> str:
    limits = policy.limits
    named = (
        (limits.memory_limit_mb, f"{limits.memory_limit_mb} MiB"),
        (limits.cpu_limit, f"{limits.cpu_limit} cores"),
        (limits.max_pids, f"{limits.max_pids} pids"),
    )
    return ", ".join(words for value, words in named if value is not None)


def _mechanism(row: ControlRow) -> int:
    if not row.asked or row.state not in {ControlState.ENFORCED, ControlState.DEGRADED}:
        return 0
    table = MECHANISMS.get(row.control)
    if table is not None:
        return table.get(row.detail, 0)
    return MODIFIERS.get(row.control, 0) if row.state is ControlState.ENFORCED else 0


def _requested(ask: Ask) -> ScoreRow:
    return ScoreRow(
        control=ask.control.value,
        asked=ask.asked,
        state="requested" if ask.asked else ControlState.NOT_ASKED.value,
        points=ask.worth,
        worth=MODIFIERS[ask.control],
        to_raise="" if ask.worth else TO_RAISE.get(ask.control, ""),
    )


def _observed(row: ControlRow, backend: str) -> ScoreRow:
    points = earned(row, backend)
    worth = BASE_SPLIT.get(backend, {}).get(row.control, MODIFIERS.get(row.control, 0))
    return ScoreRow(
        control=row.control.value,
        asked=row.asked,
        state=row.state.value,
        points=points,
        worth=worth,
        evidence=row.evidence,
        to_raise=TO_RAISE.get(row.control, "") if points < worth else "",
    )


def _total(rows: list[ScoreRow]) -> StrengthScore:
    return StrengthScore(max(0, min(100, sum(row.points for row in rows))), rows)


def _name(backend: Backend | str) -> str:
    name = str(backend).lower()
    if name in BASE:
        return name
    wall = Backend.parse(str(backend)).value
    if wall not in BASE:
        raise BackendUnavailable(f"the wall {wall} has no base strength", backend=wall)
    return wall
