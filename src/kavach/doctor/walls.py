"""Which process wall the facts allow.

Guarantees: pure, and never more than was asked for by an attempt: a wall counts namespaces that stood in a
victim process and Landlock rights that a ruleset took. Does not: score. May be called by: `doctor`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kavach.linux import landlock_abi

if TYPE_CHECKING:
    from kavach.doctor.facts import HostFacts


def has_namespaces(facts: HostFacts) -> bool:
    """Return whether the attempt came at least as far as mounting inside its own namespaces."""
    return facts.kernel.attempt[0] in {"", "fresh_proc"}


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
    return _wall_of(namespaces=has_namespaces(facts), landlock=usable_abi(facts) > 0, seccomp=has_seccomp(facts))


def _wall_of(*, namespaces: bool, landlock: bool, seccomp: bool) -> str:
    """Return the name of the process wall made of these parts."""
    parts = [
        name for name, there in (("namespaces", namespaces), ("Landlock", landlock), ("seccomp", seccomp)) if there
    ]
    if not namespaces and not landlock:
        return "none: neither namespaces nor Landlock; commands are refused"
    kind = "process wall" if namespaces else "process wall without namespaces"
    return f"{kind}: {', '.join(parts)} and limits"


def wall_without(facts: HostFacts, *lost: str) -> str:
    """Return the wall that is left once `lost` ("namespaces", "landlock", "seccomp") are not there."""
    parts = {
        "namespaces": has_namespaces(facts),
        "landlock": usable_abi(facts) > 0,
        "seccomp": has_seccomp(facts),
    }
    return _wall_of(**{name: there and name not in lost for name, there in parts.items()})
