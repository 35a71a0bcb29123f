"""A known value on two streams is marked in both, in whatever parts it comes; what cannot be one is let go."""

from __future__ import annotations

import pytest

from kavach.gate.joint import Joint, Side
from kavach.gate.known import KnownSecret
from kavach.gate.stream import StreamScanner
from kavach.model.verdict import ExternalizationPolicy

VALUE = b"q7-Zx/41+kT0123456789abcdef"
KNOWN = (KnownSecret("Token", VALUE),)


class Both:
    def __init__(self):
        joint = Joint(KNOWN)
        policy = ExternalizationPolicy.redact()
        self.streams = [StreamScanner(policy, known=KNOWN, scanners=(), side=Side(joint, error)) for error in (0, 1)]
        self.released = [b"", b""]

    def feed(self, is_error, chunk):
        for error in (is_error, 1 - is_error):
            self.released[error] += self.streams[error].feed(chunk if error == is_error else b"")

    def close(self):
        for error in (0, 1):
            self.released[error] += self.streams[error].close()
        return tuple(self.released)


@pytest.mark.parametrize("form", [VALUE, VALUE[::-1], VALUE.hex().encode()], ids=["plain", "reversed", "hex"])
@pytest.mark.parametrize("first", [0, 1])
def test_a_known_value_split_anywhere_over_both_streams_is_replaced_on_both(first, form):
    for at in range(1, len(form)):
        both = Both()
        both.feed(first, b"before " + form[:at])
        assert both.released[first] == b"before "
        both.feed(1 - first, form[at:] + b" after")
        assert set(both.close()) == {b"before [REDACTED:token]", b"[REDACTED:token] after"}, at


def test_a_known_value_that_alternates_line_by_line_leaves_none_of_its_parts():
    both = Both()
    for at in range(0, len(VALUE), 3):
        both.feed(at // 3 % 2, VALUE[at : at + 3] + b"\n")
    released = b"".join(both.close())
    assert b"[REDACTED:token]" in released
    assert not any(VALUE[at : at + 3] in released for at in range(0, len(VALUE), 3))


def test_what_was_held_goes_on_as_soon_as_the_other_stream_disproves_it():
    both = Both()
    both.feed(0, b"before " + VALUE[:5])
    assert both.released == [b"before ", b""]
    both.feed(1, b"other ")
    assert both.released == [b"before ", b"other "]
    both.feed(0, b" y ")
    assert both.released == [b"before " + VALUE[:5] + b" y ", b"other "]


def test_what_was_held_at_the_end_of_both_streams_is_released_unchanged():
    both = Both()
    both.feed(0, VALUE[:5])
    both.feed(1, VALUE[5:9])
    assert both.close() == (VALUE[:5], VALUE[5:9])


def test_nothing_is_marked_twice_that_stands_on_one_stream():
    joint = Joint(KNOWN)
    joint.feed(b"log\n", is_error=True)
    joint.feed(VALUE, is_error=False)
    joint.close(is_error=False)
    assert joint.marks == ([], [])
