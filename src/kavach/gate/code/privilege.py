"""Rights that a command asks for or keeps: users, the kernel, mounts, capabilities, accounts, things started later.

Enforces: judged by program and argument, so that `amount` is no `mount`. Does not: know which rights there are. May be
used by: kavach.gate.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from kavach.gate.code.files import written_paths
from kavach.gate.code.names import names
from kavach.model.verdict import Severity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kavach.gate.code.acts import Act, Deeds

    Hit = tuple[str, Severity, Act]

LOW, MEDIUM, HIGH = Severity.LOW, Severity.MEDIUM, Severity.HIGH
_ASKERS = frozenset(names("sudo su doas pkexec runuser sudoedit gksudo kdesudo"))
_MODULES = frozenset(names("insmod modprobe rmmod kmod depmod kextload kldload dkms"))
_MOUNTS = frozenset(names("mount umount losetup pivot_root fusermount fusermount3 swapon swapoff kpartx"))
_ACCOUNTS = frozenset(
    names(
        "useradd adduser usermod userdel deluser groupadd addgroup gpasswd passwd chpasswd chsh chfn pw dscl vipw"
        " newusers"
    )
)
_RIGHTS_GROUP = re.compile(r"(?:^|[,=\s])(?:sudo|wheel|root|admin|docker|lxd|disk|shadow)(?:$|[,\s])")
_STARTED = re.compile(
    r"/etc/(?:cron|anacron)|/var/spool/cron|/etc/(?:rc\.local|rc\.d/|rc\.common|init\.d/|profile|bash\.bashrc|zshrc|inittab"
    r"|systemd/|ld\.so\.preload|ld\.so\.conf|xdg/autostart|update-motd\.d|apt/apt\.conf\.d|modules|udev/rules\.d|emond)"
    r"|/(?:usr/)?lib/systemd/system|/\.config/(?:autostart|systemd|fish)|/\.ssh/(?:authorized_keys|rc)\b"
    r"|(?:^|/)\.(?:bashrc|bash_profile|bash_login|bash_logout|profile|zshrc|zprofile|zshenv|kshrc|xinitrc|xprofile|vimrc)$"
    r"|/Library/Launch(?:Agents|Daemons)|/sitecustomize\.py$|/usercustomize\.py$"
)
_FROM_ROOT = re.compile(
    r"/etc/(?:ld\.so\.preload|cron|sudoers|profile|rc\.local)|/\.ssh/authorized_keys|/var/spool/cron"
)
_TRUSTED = re.compile(
    r"/etc/(?:passwd|shadow|gshadow|group|sudoers|pam\.d/|security/)|/etc/ssh/sshd_config|/sudoers(?:\.d/|$)"
)


def hits_of(deeds: Deeds) -> Iterator[Hit]:
    """Yield what asks for rights or keeps them.

    Args:
        deeds: what a text would do.
    """
    for act in deeds.acts:
        for group, severity in (*_asks(act), *_kernel(act), *_accounts(act), *_keeps(act)):
            yield group, severity, act


def _asks(act: Act) -> Iterator[tuple[str, Severity]]:
    if act.name in _ASKERS:
        wants_shell = act.name in {"sudo", "doas"} and (
            act.has_option("-i", "-s") or act.args[-1:] in (("su",), ("bash",), ("sh",))
        )
        yield "sudo", MEDIUM if wants_shell else LOW
    elif act.name == "visudo":
        yield "sudo", LOW
    for path in written_paths(act):
        if re.search(r"sudoers(?:\.d/|$)", path):
            yield "sudo", HIGH


def _kernel(act: Act) -> Iterator[tuple[str, Severity]]:
    if act.name in _MODULES:
        is_loaded = act.name in {"insmod", "kextload", "kldload"} or any(
            arg.endswith((".ko", ".ko.xz")) for arg in act.args
        )
        yield "kernel-module", MEDIUM if is_loaded else LOW
    if act.name in _MOUNTS:
        yield "mount", _mount_severity(act)
    if act.name in {"setcap", "capsh", "unshare", "nsenter", "setpriv", "newuidmap", "getcap"}:
        yield "capabilities", _capability_severity(act)
    if act.name in {"docker", "podman"} and ("--privileged" in act.args or any(_shares_root(arg) for arg in act.args)):
        yield "capabilities", HIGH if any(_shares_root(arg) for arg in act.args) else MEDIUM
    if any(re.search(r"/(?:release_agent|core_pattern|uevent_helper|modprobe)$", path) for path in written_paths(act)):
        yield "capabilities", HIGH


def _mount_severity(act: Act) -> Severity:
    words = act.line
    is_binding = act.has_option("-B") or "--bind" in act.args or "--rbind" in act.args
    if is_binding and re.search(r"\s/(?:proc|etc|sys)(?:/|\s)|\s/\s", words):
        return HIGH
    return MEDIUM if re.search(r"cgroup|/proc/\d", words) else LOW


def _capability_severity(act: Act) -> Severity:
    if act.name == "nsenter":
        target = {after for arg, after in zip(act.args, act.args[1:], strict=False) if arg in {"-t", "--target"}}
        return HIGH if "1" in target or {"-t1", "--target=1"} & set(act.args) else LOW
    if act.name == "setcap":
        return (
            HIGH
            if re.search(r"cap_(?:setuid|setgid|sys_admin|sys_ptrace|sys_module|dac_override)|=eip|=ep$|=p$", act.line)
            else MEDIUM
        )
    return LOW


def _shares_root(arg: str) -> bool:
    return re.match(r"(?:-v|--volume=|--mount=)?/(?::|,)/?\S|/:/", arg) is not None


def _accounts(act: Act) -> Iterator[tuple[str, Severity]]:
    if act.name in _ACCOUNTS:
        is_root = act.has_option("-o") and "0" in act.args
        gains = any(_RIGHTS_GROUP.search(arg) for arg in act.args) and act.name not in {"passwd", "chsh", "chfn"}
        yield "account-change", HIGH if is_root else MEDIUM if gains else LOW
    for path in written_paths(act):
        if _TRUSTED.search(path):
            yield "account-change", HIGH


def _keeps(act: Act) -> Iterator[tuple[str, Severity]]:
    if act.name in {"crontab", "at", "batch"} and not act.has_option("-l"):
        is_fed = bool(act.fed_by or act.fed_text)
        yield "persistence", MEDIUM if is_fed else LOW
    elif (act.name == "systemctl" and {"enable", "link"} & set(act.args)) or act.name in {
        "chkconfig",
        "update-rc.d",
        "launchctl",
        "systemd-run",
    }:
        yield "persistence", LOW
    for path in written_paths(act):
        if _STARTED.search(path):
            yield "persistence", HIGH if _FROM_ROOT.search(path) else MEDIUM
    if any(name in {"LD_PRELOAD", "LD_AUDIT", "DYLD_INSERT_LIBRARIES"} for name, _ in act.assigns):
        yield "persistence", MEDIUM
