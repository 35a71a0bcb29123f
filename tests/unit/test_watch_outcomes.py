"""What is said to stand in a call's way: read from this process's own memory, files and sockets, as another's would be."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import socket
import struct

import pytest

from kavach.launcher import watch_outcome, watch_paths, watch_sight
from kavach.launcher.watch_outcome import Rules, path_attempt, peer_attempt, program_attempt
from kavach.launcher.watch_paths import Ids, Place
from kavach.launcher.watch_sight import PathUse, Peer
from kavach.linux import landlock_abi as abi
from kavach.linux.notify import Notification
from kavach.policy.learn import Access, Cause

ME = os.getpid()
STRANGER = Ids(65533, frozenset({65533}))
MINE = Ids(os.geteuid(), frozenset({os.getegid(), *os.getgroups()}))
AT_FDCWD = 0xFFFFFF9C
RDONLY, NOEXEC = os.ST_RDONLY, 8


def rules(**changes):
    given = {"has_view": True, "own_network": True, "handled": (0, 0, 0), "paths": (), "deny": (), "ports": None}
    return Rules(**(given | {"network": "none", "automounts": ()} | changes))


def attempt(use, *, given=None, ids=MINE, creates=False):
    return path_attempt(given or rules(), ME, ids, "call", use, creates=creates)


def use(access, path, *, follow=True):
    return PathUse(access, os.path.realpath(os.path.dirname(path)) + "/" + os.path.basename(path), follow=follow)


# what a call names


_kept = []  # the texts that the calls below point to


class Call:
    """A waiting call of this process, whose texts lie in its own memory."""

    def __init__(self, *arguments):
        texts = [ctypes.create_string_buffer(one) for one in arguments if isinstance(one, bytes)]
        _kept.extend(texts)
        addresses = iter([ctypes.addressof(one) for one in texts])
        numbers = [next(addresses) if isinstance(one, bytes) else one for one in arguments]
        self.notification = Notification(1, ME, 0, 0, tuple(numbers + [0] * (6 - len(numbers))))


def test_absolute_path_is_taken_as_it_is():
    assert watch_sight.paths("chdir", Call(b"/a/b").notification) == [PathUse(Access.LOOK, "/a/b", follow=True)]


def test_relative_path_begins_at_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (found,) = watch_sight.paths("openat", Call(AT_FDCWD, b"x/y", os.O_RDONLY).notification)
    assert found.path == f"{os.path.realpath(tmp_path)}/x/y"


def test_relative_path_begins_at_the_folder_that_the_descriptor_holds(tmp_path):
    folder = os.open(tmp_path, os.O_RDONLY)
    (found,) = watch_sight.paths("unlinkat", Call(folder | 7 << 32, b"x").notification)
    assert (found.access, found.path) == (Access.REMOVE, f"{os.path.realpath(tmp_path)}/x")
    os.close(folder)


def test_path_that_begins_at_no_folder_is_not_guessed(tmp_path):
    reader, writer = os.pipe()
    assert watch_sight.paths("unlinkat", Call(reader, b"x").notification) == []
    (tmp_path / "gone").mkdir()
    deleted = os.open(tmp_path / "gone", os.O_RDONLY)
    (tmp_path / "gone").rmdir()
    assert watch_sight.paths("unlinkat", Call(deleted, b"x").notification) == []
    for handle in (reader, writer, deleted):
        os.close(handle)


@pytest.mark.parametrize("where", [0, 1 << 63])
def test_path_that_cannot_be_read_names_nothing(where):
    assert watch_sight.paths("chdir", Call(where).notification) == []


def test_empty_path_means_the_descriptor_and_names_nothing():
    assert watch_sight.paths("newfstatat", Call(0, b"", 0, 0x1000).notification) == []


def test_call_without_paths_names_none():
    assert watch_sight.paths("getpid", Call(0).notification) == []


def test_rename_names_both_of_its_paths():
    found = watch_sight.paths("rename", Call(b"/a", b"/b").notification)
    assert [(one.access, one.path) for one in found] == [(Access.REMOVE, "/a"), (Access.CREATE, "/b")]


@pytest.mark.parametrize(("flags", "follow"), [(0, True), (0x100, False)])
def test_stat_follows_a_last_link_as_its_flags_say(flags, follow):
    (found,) = watch_sight.paths("newfstatat", Call(AT_FDCWD, b"/a", 0, flags).notification)
    assert found.follow is follow


def test_openat2_has_its_flags_in_memory():
    how = struct.pack("=QQQ", os.O_WRONLY | os.O_NOFOLLOW, 0, 0)
    (found,) = watch_sight.paths("openat2", Call(AT_FDCWD, b"/a", how).notification)
    assert (found.access, found.follow) == (Access.WRITE, False)
    (unread,) = watch_sight.paths("openat2", Call(AT_FDCWD, b"/a", 0).notification)
    assert unread.access is Access.READ


@pytest.mark.parametrize(
    ("call", "arguments", "answer"),
    [
        ("creat", (0, 0), True),
        ("open", (0, os.O_CREAT | os.O_WRONLY), True),
        ("open", (0, os.O_WRONLY), False),
        ("openat", (0, 0, os.O_CREAT), True),
        ("mkdir", (0, os.O_CREAT), False),
    ],
)
def test_which_calls_make_a_file_that_is_missing(call, arguments, answer):
    assert watch_sight.creates(call, Call(*arguments).notification) is answer


def test_address_is_read_from_memory_with_the_length_that_was_given():
    raw = struct.pack("=H", socket.AF_INET) + b"\x00\x50\x01\x02\x03\x04" + bytes(8)
    assert watch_sight.peer("connect", Call(3, raw, 16).notification) == Peer("inet", "1.2.3.4", 80)
    assert watch_sight.peer("connect", Call(3, raw, 4).notification) is None
    assert watch_sight.peer("connect", Call(3, 1 << 63, 16).notification) is None
    assert watch_sight.peer("sendto", Call(3, 0, 0, 0, 0, 0).notification) is None
    assert watch_sight.peer("bind", Call(3, raw, 16).notification) is None


# whose rights a thread has, and where a path leads


def test_ids_are_those_of_the_thread():
    found = watch_paths.read_ids(ME)
    assert found.uid == os.geteuid()
    assert {os.getegid(), *os.getgroups()} == set(found.groups)


def test_ids_of_a_thread_that_has_gone_are_an_error():
    with pytest.raises(OSError):
        watch_paths.read_ids(2**22 - 1)


def test_walk_goes_up_and_through_links_within_the_root(tmp_path):
    real = os.path.realpath(tmp_path)
    (tmp_path / "d").mkdir()
    (tmp_path / "d/up").symlink_to("../f")
    (tmp_path / "d/whole").symlink_to(f"{real}/f")
    (tmp_path / "f").touch()
    for path in ("d/../f", "d/up", "d/whole", "./d/./up"):
        assert watch_paths.walk(ME, f"{real}/{path}", MINE, follow=True).path == f"{real}/f"
    assert watch_paths.walk(ME, "/../..", MINE, follow=True).path == "/"


def test_walk_through_something_that_is_no_folder_ends_there(tmp_path):
    real = os.path.realpath(tmp_path)
    (tmp_path / "f").touch()
    found = watch_paths.walk(ME, f"{real}/f/below", MINE, follow=True)
    assert (found.code, found.path, found.wanted) == (errno.ENOTDIR, f"{real}/f", f"{real}/f/below")
    assert not found.is_folder


def test_place_knows_what_its_mount_takes():
    base = {"code": 0, "path": "/x", "wanted": "/x", "mode": 0o100644, "owner": 0, "group": 0, "is_last": True}
    assert Place(**base, flags=RDONLY).is_read_only
    assert not Place(**base, flags=0).is_read_only
    assert Place(**base, flags=NOEXEC).is_no_execute
    assert Place(**base, flags=0).lets(STRANGER, 4)
    assert not Place(**base, flags=0).lets(STRANGER, 2)


@pytest.mark.parametrize("path", ["/", "/dev/null"])
def test_what_is_no_regular_file_is_no_program(path):
    assert not watch_paths.is_program(path)


@pytest.mark.plain
def test_program_that_may_not_be_read_is_taken_for_none(tmp_path):
    (tmp_path / "elf").write_bytes(b"\x7fELF")
    (tmp_path / "elf").chmod(0)
    assert not watch_paths.is_program(f"{tmp_path}/elf")


# what stands in the way of a path


def test_folder_closed_to_the_command_is_a_matter_of_its_mode(tmp_path):
    (tmp_path / "closed").mkdir(mode=0o700)
    (tmp_path / "closed/f").touch()
    tmp_path.chmod(0o711)
    found = attempt(use(Access.READ, f"{tmp_path}/closed/f"), ids=STRANGER)
    assert found.cause is Cause.MODE


def test_look_at_a_denied_path_is_not_reported(tmp_path):
    (tmp_path / "f").touch()
    given = rules(deny=(os.path.realpath(tmp_path) + "/f",))
    assert attempt(use(Access.LOOK, f"{tmp_path}/f"), given=given) is None
    assert attempt(use(Access.READ, f"{tmp_path}/f"), given=given).cause is Cause.DENIED


def test_proc_is_nobody_else_s_to_judge():
    assert attempt(PathUse(Access.READ, "/proc/1/mem", follow=True)) is None


def test_path_that_goes_through_a_file_fails_by_itself(tmp_path):
    (tmp_path / "f").touch()
    assert attempt(PathUse(Access.READ, os.path.realpath(tmp_path) + "/f/below", follow=True)) is None


class Elsewhere:
    """A command's view in which one path is missing, though it is on this host."""

    def __init__(self, monkeypatch, wanted, *, is_last=True, flags=0, mode=0o40755):
        folder = os.path.dirname(wanted)
        place = Place(errno.ENOENT, folder, wanted, mode, os.geteuid(), os.getegid(), flags, is_last)
        monkeypatch.setattr(watch_paths, "walk", lambda *_, **__: place)


def test_file_that_is_only_on_the_host_is_not_shown(tmp_path, monkeypatch):
    path = f"{tmp_path}/f"
    (tmp_path / "f").write_text("text")
    Elsewhere(monkeypatch, path)
    found = attempt(PathUse(Access.READ, path, follow=True))
    assert (found.cause, found.access, found.place, found.open_to_command) == (
        Cause.NOT_SHOWN,
        Access.READ,
        path,
        True,
    )
    (tmp_path / "f").chmod(0o600)
    assert not attempt(PathUse(Access.READ, path, follow=True), ids=STRANGER).open_to_command


def test_folder_that_is_not_shown_is_listed_and_a_program_is_executed(tmp_path, monkeypatch):
    (tmp_path / "d").mkdir()
    shutil.copy("/bin/true", tmp_path / "elf")
    Elsewhere(monkeypatch, f"{tmp_path}/d")
    assert attempt(PathUse(Access.READ, f"{tmp_path}/d", follow=True)).access is Access.LIST
    Elsewhere(monkeypatch, f"{tmp_path}/elf")
    assert attempt(PathUse(Access.READ, f"{tmp_path}/elf", follow=True)).access is Access.EXECUTE


def test_removal_of_what_is_not_shown_needs_its_folder(tmp_path, monkeypatch):
    (tmp_path / "f").touch()
    Elsewhere(monkeypatch, f"{tmp_path}/f")
    found = attempt(PathUse(Access.REMOVE, f"{tmp_path}/f", follow=False))
    assert (found.access, found.place) == (Access.REMOVE, str(tmp_path))


def test_link_to_nowhere_on_the_host_is_not_open_to_the_command(tmp_path, monkeypatch):
    (tmp_path / "f").symlink_to("none")
    Elsewhere(monkeypatch, f"{tmp_path}/f")
    assert not attempt(PathUse(Access.READ, f"{tmp_path}/f", follow=True)).open_to_command


def test_write_that_makes_no_file_is_refused_by_nobody(tmp_path, monkeypatch):
    Elsewhere(monkeypatch, f"{tmp_path}/new")
    assert attempt(PathUse(Access.WRITE, f"{tmp_path}/new", follow=True)) is None


@pytest.mark.parametrize(
    ("flags", "mode", "cause"),
    [(RDONLY, 0o40755, Cause.READ_ONLY), (0, 0o40555, Cause.MODE), (0, 0o40755, None)],
)
def test_new_file_meets_the_folder_it_would_be_in(tmp_path, monkeypatch, flags, mode, cause):
    Elsewhere(monkeypatch, f"{tmp_path}/new", flags=flags, mode=mode)
    found = attempt(PathUse(Access.WRITE, f"{tmp_path}/new", follow=True), creates=True)
    assert (found and found.cause) is cause
    assert found is None or (found.access, found.place) == (Access.CREATE, str(tmp_path))


def test_new_file_in_a_folder_beyond_the_landlock_rules_is_refused_by_landlock(tmp_path, monkeypatch):
    Elsewhere(monkeypatch, f"{tmp_path}/new")
    given = rules(handled=(abi.LANDLOCK_ACCESS_FS_MAKE_REG, 0, 0))
    found = attempt(PathUse(Access.CREATE, f"{tmp_path}/new", follow=False), given=given)
    assert found.cause is Cause.LANDLOCK


def test_new_file_in_a_folder_that_only_the_host_has_needs_that_folder(tmp_path, monkeypatch):
    Elsewhere(monkeypatch, f"{tmp_path}/new", is_last=False)
    found = attempt(PathUse(Access.CREATE, f"{tmp_path}/new", follow=False))
    assert (found.cause, found.place, found.open_to_command) == (Cause.NOT_SHOWN, str(tmp_path), True)
    assert attempt(PathUse(Access.CREATE, f"{tmp_path}/new", follow=False), given=rules(has_view=False)) is None
    Elsewhere(monkeypatch, f"{tmp_path}/none/new", is_last=False)
    assert attempt(PathUse(Access.CREATE, f"{tmp_path}/none/new", follow=False)) is None


def test_new_file_in_a_folder_of_the_sandbox_alone_names_no_place(monkeypatch):
    Elsewhere(monkeypatch, "/only-inside/new", flags=RDONLY)
    assert attempt(PathUse(Access.CREATE, "/only-inside/new", follow=False)).place == ""


class Present:
    """A command's view in which a path leads to something, on a mount with these flags."""

    def __init__(self, monkeypatch, path, *, flags=0, mode=0o100755, owner=None):
        place = Place(0, path, path, mode, os.geteuid() if owner is None else owner, os.getegid(), flags, is_last=True)
        monkeypatch.setattr(watch_paths, "walk", lambda *_, **__: place)


@pytest.mark.parametrize(
    ("access", "flags", "mode", "cause"),
    [
        (Access.CREATE, RDONLY, 0o100644, None),
        (Access.REMOVE, 0, 0o100644, None),
        (Access.REMOVE, RDONLY, 0o100644, Cause.READ_ONLY),
        (Access.WRITE, RDONLY, 0o100644, Cause.READ_ONLY),
        (Access.WRITE, 0, 0o100644, None),
        (Access.WRITE, 0, 0o100444, Cause.MODE),
        (Access.EXECUTE, NOEXEC, 0o100755, Cause.NO_EXECUTE),
        (Access.EXECUTE, 0, 0o100755, None),
        (Access.EXECUTE, 0, 0o100644, Cause.MODE),
        (Access.READ, RDONLY, 0o100644, None),
        (Access.LOOK, RDONLY, 0o100000, None),
    ],
)
def test_what_is_there_meets_its_mount_and_its_mode(tmp_path, monkeypatch, access, flags, mode, cause):
    (tmp_path / "f").touch()
    Present(monkeypatch, f"{tmp_path}/f", flags=flags, mode=mode)
    found = attempt(PathUse(access, f"{tmp_path}/f", follow=True))
    assert (found and found.cause) is cause


def test_device_on_a_read_only_mount_can_be_written(monkeypatch):
    Present(monkeypatch, "/dev/null", flags=RDONLY, mode=0o020666)
    assert attempt(PathUse(Access.WRITE, "/dev/null", follow=True)) is None


def test_read_only_file_that_the_host_does_not_have_names_no_place(monkeypatch):
    Present(monkeypatch, "/only-inside/f", flags=RDONLY, mode=0o100644)
    assert attempt(PathUse(Access.WRITE, "/only-inside/f", follow=True)).place == ""


def test_folder_that_is_opened_is_listed(tmp_path, monkeypatch):
    Present(monkeypatch, str(tmp_path), mode=0o40700, owner=0)
    found = attempt(PathUse(Access.READ, str(tmp_path), follow=True), ids=STRANGER)
    assert (found.access, found.cause) == (Access.LIST, Cause.MODE)


def test_program_that_only_the_host_has_is_not_shown():
    found = program_attempt(rules(), "/bin/../bin/true")
    assert (found.access, found.cause, found.place) == (Access.EXECUTE, Cause.NOT_SHOWN, "/bin/true")


@pytest.mark.parametrize(("given", "program"), [({"has_view": False}, "/bin/true"), ({}, "true"), ({}, "/none/true")])
def test_program_that_nobody_has_or_that_is_looked_up_inside_is_nobody_s_refusal(given, program):
    assert program_attempt(rules(**given), program) is None


# what stands in the way of an address


def peer(family="inet", host="192.0.2.1", port=443, *, call="connect", **given):
    return peer_attempt(rules(**given), ME, call, Peer(family, host, port))


def test_other_host_has_no_route_where_there_is_no_network():
    found = peer()
    assert (found.cause, found.target, found.port) == (Cause.NO_ROUTE, "192.0.2.1:443", 443)
    assert peer(host="2001:db8::1").target == "[2001:db8::1]:443"
    assert peer(network="host") is None


@pytest.fixture(params=[socket.SOCK_STREAM, socket.SOCK_DGRAM])
def listening(request):
    with socket.socket(socket.AF_INET, request.param) as server:
        server.bind(("127.0.0.1", 0))
        if request.param == socket.SOCK_STREAM:
            server.listen()
        yield server.getsockname()[1]


def test_listener_in_the_command_s_own_network_is_no_refusal(listening):
    assert peer(host="127.0.0.1", port=listening) is None


def test_listener_of_the_host_alone_is_named_as_the_host_s(listening, monkeypatch):
    real = watch_outcome._listens
    monkeypatch.setattr(watch_outcome, "_listens", lambda who, port: who == "self" and real(who, port))
    for host in ("127.0.0.1", "::1", "0.0.0.0", "::ffff:127.0.0.1"):
        assert peer(host=host, port=listening).cause is Cause.OTHER_HOST
    assert peer(host="127.0.0.1", port=listening, own_network=False) is None
    assert peer(host="127.0.0.1", port=53).cause is Cause.NO_NAMES


def test_port_where_nobody_listens_is_nobody_s_refusal():
    assert peer(host="127.0.0.1", port=1) is None


def test_network_of_a_thread_that_has_gone_has_no_listener():
    assert not watch_outcome._listens(str(2**22 - 1), 80)


def test_port_that_no_rule_names_is_refused_by_landlock_but_not_for_names_or_datagrams():
    given = {"network": "host", "handled": (0, abi.LANDLOCK_ACCESS_NET_CONNECT_TCP, 0), "ports": (443,)}
    assert peer(port=80, **given).cause is Cause.PORT
    assert peer(port=443, **given) is None
    assert peer(port=53, **given) is None
    assert peer(port=80, call="sendto", **given) is None


def test_abstract_socket_of_the_host_is_out_of_scope_or_out_of_reach():
    name = f"kavach-test-{ME}"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(b"\0" + name.encode())
        scope = (0, 0, abi.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET)
        given = {"family": "abstract", "host": name, "own_network": False}
        assert peer(**given, handled=scope).cause is Cause.SCOPE
        assert (peer(**given).cause, peer(**given).target) == (Cause.NO_ROUTE, f"@{name}")
        assert peer("abstract", name) is None  # the command's own network has one of that name
    assert peer(**given) is None


def test_pathname_socket_is_no_address():
    assert peer("unix", "/run/x") is None


# the plan's rules


def test_automounts_are_read_from_the_mount_table(monkeypatch, tmp_path):
    table = tmp_path / "mountinfo"
    table.write_text(
        "30 1 0:30 / /net rw - autofs systemd-1 rw\n31 1 0:31 / /srv rw shared:1 - ext4 /dev/sda rw\nbroken\n"
    )
    real = open
    monkeypatch.setattr(
        "builtins.open", lambda path, *a, **k: real(table if "mountinfo" in str(path) else path, *a, **k)
    )
    assert watch_outcome._automounts() == ("/net",)
