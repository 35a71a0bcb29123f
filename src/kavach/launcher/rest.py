"""A command's filter, less what init's own filter, under which the command is born, refuses already.

Guarantees: init's filter and this one together allow exactly what the command's whole filter allows; a property test
says so for every call. Does not: stand alone. May be called by: kavach.launcher.lower.

Two filters hold together what both allow, so this one takes away what init's allows beyond the command's. It is short, and
what the kernel does with a filter when it is installed costs time for each instruction: 0.2 ms for a whole one.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from kavach.launcher.filters import INIT_CALLS, command_options, command_rules
from kavach.linux.syscalls import numbers
from kavach.policy.seccomp_rules import SeccompRules, compile_rules

if TYPE_CHECKING:
    from kavach.launcher.groups import Group
    from kavach.model.policy import SandboxPolicy


def rest_filter(policy: SandboxPolicy, machine: str, group: Group, *, has_network_namespace: bool) -> bytes:
    """Return the program, empty where the policy asks for no filter."""
    if policy.seccomp.profiles is None:
        return b""
    options = command_options(policy, group, has_network_namespace=has_network_namespace)
    return _rest(policy, machine, options)


@functools.lru_cache(maxsize=64)
def _rest(policy: SandboxPolicy, machine: str, options: tuple[str, ...]) -> bytes:
    limits = ("pin_cpu", "no_memfd")  # what init's filter leaves out of a command's options
    wide = command_rules(policy, tuple(option for option in options if option not in limits))
    narrow = command_rules(policy, options)
    given, wanted = wide.by_call(), narrow.by_call()
    kept = []
    for call in sorted(numbers(machine)):
        rule = wanted.get(call) or narrow.default_rule(call)
        before = given.get(call) or wide.default_rule(call)
        if call in INIT_CALLS or before.clauses != rule.clauses:
            kept.append(rule)
    return compile_rules(SeccompRules(name=f"{narrow.name}, the rest", default_allow=True, calls=tuple(kept)), machine)
