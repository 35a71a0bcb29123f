"""Landlock refuses for real: each act succeeds before the ruleset stands (positive control), then fails.

The acts happen in victim processes, because a ruleset cannot be taken off again.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import textwrap

import pytest

DEADLINE_S = 30

PRELUDE = """
import errno, fcntl, json, os, signal, socket, struct, sys
from kavach.linux import landlock, landlock_abi as abi, libc, uapi
root = sys.argv[1]

def prctl(*arguments):
    libc.syscall(uapi.SYS_PRCTL, *arguments)

def attempt(act):
    try:
        outcome = act()
    except OSError as error:
        return errno.errorcode[error.errno]
    if isinstance(outcome, socket.socket):
        outcome.close()
    return "ok"

def opened(path, flags):
    os.close(os.open(root + "/" + path, flags))

def confine(fs=0, net=0, scoped=0, paths=(), ports=()):
    ruleset = landlock.create_ruleset(fs, net, scoped)
    for path, access in paths:
        fd = os.open(path, os.O_PATH)
        landlock.add_path(ruleset, fd, access)
        os.close(fd)
    for port, access in ports:
        landlock.add_port(ruleset, port, access)
    prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
    landlock.restrict_self(ruleset)
    os.close(ruleset)

def report(**outcomes):
    print(json.dumps(outcomes))
    sys.stdout.flush()
"""


@pytest.fixture
def tree(tmp_path):
    """Two folders of the same shape: rules are given for `in`, never for `out`."""
    for name in ("in", "out"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("content")
        (tmp_path / name / "spare").write_text("content")
        (tmp_path / name / "folder").mkdir()
        shutil.copy("/bin/true", tmp_path / name / "true")
    return tmp_path


@pytest.fixture
def victim(tree):
    def run(source: str) -> dict[str, str]:
        done = subprocess.run(
            [sys.executable, "-I", "-c", PRELUDE + textwrap.dedent(source), str(tree)],
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


# name of the right, an act on "<where>" that leaves the tree as it was or works only once per place
ACTS = [
    ("READ_FILE", "opened(where + '/file', os.O_RDONLY)"),
    ("WRITE_FILE", "opened(where + '/file', os.O_WRONLY)"),
    ("READ_DIR", "os.listdir(root + '/' + where)"),
    ("EXECUTE", "os.waitpid(os.posix_spawn(root + '/' + where + '/true', ['true'], {}), 0)"),
    ("MAKE_REG", "(os.mknod(new(where)), os.unlink(made))"),
    ("MAKE_DIR", "(os.mkdir(new(where)), os.rmdir(made))"),
    ("MAKE_SYM", "(os.symlink('x', new(where)), os.unlink(made))"),
    ("MAKE_FIFO", "(os.mkfifo(new(where)), os.unlink(made))"),
    ("MAKE_SOCK", "(socket.socket(socket.AF_UNIX).bind(new(where)), os.unlink(made))"),
]


@pytest.mark.landlock(1)
@pytest.mark.parametrize(("right", "act"), ACTS)
def test_a_right_is_refused_outside_the_granted_folder_and_kept_inside(victim, right, act):
    seen = victim(f"""
        made = ""
        def new(where):
            global made
            made = root + "/" + where + "/made"
            return made
        def act(where):
            {act}
        before = attempt(lambda: act("out"))
        bit = abi.LANDLOCK_ACCESS_FS_{right}
        # The dynamic loader is executed too.
        granted = [(path, bit) for path in (root + "/in", "/usr", "/lib", "/lib64") if os.path.exists(path)]
        confine(fs=bit, paths=granted)
        report(before=before, inside=attempt(lambda: act("in")), outside=attempt(lambda: act("out")))
    """)
    assert seen == {"before": "ok", "inside": "ok", "outside": "EACCES"}


@pytest.mark.landlock(1)
@pytest.mark.parametrize(("right", "act"), [("REMOVE_FILE", "os.unlink"), ("REMOVE_DIR", "os.rmdir")])
def test_removing_is_refused_outside_the_granted_folder(victim, right, act):
    name = "spare" if right == "REMOVE_FILE" else "folder"
    seen = victim(f"""
        os.mkdir(root + "/out/before"); os.mknod(root + "/out/before-file")
        control = "/out/before" if "{right}" == "REMOVE_DIR" else "/out/before-file"
        before = attempt(lambda: {act}(root + control))
        bit = abi.LANDLOCK_ACCESS_FS_{right}
        confine(fs=bit, paths=[(root + "/in", bit)])
        report(before=before, inside=attempt(lambda: {act}(root + "/in/{name}")),
               outside=attempt(lambda: {act}(root + "/out/{name}")))
    """)
    assert seen == {"before": "ok", "inside": "ok", "outside": "EACCES"}


@pytest.mark.landlock(2)
def test_moving_between_folders_is_refused_unless_both_sides_may_refer(victim):
    seen = victim("""
        def there_and_back():
            os.rename(root + "/in/file", root + "/in/folder/moved")
            os.rename(root + "/in/folder/moved", root + "/in/file")
        def out():
            os.rename(root + "/in/file", root + "/out/moved")
            os.rename(root + "/out/moved", root + "/in/file")
        before = attempt(out)
        confine(fs=abi.LANDLOCK_ACCESS_FS_REFER, paths=[(root + "/in", abi.LANDLOCK_ACCESS_FS_REFER)])
        report(before=before, inside=attempt(there_and_back), outside=attempt(out))
    """)
    assert seen == {"before": "ok", "inside": "ok", "outside": "EXDEV"}


@pytest.mark.landlock(2)
def test_a_ruleset_that_does_not_name_refer_refuses_it_all_the_same(victim):
    seen = victim("""
        def move():
            os.rename(root + "/in/file", root + "/in/folder/moved")
            os.rename(root + "/in/folder/moved", root + "/in/file")
        before = attempt(move)
        confine(fs=abi.LANDLOCK_ACCESS_FS_MAKE_CHAR)
        report(before=before, after=attempt(move))
    """)
    assert seen == {"before": "ok", "after": "EXDEV"}


@pytest.mark.landlock(3)
def test_truncating_by_path_is_refused_without_its_own_right(victim):
    seen = victim("""
        act = lambda where: os.truncate(root + "/" + where + "/file", 3)
        before = attempt(lambda: act("out"))
        both = abi.LANDLOCK_ACCESS_FS_TRUNCATE | abi.LANDLOCK_ACCESS_FS_WRITE_FILE
        confine(fs=both, paths=[(root + "/in", both), (root + "/out", abi.LANDLOCK_ACCESS_FS_WRITE_FILE)])
        report(before=before, inside=attempt(lambda: act("in")), outside=attempt(lambda: act("out")),
               plain_write=attempt(lambda: opened("out/file", os.O_WRONLY)))
    """)
    assert seen == {"before": "ok", "inside": "ok", "outside": "EACCES", "plain_write": "ok"}


@pytest.mark.landlock(5)
def test_a_device_ioctl_is_refused_on_a_device_opened_after_the_ruleset(victim):
    seen = victim("""
        TIOCGPTN = 0x80045430  # asm-generic/ioctls.h
        def number_of_a_terminal():
            fd = os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY)
            try:
                fcntl.ioctl(fd, TIOCGPTN, b"0000")
            finally:
                os.close(fd)
        before = attempt(number_of_a_terminal)
        confine(fs=abi.LANDLOCK_ACCESS_FS_IOCTL_DEV)
        report(before=before, after=attempt(number_of_a_terminal))
    """)
    assert seen == {"before": "ok", "after": "EACCES"}


@pytest.mark.landlock(4)
def test_tcp_connect_is_refused_on_a_port_without_a_rule(victim):
    seen = victim("""
        def listener():
            server = socket.socket(); server.bind(("127.0.0.1", 0)); server.listen()
            return server
        allowed, other = listener(), listener()
        act = lambda server: socket.create_connection(server.getsockname(), 5)
        before = attempt(lambda: act(other))
        bit = abi.LANDLOCK_ACCESS_NET_CONNECT_TCP
        confine(net=bit, ports=[(allowed.getsockname()[1], bit)])
        report(before=before, allowed=attempt(lambda: act(allowed)), other=attempt(lambda: act(other)))
    """)
    assert seen == {"before": "ok", "allowed": "ok", "other": "EACCES"}


@pytest.mark.landlock(4)
def test_tcp_bind_is_refused_on_a_port_without_a_rule(victim):
    seen = victim("""
        def free_port():
            with socket.socket() as server:
                server.bind(("127.0.0.1", 0))
                return server.getsockname()[1]
        def act(port):
            with socket.socket() as server:
                server.bind(("127.0.0.1", port))
        other = free_port()
        before = attempt(lambda: act(other))
        bit = abi.LANDLOCK_ACCESS_NET_BIND_TCP
        confine(net=bit, ports=[(0, bit)])
        report(before=before, allowed=attempt(lambda: act(0)), other=attempt(lambda: act(other)))
    """)
    assert seen == {"before": "ok", "allowed": "ok", "other": "EACCES"}


@pytest.mark.landlock(6)
def test_an_abstract_socket_made_outside_the_scope_is_out_of_reach(victim):
    seen = victim("""
        def listener(name):
            server = socket.socket(socket.AF_UNIX)
            server.bind(b"\\0kavach-test-" + name + str(os.getpid()).encode())
            server.listen()
            return server
        def act(server):
            client = socket.socket(socket.AF_UNIX)
            client.connect(server.getsockname())
            return client
        outer = listener(b"outer")
        before = attempt(lambda: act(outer))
        confine(scoped=abi.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET)
        inner = listener(b"inner")
        report(before=before, inner=attempt(lambda: act(inner)), outer=attempt(lambda: act(outer)))
    """)
    assert seen == {"before": "ok", "inner": "ok", "outer": "EPERM"}


@pytest.mark.landlock(6)
def test_a_process_outside_the_scope_cannot_be_signalled(victim):
    seen = victim("""
        reading, writing = os.pipe()
        def sleeper():
            pid = os.fork()
            if pid == 0:
                os.close(writing)
                os.read(reading, 1)  # ends when the victim does: the scope stops PR_SET_PDEATHSIG too
                os._exit(0)
            return pid
        act = lambda pid: os.kill(pid, signal.SIGCONT)
        outer = sleeper()
        before = attempt(lambda: act(outer))
        confine(scoped=abi.LANDLOCK_SCOPE_SIGNAL)
        inner = sleeper()
        report(before=before, inner=attempt(lambda: act(inner)), outer=attempt(lambda: act(outer)))
    """)
    assert seen == {"before": "ok", "inner": "ok", "outer": "EPERM"}


@pytest.mark.landlock(1)
def test_directory_rights_are_left_out_of_a_rule_on_a_file(victim):
    seen = victim("""
        asked = abi.LANDLOCK_ACCESS_FS_READ_FILE | abi.LANDLOCK_ACCESS_FS_READ_DIR
        ruleset = landlock.create_ruleset(asked, 0, 0)
        fd = os.open(root + "/in/file", os.O_PATH)
        raw = attempt(lambda: libc.syscall(445, ruleset, 1, struct.pack("=Qi", asked, fd), 0))
        granted = landlock.add_path(ruleset, fd, asked)
        nothing = landlock.add_path(ruleset, fd, abi.LANDLOCK_ACCESS_FS_READ_DIR)
        report(raw=raw, granted=granted == abi.LANDLOCK_ACCESS_FS_READ_FILE, nothing=nothing == 0)
    """)
    assert seen == {"raw": "EINVAL", "granted": True, "nothing": True}


@pytest.mark.landlock(1)
def test_restricting_before_no_new_privs_is_refused_without_privilege(victim):
    seen = victim("""
        if os.geteuid() == 0:
            os.setgroups([]); os.setgid(65534); os.setuid(65534)
        ruleset = landlock.create_ruleset(abi.LANDLOCK_ACCESS_FS_MAKE_CHAR, 0, 0)
        early = attempt(lambda: landlock.restrict_self(ruleset))
        prctl(38, 1, 0, 0, 0)
        report(early=early, late=attempt(lambda: landlock.restrict_self(ruleset)))
    """)
    assert seen == {"early": "EPERM", "late": "ok"}


@pytest.mark.landlock(1)
def test_the_probe_changes_nothing_and_agrees_with_the_kernels_number(victim):
    seen = victim("""
        held = lambda: sorted(os.listdir("/proc/self/fd"))
        before = held()
        found = landlock.probe_rights()
        same = held() == before
        report(agrees=found == abi.rights(landlock.abi_version())[:3], same=same,
               free=attempt(lambda: opened("out/file", os.O_RDWR)), errata=landlock.errata() >= 0)
    """)
    assert seen == {"agrees": True, "same": True, "free": "ok", "errata": True}


@pytest.mark.landlock(1)
def test_a_right_that_no_kernel_has_is_refused_by_making_the_ruleset(victim):
    seen = victim("""
        report(unknown=attempt(lambda: landlock.create_ruleset(1 << 63, 0, 0)),
               empty=attempt(lambda: landlock.create_ruleset(0, 0, 0)))
    """)
    assert seen == {"unknown": "EINVAL", "empty": "ENOMSG"}


LYING_FILTER = """
        # Answers "0" to every Landlock call without running it, as a careless outer sandbox does.
        def op(code, jt, jf, k):
            return struct.pack("=HBBI", code, jt, jf, k)
        code = libc.buffer(
            op(0x20, 0, 0, 0)  # load the system call's number
            + op(0x35, 0, 2, 444) + op(0x25, 1, 0, 446)  # 444 <= number <= 446
            + op(0x06, 0, 0, 0x00050000)  # SECCOMP_RET_ERRNO | 0
            + op(0x06, 0, 0, 0x7FFF0000)  # SECCOMP_RET_ALLOW
        )
        prctl(38, 1, 0, 0, 0)
        program = libc.buffer(struct.pack("=HxxxxxxQ", 5, libc.address(code)))
        prctl(22, 2, libc.address(program), 0, 0)
"""


@pytest.mark.landlock(1)
@pytest.mark.seccomp
def test_an_outer_filter_that_fakes_success_is_not_taken_for_a_ruleset(victim):
    seen = victim(f"""
        {LYING_FILTER}
        claimed = landlock.abi_version()
        made = attempt(lambda: landlock.create_ruleset(abi.LANDLOCK_ACCESS_FS_EXECUTE, 0, 0))
        probed = landlock.probe_rights()
        stdin = attempt(lambda: os.fstat(0))
        report(claimed=claimed, made=made, probed=list(probed), stdin=stdin)
    """)
    assert seen == {"claimed": 0, "made": "EPROTO", "probed": [0, 0, 0], "stdin": "ok"}


@pytest.mark.needs("linux")
def test_a_port_out_of_range_is_the_programmers_mistake():
    from kavach.linux import landlock

    with pytest.raises(ValueError, match="0 to 65535"):
        landlock.add_port(-1, 65536, 1)
