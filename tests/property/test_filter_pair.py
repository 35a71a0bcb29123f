"""Init's filter and the rest that a command adds hold together exactly what the command's whole profile says."""

from __future__ import annotations

import functools

from hypothesis import given
from hypothesis import strategies as st

from kavach.launcher.filters import INIT_CALLS, command_options, command_rules, init_filter, rest_filter
from kavach.launcher.groups import Group, LimitSpec
from kavach.linux import bpf, seccomp_filter, syscalls
from kavach.model.policy import PathRule, SandboxPolicy, SeccompProfile
from kavach.policy.seccomp_oracle import judge_call

FULL = (1 << 64) - 1
ARCHES = sorted(syscalls.AUDIT_ARCH)
PROFILES = [one for one in SeccompProfile if one is not SeccompProfile.CUSTOM]
POLICIES = st.builds(
    SandboxPolicy,
    profiles=st.lists(st.sampled_from(PROFILES), min_size=1, max_size=2, unique=True).map(tuple),
    nested=st.booleans(),
    refuse_wx=st.booleans(),
    devices=st.sampled_from([(), ("/dev/kvm",)]),
    execute=st.sampled_from([(), (PathRule(path="/opt"),)]),
)
VALUES = st.one_of(
    st.sampled_from([0, 1, 2, 3, 4, 16, 0x10000000, 0x7E020000, 0xFFFFFFFF, 1 << 32, FULL]), st.integers(0, FULL)
)


def group(kind):
    made = Group("pair", LimitSpec(memory_bytes=1 << 20, cpu_cores=1.0, max_pids=8), frozenset({0}))
    if kind == "kernel":
        made.states = dict.fromkeys(made.states, "enforced")
    return made


GROUPS = {kind: group(kind) for kind in ("kernel", "none")}


@functools.lru_cache(maxsize=512)
def pair(policy, machine, kind, has_network_namespace):
    wide = init_filter(policy, machine, has_network_namespace=has_network_namespace)
    rest, _ = rest_filter(policy, machine, GROUPS[kind], has_network_namespace=has_network_namespace)
    options = command_options(policy, GROUPS[kind], has_network_namespace=has_network_namespace)
    return wide, rest, command_rules(policy, options)


def together(programs, machine, number, args):
    """Answer as the kernel does: the strictest action, and of equal ones that of the filter installed last."""
    arch = syscalls.AUDIT_ARCH[machine]
    answers = [bpf.interpret(program, number, arch, args) for program in programs]
    refusals = [one for one in answers if one != seccomp_filter.SECCOMP_RET_ALLOW]
    return refusals[0] if refusals else seccomp_filter.SECCOMP_RET_ALLOW


def expected(rules, machine, number, args):
    verdict = judge_call(rules, machine, number, args, audit_arch=syscalls.AUDIT_ARCH[machine])
    return seccomp_filter.SECCOMP_RET_ALLOW if verdict.allowed else seccomp_filter.SECCOMP_RET_ERRNO | verdict.errno


@given(POLICIES, st.sampled_from(ARCHES), st.sampled_from(sorted(GROUPS)), st.booleans(), st.data())
def test_two_filters_together_are_the_commands_profile(policy, machine, kind, has_network_namespace, data):
    wide, rest, rules = pair(policy, machine, kind, has_network_namespace)
    numbers = syscalls.numbers(machine)
    special = st.sampled_from([numbers[call] for call in (*INIT_CALLS, "memfd_create") if call in numbers])
    number = data.draw(st.one_of(special, st.sampled_from(sorted(numbers.values())), st.integers(0, 0xFFFFFFFF)))
    names = {name for name, one in numbers.items() if one == number}
    edges = [c.value for rule in rules.calls if rule.call in names for clause in rule.clauses for c in clause]
    value = st.one_of(VALUES, st.sampled_from(edges or [0]))
    args = tuple(data.draw(value) for _ in range(6))
    assert together((rest, wide), machine, number, args) == expected(rules, machine, number, args)


def test_every_call_with_plain_arguments_is_answered_as_the_whole_profile_answers():
    for preset in ("basic", "strict"):
        policy = SandboxPolicy.from_preset(preset)
        for machine in ARCHES:
            for kind in GROUPS:
                wide, rest, rules = pair(policy, machine, kind, True)
                for number in syscalls.numbers(machine).values():
                    for args in ((0,) * 6, (1, 2, 3, 4, 5, 6), (FULL,) * 6, (0x10000000,) * 6):
                        assert together((rest, wide), machine, number, args) == expected(rules, machine, number, args)
