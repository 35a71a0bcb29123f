"""Results: what is released, what never is, and how an ending reads."""

from __future__ import annotations

import json

import pytest

from kavach.errors import BackendError, InternalError, KavachError, Withheld
from kavach.model.enforcement import Enforcement
from kavach.model.health import Health, Metrics
from kavach.model.result import Denial, EndReason, ExecResult, RawResult, Usage
from kavach.model.score import StrengthScore
from kavach.model.validate import check
from kavach.model.verdict import ExternalizationPolicy, Finding, Severity, Verdict

FINDING = Finding(
    id="f1",
    scanner="secrets",
    rule="api_key",
    category="secret",
    severity=Severity.CRITICAL,
    message="an API key",
    stream="stdout",
    start=0,
    end=20,
    evidence="api_key, 20 bytes",
)


def result(reason=EndReason.EXIT, **values):
    values.setdefault("verdict", Verdict.PASS)
    return ExecResult(
        sandbox_id="s1", reason=reason, score=StrengthScore(60), requested_score=StrengthScore(69), **values
    )


def withheld():
    return result(EndReason.WITHHELD, exit_code=0, verdict=Verdict.QUARANTINE, findings=(FINDING,), quarantine_id="q1")


def test_a_command_is_ok_only_if_it_ended_itself_with_zero_and_was_released():
    assert result(exit_code=0).ok
    assert not result(exit_code=1).ok
    assert not result(exit_code=None).ok
    for reason in EndReason:
        if reason is not EndReason.EXIT:
            assert not result(reason, exit_code=0).ok


def test_timed_out_is_true_for_a_neighbours_deadline_too():
    assert [reason for reason in EndReason if result(reason).timed_out] == ["timeout", "timeout_sibling"]


def test_text_replaces_what_is_no_utf8_and_bytes_are_exact():
    done = result(exit_code=0, stdout_bytes=b"a\xffb", stderr_bytes="ä".encode())
    assert (done.stdout, done.stderr) == ("a\ufffdb", "ä")
    assert done.stdout_bytes == b"a\xffb"


@pytest.mark.parametrize(
    ("reason", "verdict"),
    [
        (EndReason.WITHHELD, Verdict.BLOCK),
        (EndReason.WITHHELD, Verdict.PASS),
        (EndReason.EXIT, Verdict.QUARANTINE),
        (EndReason.EXIT, Verdict.BLOCK),
    ],
)
@pytest.mark.parametrize("stream", ["stdout_bytes", "stderr_bytes"])
def test_a_withheld_result_cannot_be_made_with_bytes_in_it(reason, verdict, stream):
    with pytest.raises(InternalError):
        result(reason, verdict=verdict, **{stream: b"x"})
    result(reason, verdict=verdict)


def test_success_is_returned_so_that_calls_chain():
    done = result(exit_code=0)
    assert done.raise_for_status() is done


def test_a_withheld_output_raises_what_the_gate_said():
    with pytest.raises(Withheld, match="q1") as caught:
        withheld().raise_for_status()
    assert caught.value.verdict == "quarantine"
    assert caught.value.findings == (FINDING,)
    assert caught.value.quarantine_id == "q1"


@pytest.mark.parametrize(
    ("done", "words"),
    [
        (result(exit_code=3), "exited with code 3"),
        (result(EndReason.SIGNAL, signal=9), "signal 9"),
        (result(EndReason.TIMEOUT), "timeout"),
        (result(EndReason.NOT_RUN, exit_code=0, verdict=Verdict.NOT_SCANNED), "was not run"),
    ],
)
def test_a_failure_says_how_it_ended_without_output(done, words):
    with pytest.raises(KavachError, match=words):
        done.raise_for_status()


def test_a_lost_wall_is_the_walls_error():
    with pytest.raises(BackendError):
        result(EndReason.BACKEND_LOST).raise_for_status()


def test_json_has_a_version_and_every_field():
    done = result(
        exit_code=0,
        stdout_bytes=b"\xff",
        stderr_bytes=b"text",
        enforcement=Enforcement.of("process", ()),
        findings=(FINDING,),
        usage=Usage(cpu_time_ms=1.5),
        denials=(Denial(what="open", target="/x", rule="filesystem", change="read=['/x']", sentence="No."),),
    )
    plain = json.loads(done.to_json())
    assert plain["schema"] == "kavach.result/1"
    assert set(ExecResult.__struct_fields__) - {"stdout_bytes", "stderr_bytes"} <= set(plain)
    assert (plain["stdout"], plain["stdout_base64"]) == ("\ufffd", "/w==")
    assert (plain["stderr"], plain["stderr_base64"]) == ("text", None)
    assert plain["score"]["value"] == 60
    assert plain["requested_score"]["label"] == "standard"
    assert plain["usage"]["memory_peak_bytes"] is None
    assert plain["limits_hit"] is None
    assert plain["ok"] is True


def test_untrusted_bytes_are_in_no_repr():
    raw = RawResult(reason=EndReason.EXIT, exit_code=0, stdout=b"hunter2", stderr=b"hunter2")
    assert "hunter2" not in repr(raw)
    assert "hunter2" not in f"{raw}"
    assert "7 bytes" in repr(raw)
    check(raw)


def test_released_nouns_pass_their_own_check():
    check(result(exit_code=0))
    check(Health(ok=True, state="running", checked_utc="2026-01-01T00:00:00Z", duration_ms=1.0))
    check(Metrics(uptime_ms=1.0))


ORDER = [Verdict.PASS, Verdict.WARN, Verdict.QUARANTINE, Verdict.BLOCK]


def test_verdicts_are_ordered():
    for i, a in enumerate(ORDER):
        for j, b in enumerate(ORDER):
            assert (a < b, a <= b, a > b, a >= b) == (i < j, i <= j, i > j, i >= j)


def test_not_scanned_compares_with_nothing():
    for other in Verdict:
        for a, b in ((Verdict.NOT_SCANNED, other), (other, Verdict.NOT_SCANNED)):
            assert [a < b, a <= b, a > b, a >= b] == [False] * 4
    assert Verdict.NOT_SCANNED == "not_scanned"


def test_severities_are_ordered_by_how_bad_they_are_and_not_by_their_letters():
    order = [Severity.INFO, Severity.LOW, Severity.MEDIUM, Severity.HIGH, Severity.CRITICAL]
    assert sorted(set(order)) == order == list(Severity)
    for i, a in enumerate(order):
        for j, b in enumerate(order):
            assert (a < b, a <= b, a > b, a >= b) == (i < j, i <= j, i > j, i >= j)
    assert max(Severity.INFO, Severity.CRITICAL) is Severity.CRITICAL


def test_a_severity_is_not_compared_with_a_text_by_letters():
    for compare in (
        lambda: Severity.HIGH < "low",
        lambda: Severity.HIGH > "low",
        lambda: Verdict.WARN >= "pass",
    ):
        with pytest.raises(TypeError):
            compare()
    assert Severity.HIGH == "high"


def test_released_verdicts_are_pass_warn_and_not_scanned():
    assert [verdict for verdict in Verdict if verdict.is_released] == ["pass", "warn", "not_scanned"]


def test_the_gates_default_follows_the_preset():
    assert not ExternalizationPolicy.for_preset("minimal").enabled
    assert ExternalizationPolicy.for_preset("basic") == ExternalizationPolicy.redact() == ExternalizationPolicy()
    strict = ExternalizationPolicy.for_preset("strict")
    assert (strict.mode, strict.block_threshold, strict.quarantine_threshold) == (
        "enforce",
        "critical",
        "high",
    )
    for policy in (ExternalizationPolicy.off(), ExternalizationPolicy(), strict):
        check(policy)


@pytest.mark.parametrize(
    "values",
    [
        {"enabled": "false"},
        {"mode": "strict"},
        {"block_threshold": "critical"},
        {"block_threshold": Severity.LOW, "quarantine_threshold": Severity.HIGH},
        {"secrets": "on"},
        {"max_artifact_size_bytes": -1},
    ],
)
def test_a_gate_policy_that_says_nothing_clear_is_refused(values):
    with pytest.raises(KavachError):
        check(ExternalizationPolicy(**values))
