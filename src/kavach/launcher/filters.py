"""The compiled seccomp filters of a policy, made once per process and policy.

Guarantees: the filter of a command allows what every named profile allows, less what the limits' means forbid; the
filter of init allows that and what a child needs on its way to execve. Does not: install. May be called by:
kavach.launcher.lower.
"""

from __future__ import annotations

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
INIT_CALLS = (
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
    policy: SandboxPolicy, machine: str, group: Group, *, has_network_namespace: bool
) -> tuple[bytes, int]:
    """Return (program, flags) of a whole filter that asks a listener about the observed calls.

    It allows nothing more than one that does not listen: what it would refuse goes to the listener, which refuses it
    (kavach.launcher.watch), and where the listener has gone the kernel does (ENOSYS). Without a profile it refuses
    nothing and is there to observe.
    """
    options = command_options(policy, group, has_network_namespace=has_network_namespace)
    return _compiled(policy.seccomp, machine, options, (), OBSERVED_CALLS), SECCOMP_FILTER_FLAG_NEW_LISTENER


def rest_filter(policy: SandboxPolicy, machine: str, group: Group, *, has_network_namespace: bool) -> tuple[bytes, int]:
    """Return (program, flags) of a command's filter less what init's own, under which it is born, refuses already.

    Two filters hold together what both allow, so this one only takes away what init's allows beyond the command's.
    It is short, and what the kernel does with a filter costs time for each instruction (0.2 ms for a whole one).
    """
    if policy.seccomp.profiles is None:
        return b"", 0
    options = _options(policy, has_network_namespace=has_network_namespace)
    narrower = (("pin_cpu",) if group.cores is not None else ()) + (("no_memfd",) if group.needs_watchdog else ())
    return _rest(policy.seccomp, machine, options, narrower), 0


@functools.lru_cache(maxsize=64)
def _rest(seccomp: Seccomp, machine: str, options: tuple[str, ...], narrower: tuple[str, ...]) -> bytes:
    wide = apply_options(_rules(seccomp), options)
    narrow = apply_options(_rules(seccomp), options + narrower)
    before, after = wide.by_call(), narrow.by_call()
    kept = []
    for call in sorted(numbers(machine)):
        wanted = after.get(call) or narrow.default_rule(call)
        given = None if call in INIT_CALLS else before.get(call) or wide.default_rule(call)
        if given is None or given.clauses != wanted.clauses:
            kept.append(wanted)
    rest = SeccompRules(name=f"{narrow.name}, the rest", default_allow=True, calls=tuple(kept))
    return compile_rules(rest, machine)


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


def init_filter(policy: SandboxPolicy, machine: str, *, has_network_namespace: bool) -> bytes:
    """Return init's own program, empty where the policy asks for no filter."""
    if policy.seccomp.profiles is None:
        return b""
    options = _options(policy, has_network_namespace=has_network_namespace)
    return _compiled(policy.seccomp, machine, options, INIT_CALLS, ())


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
