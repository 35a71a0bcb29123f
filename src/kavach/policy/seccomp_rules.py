"""Seccomp rules -> filter: the face of the seccomp policy for the rest of Kavach.

Guarantees: what `compile_rules` returns refuses foreign architectures, x32 and unknown numbers with ENOSYS,
allows exactly what the rules with their options allow, compares only the bits of an argument that the kernel
reads, and never kills. Does not: install (linux/seccomp.py), see what pointers point to (so no path, no
sockaddr, no struct), or hold back what a program does with calls that it needs. May be called by: launcher,
policy, backends, sandbox, cli. Pure, but for reading profile files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kavach.errors import ConfigError, PolicyError
from kavach.linux import seccomp_filter, syscalls
from kavach.policy.seccomp_algebra import (
    ALWAYS,
    EPERM,
    NEVER,
    CallRule,
    Clauses,
    Compare,
    SeccompRules,
    intersect,
    widen,
)
from kavach.policy.seccomp_profile import PROFILES, load_overlays, load_profile, load_profile_file

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "NARROWING_OPTIONS",
    "OPTIONS",
    "PROFILES",
    "WIDENING_OPTIONS",
    "CallRule",
    "Compare",
    "SeccompRules",
    "apply_options",
    "compile_rules",
    "intersect",
    "load_profile",
    "load_profile_file",
]

# What a policy asks for beside a profile; each is a section of seccomp_profiles/options.toml, which says why.
WIDENING_OPTIONS = ("nested", "devices")
NARROWING_OPTIONS = ("pin_cpu", "no_memfd", "no_exec_memfd", "no_network", "wx")
OPTIONS = WIDENING_OPTIONS + NARROWING_OPTIONS
_REFUSED = seccomp_filter.SECCOMP_RET_ERRNO | EPERM


def apply_options(rules: SeccompRules, options: Iterable[str] = ()) -> SeccompRules:
    """Return the rules with the options applied: those that widen, then the floor, then those that narrow.

    Args:
        rules: a profile's rules.
        options: names of OPTIONS.

    Raises:
        ConfigError: an option of that name does not exist.
        PolicyError: the result is too large for a filter.
    """
    asked = set(options)
    unknown = asked - set(OPTIONS)
    if unknown:
        raise ConfigError(
            f"there is no seccomp option {min(unknown)!r}; there are {', '.join(OPTIONS)}",
            key="seccomp",
        )
    overlays = load_overlays()
    for name in WIDENING_OPTIONS:
        if name in asked:
            # ORDER: the floor again after each widening, so that nothing opens what guards the sandbox's
            # init.
            rules = intersect(widen(rules, overlays[name]), overlays["floor"], name=rules.name)
    for name in NARROWING_OPTIONS:
        if name in asked:
            rules = intersect(rules, overlays[name], name=rules.name)
    return rules


def compile_rules(
    rules: SeccompRules,
    arch: str,
    *,
    options: Iterable[str] = (),
    extra_allow: Iterable[str] = (),
    notify: Iterable[str] = (),
    log: bool = False,
    ask: bool = False,
) -> bytes:
    """Return the filter's instructions for one architecture.

    Args:
        rules: what is allowed.
        arch: `x86_64` or `aarch64`, as os.uname().machine says it.
        options: names of OPTIONS to apply first.
        extra_allow: calls allowed with any arguments whatever the rules say, the floor included; only for the
            sandbox's init, never for a command.
        notify: calls that go to the user-notification listener, unless they are in `extra_allow`; for
            learning.
        log: calls that no rule names are done and logged instead of refused; for learning, since it refuses
            nothing.
        ask: calls that would be refused with EPERM go to the listener too, which refuses them and says so.

    Raises:
        ConfigError: an option or a call of that name does not exist, or there is no table for the
            architecture.
        PolicyError: the rules are too large for a filter.
    """
    always, notified = frozenset(extra_allow), frozenset(notify)
    for call in sorted(always | notified):
        if call not in syscalls.KNOWN_CALLS:
            raise ConfigError(f"there is no system call {call!r}", key="seccomp")
    effective = apply_options(rules, options)
    if arch not in syscalls.AUDIT_ARCH:
        raise ConfigError(
            f"there is no seccomp filter for {arch}; there is one for {', '.join(syscalls.AUDIT_ARCH)}",
            key="seccomp",
        )
    default: seccomp_filter.Decision = seccomp_filter.SECCOMP_RET_ALLOW
    if not effective.default_allow:
        default = seccomp_filter.SECCOMP_RET_ERRNO | effective.default_errno
        if log:
            default = seccomp_filter.SECCOMP_RET_LOG
    default = _asked(default) if ask else default
    decisions: dict[int, seccomp_filter.Decision] = {}
    by_call = effective.by_call()
    for call, number in syscalls.numbers(arch).items():
        if call in always:
            decisions[number] = seccomp_filter.SECCOMP_RET_ALLOW
        elif call in notified:
            decisions[number] = seccomp_filter.SECCOMP_RET_USER_NOTIF
        else:
            rule = by_call.get(call)
            decision = _decision(rule) if rule is not None else default
            decisions[number] = _asked(decision) if ask else decision
    try:
        return seccomp_filter.build(syscalls.AUDIT_ARCH[arch], decisions)
    except ValueError as error:
        raise PolicyError(f"the seccomp rules {rules.name!r} do not compile: {error}") from error


def _asked(decision: seccomp_filter.Decision) -> seccomp_filter.Decision:
    """Return the decision with the listener in the place of EPERM."""
    if isinstance(decision, int):
        return seccomp_filter.SECCOMP_RET_USER_NOTIF if decision == _REFUSED else decision
    clauses, hit, miss = decision
    return clauses, hit, seccomp_filter.SECCOMP_RET_USER_NOTIF if miss == _REFUSED else miss


def _decision(rule: CallRule) -> seccomp_filter.Decision:
    refuse = seccomp_filter.SECCOMP_RET_ERRNO | rule.errno
    if rule.clauses == ALWAYS:
        return seccomp_filter.SECCOMP_RET_ALLOW
    if rule.clauses == NEVER:
        return refuse
    return (_plain(rule.call, rule.clauses), seccomp_filter.SECCOMP_RET_ALLOW, refuse)


def _plain(call: str, clauses: Clauses) -> seccomp_filter.Clauses:
    """Return the clauses with each mask cut to the bits that the kernel reads (trap 32)."""
    return tuple(
        tuple((one.arg, one.mask & syscalls.argument_mask(call, one.arg), one.op, one.value) for one in clause)
        for clause in clauses
    )
