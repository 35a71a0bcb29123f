"""The three policies most people need, as data; `basic` is the defaults of `SandboxPolicy`.

Enforces: nothing by itself. Does not: know what this host can do; a control that is missing here is refused
at run time unless the preset's `may_lack` names it. Called by `SandboxPolicy` and by profile files
(`extends`).
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from msgspec.structs import replace

from kavach.errors import ConfigError
from kavach.model.policy import Filesystem, Landlock, ResourceLimits, SandboxPolicy, Seccomp, SeccompProfile
from kavach.model.validate import nearest

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["PRESETS", "preset"]


def _minimal(basic: SandboxPolicy) -> SandboxPolicy:
    return replace(
        basic,
        preset="minimal",
        filesystem=Filesystem(view="all"),
        seccomp=Seccomp(profiles=None),
        limits=ResourceLimits(max_pids=None),
        may_lack=("*",),
    )


def _strict(basic: SandboxPolicy) -> SandboxPolicy:
    return replace(
        basic,
        preset="strict",
        filesystem=Filesystem(view="allow", read_only_rootfs=True),
        seccomp=Seccomp(profiles=(SeccompProfile.STRICT,)),
        limits=ResourceLimits(memory_limit_mb=512, cpu_limit=1.0, max_pids=64),
        landlock=Landlock(scope_abstract=True, scope_signal=True),
        # Without a cgroup the limits are rlimits and a watchdog: fewer points, and the row says so.
        may_lack=("limits",),
    )


PRESETS: dict[str, Callable[[SandboxPolicy], SandboxPolicy]] = {
    "minimal": _minimal,
    "basic": lambda basic: basic,
    "strict": _strict,
}
"""From the loosest to the strictest; `narrow` keeps the later of two."""


def preset(name: object) -> SandboxPolicy:
    """Return the preset of that name, whatever its case.

    Args:
        name: minimal, basic or strict.

    Raises:
        ConfigError: there is no such preset; names the three.
    """
    make = PRESETS.get(name.lower()) if isinstance(name, str) else None
    if make is None:
        got = f"{name!r}{nearest(name, PRESETS)}" if isinstance(name, str) else type(name).__name__
        raise ConfigError(f"$.preset: expected minimal, basic or strict, got {got}", key="$.preset")
    return _made(make)


@functools.cache
def _made(make: Callable[[SandboxPolicy], SandboxPolicy]) -> SandboxPolicy:
    return make(SandboxPolicy())
