"""Secrets that a file's own format names: Kubernetes manifests, NuGet, netrc, htpasswd, Git credentials.

May be used by: kavach.gate.secrets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kavach.gate.rule import Rule
from kavach.gate.secrets.connections import is_password
from kavach.gate.secrets.published import is_published
from kavach.gate.secrets.shape import token
from kavach.model.verdict import Severity

if TYPE_CHECKING:
    from kavach.gate.rule import Match

_KIND = r"(?i:kind):[ \t]{1,8}[\"']?(?i:secret)[\"']?[ \t]{0,20}\r?\n"
_DATA = r"(?:data:|stringData:)[ \t]{0,20}\r?\n"
_ENTRY = r"\s{0,40}[\"']?[\w.-]{1,100}[\"']?:[ \t]{0,20}(?:[|>][+-]?\s{1,40})?[\"']?([A-Za-z0-9+/]{6,1000}={0,3})"
_LINES = r"(?:[^\n-][^\n]*\n|\n){0,20}?"


def _is_nuget(found: Match) -> bool:
    value = found.group(1)
    return not is_published(value) and (is_password(value) or value.lower().endswith(b"password%"))


def _is_machine(found: Match) -> bool:
    return is_password(found.group(1))


MANIFEST_RULES = (
    Rule(
        "kubernetes-secret",
        "kubernetes",
        Severity.HIGH,
        "A value of a Kubernetes secret.",
        _KIND + _LINES + r"[ \t]{0,8}" + _DATA + _ENTRY,
        4096,
        (b"kind:",),
        1,
    ),
    Rule(
        "kubernetes-secret-first",
        "kubernetes",
        Severity.HIGH,
        "A value of a Kubernetes secret.",
        _DATA
        + _ENTRY
        + r"[\"']?[ \t]{0,20}\r?\n"
        + _LINES
        + r"[ \t]{0,8}"
        + _KIND.removesuffix(r"\r?\n")
        + r"(?:\r?\n|\z)",
        4096,
        (b"kind:",),
        1,
    ),
    Rule(
        "nuget-password",
        "nuget",
        Severity.MEDIUM,
        "A password of a NuGet source.",
        r"<add key=\\?\"(?:(?i:ClearText)?Password)\\?\"\s{1,8}value=\\?\"([^\"<>]{8,200})\\?\"\s{0,8}/>",
        260,
        (b"password",),
        1,
        _is_nuget,
    ),
    Rule(
        "netrc-password",
        "netrc",
        Severity.HIGH,
        "A password of a netrc file.",
        r"machine\s{1,8}[\w.:-]{1,200}\s{1,8}login\s{1,8}\S{1,200}\s{1,8}password\s{1,8}(\S{3,200})",
        900,
        (b"machine",),
        1,
        _is_machine,
    ),
    token(
        "password-hash",
        "hash",
        Severity.MEDIUM,
        "A password's hash.",
        r"\$(?:2[aby]\$[0-9]{2}\$[./A-Za-z0-9]{53}|apr1\$[./A-Za-z0-9]{1,8}\$[./A-Za-z0-9]{22}"
        r"|6\$(?:rounds=[0-9]{1,9}\$)?[./A-Za-z0-9]{1,16}\$[./A-Za-z0-9]{86}"
        r"|5\$(?:rounds=[0-9]{1,9}\$)?[./A-Za-z0-9]{1,16}\$[./A-Za-z0-9]{43}|y\$[./A-Za-z0-9]{1,20}\$[./A-Za-z0-9]{1,86}\$[./A-Za-z0-9]{43})",
        (b"$2", b"$apr1$", b"$6$", b"$5$", b"$y$"),
    ),
)
