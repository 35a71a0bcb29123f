"""System call tables and prototypes."""

from __future__ import annotations

import pytest

from kavach.linux import syscalls
from kavach.linux.syscall_prototypes import PROTOTYPES


@pytest.mark.parametrize(
    ("arch", "call", "number"),
    [
        ("x86_64", "read", 0),
        ("x86_64", "clone", 56),
        ("x86_64", "seccomp", 317),
        ("x86_64", "fchmodat2", 452),
        ("x86_64", "file_setattr", 469),
        ("aarch64", "read", 63),
        ("aarch64", "clone", 220),
        ("aarch64", "mmap", 222),
        ("aarch64", "seccomp", 277),
        ("aarch64", "newfstatat", 79),
        ("aarch64", "file_setattr", 469),
    ],
)
def test_numbers_are_the_kernels(arch, call, number):
    assert syscalls.numbers(arch)[call] == number


@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
def test_numbers_are_unique_and_below_the_x32_bit(arch):
    numbers = list(syscalls.numbers(arch).values())
    assert len(set(numbers)) == len(numbers)
    assert all(0 <= number < syscalls.X32_SYSCALL_BIT for number in numbers)


def test_old_calls_are_absent_from_aarch64():
    assert not {"open", "fork", "vfork", "stat", "dup2", "arch_prctl"} & set(syscalls.numbers("aarch64"))


def test_new_calls_have_one_number_everywhere():
    x86, arm = syscalls.numbers("x86_64"), syscalls.numbers("aarch64")
    assert all(arm[call] == number for call, number in x86.items() if number >= 424 and call in arm)


def test_unknown_architecture_is_named_with_those_there_are():
    with pytest.raises(ValueError, match=r"riscv64.*x86_64, aarch64"):
        syscalls.numbers("riscv64")


@pytest.mark.parametrize(
    ("call", "index", "bits"),
    [
        ("ioctl", 1, 32),
        ("ioctl", 2, 64),
        ("socket", 0, 32),
        ("clone", 0, 64),
        ("mknodat", 2, 16),
        ("chmod", 1, 16),
        ("prlimit64", 2, 64),
        ("prctl", 0, 32),
        ("personality", 0, 32),
        ("mprotect", 2, 64),
        ("execveat", 4, 32),
        ("keyctl", 0, 32),
        ("setpriority", 1, 32),
    ],
)
def test_an_argument_is_as_wide_as_its_type(call, index, bits):
    assert syscalls.argument_mask(call, index) == (1 << bits) - 1


def test_argument_beyond_the_prototype_is_refused():
    with pytest.raises(ValueError, match="socket has 3 arguments"):
        syscalls.argument_mask("socket", 3)
    with pytest.raises(ValueError, match="0 arguments"):
        syscalls.argument_mask("tuxcall", 0)


def test_every_prototype_belongs_to_a_call_and_has_at_most_six_arguments():
    assert set(PROTOTYPES) <= syscalls.KNOWN_CALLS
    assert all(set(kinds) <= set("hwl") and len(kinds) <= 6 for kinds in PROTOTYPES.values())
