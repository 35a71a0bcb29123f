"""Waiting for a command in the calling thread: what is passed on, and what an exception in between leaves behind."""

from __future__ import annotations

import os

import pytest

from kavach.errors import BackendError
from kavach.launcher.pump import drive, settle, step


class Ending:
    """A command that ends after `rounds` looks; everything that is done to it is written down."""

    def __init__(self, *, rounds=1, wait_s=0.0, handles=(), fails=None, refuses=None):
        self.rounds, self.handles, self.fails, self.refuses, self.left = rounds, handles, fails, refuses, wait_s
        self.done = []

    @property
    def is_finished(self):
        return self.rounds <= 0

    def descriptors(self):
        return list(self.handles)

    def wait_s(self, now_s):
        self.done.append("wait")
        return self.left

    def ready(self, handle, now_s):
        self.done.append(("ready", handle))
        os.read(handle, 10)
        if self.fails is not None:
            error, self.fails = self.fails, None
            raise error

    def tick(self, now_s):
        self.done.append("tick")
        self.rounds -= 1

    def cancel(self, now_s):
        self.done.append("cancel")

    def result(self):
        self.done.append("result")
        if self.refuses is not None:
            raise self.refuses
        return "the result"


@pytest.fixture
def readable():
    reader, writer = os.pipe()
    os.write(writer, b"xxx")
    yield reader
    os.close(reader)
    os.close(writer)


def test_drive_returns_the_result_once_the_command_has_ended():
    run = Ending(rounds=3)
    assert drive(run) == "the result"
    assert run.done == ["wait", "tick"] * 3 + ["result"]


def test_command_that_has_ended_already_is_not_waited_for():
    run = Ending(rounds=0)
    assert drive(run) == "the result"
    assert run.done == ["result"]


def test_readable_descriptor_is_passed_on_before_time_is_looked_at(readable):
    run = Ending(handles=(readable,), wait_s=None)
    step(run)
    assert run.done == ["wait", ("ready", readable), "tick"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), BackendError("x", runtime="process")])
def test_exception_in_between_ends_the_command_and_closes_it_before_it_goes_on(readable, error):
    run = Ending(handles=(readable,), fails=error)
    with pytest.raises(type(error)):
        drive(run)
    assert run.done == ["wait", ("ready", readable), "cancel", "wait", "tick", "result"]


def test_settle_keeps_a_refused_start_to_itself():
    run = Ending(rounds=2, refuses=BackendError("refused", runtime="process"))
    settle(run)
    assert run.done == ["wait", "tick"] * 2 + ["result"]


def test_drive_raises_what_the_result_raises():
    with pytest.raises(BackendError, match="refused"):
        drive(Ending(refuses=BackendError("refused", runtime="process")))
