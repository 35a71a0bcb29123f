"""What one sandbox tells the world: the one place where its life becomes events and counts.

Guarantees: a payload holds states, names of controls, rules and limits, numbers; never output, argv, a path that the
command chose, or a finding's evidence. A control that is not fully in force is told once a sandbox, as one event. Does
not: decide anything, or raise. May be called by: kavach.sandbox and its twins, one object a sandbox.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from kavach.audit.events import topics
from kavach.audit.events.bus import EventBus
from kavach.audit.metrics import PROCESS, control_of
from kavach.errors import ConfigError
from kavach.model.enforcement import ControlState
from kavach.model.state import SandboxState
from kavach.model.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kavach.audit.metrics import Counters, StepTimes
    from kavach.errors import KavachError
    from kavach.model.config import SandboxConfig
    from kavach.model.enforcement import Enforcement
    from kavach.model.result import ExecResult

__all__ = ["Announcer", "make_announcer"]

_LIFE = {
    (None, SandboxState.CREATED): topics.CREATED,
    (SandboxState.CREATED, SandboxState.RUNNING): topics.STARTED,
    (SandboxState.PAUSED, SandboxState.RUNNING): topics.RESUMED,
    (SandboxState.RUNNING, SandboxState.PAUSED): topics.PAUSED,
}
_LAST = {SandboxState.STOPPED: topics.STOPPED, SandboxState.DESTROYED: topics.DESTROYED}
_SCANS = {
    Verdict.WARN: topics.SCAN_WARNING,
    Verdict.QUARANTINE: topics.SCAN_QUARANTINED,
    Verdict.BLOCK: topics.SCAN_BLOCKED,
}
_IN_FORCE = frozenset({ControlState.ENFORCED, ControlState.NOT_ASKED})


class Announcer:
    """One sandbox's voice.

    Args:
        bus: where events go; None = nowhere, and only the counts are kept.
        sandbox_id: whose voice it is.
        agent_id: the configuration's.
        labels: the configuration's.
        counters: what is counted into.
    """

    def __init__(
        self,
        bus: EventBus | None,
        sandbox_id: str,
        *,
        agent_id: str | None = None,
        labels: Mapping[str, str] | None = None,
        counters: Counters = PROCESS,
    ) -> None:
        self._bus = bus
        self._id = sandbox_id
        self._agent_id = agent_id
        self._labels = tuple((labels or {}).items())
        self._counters = counters
        self._lock = threading.Lock()
        self._state: SandboxState | None = None
        self._has_told_lacking = False

    def enter(self, state: SandboxState, **known: Any) -> None:  # noqa: ANN401 - what an event carries
        """Tell that the sandbox has entered a state.

        Args:
            state: which.
            known: more to tell: backend, policy, requested_score with `created`; pid of the wall's first process with
                `started`.
        """
        before, self._state = self._state, state
        self._counters.move(before, state)
        kind = _LIFE.get((before, state)) or _LAST.get(state)
        if kind is not None:
            self.tell(kind, state=str(state), before=None if before is None else str(before), **known)

    def observe(self, enforcement: Enforcement, score: int) -> None:
        """Tell, once a sandbox, which controls were asked for and are not fully in force; nothing where all are.

        Args:
            enforcement: what was seen.
            score: what that is worth.
        """
        rows = [row for row in enforcement.rows if row.asked and row.state not in _IN_FORCE]
        if not rows:
            return
        with self._lock:
            has_told, self._has_told_lacking = self._has_told_lacking, True
        if not has_told:
            self.tell(
                topics.POLICY_DEGRADED,
                backend=enforcement.backend,
                score=int(score),
                controls=tuple(str(row.control) for row in rows),
                states=tuple(str(row.state) for row in rows),
                reasons=tuple(row.reason for row in rows),
            )

    def refuse(self, error: KavachError) -> None:
        """Tell that a command or a sandbox was refused: nothing ran."""
        self.tell(
            topics.POLICY_BLOCKED,
            error=type(error).__name__,
            control=getattr(error, "control", None),
            message=str(error),
        )

    def end(self, result: ExecResult, steps: StepTimes | None = None) -> None:
        """Count an ended command, and tell what of it somebody may want to act upon.

        Args:
            result: what became of it, after the gate.
            steps: when its steps ran.
        """
        self._counters.end(result, steps)
        if self._bus is None:
            return
        for counter in result.limits_hit or ():
            self.tell(topics.limit(counter), reason=str(result.reason), exit_code=result.exit_code)
        if result.denials:
            # SECURITY: a target is text that the command chose; it stays in the result, whose reader asked for it.
            controls = tuple(dict.fromkeys(control_of(denial) for denial in result.denials))
            acts = tuple(dict.fromkeys(denial.what for denial in result.denials))
            self.tell(topics.POLICY_VIOLATION, count=len(result.denials), controls=controls, acts=acts)
        if (kind := _SCANS.get(result.verdict)) is not None:
            self.tell(kind, **_scan(result))
        if steps is not None:
            self._trace(result, steps)

    def tell(self, kind: str, **known: Any) -> None:  # noqa: ANN401 - what an event carries
        """Publish one event about this sandbox.

        Args:
            kind: one of `kavach.audit.events.topics`.
            known: its payload.
        """
        if self._bus is not None:
            topic = topics.sandbox_topic(self._id, kind)
            self._bus.publish(topic, known, agent_id=self._agent_id, labels=self._labels)

    def _trace(self, result: ExecResult, steps: StepTimes) -> None:
        assert self._bus is not None  # noqa: S101 - end() has looked
        payload = {
            "reason": str(result.reason),
            "exit_code": result.exit_code,
            "verdict": str(result.verdict),
            "score": int(result.score),
            "started_ns": steps.started_ns,
            "steps": tuple(step for step, _, _ in steps.rows),
            "begins_ns": tuple(begin for _, begin, _ in steps.rows),
            "ends_ns": tuple(end for _, _, end in steps.rows),
        }
        self._bus.publish(topics.trace_topic(self._id), payload, agent_id=self._agent_id, labels=self._labels)


def make_announcer(config: SandboxConfig, sandbox_id: str) -> Announcer:
    """Return the voice of a sandbox that is made from this configuration.

    Raises:
        ConfigError: `events` is no `EventBus`.
    """
    bus = config.events
    if bus is not None and not isinstance(bus, EventBus):
        raise ConfigError(f"$.events: expected an EventBus, got {type(bus).__name__}", key="$.events")
    return Announcer(bus, sandbox_id, agent_id=config.agent_id, labels=config.labels)


def _scan(result: ExecResult) -> dict[str, Any]:
    worst = max((finding.severity for finding in result.findings), default=None, key=lambda one: one.rank)
    return {
        "verdict": str(result.verdict),
        "findings": len(result.findings),
        "worst_severity": None if worst is None else str(worst),
        "rules": tuple(sorted({finding.rule for finding in result.findings})),
        "quarantine_id": result.quarantine_id,
    }
