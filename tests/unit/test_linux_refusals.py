"""What the kernel words do with each refusal: which one is an answer, which one has another way, which one goes on."""

from __future__ import annotations

import errno
import os
import resource
import stat
import struct
import sys

import pytest

from kavach.linux import confine, host_attempt, landlock, libc, mounts, namespaces, notify, trees, uapi


@pytest.fixture
def kernel(monkeypatch):
    """Return a function that lets every system call of the module under test get these answers, one after another."""

    def answers(*given):
        left, calls = list(given), []

        def syscall(number, *arguments):
            calls.append((number, *arguments))
            answer = left.pop(0) if left else 0
            if isinstance(answer, int) and answer >= 0:
                return answer
            raise OSError(-answer, os.strerror(-answer))

        monkeypatch.setattr(libc, "syscall", syscall)
        return calls

    return answers


def refusal(act):
    with pytest.raises(OSError) as caught:
        act()
    return caught.value.errno


def descriptors():
    return sorted(os.listdir("/proc/self/fd"))


# a path without links


@pytest.fixture
def tree(tmp_path):
    top = os.path.realpath(tmp_path)
    os.makedirs(f"{top}/a/b")
    os.symlink("a", f"{top}/link")
    os.symlink("b", f"{top}/a/last")
    return os.fsencode(top)


@pytest.mark.parametrize("path", [b"/link/b", b"/a/last", b"/link"])
def test_link_anywhere_in_a_path_is_refused_with_and_without_openat2(tree, kernel, path):
    before = descriptors()
    assert refusal(lambda: mounts._open_without_links(tree + path)) == errno.ELOOP
    kernel(-errno.ENOSYS)
    assert refusal(lambda: mounts._open_without_links(tree + path)) == errno.ELOOP
    assert descriptors() == before


def test_path_without_links_is_opened_where_the_outer_filter_hides_openat2(tree, kernel):
    kernel(-errno.ENOSYS)
    handle = mounts._open_without_links(tree + b"//a/b/")
    assert os.readlink(f"/proc/self/fd/{handle}") == os.fsdecode(tree + b"/a/b")
    os.close(handle)


def test_missing_path_is_missing_by_either_way_and_leaves_no_descriptor(tree, kernel):
    before = descriptors()
    assert refusal(lambda: mounts._open_without_links(tree + b"/a/none/c")) == errno.ENOENT
    kernel(-errno.ENOSYS)
    assert refusal(lambda: mounts._open_without_links(tree + b"/a/none/c")) == errno.ENOENT
    assert descriptors() == before


def test_refusal_of_openat2_itself_is_not_walked_around(tree, kernel):
    kernel(-errno.EACCES)
    assert refusal(lambda: mounts._open_without_links(tree + b"/a")) == errno.EACCES


# landlock's questions


@pytest.mark.parametrize(("answer", "found"), [(0b101, 0b101), (0, 0), (-errno.EINVAL, 0)])
def test_errata_are_none_where_the_kernel_cannot_say(kernel, answer, found):
    kernel(answer)
    assert landlock.errata() == found


def test_errata_without_landlock_are_an_error(kernel):
    kernel(-errno.ENOSYS)
    assert refusal(landlock.errata) == errno.ENOSYS


def test_ruleset_that_is_none_is_refused_and_left_open(kernel, tmp_path):
    handle = os.open(tmp_path, os.O_RDONLY)
    kernel(handle)
    assert refusal(lambda: landlock.create_ruleset(1, 0, 0)) == errno.EPROTO
    os.fstat(handle)
    os.close(handle)


def test_attribute_is_no_longer_than_what_it_asks(kernel):
    calls = kernel(-errno.E2BIG, -errno.E2BIG, -errno.E2BIG)
    for asked in ((1, 0, 0), (1, 2, 0), (1, 2, 4)):
        assert refusal(lambda asked=asked: landlock.create_ruleset(*asked)) == errno.E2BIG
    assert [call[1] for call in calls] == [struct.pack("=Q", 1), struct.pack("=QQ", 1, 2), struct.pack("=QQQ", 1, 2, 4)]


@pytest.mark.parametrize("port", [-1, 65536])
def test_port_that_is_none_never_reaches_the_kernel(kernel, port):
    calls = kernel()
    with pytest.raises(ValueError, match="0 to 65535"):
        landlock.add_port(3, port, 1)
    assert calls == []


def test_rule_on_a_file_leaves_out_what_only_folders_have(kernel, tmp_path):
    (tmp_path / "f").touch()
    handle = os.open(tmp_path / "f", os.O_PATH)
    calls = kernel()
    folder_only = landlock.landlock_abi.LANDLOCK_ACCESS_FS_READ_DIR
    assert landlock.add_path(3, handle, folder_only) == 0
    assert calls == []
    os.close(handle)


# processes and their limits


def test_clone_into_a_group_falls_back_where_a_container_hides_clone3(kernel):
    calls = kernel(-errno.ENOSYS, 4711)
    assert namespaces.clone(0, 9) == 4711
    assert [call[0] for call in calls] == [uapi.SYS_CLONE3, uapi.SYS_CLONE]


def test_clone_that_is_refused_makes_no_process_in_the_wrong_group(kernel):
    calls = kernel(-errno.EBUSY)
    assert refusal(lambda: namespaces.clone(0, 9)) == errno.EBUSY
    assert len(calls) == 1


def test_clone_without_a_group_is_one_call(kernel):
    calls = kernel(4711)
    assert namespaces.clone(uapi.CLONE_NEWUSER) == 4711
    assert calls[0][:2] == (uapi.SYS_CLONE, uapi.CLONE_NEWUSER | uapi.SIGCHLD)


def test_child_that_cannot_join_its_group_ends_at_once(kernel, monkeypatch, tmp_path):
    ended = []
    monkeypatch.setattr(os, "_exit", ended.append)
    folder = os.open(tmp_path, os.O_RDONLY)
    kernel(-errno.ENOSYS, 0)
    namespaces.clone(0, folder)
    assert ended == [1]
    (tmp_path / "cgroup.procs").touch()
    kernel(-errno.ENOSYS, 0)
    namespaces.clone(0, folder)
    assert ended == [1]
    assert (tmp_path / "cgroup.procs").read_bytes() == b"0"
    os.close(folder)


def test_bounding_set_is_emptied_up_to_the_last_capability_that_the_kernel_knows(kernel):
    calls = kernel(0, 0, 0, -errno.EINVAL)
    confine.empty_bounding_set()
    assert [call[2] for call in calls] == [0, 1, 2, 3]


@pytest.mark.parametrize("answers", [(-errno.EPERM,), (-errno.EINVAL,)])
def test_bounding_set_that_cannot_be_emptied_is_an_error(kernel, answers):
    kernel(*answers)
    assert refusal(confine.empty_bounding_set) == -answers[0]


@pytest.mark.parametrize("answers", [(0,), (-errno.ENOSYS,), (-errno.EOPNOTSUPP,), (-errno.EPERM, -errno.EPERM)])
def test_session_keyring_is_left_or_out_of_everybody_s_reach(kernel, answers):
    kernel(*answers)
    confine.join_new_session_keyring()


@pytest.mark.parametrize("second", [-errno.EOPNOTSUPP, 0])
def test_session_keyring_that_stays_within_reach_is_an_error(kernel, second):
    kernel(-errno.EDQUOT, second)
    assert refusal(confine.join_new_session_keyring) == errno.EDQUOT


def test_descriptors_are_closed_around_those_that_are_kept(kernel):
    calls = kernel()
    confine.close_all_but((7, 0, 3))
    assert [call[1:3] for call in calls] == [(1, 2), (4, 6), (8, 0xFFFFFFFF)]


@pytest.mark.parametrize("answer", [errno.ENOSYS, errno.EPERM])
def test_descriptors_are_closed_one_by_one_where_the_filter_hides_close_range(kernel, monkeypatch, answer):
    closed = []
    monkeypatch.setattr(os, "closerange", lambda *given: closed.append(given))
    kernel(-answer, -answer)
    confine.close_all_but((3,))
    top = min(resource.getrlimit(resource.RLIMIT_NOFILE)[1], 1 << 20)
    assert closed == [(0, 3), (4, top + 1)]


def test_refusal_to_close_descriptors_is_an_error(kernel, monkeypatch):
    monkeypatch.setattr(os, "closerange", lambda *_: pytest.fail("nothing is closed where the kernel has an error"))
    kernel(-errno.EINVAL)
    assert refusal(lambda: confine.close_all_but(())) == errno.EINVAL


@pytest.mark.parametrize(
    ("wanted", "ceiling", "given"),
    [
        (10, resource.RLIM_INFINITY, 10),
        (10, 5, 5),
        (5, 10, 5),
        (resource.RLIM_INFINITY, 10, 10),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, resource.RLIM_INFINITY),
    ],
)
def test_limit_is_never_above_the_hard_limit_that_is_there(monkeypatch, wanted, ceiling, given):
    seen = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (ceiling, ceiling))
    monkeypatch.setattr(resource, "setrlimit", lambda number, pair: seen.append((number, pair)))
    confine.set_limits(((7, wanted, wanted),))
    assert seen == [(7, (given, given))]


def test_limit_that_is_refused_is_an_error_that_names_it(monkeypatch):
    def refuse(*_):
        raise ValueError("not allowed to raise maximum limit")

    monkeypatch.setattr(resource, "setrlimit", refuse)
    with pytest.raises(OSError, match="limit 7"):
        confine.set_limits(((7, 1, 1),))


# namespaces tried in a victim


@pytest.mark.parametrize(
    ("returncode", "output", "answer"),
    [
        (0, b" 0 ", ("", 0, ())),
        (0, b"unshare_user 1 ", ("unshare_user", 1, ())),
        (0, b"fresh_proc 1 net,cgroup", ("fresh_proc", 1, ("net", "cgroup"))),
        (0, b" 0 net,unheard-of", ("", 0, ("net",))),
        (1, b"unshare_user 1 ", (host_attempt.NOT_RUN, 0, ())),
        (0, b"nonsense 1 ", (host_attempt.NOT_RUN, 0, ())),
        (0, b"unshare_user x ", (host_attempt.NOT_RUN, 0, ())),
        (0, b"", (host_attempt.NOT_RUN, 0, ())),
        (0, b"\xff\xff", (host_attempt.NOT_RUN, 0, ())),
    ],
)
def test_victim_s_words_are_believed_only_in_their_form(returncode, output, answer):
    seen = []
    assert host_attempt.attempt_namespaces(lambda argv: seen.append(argv) or (returncode, output)) == answer
    assert seen[0][:4] == [sys.executable, "-I", "-S", "-c"]


@pytest.fixture
def victim(monkeypatch, kernel):
    """Let the acts of a victim be tried without leaving this process in new namespaces."""
    done = []
    monkeypatch.setattr(host_attempt, "_map_ids", lambda *ids: done.append("map"))
    monkeypatch.setattr(mounts, "make_private", lambda: done.append("private"))
    monkeypatch.setattr(mounts, "mount", lambda *given: done.append(("mount", given[1])))
    monkeypatch.setattr(os, "posix_spawn", lambda *_: done.append("proc") or 0)
    monkeypatch.setattr(os, "waitpid", lambda *_: (0, 0))
    return kernel, done, monkeypatch


def test_victim_that_may_do_everything_tries_everything(victim):
    kernel, done, _ = victim
    calls = kernel()
    assert host_attempt.enter_namespaces("/src") == ("", 0, "")
    assert done == ["map", "private", ("mount", b"/proc"), "proc"]
    assert [call[1] for call in calls[:-1]] == [uapi.CLONE_NEWUSER, *host_attempt._KINDS.values()]
    assert calls[-1][0] == uapi.SYS_UMOUNT2


def test_victim_that_may_not_have_a_user_namespace_tries_nothing_else(victim):
    kernel, done, _ = victim
    kernel(-errno.EPERM)
    assert host_attempt.enter_namespaces("/src") == ("unshare_user", errno.EPERM, "")
    assert done == []


def test_victim_without_a_mount_namespace_mounts_nothing_on_the_host(victim):
    kernel, done, _ = victim
    kernel(0, -errno.EPERM)  # mnt is the first of the kinds
    assert host_attempt.enter_namespaces("/src") == ("", 0, "mnt")
    assert done == ["map"]


def test_victim_that_gets_no_kind_at_all_says_so(victim):
    kernel, done, _ = victim
    kernel(0, *[-errno.ENOSPC] * len(host_attempt._KINDS))
    assert host_attempt.enter_namespaces("/src") == ("unshare_rest", errno.ENOSPC, "")
    assert done == ["map"]


@pytest.mark.parametrize(("status", "code"), [(errno.EPERM << 8, errno.EPERM), (9, errno.ECHILD)])
def test_proc_that_cannot_be_mounted_in_the_pid_namespace_is_named(victim, status, code):
    kernel, _, patch = victim
    kernel()
    patch.setattr(os, "waitpid", lambda *_: (0, status))
    assert host_attempt.enter_namespaces("/src") == ("fresh_proc", code, "")


def test_ids_are_mapped_to_root_and_groups_denied_first(monkeypatch, tmp_path):
    real = open
    written = []

    def kept(path, *given, **more):
        written.append(os.path.basename(path))
        return real(tmp_path / os.path.basename(path), *given, **more)

    monkeypatch.setattr("builtins.open", kept)
    host_attempt._map_ids(1000, 1001)
    assert written == ["setgroups", "uid_map", "gid_map"]
    assert [(tmp_path / name).read_bytes() for name in written] == [b"deny", b"0 1000 1", b"0 1001 1"]


@pytest.mark.parametrize(("raised", "answer"), [(None, 0), (OSError(errno.EPERM, "no"), 1), (OSError("odd"), 5)])
def test_victim_inside_says_how_its_mount_went(monkeypatch, raised, answer):
    def mount(*given):
        assert given[1:3] == (b"/proc", b"proc")
        if raised is not None:
            raise raised

    monkeypatch.setattr(mounts, "mount", mount)
    assert host_attempt.mount_fresh_proc() == answer


# a folder that untrusted code has filled


def test_folder_closed_to_its_owner_is_opened_and_removed(tmp_path):
    top = tmp_path / "top"
    (top / "in/deep").mkdir(parents=True)
    (top / "in/deep/f").touch()
    (top / "in").chmod(0)
    top.chmod(0)
    assert trees.remove_tree(os.fsencode(top)) is True
    assert os.listdir(tmp_path) == []


def test_folder_that_may_not_be_opened_is_made_so_once(tmp_path, monkeypatch):
    top = tmp_path / "top"
    top.mkdir()
    real, refused = os.open, []

    def refuse(path, *given, **more):
        if path == os.fsencode(top) and not refused:
            refused.append(path)
            raise PermissionError(errno.EACCES, "no")
        return real(path, *given, **more)

    monkeypatch.setattr(os, "open", refuse)
    top.chmod(0)
    assert trees.remove_tree(os.fsencode(top)) is True


@pytest.mark.parametrize(
    "plant", [os.mkfifo, lambda path: os.symlink("/", path), lambda path: os.close(os.open(path, os.O_CREAT))]
)
def test_what_is_no_folder_is_left_where_it_is(tmp_path, plant):
    plant(tmp_path / "top")
    assert trees.remove_tree(os.fsencode(tmp_path / "top")) is False
    assert stat.S_IFMT((tmp_path / "top").lstat().st_mode)


@pytest.mark.parametrize("name", ["listdir", "rmdir"])
def test_folder_that_the_kernel_holds_on_to_is_said_to_be_there(tmp_path, monkeypatch, name):
    (tmp_path / "top").mkdir()

    def refuse(*_, **__):
        raise OSError(errno.EBUSY, "busy")

    with monkeypatch.context() as patch:
        patch.setattr(os, name, refuse)
        before = descriptors() if name != "listdir" else None
        assert trees.remove_tree(os.fsencode(tmp_path / "top")) is False
        assert before is None or descriptors() == before
    assert (tmp_path / "top").is_dir()


# notifications


def test_answer_that_comes_too_late_is_said_to_be(monkeypatch):
    def ioctl(code):
        def fail(*_):
            raise OSError(code, os.strerror(code))

        return fail

    waiting = notify.Notification(1, 0, 0, 0, ())
    for code in (errno.ENOENT, errno.EINPROGRESS):
        monkeypatch.setattr(notify.fcntl, "ioctl", ioctl(code))
        assert notify.go_on(0, waiting) is False
        assert notify.refuse(0, waiting, errno.EPERM) is False
    monkeypatch.setattr(notify.fcntl, "ioctl", ioctl(errno.EBADF))
    assert refusal(lambda: notify.go_on(0, waiting)) == errno.EBADF
    assert notify.is_waiting(0, waiting) is False


@pytest.mark.parametrize("code", [errno.ENOENT, errno.EINTR])
def test_call_that_has_gone_is_no_notification(monkeypatch, code):
    def fail(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(notify.fcntl, "ioctl", fail)
    assert notify.receive(0) is None
