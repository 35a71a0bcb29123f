"""The compiled filter answers as the rules mean, and the algebra of rules is exact, on random rules and calls."""

from __future__ import annotations

import functools

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from kavach.errors import PolicyError
from kavach.linux import bpf, seccomp_filter, syscalls
from kavach.linux.syscall_prototypes import PROTOTYPES
from kavach.policy.seccomp_algebra import (
    ALWAYS,
    NEVER,
    OPERATORS,
    CallRule,
    Compare,
    SeccompRules,
    conjoin,
    disjoin,
    intersect,
    negate,
    widen,
)
from kavach.policy.seccomp_oci import read_oci, write_oci
from kavach.policy.seccomp_oracle import judge_call
from kavach.policy.seccomp_rules import OPTIONS, PROFILES, apply_options, compile_rules, load_profile

FULL = (1 << 64) - 1
# Few calls, so that two random sets of rules meet; all widths, and calls that one architecture lacks.
CALLS = (
    "ioctl",
    "socket",
    "clone",
    "mknodat",
    "chmod",
    "prlimit64",
    "prctl",
    "mmap",
    "read",
    "getpid",
    "open",
    "tuxcall",
)
# Few values, so that comparisons hit; with high halves, which 32-bit arguments must not see.
VALUES = st.one_of(
    st.sampled_from([0, 1, 2, 3, 0x80000000, 0xFFFFFFFF, 1 << 32, (1 << 32) + 1, (1 << 32) + 3, 1 << 63, FULL]),
    st.integers(0, FULL),
)
MASKS = st.one_of(
    st.sampled_from([FULL, FULL, 0xFFFFFFFF, 0xFFFF, 1, 2, 0xF0, 1 << 32, 3 << 31, 0xFFFFFFFF00000000, 0]),
    VALUES,
)


@st.composite
def clauses(draw, call):
    kinds = PROTOTYPES.get(call, "")
    if not kinds:
        return draw(st.sampled_from([ALWAYS, NEVER]))
    compare = st.builds(
        Compare, arg=st.integers(0, len(kinds) - 1), op=st.sampled_from(OPERATORS), value=VALUES, mask=MASKS
    )
    return draw(st.lists(st.lists(compare, max_size=3).map(tuple), max_size=4).map(tuple))


@st.composite
def rules(draw):
    chosen = draw(st.lists(st.sampled_from(CALLS), unique=True))
    made = [CallRule(call=c, clauses=draw(clauses(c)), errno=draw(st.sampled_from([1, 38]))) for c in sorted(chosen)]
    return SeccompRules(
        name="random",
        default_allow=draw(st.booleans()),
        default_errno=draw(st.sampled_from([1, 38])),
        calls=tuple(made),
    )


@st.composite
def calls(draw, arch, given_rules):
    """Draw a call whose arguments often lie on the edge of a comparison."""
    numbers = syscalls.numbers(arch)
    known = st.sampled_from([numbers[c] for c in CALLS if c in numbers])
    number = draw(st.one_of(known, st.sampled_from(sorted(numbers.values())), st.integers(0, 0xFFFFFFFF)))
    edges = [c.value for rule in given_rules.calls for clause in rule.clauses for c in clause] or [0]
    value = st.one_of(
        VALUES,
        st.sampled_from(edges),
        st.sampled_from(edges).map(lambda v: (v + 1) & FULL),
        st.sampled_from(edges).map(lambda v: (v - 1) & FULL),
        st.sampled_from(edges).map(lambda v: v ^ 1 << 32),
        st.sampled_from(edges).map(lambda v: v ^ 1 << 16),
    )
    return number, tuple(draw(value) for _ in range(6))


# Applying and compiling are deterministic; doing each combination once leaves the time to the calls.
@functools.cache
def _profile(name, options, arch):
    return apply_options(load_profile(name), options), compile_rules(load_profile(name), arch, options=options)


@functools.cache
def _through_oci(name, arch):
    return read_oci(write_oci(load_profile(name), arch)[0], arch)[0]


OPTION_SETS = st.sampled_from([frozenset(), *[frozenset({one}) for one in OPTIONS], frozenset(OPTIONS)])
ARCHES = st.sampled_from(sorted(syscalls.AUDIT_ARCH))
AUDIT = st.sampled_from([*syscalls.AUDIT_ARCH.values(), syscalls.AUDIT_ARCH_I386, 0])


def _expected(rule_set, arch, number, args, audit_arch):
    verdict = judge_call(rule_set, arch, number, args, audit_arch=audit_arch)
    return seccomp_filter.SECCOMP_RET_ALLOW if verdict.allowed else seccomp_filter.SECCOMP_RET_ERRNO | verdict.errno


@given(rules(), ARCHES, st.data())
def test_compiled_filter_answers_as_the_oracle(rule_set, arch, data):
    program = compile_rules(rule_set, arch)
    for _ in range(8):
        number, args = data.draw(calls(arch, rule_set))
        audit_arch = data.draw(st.one_of(st.just(syscalls.AUDIT_ARCH[arch]), AUDIT))
        expected = _expected(rule_set, arch, number, args, audit_arch)
        assert bpf.interpret(program, number, audit_arch, args) == expected


@pytest.mark.parametrize("name", PROFILES)
@given(ARCHES, OPTION_SETS, st.data())
def test_compiled_profile_with_options_answers_as_the_oracle(name, arch, options, data):
    rule_set, program = _profile(name, options, arch)
    for _ in range(8):
        number, args = data.draw(calls(arch, rule_set))
        audit_arch = syscalls.AUDIT_ARCH[arch]
        assert bpf.interpret(program, number, audit_arch, args) == _expected(rule_set, arch, number, args, audit_arch)


def _allowed(rule_set, arch, number, args):
    return judge_call(rule_set, arch, number, args).allowed


@given(rules(), rules(), ARCHES, st.data())
def test_intersection_allows_exactly_what_both_allow(a, b, arch, data):
    both = intersect(a, b)
    for source in (a, b):
        for _ in range(4):
            number, args = data.draw(calls(arch, source))
            expected = _allowed(a, arch, number, args) and _allowed(b, arch, number, args)
            assert _allowed(both, arch, number, args) == expected


@given(rules(), rules(), rules(), ARCHES, st.data())
def test_intersection_is_commutative_associative_and_idempotent_in_what_it_allows(a, b, c, arch, data):
    number, args = data.draw(calls(arch, a))
    answers = {
        _allowed(one, arch, number, args)
        for one in (
            intersect(a, intersect(b, c)),
            intersect(intersect(c, a), b),
            intersect(intersect(a, b), intersect(c, a)),
        )
    }
    assert len(answers) == 1
    assert _allowed(intersect(a, a), arch, number, args) == _allowed(a, arch, number, args)


@given(rules(), rules(), ARCHES, st.data())
def test_widening_allows_exactly_what_either_names(a, b, arch, data):
    wide = widen(a, b)
    number, args = data.draw(calls(arch, b))
    name = judge_call(b, arch, number, args).call
    named = name in {rule.call for rule in b.calls} and _allowed(b, arch, number, args)
    assert _allowed(wide, arch, number, args) == (_allowed(a, arch, number, args) or named)


@given(st.sampled_from(PROFILES), rules(), ARCHES, st.sets(st.sampled_from(OPTIONS)), st.data())
def test_narrowing_options_only_narrow(name, other, arch, options, data):
    start = intersect(load_profile(name), other)
    narrow = apply_options(start, options - {"nested", "devices"})
    number, args = data.draw(calls(arch, narrow))
    assert not _allowed(narrow, arch, number, args) or _allowed(start, arch, number, args)


SMALL = st.lists(
    st.lists(
        st.builds(
            Compare,
            arg=st.integers(0, 1),
            op=st.sampled_from(OPERATORS),
            value=st.integers(0, 3),
            mask=st.sampled_from([FULL, FULL, 3, 2, 1]),
        ),
        max_size=3,
    ).map(tuple),
    max_size=5,
).map(tuple)


@given(SMALL, SMALL)
def test_both_and_either_are_exact_on_every_argument_of_a_small_world(a, b):
    number = syscalls.numbers("x86_64")["socket"]

    def allows(made):
        one = SeccompRules(name="r", default_allow=False, calls=(CallRule(call="socket", clauses=made),))
        return [_allowed(one, "x86_64", number, (x, y)) for x in range(5) for y in range(5)]

    left, right = allows(a), allows(b)
    assert allows(conjoin(a, b)) == [x and y for x, y in zip(left, right, strict=True)]
    assert allows(disjoin(a, b)) == [x or y for x, y in zip(left, right, strict=True)]


@given(st.data())
def test_negation_is_exact(data):
    call = data.draw(st.sampled_from([c for c in CALLS if PROTOTYPES.get(c)]))
    made = data.draw(clauses(call))
    refused = ALWAYS
    for clause in made:
        refused = conjoin(refused, negate(clause) if clause else NEVER)
    positive, negative = (
        SeccompRules(name="r", default_allow=False, calls=(CallRule(call=call, clauses=c),)) for c in (made, refused)
    )
    arch = "x86_64"
    _, args = data.draw(calls(arch, positive))
    number = syscalls.numbers(arch)[call]
    assert _allowed(positive, arch, number, args) != _allowed(negative, arch, number, args)


def _oci_allows(document, arch, number, args):
    """Answer as runc and libseccomp do: 64-bit comparisons; two tests of one argument are alternatives."""
    names = {known: call for call, known in syscalls.numbers(arch).items()}
    for entry in document["syscalls"]:
        if names.get(number) not in entry["names"] or entry["action"] != "SCMP_ACT_ALLOW":
            continue
        tests = [
            args[t["index"]] & t["value"] == t["valueTwo"] if "valueTwo" in t else args[t["index"]] == t["value"]
            for t in entry.get("args", [])
        ]
        indexes = [t["index"] for t in entry.get("args", [])]
        assert len(set(indexes)) == len(indexes)
        assert {t["op"] for t in entry.get("args", [])} <= {"SCMP_CMP_EQ", "SCMP_CMP_MASKED_EQ"}
        if all(tests):
            return True
    return False


@given(rules(), ARCHES, st.data())
def test_written_oci_document_allows_exactly_what_the_rules_allow(rule_set, arch, data):
    try:
        document, _ = write_oci(rule_set, arch)
    except PolicyError:
        assume(False)
    for _ in range(4):
        number, args = data.draw(calls(arch, rule_set))
        assert _oci_allows(document, arch, number, args) == _allowed(rule_set, arch, number, args)


@pytest.mark.parametrize("name", PROFILES)
@given(ARCHES, st.data())
def test_profiles_survive_a_round_trip_through_oci(name, arch, data):
    start = load_profile(name)
    back = _through_oci(name, arch)
    number, args = data.draw(calls(arch, start))
    assert _allowed(back, arch, number, args) == _allowed(start, arch, number, args)
