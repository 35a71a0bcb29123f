"""Plain decisions -> filter: dispatch, comparisons, and what never varies."""

from __future__ import annotations

import pytest

from kavach.linux import bpf, seccomp_filter, syscalls

ALLOW = seccomp_filter.SECCOMP_RET_ALLOW
EPERM = seccomp_filter.SECCOMP_RET_ERRNO | 1
ENOSYS = seccomp_filter.SECCOMP_RET_ERRNO | 38
ARCH = syscalls.AUDIT_ARCH_X86_64
ALL = (1 << 64) - 1


def _ask(decisions, nr, *args, arch=ARCH):
    return bpf.interpret(seccomp_filter.build(ARCH, decisions), nr, arch, args)


def test_foreign_architecture_is_refused_whatever_the_number():
    for arch in (syscalls.AUDIT_ARCH_I386, syscalls.AUDIT_ARCH_AARCH64, 0):
        assert _ask({0: ALLOW, 1: ALLOW}, 1, arch=arch) == ENOSYS


def test_x32_numbers_are_refused():
    decisions = dict.fromkeys(range(471), ALLOW)
    program = seccomp_filter.build(ARCH, decisions)
    for nr in (0, 1, 59, 470, 512, 547):
        assert bpf.interpret(program, nr | syscalls.X32_SYSCALL_BIT, ARCH, ()) == ENOSYS


def test_numbers_without_a_decision_are_unknown():
    decisions = {1: ALLOW, 2: EPERM, 5: ALLOW}
    program = seccomp_filter.build(ARCH, decisions)
    for nr in (0, 3, 4, 6, 1000, 0x7FFFFFFF, 0xFFFFFFFF, -1):
        assert bpf.interpret(program, nr, ARCH, ()) == ENOSYS
    assert [bpf.interpret(program, nr, ARCH, ()) for nr in (1, 2, 5)] == [ALLOW, EPERM, ALLOW]


def test_no_decision_at_all_refuses_everything():
    assert _ask({}, 0) == ENOSYS


def test_alternating_numbers_are_each_answered_right():
    decisions = {nr: (ALLOW if nr % 2 else EPERM) for nr in range(1000)}
    program = seccomp_filter.build(ARCH, decisions)
    for nr in range(1000):
        assert bpf.interpret(program, nr, ARCH, ()) == decisions[nr]


def test_plain_allows_of_neighbours_cost_one_range():
    assert len(seccomp_filter.build(ARCH, dict.fromkeys(range(400), ALLOW))) // 8 <= 8


def test_search_depth_is_logarithmic():
    decisions = {nr: (ALLOW if nr % 2 else EPERM) for nr in range(512)}
    program = bpf.decode(seccomp_filter.build(ARCH, decisions))
    nr, at, steps = 300, 0, 0
    loaded = 0
    while program[at][0] != bpf.RET:
        code, jt, jf, k = program[at]
        steps, at = steps + 1, at + 1
        if code == bpf.LD_ABS:
            loaded = {0: nr, 4: ARCH}[k]
        elif code == bpf.JA:
            at += k
        else:
            at += jt if (loaded >= k if code == bpf.JGE else loaded == k) else jf
    assert steps <= 3 + 2 * 10


@pytest.mark.parametrize("mask", [ALL, 0xFFFFFFFF, 0xFFFF, 0xF0F0, 0x0FF0_0000_0000, 0xFF00_0000_00FF, 0])
@pytest.mark.parametrize("operator", ["eq", "ne", "lt", "le", "gt", "ge"])
@pytest.mark.parametrize("value", [0, 1, 5, 0xF0, 0xFFFFFFFF, 1 << 32, (1 << 32) + 5, 0x0100_0000_0001, ALL])
def test_comparison_is_exact_at_its_edges(mask, operator, value):
    meaning = {
        "eq": lambda a: a == value,
        "ne": lambda a: a != value,
        "lt": lambda a: a < value,
        "le": lambda a: a <= value,
        "gt": lambda a: a > value,
        "ge": lambda a: a >= value,
    }[operator]
    program = seccomp_filter.build(ARCH, {0: ((((2, mask, operator, value),),), ALLOW, EPERM)})
    edges = {
        0,
        1,
        2,
        4,
        5,
        6,
        value,
        (value - 1) & ALL,
        (value + 1) & ALL,
        value ^ (1 << 63),
        value ^ (1 << 32),
    }
    for register in edges | {value ^ 1, value | 0xFFFF0000, ALL, 1 << 31, 1 << 32, 0xF1, 0xEF}:
        expected = ALLOW if meaning(register & mask) else EPERM
        assert bpf.interpret(program, 0, ARCH, (0, 0, register)) == expected, hex(register)


def test_all_comparisons_of_a_clause_must_hold_and_one_clause_is_enough():
    word = 0xFFFFFFFF
    clauses = (((0, word, "eq", 1), (1, word, "eq", 2)), ((0, word, "eq", 3),))
    decisions = {7: (clauses, ALLOW, EPERM)}
    assert _ask(decisions, 7, 1, 2) == ALLOW
    assert _ask(decisions, 7, 1, 3) == EPERM
    assert _ask(decisions, 7, 3, 9) == ALLOW
    assert _ask(decisions, 7, 2, 2) == EPERM


def test_a_word_that_is_loaded_is_not_loaded_again():
    clauses = tuple(((1, 0xFFFFFFFF, "eq", value),) for value in range(20))
    program = bpf.decode(seccomp_filter.build(ARCH, {7: (clauses, ALLOW, EPERM)}))
    assert [one[3] for one in program if one[0] == bpf.LD_ABS] == [4, 0, 24]


def test_a_word_is_loaded_again_where_control_arrives_with_different_words():
    # The first clause fails with the high word or with the low word in the accumulator.
    clauses = (((0, ALL, "eq", 5 << 32 | 9),), ((0, 0xFFFFFFFF, "eq", 7),))
    decisions = {3: (clauses, ALLOW, EPERM)}
    assert _ask(decisions, 3, 5 << 32 | 9) == ALLOW
    assert _ask(decisions, 3, 7) == ALLOW
    assert _ask(decisions, 3, 5 << 32 | 7) == ALLOW
    assert _ask(decisions, 3, 7 << 32 | 1) == EPERM


def test_no_clause_means_the_other_action_and_an_empty_clause_the_first():
    assert _ask({7: ((), ALLOW, EPERM)}, 7) == EPERM
    assert _ask({7: (((), ((0, 1, "eq", 1),)), ALLOW, EPERM)}, 7) == ALLOW


@pytest.mark.parametrize("bad", [(6, 1, "eq", 0), (0, 1 << 64, "eq", 0), (0, 1, "eq", -1), (0, 1, "has", 0)])
def test_malformed_comparison_is_refused(bad):
    with pytest.raises(ValueError, match="comparison|operator"):
        seccomp_filter.build(ARCH, {0: (((bad,),), ALLOW, EPERM)})


def test_filter_that_is_too_long_is_refused():
    clauses = tuple(((0, ALL, "eq", value << 32 | value),) for value in range(1500))
    with pytest.raises(ValueError, match="the kernel takes 4096"):
        seccomp_filter.build(ARCH, {0: (clauses, ALLOW, EPERM)})
