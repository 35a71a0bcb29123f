"""Trees of expressions, their seeds and the beginnings of their matches."""

from __future__ import annotations

import re

import pytest

from kavach.errors import InternalError
from kavach.gate.expression import parse, render
from kavach.gate.linear import compile_expression
from kavach.gate.prefixes import prefixes_of
from kavach.gate.rule import Rule
from kavach.gate.seeds import SEED_BYTES, longest, seed_of, shortest
from kavach.gate.wrapping import unwrap, wrapped
from kavach.model.verdict import Severity

CASES = [
    (r"\bab[0-9]{2,4}\b", b"ab123"),
    (r"(?i)key\s{0,3}[=:]\s*([a-z0-9]{4,8})", b"KeY = abc123"),
    (r"(?:foo|ba[rz])+?x", b"foobarx"),
    (r"-----BEGIN [A-Z ]{0,20}KEY-----[\s\S]*?-----END", b"-----BEGIN RSA KEY-----\nab\n-----END"),
    (r"[\w.]{1,8}@[a-z]{2,8}\.[a-z]{2}", b"joe.x@ab.de"),
    (r"(?:^|[^a-z])tok(?:[^0-9]|$)", b"-tok-"),
    (r"(?i:\bnhs\b)[^\n0-9]{0,8}?\b([0-9]{3} ?[0-9]{3})\b", b"NHS no 123 456"),
]


@pytest.mark.parametrize(("expression", "text"), CASES)
def test_a_rendered_tree_matches_what_its_expression_matches(expression: str, text: bytes) -> None:
    again = compile_expression(render(parse(expression)), "again")
    assert again.search(b"x " + text).span() == compile_expression(expression, "first").search(b"x " + text).span()
    assert again.search(b"nothing here") is None


@pytest.mark.parametrize(("expression", "text"), CASES)
def test_every_beginning_of_a_match_is_among_its_prefixes(expression: str, text: bytes) -> None:
    beginnings = compile_expression(f"^(?:{render(prefixes_of(parse(expression)))})\\z", "prefixes")
    for end in range(len(text) + 1):
        assert beginnings.search(text[:end]) is not None, text[:end]


def test_what_no_continuation_makes_a_match_is_no_prefix() -> None:
    beginnings = compile_expression(f"^(?:{render(prefixes_of(parse('ab[0-9]{2}c')))})\\z", "prefixes")
    for text in (b"b", b"ac", b"ab1c", b"ab123", b"ab12cd"):
        assert beginnings.search(text) is None, text


@pytest.mark.parametrize(("expression", "text"), CASES)
def test_a_seed_holds_inside_every_match_and_is_bounded(expression: str, text: bytes) -> None:
    seed = seed_of(parse(expression))
    assert (longest(seed.node) or 0) <= SEED_BYTES
    assert shortest(seed.node) > 0
    assert compile_expression(render(seed.node), "seed").search(text) is not None


def test_a_seed_prefers_a_literal_to_a_run_before_it() -> None:
    seed = seed_of(parse(r"[0-9a-f]{32}-us[0-9]{1,2}"))
    assert seed.lead_bytes == 32
    assert render(seed.node).startswith(r"\x2d\x75\x73")


@pytest.mark.parametrize("expression", ["a(?=b)", r"(a)\1", "[[:alpha:]]", "(?x:a)", "(a", "a)"])
def test_what_the_grammar_does_not_hold_is_refused(expression: str) -> None:
    with pytest.raises(InternalError):
        parse(expression)


def test_a_refused_expression_is_not_quoted() -> None:
    with pytest.raises(InternalError, match="rule db"):
        compile_expression("s3cr3t(", "db")
    with pytest.raises(InternalError) as caught:
        compile_expression("s3cr3t(", "db")
    assert "s3cr3t" not in str(caught.value)


def test_a_broken_token_is_found_at_every_break_and_a_whole_one_is_left_to_its_rule() -> None:
    rule = Rule("key", "c", Severity.HIGH, "m.", r"\bkey_[a-z]{6}\b", 10)
    broken = wrapped(rule)
    engine = compile_expression(broken.expression, "broken")
    token = "key_abcdef"
    for at in range(3, len(token)):
        text = f"{token[:at]}\n{token[at:]}\nnext".encode()
        found = engine.search(text)
        assert found is not None, at
        assert unwrap(found.group()) == token.encode()
    assert re.fullmatch(broken.expression, token)  # it matches; that nothing was broken is seen by its acceptance
