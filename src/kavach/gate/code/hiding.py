"""What hides: decoded texts that are run, names put together from pieces, look-alike characters, records switched off.

Enforces: decoding alone is ordinary; decoding into an interpreter is not. Does not: decode (the gate's decoding passes
do). May be used by: kavach.gate.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from kavach.gate.code.names import names
from kavach.gate.code.wrappers import is_interpreter
from kavach.model.verdict import Severity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kavach.gate.code.acts import Act, Deeds

    Hit = tuple[str, Severity, Act]

LOW, MEDIUM, HIGH = Severity.LOW, Severity.MEDIUM, Severity.HIGH
_BASE64 = frozenset(names("base64 base32 basenc uudecode b64decode"))
_GUARDS = re.compile(
    r"auditd|rsyslog|syslog|firewalld|ufw|apparmor|selinux|falcon|cbdaemon|clamav|ossec|wazuh|osqueryd|fail2ban|sysmon|crowdstrike"
    r"|iptables|nftables|mdatp|sentinel|cron\b"
)
_HISTORY = frozenset(names("HISTFILE HISTSIZE HISTFILESIZE HISTCONTROL"))
_LOOK_ALIKE = re.compile(  # Cyrillic or Greek beside Latin, full-width forms, characters without width
    "[\u0370-\u04ff][a-zA-Z]|[a-zA-Z][\u0370-\u04ff]|[\uff01-\uff5e]|[a-zA-Z][\u200b-\u200d\u2060\ufeff]"
)
_TERMINAL_ESCAPED = re.compile(r"(?:\\x[0-9A-Fa-f]{2}|\\0?[0-7]{3}){3,}")


def hits_of(deeds: Deeds) -> Iterator[Hit]:
    """Yield what hides something.

    Args:
        deeds: what a text would do.
    """
    for act in deeds.acts:
        for group, severity in (*_decoded(act), *_pieced(act), *_switched_off(act)):
            yield group, severity, act


def decodes(act: Act) -> bool:
    """Whether a program turns a hidden text into a readable one."""
    if act.name in _BASE64:
        return act.has_option("-d", "-D", "--decode", "-r") or act.name in {"uudecode", "b64decode"}
    if act.name == "openssl":
        return bool({"enc", "base64", "aes-256-cbc"} & set(act.args)) and act.has_option("-d")
    if act.name == "xxd":
        return act.has_option("-r")
    if act.name in {"echo", "printf"}:
        return any(_TERMINAL_ESCAPED.search(arg) for arg in act.args)
    return act.name in {"rev", "zcat", "gunzip", "xzcat", "uncompress"} or (
        act.name == "tr" and len(act.args) == 2 and len(act.args[1]) > 5
    )


def _decoded(act: Act) -> Iterator[tuple[str, Severity]]:
    if is_interpreter(act.name) or act.name in {"eval", "source", "."}:
        for source in (*act.fed_by, *act.inner):
            if decodes(source):
                yield ("base64-obfuscation" if source.name in _BASE64 | {"openssl"} else "hex-obfuscation"), HIGH
    elif act.name in _BASE64 and decodes(act):
        yield "base64-obfuscation", LOW
    elif (act.name == "xxd" and decodes(act)) or (act.name in {"echo", "printf"} and decodes(act)):
        yield "hex-obfuscation", LOW
    if act.name in {"pwsh", "powershell"} and any(re.fullmatch(r"-e(?:c|nc\w*)?", arg.lower()) for arg in act.args):
        is_long = any(len(arg) > 40 for arg in act.args)
        yield "base64-obfuscation", HIGH if is_long else MEDIUM


def _pieced(act: Act) -> Iterator[tuple[str, Severity]]:
    if act.is_pieced and not act.wrappers:
        yield "shell-obfuscation", MEDIUM
    if _LOOK_ALIKE.search(act.path.encode("latin-1", "replace").decode("utf-8", "replace")):
        yield "unicode-obfuscation", MEDIUM
    if re.search(r"(?:\\x[0-9a-f]{2}){2}", act.path, re.IGNORECASE):
        yield "hex-obfuscation", MEDIUM


def _switched_off(act: Act) -> Iterator[tuple[str, Severity]]:
    args = set(act.args)
    if act.name in {"systemctl", "service", "rc-service", "chkconfig", "launchctl"}:
        is_off = bool(args & {"stop", "disable", "mask", "off", "unload", "kill"})
        if is_off and any(_GUARDS.search(arg) for arg in args):
            yield "security-disable", MEDIUM
    elif (
        (act.name == "setenforce" and args & {"0", "Permissive"})
        or (act.name in {"iptables", "ip6tables", "nft"} and args & {"-F", "--flush", "flush"})
        or (
            act.name in {"ufw", "aa-teardown", "csrutil"} and (args & {"disable", "reset"} or act.name == "aa-teardown")
        )
        or (act.name == "auditctl" and (args & {"-D"} or "-e 0" in act.line))
        or (act.name == "history" and args & {"-c", "-w"} and "-c" in args)
        or (act.name == "set" and "+o history" in act.line)
        or (act.name == "dmesg" and args & {"-C", "-c", "--clear"})
        or (
            act.name == "sysctl"
            and re.search(r"randomize_va_space=0|kptr_restrict=0|ptrace_scope=0|dmesg_restrict=0", act.line)
        )
        or (act.name == "unset" and args & _HISTORY)
        or (
            act.name in {"esxcli", "mdatp", "spctl"}
            and re.search(r"disable|enabled=false|master-disable|false", act.line)
        )
    ):
        yield "security-disable", MEDIUM
    if any(name in _HISTORY and value in {"/dev/null", "0", ""} for name, value in act.assigns):
        yield "security-disable", MEDIUM
