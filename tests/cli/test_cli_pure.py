"""The parts of the command line that decide without doing: what a terminal may see, and exit codes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kavach.cli import main
from kavach.cli.ending import exit_code, words
from kavach.cli.visible import Filter, make_visible
from kavach.model.policy import SandboxPolicy
from kavach.model.result import EndReason, ExecResult
from kavach.model.score import StrengthScore
from kavach.model.verdict import Verdict


def result(reason, **more):
    return ExecResult(sandbox_id="sb", reason=reason, score=StrengthScore(0), requested_score=StrengthScore(0), **more)


@given(st.binary(), st.lists(st.integers(0, 200)))
def test_chunks_of_any_size_show_the_same(content, cuts):
    whole = Filter().feed(content, final=True)
    parts, shown, at = Filter(), b"", 0
    for cut in sorted(min(cut, len(content)) for cut in cuts):
        shown += parts.feed(content[at:cut])
        at = cut
    assert shown + parts.feed(content[at:], final=True) == whole


@given(st.binary())
def test_nothing_that_a_terminal_acts_upon_gets_through(content):
    shown = Filter().feed(content, final=True).decode()
    assert [one for one in shown if (ord(one) < 32 or 127 <= ord(one) < 160) and one not in "\n\t"] == []


@given(st.text(st.characters(exclude_categories=("Cc", "Cf", "Cs", "Zl", "Zp", "Cn", "Co"))))
def test_plain_text_is_shown_as_it_is(text):
    assert make_visible(text) == text


@pytest.mark.parametrize("hidden", ["\u202e", "\u2066", "\u200f", "\ufeff", "\u2028", "\U000e0041"])
def test_characters_that_reorder_or_hide_text_are_spelt_out(hidden):
    assert make_visible(f"a{hidden}b").isascii()


@pytest.mark.parametrize(
    ("ending", "code"),
    [
        (result(EndReason.EXIT, exit_code=0), 0),
        (result(EndReason.EXIT, exit_code=255), 255),
        (result(EndReason.SIGNAL, signal=11), 139),
        (result(EndReason.TIMEOUT), 124),
        (result(EndReason.TIMEOUT_SIBLING, signal=9), 124),
        (result(EndReason.OOM, signal=9), 137),
        (result(EndReason.PIDS, exit_code=2), 137),
        (result(EndReason.DISK, exit_code=1), 137),
        (result(EndReason.OUTPUT_LIMIT, signal=9), 137),
        (result(EndReason.WITHHELD, exit_code=0, verdict=Verdict.BLOCK), 120),
        (result(EndReason.BACKEND_LOST), 125),
        (result(EndReason.NOT_RUN), 0),
        (result(EndReason.POLICY_KILL, signal=31), 159),
    ],
    ids=lambda value: str(getattr(value, "reason", value)),
)
def test_ending_has_its_exit_code(ending, code):
    assert exit_code(ending) == code


@pytest.mark.parametrize("reason", ["oom", "pids", "disk", "output_limit"])
def test_limit_that_ended_a_run_is_named(reason):
    (line,) = words(result(EndReason(reason)), SandboxPolicy.strict(), 1000)
    assert f"ended by a limit: {reason} (limits." in line


def test_every_reason_has_an_exit_code():
    verdict = {EndReason.WITHHELD: Verdict.BLOCK}
    made = [result(one, verdict=verdict.get(one, Verdict.NOT_SCANNED)) for one in EndReason]
    assert all(0 <= exit_code(one) <= 255 for one in made)


def test_defect_is_told_without_a_traceback_and_without_its_text(monkeypatch, capfd):
    import kavach.cli.backends

    def fail(_name):
        raise RuntimeError("hunter2")

    monkeypatch.setattr(kavach.cli.backends, "examine_walls", fail)
    assert main(["backends"]) == 125
    said = capfd.readouterr().err
    assert said.startswith("kavach: RuntimeError at ")
    assert "report" in said
    assert "hunter2" not in said
    assert "Traceback" not in said
