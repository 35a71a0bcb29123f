"""Two kinds of bytes have two types: a wall returns `RawResult` (untrusted), the gate makes `ExecResult`.

Enforces: a withheld result holds no output byte, and unknown is None, never 0. Does not: scan or release
(`kavach.gate` does); only `gate.release` may turn one type into the other.
`RawResult` may be used by backends, the launcher and the gate; `ExecResult` by everybody.
"""

from __future__ import annotations

import enum
from typing import Any

import msgspec

from kavach.errors import BackendError, InternalError, KavachError, Withheld
from kavach.model.enforcement import Enforcement
from kavach.model.score import StrengthScore
from kavach.model.validate import Model
from kavach.model.verdict import Finding, Verdict

__all__ = ["RESULT_SCHEMA", "Denial", "EndReason", "ExecResult", "RawResult", "Usage"]

RESULT_SCHEMA = "kavach.result/1"
"""The version of `to_dict`; a field may be added within it, none changes meaning or goes."""


class EndReason(enum.StrEnum):
    """What ended a command; exactly one, and never a guess."""

    EXIT = "exit"
    SIGNAL = "signal"
    TIMEOUT = "timeout"
    TIMEOUT_SIBLING = "timeout_sibling"  # another command's timeout ended the sandbox's processes (no cgroup)
    OOM = "oom"
    PIDS = "pids"
    DISK = "disk"
    OUTPUT_LIMIT = "output_limit"
    POLICY_KILL = "policy_kill"
    WITHHELD = "withheld"
    BACKEND_LOST = "backend_lost"
    NOT_RUN = "not_run"


class Usage(Model, frozen=True, kw_only=True):
    """What a command used; None where it was not measured.

    Args:
        cpu_time_ms: processor time, user and system.
        memory_peak_bytes: the most memory at one moment.
        pids_peak: the most processes and threads at one moment.
        io_read_bytes: read from block devices.
        io_write_bytes: written to block devices.
    """

    cpu_time_ms: float | None = None
    memory_peak_bytes: int | None = None
    pids_peak: int | None = None
    io_read_bytes: int | None = None
    io_write_bytes: int | None = None


class Denial(Model, frozen=True, kw_only=True):
    """One thing the wall refused, and what would allow it.

    Args:
        what: the act: a system call, an access, a connection.
        target: the path or host, or empty where it was not seen.
        rule: the control and rule that refused it.
        change: the smallest change of the policy that would allow it.
        sentence: one sentence fit for a model, which must not retry outside the sandbox.
    """

    what: str
    target: str
    rule: str
    change: str
    sentence: str


class RawResult(Model, frozen=True, kw_only=True):
    """What a wall saw of one command: untrusted bytes, which nobody but the gate may read.

    Args:
        reason: what ended it.
        exit_code: its exit code, or None.
        signal: the signal that ended it, or None.
        stdout: at most the policy's output_bytes of it, exact.
        stderr: at most the policy's output_bytes of it, exact.
        stdout_dropped_bytes: how many more were drained and dropped.
        stderr_dropped_bytes: how many more were drained and dropped.
        duration_ms: wall clock from go to the end.
        usage: what it used.
        enforcement: the rows observed before it started, or None where nothing ran.
        limits_hit: every counter that rose; None where nothing counts.
        denials: what the wall refused, as far as it was observed.
    """

    reason: EndReason
    exit_code: int | None = None
    signal: int | None = None
    stdout: bytes = b""
    stderr: bytes = b""
    stdout_dropped_bytes: int = 0
    stderr_dropped_bytes: int = 0
    duration_ms: float = 0.0
    usage: Usage = Usage()
    enforcement: Enforcement | None = None
    limits_hit: tuple[str, ...] | None = None
    denials: tuple[Denial, ...] = ()

    def __repr__(self) -> str:
        # SECURITY: nothing has read these bytes yet; a log line or a traceback must not be how they leave.
        sizes = f"stdout=<{len(self.stdout)} bytes>, stderr=<{len(self.stderr)} bytes>"
        return f"RawResult(reason={self.reason.value!r}, exit_code={self.exit_code!r}, {sizes})"


class ExecResult(Model, frozen=True, kw_only=True):
    """What became of one command, and what of its output was released.

    A non-zero exit, a signal, a timeout or a withheld output is a result, not an exception.

    Args:
        sandbox_id: the sandbox it ran in.
        reason: what ended it, or `withheld`.
        exit_code: its exit code, or None.
        signal: the signal that ended it, or None.
        stdout_bytes: what was released, exact; empty when withheld.
        stderr_bytes: what was released, exact; empty when withheld.
        truncated_stdout: more came than the policy's output_bytes.
        truncated_stderr: more came than the policy's output_bytes.
        stdout_dropped_bytes: how many bytes were drained and dropped.
        stderr_dropped_bytes: how many bytes were drained and dropped.
        duration_ms: wall clock from go to the end.
        usage: what it used.
        enforcement: one row per control; None where no wall was built.
        score: the strength observed.
        requested_score: the strength asked for.
        verdict: what the gate said.
        findings: what the scanners saw, masked.
        quarantine_id: where a withheld output waits for a person; None = it was destroyed, or not withheld.
        limits_hit: every counter that rose, also on success; None where nothing counts.
        denials: what the wall refused, as far as it was observed.
        receipt: the signed record of the run, or None.
    """

    sandbox_id: str
    reason: EndReason
    exit_code: int | None = None
    signal: int | None = None
    stdout_bytes: bytes = b""
    stderr_bytes: bytes = b""
    truncated_stdout: bool = False
    truncated_stderr: bool = False
    stdout_dropped_bytes: int = 0
    stderr_dropped_bytes: int = 0
    duration_ms: float = 0.0
    usage: Usage = Usage()
    enforcement: Enforcement | None = None
    score: StrengthScore
    requested_score: StrengthScore
    verdict: Verdict = Verdict.NOT_SCANNED
    findings: tuple[Finding, ...] = ()
    quarantine_id: str | None = None
    limits_hit: tuple[str, ...] | None = None
    denials: tuple[Denial, ...] = ()
    receipt: Any = None

    def __post_init__(self) -> None:
        # SECURITY: the one place every released result passes; a blocked one has no bytes, whoever made it.
        blocked = self.reason is EndReason.WITHHELD or not self.verdict.is_released
        if blocked and (self.stdout_bytes or self.stderr_bytes):
            raise InternalError("a withheld result must hold no output bytes")

    @property
    def ok(self) -> bool:
        """Whether the command ran to its own end, said 0, and its output was released."""
        return self.reason is EndReason.EXIT and self.exit_code == 0

    @property
    def timed_out(self) -> bool:
        """Whether a deadline ended it, its own or a neighbour's."""
        return self.reason in {EndReason.TIMEOUT, EndReason.TIMEOUT_SIBLING}

    @property
    def stdout(self) -> str:
        """The released standard output as text; invalid UTF-8 is replaced."""
        return self.stdout_bytes.decode("utf-8", "replace")

    @property
    def stderr(self) -> str:
        """The released standard error as text; invalid UTF-8 is replaced."""
        return self.stderr_bytes.decode("utf-8", "replace")

    def raise_for_status(self) -> ExecResult:
        """Return this result if the command succeeded, so that calls can be chained.

        Raises:
            Withheld: the gate kept the output back.
            BackendError: the wall was lost while the command ran.
            KavachError: the command failed; says how it ended.
        """
        if self.ok:
            return self
        if self.reason is EndReason.WITHHELD:
            raise Withheld(
                f"the output was withheld: verdict {self.verdict}; {fate_of(self.quarantine_id)}",
                verdict=str(self.verdict),
                findings=self.findings,
                quarantine_id=self.quarantine_id,
            )
        if self.reason is EndReason.BACKEND_LOST:
            raise BackendError("the wall was lost while the command ran; expected it to outlive the command")
        raise KavachError(f"the command {self._ending()}; expected exit code 0")

    def _ending(self) -> str:
        if self.reason is EndReason.EXIT:
            return f"exited with code {self.exit_code}"
        if self.reason is EndReason.SIGNAL:
            return f"was ended by signal {self.signal}"
        if self.reason is EndReason.NOT_RUN:
            return "was not run"
        return f"was ended: {self.reason}"

    def to_dict(self) -> dict[str, Any]:
        """Return the result as JSON can hold it, under the schema `kavach.result/1`."""
        computed = ("score", "requested_score", "stdout_bytes", "stderr_bytes", "receipt")
        kept = {name: getattr(self, name) for name in self.__struct_fields__ if name not in computed}
        plain: dict[str, Any] = msgspec.to_builtins(kept)
        return {
            "schema": RESULT_SCHEMA,
            **plain,
            "ok": self.ok,
            "timed_out": self.timed_out,
            "stdout": self.stdout,
            "stderr": self.stderr,
            "stdout_base64": _exact(self.stdout_bytes),
            "stderr_base64": _exact(self.stderr_bytes),
            "score": self.score.to_dict(),
            "requested_score": self.requested_score.to_dict(),
            "receipt": None if self.receipt is None else self.receipt.to_dict(),
        }

    def to_json(self) -> str:
        """Return `to_dict` as one line of JSON."""
        return msgspec.json.encode(self.to_dict()).decode()


def fate_of(quarantine_id: str | None) -> str:
    """Return what became of withheld bytes, in words."""
    return f"quarantined as {quarantine_id}" if quarantine_id else "destroyed"


def _exact(data: bytes) -> str | None:
    """Return base64 of bytes that text cannot carry exactly, else None."""
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        from base64 import b64encode

        return b64encode(data).decode()
    return None
