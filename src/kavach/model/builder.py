"""`SandboxConfig` put together one setter at a time, checked as a whole at the end.

Enforces: that `build` gives a valid configuration or raises. Does not: check a value when it is set, nor read
a profile file before `build`. May be used by: callers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from kavach.errors import ConfigError
from kavach.model.config import SandboxConfig
from kavach.model.policy import SandboxPolicy
from kavach.model.validate import check

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping

    from kavach.model.secret import SecretRef
    from kavach.model.verdict import ExternalizationPolicy

__all__ = ["SandboxConfigBuilder"]


class SandboxConfigBuilder:
    """Collects the fields of a `SandboxConfig`; every setter returns the builder."""

    def __init__(self) -> None:
        self._values: dict[str, Any] = {}
        self._changes: dict[str, Any] = {}

    def build(self) -> SandboxConfig:
        """Return the configuration, checked as a whole.

        Raises:
            ConfigError: a value is wrong; named by its path.
            PolicyError: the policy contradicts itself.
        """
        values = dict(self._values)
        if self._changes:
            values["policy"] = SandboxPolicy.resolve(values.get("policy", "basic")).replace(**self._changes)
        config = SandboxConfig(**values)
        check(config)
        return config

    def policy_seccomp(self, name: str | None) -> Self:
        """Lay one system-call profile over the policy; None = no filter.

        Args:
            name: a profile's name.
        """
        self._changes["profile"] = name.lower() if isinstance(name, str) else name
        return self

    def network(self, enabled: bool, /) -> Self:  # noqa: FBT001 - the public name and form of the design
        """Lay the network over the policy: False = none, True = the host's, which `strict` refuses.

        Args:
            enabled: a bool and nothing else.

        Raises:
            ConfigError: it is not a bool; no text may pass for one.
        """
        if not isinstance(enabled, bool):
            raise ConfigError(f"network: expected bool, got {type(enabled).__name__}", key="network")
        self._changes["mode"] = "host" if enabled else "none"
        return self

    def backend(self, value: str, /) -> Self:
        """Set `backend`.

        Args:
            value: the wall's name, a `Backend`, or `auto`.
        """
        self._values["backend"] = value
        return self

    def policy(self, value: SandboxPolicy | str, /) -> Self:
        """Set `policy`.

        Args:
            value: a policy, a preset's name, or a profile file.
        """
        self._values["policy"] = value
        return self

    def secrets(self, value: Iterable[SecretRef], /) -> Self:
        """Set `secrets`.

        Args:
            value: what is injected, and how.
        """
        self._values["secrets"] = value
        return self

    def credentials(self, value: object, /) -> Self:
        """Set `credentials`.

        Args:
            value: the `CredentialProxy` that knows the secrets' values.
        """
        self._values["credentials"] = value
        return self

    def timeout_ms(self, value: int | None, /) -> Self:
        """Set `timeout_ms`.

        Args:
            value: wall clock of one command; None = no limit.
        """
        self._values["timeout_ms"] = value
        return self

    def workdir(self, value: str | os.PathLike[str] | None, /) -> Self:
        """Set `workdir`.

        Args:
            value: absolute host folder shown at /workspace.
        """
        self._values["workdir"] = value
        return self

    def workdir_rw(self, value: bool, /) -> Self:  # noqa: FBT001 - one setter per field
        """Set `workdir_rw`.

        Args:
            value: whether the workdir is writable and bypasses the gate.
        """
        self._values["workdir_rw"] = value
        return self

    def env(self, value: Mapping[str, str], /) -> Self:
        """Set `env`.

        Args:
            value: added to a clean environment.
        """
        self._values["env"] = value
        return self

    def agent_id(self, value: str | None, /) -> Self:
        """Set `agent_id`.

        Args:
            value: for audit and offender tracking.
        """
        self._values["agent_id"] = value
        return self

    def externalization(self, value: ExternalizationPolicy | None, /) -> Self:
        """Set `externalization`.

        Args:
            value: what may leave; None = by the policy's preset.
        """
        self._values["externalization"] = value
        return self

    def audit(self, value: object, /) -> Self:
        """Set `audit`.

        Args:
            value: an `AuditLog`.
        """
        self._values["audit"] = value
        return self

    def receipt_key(self, value: object, /) -> Self:
        """Set `receipt_key`.

        Args:
            value: an Ed25519 key.
        """
        self._values["receipt_key"] = value
        return self

    def quarantine(self, value: object, /) -> Self:
        """Set `quarantine`.

        Args:
            value: a `QuarantineStore`.
        """
        self._values["quarantine"] = value
        return self

    def offenders(self, value: object, /) -> Self:
        """Set `offenders`.

        Args:
            value: an `OffenderTracker`.
        """
        self._values["offenders"] = value
        return self

    def guards(self, value: object, /) -> Self:
        """Set `guards`.

        Args:
            value: pre-checks of commands.
        """
        self._values["guards"] = value
        return self

    def integrity(self, value: object, /) -> Self:
        """Set `integrity`.

        Args:
            value: the monitor of running sandboxes.
        """
        self._values["integrity"] = value
        return self

    def events(self, value: object, /) -> Self:
        """Set `events`.

        Args:
            value: where events go.
        """
        self._values["events"] = value
        return self

    def image_policy(self, value: object, /) -> Self:
        """Set `image_policy`.

        Args:
            value: which images are trusted.
        """
        self._values["image_policy"] = value
        return self

    def attestation_policy(self, value: object, /) -> Self:
        """Set `attestation_policy`.

        Args:
            value: which evidence is trusted.
        """
        self._values["attestation_policy"] = value
        return self

    def inner_backend(self, value: str | None, /) -> Self:
        """Set `inner_backend`.

        Args:
            value: the wall inside the wall.
        """
        self._values["inner_backend"] = value
        return self

    def layers(self, value: Iterable[str] | None, /) -> Self:
        """Set `layers`.

        Args:
            value: the walls from the outermost to the innermost.
        """
        self._values["layers"] = value
        return self

    def hostname(self, value: str | None, /) -> Self:
        """Set `hostname`.

        Args:
            value: inside its own UTS namespace.
        """
        self._values["hostname"] = value
        return self

    def domainname(self, value: str | None, /) -> Self:
        """Set `domainname`.

        Args:
            value: inside its own UTS namespace.
        """
        self._values["domainname"] = value
        return self

    def runtime_manifest(self, value: object, /) -> Self:
        """Set `runtime_manifest`.

        Args:
            value: digests that runtimes must have.
        """
        self._values["runtime_manifest"] = value
        return self

    def min_score(self, value: int | None, /) -> Self:
        """Set `min_score`.

        Args:
            value: refuse to run below it.
        """
        self._values["min_score"] = value
        return self

    def why(self, value: bool, /) -> Self:  # noqa: FBT001 - the one argument of a setter
        """Set `why`.

        Args:
            value: watch what the wall refuses, and say so in `denials`.
        """
        self._values["why"] = value
        return self

    def labels(self, value: Mapping[str, str], /) -> Self:
        """Set `labels`.

        Args:
            value: free names and values.
        """
        self._values["labels"] = value
        return self
