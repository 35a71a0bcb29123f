"""One command's descriptors: what is taken in, when it is killed, and that nothing of a hostile message is believed."""

from __future__ import annotations

import os
import socket

import pytest

from kavach.launcher import wire
from kavach.launcher.execution import SAMPLE_S, Execution
from kavach.launcher.prepared import Prepared
from kavach.launcher.supervise import KILL_GRACE_S, Ended, Supervision
from kavach.model.result import EndReason

ENDED = (b"ended", 3 << 8, 10, 20, 4096)


class Scene:
    """The other ends: the pipes a command writes to, the channel init reports on, and what was asked to be killed."""

    def __init__(self, *, sample=None, **course):
        given = {"started_s": 100.0, "timeout_s": None, "output_bytes": None, "kill_on_output": False} | course
        self.course = Supervision(**given)
        self.readers, self.stdout, self.stderr = [], -1, -1
        (out, self.stdout), (err, self.stderr) = self._pipe(), self._pipe()
        mine, self.init = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        mine.setblocking(False)
        self.prepared = Prepared(mine)
        self.killed, self.given_up, self.chunks = [], [], []
        self.run = Execution(
            self.prepared,
            self.course,
            out,
            err,
            kill=lambda: self.killed.append(1),
            give_up=lambda: self.given_up.append(1),
            sample=sample,
            on_chunk=lambda is_error, chunk: self.chunks.append((is_error, chunk)),
        )

    def _pipe(self):
        reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.readers.append(reader)
        return reader, writer

    def hear(self, now_s=101.0):
        self.run.ready(self.prepared.channel.fileno(), now_s)

    def send(self, *messages, descriptors=()):
        for message in messages:
            wire.send(self.init, message, descriptors)

    def close(self):
        self.run.close()
        self.init.close()
        for handle in (self.stdout, self.stderr):
            if handle >= 0:
                os.close(handle)


@pytest.fixture
def scene(request):
    made = Scene(**getattr(request, "param", {}))
    yield made
    made.close()


def is_open(handle):
    try:
        os.fstat(handle)
    except OSError:
        return False
    return True


def test_chunks_are_told_apart_by_the_stream_they_came_from(scene):
    out, err = scene.readers
    os.write(scene.stdout, b"one")
    os.write(scene.stderr, b"two")
    scene.run.ready(out, 101)
    scene.run.ready(err, 101)
    assert scene.chunks == [(False, b"one"), (True, b"two")]
    assert (scene.course.stdout.content(), scene.course.stderr.content()) == (b"one", b"two")


def test_pipe_with_nothing_to_read_stays_open_and_adds_nothing(scene):
    scene.run.ready(scene.readers[0], 101)
    assert scene.chunks == []
    assert scene.readers[0] in scene.run.descriptors()


def test_pipe_at_its_end_is_closed_and_no_longer_waited_for(scene):
    os.close(scene.stdout)
    scene.stdout = -1
    scene.run.ready(scene.readers[0], 101)
    assert not is_open(scene.readers[0])
    assert scene.run.descriptors() == [scene.readers[1], scene.prepared.channel.fileno()]


def test_descriptor_that_is_not_the_command_s_is_left_alone(scene):
    reader, writer = os.pipe()
    os.write(writer, b"x")
    scene.run.ready(reader, 101)
    assert os.read(reader, 2) == b"x"
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize("scene", [{"output_bytes": 2, "kill_on_output": True}], indirect=True)
def test_output_over_its_cap_kills_once_and_shows_only_what_was_kept(scene):
    os.write(scene.stdout, b"abc")
    scene.run.ready(scene.readers[0], 101)
    os.write(scene.stdout, b"def")
    scene.run.ready(scene.readers[0], 101)
    assert (scene.chunks, scene.killed) == ([(False, b"ab")], [1])


def test_everything_written_before_the_ending_is_taken_in_with_it(scene):
    os.write(scene.stdout, b"last words")
    os.write(scene.stderr, b"complaint")
    scene.send(ENDED)
    scene.hear()
    assert scene.run.is_finished
    assert scene.course.ended == Ended(*ENDED[1:])
    assert scene.chunks == [(False, b"last words"), (True, b"complaint")]


def test_channel_is_not_waited_for_after_the_ending(scene):
    scene.send(ENDED)
    scene.hear()
    assert scene.run.descriptors() == scene.readers


def test_process_left_behind_that_writes_on_cannot_hold_up_the_ending(scene, monkeypatch):
    reads = []
    real = os.read
    monkeypatch.setattr(os, "read", lambda handle, size: reads.append(handle) or real(handle, size))

    def refill(is_error, chunk):
        os.write(scene.stderr if is_error else scene.stdout, chunk)

    scene.run._on_chunk = refill
    os.write(scene.stdout, b"y" * 4096)
    scene.send(ENDED)
    scene.hear()
    assert scene.run.is_finished
    assert len(reads) < 10


@pytest.mark.parametrize(
    "message",
    [
        5,
        (),
        (b"ended", 0, 1, 2),
        (b"ended", 0, 1, 2, b"3"),
        (b"ended", 0, 1, 2, None),
        (b"not_started", b"execve"),
        (b"not_started", 2, b"execve"),
        (b"started", b"execve", 2),
    ],
)
def test_message_of_another_shape_ends_nothing(scene, message):
    scene.send(message)
    scene.hear()
    assert not scene.run.is_finished


def test_descriptors_sent_with_a_report_are_closed(scene):
    before = len(os.listdir("/proc/self/fd"))
    scene.send(ENDED, descriptors=(scene.stdout, scene.stderr))
    scene.hear()
    assert scene.run.is_finished
    assert len(os.listdir("/proc/self/fd")) == before


def test_refused_start_is_kept_with_its_stage_and_errno(scene):
    scene.send((b"not_started", b"execve", 2))
    scene.hear()
    assert scene.course.not_started == ("execve", 2)
    assert scene.run.is_finished


def test_nothing_to_hear_leaves_the_command_running(scene):
    scene.hear()
    assert not scene.run.is_finished


def test_closed_channel_means_that_the_sandbox_is_lost_and_its_output_is_kept(scene):
    os.write(scene.stdout, b"so far")
    scene.init.close()
    scene.hear()
    assert scene.course.lost
    assert scene.course.stdout.content() == b"so far"


def test_bytes_that_are_no_message_lose_the_sandbox(scene):
    scene.init.send(b"?")
    scene.hear()
    assert scene.course.lost


def test_report_behind_a_reset_of_the_channel_is_heard(scene):
    scene.prepared.channel.send(b"go, which a command that was killed did not read")
    scene.send(ENDED)
    scene.init.close()
    scene.hear()
    assert scene.course.ended == Ended(*ENDED[1:])


@pytest.mark.parametrize("scene", [{"timeout_s": 2.0}], indirect=True)
def test_deadline_kills_once_and_waits_no_longer_than_to_it(scene):
    assert scene.run.wait_s(100.5) == pytest.approx(1.5)
    scene.run.tick(101.9)
    assert scene.killed == []
    scene.run.tick(102.0)
    scene.run.tick(102.1)
    assert (scene.killed, scene.course.cause) == ([1], EndReason.TIMEOUT)


@pytest.mark.parametrize("scene", [{"timeout_s": 1.0}], indirect=True)
def test_what_a_kill_does_not_end_costs_the_whole_sandbox(scene):
    scene.run.tick(101.0)
    scene.run.tick(101.0 + KILL_GRACE_S - 0.01)
    assert scene.given_up == []
    scene.run.tick(101.0 + KILL_GRACE_S)
    assert (scene.given_up, scene.course.lost) == ([1], True)


def test_command_without_a_deadline_or_a_sample_is_waited_for_without_end(scene):
    assert scene.run.wait_s(101) is None


def sampler(answers):
    seen = []

    def look(course, now_s):
        seen.append(now_s)
        return answers.pop(0)

    return look, seen


def test_sample_is_taken_at_its_time_and_kills_when_it_says_so():
    look, seen = sampler([False, True])
    scene = Scene(sample=look)
    assert scene.run.wait_s(100.0) == pytest.approx(SAMPLE_S)
    assert scene.run.wait_s(100.0 + SAMPLE_S / 2) == pytest.approx(SAMPLE_S / 2)
    scene.run.tick(100.0 + SAMPLE_S / 2)
    assert seen == []
    scene.run.tick(100.0 + SAMPLE_S)
    assert (len(seen), scene.killed) == (1, [])
    scene.run.tick(100.0 + 2 * SAMPLE_S)
    assert (len(seen), scene.killed) == (2, [1])
    scene.close()


def test_command_that_ends_before_the_first_sample_is_never_looked_at():
    look, seen = sampler([])
    scene = Scene(sample=look)
    scene.run.tick(1000.0)
    assert seen == []
    scene.close()


def test_deadline_closer_than_the_next_sample_is_what_is_waited_for():
    look, _ = sampler([])
    scene = Scene(sample=look, timeout_s=SAMPLE_S / 4)
    assert scene.run.wait_s(100.0) == pytest.approx(SAMPLE_S / 4)
    scene.close()


def test_end_by_the_caller_kills_once_and_names_its_reason(scene):
    scene.run.end_by(EndReason.POLICY_KILL, 101)
    scene.run.end_by(EndReason.TIMEOUT, 102)
    assert (scene.killed, scene.course.cause) == ([1], EndReason.POLICY_KILL)


def test_end_by_the_caller_after_the_ending_kills_nothing(scene):
    scene.send(ENDED)
    scene.hear()
    scene.run.end_by(EndReason.POLICY_KILL, 102)
    assert scene.killed == []


def test_close_closes_every_descriptor_and_may_be_repeated(scene):
    channel = scene.prepared.channel.fileno()
    scene.run.close()
    scene.run.close()
    assert [is_open(handle) for handle in (*scene.readers, channel)] == [False] * 3
