"""What is done to files and devices: secrets that are named, paths that climb, things destroyed, rights widened.

Enforces: a path counts where a program is given it, whatever it is quoted like. Does not: look at the file system: what
a path really is only the kernel knows, and it is the wall that stops it. May be used by: kavach.gate.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from kavach.gate.code.names import names
from kavach.model.verdict import Severity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kavach.gate.code.acts import Act, Deeds

    Hit = tuple[str, Severity, Act]

LOW, MEDIUM, HIGH, CRITICAL = Severity.LOW, Severity.MEDIUM, Severity.HIGH, Severity.CRITICAL
_HOME = r"(?:~[\w.-]*|\$HOME|\$\{HOME\}|/root|/home/[^/]+|/Users/[^/]+|/)"
_SECRET = re.compile(
    r"(?:/etc/(?:shadow|gshadow|master\.passwd|security/passwd|krb5\.keytab|ssh/ssh_host_\w+_key)-?\b(?!\.pub)"
    r"|(?:^|/)\.ssh/(?:id_\w+|identity)(?!\.pub)\b(?!\.pub)"
    r"|(?:^|/)\.aws/credentials\b|(?:^|/)\.kube/config\b|(?:^|/)\.docker/config\.json\b|(?:^|/)\.gnupg/(?:private|secring)"
    r"|(?:^|/)\.git-credentials\b|(?:^|/)\.netrc\b|(?:^|/)\.pgpass\b|(?:^|/)\.vault-token\b|(?:^|/)\.config/gcloud/\w*cred"
    r"|/proc/(?:self|\d+|\$\w*|\*)/(?:environ|mem)\b|/proc/kcore\b|/dev/k?mem\b"
    r"|/run/secrets/kubernetes\.io/|/(?:var/)?run/docker\.sock\b|/(?:NTDS\.dit|config/SAM)\b)"
)
_NAMED = re.compile(
    r"(?:/etc/(?:passwd|sudoers(?:\.d(?:/.*)?)?|security/opasswd|pam\.d/[\w-]+|crontab|ld\.so\.preload)$|/\.(?:bash|zsh)_history$"
    r"|(?:^|/)\.env(?:\.[a-z]+)?$|(?:^|/)\.ssh(?:/authorized_keys|/?$)|/(?:Login Data|cookies\.sqlite|logins\.json)$)"
)
_SYSTEM = re.compile(r"/(?:etc|usr|bin|sbin|lib|lib64|boot|var|root|home|opt|dev|proc|sys)?/?\*?")
_WHOLE_HOME = re.compile(r"(?:~|\$HOME|\$\{HOME\}|/home|/root)/?\*?")
_DEVICE = re.compile(
    r"/dev/(?:[shv]d[a-z]\d*|nvme\d+n\d+(?:p\d+)?|xvd[a-z]\d*|mmcblk\d+(?:p\d+)?|mapper/\S+|disk\d+|sd[A-Z]{1,2})"
)
_CLIMB = re.compile(
    r"(?:(?:\.\.|%2e%2e|%252e%252e)(?:/|\\|%2f|%5c|%252f)){2,}(?:etc|proc|root|var|windows|boot)", re.IGNORECASE
)
_FAR_CLIMB = re.compile(r"(?:(?:\.\.|%2e%2e)(?:/|\\|%2f|%5c)){4,}", re.IGNORECASE)
_LOGS = re.compile(
    r"/var/log/|/(?:\.bash_history|\.zsh_history|\.history)$|/var/(?:run/utmp|adm/)|/wtmp$|/btmp$|/lastlog$"
)
_SETUID = re.compile(r"[ugoa]*[ug][ugoa]*[+=][rwxXt]*s[rwxXt]*|\+s|0?[2-7][0-7]{3}|[ug]*[+=]s[rwx,]*")
_MAX_PATH = 4096  # PATH_MAX, linux/limits.h: nothing longer names a file
_MAX_MODE = 32  # longer modes than any that chmod knows
_QUIET = frozenset(names("echo printf ls stat test [ [[ man tldr which file locate"))
_WRITERS = frozenset(names("rm shred truncate cp mv ln tee dd install unlink srm"))


def is_secret_path(path: str) -> bool:
    """Whether a file of this name holds secrets on every machine that has it.

    Args:
        path: as a command names it.
    """
    return _SECRET.search(path[:_MAX_PATH]) is not None


def hits_of(deeds: Deeds) -> Iterator[Hit]:
    """Yield what is done to files and devices.

    Args:
        deeds: what a text would do.
    """
    for act in deeds.acts:
        for group, severity in (*_paths(act), *_destroys(act), *_rights(act)):
            yield group, severity, act


def written_paths(act: Act) -> list[str]:
    """Return the files that a command would write to, as far as its words tell.

    Args:
        act: one program.
    """
    paths = [
        target for _, operator, target in act.redirects if operator.startswith((">", "&>", "<>")) and "/" in target
    ]
    if act.name in {"tee", "truncate", "shred", "touch"}:
        paths += [arg for arg in act.args if not arg.startswith("-")]
    elif act.name in {"cp", "mv", "ln", "install"}:
        paths += [arg for arg in act.args[-1:] if not arg.startswith("-")]
    elif act.name == "sed" and act.has_option("-i", "--in-place"):
        paths += [arg for arg in act.args[1:] if arg.startswith(("/", "~", "$HOME"))]
    elif act.name == "dd":
        paths += [arg[3:] for arg in act.args if arg.startswith("of=")]
    elif act.name in {"vi", "vim", "nano", "emacs", "ed"}:
        paths += [arg for arg in act.args if arg.startswith("/")]
    return paths


def _paths(act: Act) -> Iterator[tuple[str, Severity]]:
    read = [target for _, operator, target in act.redirects if operator == "<"]
    named = [path[:_MAX_PATH] for path in (*read, *(arg.rpartition("=")[2].lstrip("@") for arg in act.args))]
    if act.name not in _QUIET:
        if any(is_secret_path(path) for path in named):
            yield "sensitive-path", HIGH if act.name not in {"chmod", "chown", "ssh", "ssh-keygen", "ssh-add"} else LOW
        elif any(_NAMED.search(path) for path in named):
            yield "sensitive-path", LOW
        elif act.name in {"find", "grep", "locate"} and any(
            re.search(r"id_rsa|\.aws|\.pem\b|\.key\b|credentials|password", a) for a in act.args
        ):
            yield "sensitive-path", MEDIUM if any(a.startswith(("/", "~", "$HOME")) for a in act.args) else LOW
    if any(_CLIMB.search(path) for path in named):
        yield "traversal", MEDIUM
    elif any(_FAR_CLIMB.search(path) for path in named):
        yield "traversal", LOW


def _destroys(act: Act) -> Iterator[tuple[str, Severity]]:
    operands = [arg for arg in act.args if not arg.startswith("-")]
    if act.name in {"rm", "srm", "shred", "unlink"}:
        yield from _removes(act, operands)
    elif act.name == "find" and (act.has_option("-delete") or "rm" in act.args):
        yield "destructive", HIGH if operands[:1] in (["/"], ["~"], ["$HOME"]) and len(operands) < 3 else LOW
    elif act.name.partition(".")[0] in {"mkfs", "mke2fs", "wipefs", "nwipe", "scrub", "blkdiscard", "hdparm"}:
        yield "destructive", MEDIUM if any(_DEVICE.match(arg) for arg in operands) else LOW
    elif (act.name == "mv" and operands[-1:] == ["/dev/null"]) or (
        act.name in {"chmod", "chown"} and act.has_option("-R") and any(_SYSTEM.fullmatch(arg) for arg in operands[1:])
    ):
        yield "destructive", HIGH
    elif act.name == "kill" and "-1" in act.args[1:]:
        yield "destructive", MEDIUM
    elif act.name in {"shutdown", "reboot", "halt", "poweroff", "killall5"} or (
        act.name == "init" and operands[:1] in (["0"], ["6"])
    ):
        yield "destructive", MEDIUM if act.name != "init" else LOW
    for path in written_paths(act):
        if _DEVICE.fullmatch(path):
            is_wipe = act.name != "dd" or any(re.match(r"if=/dev/(?:zero|u?random|null)", arg) for arg in act.args)
            yield "destructive", HIGH if is_wipe and act.name not in {"tee", "touch"} else MEDIUM
        elif path == "/proc/sysrq-trigger":
            yield "destructive", HIGH
        elif _LOGS.search(path) and (act.name in _WRITERS | {"", "cat", "echo", "sed"}) and not _appends(act):
            yield "security-disable", MEDIUM


def _removes(act: Act, operands: list[str]) -> Iterator[tuple[str, Severity]]:
    is_deep = act.has_option("-r", "-R", "--recursive") or act.name == "srm"
    roots = [arg for arg in operands if arg in {"/", "/*", "/.*"} or _WHOLE_HOME.fullmatch(arg)]
    if (is_deep and roots) or "--no-preserve-root" in act.args:
        yield "destructive", CRITICAL
    elif is_deep and any(_SYSTEM.fullmatch(arg) for arg in operands):
        yield "destructive", HIGH
    elif is_deep and "find" not in act.wrappers:
        yield "destructive", LOW
    elif any(_DEVICE.match(arg) for arg in operands):
        yield "destructive", HIGH
    elif act.name in {"shred", "srm"}:
        yield "destructive", LOW
    if any(_LOGS.search(arg) for arg in operands):
        yield "security-disable", MEDIUM


def _appends(act: Act) -> bool:
    return any(operator == ">>" for _, operator, _ in act.redirects) or (act.name == "tee" and act.has_option("-a"))


def _rights(act: Act) -> Iterator[tuple[str, Severity]]:
    operands = [arg for arg in act.args if not arg.startswith("-")]
    if act.name == "chmod" and operands:
        mode = operands[0][:_MAX_MODE]
        is_special = any(_SETUID.fullmatch(clause) for clause in mode.split(",")) and not re.fullmatch(
            r"0?[01][0-7]{3}", mode
        )
        is_open = re.fullmatch(r"[0-7]?77[67]|a?[+=]rwx|[a-z]*o[a-z]*[+=][rx]*w[rx]*|666", mode) is not None
        yield "permission-change", HIGH if is_special else MEDIUM if is_open else LOW
    elif act.name == "chattr":
        yield "permission-change", MEDIUM if any("i" in arg for arg in act.args if arg[:1] in "+-") else LOW
    elif act.name in {"chown", "chgrp", "setfacl", "icacls"}:
        is_root = bool(operands) and operands[0].partition(":")[0] in {"root", "0"}
        yield "permission-change", MEDIUM if is_root and act.name == "chown" else LOW
    elif act.name == "umask" and operands[:1] in (["0"], ["000"], ["0000"]):
        yield "permission-change", LOW
    elif act.name == "install" and any(
        re.fullmatch(r"-?m?0?[2467][0-7]{3}|u\+s|--mode=0?[2467][0-7]{3}", arg) for arg in act.args
    ):
        yield "permission-change", HIGH
