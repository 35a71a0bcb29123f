"""The names of the walls; a name that is none of them is refused, never guessed.

Enforces: that a wall is written one way everywhere. Does not: say whether a wall works here (a probe that
runs it does, in `kavach.backends`). May be used by: everybody.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from kavach.errors import BackendUnavailable

if TYPE_CHECKING:
    from kavach.model.policy import SandboxPolicy

__all__ = ["Backend"]


class Backend(enum.StrEnum):
    """The ten walls by name, in no order of strength; `kavach.scoring.base_score` orders them."""

    PROCESS = "process"
    GVISOR = "gvisor"
    FIRECRACKER = "firecracker"
    WASM = "wasm"
    OCI = "oci"
    SGX = "sgx"
    SEV = "sev"
    TDX = "tdx"
    SY_AGNOS = "sy-agnos"
    NOOP = "noop"

    @classmethod
    def parse(cls, name: str) -> Backend:
        """Return the wall of that name, whatever its case; `syagnos` is the same as `sy-agnos`.

        Args:
            name: a wall's name.

        Raises:
            BackendUnavailable: no wall has that name.
        """
        word = name.lower().replace("_", "-") if isinstance(name, str) else ""
        try:
            return cls("sy-agnos" if word == "syagnos" else word)
        except ValueError:
            raise BackendUnavailable(
                f"unknown backend: {name}",
                backend=str(name),
                hint="expected one of " + ", ".join(wall.value for wall in cls),
            ) from None

    @classmethod
    def all(cls) -> tuple[Backend, ...]:
        """Return the ten walls, whether they work here or not."""
        return tuple(cls)

    @classmethod
    def available(cls) -> tuple[Backend, ...]:
        """Return the walls that were seen to start here with the `basic` policy; each is run once a process."""
        return tuple(wall for wall in cls if wall.is_available())

    def is_available(self) -> bool:
        """Return whether this wall was seen to start here with the `basic` policy; never for noop."""
        from kavach.backends import probe

        return self is not Backend.NOOP and probe(self.value, _basic()).available

    @classmethod
    def resolve_best(cls, policy: SandboxPolicy | str = "basic") -> str:
        """Return the name of the strongest wall that was seen to start here under a policy; noop never.

        Args:
            policy: a policy, a preset's name, or a profile file.

        Raises:
            BackendUnavailable: none starts; says each wall's reason.
        """
        from kavach.backends import resolve_best
        from kavach.model.policy import SandboxPolicy

        return resolve_best(SandboxPolicy.resolve(policy))[0]

    @classmethod
    def resolve_min_strength(cls, policy: SandboxPolicy | str, score: int) -> str | None:
        """Return the weakest wall whose observed strength is at least `score`, None if there is none; noop never.

        Args:
            policy: a policy, a preset's name, or a profile file.
            score: 0 to 100.

        Raises:
            ConfigError: the score is not 0 to 100.
        """
        from kavach.backends import resolve_min_strength
        from kavach.model.policy import SandboxPolicy

        return resolve_min_strength(SandboxPolicy.resolve(policy), score)


def _basic() -> SandboxPolicy:
    from kavach.model.policy import SandboxPolicy

    return SandboxPolicy.basic()
