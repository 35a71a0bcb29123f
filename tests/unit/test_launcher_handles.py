"""The host's handles on a launcher that does not answer as it should: what is believed, closed, given up."""

from __future__ import annotations

import errno
import os
import socket
import weakref

import pytest

from kavach.errors import LaunchError, UnsupportedError
from kavach.launcher import client, prepared, wire
from kavach.launcher.client import Launcher, Request, Standing
from kavach.launcher.prepared import Prepared, StepError

PLAIN = Request(flags=0, maps=(b"", b"", 0), sources=(), plan=((), (), (), 1))


@pytest.fixture
def pair():
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    yield left, right
    left.close()
    right.close()


@pytest.fixture
def launcher(pair):
    """Return a launcher whose other end is this test's."""
    made = Launcher.__new__(Launcher)
    made.pid, made.owner_pid = 0, os.getpid()
    made._channel, made._outside = pair[0], None
    made._lock = client.threading.Lock()
    return made


def descriptors():
    return len(os.listdir("/proc/self/fd"))


def a_descriptor():
    return os.open("/", os.O_PATH)


def stand(channel, *messages):
    """Send these (message, number of descriptors), as launcher and init do."""
    for message, count in messages:
        handles = tuple(a_descriptor() for _ in range(count))
        wire.send(channel, message, handles)
        for handle in handles:
            os.close(handle)


MADE, STANDING = ((b"made", 77, (1, 2)), 1), ((b"standing", 1, ((b"core_limit", 1),)), 1)


@pytest.mark.parametrize("order", [(MADE, STANDING), (STANDING, MADE)])
def test_launcher_and_init_may_speak_in_either_order(pair, order):
    stand(pair[1], *order)
    found = client._await_standing(pair[0])
    assert (found.pid, found.inodes, found.lost) == (77, (1, 2), ((b"core_limit", 1),))
    assert found.pidfd >= 0
    assert found.folder >= 0
    found.release()


def test_sandbox_without_a_folder_of_its_own_has_none(pair):
    stand(pair[1], MADE, ((b"standing", 1, ()), 0))
    found = client._await_standing(pair[0])
    assert found.folder == -1
    found.release()


@pytest.mark.parametrize(
    ("messages", "raised"),
    [
        ((MADE, ((b"refused", b"new_root", 1), 2)), StepError),
        ((((b"refused", b"clone", 28), 0),), StepError),
        ((MADE, MADE), LaunchError),
        ((MADE, ((b"standing",), 1)), LaunchError),
        ((((b"made",), 1),), LaunchError),
        ((MADE, (5, 1)), LaunchError),
        ((((b"made", 77, (1, 2)), 0), STANDING), LaunchError),
    ],
)
def test_other_words_than_these_end_the_wait_and_leave_no_descriptor(pair, messages, raised):
    before = descriptors()
    stand(pair[1], *messages)
    with pytest.raises(raised):
        client._await_standing(pair[0])
    assert descriptors() == before


def test_init_that_ends_while_it_builds_is_named(pair):
    pair[1].close()
    with pytest.raises(LaunchError, match="ended or hung while building") as caught:
        client._await_standing(pair[0])
    assert (caught.value.step, caught.value.errno) == ("standing", errno.EPIPE)


def test_init_that_does_not_answer_is_not_waited_for_without_end(pair, monkeypatch):
    monkeypatch.setattr(client, "BUILD_TIMEOUT_S", 0.01)
    before = descriptors()
    stand(pair[1], MADE)
    with pytest.raises(LaunchError, match="ended or hung"):
        client._await_standing(pair[0])
    assert descriptors() == before


def test_launcher_whose_channel_is_closed_is_not_alive(launcher, pair):
    assert launcher.is_alive()
    pair[1].close()
    assert not launcher.is_alive()
    launcher.abandon()
    assert not launcher.is_alive()


def test_request_to_a_launcher_that_is_gone_leaves_no_descriptor(launcher, pair):
    wire.send(pair[1], (b"hello", ()))
    assert launcher.await_start() == ()
    pair[1].close()
    before = descriptors()
    with pytest.raises(LaunchError, match="launcher is gone"):
        launcher.create(PLAIN)
    assert descriptors() == before


def test_plan_that_is_too_large_is_named_and_leaves_no_descriptor(launcher, pair):
    wire.send(pair[1], (b"hello", ()))
    launcher.await_start()
    before = descriptors()
    with pytest.raises(LaunchError, match="too large") as caught:
        launcher.create(PLAIN._replace(plan=(b"x" * (17 << 20),)))
    assert (caught.value.step, caught.value.errno) == ("create", errno.E2BIG)
    assert descriptors() == before


def test_launcher_that_says_something_else_first_did_not_start(launcher, pair):
    wire.send(pair[1], (b"goodbye", ()))
    with pytest.raises(client.InternalError, match="did not start"):
        launcher.await_start()
    assert not launcher.is_alive()


def test_host_without_pidfds_is_refused_before_anything_is_started(monkeypatch):
    def refuse(_):
        raise OSError(errno.EPERM, "no")

    client._require_pidfd.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(os, "pidfd_open", refuse)
        patch.setattr(client, "Launcher", lambda: pytest.fail("it was started"))
        with pytest.raises(UnsupportedError, match="pidfd_open") as caught:
            client.shared()
    assert (caught.value.control, caught.value.found) == ("pid_ns", "EPERM")
    client._require_pidfd.cache_clear()


class Handle:
    def __init__(self):
        self.abandoned = 0

    def abandon(self):
        self.abandoned += 1


def test_forked_child_abandons_the_launcher_and_every_handle(monkeypatch):
    shared, held = Handle(), [Handle(), Handle()]
    handles = weakref.WeakSet(held)
    monkeypatch.setattr(client, "handles", handles)
    monkeypatch.setattr(client, "_shared", shared)
    monkeypatch.setattr(client, "_shared_lock", client._shared_lock)
    client._after_fork_in_child()
    assert [one.abandoned for one in (shared, *held)] == [1, 1, 1]
    assert client._shared is None
    client._after_fork_in_child()
    assert shared.abandoned == 1


def test_end_of_the_interpreter_leaves_the_channel_to_the_kernel(monkeypatch, launcher, pair):
    handle = pair[0].fileno()
    monkeypatch.setattr(client, "_shared", launcher)
    client._leave_open_at_exit()
    os.fstat(handle)
    os.close(handle)
    monkeypatch.setattr(client, "_shared", None)
    client._leave_open_at_exit()


# a sandbox that stands, and its children


@pytest.fixture
def standing(pair):
    made = Standing(pair[0], 77, -1, (), (), -1)
    yield made
    made.release()


def test_handle_without_a_process_neither_kills_nor_waits(standing):
    standing.kill()
    assert standing.wait_gone(0)
    assert not standing.is_alive()


def test_killing_what_has_ended_already_is_no_error(pair):
    child = os.posix_spawn("/bin/true", ["true"], {})
    handle = os.pidfd_open(child)
    os.waitpid(child, 0)
    made = Standing(pair[0], child, handle, (), (), a_descriptor())
    made.kill()
    made.abandon()
    assert (made.pidfd, made.folder) == (-1, -1)


def test_child_is_asked_for_with_its_own_channel_and_group(standing, pair):
    group = a_descriptor()
    child = standing.prepare(group, is_first=False)
    message, handles, _ = wire.receive(pair[1])
    assert (message, len(handles)) == ((b"prepare", 0), 2)
    wire.close_all(handles)
    os.close(group)
    assert child.has_ended()
    child.close()


def test_child_of_a_sandbox_that_is_gone_is_not_waited_for(standing, pair):
    pair[1].close()
    before = descriptors()
    with pytest.raises(BrokenPipeError):
        standing.prepare()
    assert descriptors() == before
    standing.signal(1, 9, group=True)
    standing.kill_all()


@pytest.mark.parametrize("message", [5, (), None, (b"standing",), (b"started", 1, (), ())])
def test_child_that_says_something_else_is_gone(pair, message):
    child = Prepared(pair[0])
    handle = a_descriptor()
    wire.send(pair[1], message, (handle,))
    os.close(handle)
    before = descriptors()
    with pytest.raises(BrokenPipeError):
        child.wait_standing(1)
    assert descriptors() == before


@pytest.mark.parametrize("message", [(b"not_started",), (b"not_started", 1, 1), (b"not_started", b"x", b"y")])
def test_refusal_in_another_form_names_no_step(pair, message):
    with pytest.raises(ValueError, match="not a message"):
        prepared.step_error(message)


def test_child_that_does_not_stand_in_time_is_not_waited_for(pair):
    with pytest.raises(TimeoutError):
        Prepared(pair[0]).wait_standing(0.01)


def test_listener_that_nobody_asked_for_is_closed(pair):
    child = Prepared(pair[0])
    handle = a_descriptor()
    before = descriptors()
    with pytest.raises(ValueError, match="standing"):
        child.accept((b"listener",), [os.dup(handle)], 1)
    assert descriptors() == before
    os.close(handle)


def test_listener_is_handed_over_once_and_a_second_one_refused(pair):
    taken = []

    class Watch:
        pass

    child = Prepared(pair[0], on_listener=lambda handle: taken.append(handle) or Watch())
    assert child.accept((b"listener",), [a_descriptor()], 1) is False
    with pytest.raises(ValueError, match="standing"):
        child.accept((b"listener",), [a_descriptor()], 1)
    assert len(taken) == 1
    os.close(taken[0])
    assert child.accept((b"standing", 5, (), ()), [], 99) is True
    assert (child.pid, child.inner_pid) == (99, 5)
