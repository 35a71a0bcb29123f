"""Groups whose files refuse, vanish or lie: what counts as gone, what is an error, who is never signalled."""

from __future__ import annotations

import errno
import os
import signal

import pytest

from kavach.errors import LaunchError
from kavach.launcher import kernel_groups
from kavach.linux import cgroup


def refusing(code):
    def refuse(*_, **__):
        raise OSError(code, os.strerror(code))

    return refuse


def refusal(act):
    with pytest.raises(OSError) as caught:
        act()
    return caught.value.errno


# one group's files


def test_start_time_of_a_process_that_is_gone_is_unknown(tmp_path):
    assert cgroup.read_start_time(str(tmp_path), 1) is None


def test_identity_without_proc_is_an_error(tmp_path):
    assert refusal(lambda: cgroup.find_identity(str(tmp_path))) == errno.ENOENT


def test_numbers_that_are_absent_or_unlimited_are_unknown_and_never_zero(tmp_path):
    (tmp_path / "max").write_text("max\n")
    (tmp_path / "n").write_text("12\n")
    (tmp_path / "flat").write_text("a 1\nb x\n")
    assert [cgroup.read_number(f"{tmp_path}/{name}") for name in ("max", "n", "none")] == [None, 12, None]
    assert [cgroup.read_key(f"{tmp_path}/flat", key) for key in ("a", "b", "c")] == [1, None, None]
    assert cgroup.read_key(f"{tmp_path}/none", "a") is None
    assert cgroup.read_io(f"{tmp_path}/none") is None
    (tmp_path / "io").write_text("8:0 rbytes=1 wbytes=2\n8:16 rbytes=x wbytes=3 dios=9\n")
    assert cgroup.read_io(f"{tmp_path}/io") == (1, 5)


def test_processes_of_another_namespace_are_not_named(tmp_path):
    (tmp_path / "cgroup.procs").write_text("0\n7\n7\n3\n")
    assert cgroup.read_pids(str(tmp_path)) == (3, 7)
    assert cgroup.read_pids(f"{tmp_path}/none") == ()


def test_controller_in_use_meanwhile_stays_and_the_others_go(tmp_path, monkeypatch):
    written = []

    def write(_, text):
        written.append(text)
        if text == "-memory":
            raise OSError(errno.EBUSY, "busy")

    monkeypatch.setattr(cgroup, "write_text", write)
    cgroup.disable(str(tmp_path), ("memory", "pids"))
    assert written == ["-memory", "-pids"]


@pytest.mark.parametrize(
    ("code", "is_there", "answer"),
    [(errno.ENOENT, True, False), (errno.ENOENT, False, True), (errno.ENODEV, True, True)],
)
def test_kill_is_taken_or_not_there_or_too_late(tmp_path, monkeypatch, code, is_there, answer):
    monkeypatch.setattr(cgroup, "write_text", refusing(code))
    assert cgroup.kill(str(tmp_path if is_there else tmp_path / "none")) is answer


def test_kill_that_is_refused_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(cgroup, "write_text", refusing(errno.EACCES))
    assert refusal(lambda: cgroup.kill(str(tmp_path))) == errno.EACCES


def test_state_that_is_not_said_in_time_is_not_believed(tmp_path):
    (tmp_path / "cgroup.events").write_text("populated 1\nfrozen 0\n")
    (tmp_path / "cgroup.freeze").touch()
    assert cgroup.wait_events(str(tmp_path), "frozen", 1, 0) is False
    assert cgroup.wait_events(str(tmp_path), "populated", 1, 0) is True
    assert cgroup.freeze(str(tmp_path), 1, 0) is False
    assert (tmp_path / "cgroup.freeze").read_text() == "1"


class Listed:
    """A group's list of processes, as it is read one time after the other."""

    def __init__(self, monkeypatch, *reads):
        self.reads, self.sent = list(reads), []
        monkeypatch.setattr(cgroup, "read_pids", lambda _: self.reads.pop(0) if self.reads else ())
        monkeypatch.setattr(signal, "pidfd_send_signal", lambda handle, number: self.sent.append(number))


def test_listed_process_is_killed_and_looked_for_again(monkeypatch):
    me = os.getpid()
    group = Listed(monkeypatch, (me,), (me,), ())
    assert cgroup.kill_listed("/g", 5) is True
    assert group.sent == [signal.SIGKILL]


def test_number_given_out_again_meanwhile_is_not_killed(monkeypatch):
    group = Listed(monkeypatch, (os.getpid(),), (), ())
    assert cgroup.kill_listed("/g", 5) is True
    assert group.sent == []


def test_listed_process_that_is_gone_is_passed_over(monkeypatch):
    gone = os.posix_spawn("/bin/true", ["true"], {})
    os.waitpid(gone, 0)
    group = Listed(monkeypatch, (gone,), ())
    assert cgroup.kill_listed("/g", 5) is True
    assert group.sent == []


def test_process_that_ends_before_its_signal_is_passed_over(monkeypatch):
    me = os.getpid()
    Listed(monkeypatch, (me,), (me,), ())
    monkeypatch.setattr(signal, "pidfd_send_signal", refusing(errno.ESRCH))
    assert cgroup.kill_listed("/g", 5) is True


def test_group_that_never_empties_is_said_to_hold_processes(monkeypatch):
    me = os.getpid()
    monkeypatch.setattr(cgroup, "read_pids", lambda _: (me,))
    monkeypatch.setattr(signal, "pidfd_send_signal", lambda *_: None)
    assert cgroup.kill_listed("/g", 2) is False


def test_group_is_removed_with_all_below_it_leaves_first(tmp_path):
    (tmp_path / "g/a/b").mkdir(parents=True)
    assert cgroup.remove(f"{tmp_path}/g", 0) is True
    assert os.listdir(tmp_path) == []
    assert cgroup.remove(f"{tmp_path}/g", 0) is True


def test_busy_group_stays_and_is_said_to(tmp_path):
    (tmp_path / "g").mkdir()
    (tmp_path / "g/held").touch()
    assert cgroup.remove(f"{tmp_path}/g", 2) is False


def test_refusal_to_remove_a_group_is_an_error(tmp_path, monkeypatch):
    (tmp_path / "g").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(os, "rmdir", refusing(errno.EPERM))
        assert refusal(lambda: cgroup.remove(f"{tmp_path}/g", 0)) == errno.EPERM


# a sandbox's groups


def test_whole_tree_is_killed_by_the_kernel_where_it_can(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(cgroup, "kill", lambda _: True)
    monkeypatch.setattr(cgroup, "wait_events", lambda *given: asked.append(given[1:]) or True)
    assert kernel_groups._kill_tree(str(tmp_path), 7) is True
    assert asked == [("populated", 0, 7)]


@pytest.mark.parametrize("code", [errno.ENOENT, errno.ENODEV])
def test_tree_that_goes_while_it_is_killed_is_gone(tmp_path, monkeypatch, code):
    monkeypatch.setattr(cgroup, "kill", lambda _: True)
    monkeypatch.setattr(cgroup, "wait_events", refusing(code))
    assert kernel_groups._kill_tree(str(tmp_path), 1) is True


def test_tree_that_may_not_be_killed_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(cgroup, "kill", refusing(errno.EACCES))
    assert refusal(lambda: kernel_groups._kill_tree(str(tmp_path), 1)) == errno.EACCES


@pytest.mark.parametrize("stubborn", [False, True])
def test_tree_of_an_old_kernel_is_killed_group_by_group(tmp_path, monkeypatch, stubborn):
    (tmp_path / "init").mkdir()
    (tmp_path / "exec-1").mkdir()
    seen = []
    monkeypatch.setattr(cgroup, "kill", lambda _: False)
    monkeypatch.setattr(
        cgroup, "kill_listed", lambda path, _: seen.append(path) or not (stubborn and path.endswith("init"))
    )
    assert kernel_groups._kill_tree(str(tmp_path), 1) is not stubborn
    assert seen == [str(tmp_path), f"{tmp_path}/exec-1", f"{tmp_path}/init"]


@pytest.mark.parametrize(("populated", "answer"), [("1", True), ("0", False)])
def test_only_a_group_with_processes_can_be_frozen(tmp_path, monkeypatch, populated, answer):
    (tmp_path / "cgroup.events").write_text(f"populated {populated}\nfrozen 0\n")
    monkeypatch.setattr(cgroup, "freeze", lambda *_: True)
    assert kernel_groups._freeze(str(tmp_path), 1, 1) is answer


def test_kernel_without_a_freezer_freezes_nothing(tmp_path, monkeypatch):
    (tmp_path / "cgroup.events").write_text("populated 1\n")
    monkeypatch.setattr(cgroup, "freeze", refusing(errno.ENOENT))
    assert kernel_groups._freeze(str(tmp_path), 1, 1) is False


def test_leaf_that_cannot_be_made_or_given_away_runs_nothing(tmp_path):
    with pytest.raises(LaunchError, match="nothing was run") as caught:
        kernel_groups._make_leaf(f"{tmp_path}/none", "exec1", None)
    assert (caught.value.step, caught.value.errno) == ("cgroup", errno.ENOENT)
    with pytest.raises(LaunchError, match=r"giving .*cgroup\.procs") as caught:
        kernel_groups._make_leaf(str(tmp_path), "exec1", (65534, 65534))
    assert caught.value.errno == errno.ENOENT


@pytest.mark.parametrize("name", ["", "..", "a/b", "a b", "x" * 65])
def test_leaf_whose_name_could_leave_its_folder_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match="letters, digits"):
        kernel_groups._make_leaf(str(tmp_path), name, None)
    assert os.listdir(tmp_path) == []
