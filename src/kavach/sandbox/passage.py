"""One command's way through the six steps, and the only place that knows their order.

    1. intent    recorded, if there is an audit log
    2. guard     the command is looked at; advice, unless the policy says refuse
    3. wall      it is seen standing, then the command starts (kavach.backends)
    4. judge     the scanners read what came out
    5. release   it is redacted, quarantined or withheld; it may only shrink
    6. outcome   recorded; no record, no output

Guarantees: the order; a command that was recorded as intended has an outcome on record, whatever ended it; nothing is
returned before its outcome is in the log. Does not: build a wall or wait for a command. May be called by:
kavach.sandbox.steps. One thread at a time.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Self

import msgspec

from kavach.audit.clock import utc_text
from kavach.audit.metrics import StepClock
from kavach.audit.payload import (
    AuditEvent,
    findings_payload,
    intent_payload,
    limits_payload,
    outcome_payload,
    refused_payload,
)
from kavach.audit.receipt import Receipt, host_facts
from kavach.audit.statement import make_statement
from kavach.errors import BackendError, KavachError, Withheld
from kavach.gate.evidence import SALT_BYTES
from kavach.gate.joint import Joint, Side
from kavach.gate.release import release
from kavach.model.result import EndReason
from kavach.model.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from kavach.audit.log import AppendedRecord
    from kavach.gate.stream import StreamScanner
    from kavach.model.command import Command
    from kavach.model.result import ExecResult, RawResult
    from kavach.sandbox.steps import Steps
    from kavach.sandbox.watch import Watch

    Released = Sequence[tuple[bool, bytes]]  # (is stderr, bytes), in the order in which they leave


class Passage:
    """One command on its way. Use as a context manager until it has its result: what is raised is its outcome, once.

    Args:
        steps: of its sandbox.
        command: validated.
        watch: of its sandbox, None where nothing is watched.

    Raises:
        AuditError: the intent could not be recorded.
        PolicyError: a guard refused the command, or its agent is suspended; nothing was run.
    """

    def __init__(self, steps: Steps, command: Command, watch: Watch | None) -> None:
        self._steps = steps
        self._watch = watch
        self.command = command
        self._clock = StepClock()
        self._intent: AppendedRecord | None = None
        self._streams: dict[bool, StreamScanner] | None = None
        self._joint: Joint | None = None
        self._is_judging = False
        self._has_outcome = False
        #: Whether the command was let go; set by who starts it.
        self.has_started: bool = False
        #: Why nothing more of a stream may leave; None as long as something may.
        self.withheld: Withheld | None = None
        # 1. intent
        self._clock.enter("intent")
        log = steps.log
        if log is not None:
            digest, with_argv = steps.policy_digest, log.record_argv
            self._intent = steps.record(
                AuditEvent.INTENT, lambda: intent_payload(command, policy_digest=digest, record_argv=with_argv)
            )
        # 2. guard
        self._clock.enter("guard")
        if watch is not None:
            with self:
                watch.check(command)
        # 3. wall: the sandbox starts it
        self._clock.enter("wall")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._give_up(error)

    def abandon(self) -> None:
        """Record that whoever asked for the command went away before it was let go."""
        self._give_up(KavachError("nobody waits for the command any more; nothing was run"))

    def _give_up(self, error: BaseException) -> None:
        if self._has_outcome:
            return
        self._has_outcome = True
        reason, serial = self._reason_without_result(error), self._serial
        self._steps.record(AuditEvent.OUTCOME, lambda: refused_payload(error, reason=reason, intent_serial=serial))
        if isinstance(error, KavachError) and not self.has_started:
            self._steps.voice.refuse(error)

    def _reason_without_result(self, error: BaseException) -> EndReason:
        if not self.has_started:
            return EndReason.NOT_RUN
        if self._is_judging:
            return EndReason.WITHHELD
        return EndReason.BACKEND_LOST if isinstance(error, BackendError) else EndReason.POLICY_KILL

    @property
    def _serial(self) -> int:
        return -1 if self._intent is None else self._intent.serial

    def conclude(self, raw: RawResult) -> ExecResult:
        """Return what may be known of the ended command: steps 4 to 6.

        Raises:
            AuditError: the outcome could not be recorded; no output is released.
            KavachError: the quarantine cannot take what is withheld; it is destroyed.
        """
        self._is_judging = True
        with self:
            steps = self._steps
            # 4. judge
            self._clock.enter("judge")
            result = release(
                raw,
                sandbox_id=steps.sandbox_id,
                score=steps.score(raw.enforcement),
                requested=steps.requested,
                policy=steps.gate,
                known=steps.known,
                salt=os.urandom(SALT_BYTES),
                also=((), ()) if self._joint is None else self._joint.marks,
            )
            if self.withheld is not None and result.verdict.is_released:
                result = _as_withheld(result, self.withheld)
            # 5. release
            self._clock.enter("release")
            content = {"stdout": raw.stdout, "stderr": raw.stderr}
            kept = steps.keep_withheld(content, result.verdict, result.findings)
            # 6. outcome
            self._clock.enter("outcome")
            if self._watch is not None:
                self._watch.look_back(raw, result)
            result = self._record(msgspec.structs.replace(result, quarantine_id=kept))
            self._has_outcome = True
        steps.count(result, self._clock.finish())
        return result

    def _record(self, result: ExecResult) -> ExecResult:
        steps = self._steps
        if result.findings:
            steps.record(AuditEvent.FINDINGS, lambda: findings_payload(result.findings))
        if result.limits_hit:
            steps.record(AuditEvent.LIMITS, lambda: limits_payload(result.limits_hit or ()))
        if not steps.has_receipts:
            return result
        receipt = Receipt(
            make_statement(
                result,
                command=self.command,
                policy=steps.policy,
                policy_digest=steps.policy_digest,
                agent_id=steps.config.agent_id,
                time_utc=utc_text(time.time_ns()),
                host=host_facts(),
                intent=self._intent,
            ),
            steps.config.receipt_key,
        )
        steps.record(AuditEvent.OUTCOME, lambda: outcome_payload(result, intent_serial=self._serial, receipt=receipt))
        return msgspec.structs.replace(result, receipt=receipt)

    def pass_on(self, chunk: bytes, *, is_error: bool) -> Released:
        """Return what of both streams may leave now; nothing once `withheld` is set, and then end the command."""
        if not self._steps.gate.enabled:
            return ((is_error, chunk),)
        # The other stream is asked too: this chunk may have decided what it held back.
        feeds = {is_error: chunk, not is_error: b""}
        return self._pass(lambda: [(error, self._stream(error).feed(part)) for error, part in feeds.items()])

    def pass_rest(self) -> Released:
        """Return what of both streams had to wait for their end."""
        if self._streams is None:
            return ()
        return self._pass(lambda: [(error, self._stream(error).close()) for error in (False, True)])

    def _pass(self, step: Callable[[], Released]) -> Released:
        if self.withheld is not None:
            return ()
        try:
            return step()
        except Withheld as withheld:
            self.withheld = withheld
            return ()

    def _stream(self, is_error: bool) -> StreamScanner:  # noqa: FBT001 - which of the two is asked for
        if self._streams is None:
            from kavach.gate.stream import StreamScanner

            known, gate = self._steps.known, self._steps.gate
            if known:
                self._joint = Joint(known)
            self._streams = {
                error: StreamScanner(
                    gate,
                    stream="stderr" if error else "stdout",
                    known=known,
                    side=None if self._joint is None else Side(self._joint, error),
                )
                for error in (False, True)
            }
        return self._streams[is_error]


def _as_withheld(result: ExecResult, withheld: Withheld) -> ExecResult:
    """Return the result of a command whose stream was cut by what lies beyond the bytes that were kept of it."""
    return msgspec.structs.replace(
        result,
        reason=EndReason.WITHHELD,
        verdict=Verdict(withheld.verdict or Verdict.QUARANTINE),
        findings=(*result.findings, *withheld.findings),
        stdout_bytes=b"",
        stderr_bytes=b"",
    )
