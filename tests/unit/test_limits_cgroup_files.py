"""The words of linux.cgroup on plain files: parsing, places, and what unknown means."""

from __future__ import annotations

import errno
import os
import threading

import pytest

from kavach.linux import cgroup


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


def test_unknown_is_none_and_never_zero(tmp_path):
    assert cgroup.read_number(str(tmp_path / "absent")) is None
    assert cgroup.read_number(write(tmp_path / "a", "max\n")) is None
    assert cgroup.read_number(write(tmp_path / "b", "0\n")) == 0
    assert cgroup.read_key(write(tmp_path / "c", "oom 3\noom_kill 1\n"), "oom_kill") == 1
    assert cgroup.read_key(str(tmp_path / "c"), "oom_group_kill") is None
    assert cgroup.read_io(str(tmp_path / "absent")) is None


def test_mounts_are_found_below_the_root_with_escapes_decoded(tmp_path):
    root = tmp_path / "c g"
    point = str(root).replace(" ", "\\040")
    write(
        tmp_path / "proc/self/mountinfo",
        f"31 23 0:28 / {point} rw - tmpfs tmpfs rw\n"
        f"32 31 0:29 / {point}/cpu,cpuacct rw shared:4 master:1 - cgroup cgroup rw,cpu,cpuacct,xattr\n"
        f"33 31 0:30 /box {point}/unified rw - cgroup2 cgroup2 rw\n"
        "34 31 0:31 / /elsewhere rw - cgroup2 cgroup2 rw\n"
        f"35 31 0:32 / {point}x rw - cgroup2 cgroup2 rw\n",
    )
    unified, cpu = cgroup.find_mounts(str(root), str(tmp_path / "proc"))
    assert (unified.version, unified.point, unified.top) == (2, f"{root}/unified", "/box")
    assert (cpu.version, cpu.point, cpu.controllers) == (1, f"{root}/cpu,cpuacct", ("cpu", "cpuacct"))


def test_positions_split_comounted_controllers(tmp_path):
    write(tmp_path / "self/cgroup", "4:cpu,cpuacct:/a\n1:name=systemd:/s\n0::/user.slice/x:y\n")
    places = cgroup.find_positions(str(tmp_path))
    assert places == {"cpu": "/a", "cpuacct": "/a", "name=systemd": "/s", "": "/user.slice/x:y"}


@pytest.mark.parametrize(
    ("top", "position", "folder"),
    [
        ("/", "/", "/m"),
        ("/", "/a/b", "/m/a/b"),
        ("/docker/1", "/docker/1", "/m"),
        ("/docker/1", "/docker/1/x", "/m/x"),
        ("/docker/1", "/docker/12/x", "/m"),
        ("/", "/../../x", "/m"),
    ],
)
def test_a_position_outside_of_the_mount_becomes_the_mount_point(top, position, folder):
    assert cgroup.Mount(2, "/m", top, ()).folder(position) == folder


def test_a_start_time_survives_a_command_name_with_brackets(tmp_path):
    write(tmp_path / "7/stat", "7 (a) b) S " + " ".join(str(n) for n in range(4, 30)))
    assert cgroup.read_start_time(str(tmp_path), 7) == 22
    assert cgroup.read_start_time(str(tmp_path), 8) is None


def test_enable_reports_what_it_added_and_the_first_refusal(tmp_path):
    write(tmp_path / "cgroup.controllers", "memory pids\n")
    write(tmp_path / "cgroup.subtree_control", "memory\n")
    assert cgroup.enable(str(tmp_path), ("memory", "cpu")) == (("memory",), (), "")


def test_writing_never_creates_a_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        cgroup.write_text(str(tmp_path / "memory.max"), "1")
    assert os.listdir(tmp_path) == []


def test_pids_of_another_namespace_are_left_out(tmp_path):
    write(tmp_path / "cgroup.procs", "12\n0\n7\n7\n")
    assert cgroup.read_pids(str(tmp_path)) == (7, 12)
    assert cgroup.read_pids(str(tmp_path / "gone")) == ()


def test_a_busy_group_is_retried_until_it_is_empty(tmp_path, monkeypatch):
    folder = tmp_path / "g"
    folder.mkdir()
    real, refusals = os.rmdir, iter([errno.EBUSY, errno.EBUSY])

    def busy_twice(path):
        code = next(refusals, None)
        if code:
            raise OSError(code, os.strerror(code))
        real(path)

    monkeypatch.setattr(os, "rmdir", busy_twice)
    assert cgroup.remove(str(folder), 100)
    assert not folder.exists()


def test_a_group_that_stays_busy_is_not_gone(tmp_path):
    (tmp_path / "g").mkdir()
    write(tmp_path / "g/held", "")
    assert not cgroup.remove(str(tmp_path / "g"), 3)


def test_an_unexpected_refusal_to_remove_is_not_swallowed(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(errno.EACCES, "no", path)

    (tmp_path / "g").mkdir()
    monkeypatch.setattr(os, "rmdir", refuse)
    with pytest.raises(PermissionError):
        cgroup.remove(str(tmp_path / "g"), 3)


def test_kill_says_no_where_the_kernel_has_no_cgroup_kill(tmp_path):
    assert not cgroup.kill(str(tmp_path))
    assert cgroup.kill(str(tmp_path / "gone"))
    path = write(tmp_path / "cgroup.kill", "")
    assert cgroup.kill(str(tmp_path))
    with open(path, encoding="ascii") as file:
        assert file.read() == "1"


def test_events_are_waited_for_and_a_deadline_is_kept(tmp_path):
    events = tmp_path / "cgroup.events"
    write(events, "populated 1\nfrozen 0\n")
    assert not cgroup.wait_events(str(tmp_path), "frozen", 1, 3)
    threading.Timer(0.01, lambda: events.write_text("populated 1\nfrozen 1\n")).start()
    assert cgroup.wait_events(str(tmp_path), "frozen", 1, 2000)
    assert cgroup.wait_events(str(tmp_path), "populated", 1, 0)
