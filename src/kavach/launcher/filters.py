"""The compiled seccomp filters of a policy, made once per process and policy.

Guarantees: the filter of a command allows what every named profile allows, less what the limits' means forbid; the
filter of init allows that and what a child needs on its way to execve. Does not: install. May be called by:
kavach.launcher.lower.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from kavach.linux.seccomp import SECCOMP_FILTER_FLAG_NEW_LISTENER
from kavach.model.policy import SeccompProfile
from kavach.policy.seccomp_rules import compile_rules, intersect, load_profile, load_profile_file

if TYPE_CHECKING:
    from kavach.launcher.groups import Group
    from kavach.model.policy import SandboxPolicy, Seccomp
    from kavach.policy.seccomp_rules import SeccompRules

#: What init and the child call before the child's own filter is in force; the child's filter takes it away again.
_INIT_CALLS = (
    "capset",
    "clone",
    "clone3",  # into a command's own cgroup
    "close_range",
    "fork",
    "kill",
    "landlock_restrict_self",
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
    "connect", "mkdir", "mkdirat", "mount", "open", "openat", "openat2", "ptrace", "rename", "renameat", "renameat2",
    "rmdir", "sendto", "socket", "unlink", "unlinkat", "unshare",
)  # fmt: skip


def command_filter(
    policy: SandboxPolicy, machine: str, group: Group, *, has_network_namespace: bool, listening: bool
) -> tuple[bytes, int]:
    """Return (program, install flags); an empty program where the policy asks for no filter."""
    if policy.seccomp.profiles is None:
        return b"", 0
    options = _options(policy, has_network_namespace=has_network_namespace)
    if group.cores is not None:
        options += ("pin_cpu",)
    if group.needs_watchdog:
        options += ("no_memfd",)
    notify = OBSERVED_CALLS if listening else ()
    flags = SECCOMP_FILTER_FLAG_NEW_LISTENER if listening else 0
    return _compiled(policy.seccomp, machine, options, (), notify), flags


def init_filter(policy: SandboxPolicy, machine: str, *, has_network_namespace: bool) -> bytes:
    """Return init's own program, empty where the policy asks for no filter."""
    if policy.seccomp.profiles is None:
        return b""
    options = _options(policy, has_network_namespace=has_network_namespace)
    return _compiled(policy.seccomp, machine, options, _INIT_CALLS, ())


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
    return compile_rules(_rules(seccomp), machine, options=options, extra_allow=extra, notify=notify)


@functools.lru_cache(maxsize=16)
def _rules(seccomp: Seccomp) -> SeccompRules:
    loaded = [load_profile(name.value) for name in seccomp.profiles or () if name is not SeccompProfile.CUSTOM]
    loaded += [load_profile_file(path) for path in seccomp.custom_files]
    rules = loaded[0]
    for other in loaded[1:]:
        rules = intersect(rules, other)
    return rules
