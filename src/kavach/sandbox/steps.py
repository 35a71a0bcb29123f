"""What all commands of one sandbox share on their way: the gate's policy, the log, the voice, the secrets.

Guarantees: what is to be recorded is in the log when a method returns, or it raises; a secret that any run was given is
searched for in all that comes out. Does not: know the order of the steps (`kavach.sandbox.passage` does). May be called
by: kavach.sandbox and, through it, kavach.process, kavach.files and kavach.aio. Safe to call from any thread.
"""

from __future__ import annotations

import os
import threading
import weakref
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING

from kavach.audit.digest import policy_sha256
from kavach.audit.events import make_announcer
from kavach.audit.payload import (
    AuditEvent,
    created_payload,
    credential_payload,
    enforcement_payload,
    findings_payload,
    quarantine_payload,
    transition_payload,
)
from kavach.errors import AuditError, ConfigError, Withheld
from kavach.gate.evidence import SALT_BYTES
from kavach.gate.known import KnownSecret
from kavach.model.health import Tally
from kavach.model.result import fate_of
from kavach.model.score import StrengthScore
from kavach.model.state import SandboxState
from kavach.model.validate import Model, check
from kavach.model.verdict import ExternalizationPolicy, Verdict
from kavach.policy.strength import score_enforcement
from kavach.sandbox.passage import Passage

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from kavach.audit.events.announcer import Announcer
    from kavach.audit.log import AppendedRecord, AuditLog
    from kavach.audit.metrics import StepTimes
    from kavach.credentials import Injection
    from kavach.gate.quarantine import QuarantineStore
    from kavach.model.command import Command
    from kavach.model.config import SandboxConfig
    from kavach.model.enforcement import Enforcement
    from kavach.model.policy import SandboxPolicy
    from kavach.model.result import ExecResult
    from kavach.model.verdict import Finding
    from kavach.sandbox import Sandbox
    from kavach.sandbox.watch import Watch


class Steps:
    """What the commands of one sandbox share: the gate's policy, the log, the voice, the secrets they were given.

    Args:
        config: validated.
        policy: the resolved policy of `config`.
        sandbox_id: whose commands they are.
        requested: the strength that was asked for.
        end: destroys the sandbox.

    Raises:
        ConfigError: a part of the configuration is not what it has to be.
        AuditError: the making of the sandbox could not be recorded.
    """

    def __init__(
        self,
        config: SandboxConfig,
        policy: SandboxPolicy,
        sandbox_id: str,
        requested: StrengthScore,
        end: Callable[[], None],
    ) -> None:
        _require_kinds(config)
        self.config = config
        self.policy = policy
        self.sandbox_id = sandbox_id
        self.requested = requested
        self.gate: ExternalizationPolicy = config.externalization or ExternalizationPolicy.for_preset(policy.preset)
        self.voice: Announcer = make_announcer(config, sandbox_id)
        self.tally: Tally = Tally()
        self.log: AuditLog | None = config.audit
        self.quarantine: QuarantineStore | None = config.quarantine
        self._lock = threading.Lock()
        self._known: dict[tuple[str, bytes], KnownSecret] = {}
        self._recorded: Enforcement | None = None
        self._scored: tuple[Enforcement | None, StrengthScore] = (None, StrengthScore(0))
        self.watch: Watch | None = _make_watch(self, end)
        self.policy_digest: str = policy_sha256(policy) if self.has_receipts else ""
        self.record(
            AuditEvent.CREATED,
            lambda: created_payload(config, policy_digest=self.policy_digest, requested=requested),
        )

    @property
    def escalation_acts(self) -> bool:
        """Whether an agent's sum has consequences: asked for, or strict with an agent's name."""
        asked = self.config.externalization
        if asked is not None:
            return asked.escalation == "act"
        return self.policy.preset == "strict" and self.config.agent_id is not None

    @property
    def has_receipts(self) -> bool:
        """Whether results carry one: there is a log that holds its digest, or a key that signs it."""
        return self.log is not None or self.config.receipt_key is not None

    def record(self, event: AuditEvent, payload: Callable[[], Mapping[str, object]]) -> AppendedRecord | None:
        """Add a record, if there is a log.

        Raises:
            AuditError: it could not be written.
        """
        if self.log is None:
            return None
        return self.log.append(
            event,
            sandbox_id=self.sandbox_id,
            agent_id=self.config.agent_id,
            payload=payload(),
            durable=self.gate.mode == "enforce",
        )

    def record_step(self, before: SandboxState, after: SandboxState) -> None:
        """Record a step in the sandbox's life.

        Raises:
            AuditError: it could not be written.
        """
        event = AuditEvent.DESTROYED if after is SandboxState.DESTROYED else AuditEvent.TRANSITION
        self.record(event, lambda: transition_payload(str(before), str(after)))

    def know(self, injection: Injection) -> None:
        """Remember what a run was given: whatever comes out from now on is searched for it."""
        with self._lock:
            for name, value in injection.values:
                shown = value.reveal()
                self._known[name, shown] = KnownSecret(name, shown)
        for delivery in injection.deliveries:
            self.record(AuditEvent.CREDENTIAL, partial(credential_payload, delivery.name, delivery.kind))

    @property
    def known(self) -> tuple[KnownSecret, ...]:
        """Every value that any run of this sandbox was given."""
        # SECURITY: kept as long as this object: a command that `destroy` ended is judged after it.
        with self._lock:
            return tuple(self._known.values())

    def score(self, enforcement: Enforcement | None) -> StrengthScore:
        """Return what was seen in force is worth, 0 where nothing was; the wall shows the same rows again and again."""
        seen, score = self._scored
        if enforcement is not seen:
            score = score_enforcement(enforcement) if enforcement is not None else StrengthScore(0)
            self._scored = enforcement, score
        return score

    def admit(self, enforcement: Enforcement) -> None:
        """Record and tell what was seen in force, when it differs from what was seen before.

        Raises:
            AuditError: it could not be recorded; nothing has run.
        """
        if enforcement is self._recorded:
            return
        score = self.score(enforcement)
        self.record(AuditEvent.ENFORCEMENT, lambda: enforcement_payload(enforcement, score))
        self.voice.observe(enforcement, score)
        self._recorded = enforcement

    def enter(self, command: Command) -> Passage:
        """Take the first two steps.

        Raises:
            AuditError: the intent could not be recorded.
            PolicyError: a guard refused the command.
        """
        return Passage(self, command, self.watch)

    def count(self, result: ExecResult, times: StepTimes) -> None:
        """Count an ended command and tell of it."""
        with self._lock:
            self.tally.add(result)
        self.voice.end(result, times)

    def release_file(self, path: str, content: bytes) -> bytes:
        """Return what may leave of a file of the sandbox's.

        Raises:
            Withheld: nothing may.
            AuditError: what was found could not be recorded.
        """
        if not self.gate.enabled:
            return content
        from kavach.gate.release import release_bytes

        judged = release_bytes(content, name=path, policy=self.gate, known=self.known, salt=os.urandom(SALT_BYTES))
        if judged.findings:
            self.record(AuditEvent.FINDINGS, lambda: findings_payload(judged.findings))
        if judged.verdict.is_released:
            return judged.released
        kept = self.keep_withheld({path: content}, judged.verdict, judged.findings)
        raise Withheld(
            f"{path!r} was withheld: verdict {judged.verdict}; {fate_of(kept)}",
            verdict=str(judged.verdict),
            findings=judged.findings,
            quarantine_id=kept,
        )

    def keep_withheld(self, content: Mapping[str, bytes], verdict: Verdict, findings: Sequence[Finding]) -> str | None:
        """Store what is quarantined and return its id; None where it is destroyed: blocked, or no store is there.

        Raises:
            KavachError: the store cannot take it; nothing of it was stored.
            AuditError: the move could not be recorded.
        """
        if verdict is not Verdict.QUARANTINE or self.quarantine is None:
            return None
        kept = self.quarantine.put(
            content,
            sandbox_id=self.sandbox_id,
            verdict=verdict,
            findings=findings,
            agent_id=self.config.agent_id,
        )
        try:
            self.record(
                AuditEvent.QUARANTINE, lambda: quarantine_payload(kept, before=None, after="quarantined", by=None)
            )
        except AuditError:
            self.quarantine.reject(kept, by="gate")  # what cannot be recorded is not kept
            raise
        return kept


_KINDS = {
    "audit": ("kavach.audit.log", "AuditLog"),
    "quarantine": ("kavach.gate.quarantine", "QuarantineStore"),
    "receipt_key": ("kavach.audit.signing", "SigningKey"),
    "guards": ("kavach.model.guard", "GuardPolicy"),
    "integrity": ("kavach.gate.integrity", "IntegrityPolicy"),
    "offenders": ("kavach.gate.offenders", "OffenderTracker"),
}
"""What these fields of a configuration hold, imported when somebody uses one: a plain run needs none of it."""


def _require_kinds(config: SandboxConfig) -> None:
    for name, (module, kind) in _KINDS.items():
        value = getattr(config, name)
        if value is None:
            continue
        if not isinstance(value, getattr(import_module(module), kind)):
            raise ConfigError(f"$.{name}: expected {kind}, got {type(value).__name__}", key=f"$.{name}")
        if isinstance(value, Model):
            check(value, path=f"$.{name}")


def _make_watch(steps: Steps, end: Callable[[], None]) -> Watch | None:
    config = steps.config
    if config.guards is None and config.offenders is None and config.integrity is None:
        return None
    from kavach.sandbox.watch import Watch

    return Watch(steps, end)


def weakly(sandbox: Sandbox) -> Callable[[], None]:
    """Return a function that destroys the sandbox and does not keep it."""
    held = weakref.ref(sandbox)

    def end() -> None:
        found = held()
        if found is not None:
            found.destroy()

    return end
