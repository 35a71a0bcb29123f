"""The listening filter: it asks instead of refusing, and lets nothing pass that the plain filter would not."""

from __future__ import annotations

import pytest

from kavach.launcher.filters import OBSERVED_CALLS
from kavach.linux import bpf, seccomp_filter
from kavach.linux.syscalls import AUDIT_ARCH, numbers
from kavach.policy.seccomp_oracle import Oracle
from kavach.policy.seccomp_rules import PROFILES, apply_options, compile_rules, load_profile

ARGUMENTS = ((0,) * 6, (1,) * 6, (0x10000000, 2, 3, 4, 5, 6), (16, 3, 0, 0, 0, 0), ((1 << 64) - 1,) * 6)
ERRNO = seccomp_filter.SECCOMP_RET_ERRNO


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
@pytest.mark.parametrize("options", [(), ("no_network", "no_memfd", "pin_cpu"), ("nested",)])
@pytest.mark.parametrize("profile", PROFILES)
def test_a_listening_filter_asks_where_the_plain_one_refuses_and_the_oracle_answers_the_same(profile, options, machine):
    rules = load_profile(profile)
    plain = compile_rules(rules, machine, options=options)
    asking = compile_rules(rules, machine, options=options, notify=OBSERVED_CALLS, ask=True)
    oracle = Oracle(apply_options(rules, options), machine)
    arch = AUDIT_ARCH[machine]
    asked = 0
    for call, number in numbers(machine).items():
        for arguments in ARGUMENTS:
            before = bpf.interpret(plain, number, arch, arguments)
            after = bpf.interpret(asking, number, arch, arguments)
            if call in OBSERVED_CALLS or before == ERRNO | 1:
                assert after == seccomp_filter.SECCOMP_RET_USER_NOTIF, call
                verdict = oracle.judge(number, arguments, audit_arch=arch)
                answer = seccomp_filter.SECCOMP_RET_ALLOW if verdict.allowed else ERRNO | verdict.errno
                assert answer == before, (call, arguments)
                asked += 1
            else:
                assert after == before, call
    assert asked > len(ARGUMENTS) * 20


def test_a_foreign_architecture_is_refused_by_the_filter_itself_and_by_the_oracle():
    asking = compile_rules(load_profile("basic"), "x86_64", notify=OBSERVED_CALLS, ask=True)
    foreign = AUDIT_ARCH["aarch64"]
    number = numbers("x86_64")["openat"]
    assert bpf.interpret(asking, number, foreign, (0,) * 6) == seccomp_filter.REFUSE_UNKNOWN
    assert not Oracle(load_profile("basic"), "x86_64").judge(number, (0,) * 6, audit_arch=foreign).allowed
