"""The gate without a sandbox: for gateways, hooks and editors.

Guarantees: the same scanners and the same judgement as for a command's output. Does not: store, record or run anything.
May be called by: users, kavach.cli.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import msgspec

from kavach.errors import ConfigError
from kavach.gate.command import scan_argv
from kavach.gate.evidence import SALT_BYTES
from kavach.gate.release import release_bytes, release_marked
from kavach.gate.scan import all_scanners, scan_bytes
from kavach.model.validate import Model, check
from kavach.model.verdict import ExternalizationPolicy, Finding, Severity, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable

    from kavach.gate.release import Judged
    from kavach.model.command import Argv

SCAN_SCHEMA = "kavach.scan/1"


class ScanResult(Model, frozen=True, kw_only=True):
    """What the gate says of one text.

    Args:
        verdict: what it is worth under the policy; `not_scanned` where the policy is off.
        worst_severity: the highest severity that was seen, or None.
        findings: what was seen, masked.
        redacted: what may leave, of the type that was given; None where the verdict withholds.
    """

    verdict: Verdict
    worst_severity: Severity | None = None
    findings: tuple[Finding, ...] = ()
    redacted: Any = None

    def to_dict(self) -> dict[str, Any]:
        """Return the result as JSON can hold it, under the schema `kavach.scan/1`."""
        plain: dict[str, Any] = msgspec.to_builtins(msgspec.structs.replace(self, redacted=None))
        text = self.redacted.decode("utf-8", "replace") if isinstance(self.redacted, bytes) else self.redacted
        return {"schema": SCAN_SCHEMA, **plain, "redacted": text}


def scan(
    data: bytes | str,
    policy: ExternalizationPolicy | None = None,
    *,
    name: str = "text",
    random: Callable[[int], bytes] = os.urandom,
) -> ScanResult:
    """Return what the gate says of a text.

    Args:
        data: all of it; bytes may hold anything.
        policy: what may leave; None = secrets and personal data are redacted.
        name: what findings call it.
        random: where the salt of the evidence comes from.

    Raises:
        ConfigError: an argument is wrong.
    """
    if not isinstance(data, bytes | bytearray | memoryview | str):
        raise ConfigError(f"data: expected bytes or str, got {type(data).__name__}", key="data")
    content = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else bytes(data)
    chosen = _checked(policy)
    judged = release_bytes(content, name=name, policy=chosen, salt=random(SALT_BYTES))
    return _result(judged, is_text=isinstance(data, str))


def scan_command(
    command: Argv,
    policy: ExternalizationPolicy | None = None,
    *,
    random: Callable[[int], bytes] = os.urandom,
) -> ScanResult:
    """Return what the gate says of a command before it runs.

    Args:
        command: an argument vector, or a text with shell syntax.
        policy: what its findings do; None = code is reported, secrets in it are redacted.
        random: where the salt of the evidence comes from.

    Returns:
        The result; findings point into, and `redacted` is, the command as one text.

    Raises:
        ConfigError: it can be no command, or the policy is wrong.
    """
    chosen = _checked(policy)
    seen = scan_argv(command)
    others = tuple(one for one in all_scanners() if one.name not in {"code", "binary"})
    marks = [*seen.marks, *scan_bytes(seen.text, chosen, scanners=others)]
    judged = release_marked(seen.text, marks, name="command", policy=chosen, scanners=others, salt=random(SALT_BYTES))
    return _result(judged, is_text=True)


def _checked(policy: ExternalizationPolicy | None) -> ExternalizationPolicy:
    if policy is None:
        return ExternalizationPolicy.redact()
    if not isinstance(policy, ExternalizationPolicy):
        raise ConfigError(f"policy: expected ExternalizationPolicy, got {type(policy).__name__}", key="policy")
    check(policy, path="policy")
    return policy


def _result(judged: Judged, *, is_text: bool) -> ScanResult:
    released: bytes | str | None = judged.released if judged.verdict.is_released else None
    if is_text and isinstance(released, bytes):
        released = released.decode("utf-8", "replace")
    worst = max((finding.severity for finding in judged.findings), default=None)
    return ScanResult(verdict=judged.verdict, worst_severity=worst, findings=judged.findings, redacted=released)
