"""Named secrets -> sealed descriptors for one run; no repr, copy, pickle or traceback shows a value.

Enforces: a value is read from its source at the moment of use, lives in a `SecretValue` that every way of
printing or copying an object refuses, and reaches the launcher only as a sealed memfd: never in a command
line, an environment of ours, a message or a file on disk. An unknown name, an empty value or two secrets for
one target are errors before anything is started.

Does not: keep secrets (sources are asked each time), protect a value from code that runs in this very
process, wipe the copies that the interpreter made of a caller's `str` or `bytes`, or put anything into a
sandbox: the launcher does that, from the descriptors.

May be called by: `sandbox`, `aio`, `pool` and `cli`. Knows neither the launcher nor a backend.
"""

from __future__ import annotations

from kavach.credentials.delivery import Delivery, Injection, deliver
from kavach.credentials.option import parse_secret
from kavach.credentials.proxy import CredentialProxy
from kavach.credentials.value import SecretValue
from kavach.model.secret import (
    EnvVar,
    Fd,
    File,
    FromCommand,
    FromEnv,
    FromFile,
    FromKeyring,
    SecretRef,
    Stdin,
)

__all__ = [
    "CredentialProxy",
    "Delivery",
    "EnvVar",
    "Fd",
    "File",
    "FromCommand",
    "FromEnv",
    "FromFile",
    "FromKeyring",
    "Injection",
    "SecretRef",
    "SecretValue",
    "Stdin",
    "deliver",
    "parse_secret",
]
