"""What becomes of an output under each named policy, for each action and severity."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from kavach.gate.judge import Action, decide, judge, worst_verdict
from kavach.model.verdict import ExternalizationPolicy, Severity, Verdict

INFO, LOW, MEDIUM, HIGH, CRITICAL = Severity
REDACT, ENFORCE = ExternalizationPolicy.redact(), ExternalizationPolicy.enforce()


class Seen(NamedTuple):
    scanner: str
    severity: Severity


@pytest.mark.parametrize("scanner", ["secrets", "personal"])
@pytest.mark.parametrize(
    ("severity", "action"),
    [(INFO, "report"), (LOW, "report"), (MEDIUM, "redact"), (HIGH, "redact"), (CRITICAL, "redact")],
)
def test_redact_replaces_secrets_and_personal_data_from_medium_on(scanner, severity, action):
    assert decide(scanner, severity, REDACT) == action


@pytest.mark.parametrize("severity", list(Severity))
@pytest.mark.parametrize("scanner", ["code", "binary"])
def test_redact_only_reports_code_and_binary_artifacts(scanner, severity):
    judged = judge([Seen(scanner, severity)], REDACT)
    assert (judged.verdict, judged.actions, judged.worst) == (Verdict.PASS, (Action.REPORT,), severity)


@pytest.mark.parametrize("scanner", ["secrets", "code", "personal", "binary", "of a later version"])
@pytest.mark.parametrize(
    ("severity", "action", "verdict"),
    [
        (INFO, "report", "pass"),
        (LOW, "redact", "warn"),
        (MEDIUM, "redact", "warn"),
        (HIGH, "quarantine", "quarantine"),
        (CRITICAL, "block", "block"),
    ],
)
def test_enforce_lets_thresholds_decide_for_every_scanner(scanner, severity, action, verdict):
    judged = judge([Seen(scanner, severity)], ENFORCE)
    assert (judged.actions, judged.verdict) == ((action,), verdict)


def test_thresholds_are_those_of_the_policy():
    low = ExternalizationPolicy(
        mode="enforce", secrets="verdict", block_threshold=Severity.HIGH, quarantine_threshold=Severity.LOW
    )
    assert [decide("secrets", severity, low) for severity in Severity] == [
        "report",
        "quarantine",
        "quarantine",
        "block",
        "block",
    ]


def test_mode_redact_never_withholds_even_where_an_action_says_verdict():
    policy = ExternalizationPolicy(secrets="verdict", code="verdict", personal="verdict")
    judged = judge([Seen(name, CRITICAL) for name in ("secrets", "code", "personal")], policy)
    assert judged.verdict is Verdict.WARN
    assert set(judged.actions) == {Action.REDACT}


def test_action_redact_withholds_nothing_in_enforce():
    policy = ExternalizationPolicy(mode="enforce", secrets="redact")
    assert judge([Seen("secrets", CRITICAL), Seen("secrets", LOW)], policy).actions == (Action.REDACT, Action.REDACT)


def test_a_scanner_that_is_off_counts_for_nothing():
    policy = ExternalizationPolicy(mode="enforce", secrets="verdict", code="off")
    judged = judge([Seen("code", CRITICAL), Seen("secrets", LOW)], policy)
    assert (judged.verdict, judged.worst) == (Verdict.WARN, LOW)
    assert judged.actions == (Action.IGNORE, Action.REDACT)


def test_a_scanner_that_is_not_in_the_policy_goes_by_the_action_for_secrets():
    assert decide("known", HIGH, REDACT) is Action.REDACT
    assert decide("known", HIGH, ExternalizationPolicy(secrets="report")) is Action.REPORT


def test_secrets_that_are_kept_by_policy_still_warn():
    policy = ExternalizationPolicy(redact_secrets=False)
    judged = judge([Seen("secrets", CRITICAL), Seen("personal", MEDIUM)], policy)
    assert judged.actions == (Action.WARN, Action.REDACT)
    assert judged.verdict is Verdict.WARN


def test_nothing_seen_passes_and_a_disabled_gate_says_that_nothing_was_scanned():
    assert judge([], ENFORCE).verdict is Verdict.PASS
    off = judge([Seen("secrets", CRITICAL)], ExternalizationPolicy.off())
    assert (off.verdict, off.actions) == (Verdict.NOT_SCANNED, ())


def test_one_bad_finding_among_a_thousand_decoys_decides():
    seen = [Seen("secrets", LOW)] * 1000 + [Seen("secrets", CRITICAL)]
    judged = judge(seen, ENFORCE)
    assert (judged.verdict, judged.worst, len(judged.actions)) == (Verdict.BLOCK, CRITICAL, 1001)


@pytest.mark.parametrize(("policy", "verdict"), [(REDACT, "warn"), (ENFORCE, "quarantine")])
def test_a_too_large_output_is_cut_in_redact_and_withheld_in_enforce(policy, verdict):
    limit = policy.max_artifact_size_bytes
    assert judge([], policy, size_bytes=limit).limit_bytes is None
    over = judge([], policy, size_bytes=limit + 1)
    assert (over.verdict, over.limit_bytes) == (verdict, limit)


@pytest.mark.parametrize(
    ("verdicts", "worst"),
    [
        ((), "pass"),
        (("pass", "warn", "pass"), "warn"),
        (("warn", "block", "quarantine"), "block"),
        (("pass", "not_scanned"), "not_scanned"),
        (("warn", "not_scanned"), "not_scanned"),
        (("not_scanned", "block"), "block"),
    ],
)
def test_the_verdict_over_several_outputs_is_the_worst_and_never_hides_what_was_not_scanned(verdicts, worst):
    assert worst_verdict([Verdict(verdict) for verdict in verdicts]) is Verdict(worst)
