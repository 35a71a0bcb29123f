"""What is watched beside the wall: commands before they run, agents over time, sandboxes while they stand.

Guarantees: a suspended agent's command is refused before anything runs; a revoked agent's sandbox is destroyed; each of
that is on record. Does not: isolate, or earn a point. May be called by: kavach.sandbox.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import TYPE_CHECKING

from kavach.audit.events import topics
from kavach.audit.payload import AuditEvent, escalation_payload, guard_payload
from kavach.errors import KavachError, PolicyError
from kavach.gate.guards import check_command, check_run, require_unguarded, search
from kavach.gate.integrity import Subject, shared_monitor, try_to_read
from kavach.gate.judge import Action, decide
from kavach.gate.threat import Tier, assess

if TYPE_CHECKING:
    from collections.abc import Callable

    from kavach.backends.base import Wall
    from kavach.files import SandboxFiles
    from kavach.gate.integrity import Failure, IntegrityPolicy
    from kavach.gate.offenders import OffenderTracker
    from kavach.model.command import Command
    from kavach.model.guard import GuardPolicy, GuardTrip
    from kavach.model.result import ExecResult, RawResult
    from kavach.sandbox.steps import Steps

_LOCK = threading.Lock()
_WATCHES: weakref.WeakSet[Watch] = weakref.WeakSet()  # a revocation reaches all sandboxes of an agent
_SYSTEM_PATH = ("/usr/local/bin", "/usr/bin", "/bin", "/usr/local/sbin", "/usr/sbin", "/sbin")


class Watch:
    """One sandbox's watch.

    Args:
        steps: of the sandbox.
        end: destroys the sandbox.
    """

    def __init__(self, steps: Steps, end: Callable[[], None]) -> None:
        self._steps = steps
        self._end = end
        self._guards: GuardPolicy | None = steps.config.guards
        self._tracker: OffenderTracker | None = steps.config.offenders
        self._agent = steps.config.agent_id
        with _LOCK:
            _WATCHES.add(self)

    @property
    def _acts(self) -> bool:
        return self._tracker is not None and self._agent is not None and self._steps.escalation_acts

    def check(self, command: Command) -> None:
        """Look at a command before it runs.

        Raises:
            PolicyError: its agent is suspended or revoked, or a guard refused it; nothing was run.
            KavachError: the tracker cannot be read.
        """
        if self._acts:
            assert self._tracker is not None and self._agent is not None  # noqa: S101, PT018 - _acts has looked
            tier = self._tracker.tier(self._agent)
            if tier >= Tier.SUSPEND:
                word = "suspended"
                if tier >= Tier.REVOKE:
                    word = "revoked"
                    self._end()
                raise PolicyError(
                    f"agent {self._agent!r} is {word}; nothing was run",
                    hint="a person lifts it: OffenderTracker.reinstate(agent_id, by=...)",
                )
        if self._guards is not None:
            trips = check_command(command, self._guards, resolve=self._resolve)
            self._tell(trips)
            require_unguarded(trips, self._guards)

    def look_back(self, raw: RawResult, result: ExecResult) -> None:
        """Look at a run that is over, and add what was found to its agent's history; act on the sum.

        Raises:
            KavachError: the tracker cannot be written.
            AuditError: it could not be recorded.
        """
        limits = self._steps.policy.limits
        if self._guards is not None:
            self._tell(check_run(raw, self._guards, pids_limit=limits.max_pids, output_limit_bytes=limits.output_bytes))
        if self._tracker is not None and self._agent is not None:
            self._add(self._tracker, self._agent, result)

    def _add(self, tracker: OffenderTracker, agent: str, result: ExecResult) -> None:
        gate = self._steps.gate
        hidden = {one.id for one in result.findings if decide(one.scanner, one.severity, gate) is Action.REDACT}
        standing = tracker.add(agent, assess(result.findings, redacted=hidden))
        # A run that added nothing has no consequence; what is held against its agent `check` has looked at.
        if standing.tier < Tier.ALERT or standing.sum_after <= standing.sum_before:
            return
        action = {Tier.ALERT: "alert", Tier.SUSPEND: "suspend", Tier.REVOKE: "revoke"}[standing.tier]
        if standing.tier >= Tier.SUSPEND and not self._acts:
            action = "alert"
        self._steps.record(
            AuditEvent.ESCALATION,
            lambda: escalation_payload(
                tier=int(standing.tier),
                action=action,
                sum_before=standing.sum_before,
                sum_after=standing.sum_after,
                by=None,
            ),
        )
        self._steps.voice.tell(topics.POLICY_VIOLATION, escalation=action, tier=int(standing.tier))
        if action == "revoke":
            self._revoke()

    def _revoke(self) -> None:
        """Destroy every sandbox of this process that this agent has, this one last."""
        with _LOCK:
            others = [one for one in _WATCHES if one is not self and self._is_same_agent(one)]
        failed: list[KavachError] = []
        for watch in (*others, self):
            try:
                watch._end()  # noqa: SLF001 - this module's own class
            except KavachError as error:
                failed.append(error)  # ORDER: what cannot be recorded of one keeps none of the others
        if failed:
            raise failed[0]

    def _is_same_agent(self, other: Watch) -> bool:
        return self._tracker is other._tracker and self._agent == other._agent

    def _tell(self, trips: tuple[GuardTrip, ...]) -> None:
        if trips:
            self._steps.record(AuditEvent.GUARD, lambda: guard_payload(trips))
            kinds = tuple(sorted({str(trip.kind) for trip in trips}))
            self._steps.voice.tell(topics.POLICY_VIOLATION, guards=kinds)

    def _resolve(self, program: str) -> str | None:
        """Return the file that a program's name means in the view, links followed: the host's own, or the rootfs's."""
        root = self._steps.policy.filesystem.rootfs or ""

        def real_path(path: str) -> str | None:
            found = os.path.realpath(root + path)
            inside = found.removeprefix(os.path.realpath(root)) if root else found
            return inside if os.path.exists(found) else None

        return search(program, _SYSTEM_PATH, cwd="/workspace", real_path=real_path)

    def begin_integrity(self, wall: Wall, files: SandboxFiles) -> None:
        """Look at the sandbox now and from now on, if that was asked for."""
        asked: IntegrityPolicy | None = self._steps.config.integrity
        facts = wall.facts() if asked is not None else None
        if asked is None or facts is None:
            return
        denied = tuple(rule.path for rule in self._steps.policy.filesystem.deny)
        subject = Subject(
            sandbox_id=self._steps.sandbox_id,
            init_pid=facts.init_pid,
            namespaces=facts.namespaces,
            needs_filter=facts.has_filter,
            needs_no_new_privs=True,
            groups=facts.groups,
            writable=facts.writable,
            sensitive=(*denied, *asked.sensitive_paths),
            can_read=lambda path: try_to_read(files.list, files.read, path),
            open_workspace=facts.open_workspace,
        )
        shared_monitor().watch(subject, asked, self._fail)

    def end_integrity(self) -> None:
        """Look at the sandbox no more."""
        if self._steps.config.integrity is not None:
            shared_monitor().forget(self._steps.sandbox_id)

    def _fail(self, failures: tuple[Failure, ...]) -> None:
        checks = tuple(sorted({failure.check for failure in failures}))
        self._steps.voice.tell(topics.POLICY_VIOLATION, integrity=checks)
        try:
            self._steps.record(AuditEvent.GUARD, lambda: {"integrity": [list(failure) for failure in failures]})
        finally:
            if self._steps.config.integrity.action == "kill":
                self._end()
