"""Which files exist inside, over an invented host."""

from __future__ import annotations

import socket

import pytest

from kavach.errors import ConfigError, UnsupportedError
from kavach.launcher.view import WORKSPACE, HostFiles, Tree, plan_view
from kavach.linux import uapi
from kavach.model.policy import PathRule, SandboxPolicy

NEVER = ("/home", "/root", "/run", "/var", "/srv", "/sys", "/mnt", "/media", "/boot", "/proc")
WRITABLE_BITS = uapi.MOUNT_ATTR_RDONLY


class Invented(HostFiles):
    """A host in a dictionary: a path's kind, or what its link says."""

    def __init__(self, **more):
        folders = (
            "/",
            "/usr",
            "/etc",
            "/opt",
            "/opt/data",
            "/image",
            "/image/usr",
            "/image/etc",
            "/image/proc",
            *NEVER,
        )
        self.paths = dict.fromkeys(folders, "folder")
        self.paths |= {"/bin": "->usr/bin", "/lib": "folder", "/image/bin": "->usr/bin", "/secret": "file"}
        self.paths |= {f"/dev/{name}": "file" for name in ("null", "zero", "full", "random", "urandom", "kvm")}
        self.paths |= dict.fromkeys(("/etc/ssl/certs", "/etc/ld.so.cache", "/etc/shadow"), "file")
        self.found_sockets = more.get("sockets", {})

    def kind(self, path):
        found = self.paths.get(path)
        return "link" if found and found.startswith("->") else found

    def exists(self, path):
        return path in self.paths

    def link(self, path):
        return self.paths[path][2:]

    def entries(self, path):
        prefix = path.rstrip("/") + "/"
        return sorted(
            {one[len(prefix) :].split("/")[0] for one in self.paths if one.startswith(prefix) and one != prefix}
        )

    def sockets(self, path):
        return self.found_sockets.get(path, [])


def view(policy, host=None, **changes):
    given = {"workdir": None, "python": (), "devices": (), "extra": ()} | changes
    return plan_view(policy, host=host or Invented(), uid=1000, gid=1000, hostname="box", **given)


@pytest.mark.parametrize("preset", ["strict", "basic"])
def test_homes_and_the_hosts_state_are_never_shown(preset):
    shown = [tree.target for tree in view(SandboxPolicy.from_preset(preset)).trees]
    assert "/usr" in shown
    assert [path for path in shown if path.startswith(NEVER) or path in {"/", "/etc", "/etc/shadow", "/opt"}] == []


def test_everything_of_the_host_is_read_only_and_without_set_user_id_and_devices():
    for tree in view(SandboxPolicy.strict()).trees:
        assert tree.attributes & uapi.MOUNT_ATTR_NOSUID, tree
        if not tree.target.startswith("/dev/"):
            assert tree.attributes & uapi.MOUNT_ATTR_RDONLY, tree
            assert tree.attributes & uapi.MOUNT_ATTR_NODEV, tree


def test_links_of_the_host_are_made_anew_and_not_followed():
    found = view(SandboxPolicy.strict())
    assert ("usr/bin", "/bin") in found.links
    assert "/bin" not in {tree.target for tree in found.trees}


def test_whole_view_shows_the_entries_but_its_own():
    shown = {tree.target for tree in view(SandboxPolicy.minimal()).trees}
    assert {"/usr", "/etc", "/home"} <= shown
    assert not {"/proc", "/sys", "/dev", "/tmp", WORKSPACE} & shown


def test_denied_path_is_masked():
    assert "/usr" in view(SandboxPolicy.strict(deny=(PathRule(path="/usr"),))).masked


def test_write_rule_is_writable_owned_and_not_executable():
    found = view(SandboxPolicy.strict(write=(PathRule(path="/opt"),)))
    tree = next(one for one in found.trees if one.target == "/opt")
    assert tree.owned == 1
    assert not tree.attributes & uapi.MOUNT_ATTR_RDONLY
    assert tree.attributes & uapi.MOUNT_ATTR_NOEXEC
    assert found.writable == ("/opt",)


def test_read_rule_is_read_only_and_not_executable():
    tree = next(one for one in view(SandboxPolicy.strict(read=(PathRule(path="/opt"),))).trees if one.target == "/opt")
    assert tree.attributes & uapi.MOUNT_ATTR_RDONLY
    assert tree.attributes & uapi.MOUNT_ATTR_NOEXEC
    assert not tree.owned


def test_execute_rule_is_read_only_and_executable():
    tree = next(
        one for one in view(SandboxPolicy.strict(execute=(PathRule(path="/opt"),))).trees if one.target == "/opt"
    )
    assert tree.attributes & uapi.MOUNT_ATTR_RDONLY
    assert not tree.attributes & uapi.MOUNT_ATTR_NOEXEC


def test_outer_rule_comes_before_the_inner_one():
    found = view(SandboxPolicy.strict(read=(PathRule(path="/opt/data"),), write=(PathRule(path="/opt"),)))
    targets = [tree.target for tree in found.trees]
    assert targets.index("/opt") < targets.index("/opt/data")


@pytest.mark.parametrize("field", ["read", "write", "execute"])
def test_rule_for_a_path_that_is_not_there_is_refused(field):
    with pytest.raises(ConfigError, match="/absent"):
        view(SandboxPolicy.strict(**{field: (PathRule(path="/absent"),)}))


def test_sockets_below_bound_folders_are_masked_at_their_place_inside():
    host = Invented(sockets={"/opt": ["/opt/s"], "/home/me": ["/home/me/deep/agent"]})
    found = view(SandboxPolicy.strict(read=(PathRule(path="/opt"),)), host, workdir="/home/me")
    assert set(found.masked) == {"/opt/s", f"{WORKSPACE}/deep/agent"}


def test_folder_as_root_shows_its_own_entries_and_no_identity_of_ours():
    found = view(SandboxPolicy.strict(rootfs="/image"))
    assert {(tree.source, tree.target) for tree in found.trees if tree.source.startswith("/image")} == {
        ("/image/usr", "/usr"),
        ("/image/etc", "/etc"),
    }
    assert ("usr/bin", "/bin") in found.links
    assert found.files == ()


def test_root_that_is_no_folder_is_refused():
    with pytest.raises(ConfigError, match="/secret"):
        view(SandboxPolicy.strict(rootfs="/secret"))


def test_image_as_root_is_not_of_this_wall():
    with pytest.raises(UnsupportedError):
        view(SandboxPolicy.strict(rootfs="docker.io/library/alpine:3"))


def test_identity_inside_is_ours_and_never_over_what_is_shown():
    files = {path: text for path, _, text in view(SandboxPolicy.strict()).files}
    assert "sandbox:x:1000:1000" in files["/etc/passwd"]
    assert "box" in files["/etc/hosts"]
    whole = view(SandboxPolicy.minimal())
    assert not [path for path, _, _ in whole.files if path.startswith("/etc/")]


def test_python_and_devices_and_workdir_are_shown_where_they_were_asked():
    found = view(
        SandboxPolicy.strict(), python=("/opt",), devices=("/dev/kvm",), workdir="/home", extra=(Tree("/a", "/b", 1),)
    )
    by_target = {tree.target: tree for tree in found.trees}
    assert by_target["/opt"].attributes & uapi.MOUNT_ATTR_RDONLY
    assert not by_target["/dev/kvm"].attributes & uapi.MOUNT_ATTR_NODEV
    assert by_target[WORKSPACE].source == "/home"
    assert by_target[WORKSPACE].owned == 1
    assert by_target["/b"].source == "/a"
    assert found.path == ("/opt/bin",)


def test_device_that_is_not_there_is_refused():
    with pytest.raises(ConfigError, match="/dev/absent"):
        view(SandboxPolicy.strict(), devices=("/dev/absent",))


def test_real_host_is_looked_at_without_following_links(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("/")
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(tmp_path / "deep/socket"))
        host = HostFiles()
        assert [host.kind(f"{tmp_path}/{name}") for name in ("deep", "file", "link", "none")] == [
            "folder",
            "file",
            "link",
            None,
        ]
        assert host.sockets(str(tmp_path)) == [f"{tmp_path}/deep/socket"]
        assert host.entries(str(tmp_path)) == ["deep", "file", "link"]
        assert host.link(f"{tmp_path}/link") == "/"
        assert host.exists(f"{tmp_path}/file")
