"""What the integrity monitor makes of what it sees, and when it looks."""

from __future__ import annotations

import threading

import pytest

from kavach import ConfigError, LifecycleError, Withheld
from kavach.gate.inspection import Inspected, Member, Subject
from kavach.gate.integrity import Failure, IntegrityMonitor, IntegrityPolicy, judge_integrity, try_to_read
from kavach.model.validate import check

SUBJECT = Subject(
    "sb-1", 100, frozenset({"pid", "net"}), needs_filter=True, needs_no_new_privs=True, groups=("/cg/sb-1",)
)
ROW = (b"/tmp", b"rw,nosuid", b"tmpfs", b"kavach")


def member(**fields):
    made = {"pid": 101, "start_time": 5, "is_inside": True, "missing_groups": (), "has_filter": True}
    return Member(**{**made, "has_no_new_privs": True, "shared": frozenset(), "name": "sh", **fields})


def seen(*members, mounts=(ROW,), setuid=(), readable=(), unknown=()):
    return Inspected(
        members,
        None if mounts is None else frozenset(mounts),
        frozenset(setuid),
        frozenset(readable),
        tuple(unknown),
    )


def checks(before, now, subject=SUBJECT):
    return [failure.check for failure in judge_integrity(subject, before, now)]


def test_a_sandbox_as_it_was_is_no_failure():
    assert checks(seen(member(), setuid=("/tmp/old",)), seen(member(), member(pid=102), setuid=("/tmp/old",))) == []


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"has_filter": False}, ["seccomp"]),
        ({"has_no_new_privs": False}, ["no_new_privs"]),
        ({"is_inside": False}, ["stranger"]),
        ({"missing_groups": ("/cg/sb-1",)}, ["cgroup"]),
        ({"shared": frozenset({"net"})}, ["namespaces"]),
        ({"shared": None}, []),
        ({"is_inside": False, "has_filter": False, "missing_groups": ("/cg/other",)}, ["stranger", "seccomp"]),
    ],
)
def test_a_process_that_is_not_as_promised_is_named(fields, expected):
    assert checks(seen(), seen(member(**fields))) == expected
    for failure in judge_integrity(SUBJECT, seen(), seen(member(**fields))):
        assert "process 101 (sh)" in failure.detail


def test_what_the_policy_did_not_ask_for_is_no_failure():
    lax = SUBJECT._replace(needs_filter=False, needs_no_new_privs=False)
    assert checks(seen(), seen(member(has_filter=False, has_no_new_privs=False)), lax) == []


def test_new_changed_and_vanished_mounts_are_named():
    other = (b"/usr", b"rw", b"ext4", b"/dev/x")
    assert judge_integrity(SUBJECT, seen(), seen(mounts=(ROW, other))) == (Failure("mounts", "changed or new: /usr"),)
    assert judge_integrity(SUBJECT, seen(mounts=(ROW, other)), seen()) == (Failure("mounts", "changed or gone: /usr"),)
    changed = (ROW[0], b"rw", *ROW[2:])
    assert len(judge_integrity(SUBJECT, seen(), seen(mounts=(changed,)))) == 2
    assert checks(seen(), seen(mounts=None)) == []


def test_only_new_setuid_files_and_every_readable_secret_are_named():
    before, now = (
        seen(setuid=("/tmp/a",), readable=("/etc/shadow",)),
        seen(setuid=("/tmp/a", "/tmp/b"), readable=("/x",)),
    )
    assert judge_integrity(SUBJECT, before, now) == (
        Failure("setuid", "new: /tmp/b"),
        Failure("sensitive", "can be read: /x"),
    )


class Looks:
    """Answers looks from a script; the last answer stays."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.count = 0

    def __call__(self, subject, host_inodes):
        self.count += 1
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def watched(looks, *, interval_s=60.0):
    monitor = IntegrityMonitor(clock=lambda: 1000.0, inspect=looks, in_background=False)
    told = []
    monitor.watch(SUBJECT, IntegrityPolicy(interval_s=interval_s), told.append)
    return monitor, told


def test_a_sandbox_is_looked_at_at_once_and_then_when_its_interval_is_over():
    looks = Looks(seen(member()))
    monitor, told = watched(looks)
    for now_s, count in ((1000.0, 1), (1059.9, 1), (1060.0, 2), (1119.0, 2), (1120.5, 3)):
        monitor.tick(now_s)
        assert looks.count == count
    assert told == []


def test_what_fails_at_the_first_look_is_told_at_once():
    _, told = watched(Looks(seen(member(has_filter=False))))
    assert [failure.check for (failure,) in told] == ["seccomp"]


def test_a_failure_is_seen_twice_before_it_is_told_and_told_once():
    bad = seen(member(has_filter=False))
    monitor, told = watched(Looks(seen(member()), bad))
    for now_s in (1060.0, 1120.0, 1180.0):
        monitor.tick(now_s)
    assert [failure.check for (failure,) in told] == ["seccomp"]


def test_a_process_that_ends_between_two_reads_is_no_failure():
    bad = seen(member(has_filter=False))
    monitor, told = watched(Looks(seen(member()), bad, seen(member())))
    monitor.tick(1060.0)
    assert told == []


def test_a_failure_that_comes_again_is_told_again():
    good, bad = seen(member()), seen(member(has_filter=False))
    monitor, told = watched(Looks(good, bad, bad, good, bad, bad))
    for now_s in (1060.0, 1120.0, 1180.0):
        monitor.tick(now_s)
    assert len(told) == 2


def test_a_sandbox_that_has_gone_is_forgotten():
    looks = Looks(seen(member()), None)
    monitor, _ = watched(looks)
    monitor.tick(1060.0)
    monitor.tick(1120.0)
    assert looks.count == 2
    monitor, _ = watched(looks := Looks(None))
    monitor.tick(1060.0)
    assert looks.count == 1


def test_a_forgotten_sandbox_is_looked_at_no_more():
    looks = Looks(seen(member()))
    monitor, _ = watched(looks)
    monitor.forget("sb-1")
    monitor.tick(2000.0)
    assert looks.count == 1


def test_a_report_that_raises_or_forgets_stops_nothing():
    bad, other = seen(member(has_filter=False)), SUBJECT._replace(sandbox_id="sb-2")
    monitor = IntegrityMonitor(clock=lambda: 0.0, inspect=Looks(seen(), seen(), bad), in_background=False)
    told = []

    def fail(failures):
        monitor.forget("sb-1")
        raise ValueError("mine")

    monitor.watch(SUBJECT, IntegrityPolicy(interval_s=1), fail)
    monitor.watch(other, IntegrityPolicy(interval_s=1), told.append)
    monitor.tick(1.0)
    assert len(told) == 1


def test_what_could_not_be_looked_at_can_be_asked_for():
    monitor, _ = watched(Looks(seen(unknown=("mounts",))))
    assert monitor.unknown("sb-1") == ("mounts",)
    assert monitor.unknown("sb-9") == ()


def test_the_background_thread_looks_and_ends_with_the_last_sandbox():
    looked = threading.Event()

    def look(subject, host_inodes):
        looked.set()
        return seen(member())

    monitor = IntegrityMonitor(inspect=look)
    monitor.watch(SUBJECT, IntegrityPolicy(interval_s=0.1), print)
    looked.clear()
    assert looked.wait(10)
    thread = monitor._thread
    monitor.forget("sb-1")
    thread.join(10)
    assert not thread.is_alive()
    monitor.watch(SUBJECT, IntegrityPolicy(interval_s=0.1), print)
    assert monitor._thread.is_alive()
    monitor.forget("sb-1")


@pytest.mark.parametrize(
    ("key", "value"), [("interval_s", 0), ("interval_s", "60"), ("action", "stop"), ("sensitive_paths", ("a", 1))]
)
def test_a_policy_that_cannot_be_is_refused(key, value):
    with pytest.raises(ConfigError) as caught:
        check(IntegrityPolicy(**{key: value}))
    assert caught.value.key.startswith(f"$.{key}")


def raising(error):
    def act(path):
        raise error

    return act


def test_a_path_counts_as_readable_as_folder_as_file_or_when_the_gate_has_read_it():
    no = raising(LifecycleError("no"))
    assert try_to_read(lambda path: [], no, "/x")
    assert try_to_read(no, lambda path: b"", "/x")
    assert try_to_read(no, raising(Withheld("held")), "/x")
    assert not try_to_read(no, no, "/x")
