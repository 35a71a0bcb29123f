"""The rows of a host folder that is shown: in force as seen in mountinfo, past the gate as it is."""

from __future__ import annotations

import os

import pytest

import kavach
from kavach import ControlState

pytestmark = pytest.mark.needs("userns", "landlock:1")


@pytest.fixture
def folder(tmp_path):
    os.chmod(tmp_path, 0o755)
    return str(tmp_path)


def test_shown_folder_is_told_from_mountinfo_and_said_to_bypass_the_gate(folder):
    rows = kavach.run(["true"], policy="strict", workdir=folder).enforcement
    assert rows["workdir"].state is ControlState.ENFORCED
    assert "nosuid" in rows["workdir"].evidence
    assert "nodev" in rows["workdir"].evidence
    assert rows["files_gated"].state is ControlState.UNSUPPORTED
    assert "bypass" in rows["files_gated"].reason


def test_private_workspace_asks_for_neither_row():
    rows = kavach.run(["true"], policy="strict").enforcement
    assert rows["workdir"].state is ControlState.NOT_ASKED
    assert rows["files_gated"].state is ControlState.NOT_ASKED


def test_file_made_in_a_shown_folder_belongs_to_the_caller_and_nothing_else_is_left(folder):
    assert kavach.run(["sh", "-c", "echo x > made"], policy="strict", workdir=folder).ok
    assert os.listdir(folder) == ["made"]
    assert os.stat(f"{folder}/made").st_uid == os.geteuid()
