"""Kavach runs code that nobody trusts behind a wall of your choice, and tells with evidence how strong that wall was.

    result = kavach.run(["python3", "task.py"], policy="strict", min_score=60)
    result.stdout, result.score, result.enforcement

Start with `run`, or with `Sandbox` for more than one command; `AsyncSandbox` and `arun` are their twins under asyncio and
trio. `SandboxPolicy` says what a command may do, `Enforcement` what was seen in force, `scoring` what that is worth.
Everything raises `KavachError` and its kinds, and nothing else.

Importing this module starts nothing and works on every platform; names are loaded when they are first used.
"""

from __future__ import annotations

__version__ = "0.1.0"

_HOME = {
    "kavach.aio": ("AsyncProcess", "AsyncSandbox", "arun"),
    "kavach.backends.noop": ("UnsafeNoop",),
    "kavach.credentials": ("CredentialProxy",),
    "kavach.errors": (
        "AttestationError", "AuditError", "BackendError", "BackendUnavailable", "ConfigError", "CredentialError",
        "EgressError", "ImageError", "InternalError", "KavachError", "LaunchError", "LifecycleError", "PolicyError",
        "UnsupportedError", "Withheld",
    ),
    "kavach.model.backend": ("Backend",),
    "kavach.model.config": ("SandboxConfig",),
    "kavach.model.enforcement": ("Control", "ControlState", "Enforcement"),
    "kavach.model.health": ("Health", "Metrics"),
    "kavach.model.policy": ("NetworkPolicy", "PathRule", "ResourceLimits", "SandboxPolicy", "SeccompProfile"),
    "kavach.model.result": ("Denial", "EndReason", "ExecResult", "Usage"),
    "kavach.model.score": ("StrengthScore",),
    "kavach.model.secret": ("EnvVar", "Fd", "File", "SecretRef", "Stdin"),
    "kavach.model.state": ("SandboxState",),
    "kavach.model.verdict": ("Verdict",),
    "kavach.pool": ("AsyncSandboxPool", "SandboxPool"),
    "kavach.process": ("Chunk", "Process"),
    "kavach.sandbox": ("Sandbox", "run"),
}  # fmt: skip
_MODULES = ("scoring",)
_OWNER = {name: module for module, names in _HOME.items() for name in names}

__all__ = ["__version__", *sorted(_OWNER), *_MODULES]


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name in _OWNER:
        value: object = getattr(import_module(_OWNER[name]), name)
    elif name in _MODULES:
        value = import_module(f"kavach.{name}")
    else:
        raise AttributeError(f"module 'kavach' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
