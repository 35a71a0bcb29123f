"""Digests that a third party can make again with ordinary tools.

Enforces: one definition of each, SHA-256 in lower-case hex. Does not: hide what it digests: whoever can guess a short
argument vector can confirm the guess. Pure. May be used by: kavach.audit, kavach.sandbox.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import msgspec

from kavach.audit.canonical import canonical_json

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kavach.model.policy import SandboxPolicy

__all__ = ["argv_sha256", "policy_sha256", "sha256_hex"]


def sha256_hex(data: bytes) -> str:
    """Return the digest of bytes."""
    return hashlib.sha256(data).hexdigest()


def argv_sha256(argv: Iterable[bytes]) -> str:
    r"""Return the digest of an argument vector: each argument followed by a NUL, as /proc/PID/cmdline shows it.

    `printf '%s\0' echo hello | sha256sum` gives the same.
    """
    return sha256_hex(b"".join([argument + b"\0" for argument in argv]))


def policy_sha256(policy: SandboxPolicy) -> str:
    """Return the digest of a policy's canonical JSON (RFC 8785), every value written out.

    Files that the policy names (seccomp profiles) are covered by their names only.
    """
    return sha256_hex(canonical_json(msgspec.to_builtins(policy)))
