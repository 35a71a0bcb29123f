"""Working folders on the host: private, named after their owner, and swept only when that owner is gone."""

from __future__ import annotations

import os
import stat
import tempfile

import pytest

from kavach.launcher.scratch import make_scratch, sweep_scratch
from kavach.linux.cgroup import find_identity

PID, START, NAMESPACE = find_identity("/proc")


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def plant(folder, name):
    (folder / name / "deep").mkdir(parents=True)
    (folder / name / "deep/file").touch()
    return str(folder / name)


def test_new_folder_is_private_and_names_its_owner(temporary):
    path = make_scratch()
    assert os.path.basename(path).startswith(f"kavach-{PID}-{START}-{NAMESPACE}-")
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o700
    assert make_scratch() != path


def test_folder_of_a_living_owner_is_kept(temporary):
    path = make_scratch()
    assert sweep_scratch() == ()
    assert os.path.isdir(path)


def test_folder_of_an_owner_that_is_gone_is_removed_whole(temporary):
    path = plant(temporary, f"kavach-{PID}-{START + 1}-{NAMESPACE}-abc")
    assert sweep_scratch() == (path,)
    assert os.listdir(temporary) == []


@pytest.mark.parametrize(
    "name",
    [
        f"kavach-{PID}-{START + 1}-{NAMESPACE + 1}-abc",  # another PID namespace: the number says nothing here
        f"kavach-{PID}-{START + 1}-abc",
        f"kavach-{PID}-{START + 1}-{NAMESPACE}-",
        f"kavach-{PID}-{START + 1}-{NAMESPACE}-a.b",
        "somebody-else",
    ],
)
def test_what_cannot_be_told_to_be_a_dead_owner_s_is_left_alone(temporary, name):
    plant(temporary, name)
    assert sweep_scratch() == ()
    assert os.listdir(temporary) == [name]


@pytest.mark.root
def test_folder_of_another_user_is_left_alone(temporary):
    path = plant(temporary, f"kavach-{PID}-{START + 1}-{NAMESPACE}-abc")
    os.chown(path, 65534, 65534)
    assert sweep_scratch() == ()


@pytest.mark.root
def test_link_in_place_of_a_folder_is_not_followed(temporary, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "kept").touch()
    (temporary / f"kavach-{PID}-{START + 1}-{NAMESPACE}-abc").symlink_to(elsewhere)
    sweep_scratch()
    assert os.listdir(elsewhere) == ["kept"]
