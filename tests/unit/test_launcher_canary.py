"""Acts that must fail: each is tried once, in its phase, and its bare errno is what is reported."""

from __future__ import annotations

import errno
import os
import socket

import pytest

from kavach.launcher.canary import ACTS, AFTER_LANDLOCK, BEFORE_LANDLOCK, FINAL, attempt


def tried(act, *arguments):
    """Return the errno that one act reports, 0 where it worked."""
    ((name, phase, code),) = attempt(((FINAL, b"row", act, *arguments),), FINAL)
    assert (name, phase) == (b"row", FINAL)
    return code


def test_only_the_rows_of_the_phase_are_tried(tmp_path):
    path = os.fsencode(tmp_path / "x")
    rows = ((BEFORE_LANDLOCK, b"a", b"open", path), (FINAL, b"b", b"signal", os.getpid()))
    assert attempt(rows, FINAL) == [(b"b", FINAL, 0)]
    assert attempt(rows, BEFORE_LANDLOCK) == [(b"a", BEFORE_LANDLOCK, errno.ENOENT)]
    assert attempt(rows, AFTER_LANDLOCK) == []


def test_error_without_a_number_is_no_success(monkeypatch):
    def fail(_):
        raise OSError("no number")

    monkeypatch.setitem(ACTS, b"signal", fail)
    assert tried(b"signal", 1) == -1


def test_signal_to_a_process_that_is_gone_is_told_from_one_that_lives():
    child = os.posix_spawn("/bin/true", ["true"], {})
    os.waitpid(child, 0)
    assert tried(b"signal", child) == errno.ESRCH
    assert tried(b"signal", os.getpid()) == 0


@pytest.mark.parametrize(("kind", "act"), [(socket.SOCK_STREAM, b"pathname"), (socket.SOCK_DGRAM, b"abstract")])
def test_unix_socket_is_reached_where_one_listens_and_not_elsewhere(tmp_path, kind, act):
    name = os.fsencode(tmp_path / "s")
    with socket.socket(socket.AF_UNIX, kind) as server:
        server.bind((b"\0" if act == b"abstract" else b"") + name)
        if kind == socket.SOCK_STREAM:
            server.listen()
        assert tried(act, name) == 0
    assert tried(act, name) == errno.ECONNREFUSED


def test_tcp_port_that_listens_answers_at_once_or_is_under_way():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert tried(b"tcp", b"127.0.0.1", port) in {0, errno.EINPROGRESS}
        assert tried(b"bind", port) == errno.EADDRINUSE
    assert tried(b"udp", b"127.0.0.1", port) == 0
    assert tried(b"bind", 0) == 0


def test_file_that_could_be_made_is_gone_again(tmp_path):
    assert tried(b"create", os.fsencode(tmp_path / "made")) == 0
    assert os.listdir(tmp_path) == []
    (tmp_path / "there").touch()
    assert tried(b"create", os.fsencode(tmp_path / "there")) == errno.EEXIST
    assert os.listdir(tmp_path) == ["there"]


def test_open_does_not_wait_for_a_pipe_s_writer(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert tried(b"open", os.fsencode(tmp_path / "pipe")) == 0
    assert tried(b"open", os.fsencode(tmp_path / "absent")) == errno.ENOENT


def test_access_asks_and_does_not_open(tmp_path):
    (tmp_path / "f").touch()
    assert tried(b"access", os.fsencode(tmp_path / "f")) == 0
    assert tried(b"access", os.fsencode(tmp_path / "absent")) == errno.EACCES


@pytest.mark.root
def test_device_that_could_be_made_is_gone_again(tmp_path):
    assert tried(b"device", os.fsencode(tmp_path / "null")) == 0
    assert os.listdir(tmp_path) == []


@pytest.mark.plain
def test_device_is_refused_to_a_plain_user(tmp_path):
    assert tried(b"device", os.fsencode(tmp_path / "null")) == errno.EPERM


def test_calls_that_no_privilege_allows_show_the_kernel_s_own_refusal():
    assert tried(b"ptrace") == errno.ESRCH
    assert tried(b"add_key") == errno.EFAULT


def test_no_act_leaves_a_descriptor_open(tmp_path):
    before = sorted(os.listdir("/proc/self/fd"))
    for act, *arguments in (
        (b"create", os.fsencode(tmp_path / "x")),
        (b"open", os.fsencode(tmp_path)),
        (b"pathname", os.fsencode(tmp_path / "none")),
        (b"tcp", b"127.0.0.1", 9),
        (b"bind", 0),
    ):
        tried(act, *arguments)
    assert sorted(os.listdir("/proc/self/fd")) == before
