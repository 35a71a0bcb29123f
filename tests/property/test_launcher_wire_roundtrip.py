"""Any value comes back as it was; any other bytes are a ValueError and nothing else."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kavach.launcher import wire

LEAVES = st.one_of(st.none(), st.integers(-(1 << 63), (1 << 63) - 1), st.binary(max_size=40))
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=5).map(tuple), max_leaves=20)


def depth(value):
    return 1 + max(map(depth, value), default=0) if isinstance(value, tuple) else 0


@given(VALUES.filter(lambda value: depth(value) <= 8))
def test_value_comes_back_as_it_was(value):
    assert wire.decode(wire.encode(value)) == value


@given(VALUES.filter(lambda value: depth(value) <= 8), st.data())
def test_cut_message_is_a_value_error(value, data):
    body = wire.encode(value)
    at = data.draw(st.integers(0, len(body) - 1))
    try:
        wire.decode(body[:at])
    except ValueError:
        return
    raise AssertionError(body[:at])


@given(VALUES.filter(lambda value: depth(value) <= 8), st.data())
def test_changed_message_is_a_value_or_a_value_error(value, data):
    body = bytearray(wire.encode(value))
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = wire.decode(bytes(body))
    except ValueError:
        return
    assert wire.encode(found) == bytes(body)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_value_or_a_value_error(body):
    try:
        found = wire.decode(body)
    except ValueError:
        return
    assert wire.encode(found) == body
