"""Trees of mounts, deletion of what untrusted code left, and the one door to the kernel."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import textwrap

import pytest

from kavach.linux import libc, mounts, trees, uapi

pytestmark = pytest.mark.needs("linux")
DEADLINE_S = 60
SYS_CHDIR = 80 if uapi.IS_X86_64 else 49

PRELUDE = """
import errno, json, os, sys
from kavach.linux import libc, mounts, namespaces, uapi

def attempt(act):
    try:
        act()
    except OSError as error:
        return errno.errorcode.get(error.errno, error.errno)
    return "ok"

def rows(prefix=b""):
    with open("/proc/self/mountinfo", "rb") as handle:
        return [row for row in mounts.read_mountinfo(handle.read()) if row[0].startswith(prefix)]

def inside(act):
    uid, gid = os.getuid(), os.getgid()
    ready, go = os.pipe()
    child = namespaces.clone(uapi.CLONE_NEWUSER | uapi.CLONE_NEWNS)
    if child:
        namespaces.write_id_maps(child, b"0 %d 1" % uid, b"0 %d 1" % gid, deny_setgroups=True)
        os.write(go, b"x")
        raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    os.read(ready, 1)
    mounts.make_private()
    act()

top = sys.argv[1].encode()
"""


@pytest.fixture
def victim(tmp_path):
    def run(body):
        done = subprocess.run(
            [sys.executable, "-c", PRELUDE + textwrap.dedent(body), str(tmp_path)],
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


@pytest.mark.userns
def test_attributes_of_a_tree_hold_for_the_mounts_below_it(victim):
    outcomes, options = victim("""
        def act():
            os.makedirs(top + b"/a/b")
            os.mkdir(top + b"/copy")
            mounts.mount(b"kavach", top + b"/a", b"tmpfs", 0, b"")
            os.mkdir(top + b"/a/b")
            mounts.mount(b"kavach", top + b"/a/b", b"tmpfs", 0, b"")
            open(top + b"/a/b/before", "w").close()
            tree = mounts.open_tree(top + b"/a", uapi.MOUNT_ATTR_RDONLY | uapi.MOUNT_ATTR_NOSUID)
            assert mounts.is_folder(tree)
            mounts.attach(tree, top + b"/copy")
            where = (b"/copy/x", b"/copy/b/x")
            outcomes = [attempt(lambda: open(top + one, "w").close()) for one in where]
            print(json.dumps([outcomes, sorted(row[1].decode() for row in rows(top + b"/copy"))]))
        inside(act)
    """)
    assert outcomes == ["EROFS", "EROFS"]
    assert len(options) == 2
    assert all({"ro", "nosuid"} <= set(one.split(",")) for one in options)


@pytest.mark.userns
def test_nothing_of_the_old_root_is_reachable_after_the_pivot(victim):
    found = victim("""
        def act():
            os.mkdir(top + b"/root")
            mounts.mount(b"kavach", top + b"/root", b"tmpfs", 0, b"")
            os.mkdir(top + b"/root/proc")
            tree = mounts.open_tree(b"/proc", 0)
            mounts.attach(tree, top + b"/root/proc")
            mounts.pivot(top + b"/root")
            print(json.dumps([os.listdir("/"), os.listdir(".."), os.getcwd(), sorted(row[0].decode() for row in rows() if not row[0].startswith(b"/proc"))]))
        inside(act)
    """)
    assert found == [["proc"], ["proc"], "/", ["/"]]


@pytest.mark.userns
def test_tree_of_a_path_that_is_not_there_leaves_no_descriptor(victim):
    found = victim("""
        def act():
            before = len(os.listdir("/proc/self/fd"))
            said = [attempt(lambda: mounts.open_tree(top + b"/none", 0)), attempt(lambda: mounts.open_tree(top, 1 << 40))]
            print(json.dumps([said, len(os.listdir("/proc/self/fd")) - before]))
        inside(act)
    """)
    assert found == [["ENOENT", "EINVAL"], 0]


def test_mountinfo_is_read_with_its_escapes():
    text = b"22 1 0:5 / /a\\040b\\134c rw,nosuid shared:1 - tmpfs src rw\n23 1 0:6 / /proc ro - proc proc rw\n"
    assert mounts.read_mountinfo(text) == [
        (b"/a b\\c", b"rw,nosuid", b"tmpfs", b"src"),
        (b"/proc", b"ro", b"proc", b"proc"),
    ]
    with pytest.raises(ValueError, match="mountinfo"):
        mounts.read_mountinfo(b"nonsense\n")


def deep_folder(top, levels):
    os.mkdir(top)
    here = os.open(top, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)


def test_deep_tree_is_removed(tmp_path):
    top = os.fsencode(tmp_path / "deep")
    deep_folder(top, 5_000)
    assert trees.remove_tree(top) is True
    assert not os.path.exists(top)


def test_links_are_removed_and_never_followed(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o755)
    (outside / "kept").write_text("kept")
    top = tmp_path / "top"
    (top / "a/b").mkdir(parents=True)
    for place in ("link", "a/link", "a/b/link"):
        (top / place).symlink_to(outside)
    os.mkfifo(top / "a/pipe")
    assert trees.remove_tree(os.fsencode(top)) is True
    assert not top.exists()
    assert (outside / "kept").read_text() == "kept"
    assert outside.stat().st_mode & 0o777 == 0o755


def test_folder_that_is_itself_a_link_is_left_alone(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").touch()
    (tmp_path / "top").symlink_to(outside)
    assert trees.remove_tree(os.fsencode(tmp_path / "top")) is False
    assert (outside / "kept").exists()


def test_unreadable_folders_are_removed_all_the_same(tmp_path):
    top = tmp_path / "top"
    (top / "a/b/c").mkdir(parents=True)
    (top / "a/b/c/file").touch()
    for place in ("a/b/c", "a/b", "a", "."):
        (top / place).chmod(0)
    assert trees.remove_tree(os.fsencode(top)) is True
    assert not top.exists()


def test_folder_that_is_gone_already_is_gone(tmp_path):
    assert trees.remove_tree(os.fsencode(tmp_path / "none")) is True


def test_negative_numbers_and_bytes_and_null_reach_the_kernel_as_they_are(tmp_path):
    place = tmp_path / "here"
    place.mkdir()
    before = os.getcwd()
    assert libc.syscall(SYS_CHDIR, os.fsencode(place)) == 0
    try:
        assert os.getcwd() == str(place)
    finally:
        os.chdir(before)
    with pytest.raises(OSError, match="descriptor") as caught:
        libc.syscall(uapi.SYS_PIDFD_SEND_SIGNAL, -1, 0, None, 0)
    assert caught.value.errno == errno.EBADF


def test_refusal_is_an_os_error_with_the_kernels_number():
    with pytest.raises(OSError, match="address") as caught:
        libc.syscall(SYS_CHDIR, None)
    assert caught.value.errno == errno.EFAULT
    with pytest.raises(OSError, match="implemented") as caught:
        libc.syscall(9999)
    assert libc.is_missing(caught.value)


def test_buffer_is_written_by_the_kernel_and_keeps_its_length():
    held = libc.buffer(b"ab\0cd")
    assert held.raw == b"ab\0cd"
    reading, writing = os.pipe()
    os.write(writing, b"hello")
    room = libc.buffer(5)
    assert libc.syscall(0 if uapi.IS_X86_64 else 63, reading, room, 5) == 5
    assert room.raw == b"hello"
    assert libc.address(room) > 0
    os.close(reading)
    os.close(writing)
