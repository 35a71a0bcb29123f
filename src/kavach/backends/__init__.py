"""The one dispatch table from a wall's name to the class that builds it, third parties' walls included.

Guarantees: an unknown or absent wall is `BackendUnavailable`, never another wall; no kernel module of ours is imported
on a platform that it was not written for. Does not: build. May be called by: kavach.sandbox, kavach.doctor, kavach.cli.
"""

from __future__ import annotations

import functools
import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING

from kavach.errors import BackendUnavailable, ConfigError, KavachError, UnsupportedError
from kavach.model.backend import Backend

if TYPE_CHECKING:
    from kavach.backends.base import Probe, Wall
    from kavach.model.config import SandboxConfig
    from kavach.model.policy import SandboxPolicy
    from kavach.model.score import StrengthScore

ENTRY_POINTS = "kavach.backends"
#: Imported when asked for, so that `import kavach` stays small and works on every platform.
_OWN = {"process": "kavach.backends.process:ProcessWall", "noop": "kavach.backends.noop:UnsafeNoop"}
_MACHINES = ("x86_64", "aarch64")  # as uname(2) says it; those with a table of system calls in kavach.linux


def create_backend(config: SandboxConfig, policy: SandboxPolicy, sandbox_id: str) -> Wall:
    """Return a wall that is not built yet.

    Raises:
        BackendUnavailable: no wall has that name, or it does not exist in this installation.
        UnsupportedError: the wall cannot stand on this platform.
    """
    if config.inner_backend is not None or config.layers is not None:
        raise BackendUnavailable(
            "nested walls (inner_backend, layers) are not part of this version", backend="composite"
        )
    wall: Wall = load_backend(config.backend)(config, policy, sandbox_id)
    return wall


@functools.lru_cache(maxsize=64)
def requested_score(name: str, policy: SandboxPolicy) -> StrengthScore:
    """Return what a wall that exists is worth if all it is asked for holds; one without published points is worth 0."""
    from kavach.model.score import StrengthScore
    from kavach.policy.strength import score_backend

    try:
        return score_backend(name, policy)
    except BackendUnavailable:
        return StrengthScore(0)


def load_backend(name: str) -> type:
    """Return the class of the wall of that name.

    Raises:
        BackendUnavailable: there is none; says which there are.
        UnsupportedError: it is the process wall, and this is not its platform.
    """
    word = name.lower()
    target = _OWN.get(word)
    if target is not None:
        if word == "process":
            require_platform()  # ORDER: before the import, which fails elsewhere with whatever is missing first
        module, _, attribute = target.partition(":")
        found: type = getattr(import_module(module), attribute)
        return found
    point = third_party().get(word)
    if point is not None:
        try:
            loaded: type = point.load()  # type: ignore[attr-defined]  # EntryPoint, imported lazily
        except (ImportError, AttributeError, SyntaxError, OSError, ValueError, TypeError, RuntimeError) as error:
            raise BackendUnavailable(
                f"the wall {name!r} cannot be imported: {type(error).__name__}: {error}",
                backend=name,
                missing=(f"a working entry point kavach.backends:{word}",),
            ) from error
        return loaded
    known = Backend.parse(name)  # raises for a name that is no wall at all
    raise BackendUnavailable(
        f"the {known} wall is not part of this version",
        backend=known.value,
        missing=(f"the {known} backend",),
        hint=f"walls that exist here: {', '.join(names())}",
    )


def require_platform() -> None:
    """Return where the process wall can stand: Linux, in 64 bits, on a machine whose system calls it knows.

    Raises:
        UnsupportedError: anywhere else; `found` names the platform.
    """
    machine = os.uname().machine if sys.platform == "linux" else ""
    bits = 64 if sys.maxsize > 2**32 else 32
    if machine in _MACHINES and bits == 64:
        return
    found = f"{sys.platform} on {machine} in {bits} bits" if machine else sys.platform
    raise UnsupportedError(
        f"commands run only on Linux on {' or '.join(_MACHINES)} in 64 bits, this is {found}; nothing was run",
        control="platform",
        needed=f"Linux on {' or '.join(_MACHINES)} in 64 bits",
        found=found,
        hint="run Kavach on such a Linux or in a virtual machine with one; policies and scores work here",
    )


@functools.cache
def third_party() -> dict[str, object]:
    """Return the entry points by which other distributions add walls; a name of our own cannot be taken over."""
    from importlib.metadata import entry_points

    return {
        point.name.lower(): point
        for point in entry_points(group=ENTRY_POINTS)
        if point.name.lower() not in {wall.value for wall in Backend}
    }


def names() -> tuple[str, ...]:
    """Return the names of the walls that exist in this installation."""
    return (*_OWN, *sorted(third_party()))


def resolve_best(policy: SandboxPolicy) -> tuple[str, Probe]:
    """Return the strongest wall that was seen to start here, and its probe; never noop.

    Raises:
        BackendUnavailable: none starts; says each wall's reason.
    """
    probes = [probe(name, policy) for name in names() if name != "noop"]
    started = [one for one in probes if one.available]
    if not started:
        reasons = "; ".join(f"{one.backend}: {', '.join(one.reasons)}" for one in probes)
        raise BackendUnavailable(
            f"no wall starts here: {reasons}",
            backend="auto",
            missing=[reason for one in probes for reason in one.missing],
        )
    best = max(started, key=lambda one: one.score or 0)
    return best.backend, best


def resolve_min_strength(policy: SandboxPolicy, score: int) -> str | None:
    """Return the weakest wall whose observed strength is at least `score`, None if there is none; never noop.

    Raises:
        ConfigError: the score is not 0 to 100.
    """
    if isinstance(score, bool) or not isinstance(score, int) or not 0 <= score <= 100:
        raise ConfigError(f"score: expected an int from 0 to 100, got {score!r}", key="score")
    probes = [probe(name, policy) for name in names() if name != "noop"]
    enough = [one for one in probes if one.available and (one.score or 0) >= score]
    return min(enough, key=lambda one: one.score or 0).backend if enough else None


@functools.lru_cache(maxsize=32)
def probe(name: str, policy: SandboxPolicy) -> Probe:
    """Run the wall once, with `true` inside, and return what was seen; cached for this process."""
    from kavach import __version__
    from kavach.backends.base import Probe
    from kavach.model.command import make_command
    from kavach.model.config import SandboxConfig
    from kavach.policy.strength import score_enforcement

    try:
        wall: Wall = load_backend(name)(SandboxConfig(backend=name, policy=policy), policy, "probe")
        try:
            wall.build()
            seen: list[int] = []
            run = wall.start(
                make_command(["true"], timeout_ms=10_000),
                injection=None,
                check=lambda rows: seen.append(int(score_enforcement(rows))),
                stdin=None,
                on_chunk=None,
            )
            from kavach.launcher.pump import drive

            drive(run)
            return Probe(name, available=name != "noop", version=__version__, score=seen[0], reasons=(), missing=())
        finally:
            wall.destroy()
    except KavachError as error:
        missing = getattr(error, "control", None) or getattr(error, "missing", None) or ()
        names_missing = (missing,) if isinstance(missing, str) else tuple(missing)
        return Probe(name, available=False, version="", score=None, reasons=(str(error),), missing=names_missing)
