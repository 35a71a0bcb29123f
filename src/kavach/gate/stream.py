"""A stream through the gate: what cannot be part of a find goes on at once, the rest waits.

Enforces: no byte leaves that could still have become part of a find that is redacted or withholds; findings and
released bytes are the same however the stream was cut into chunks, and those of the whole text read at once. Does not:
look again at what was released, know both streams of a command, or keep time: whoever feeds it owns the deadline, and a
scanner that hangs releases nothing. May be used by: users, kavach.process and its twin.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from kavach.errors import ConfigError, KavachError, LifecycleError, Withheld
from kavach.gate.evidence import SALT_BYTES
from kavach.gate.findings import Tally
from kavach.gate.guarded import attempt
from kavach.gate.judge import Action, decide, worst_verdict
from kavach.gate.redact import merge, replace
from kavach.gate.scan import Reading, chosen_scanners
from kavach.model.validate import check
from kavach.model.verdict import ExternalizationPolicy, Finding, Severity, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kavach.gate.joint import Side
    from kavach.gate.known import KnownSecret
    from kavach.gate.rule import Mark, Scanner

_WITHHOLDING = frozenset({Action.QUARANTINE, Action.BLOCK})


class StreamScanner:
    """One stream of text: feed it as it comes, pass on what it returns.

    Args:
        policy: what may leave; None = secrets and personal data are redacted.
        stream: its name in findings.
        known: values that must not come out, whatever the scanners think.
        scanners: what to look with; None = all there are.
        random: where the salt of the evidence comes from.
        side: what reads this stream and another as one text; None = it stands alone.

    Raises:
        ConfigError: the policy is not an `ExternalizationPolicy`, or a field of it is wrong.
    """

    def __init__(
        self,
        policy: ExternalizationPolicy | None = None,
        *,
        stream: str = "stream",
        known: Sequence[KnownSecret] = (),
        scanners: Sequence[Scanner] | None = None,
        random: Callable[[int], bytes] = os.urandom,
        side: Side | None = None,
    ) -> None:
        self._policy = ExternalizationPolicy.redact() if policy is None else policy
        if not isinstance(self._policy, ExternalizationPolicy):
            raise ConfigError(f"policy: expected ExternalizationPolicy, got {type(policy).__name__}", key="policy")
        check(self._policy, path="policy")
        chosen = chosen_scanners(self._policy, scanners)
        free = {one.name for one in chosen if decide(one.name, Severity.CRITICAL, self._policy) is Action.REPORT}
        self._reading = Reading(chosen, known, free=frozenset(free))
        self._side = side
        self._tally = Tally(stream, random(SALT_BYTES))
        self._verdict = Verdict.PASS if self._policy.enabled else Verdict.NOT_SCANNED
        self._waiting = b""  # what has come and was not released
        self._released = 0  # how much of the text was dealt with
        self._redacted: list[Mark] = []  # what is to be replaced in what waits
        self._is_over = False

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What was seen so far, masked: the worst of it, by place."""
        return self._tally.findings()

    @property
    def verdict(self) -> Verdict:
        """What the stream is worth so far."""
        return self._verdict

    def feed(self, chunk: bytes) -> bytes:
        """Return what may leave now that `chunk` has come.

        Args:
            chunk: the next bytes, at any cut.

        Raises:
            ConfigError: not bytes.
            LifecycleError: the stream is closed.
            Withheld: in `enforce`, something in it withholds; the stream is over. Likewise when a scanner failed.
        """
        if not isinstance(chunk, bytes | bytearray | memoryview):
            raise ConfigError(f"chunk: expected bytes, got {type(chunk).__name__}", key="chunk")
        return self._advance(bytes(chunk), is_last=False)

    def close(self) -> bytes:
        """End the stream and return what still waited.

        Raises:
            LifecycleError: it is closed already.
            Withheld: as for `feed`.
        """
        return self._advance(b"", is_last=True)

    def _advance(self, chunk: bytes, *, is_last: bool) -> bytes:
        if self._is_over:
            raise LifecycleError("the stream is over; expected no more of it", state="closed", target="feed")
        if not self._policy.enabled:
            self._is_over = is_last
            return chunk
        self._waiting += chunk
        found, why = attempt(lambda: self._read(chunk, is_last=is_last))
        if found is None:
            raise self._cut(f"the stream was cut: {why}")
        marks, decided = found
        self._judge(marks)
        self._is_over = is_last
        return self._release(decided)

    def _read(self, chunk: bytes, *, is_last: bool) -> tuple[Sequence[Mark], int]:
        """Return what is found now, and up to where the stream is known: by itself, and beside the other."""
        marks = self._reading.close() if is_last else self._reading.feed(chunk)
        decided = self._released + len(self._waiting) if is_last else self._reading.decided
        if self._side is None:
            return marks, decided
        more, limit = self._side.close() if is_last else self._side.feed(chunk)
        return [*marks, *more], min(decided, limit)

    def _judge(self, marks: Sequence[Mark]) -> None:
        for mark in marks:
            action = decide(mark.scanner, mark.severity, self._policy)
            if action is Action.IGNORE:
                continue
            start, end = mark.start - self._released, mark.end - self._released
            self._tally.add(mark, self._waiting[max(0, start) : max(0, end)])
            self._verdict = worst_verdict((self._verdict, action.verdict))
            if action in _WITHHOLDING:
                raise self._cut(f"the stream was cut: rule {mark.rule} of {mark.scanner} withholds")
            if action is Action.REDACT and start >= 0:
                self._redacted.append(mark)

    def _release(self, decided: int) -> bytes:
        """Return what stands before `decided`, or before a find that reaches over it, with its finds replaced."""
        passed = self._released
        spans = [span._replace(start=span.start - passed, end=span.end - passed) for span in merge(self._redacted)]
        size = max(0, decided - passed)
        size = next((span.start for span in spans if span.start < size < span.end), size)
        ready = [span for span in spans if span.end <= size]
        released = replace(self._waiting[:size], ready)
        self._waiting = self._waiting[size:]
        self._released += size
        self._redacted = [mark for mark in self._redacted if mark.start >= self._released]
        return released

    def _cut(self, message: str) -> KavachError:
        self._is_over = True
        self._waiting = b""
        self._verdict = worst_verdict((self._verdict, Verdict.QUARANTINE))
        return Withheld(message, verdict=str(self._verdict), findings=self.findings)
