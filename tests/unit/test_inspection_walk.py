"""What can be looked at, and what is named as unknown, with this process in the place of a sandbox's first one."""

from __future__ import annotations

import os

import pytest

from kavach import LifecycleError
from kavach.gate import inspection
from kavach.gate.inspection import Subject, inspect_sandbox
from kavach.launcher.evidence import host_inodes

pytestmark = pytest.mark.needs("linux")


def look(*, writable=(), **fields):
    made = {"namespaces": frozenset(), "needs_filter": False, "needs_no_new_privs": False}
    subject = Subject(sandbox_id="sb-1", init_pid=os.getpid(), writable=tuple(map(str, writable)), **{**made, **fields})
    return inspect_sandbox(subject, host_inodes())


def refuse(*words):
    raise LifecycleError("the sandbox is paused")


def test_setuid_and_setgid_files_are_found_at_any_depth_and_folders_are_none(tmp_path):
    (tmp_path / "a/b").mkdir(parents=True)
    for name, mode in (("plain", 0o755), ("a/suid", 0o4755), ("a/b/sgid", 0o2755)):
        (tmp_path / name).touch()
        (tmp_path / name).chmod(mode)
    (tmp_path / "a/b").chmod(0o2755)
    assert look(writable=[tmp_path]).setuid == {f"{tmp_path}/a/suid", f"{tmp_path}/a/b/sgid"}


def test_no_part_of_a_path_is_followed_when_it_is_a_link(tmp_path):
    (tmp_path / "real/inner").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real")
    found = look(writable=[tmp_path / "link/inner", tmp_path / "absent"])
    assert found.unknown == (f"files in {tmp_path}/link/inner", f"files in {tmp_path}/absent")


def test_a_search_ends_at_its_budget_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(inspection, "_MOST_ENTRIES", 3)
    for number in range(5):
        (tmp_path / str(number)).touch()
    assert look(writable=[tmp_path]).unknown == (f"files in {tmp_path}: too many, or too deep",)


@pytest.mark.plain
def test_a_folder_that_cannot_be_opened_is_named(tmp_path):
    (tmp_path / "closed").mkdir(mode=0)
    assert look(writable=[tmp_path]).unknown == (f"files in {tmp_path}: a folder cannot be opened",)
    (tmp_path / "closed").chmod(0o700)


def test_the_workspace_is_reached_by_descriptor_where_no_process_shows_it(tmp_path, monkeypatch):
    monkeypatch.setattr(inspection, "_open_root", lambda subject, members: None)
    (tmp_path / "suid").touch()
    (tmp_path / "suid").chmod(0o4755)
    handed = []

    def open_workspace():
        handed.append(os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY))
        return handed[-1]

    for _ in range(2):
        assert look(writable=["/workspace"], open_workspace=open_workspace).setuid == {"/workspace/suid"}
    for handle in handed:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(handle)
    for broken in (None, refuse, lambda: os.dup(-1)):
        assert look(writable=["/workspace", "/tmp"], open_workspace=broken).unknown == (
            "files in /workspace",
            "files in /tmp",
        )


def test_a_path_that_cannot_be_tried_is_unknown_and_not_readable():
    found = look(sensitive=("/x",), can_read=refuse)
    assert (found.readable, found.unknown) == (frozenset(), ("whether /x can be read",))
    assert look(sensitive=("/x", "/y"), can_read="/x".__eq__).readable == {"/x"}
    assert look(sensitive=("/x",)).readable == frozenset()


def test_mounts_that_cannot_be_read_are_unknown_and_none_where_they_are_the_hosts(monkeypatch):
    def fail(pid):
        raise PermissionError

    assert look().mounts == frozenset()
    assert look(namespaces=frozenset({"mnt"})).mounts
    monkeypatch.setattr(inspection.evidence, "read_mounts", fail)
    found = look(namespaces=frozenset({"mnt"}))
    assert found.mounts is None
    assert "mounts" in found.unknown  # beside the namespaces of what other tests left running below this process


def test_a_process_in_the_hosts_namespaces_is_seen_to_share_them():
    found = look(namespaces=frozenset({"net", "pid"}))
    assert next(one for one in found.members if one.pid == os.getpid()).shared == {"net", "pid"}


def test_a_process_that_has_gone_is_no_sandbox():
    child = os.posix_spawn("/bin/true", ["true"], {})
    os.waitpid(child, 0)
    subject = Subject("sb-1", child, frozenset(), needs_filter=False, needs_no_new_privs=False)
    assert inspect_sandbox(subject, host_inodes()) is None
