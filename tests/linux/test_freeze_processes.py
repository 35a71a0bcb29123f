"""Stopping, continuing, listing and killing the processes below one, confirmed by looking."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kavach.errors import BackendError
from kavach.launcher import freeze

DEADLINE_S = 10
#: Starts three children, of which the second stops itself; ends when its input does.
PARENT = """
import os, signal, sys
for stops in (False, True, False):
    if os.fork() == 0:
        if stops:
            os.kill(os.getpid(), signal.SIGSTOP)
        while True:
            signal.pause()
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def family():
    parent = subprocess.Popen([sys.executable, "-I", "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert parent.stdout.readline() == b"ready\n"
    children = sorted(freeze.living(parent.pid))
    wait_until(lambda: [state(pid) for pid in children] == ["S", "T", "S"])
    yield parent.pid, children
    for pid in children:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    parent.kill()
    parent.communicate()


def state(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except OSError:
        return "gone"


def wait_until(is_so):
    deadline = time.monotonic() + DEADLINE_S
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_everything_below_is_stopped_when_freeze_returns(family):
    parent, children = family
    freeze.freeze(parent)
    assert [state(pid) for pid in children] == ["T"] * 3
    assert state(parent) != "T"


def test_program_that_had_stopped_itself_stays_stopped(family):
    parent, children = family
    stopped = freeze.freeze(parent)
    assert sorted(one.pid for one in stopped) == [children[0], children[2]]
    freeze.thaw(stopped)
    wait_until(lambda: [state(pid) for pid in children] == ["S", "T", "S"])


def test_later_process_of_the_same_number_is_not_continued(family):
    parent, children = family
    stopped = freeze.freeze(parent)
    freeze.thaw(tuple(freeze.Stopped(pid, start + 1) for pid, start in stopped))
    assert [state(pid) for pid in children] == ["T"] * 3


def test_thaw_passes_over_what_has_ended_meanwhile(family):
    parent, children = family
    stopped = freeze.freeze(parent)
    os.kill(children[0], signal.SIGKILL)
    wait_until(lambda: state(children[0]) in {"Z", "gone"})
    gone = os.posix_spawn("/bin/true", ["true"], {})
    os.waitpid(gone, 0)
    freeze.thaw((freeze.Stopped(gone, 1), *stopped))
    wait_until(lambda: state(children[2]) == "S")


def test_processes_that_keep_appearing_are_an_error_and_nothing_stays_stopped(family, monkeypatch):
    parent, children = family
    monkeypatch.setattr(freeze, "_CONFIRM_S", -1.0)
    with pytest.raises(BackendError, match="could not be stopped") as caught:
        freeze.freeze(parent)
    assert caught.value.runtime == "process"
    assert [state(pid) for pid in children] == ["S", "T", "S"]


def test_parent_without_children_is_frozen_at_once():
    child = os.posix_spawn("/bin/sleep", ["sleep", "60"], {})
    try:
        assert freeze.freeze(child) == ()
        assert state(child) != "T"
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_living_leaves_out_what_waits_to_be_reaped(family):
    parent, children = family
    os.kill(children[1], signal.SIGKILL)
    wait_until(lambda: state(children[1]) == "Z")
    assert sorted(freeze.living(parent)) == [children[0], children[2]]


def test_kill_below_ends_frozen_processes_too_and_not_the_one_above(family):
    parent, children = family
    freeze.freeze(parent)
    freeze.kill_below(parent)
    wait_until(lambda: {state(pid) for pid in children} == {"Z"})
    assert state(parent) == "S"


def test_stranger_whose_number_was_listed_is_not_signalled(family, monkeypatch):
    parent, _ = family
    stranger = os.posix_spawn("/bin/sleep", ["sleep", "60"], {})
    try:
        monkeypatch.setattr(freeze, "descendants", lambda _: [stranger, 2**22 - 1])
        freeze.kill_below(parent)
        assert state(stranger) in {"S", "R"}
    finally:
        os.kill(stranger, signal.SIGKILL)
        os.waitpid(stranger, 0)


def test_child_that_ends_while_it_is_signalled_is_passed_over(family, monkeypatch):
    parent, children = family

    def end_first(handle, number):
        raise ProcessLookupError

    monkeypatch.setattr(signal, "pidfd_send_signal", end_first)
    freeze.kill_below(parent)
    assert [state(pid) for pid in children] == ["S", "T", "S"]
