"""Having less than was asked only ever drops, and says all that it dropped."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kavach.linux import landlock_abi as abi

bits = st.integers(0, (1 << 64) - 1)
wanted_sets = st.tuples(bits, bits, bits, bits)
numbers = st.integers(-2, 30)


@given(wanted_sets, numbers)
def test_downgrade_only_drops_and_hides_nothing(wanted, number):
    kept, dropped = abi.downgrade(wanted, number)
    for asked, left, gone in zip(wanted, kept, dropped, strict=True):
        assert left & ~asked == 0
        assert left | gone == asked
        assert left & gone == 0


@given(wanted_sets, numbers, numbers)
def test_a_newer_abi_never_keeps_less(wanted, one, other):
    older, newer = sorted((one, other))
    for less, more in zip(abi.downgrade(wanted, older)[0], abi.downgrade(wanted, newer)[0], strict=True):
        assert less & ~more == 0


@given(wanted_sets, numbers)
def test_downgrading_twice_changes_nothing(wanted, number):
    kept, _dropped = abi.downgrade(wanted, number)
    assert abi.downgrade(kept, number) == (kept, abi.NOTHING)


@given(wanted_sets)
def test_the_minimum_abi_really_drops_nothing(wanted):
    number = abi.minimum_abi(wanted)
    known = all(asked & ~has == 0 for asked, has in zip(wanted, abi.rights(abi.HIGHEST_ABI), strict=True))
    assert (number > 0) == known
    if number:
        assert abi.downgrade(wanted, number)[1] == abi.NOTHING
        assert number == 1 or abi.downgrade(wanted, number - 1)[1] != abi.NOTHING


@given(wanted_sets)
def test_every_bit_has_one_name(wanted):
    named = abi.names(wanted)
    assert len(named) == len(set(named)) == sum(asked.bit_count() for asked in wanted)
