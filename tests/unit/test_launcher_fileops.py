"""One file operation as the child does it: only regular files, whole or not at all, never through a last link."""

from __future__ import annotations

import errno
import os
import stat

import pytest

from kavach.launcher import fileops


@pytest.fixture
def given(tmp_path):
    """Return a function that puts bytes on descriptor 0."""
    kept = os.dup(0)

    def put(content):
        path = tmp_path / "given-on-0"
        path.write_bytes(content)
        handle = os.open(path, os.O_RDONLY)
        os.dup2(handle, 0)
        os.close(handle)
        path.unlink()

    yield put
    os.dup2(kept, 0)
    os.close(kept)


def perform(*words):
    fileops.perform(tuple(word if isinstance(word, bytes) else os.fsencode(word) for word in words))


def refusal(*words):
    with pytest.raises(OSError) as caught:
        perform(*words)
    return caught.value.errno


def test_file_is_read_whole(tmp_path, capfdbinary):
    content = os.urandom(200_000)
    (tmp_path / "f").write_bytes(content)
    perform(b"read", tmp_path / "f")
    assert capfdbinary.readouterr().out == content


def test_link_in_the_last_component_is_not_followed(tmp_path, capfdbinary):
    (tmp_path / "f").write_bytes(b"secret")
    (tmp_path / "link").symlink_to("f")
    assert refusal(b"read", tmp_path / "link") == errno.ELOOP
    assert capfdbinary.readouterr().out == b""


def test_pipe_is_neither_waited_for_nor_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert refusal(b"read", tmp_path / "pipe") == errno.EINVAL


@pytest.mark.parametrize("path", ["/dev/null", "/"])
def test_what_is_no_regular_file_is_not_read(path):
    assert refusal(b"read", path) == errno.EINVAL


def test_file_is_written_with_its_bytes_and_mode_and_replaces_what_was_there(tmp_path, given):
    content = os.urandom(100_000)
    (tmp_path / "f").write_bytes(b"old")
    given(content)
    perform(b"write", tmp_path / "f", b"640")
    assert (tmp_path / "f").read_bytes() == content
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == 0o640
    assert os.listdir(tmp_path) == ["f"]


def test_write_replaces_a_link_and_leaves_its_target_alone(tmp_path, given):
    (tmp_path / "target").write_bytes(b"target")
    (tmp_path / "link").symlink_to("target")
    given(b"new")
    perform(b"write", tmp_path / "link", b"600")
    assert (tmp_path / "target").read_bytes() == b"target"
    assert not (tmp_path / "link").is_symlink()


def test_write_that_fails_leaves_nothing_of_itself(tmp_path, given):
    (tmp_path / "folder").mkdir()
    given(b"new")
    assert refusal(b"write", tmp_path / "folder", b"600") == errno.EISDIR
    assert os.listdir(tmp_path) == ["folder"]


def test_write_does_not_use_a_temporary_name_that_was_planted(tmp_path, given):
    (tmp_path / f".kavach-{os.getpid()}").symlink_to("elsewhere")
    given(b"new")
    assert refusal(b"write", tmp_path / "f", b"600") == errno.EEXIST
    assert not (tmp_path / "elsewhere").exists()


def test_list_names_kind_size_and_mode_in_order(tmp_path, capfdbinary):
    (tmp_path / "b").write_bytes(b"12345")
    (tmp_path / "b").chmod(0o640)
    (tmp_path / "a").mkdir(mode=0o700)
    (tmp_path / "c").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "d", 0o600)
    perform(b"list", tmp_path)
    rows = [row.split(b" ", 3) for row in capfdbinary.readouterr().out.split(b"\0")[:-1]]
    assert [(kind, mode, name) for kind, _, mode, name in rows] == [
        (b"folder", b"700", b"a"),
        (b"file", b"640", b"b"),
        (b"link", b"777", b"c"),
        (b"other", b"600", b"d"),
    ]
    assert rows[1][1] == b"5"


def test_list_keeps_a_name_that_is_no_text(tmp_path, capfdbinary):
    open(os.fsencode(tmp_path) + b"/\xff\n", "wb").close()
    perform(b"list", tmp_path)
    assert capfdbinary.readouterr().out.endswith(b" \xff\n\0")


def test_list_of_a_folder_behind_a_link_is_refused(tmp_path):
    (tmp_path / "link").symlink_to("/etc")
    assert refusal(b"list", tmp_path / "link") in {errno.ENOTDIR, errno.ELOOP}


def test_folder_made_to_be_endless_is_refused(tmp_path, monkeypatch, capfdbinary):
    for number in range(4):
        (tmp_path / str(number)).touch()
    monkeypatch.setattr(fileops, "_MAXIMUM_ENTRIES", 3)
    assert refusal(b"list", tmp_path) == errno.E2BIG
    assert capfdbinary.readouterr().out == b""


def test_entry_that_goes_while_it_is_listed_is_left_out(tmp_path, monkeypatch, capfdbinary):
    (tmp_path / "here").touch()
    real = os.listdir
    monkeypatch.setattr(os, "listdir", lambda handle: [*real(handle), "gone"])
    perform(b"list", tmp_path)
    assert capfdbinary.readouterr().out.count(b"\0") == 1


def test_folder_is_made_with_its_mode(tmp_path):
    perform(b"make_folder", tmp_path / "made", b"700")
    assert stat.S_IMODE((tmp_path / "made").stat().st_mode) == 0o700
    assert refusal(b"make_folder", tmp_path / "made", b"700") == errno.EEXIST


def test_remove_takes_a_file_a_link_and_an_empty_folder_and_no_other(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("full")
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full/kept").touch()
    for name in ("file", "link", "empty"):
        perform(b"remove", tmp_path / name)
    assert refusal(b"remove", tmp_path / "full") == errno.ENOTEMPTY
    assert sorted(os.listdir(tmp_path)) == ["full"]
