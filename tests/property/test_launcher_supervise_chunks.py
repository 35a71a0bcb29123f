"""However a command's bytes are cut into chunks, the ending is the same."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from kavach.launcher.supervise import Counters, Ended, Supervision, judge_ending


def cut(content, places):
    edges = sorted({0, len(content), *(place % (len(content) + 1) for place in places)})
    return [content[low:high] for low, high in itertools.pairwise(edges)]


def feed(out, err, cap, *, kill):
    run = Supervision(started_s=0.0, timeout_s=60.0, output_bytes=cap, kill_on_output=kill)
    seen = {False: b"", True: b""}
    kills = 0
    for error, chunks in ((False, out), (True, err)):
        for chunk in chunks:
            kept, now = run.output(error=error, chunk=chunk, now_s=1.0)
            seen[error] += kept
            kills += now
    run.finish(Ended(9 if kills else 0, 0, 0, 0))
    return run, seen, kills


@given(
    st.binary(max_size=64),
    st.binary(max_size=64),
    st.one_of(st.none(), st.integers(0, 70)),
    st.booleans(),
    st.lists(st.integers(0, 99)),
    st.lists(st.integers(0, 99)),
)
def test_chunks_do_not_change_the_ending(out, err, cap, kill, places, others):
    whole, seen_whole, kills_whole = feed([out], [err], cap, kill=kill)
    parts, seen_parts, kills_parts = feed(cut(out, places), cut(err, others), cap, kill=kill)
    assert judge_ending(whole, Counters()) == judge_ending(parts, Counters())
    assert kills_whole == kills_parts <= 1
    assert seen_whole == seen_parts
    for one, two, content in ((whole.stdout, parts.stdout, out), (whole.stderr, parts.stderr, err)):
        assert one.content() == two.content() == (content if cap is None else content[:cap])
        assert one.total == two.total == len(content)
        assert one.dropped == two.dropped == len(content) - len(one.content())


EVENTS = st.one_of(
    st.tuples(st.just("output"), st.binary(max_size=8)),
    st.tuples(st.sampled_from(["tick", "lose", "finish", "fail", "full", "free"]), st.just(b"")),
)


@given(st.lists(st.tuples(st.floats(0, 2), EVENTS), max_size=30))
def test_whatever_happens_a_command_is_killed_once_and_ends_once(events):
    run = Supervision(started_s=0.0, timeout_s=5.0, output_bytes=16, kill_on_output=True)
    now, kills, endings = 0.0, 0, set()
    for pause, (what, chunk) in events:
        now += pause
        match what:
            case "output":
                kills += run.output(error=False, chunk=chunk, now_s=now)[1]
            case "tick":
                kills += run.tick(now)
            case "lose":
                run.lose()
            case "finish":
                run.finish(Ended(0, 0, 0, 0))
            case "fail":
                run.fail_to_start("execve", 2)
            case _:
                kills += run.at_process_limit(full=what == "full", now_s=now)
        assert (kills == 1) == (run.cause is not None)
        if run.is_over:
            endings.add((run.ended, run.not_started, run.lost))
    assert kills <= 1
    assert len(endings) <= 1
