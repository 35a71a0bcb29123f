"""The compiled seccomp filters of a policy, made once per process and policy.

Guarantees: the filter of a command allows what every named profile allows, less what the limits' means forbid; the
filter of init allows that and what a child needs on its way to execve. Does not: install. May be called by:
kavach.launcher.lower.
"""

from __future__ import annotations

import errno
import functools
from typing import TYPE_CHECKING

from kavach.linux.seccomp import SECCOMP_FILTER_FLAG_NEW_LISTENER
from kavach.linux.syscalls import numbers
from kavach.model.policy import SeccompProfile
from kavach.policy.seccomp_rules import (
    SeccompRules,
    apply_options,
    compile_rules,
    intersect,
    load_profile,
    load_profile_file,
)

if TYPE_CHECKING:
    from kavach.launcher.groups import Group
    from kavach.model.policy import SandboxPolicy, Seccomp

#: What init and the child call before the child's own filter is in force; the child's filter takes it away again.
_INIT_CALLS = (
    "capset",
    "clone",
    "clone3",  # into a command's own cgroup
    "close_range",
    "fork",
    "kill",
    "landlock_restrict_self",
    "mknodat",  # a canary: Landlock answers otherwise than the kernel
    "prctl",
    "prlimit64",
    "sched_setaffinity",
    "seccomp",
    "setgroups",
    "setresgid",
    "setresuid",
    "setrlimit",
    "setsid",
    "wait4",
)
#: For `--why` and `learn`: what is asked of the listener rather than answered by the filter.
OBSERVED_CALLS = (
    "access", "bind", "chdir", "connect", "creat", "execve", "execveat", "faccessat", "faccessat2", "link", "linkat",
    "lstat", "mkdir", "mkdirat", "mknod", "mknodat", "newfstatat", "open", "openat", "openat2", "readlink",
    "readlinkat", "rename", "renameat", "renameat2", "rmdir", "sendto", "socket", "stat", "statx", "symlink",
    "symlinkat", "truncate", "unlink", "unlinkat",
)  # fmt: skip
_UNFILTERED = SeccompRules(name="none", default_allow=True)


def command_filter(
    policy: SandboxPolicy, machine: str, group: Group, *, has_network_namespace: bool, listening: bool
) -> tuple[bytes, int]:
    """Return (program, install flags); an empty program where the policy asks for no filter.

    A filter that listens allows nothing more: what it would refuse goes to the listener, which refuses it (kavach.
    launcher.watch) and whose end is a refusal too (ENOSYS).
    """
    if policy.seccomp.profiles is None and not listening:
        return b"", 0
    options = command_options(policy, group, has_network_namespace=has_network_namespace)
    notify = OBSERVED_CALLS if listening else ()
    flags = SECCOMP_FILTER_FLAG_NEW_LISTENER if listening else 0
    return _compiled(policy.seccomp, machine, options, (), notify), flags


def command_options(policy: SandboxPolicy, group: Group, *, has_network_namespace: bool) -> tuple[str, ...]:
    """Return the options that the limits' means and the policy lay over a command's profiles."""
    if policy.seccomp.profiles is None:
        return ()
    options = _options(policy, has_network_namespace=has_network_namespace)
    if group.cores is not None:
        options += ("pin_cpu",)
    if group.needs_watchdog:
        options += ("no_memfd",)
    return options


def command_rules(policy: SandboxPolicy, options: tuple[str, ...]) -> SeccompRules:
    """Return what a command's filter allows, for the listener that answers in its place."""
    return apply_options(_rules(policy.seccomp), options)


def init_filter(policy: SandboxPolicy, machine: str, *, has_network_namespace: bool, listening: bool = False) -> bytes:
    """Return init's own program, empty where the policy asks for no filter.

    SECURITY: a refusal here would hide the call from the listener of the command's filter, which lies on top of this
    one. So with a listener init's own filter lets pass what the listener is asked about; the commands' does not.
    """
    if policy.seccomp.profiles is None:
        return b""
    options = _options(policy, has_network_namespace=has_network_namespace)
    extra = _INIT_CALLS + (_asked_calls(policy.seccomp, machine) if listening else ())
    return _compiled(policy.seccomp, machine, options, extra, ())


def _asked_calls(seccomp: Seccomp, machine: str) -> tuple[str, ...]:
    """Return the calls that a listening filter may ask about, whatever the options."""
    rules = _rules(seccomp)
    named = rules.by_call()
    by_options = {rule.call for name in OPTIONS for rule in load_overlays()[name].calls}
    asked = set(OBSERVED_CALLS) | by_options
    for call in numbers(machine):
        rule = named.get(call) or rules.default_rule(call)
        if rule.errno == errno.EPERM and rule.clauses != ALWAYS:
            asked.add(call)
    return tuple(sorted(asked))


def is_allow_list(seccomp: Seccomp) -> bool:
    """Return whether a call that no rule names is refused."""
    return seccomp.profiles is not None and not _rules(seccomp).default_allow


def _options(policy: SandboxPolicy, *, has_network_namespace: bool) -> tuple[str, ...]:
    chosen = []
    if policy.nested:
        chosen.append("nested")
    if policy.devices:
        chosen.append("devices")
    if policy.seccomp.refuse_wx:
        chosen.append("wx")
    if policy.filesystem.execute:
        chosen.append("no_exec_memfd")
    if policy.network.mode == "none" and not has_network_namespace:
        chosen.append("no_network")
    return tuple(chosen)


@functools.lru_cache(maxsize=64)
def _compiled(
    seccomp: Seccomp, machine: str, options: tuple[str, ...], extra: tuple[str, ...], notify: tuple[str, ...]
) -> bytes:
    return compile_rules(_rules(seccomp), machine, options=options, extra_allow=extra, notify=notify, ask=bool(notify))


@functools.lru_cache(maxsize=16)
def _rules(seccomp: Seccomp) -> SeccompRules:
    if seccomp.profiles is None:
        return _UNFILTERED
    loaded = [load_profile(name.value) for name in seccomp.profiles if name is not SeccompProfile.CUSTOM]
    loaded += [load_profile_file(path) for path in seccomp.custom_files]
    rules = loaded[0]
    for other in loaded[1:]:
        rules = intersect(rules, other)
    return rules
