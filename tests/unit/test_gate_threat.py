"""The number, its classes and its tiers are those that are written down."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kavach.gate.code.groups import GROUPS
from kavach.gate.threat import STAGES, ThreatClass, Tier, assess, classify, stage_of
from kavach.model.verdict import Finding, Severity

INFO, LOW, MEDIUM, HIGH, CRITICAL = Severity
_ids = itertools.count()


def finding(severity: Severity, scanner: str = "secrets", rule: str = "aws") -> Finding:
    return Finding(
        id=f"f{next(_ids)}", scanner=scanner, rule=rule, category="c", severity=severity, message="m", stream="stdout",
        start=0, end=1, evidence="e",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("severity", "weight"), [(INFO, 0.05), (LOW, 0.15), (MEDIUM, 0.35), (HIGH, 0.60), (CRITICAL, 0.90)]
)
def test_one_finding_weighs_what_is_written(severity, weight):
    assert assess([finding(severity)]).intent == pytest.approx(weight)


def test_weights_add_up_and_end_at_one():
    assert assess([finding(HIGH), finding(LOW)]).intent == pytest.approx(0.75)
    assert assess([finding(MEDIUM), finding(MEDIUM)]).intent == pytest.approx(0.70)
    assert assess([finding(CRITICAL)] * 3).intent == 1.0
    assert assess([]).intent == 0.0


@pytest.mark.parametrize(
    ("rules", "amplification"),
    [
        (["sudo", "eval"], 1.0),
        (["sudo", "kernel-module"], 1.3),
        (["sudo", "kernel-module", "reverse-shell"], 1.5),
        (["sudo", "kernel-module", "reverse-shell", "base64-obfuscation", "remote-script"], 1.5),
        (["weak-hash", "hard-coded-key"], 1.0),
    ],
)
def test_stages_of_an_attack_amplify(rules, amplification):
    found = assess([finding(LOW, "code", rule) for rule in rules])
    assert found.amplification == amplification
    assert found.intent == pytest.approx(min(1.0, 0.15 * len(rules) * amplification))


def test_stages_are_those_of_an_attack_and_in_order():
    assert {group.stage for group in GROUPS.values()} - {None} <= set(STAGES)
    found = assess([finding(LOW, "code", rule) for rule in ("reverse-shell", "sudo", "sensitive-path")])
    assert found.stages == ("reconnaissance", "exploitation", "command_and_control")
    assert stage_of(finding(LOW)) == "exfiltration"
    assert stage_of(finding(LOW, "binary")) == "delivery"
    assert stage_of(finding(LOW, "code", "no-such-rule")) is None


@pytest.mark.parametrize(
    ("intent", "expected"),
    [
        (0.0, ThreatClass.BENIGN),
        (0.199, ThreatClass.BENIGN),
        (0.2, ThreatClass.SUSPICIOUS),
        (0.499, ThreatClass.SUSPICIOUS),
        (0.5, ThreatClass.LIKELY_MALICIOUS),
        (0.799, ThreatClass.LIKELY_MALICIOUS),
        (0.8, ThreatClass.MALICIOUS),
        (1.0, ThreatClass.MALICIOUS),
    ],
)
def test_classes_begin_where_it_is_written(intent, expected):
    assert classify(intent) is expected


def test_tier_goes_with_the_class():
    tiers = [assess(found).tier for found in ([], [finding(MEDIUM)], [finding(HIGH)], [finding(CRITICAL)])]
    assert tiers == [Tier.LOG, Tier.ALERT, Tier.SUSPEND, Tier.REVOKE]


@given(st.lists(st.sampled_from(list(Severity)), max_size=50))
def test_personal_data_alone_stays_benign(severities):
    assert assess([finding(severity, "personal") for severity in severities]).intent < 0.2


def test_personal_data_beside_a_secret_counts():
    assert assess([finding(LOW), finding(HIGH, "personal")]).intent == pytest.approx(0.75)


def test_a_listing_of_any_length_is_no_attack():
    listing = [finding(INFO, "code", rule) for rule in GROUPS] * 100
    assert assess(listing).threat_class is ThreatClass.BENIGN
    assert assess([*listing, finding(HIGH)]).intent == pytest.approx(0.60 + 0.19)


def test_redacted_secrets_and_personal_data_count_half_and_code_does_not():
    secret, person, code = finding(CRITICAL), finding(MEDIUM, "personal"), finding(LOW, "code", "sudo")
    assert assess([secret], redacted=[secret.id]).intent == pytest.approx(0.45)
    assert assess([secret, person], redacted=[secret.id, person.id]).intent == pytest.approx(0.45 + 0.175)
    assert assess([code], redacted=[code.id]).intent == pytest.approx(0.15)


@given(st.lists(st.tuples(st.sampled_from(list(Severity)), st.sampled_from([*GROUPS, "aws"])), max_size=20))
def test_more_findings_never_lower_the_number(pairs):
    findings = [finding(severity, "code" if rule in GROUPS else "secrets", rule) for severity, rule in pairs]
    numbers = [assess(findings[:count]).intent for count in range(len(findings) + 1)]
    assert numbers == sorted(numbers)
    assert all(0.0 <= number <= 1.0 for number in numbers)
