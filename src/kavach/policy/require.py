"""Fail closed: what was asked for and is not in force refuses, unless the policy says it may be missing.

Enforces: that nothing untrusted starts behind less than was asked. Does not: observe (the wall's backend
does) or look at the score (`min_score` is the caller's own, later check). Called by the backends and the
sandbox before "go", and by `doctor` to say what would be refused; pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kavach.errors import UnsupportedError
from kavach.model.enforcement import Control, ControlRow, ControlState, Enforcement, Hole

if TYPE_CHECKING:
    from kavach.model.policy import SandboxPolicy

__all__ = ["find_lacks", "require_standing"]

REPORTED = frozenset(
    {Control.INIT_SEPARATION, Control.FILES_GATED, Control.NO_ORPHANS, Control.WORKDIR, Control.NESTED}
)
"""Rows that may be degraded without refusing: something stands in for them, and the row says what."""

NEVER_REFUSING = frozenset({Control.FILES_GATED, Control.NO_ORPHANS, Control.INIT_SEPARATION})
"""Rows that inform and never refuse."""


def find_lacks(enforcement: Enforcement, policy: SandboxPolicy) -> tuple[ControlRow, ...]:
    """Return the rows that refuse the run: asked, not in force, and not in the policy's `may_lack`.

    A mount view and Landlock can stand in for one another where `may_lack` names `mount_view`: one of the two
    must hold the files. Where it does not (strict), both must.

    Args:
        enforcement: the rows observed.
        policy: what was asked.
    """
    if "*" in policy.may_lack:
        return ()
    return tuple(row for row in enforcement.rows if _is_lacking(row) and not _is_forgiven(row, enforcement, policy))


def require_standing(enforcement: Enforcement, policy: SandboxPolicy) -> None:
    """Return None when all that was asked is in force or may be missing, and no canary got through.

    Args:
        enforcement: the rows observed.
        policy: what was asked.

    Raises:
        UnsupportedError: names the first control that is missing, what was found, and every other one.
    """
    if "*" in policy.may_lack:
        return
    open_holes = tuple(
        hole for hole in enforcement.holes if hole is not Hole.HOST_ROOT and _HOLE_CONTROL[hole] not in policy.may_lack
    )
    if open_holes:
        raise UnsupportedError(
            f"the wall has a hole: {', '.join(open_holes)}; nothing was run",
            control=_HOLE_CONTROL[open_holes[0]],
            needed="every canary refused",
            found=f"{open_holes[0]} succeeded",
            hint="kavach doctor says what this host lacks",
        )
    lacking = find_lacks(enforcement, policy)
    if lacking:
        first = lacking[0]
        names = ", ".join(row.control for row in lacking)
        raise UnsupportedError(
            f"the policy asks for {names}, which this host does not give: {first.reason or first.state};"
            " nothing was run",
            control=first.control.value,
            needed="enforced",
            found=first.reason or first.state.value,
            hint=f"kavach doctor says how to get it; may_lack=({first.control.value!r},) runs without it",
        )


_HOLE_CONTROL = {
    Hole.NETWORK_ESCAPED: "network",
    Hole.DENIED_PATH_READABLE: "filesystem",
    Hole.HOST_INIT_SIGNALABLE: "pid_ns",
    Hole.HOST_SECRET_IN_ENVIRONMENT: "secrets",
    Hole.HOST_SOCKET_REACHABLE: "mount_view",
}


def _is_lacking(row: ControlRow) -> bool:
    if not row.asked or row.state is ControlState.ENFORCED or row.control in NEVER_REFUSING:
        return False
    return not (row.state is ControlState.DEGRADED and row.control in REPORTED)


def _is_forgiven(row: ControlRow, enforcement: Enforcement, policy: SandboxPolicy) -> bool:
    if row.control is Control.FILESYSTEM and row.control not in policy.may_lack:
        held_by_view = row.state is ControlState.DEGRADED and row.detail == "mount_view"
        view = enforcement[Control.MOUNT_VIEW].state is ControlState.ENFORCED
        # A nested sandbox has to mount, which a Landlock domain over files refuses: there the view alone is asked.
        return held_by_view and view and (Control.MOUNT_VIEW in policy.may_lack or policy.nested)
    if row.control is Control.NO_CAPS and row.state is ControlState.DEGRADED:
        # Only an owner of a user namespace may empty the bounding set, which no_new_privs keeps without effect.
        return Control.USER_NS in policy.may_lack and enforcement[Control.NO_NEW_PRIVS].state is ControlState.ENFORCED
    if row.control is Control.MOUNT_VIEW and row.control in policy.may_lack:
        return enforcement[Control.FILESYSTEM].state is ControlState.ENFORCED
    return row.control in policy.may_lack
