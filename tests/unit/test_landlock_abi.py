"""The ABI table says what each kernel can refuse, and less than asked is named, never hidden."""

from __future__ import annotations

import pytest

from kavach.linux import landlock_abi as abi

# Written by hand from the kernel's history, not from the table: number, release, names that are new.
FIRST = (
    "EXECUTE WRITE_FILE READ_FILE READ_DIR REMOVE_DIR REMOVE_FILE MAKE_CHAR MAKE_DIR MAKE_REG MAKE_SOCK"
    " MAKE_FIFO MAKE_BLOCK MAKE_SYM"
)
HISTORY = [
    (1, "5.13", [f"LANDLOCK_ACCESS_FS_{name}" for name in FIRST.split()]),
    (2, "5.19", ["LANDLOCK_ACCESS_FS_REFER"]),
    (3, "6.2", ["LANDLOCK_ACCESS_FS_TRUNCATE"]),
    (4, "6.7", ["LANDLOCK_ACCESS_NET_BIND_TCP", "LANDLOCK_ACCESS_NET_CONNECT_TCP"]),
    (5, "6.10", ["LANDLOCK_ACCESS_FS_IOCTL_DEV"]),
    (6, "6.12", ["LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET", "LANDLOCK_SCOPE_SIGNAL"]),
    (
        7,
        "6.15",
        [
            "LANDLOCK_RESTRICT_SELF_LOG_SAME_EXEC_OFF",
            "LANDLOCK_RESTRICT_SELF_LOG_NEW_EXEC_ON",
            "LANDLOCK_RESTRICT_SELF_LOG_SUBDOMAINS_OFF",
        ],
    ),
]
EVERYTHING = abi.rights(abi.HIGHEST_ABI)


@pytest.mark.parametrize(("number", "kernel", "new"), HISTORY)
def test_each_abi_adds_exactly_what_its_kernel_added(number, kernel, new):
    before, now = set(abi.names(abi.rights(number - 1))), set(abi.names(abi.rights(number)))
    assert before <= now
    assert now - before == set(new)
    assert abi.kernel_of(number) == kernel


@pytest.mark.parametrize(("number", "kernel", "new"), HISTORY)
def test_what_a_later_abi_adds_is_dropped_on_an_earlier_one(number, kernel, new):
    _kept, dropped = abi.downgrade(EVERYTHING, number)
    later = [name for other, _kernel, names in HISTORY if other > number for name in names]
    assert set(abi.names(dropped)) == set(later)


def test_the_rights_of_the_first_abi_are_bits_0_to_12():
    assert abi.rights(1) == (0x1FFF, 0, 0, 0)


def test_a_kernel_newer_than_the_table_claims_nothing_more():
    assert abi.rights(abi.HIGHEST_ABI + 40) == EVERYTHING
    beyond = (1 << 16, 1 << 2, 1 << 2, 1 << 3)  # RESOLVE_UNIX, BIND_UDP, a third scope, TSYNC
    assert abi.downgrade(beyond, 99) == (abi.NOTHING, beyond)


@pytest.mark.parametrize("number", [0, -1])
def test_no_landlock_has_no_rights(number):
    assert abi.rights(number) == abi.NOTHING


def test_a_host_that_lies_about_its_number_is_split_by_what_the_probe_saw():
    seen = abi.rights(3)
    kept, dropped = abi.split(EVERYTHING, seen)
    assert kept == seen
    assert "LANDLOCK_SCOPE_SIGNAL" in abi.names(dropped)


def test_negative_rights_are_the_programmers_mistake():
    with pytest.raises(ValueError, match="not negative"):
        abi.downgrade((-1, 0, 0, 0), 7)


@pytest.mark.parametrize(
    ("wanted", "needed"),
    [
        ((abi.LANDLOCK_ACCESS_FS_READ_FILE, 0, 0, 0), 1),
        ((abi.LANDLOCK_ACCESS_FS_TRUNCATE, 0, 0, 0), 3),
        ((0, abi.LANDLOCK_ACCESS_NET_BIND_TCP, 0, 0), 4),
        ((0, 0, abi.LANDLOCK_SCOPE_SIGNAL, 0), 6),
        (EVERYTHING, 7),
        ((1 << 40, 0, 0, 0), 0),
    ],
)
def test_the_lowest_abi_that_suffices_is_found(wanted, needed):
    assert abi.minimum_abi(wanted) == needed


def test_an_unknown_bit_is_named_by_its_number_and_an_unknown_abi_has_no_kernel():
    assert abi.names((0, 0, 1 << 9, 0)) == ("LANDLOCK_SCOPE_0x200",)
    assert abi.kernel_of(99) == ""


def test_rights_of_a_file_are_those_that_need_no_directory():
    short = {name.removeprefix("LANDLOCK_ACCESS_FS_") for name in abi.names((abi.ACCESS_FILE, 0, 0, 0))}
    assert short == {"EXECUTE", "WRITE_FILE", "READ_FILE", "TRUNCATE", "IOCTL_DEV"}
