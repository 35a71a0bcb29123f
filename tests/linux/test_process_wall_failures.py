"""What the process wall says, and leaves, where the launcher, init or a child does not do what was asked of it."""

from __future__ import annotations

import errno
import os
import signal
import threading
import time

import pytest

import kavach
from kavach import BackendError, EndReason, LaunchError, Sandbox, UnsupportedError
from kavach.launcher import client, freeze
from kavach.launcher.prepared import StepError

pytestmark = pytest.mark.needs("userns")
PATIENCE_S = 10.0


@pytest.fixture
def sandbox():
    with Sandbox(policy="basic") as made:
        yield made


def until(is_so):
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline, "it did not become true in time"
        time.sleep(0.005)


def descriptors():
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize(
    ("raised", "expected", "said"),
    [
        (StepError("restrict", errno.EPERM), UnsupportedError, "refused step 'restrict'"),
        (StepError("niceness", errno.EIO), LaunchError, "step 'niceness' failed"),
        (TimeoutError(errno.ETIMEDOUT, "late"), LaunchError, "did not stand in time"),
        (BrokenPipeError(errno.EPIPE, "gone"), BackendError, "init has gone"),
    ],
)
def test_child_that_does_not_stand_runs_nothing_and_the_sandbox_goes_on(sandbox, monkeypatch, raised, expected, said):
    assert sandbox.exec(["true"]).ok
    before = descriptors()

    def fail(*_):
        raise raised

    with monkeypatch.context() as patch:
        patch.setattr("kavach.launcher.prepared.Prepared.wait_standing", fail)
        with pytest.raises(expected, match=said):
            sandbox.exec(["true"])
    until(lambda: descriptors() == before and sandbox.processes() == ())
    assert sandbox.exec(["true"]).ok


def test_init_that_has_gone_is_named_and_no_child_is_asked_for(sandbox):
    sandbox._wall._standing.kill()
    until(lambda: not sandbox._wall.is_alive())
    with pytest.raises(BackendError, match="init has gone"):
        sandbox.exec(["true"])


def test_child_that_ends_before_it_could_be_observed_is_named(sandbox, monkeypatch):
    def fail(*_):
        raise FileNotFoundError(errno.ENOENT, "no such process")

    monkeypatch.setattr("kavach.launcher.evidence.look", fail)
    with pytest.raises(BackendError, match="before it could be observed"):
        sandbox.exec(["true"])


def test_child_that_ends_before_it_was_let_go_is_named_and_leaves_no_descriptor(sandbox, monkeypatch):
    assert sandbox.exec(["true"]).ok
    before = descriptors()
    with monkeypatch.context() as patch:
        patch.setattr("kavach.launcher.prepared.Prepared.go", _broken)
        with pytest.raises(BackendError, match="before it was let go"):
            sandbox.exec(["true"])
    until(lambda: descriptors() == before)
    assert sandbox.exec(["true"]).ok


def _broken(*_):
    raise BrokenPipeError(errno.EPIPE, "gone")


def test_command_of_more_than_a_message_holds_is_refused_by_name_and_leaves_no_descriptor(sandbox):
    assert sandbox.exec(["true"]).ok
    before = descriptors()
    words = ["x" * 100_000] * 175
    for act in (
        lambda: sandbox.exec(["true", *words]),
        lambda: sandbox.exec(["true"], env={f"A{number}": word for number, word in enumerate(words)}),
    ):
        with pytest.raises(kavach.ConfigError, match="nothing was run") as caught:
            act()
        assert caught.value.key == "argv"
    until(lambda: descriptors() == before)
    assert sandbox.exec(["true"]).ok


def test_wall_before_its_building_refuses_what_needs_it():
    sandbox = Sandbox(policy="basic")
    wall = sandbox._wall
    for act in (wall.pause, wall.resume, wall.stop, wall.processes, lambda: wall.transfer((b"read", b"/f"), None)):
        with pytest.raises(BackendError, match="no wall"):
            act()
    assert not wall.is_alive()
    assert wall.usage() == kavach.model.result.Usage()
    assert wall.folder == -1
    wall.give_up()
    wall.destroy()


def test_kill_of_a_run_after_destroy_reaches_nobody(sandbox):
    wall = sandbox._wall
    leaf = wall._leaf()
    sandbox.destroy()

    class Deaf:
        def kill(self):
            return False

    wall.kill_run(Deaf())
    assert wall.kills == 1
    leaf.close()


def test_sandbox_given_up_on_ends_whole(sandbox):
    process = sandbox.spawn(["sleep", "1000"], timeout_s=None)
    sandbox._wall.give_up()
    assert process.wait(PATIENCE_S).reason is EndReason.BACKEND_LOST
    until(lambda: not sandbox._wall.is_alive())


def test_stop_that_does_not_end_every_process_is_an_error(sandbox, monkeypatch):
    monkeypatch.setattr(client, "END_TIMEOUT_S", 0.05)
    with monkeypatch.context() as patch:
        patch.setattr("kavach.backends.process.descendants", lambda _: [1])
        with pytest.raises(BackendError, match="did not end"):
            sandbox.stop()
    assert str(sandbox.state) == "running"


def test_destroy_that_does_not_end_every_process_is_an_error(monkeypatch):
    sandbox = Sandbox(policy="basic")
    sandbox.__enter__()
    standing = sandbox._wall._standing
    with monkeypatch.context() as patch:
        patch.setattr("kavach.launcher.client.Standing.wait_gone", lambda *_: False)
        with pytest.raises(BackendError, match="did not end"):
            sandbox.destroy()
    assert str(sandbox.state) == "running"
    init = standing.pid
    sandbox.destroy()
    assert str(sandbox.state) == "destroyed"
    until(lambda: not os.path.isdir(f"/proc/{init}"))


def test_pause_by_signals_freezes_where_no_group_can(sandbox, monkeypatch):
    process = sandbox.spawn(["sleep", "1000"], timeout_s=None)
    until(lambda: len(sandbox.processes()) == 1)
    (pid,) = sandbox.processes()
    monkeypatch.setattr(type(sandbox._wall._group), "freeze", lambda *_: False)
    sandbox.pause()
    assert _state(pid) == "T"
    sandbox.resume()
    until(lambda: _state(pid) == "S")
    process.kill()
    assert process.wait(PATIENCE_S).signal == signal.SIGKILL


def test_stop_ends_what_signals_had_frozen(sandbox, monkeypatch):
    process = sandbox.spawn(["sleep", "1000"], timeout_s=None)
    until(lambda: len(sandbox.processes()) == 1)
    monkeypatch.setattr(type(sandbox._wall._group), "freeze", lambda *_: False)
    sandbox.pause()
    sandbox.resume()
    sandbox.stop()
    assert process.wait(PATIENCE_S).signal == signal.SIGKILL
    assert freeze.living(sandbox._wall.init_pid) == []


def _state(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as handle:
        return handle.read().rpartition(")")[2].split()[0]


def test_spare_child_is_used_once_and_dropped_when_it_has_ended(sandbox):
    sandbox.prewarm()
    sandbox.prewarm()
    assert sandbox._wall.is_warm
    assert sandbox.processes() == ()
    spare = sandbox._wall._spare[0].pid
    os.kill(spare, signal.SIGKILL)
    until(lambda: not sandbox._wall.is_warm)
    assert sandbox.exec(["true"]).ok
    assert not sandbox._wall.is_warm


def test_no_spare_is_kept_while_a_command_lives(sandbox):
    process = sandbox.spawn(["sleep", "1000"], timeout_s=None)
    sandbox.prewarm()
    assert not sandbox._wall.is_warm
    process.kill()
    process.wait(PATIENCE_S)


def test_spare_that_cannot_stand_leaves_no_group(sandbox, monkeypatch):
    before = descriptors()
    with monkeypatch.context() as patch:
        patch.setattr("kavach.launcher.prepared.Prepared.wait_standing", _broken)
        with pytest.raises(BackendError, match="init has gone"):
            sandbox.prewarm()
    until(lambda: descriptors() == before)
    assert not sandbox._wall.is_warm


def test_destroy_with_a_spare_leaves_nothing_of_it():
    before = descriptors()
    with Sandbox(policy="basic") as sandbox:
        sandbox.prewarm()
        spare = sandbox._wall._spare[0].pid
    assert not os.path.isdir(f"/proc/{spare}")
    until(lambda: descriptors() <= before + 2)  # the launcher's channel may be new


def test_command_killed_with_its_neighbour_says_so(sandbox, monkeypatch):
    monkeypatch.setattr("kavach.launcher.groups.Leaf.kill", lambda *_: False)
    neighbour = sandbox.spawn(["sleep", "1000"], timeout_s=None)
    assert sandbox.exec(["sleep", "1000"], timeout_s=0.1).reason is EndReason.TIMEOUT
    assert neighbour.wait(PATIENCE_S).reason is EndReason.TIMEOUT_SIBLING


def test_two_threads_that_destroy_at_once_both_return(sandbox):
    threads = [threading.Thread(target=sandbox.destroy) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert str(sandbox.state) == "destroyed"


def test_workdir_that_is_no_folder_is_refused_before_anything_is_made(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "none"):
        with pytest.raises(kavach.ConfigError, match="expected a folder") as caught:
            Sandbox(policy="basic", workdir=str(path), workdir_rw=True).__enter__()
        assert caught.value.key == "$.workdir"
