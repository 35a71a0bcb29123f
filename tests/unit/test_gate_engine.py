"""Rules over a text: every match, wherever it overlaps, however the rules are chosen."""

from __future__ import annotations

import itertools

import pytest

from kavach.gate import engine
from kavach.gate.engine import Entry, PatternSet, Progress
from kavach.gate.rule import Match, Rule, Unseen
from kavach.model.verdict import Severity


def rule(expression: str, max_bytes: int = 64, **more: object) -> Rule:
    return Rule("r", "c", Severity.HIGH, "m.", expression, max_bytes, **more)  # type: ignore[arg-type]


def spans(one: Rule, text: bytes) -> list[tuple[int, int]]:
    patterns = PatternSet([Entry("s", one)])
    marks, _ = patterns.sweep(text, len(text), Progress(), is_last=True)
    return sorted((mark.start, mark.end) for mark in marks)


@pytest.fixture(params=["by literals", "by the set engine"])
def _way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "by the set engine":
        monkeypatch.setattr(engine, "FEW_BYTES", 0)


pytestmark = pytest.mark.usefixtures("_way")


def test_a_rejected_match_does_not_hide_the_one_that_overlaps_it() -> None:
    def accept(match: Match) -> bool:
        return match.group() == b"ab12ab34"

    assert spans(rule(r"ab[a-z0-9]{6}", accept=accept), b"ab99ab12ab34") == [(4, 12)]


def test_an_accepted_match_does_not_hide_the_end_of_one_that_overlaps_it() -> None:
    assert spans(rule(r"ab[a-z0-9]{6}"), b"abxxab123456") == [(0, 8), (4, 12)]


def test_what_lies_inside_what_was_marked_is_part_of_it() -> None:
    assert spans(rule(r"[a-z]{2,8}@x"), b"someone@x") == [(0, 9)]


def test_the_group_of_a_rule_is_what_is_marked() -> None:
    assert spans(rule(r"key=(\w+)", group=1), b"a key=abc") == [(6, 9)]
    assert spans(rule(r"key=(?:(\d+)|\w+)", group=1), b"a key=abc") == [(2, 9)]


def test_a_match_is_no_longer_than_its_rule_allows() -> None:
    assert spans(rule(r"a[b]*c", 6), b"abbbbbbbbbbc abbbbc") == [(13, 19)]


def test_a_run_longer_than_its_rule_is_marked_in_pieces_that_overlap() -> None:
    got = spans(rule(r"x[a-z]*|[a-z]+", 5000), b"x" * 12_000)
    assert got[0] == (0, 5000)
    assert got[-1][1] == 12_000
    assert all(later[0] < earlier[1] for earlier, later in itertools.pairwise(got))


@pytest.mark.parametrize("at", [0, 1, 4000, 4090, 4095, 4096, 4097, 8191, 8192, 12_280])
def test_a_match_is_found_at_and_across_the_borders_of_windows(at: int) -> None:
    text = b"." * at + b"token-1234567890" + b"." * (12_288 - at)
    assert spans(rule(r"token-[0-9]{10}", literals=(b"token",)), text) == [(at, at + 16)]


def test_every_byte_of_a_text_can_be_any_byte() -> None:
    assert spans(rule(r"\xff\x00[\x80-\xfe]"), b"a\xff\x00\x90b") == [(1, 4)]


def test_a_rule_that_looks_behind_the_text_waits_for_more() -> None:
    one = rule(r"ab", accept=lambda match: match.after(2) == b"cd")
    patterns, progress = PatternSet([Entry("s", one)]), Progress()
    assert patterns.sweep(b"..ab", 4, progress, is_last=False) == ([], 2)
    marks, _ = patterns.sweep(b"..abcd", 6, progress, is_last=False)
    assert [(mark.start, mark.end) for mark in marks] == [(2, 4)]
    with pytest.raises(Unseen):
        Match(b"ab", ((0, 2),), is_last=False).after(1)


def test_what_was_looked_at_is_not_found_again() -> None:
    patterns, progress = PatternSet([Entry("s", rule("ab"))]), Progress()
    assert len(patterns.sweep(b"ab..", 4, progress, is_last=False)[0]) == 1
    assert patterns.sweep(b"ab..ab", 6, progress, is_last=True)[0][0].start == 4


def test_both_ways_to_choose_rules_find_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (b"noise key=abc1 " * 50 + b"tail-x ") * 20
    some = [
        rule(r"key=[a-z]{3}[0-9]", literals=(b"key=",)),
        rule(r"\btail-[a-z]\b", literals=(b"tail",)),
        rule("[0-9] n"),
    ]
    found = []
    for few in (0, 1 << 30):
        monkeypatch.setattr(engine, "FEW_BYTES", few)
        patterns = PatternSet([Entry("s", one) for one in some])
        found.append(sorted(patterns.sweep(text, len(text), Progress(), is_last=True)[0]))
    assert found[0] == found[1]
    assert len(found[0]) > 1000
