"""Kavach runs code that nobody trusts behind a wall of your choice, and tells how strong that wall was seen to be.

    result = kavach.run(["python3", "task.py"], policy="strict", min_score=60)
    result.stdout, result.score, result.enforcement

Start with `run`, or with `Sandbox` for more than one command; `AsyncSandbox` and `arun` are their twins under asyncio
and trio. `SandboxPolicy` says what a command may do, `Enforcement` what was seen in force, `scoring` what that is
worth. Everything raises `KavachError` and its kinds, and nothing else.

Importing this module starts nothing and works on every platform; names are loaded when they are first used.
"""

from __future__ import annotations

__version__ = "0.1.0"

TYPE_CHECKING = False  # importing typing would cost more than this whole module
if TYPE_CHECKING:
    from kavach import scoring
    from kavach.aio import AsyncProcess, AsyncSandbox, arun
    from kavach.audit.events.bus import EventBus
    from kavach.audit.log import AuditLog
    from kavach.audit.receipt import Receipt
    from kavach.audit.signing import SigningKey
    from kavach.backends.noop import UnsafeNoop
    from kavach.credentials import CredentialProxy
    from kavach.errors import (
        AttestationError,
        AuditError,
        BackendError,
        BackendUnavailable,
        ConfigError,
        CredentialError,
        EgressError,
        ImageError,
        InternalError,
        KavachError,
        LaunchError,
        LifecycleError,
        PolicyError,
        UnsupportedError,
        Withheld,
    )
    from kavach.gate.offenders import OffenderTracker
    from kavach.gate.public import ScanResult, scan, scan_command
    from kavach.gate.stream import StreamScanner
    from kavach.model.backend import Backend
    from kavach.model.config import SandboxConfig
    from kavach.model.enforcement import Control, ControlState, Enforcement
    from kavach.model.guard import GuardPolicy
    from kavach.model.health import Health, Metrics
    from kavach.model.policy import NetworkPolicy, PathRule, ResourceLimits, SandboxPolicy, SeccompProfile
    from kavach.model.result import Denial, EndReason, ExecResult, Usage
    from kavach.model.score import StrengthScore
    from kavach.model.secret import EnvVar, Fd, File, SecretRef, Stdin
    from kavach.model.state import SandboxState
    from kavach.model.verdict import ExternalizationPolicy, Finding, Severity, Verdict
    from kavach.pool import AsyncSandboxPool, SandboxPool
    from kavach.process import Chunk, Process
    from kavach.sandbox import Sandbox
    from kavach.sandbox.once import run

__all__ = [
    "AsyncProcess",
    "AsyncSandbox",
    "AsyncSandboxPool",
    "AttestationError",
    "AuditError",
    "AuditLog",
    "Backend",
    "BackendError",
    "BackendUnavailable",
    "Chunk",
    "ConfigError",
    "Control",
    "ControlState",
    "CredentialError",
    "CredentialProxy",
    "Denial",
    "EgressError",
    "EndReason",
    "Enforcement",
    "EnvVar",
    "EventBus",
    "ExecResult",
    "ExternalizationPolicy",
    "Fd",
    "File",
    "Finding",
    "GuardPolicy",
    "Health",
    "ImageError",
    "InternalError",
    "KavachError",
    "LaunchError",
    "LifecycleError",
    "Metrics",
    "NetworkPolicy",
    "OffenderTracker",
    "PathRule",
    "PolicyError",
    "Process",
    "Receipt",
    "ResourceLimits",
    "Sandbox",
    "SandboxConfig",
    "SandboxPolicy",
    "SandboxPool",
    "SandboxState",
    "ScanResult",
    "SeccompProfile",
    "SecretRef",
    "Severity",
    "SigningKey",
    "Stdin",
    "StreamScanner",
    "StrengthScore",
    "UnsafeNoop",
    "UnsupportedError",
    "Usage",
    "Verdict",
    "Withheld",
    "__version__",
    "arun",
    "run",
    "scan",
    "scan_command",
    "scoring",
]

_HOME = {
    "kavach.aio": ("AsyncProcess", "AsyncSandbox", "arun"),
    "kavach.audit.events.bus": ("EventBus",),
    "kavach.audit.log": ("AuditLog",),
    "kavach.audit.receipt": ("Receipt",),
    "kavach.audit.signing": ("SigningKey",),
    "kavach.backends.noop": ("UnsafeNoop",),
    "kavach.credentials": ("CredentialProxy",),
    "kavach.errors": (
        "AttestationError",
        "AuditError",
        "BackendError",
        "BackendUnavailable",
        "ConfigError",
        "CredentialError",
        "EgressError",
        "ImageError",
        "InternalError",
        "KavachError",
        "LaunchError",
        "LifecycleError",
        "PolicyError",
        "UnsupportedError",
        "Withheld",
    ),
    "kavach.gate.offenders": ("OffenderTracker",),
    "kavach.gate.public": ("ScanResult", "scan", "scan_command"),
    "kavach.gate.stream": ("StreamScanner",),
    "kavach.model.backend": ("Backend",),
    "kavach.model.config": ("SandboxConfig",),
    "kavach.model.enforcement": ("Control", "ControlState", "Enforcement"),
    "kavach.model.guard": ("GuardPolicy",),
    "kavach.model.health": ("Health", "Metrics"),
    "kavach.model.policy": ("NetworkPolicy", "PathRule", "ResourceLimits", "SandboxPolicy", "SeccompProfile"),
    "kavach.model.result": ("Denial", "EndReason", "ExecResult", "Usage"),
    "kavach.model.score": ("StrengthScore",),
    "kavach.model.secret": ("EnvVar", "Fd", "File", "SecretRef", "Stdin"),
    "kavach.model.state": ("SandboxState",),
    "kavach.model.verdict": ("ExternalizationPolicy", "Finding", "Severity", "Verdict"),
    "kavach.pool": ("AsyncSandboxPool", "SandboxPool"),
    "kavach.process": ("Chunk", "Process"),
    "kavach.sandbox": ("Sandbox",),
    "kavach.sandbox.once": ("run",),
}
_OWNER = {name: module for module, names in _HOME.items() for name in names}


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name == "scoring":
        value: object = import_module("kavach.scoring")
    elif name in _OWNER:
        value = getattr(import_module(_OWNER[name]), name)
    else:
        raise AttributeError(f"module 'kavach' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
