"""A token is found whole, whatever stands around it, and nothing around it is taken."""

from __future__ import annotations

import string

from hypothesis import given
from hypothesis import strategies as st

from kavach.gate.scan import scan_bytes
from kavach.gate.secrets import SECRETS
from kavach.gate.secrets.chance import entropy, is_random, is_stand_in
from kavach.model.verdict import ExternalizationPolicy

ALPHABET = string.ascii_letters + string.digits
BODIES = st.text(ALPHABET, min_size=36, max_size=36).filter(lambda text: entropy(text.encode()) > 3.2)
AROUND = st.binary(max_size=60)
APART = st.sampled_from([b" ", b"\n", b'"', b"'", b"=", b"(", b",", b"\\n", b"%3D", b"\x1b[0m"])


def spans(data: bytes) -> set[tuple[str, int, int]]:
    marks = scan_bytes(data, ExternalizationPolicy(), scanners=(SECRETS,))
    return {(mark.rule, mark.start, mark.end) for mark in marks}


@given(
    BODIES.filter(lambda text: not is_stand_in(text.encode())),
    AROUND,
    AROUND,
    APART,
    st.sampled_from([b" ", b"\n", b'"', b"\\n"]),
)
def test_a_github_token_is_found_between_any_bytes(body, before, after, opens, closes):
    token = b"ghp_" + body.encode()
    data = before + opens + token + closes + after
    start = len(before) + len(opens)
    assert any(a <= start and start + len(token) <= b for rule, a, b in spans(data) if rule)


@given(st.binary(max_size=400))
def test_judging_a_value_never_fails(value):
    assert is_random(value) in {True, False}
    assert 0.0 <= entropy(value) <= 8.0
