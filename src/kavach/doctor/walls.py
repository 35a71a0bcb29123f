"""Which process wall the facts allow.

Guarantees: pure, and never more than was asked for by an attempt: a wall counts namespaces that stood in a
victim process and Landlock rights that a ruleset took. Does not: score. May be called by: `doctor`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kavach.linux import landlock_abi

if TYPE_CHECKING:
    from kavach.doctor.facts import HostFacts


KINDS = ("pid", "mnt", "ipc", "uts", "net")
"""The namespaces that hold a control, by the names of /proc/self/ns."""


def has_namespaces(facts: HostFacts) -> bool:
    """Return whether the attempt came at least as far as mounting inside the namespaces it could make."""
    return facts.kernel.attempt[0] in {"", "fresh_proc"}


def has_namespace(facts: HostFacts, kind: str) -> bool:
    """Return whether one of this kind stood; a mount view counts only beside a PID namespace, whose /proc it needs."""
    needed = {kind, "pid"} if kind == "mnt" else {kind}
    return has_namespaces(facts) and not needed & set(facts.kernel.refused)


def has_seccomp(facts: HostFacts) -> bool:
    """Return whether filters can be installed and can answer with an errno."""
    return "errno" in facts.kernel.seccomp_actions


def usable_abi(facts: HostFacts) -> int:
    """Return the highest Landlock ABI all of whose rights a ruleset took, whatever is claimed; 0 for none.

    Flags of restrict_self cannot be asked for by making a ruleset: for a row that adds nothing else the
    claimed number decides.
    """
    found = 0
    for number, _kernel, added in landlock_abi.ABI_TABLE:
        needed = landlock_abi.rights(number)[:3]
        taken = all(need & ~has == 0 for need, has in zip(needed, facts.kernel.landlock_rights, strict=True))
        if not taken or (not any(added[:3]) and facts.kernel.landlock_claimed < number):
            break
        found = number
    return found


def best_wall(facts: HostFacts) -> str:
    """Return the strongest process wall that stands here, in words."""
    return wall_without(facts)


def wall_without(facts: HostFacts, *lost: str) -> str:
    """Return the wall that is left once `lost` ("namespaces", "landlock", "seccomp") are not there."""
    namespaces = "" if "namespaces" in lost else _namespaces(facts)
    has_view = bool(namespaces) and has_namespace(facts, "mnt")
    landlock = "Landlock" if usable_abi(facts) and "landlock" not in lost else ""
    seccomp = "seccomp" if has_seccomp(facts) and "seccomp" not in lost else ""
    if not has_view and not landlock:
        return f"none: neither {'a mount view' if namespaces else 'namespaces'} nor Landlock; commands are refused"
    kind = "process wall" if namespaces else "process wall without namespaces"
    return f"{kind}: {', '.join(filter(None, (namespaces, landlock, seccomp)))} and limits"


def _namespaces(facts: HostFacts) -> str:
    """Return "namespaces" with those that are missing, or "" where none can be had."""
    if not has_namespaces(facts):
        return ""
    missing = [kind for kind in KINDS if not has_namespace(facts, kind)]
    return f"namespaces (but {' and '.join(missing)})" if missing else "namespaces"
