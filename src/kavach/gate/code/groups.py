"""The groups of techniques: what each is called, its category, and how far along an attack it stands.

Enforces: every mark of the code scanner names one of these groups. Does not: look at anything. May be used by:
kavach.gate.
"""

from __future__ import annotations

from typing import NamedTuple

from kavach.gate.rule import Mark
from kavach.model.verdict import Severity

SCANNER = "code"
"""The scanner's name in marks and findings."""


class Group(NamedTuple):
    """One technique, however it is written.

    Args:
        category: one of the seven of the code scanner.
        stage: where in an attack it stands, one of `kavach.gate.threat.STAGES`; None = a weakness, no step.
        message: one sentence for a finding.
    """

    category: str
    stage: str | None
    message: str


GROUPS: dict[str, Group] = {
    "shell-exec": Group("command_injection", "exploitation", "code hands a text to a shell"),
    "process-spawn": Group("command_injection", "exploitation", "code starts another program"),
    "eval": Group("command_injection", "exploitation", "text is run as code"),
    "shell-invocation": Group("command_injection", "exploitation", "a shell is started with a text to run"),
    "metacharacters": Group("command_injection", "exploitation", "an argument holds what a shell would act on"),
    "pipe-to-shell": Group("command_injection", "exploitation", "an interpreter runs what another command prints"),
    "http-request": Group("data_exfiltration", "exfiltration", "data goes to a web server"),
    "dns-exfiltration": Group("data_exfiltration", "exfiltration", "data goes out in the names that are looked up"),
    "reverse-shell": Group("data_exfiltration", "command_and_control", "a shell is tied to a network connection"),
    "network-tools": Group("data_exfiltration", "reconnaissance", "a tool opens connections or watches the network"),
    "sudo": Group("privilege_escalation", "exploitation", "a command asks for another user's rights"),
    "permission-change": Group("privilege_escalation", "exploitation", "rights on files are widened"),
    "kernel-module": Group("privilege_escalation", "installation", "code is loaded into the kernel"),
    "mount": Group("privilege_escalation", "exploitation", "file systems are mounted or unmounted"),
    "capabilities": Group("privilege_escalation", "exploitation", "capabilities or namespaces are changed"),
    "account-change": Group("privilege_escalation", "installation", "users, groups or passwords are changed"),
    "persistence": Group("privilege_escalation", "installation", "something is set up to be started again"),
    "package-install": Group("supply_chain", "installation", "packages are fetched and installed"),
    "remote-script": Group("supply_chain", "delivery", "what was fetched from the network is run"),
    "dynamic-import": Group("supply_chain", "delivery", "a module is chosen and loaded while the program runs"),
    "base64-obfuscation": Group("obfuscation", "weaponization", "code or data is hidden in base64"),
    "unicode-obfuscation": Group("obfuscation", "weaponization", "characters make a text look like another"),
    "hex-obfuscation": Group("obfuscation", "weaponization", "code or data is hidden in hexadecimal or octal"),
    "shell-obfuscation": Group("obfuscation", "weaponization", "a command's name is put together from pieces"),
    "security-disable": Group("obfuscation", "installation", "a protection or a record is switched off"),
    "sensitive-path": Group("filesystem_abuse", "reconnaissance", "a file with secrets or accounts is named"),
    "traversal": Group("filesystem_abuse", "reconnaissance", "a path climbs out of its folder"),
    "destructive": Group("filesystem_abuse", "exploitation", "files, devices or processes are destroyed"),
    "weak-hash": Group("crypto_misuse", None, "a broken hash or cipher is used"),
    "hard-coded-key": Group("crypto_misuse", None, "a key or password stands in the code"),
    "unparsed": Group("obfuscation", None, "a region is too deep or too broken to be parsed; patterns alone read it"),
}
"""Every technique. A rule of the code scanner bears its group's name."""


def group_of(rule: str) -> Group | None:
    """Return the group of a rule of the code scanner, or None for a name that is none of its rules.

    Args:
        rule: a rule's name, as in a finding.
    """
    return GROUPS.get(rule)


def mark(name: str, severity: Severity, start: int, end: int) -> Mark:
    """Return a mark of the code scanner.

    Args:
        name: a group's name.
        severity: how bad it is where it stands.
        start: the first byte.
        end: the byte after the last.
    """
    group = GROUPS[name]
    return Mark(SCANNER, name, group.category, severity, group.message, start, end)
