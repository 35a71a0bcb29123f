"""What every rule for secrets has to be, whatever it looks for."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import kavach.gate.secrets
from kavach.gate.expression import parse
from kavach.gate.linear import compile_expression
from kavach.gate.secrets import SECRETS
from kavach.gate.seeds import longest
from kavach.model.verdict import Severity

RULES = {rule.name: rule for rule in SECRETS.rules}
WHOLE_BLOCKS = {"private-key", "putty-private-key"}


def test_each_name_is_there_once_and_fits_a_label():
    assert len(RULES) == len(SECRETS.rules)
    assert [name for name in RULES if re.fullmatch(r"[a-z0-9]+(?:-[a-z0-9]+)*", name) is None] == []
    assert max(map(len, RULES)) <= 40


@pytest.mark.parametrize("name", RULES)
def test_a_rule_is_read_by_the_exact_engine_and_knows_its_group(name):
    assert compile_expression(RULES[name].expression, name).groups >= RULES[name].group


@pytest.mark.parametrize("name", RULES)
def test_a_rule_says_how_long_its_match_can_be(name):
    size = longest(parse(RULES[name].expression))
    assert RULES[name].max_bytes <= 32 << 10
    assert size is None or name in WHOLE_BLOCKS or size <= RULES[name].max_bytes


@pytest.mark.parametrize("name", RULES)
def test_a_rule_has_literals_in_lower_case_and_none_is_empty(name):
    literals = RULES[name].literals
    assert literals != ()
    assert [one for one in literals if not one or one != one.lower()] == []


def test_what_is_worth_most_is_rated_highest():
    for name in ("private-key", "aws-secret-access-key", "github-token", "stripe-key", "anthropic-key"):
        assert RULES[name].severity is Severity.CRITICAL
    assert {RULES[name].severity for name in RULES if name.startswith("generic-")} == {Severity.MEDIUM}


def test_the_package_holds_no_whole_key():
    """Published examples are kept as digests, so that this repository trips no other scanner."""
    for path in Path(kavach.gate.secrets.__file__).parent.glob("*.py"):
        assert re.search(r"AIza[\w-]{35}|gh[pousr]_\w{36}|-----BEGIN [A-Z ]*KEY-----\n", path.read_text()) is None
