"""`sandbox.files` and host folders against what hostile commands plant in them."""

from __future__ import annotations

import os
import stat
import tempfile
from typing import TYPE_CHECKING

import pytest

from kavach import ConfigError, KavachError, Sandbox

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.needs("userns")


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(policy="basic") as made:
        yield made


@pytest.fixture
def folder() -> Iterator[str]:
    """A host folder that its owner alone may enter, somewhere every user may reach."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as path:
        yield path


def test_files_go_in_and_out_exactly(sandbox: Sandbox) -> None:
    content = os.urandom(3 << 20)
    sandbox.files.write("/workspace/big", content, mode=0o640)
    # Compared as a flag: pytest would print the difference of two megabytes of noise, for an hour.
    is_same = sandbox.files.read("/workspace/big") == content
    assert is_same
    entry = next(entry for entry in sandbox.files.list() if entry.name == "big")
    assert (entry.kind, entry.size_bytes, entry.mode) == ("file", len(content), 0o640)
    sandbox.files.write("/workspace/big", "text\n")
    assert sandbox.exec(["cat", "big"]).stdout == "text\n"


def test_folders_are_made_listed_and_removed(sandbox: Sandbox) -> None:
    sandbox.files.mkdir("/workspace/d")
    sandbox.files.write("/workspace/d/f", b"")
    with pytest.raises(KavachError, match="not empty"):
        sandbox.files.remove("/workspace/d")
    sandbox.files.remove("/workspace/d/f")
    sandbox.files.remove("/workspace/d")
    assert sandbox.files.list("/workspace") == ()


@pytest.mark.parametrize("path", ["relative", "/workspace/../etc/passwd", "/workspace/\0", ""])
def test_odd_paths_are_refused_by_name(sandbox: Sandbox, path: str) -> None:
    with pytest.raises(ConfigError, match="path"):
        sandbox.files.read(path)


def test_planted_link_is_not_read_through(sandbox: Sandbox) -> None:
    # Positive control: the command itself reads through its link.
    assert sandbox.shell("ln -s /etc/passwd last; cat last").ok
    with pytest.raises(KavachError):
        sandbox.files.read("/workspace/last")


def test_link_planted_in_the_middle_reaches_no_more_than_a_command_can(sandbox: Sandbox) -> None:
    assert sandbox.shell("ln -s /etc etc; ln -s /usr usr; ln -s /proc/1/root root").ok
    assert sandbox.files.read("/workspace/etc/passwd") == sandbox.exec(["cat", "/etc/passwd"]).stdout_bytes
    for path in ("/workspace/etc/shadow", "/workspace/root/etc/shadow"):
        with pytest.raises(KavachError):
            sandbox.files.read(path)
    with pytest.raises(KavachError):
        sandbox.files.write("/workspace/usr/planted", b"x")


def test_written_file_replaces_a_planted_link_and_spares_its_target(sandbox: Sandbox) -> None:
    sandbox.shell("echo precious > target; ln -s target link")
    sandbox.files.write("/workspace/link", b"new")
    assert sandbox.files.read("/workspace/target") == b"precious\n"
    assert sandbox.files.read("/workspace/link") == b"new"


@pytest.mark.parametrize("plant", ["mkfifo x", "mkdir x", "ln -s /dev/zero x"])
def test_what_is_no_regular_file_is_refused_at_once(sandbox: Sandbox, plant: str) -> None:
    assert sandbox.shell(plant).ok
    with pytest.raises(KavachError):
        sandbox.files.read("/workspace/x")


def test_device_is_not_read_without_end(sandbox: Sandbox) -> None:
    with pytest.raises(KavachError):
        sandbox.files.read("/dev/zero")


def test_pipe_in_the_place_of_a_written_file_is_replaced_not_opened(sandbox: Sandbox) -> None:
    sandbox.shell("mkfifo x")
    sandbox.files.write("/workspace/x", b"now a file")
    assert sandbox.files.read("/workspace/x") == b"now a file"


def test_files_a_command_cannot_read_are_not_read_for_it(sandbox: Sandbox) -> None:
    with pytest.raises(KavachError):
        sandbox.files.read("/etc/shadow")
    with pytest.raises(KavachError):
        sandbox.files.write("/usr/bin/planted", b"x")


DEEP = """
import os
for _ in range(10_000):
    os.mkdir("d"); os.chdir("d")
open("f", "w").close()
"""
LOCKED = "mkdir -p locked/in; echo x > locked/in/f; chmod 000 locked/in locked"


def test_deep_tree_and_locked_folders_do_not_stop_destroy(sandbox: Sandbox) -> None:
    assert sandbox.exec(["python3", "-c", DEEP], timeout_s=60).ok
    assert sandbox.shell(LOCKED).ok
    assert {entry.name for entry in sandbox.files.list()} == {"d", "locked"}
    sandbox.destroy()


def test_host_folder_is_shared_both_ways_and_owned_by_the_caller(folder: str) -> None:
    with open(f"{folder}/given", "w", encoding="ascii") as handle:
        handle.write("of the host\n")
    with Sandbox(policy="basic", workdir=folder, workdir_rw=True) as sandbox:
        assert sandbox.exec(["cat", "given"]).stdout == "of the host\n"
        assert sandbox.shell("echo made > made; mkdir sub; echo more >> given").ok
        sandbox.files.write("/workspace/sub/put", b"put")
    for name in ("made", "sub", "sub/put"):
        assert os.stat(f"{folder}/{name}").st_uid == os.geteuid(), name
    with open(f"{folder}/given", encoding="ascii") as handle:
        assert handle.read() == "of the host\nmore\n"
    assert sorted(os.listdir(folder)) == ["given", "made", "sub"], "litter after destroy"


def test_link_planted_in_a_host_folder_does_not_reach_the_host(folder: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("of the host")
    with Sandbox(policy="basic", workdir=folder, workdir_rw=True) as sandbox:
        sandbox.shell(f"ln -s {secret} link; ln -s {tmp_path} way")
        assert not sandbox.exec(["cat", "link"]).ok
        for path in ("/workspace/link", "/workspace/way/secret"):
            with pytest.raises(KavachError):
                sandbox.files.read(path)
        with pytest.raises(KavachError):
            sandbox.files.write("/workspace/way/new", b"x")
    assert os.listdir(tmp_path) == ["secret"]
    assert os.readlink(f"{folder}/link") == str(secret)  # the host sees what was planted, as a link


def test_set_user_id_bit_in_a_host_folder_gives_the_command_nothing(folder: str) -> None:
    with Sandbox(policy="basic", workdir=folder, workdir_rw=True) as sandbox:
        inside = sandbox.shell("cp /usr/bin/id id; chmod 4755 id; ./id -u; id -u").stdout.split()
    assert len(set(inside)) <= 1
    assert stat.S_ISREG(os.stat(f"{folder}/id").st_mode)


def test_absent_host_folder_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(KavachError, match="absent"), Sandbox(workdir=str(tmp_path / "absent")) as sandbox:
        sandbox.exec(["true"])
