"""Raw results become results: released, redacted or withheld."""

from __future__ import annotations

import json
import threading

import pytest

from gate_texts import CLOUD_KEY, KEY_BLOCK, SCANNERS
from kavach.gate import guarded
from kavach.gate.known import KnownSecret
from kavach.gate.release import release, release_bytes
from kavach.model.result import EndReason, ExecResult, RawResult
from kavach.model.score import StrengthScore
from kavach.model.verdict import ExternalizationPolicy, Verdict

SALT = b"s" * 16


def released(
    stdout: bytes, stderr: bytes = b"", policy: ExternalizationPolicy | None = None, **more: object
) -> ExecResult:
    scanners = more.pop("scanners", SCANNERS)
    known = more.pop("known", ())
    raw = RawResult(reason=EndReason.EXIT, exit_code=0, stdout=stdout, stderr=stderr, **more)  # type: ignore[arg-type]
    return release(
        raw,
        sandbox_id="sb",
        score=StrengthScore(1),
        requested=StrengthScore(2),
        policy=ExternalizationPolicy.redact() if policy is None else policy,
        known=known,  # type: ignore[arg-type]
        scanners=scanners,  # type: ignore[arg-type]
        salt=SALT,
    )


def test_clean_output_passes_unchanged() -> None:
    result = released(b"hello\n", b"a warning\n")
    assert (result.stdout_bytes, result.stderr_bytes, result.verdict) == (b"hello\n", b"a warning\n", Verdict.PASS)
    assert result.findings == ()
    assert result.ok


def test_a_key_is_replaced_and_reported_masked() -> None:
    result = released(b"key " + CLOUD_KEY + b"\n", KEY_BLOCK)
    assert result.stdout_bytes == b"key [REDACTED:cloud-key]\n"
    assert result.stderr_bytes.startswith(b"[REDACTED:key-block]")
    assert b"QUJD" not in result.stderr_bytes
    assert [(one.stream, one.rule) for one in result.findings] == [("stdout", "cloud-key"), ("stderr", "key-block")]
    assert result.verdict is Verdict.WARN
    assert CLOUD_KEY.decode() not in json.dumps(result.to_dict())


def test_an_injected_secret_is_replaced_by_its_name() -> None:
    result = released(b"it is s3cr3t-value.", known=[KnownSecret("DB_PASS", b"s3cr3t-value")])
    assert result.stdout == "it is [REDACTED:db_pass]."


def test_one_stream_that_withholds_takes_the_other_along() -> None:
    result = released(b"fine\n", KEY_BLOCK, ExternalizationPolicy.enforce())
    assert (result.stdout_bytes, result.stderr_bytes) == (b"", b"")
    assert (result.reason, result.verdict, result.exit_code) == (EndReason.WITHHELD, Verdict.BLOCK, 0)
    assert result.findings


def test_a_key_split_over_both_streams_is_replaced_in_both() -> None:
    for at in range(1, len(CLOUD_KEY)):
        result = released(b"a\n" + CLOUD_KEY[:at] + b"\n", CLOUD_KEY[at:] + b"\nb\n")
        assert result.stdout_bytes == b"a\n[REDACTED:cloud-key]\n", at
        assert result.stderr_bytes == b"[REDACTED:cloud-key]\nb\n", at


def test_of_a_cut_output_the_tail_that_may_begin_a_find_stays_behind() -> None:
    result = released(b"text " + CLOUD_KEY[:15], stdout_dropped_bytes=5)
    assert result.stdout_bytes == b"text [REDACTED:cut-off]"
    assert result.truncated_stdout
    whole = released(b"text " + CLOUD_KEY, b"", ExternalizationPolicy.enforce(), stdout_dropped_bytes=1)
    assert whole.verdict is Verdict.QUARANTINE


def test_a_policy_that_is_off_says_that_nothing_was_scanned() -> None:
    result = released(CLOUD_KEY, policy=ExternalizationPolicy.off())
    assert (result.stdout_bytes, result.verdict, result.findings) == (CLOUD_KEY, Verdict.NOT_SCANNED, ())


class _Failing:
    name = "secrets"
    rules = SCANNERS[0].rules

    def __init__(self, act: object) -> None:
        self._act = act

    def inspect(self, text: bytes, marks: object) -> object:
        return self._act(text)  # type: ignore[operator]


@pytest.mark.parametrize("error", [ValueError, MemoryError, RecursionError, SystemExit, KeyboardInterrupt])
def test_a_scanner_that_raises_withholds_and_says_so(error: type[BaseException]) -> None:
    def act(text: bytes) -> object:
        raise error("about " + text.decode())

    result = released(b"key " + CLOUD_KEY, scanners=(_Failing(act),))
    assert (result.reason, result.verdict, result.stdout_bytes) == (EndReason.WITHHELD, Verdict.QUARANTINE, b"")
    assert [one.rule for one in result.findings] == ["scanner-failed"]
    assert error.__name__ in result.findings[0].message
    assert CLOUD_KEY.decode() not in result.to_json()


def test_a_scanner_that_hangs_withholds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guarded, "LEAST_S", 0.05)
    never = threading.Event()
    result = released(b"key " + CLOUD_KEY, scanners=(_Failing(lambda _: never.wait(30) and ()),))
    never.set()
    assert (result.reason, result.stdout_bytes) == (EndReason.WITHHELD, b"")
    assert "in time" in result.findings[0].message


def test_a_longer_text_has_more_time() -> None:
    assert guarded.deadline_s(50 << 20) > guarded.deadline_s(0) + 50


def test_what_is_released_holds_nothing_that_would_be_redacted() -> None:
    inner = b"password=hunter2hunter2"
    again = released(released(inner + b" joe@some.org " + CLOUD_KEY).stdout_bytes)
    assert b"hunter2" not in again.stdout_bytes
    assert again.stdout_bytes.count(b"[REDACTED:") == 3


def test_a_file_is_judged_like_a_stream() -> None:
    judged = release_bytes(
        b"k " + CLOUD_KEY, name="a.txt", policy=ExternalizationPolicy.redact(), scanners=SCANNERS, salt=SALT
    )
    assert judged.released == b"k [REDACTED:cloud-key]"
    assert judged.findings[0].stream == "a.txt"
