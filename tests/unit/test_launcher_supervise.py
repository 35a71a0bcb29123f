"""The course of one command and the one ending it gets."""

from __future__ import annotations

import signal

import pytest

from kavach.launcher.supervise import KILL_GRACE_S, PIDS_PATIENCE_S, Counters, Ended, Stream, Supervision, judge_ending
from kavach.model.result import EndReason

OK, FAILED, KILLED = Ended(0, 1, 2, 3), Ended(3 << 8, 1, 2, 3), Ended(signal.SIGKILL, 1, 2, 3)


def course(*, timeout_s=None, output_bytes=None, kill_on_output=False):
    return Supervision(started_s=100.0, timeout_s=timeout_s, output_bytes=output_bytes, kill_on_output=kill_on_output)


def test_stream_keeps_its_first_bytes_and_counts_the_rest():
    stream = Stream(5)
    assert [stream.take(part) for part in (b"abc", b"def", b"ghi")] == [b"abc", b"de", b""]
    assert (stream.content(), stream.total, stream.dropped, stream.truncated) == (b"abcde", 9, 4, True)


def test_stream_that_is_exactly_full_is_not_truncated():
    stream = Stream(3)
    stream.take(b"abc")
    assert not stream.truncated


def test_stream_without_a_cap_keeps_everything():
    stream = Stream(None)
    stream.take(b"abc")
    assert (stream.content(), stream.dropped) == (b"abc", 0)


def test_caps_of_the_two_streams_are_apart():
    run = course(output_bytes=2)
    run.output(error=False, chunk=b"abc", now_s=100)
    assert run.output(error=True, chunk=b"xy", now_s=100) == (b"xy", False)


def test_output_beyond_the_cap_kills_once_where_that_was_asked_for():
    run = course(output_bytes=2, kill_on_output=True)
    assert run.output(error=False, chunk=b"ab", now_s=100) == (b"ab", False)
    assert run.output(error=False, chunk=b"c", now_s=101) == (b"", True)
    assert run.output(error=True, chunk=b"xyz", now_s=102) == (b"xy", False)
    assert run.cause is EndReason.OUTPUT_LIMIT


def test_output_beyond_the_cap_is_dropped_where_it_was_not():
    run = course(output_bytes=2)
    assert run.output(error=False, chunk=b"abc", now_s=100) == (b"ab", False)
    assert run.cause is None


@pytest.mark.parametrize(("now_s", "kills"), [(100, False), (101.999, False), (102, True), (1000, True)])
def test_deadline_kills_at_its_time_and_not_before(now_s, kills):
    assert course(timeout_s=2).tick(now_s) is kills


def test_deadline_kills_once_and_never_after_the_end():
    run = course(timeout_s=2)
    assert [run.tick(103), run.tick(104)] == [True, False]
    ended = course(timeout_s=2)
    ended.finish(OK)
    assert ended.tick(103) is False
    assert ended.cause is None


def test_no_deadline_never_kills_and_waits_for_ever():
    assert course().tick(1e9) is False
    assert course().wait_s(100) is None


def test_wait_ends_at_the_deadline_and_after_a_kill_at_the_end_of_patience():
    run = course(timeout_s=2)
    assert run.wait_s(100.5) == 1.5
    assert run.wait_s(105) == 0.0
    run.tick(102)
    assert run.wait_s(102) == KILL_GRACE_S
    assert run.wait_s(200) == 0.0


def test_command_that_survives_its_kill_is_stuck_only_after_the_grace():
    run = course(timeout_s=2)
    assert not run.is_stuck(1000)
    run.tick(102)
    assert not run.is_stuck(102 + KILL_GRACE_S - 0.001)
    assert run.is_stuck(102 + KILL_GRACE_S)
    run.finish(KILLED)
    assert not run.is_stuck(1000)


def test_process_limit_ends_a_command_that_stays_at_it():
    run = course()
    assert run.at_process_limit(full=True, now_s=100) is False
    assert run.at_process_limit(full=True, now_s=100 + PIDS_PATIENCE_S) is True
    assert run.cause is EndReason.PIDS


def test_process_limit_that_is_left_again_starts_anew():
    run = course()
    run.at_process_limit(full=True, now_s=100)
    run.at_process_limit(full=False, now_s=100.9)
    assert run.at_process_limit(full=True, now_s=101.1) is False
    assert run.at_process_limit(full=True, now_s=101.9) is False
    assert run.cause is None


def test_first_cause_stays_the_cause():
    run = course(timeout_s=1, output_bytes=0, kill_on_output=True)
    assert run.end_by(EndReason.POLICY_KILL, 100.5) is True
    assert run.tick(102) is False
    assert run.output(error=False, chunk=b"x", now_s=103) == (b"", False)
    assert run.end_by(EndReason.OOM, 104) is False
    assert run.cause is EndReason.POLICY_KILL


@pytest.mark.parametrize("first", ["finish", "fail_to_start", "lose"])
def test_first_ending_stays_the_ending(first):
    events = {
        "finish": lambda run: run.finish(OK),
        "fail_to_start": lambda run: run.fail_to_start("execve", 2),
        "lose": lambda run: run.lose(),
    }
    run = course()
    assert not run.is_over
    events[first](run)
    seen = (run.ended, run.not_started, run.lost)
    assert run.is_over
    assert sum(map(bool, seen)) == 1
    for event in events.values():
        event(run)
    run.finish(FAILED)
    assert (run.ended, run.not_started, run.lost) == seen


# cause of ours, what init reported (None: lost), counters -> reason, code, signal, limits hit
ENDINGS = [
    (None, OK, Counters(), EndReason.EXIT, 0, None, None),
    (None, FAILED, Counters(), EndReason.EXIT, 3, None, None),
    (None, KILLED, Counters(), EndReason.SIGNAL, None, 9, None),
    (None, None, Counters(), EndReason.BACKEND_LOST, None, None, None),
    (None, None, Counters(oom=1), EndReason.BACKEND_LOST, None, None, ("oom",)),
    (None, OK, Counters(oom=0, pids=0), EndReason.EXIT, 0, None, ()),
    (None, OK, Counters(oom=1, pids=2), EndReason.EXIT, 0, None, ("oom", "pids")),
    (None, FAILED, Counters(oom=1, pids=1, disk_full=True), EndReason.OOM, 3, None, ("oom", "pids", "disk")),
    (None, KILLED, Counters(oom=1), EndReason.OOM, None, 9, ("oom",)),
    (None, FAILED, Counters(pids=1, disk_full=True), EndReason.PIDS, 3, None, ("pids", "disk")),
    (None, FAILED, Counters(disk_full=True), EndReason.DISK, 3, None, ("disk",)),
    (None, OK, Counters(disk_full=True), EndReason.EXIT, 0, None, ("disk",)),
    (EndReason.TIMEOUT, KILLED, Counters(), EndReason.TIMEOUT, None, 9, ("timeout",)),
    (EndReason.TIMEOUT, OK, Counters(), EndReason.TIMEOUT, 0, None, ("timeout",)),
    (EndReason.TIMEOUT, None, Counters(), EndReason.TIMEOUT, None, None, ("timeout",)),
    (EndReason.TIMEOUT, KILLED, Counters(oom=1), EndReason.TIMEOUT, None, 9, ("oom", "timeout")),
    (EndReason.OUTPUT_LIMIT, KILLED, Counters(oom=0), EndReason.OUTPUT_LIMIT, None, 9, ("output_limit",)),
    (EndReason.OOM, KILLED, Counters(), EndReason.OOM, None, 9, ("oom",)),
    (EndReason.PIDS, KILLED, Counters(), EndReason.PIDS, None, 9, ("pids",)),
    (EndReason.POLICY_KILL, KILLED, Counters(), EndReason.POLICY_KILL, None, 9, ()),
]


@pytest.mark.parametrize(("cause", "report", "counters", "reason", "code", "number", "hit"), ENDINGS)
def test_ending_names_the_first_thing_that_ended_the_command(cause, report, counters, reason, code, number, hit):
    run = course()
    if cause is not None:
        run.end_by(cause, 101)
    if report is None:
        run.lose()
    else:
        run.finish(report)
    assert judge_ending(run, counters) == (reason, code, number, hit)
