"""What a call names, and where a path leads for somebody else."""

from __future__ import annotations

import errno
import os
import socket
import struct

import pytest

from kavach.launcher import watch_paths
from kavach.launcher.watch_outcome import Rules, path_attempt
from kavach.launcher.watch_paths import Ids, allows, walk
from kavach.launcher.watch_sight import PathUse, Peer, _opened, read_address
from kavach.policy.learn import Access, Cause

ME = os.getpid()
NOBODY = Ids(65534, frozenset({65534}))
MINE = Ids(os.geteuid(), frozenset({os.getegid(), *os.getgroups()}))


@pytest.mark.parametrize(
    ("raw", "peer"),
    [
        (struct.pack("=H", socket.AF_INET) + b"\x01\xbb\x0a\x00\x00\x01" + bytes(8), Peer("inet", "10.0.0.1", 443)),
        (
            struct.pack("=H", socket.AF_INET6) + b"\x00\x35" + bytes(4) + bytes(15) + b"\x01" + bytes(4),
            Peer("inet", "::1", 53),
        ),
        (struct.pack("=H", socket.AF_UNIX) + b"/run/x\0junk", Peer("unix", "/run/x")),
        (struct.pack("=H", socket.AF_UNIX) + b"\0abc", Peer("abstract", "abc")),
        (struct.pack("=H", socket.AF_UNIX), None),
        (struct.pack("=H", 40) + bytes(14), None),
    ],
)
def test_an_address_is_read_by_its_family(raw, peer):
    assert read_address(raw) == peer


@pytest.mark.parametrize("raw", [b"", b"\x02", b"\x02\x00\x01", b"\x0a\x00" + bytes(10)])
def test_an_address_cut_short_is_an_error_not_a_guess(raw):
    with pytest.raises(struct.error):
        read_address(raw)


@pytest.mark.parametrize(
    ("flags", "access"),
    [
        (os.O_RDONLY, Access.READ),
        (os.O_RDONLY | os.O_DIRECTORY, Access.LIST),
        (os.O_WRONLY, Access.WRITE),
        (os.O_RDWR, Access.WRITE),
        (os.O_RDONLY | os.O_TRUNC, Access.WRITE),
        (os.O_RDONLY | os.O_CREAT, Access.WRITE),
        (os.O_WRONLY | os.O_CREAT | os.O_EXCL, Access.CREATE),
        (os.O_PATH, Access.LOOK),
        (os.O_TMPFILE | os.O_RDWR, Access.CREATE),
    ],
)
def test_the_flags_of_open_say_what_for(flags, access):
    assert _opened(PathUse(Access.READ, "/a", follow=True), flags).access is access


def test_a_link_at_the_end_is_followed_only_where_the_call_does(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to("file")
    followed = walk(ME, f"{tmp_path}/link", MINE, follow=True)
    assert followed.path == os.path.realpath(f"{tmp_path}/file")
    assert walk(ME, f"{tmp_path}/link", MINE, follow=False).path == os.path.realpath(tmp_path) + "/link"


def test_a_missing_name_behind_a_link_is_named_where_it_would_be(tmp_path):
    real = os.path.realpath(tmp_path)
    (tmp_path / "link").symlink_to(f"{real}/gone/deep")
    place = walk(ME, f"{tmp_path}/link/x", MINE, follow=True)
    assert (place.code, place.wanted, place.is_last) == (errno.ENOENT, f"{real}/gone/deep/x", False)
    assert walk(ME, f"{tmp_path}/new", MINE, follow=True).is_last


def test_dots_and_circles_end(tmp_path):
    (tmp_path / "a").mkdir()
    real = os.path.realpath(tmp_path)
    assert walk(ME, f"{real}/a/../a/./..", MINE, follow=True).path == real
    assert walk(ME, "/../../..", MINE, follow=True).path == "/"
    (tmp_path / "loop").symlink_to("loop")
    assert walk(ME, f"{real}/loop", MINE, follow=True).code == errno.ELOOP
    (tmp_path / "file").write_text("")
    assert walk(ME, f"{real}/file/x", MINE, follow=True).code == errno.ENOTDIR


def test_a_folder_that_the_command_may_not_search_ends_the_walk_there(tmp_path):
    (tmp_path / "shut").mkdir(mode=0o700)
    (tmp_path / "shut/file").write_text("x")
    assert walk(ME, f"{tmp_path}/shut/file", Ids(65533, frozenset()), follow=True).code == errno.EACCES


def test_proc_is_left_to_the_command_itself():
    assert walk(ME, "/proc/self/environ", MINE, follow=True) is None


def test_a_walk_leaves_no_descriptor_open(tmp_path):
    before = len(os.listdir("/proc/self/fd"))
    for path in (f"{tmp_path}/none", str(tmp_path), "/proc/x"):
        walk(ME, path, MINE, follow=True)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    ("mode", "owner", "group", "bits", "answer"),
    [
        (0o640, 1, 2, 4, False),
        (0o640, 65534, 2, 4, True),
        (0o640, 1, 65534, 4, True),
        (0o640, 1, 65534, 2, False),
        (0o044, 65534, 65534, 4, False),
        (0o666, 1, 2, 6, True),
    ],
)
def test_a_mode_is_read_by_the_first_class_that_fits(mode, owner, group, bits, answer):
    shifted = mode & 0o777
    assert allows(shifted, owner, group, NOBODY, bits) is answer


def test_a_pipe_is_never_opened_to_see_whether_it_is_a_program(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert not watch_paths.is_program(f"{tmp_path}/pipe")
    (tmp_path / "elf").write_bytes(b"\x7fELF....")
    assert watch_paths.is_program(f"{tmp_path}/elf")
    assert not watch_paths.is_program(f"{tmp_path}/none")


def rules(**changes):
    given = {"has_view": True, "own_network": True, "handled": (0, 0, 0), "paths": (), "deny": (), "ports": None}
    return Rules(**(given | {"network": "none", "automounts": ()} | changes))


def test_what_is_missing_here_and_there_is_nobodys_refusal(tmp_path):
    use = PathUse(Access.READ, f"{tmp_path}/none", follow=True)
    assert path_attempt(rules(), ME, MINE, "open", use, creates=False) is None


def test_a_path_below_an_automount_of_the_host_is_never_looked_at(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(os.path, "lexists", lambda path: asked.append(path) or True)
    use = PathUse(Access.READ, "/kavach-net/evil/x", follow=True)
    assert path_attempt(rules(automounts=("/kavach-net",)), ME, MINE, "open", use, creates=False) is None
    assert asked == []
    assert path_attempt(rules(), ME, MINE, "open", use, creates=False) is not None


def test_a_file_beyond_the_landlock_rules_is_refused_by_landlock(tmp_path):
    from kavach.linux import landlock_abi as abi

    real = os.path.realpath(tmp_path)
    (tmp_path / "in").mkdir()
    for name in ("in/a", "b"):
        (tmp_path / name).write_text("x")
    read = abi.LANDLOCK_ACCESS_FS_READ_FILE
    given = rules(has_view=False, handled=(read, 0, 0), paths=((f"{real}/in", read),))
    inside = PathUse(Access.READ, f"{real}/in/a", follow=True)
    outside = PathUse(Access.READ, f"{real}/b", follow=True)
    assert path_attempt(given, ME, MINE, "open", inside, creates=False) is None
    assert path_attempt(given, ME, MINE, "open", outside, creates=False).cause is Cause.LANDLOCK


def test_a_deny_rule_is_named_also_behind_a_link(tmp_path):
    real = os.path.realpath(tmp_path)
    (tmp_path / "secret").write_text("x")
    (tmp_path / "link").symlink_to("secret")
    use = PathUse(Access.READ, f"{real}/link", follow=True)
    assert path_attempt(rules(deny=(f"{real}/secret",)), ME, MINE, "open", use, creates=False).cause is Cause.DENIED
