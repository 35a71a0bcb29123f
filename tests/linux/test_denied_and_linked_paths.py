"""Deny rules for what does not exist yet, and writable folders that a link leads to: both were open once."""

from __future__ import annotations

import os

import pytest

import kavach
from kavach import SandboxPolicy

pytestmark = pytest.mark.needs("userns", "landlock:1")


@pytest.fixture
def folder(tmp_path):
    os.chmod(tmp_path, 0o755)
    return tmp_path


def run(*words, **options):
    return kavach.run(list(words), **options)


def test_denied_path_that_does_not_exist_cannot_be_made_on_a_file_system_of_the_sandbox():
    policy = SandboxPolicy.strict(deny=["/tmp/later"])
    result = run("sh", "-c", "mkdir -p /tmp/later && echo x > /tmp/later/file", policy=policy)
    assert result.exit_code != 0
    assert "denied" in result.stderr.lower()
    control = run("sh", "-c", "mkdir -p /tmp/later && echo x > /tmp/later/file", policy="strict")
    assert control.ok


def test_denied_path_that_does_not_exist_in_a_writable_host_folder_is_refused_by_name(folder):
    policy = SandboxPolicy.strict(deny=["/workspace/.git/hooks"])
    with pytest.raises(kavach.PolicyError, match=r"/workspace/\.git/hooks"):
        run("true", policy=policy, workdir=str(folder))
    assert os.listdir(folder) == []


def test_denied_path_in_a_writable_host_folder_is_covered_and_leaves_nothing(folder):
    (folder / ".git" / "hooks").mkdir(parents=True)
    policy = SandboxPolicy.strict(deny=["/workspace/.git/hooks"])
    result = run("sh", "-c", "echo x > .git/hooks/pre-commit; touch seen", policy=policy, workdir=str(folder))
    assert "denied" in result.stderr.lower()
    assert os.listdir(folder / ".git" / "hooks") == []
    assert (folder / "seen").exists()


@pytest.mark.parametrize("where", ["last", "middle"])
def test_workdir_that_a_link_leads_to_is_refused(folder, where):
    real = folder / "real" / "below"
    real.mkdir(parents=True)
    (folder / "link").symlink_to(real if where == "last" else folder / "real")
    given = folder / "link" if where == "last" else folder / "link" / "below"
    with pytest.raises(kavach.LaunchError, match="symbolic link"):
        run("touch", "planted", workdir=str(given))
    assert os.listdir(real) == []


def test_mistaken_path_of_the_caller_is_not_called_a_lack_of_the_host():
    with pytest.raises(kavach.LaunchError) as caught:
        run("true", policy=SandboxPolicy.basic(deny=["/etc/services/below"]))
    assert caught.value.step == "mask"


def test_working_folder_that_does_not_exist_is_an_error_and_no_exit_code():
    with pytest.raises(kavach.LaunchError) as caught:
        run("true", cwd="/not/there")
    assert caught.value.step == "cwd"
