"""Everything a sandbox is made from, in one frozen value whose defaults are safe.

Defaults: the process wall, the basic policy, 30 seconds, no network. Enforces: types, bounds and shapes, when
it is validated. Does not: know which subsystem exists in this installation; whoever builds a sandbox refuses
a field it cannot honour, never ignores it. Reads no environment and no clock. May be used by: everybody.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import Meta

from kavach.model.command import environment
from kavach.model.paths import path_problem
from kavach.model.policy import SandboxPolicy
from kavach.model.secret import SecretRef
from kavach.model.validate import Model
from kavach.model.verdict import ExternalizationPolicy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kavach.model.builder import SandboxConfigBuilder

__all__ = ["DEFAULT_TIMEOUT_MS", "SandboxConfig"]

DEFAULT_TIMEOUT_MS = 30_000

Name = Annotated[str, Meta(min_length=1, max_length=256)]
HostName = Annotated[str, Meta(min_length=1, max_length=64)]  # __NEW_UTS_LEN, linux/utsname.h


class SandboxConfig(Model, frozen=True, kw_only=True):
    """What a sandbox is made from.

    Args:
        backend: the wall's name, or `auto` for the strongest that starts here.
        policy: a policy, a preset's name, or the path of a profile file.
        secrets: what is injected, and how.
        credentials: the `CredentialProxy` that knows the secrets' values.
        timeout_ms: wall clock of one command; None = no limit.
        workdir: absolute host folder shown at /workspace; None = a private one, removed at destroy.
        workdir_rw: the workdir is writable and its files bypass the gate, which a row and the receipt say.
        env: added to a clean environment; the host's is never inherited.
        agent_id: for audit and offender tracking.
        externalization: what may leave; None = by the policy's preset.
        audit: an `AuditLog`; with it, no record means no output.
        receipt_key: an Ed25519 key; None = receipts carry a digest only.
        quarantine: a `QuarantineStore`; None = a withheld output is destroyed, and the result says so.
        offenders: an `OffenderTracker`.
        guards: pre-checks of commands.
        integrity: the monitor of running sandboxes.
        events: where events go.
        image_policy: which images are trusted.
        attestation_policy: which evidence is trusted.
        inner_backend: the wall inside the wall.
        layers: the walls from the outermost to the innermost.
        hostname: inside its own UTS namespace; None = the sandbox's id.
        domainname: inside its own UTS namespace.
        runtime_manifest: digests that runtimes must have before they are started.
        min_score: refuse to run below it, on observed strength.
        why: watch what the wall refuses and say so in `denials`; every observed call costs a question.
        labels: free names and values for audit, events and metrics.
    """

    backend: Name = "process"
    policy: SandboxPolicy | Annotated[str, Meta(min_length=1, max_length=4096)] = "basic"
    secrets: tuple[SecretRef, ...] = ()
    credentials: Any = None
    timeout_ms: Annotated[int, Meta(ge=1, le=315_360_000_000)] | None = DEFAULT_TIMEOUT_MS
    workdir: str | None = None
    workdir_rw: bool = False
    env: dict[str, str] = msgspec.field(default_factory=dict)
    agent_id: Name | None = None
    externalization: ExternalizationPolicy | None = None
    audit: Any = None
    receipt_key: Any = None
    quarantine: Any = None
    offenders: Any = None
    guards: Any = None
    integrity: Any = None
    events: Any = None
    image_policy: Any = None
    attestation_policy: Any = None
    inner_backend: Name | None = None
    layers: tuple[Name, ...] | None = None
    hostname: HostName | None = None
    domainname: HostName | None = None
    runtime_manifest: Any = None
    min_score: Annotated[int, Meta(ge=0, le=100)] | None = None
    why: bool = False
    labels: dict[str, str] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        force = msgspec.structs.force_setattr
        for name in ("secrets", "layers"):
            if isinstance(getattr(self, name), list):
                force(self, name, tuple(getattr(self, name)))
        for name in ("env", "labels"):  # a frozen value must not change with the caller's dict
            if isinstance(getattr(self, name), Mapping):
                force(self, name, dict(getattr(self, name)))
        for name in ("workdir", "policy"):
            if isinstance(getattr(self, name), os.PathLike):
                force(self, name, os.fspath(getattr(self, name)))

    @classmethod
    def builder(cls) -> SandboxConfigBuilder:
        """Return a builder with one setter per field."""
        from kavach.model.builder import SandboxConfigBuilder

        return SandboxConfigBuilder()

    def problems(self) -> Iterator[tuple[str, str]]:
        """Yield what the types cannot say."""
        if self.workdir is not None:
            found = path_problem(self.workdir)
            if found is not None or self.workdir == "/":
                yield ".workdir", found or "expected a folder below /, got / itself"
        elif self.workdir_rw:
            yield ".workdir_rw", "expected a workdir to make writable, got none"
        environment(self.env, key="$.env")
        for name in ("hostname", "domainname"):
            text = getattr(self, name)
            if text is not None and not _is_host_name(text):
                yield f".{name}", "expected ASCII letters, digits, '-' and '.', and no '-' or '.' at an end"
        for name in ("backend", "agent_id"):
            text = getattr(self, name)
            if text is not None and not text.isprintable():
                yield f".{name}", "expected printable text"
        if self.layers is not None and not self.layers:
            yield ".layers", "expected None or at least one wall, got none"

    def __repr__(self) -> str:
        # SECURITY: env may hold what must not be logged; keys and stores are not for printing either.
        policy = self.policy if isinstance(self.policy, str) else f"SandboxPolicy from {self.policy.preset}"
        return f"SandboxConfig(backend={self.backend!r}, policy={policy!r}, timeout_ms={self.timeout_ms})"


def _is_host_name(text: str) -> bool:
    plain = text.replace("-", "").replace(".", "")
    return text.isascii() and plain.isalnum() and text[0] not in "-." and text[-1] not in "-."
