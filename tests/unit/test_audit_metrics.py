"""The counts of a process, and the times of a command's steps."""

from __future__ import annotations

import sys
import threading

import pytest

from kavach.audit.metrics import BUCKETS_S, STEPS, Counters, StepClock
from kavach.model.result import Denial, EndReason, ExecResult
from kavach.model.score import StrengthScore
from kavach.model.verdict import Verdict


def result(**fields):
    made = {"sandbox_id": "sb-1", "reason": EndReason.EXIT, "exit_code": 0, "verdict": Verdict.PASS}
    return ExecResult(**{**made, "score": StrengthScore(1), "requested_score": StrengthScore(1), **fields})


def times(*marks_ns):
    clock = StepClock(clock_ns=iter([0, *marks_ns]).__next__, time_ns=lambda: 0)
    for step in STEPS[: len(marks_ns) - 1]:
        clock.enter(step)
    return clock.finish()


def test_steps_follow_one_another_without_a_gap():
    found = times(0, 10, 30, 60)
    assert found.rows == (("intent", 0, 10), ("guard", 10, 30), ("wall", 30, 60))
    assert found.total_ns == 60


def test_a_command_without_steps_took_no_time():
    assert StepClock().finish().rows == ()
    assert StepClock().finish().total_ns == 0


def test_a_sandbox_is_counted_in_one_state_at_a_time():
    counters = Counters()
    counters.move(None, "created")
    counters.move("created", "running")
    counters.move(None, "created")
    counters.move("running", "destroyed")
    assert counters.snapshot().sandboxes == {"created": 1, "running": 0, "destroyed": 1}


def test_an_ended_command_is_counted_by_reason_verdict_limits_and_denials():
    counters = Counters()
    denial = Denial(what="open", target="/x", rule="filesystem: deny /x", change="", sentence="")
    counters.end(result(denials=(denial, denial), limits_hit=("oom",)))
    counters.end(result(reason=EndReason.TIMEOUT, exit_code=None, verdict=Verdict.NOT_SCANNED))
    found = counters.snapshot()
    assert found.commands == {"exit": 1, "timeout": 1}
    assert found.verdicts == {"pass": 1, "not_scanned": 1}
    assert found.denials == {"filesystem": 2}
    assert found.limits == {"oom": 1}


def test_pools_and_orphans_are_counted():
    counters = Counters()
    for hit in (True, True, False):
        counters.claim(hit=hit)
    counters.sweep(3)
    found = counters.snapshot()
    assert (found.pool_hits, found.pool_misses, found.orphans_swept) == (2, 1, 3)


@pytest.mark.parametrize(
    ("spent_ns", "bucket"), [(0, 0), (100_000, 0), (100_001, 1), (2_000_000, 3), (10**12, len(BUCKETS_S))]
)
def test_a_time_falls_into_the_first_bucket_that_is_not_below_it(spent_ns, bucket):
    counters = Counters()
    counters.end(result(), times(0, spent_ns))
    for step in ("intent", "total"):
        found = counters.snapshot().steps[step]
        assert [at for at, count in enumerate(found.counts) if count] == [bucket]
        assert found.total == 1
        assert found.sum_s == pytest.approx(spent_ns / 1e9)


def test_a_snapshot_does_not_change_with_the_counts():
    counters = Counters()
    counters.end(result(), times(0, 5))
    before = counters.snapshot()
    counters.end(result(), times(0, 5))
    assert before.commands == {"exit": 1}
    assert before.steps["intent"].total == 1


def test_no_count_is_lost_among_threads():
    counters, before = Counters(), sys.getswitchinterval()
    workers = [threading.Thread(target=lambda: [counters.move("a", "b") for _ in range(2000)]) for _ in range(4)]
    sys.setswitchinterval(1e-6)  # threads take turns as often as they can
    try:
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    finally:
        sys.setswitchinterval(before)
    assert counters.snapshot().sandboxes == {"a": -8000, "b": 8000}
