"""The names of the walls; a name that is none of them is refused, never guessed.

Enforces: that a wall is written one way everywhere. Does not: say whether a wall works here (a probe that
runs it does, in `kavach.backends`). May be used by: everybody.
"""

from __future__ import annotations

import enum

from kavach.errors import BackendUnavailable

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
