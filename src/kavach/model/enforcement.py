"""Asked is not applied: one row per control says what was asked, what is in force, and how that was seen.

Enforces: that there is exactly one row for each control, and that a mechanism is one of the words the score
knows. Does not: observe anything (the wall's backend does) or compute points (`kavach.policy.strength` does).
May be used by: everybody; rows are made through `Ask.row`.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any

import msgspec

from kavach.errors import InternalError
from kavach.model.validate import Model

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["DETAILS", "Ask", "Control", "ControlRow", "ControlState", "Enforcement", "Hole"]


class Control(enum.StrEnum):
    """Everything a policy can ask of a wall: the closed set of names in `Enforcement` and `may_lack`."""

    USER_NS = "user_ns"
    PID_NS = "pid_ns"
    MOUNT_VIEW = "mount_view"
    IPC_NS = "ipc_ns"
    UTS_NS = "uts_ns"
    NO_CAPS = "no_caps"
    NO_NEW_PRIVS = "no_new_privs"
    SECCOMP = "seccomp"
    FILESYSTEM = "filesystem"
    NETWORK = "network"
    READ_ONLY_ROOT = "read_only_root"
    LIMITS = "limits"
    TCP_PORTS = "tcp_ports"
    SCOPE_ABSTRACT = "scope_abstract"
    SCOPE_SIGNAL = "scope_signal"
    # Reported, without points:
    INIT_SEPARATION = "init_separation"
    FILES_GATED = "files_gated"
    NO_ORPHANS = "no_orphans"
    DEVICES = "devices"
    WORKDIR = "workdir"
    SECRETS = "secrets"
    NESTED = "nested"


class ControlState(enum.StrEnum):
    """What became of a control: only `enforced` means that it was asked for and seen in force."""

    ENFORCED = "enforced"
    DEGRADED = "degraded"
    UNSUPPORTED = "unsupported"
    FAILED = "failed"
    NOT_ASKED = "not_asked"


class Hole(enum.StrEnum):
    """A canary that got through: it outweighs every point (see `kavach.policy.strength.CAPS`)."""

    NETWORK_ESCAPED = "network_escaped"
    DENIED_PATH_READABLE = "denied_path_readable"
    HOST_INIT_SIGNALABLE = "host_init_signalable"
    HOST_SECRET_IN_ENVIRONMENT = "host_secret_in_environment"  # noqa: S105 - the name of a defect, no secret
    HOST_SOCKET_REACHABLE = "host_socket_reachable"
    HOST_ROOT = "host_root"


DETAILS: dict[Control, frozenset[str]] = {
    Control.SECCOMP: frozenset({"allow_list", "deny_list"}),
    Control.FILESYSTEM: frozenset({"landlock", "mount_view"}),
    Control.NETWORK: frozenset({"namespace", "seccomp"}),
    Control.LIMITS: frozenset({"cgroup2", "cgroup1", "rlimits"}),
    Control.SCOPE_ABSTRACT: frozenset({"landlock", "namespace"}),
    Control.SCOPE_SIGNAL: frozenset({"landlock", "namespace"}),
    Control.INIT_SEPARATION: frozenset({"separate", "shared"}),
}
"""The mechanisms a row may name; rows of controls that are not here leave it empty."""


class ControlRow(Model, frozen=True, kw_only=True):
    """One control of one run.

    Args:
        control: which.
        asked: whether the policy asked for it.
        state: what became of it.
        detail: the mechanism that holds it, a word of `DETAILS`, or empty.
        evidence: what was seen, and where; empty when nothing was.
        reason: why it is not enforced, for a person; empty when it is.
        worth: the points it adds to the requested strength; what was seen never earns more.
    """

    control: Control
    asked: bool
    state: ControlState
    detail: str = ""
    evidence: str = ""
    reason: str = ""
    worth: int = 0


class Ask(Model, frozen=True, kw_only=True):
    """What a policy asks of one control, before anything was tried.

    Args:
        control: which.
        asked: whether the policy asks for it.
        worth: the points it adds to the requested strength.
        words: what exactly is asked, for people: `512 MiB, 1.0 cores`.
    """

    control: Control
    asked: bool
    worth: int = 0
    words: str = ""

    def row(self, state: ControlState, *, detail: str = "", evidence: str = "", reason: str = "") -> ControlRow:
        """Return the row that answers this, or a `not_asked` row where nothing was asked.

        Args:
            state: what became of the control.
            detail: the mechanism, a word of `DETAILS` for this control, or empty.
            evidence: what was seen.
            reason: why it is not enforced.

        Raises:
            InternalError: the mechanism is no word the score knows for this control.
        """
        if detail and detail not in DETAILS.get(self.control, ()):
            raise InternalError(f"{self.control}: expected a mechanism the score knows, got {detail!r}")
        if not self.asked:
            return ControlRow(
                control=self.control,
                asked=False,
                state=ControlState.NOT_ASKED,
                evidence=evidence,
                reason=reason,
            )
        return ControlRow(
            control=self.control,
            asked=True,
            state=state,
            detail=detail,
            evidence=evidence,
            reason=reason,
            worth=self.worth,
        )


class Enforcement(Model, frozen=True, kw_only=True):
    """The rows of one run, one per control in the order of `Control`; a mapping from names to rows.

    Args:
        backend: the wall that was observed.
        rows: exactly one per control; `Enforcement.of` fills in those nobody asked for.
        holes: canaries that got through.
    """

    backend: str
    rows: tuple[ControlRow, ...]
    holes: tuple[Hole, ...] = ()

    @classmethod
    def of(cls, backend: str, rows: Iterable[ControlRow], *, holes: Iterable[Hole] = ()) -> Enforcement:
        """Return the report over these rows; a control without a row was not asked for.

        Args:
            backend: the wall that was observed.
            rows: at most one per control.
            holes: canaries that got through.

        Raises:
            InternalError: two rows for one control.
        """
        by_control: dict[Control, ControlRow] = {}
        for row in rows:
            if row.control in by_control:
                raise InternalError(f"{row.control}: expected one row, got two")
            by_control[row.control] = row
        nothing = ControlState.NOT_ASKED
        full = tuple(
            by_control.get(control) or ControlRow(control=control, asked=False, state=nothing) for control in Control
        )
        return cls(backend=str(backend), rows=full, holes=tuple(sorted(set(holes))))

    def __getitem__(self, control: str) -> ControlRow:
        for row in self.rows:
            if row.control == control:
                return row
        raise KeyError(control)

    def __contains__(self, control: object) -> bool:
        return any(row.control == control for row in self.rows)

    def __iter__(self) -> Iterator[Control]:
        return (row.control for row in self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def items(self) -> tuple[tuple[Control, ControlRow], ...]:
        """Return pairs of name and row, in order."""
        return tuple((row.control, row) for row in self.rows)

    def enforced(self) -> frozenset[Control]:
        """Return the controls that were asked for and seen in force."""
        return frozenset(row.control for row in self.rows if row.state is ControlState.ENFORCED)

    def to_dict(self) -> dict[str, Any]:
        """Return the rows as JSON can hold them."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        return plain
