"""Makes `command_line` importable for the tests in this folder, and keeps their records out of the home folder."""

from __future__ import annotations

import os
import sys

import pytest

sys.path.insert(0, os.path.dirname(__file__))


@pytest.fixture(autouse=True, scope="session")
def state_folder(tmp_path_factory):
    """Let every command of these tests keep its records in a temporary folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture
def own_state(tmp_path, monkeypatch):
    """Return the folder of the records of this test's commands alone; nothing is there yet."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "kavach"
