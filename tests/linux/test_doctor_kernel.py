"""The doctor sees on real kernels what was taken away from it in throw-away namespaces and behind filters."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap

import pytest

DEADLINE_S = 60
PRELUDE = """
import errno, json, os, struct, sys
import msgspec
from kavach import doctor
from kavach.linux import libc, uapi

def prctl(*arguments):
    libc.syscall(uapi.SYS_PRCTL, *arguments)

def refuse(code, *numbers):
    # A seccomp filter that answers `code` to these calls, as an outer container's would.
    op = lambda code, jt, jf, k: struct.pack("=HBBI", code, jt, jf, k)
    body = op(0x20, 0, 0, 0)
    for number in numbers:
        body += op(0x15, 0, 1, number) + op(0x06, 0, 0, 0x00050000 | code)
    filters = libc.buffer(body + op(0x06, 0, 0, 0x7FFF0000))
    prctl(38, 1, 0, 0, 0)
    program = libc.buffer(struct.pack("=HxxxxxxQ", 2 + 2 * len(numbers), libc.address(filters)))
    prctl(22, 2, libc.address(program), 0, 0)

def report():
    sys.stdout.write(msgspec.json.encode(doctor.examine()).decode())
"""
IN_NAMESPACES = ("unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "--mount-proc")


@pytest.fixture
def examined():
    """Examine a host in a victim process; return its rows by control and the whole report."""

    def run(source: str = "", wrapper: tuple[str, ...] = ()) -> dict:
        argv = [*wrapper, sys.executable, "-I", "-c", PRELUDE + textwrap.dedent(source) + "\nreport()\n"]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=DEADLINE_S, stdin=subprocess.DEVNULL)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def rows(report: dict, control: str) -> list[dict]:
    return [row for row in report["rows"] if row["control"] == control]


@pytest.mark.userns
@pytest.mark.landlock(1)
def test_this_host_is_examined_without_a_trace(examined):
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        before = file.read()
    report = examined()
    assert rows(report, "user_ns")[0]["available"] == "yes"
    assert rows(report, "landlock")[0]["available"] == "yes"
    assert "namespaces" in report["best_wall"]
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        assert file.read() == before


@pytest.mark.userns
def test_a_limit_of_no_user_namespaces_is_found_and_named(examined):
    report = examined("open('/proc/sys/user/max_user_namespaces', 'w').write('0')", wrapper=IN_NAMESPACES)
    (row,) = rows(report, "user_ns")
    assert row["available"] == "no"
    assert "user.max_user_namespaces=0" in row["cause"]
    assert "ENOSPC" in row["evidence"]
    assert "without namespaces" in row["wall_left"]


@pytest.mark.userns
def test_a_masked_proc_is_found_by_the_attempt_and_explained_by_the_mask(examined):
    mask = "from kavach.linux import mounts; mounts.mount(b'none', b'/proc/sys', b'tmpfs', 1, b'')"
    report = examined(mask, wrapper=IN_NAMESPACES)
    (row,) = rows(report, "proc")
    assert row["available"] == "degraded"
    assert "/proc/sys" in row["cause"]
    assert "EPERM" in row["evidence"]


@pytest.mark.userns
def test_an_unmasked_proc_in_the_same_namespaces_is_no_problem(examined):
    report = examined(wrapper=IN_NAMESPACES)
    assert rows(report, "proc")[0]["available"] == "yes"
    assert rows(report, "host")[0]["available"] == "degraded"


@pytest.mark.seccomp
def test_an_outer_filter_that_refuses_unshare_is_found_and_named(examined):
    report = examined("refuse(errno.EPERM, uapi.SYS_UNSHARE)")
    causes = [row["cause"] for row in rows(report, "user_ns")]
    assert any("seccomp filter of the outer" in cause for cause in causes)
    assert "EPERM" in rows(report, "user_ns")[0]["evidence"]


@pytest.mark.seccomp
@pytest.mark.landlock(1)
def test_landlock_hidden_by_an_outer_filter_is_told_from_landlock_absent(examined):
    report = examined("refuse(errno.ENOSYS, 444, 445, 446)")
    (row,) = rows(report, "landlock")
    assert row["available"] == "no"
    assert "outer seccomp filter hides" in row["cause"]


@pytest.mark.seccomp
@pytest.mark.landlock(1)
def test_landlock_faked_by_an_outer_filter_is_a_liar(examined):
    report = examined("refuse(0, 444, 445, 446)")
    (row,) = rows(report, "landlock")
    assert row["available"] == "no"
    assert "no rights at all" in row["cause"]


@pytest.mark.seccomp
def test_newer_calls_behind_an_outer_filter_are_told_apart(examined):
    source = "refuse(errno.ENOSYS, uapi.SYS_CLONE3)\nrefuse(errno.EPERM, uapi.SYS_OPENAT2)"
    calls = examined(source)["calls"]
    assert (calls["clone3"], calls["openat2"]) == ("absent", "refused")


@pytest.mark.seccomp
def test_seccomp_behind_an_outer_filter_is_missing(examined):
    from kavach.linux.host import SYS_SECCOMP

    report = examined(f"refuse(errno.EPERM, {SYS_SECCOMP})")
    assert rows(report, "seccomp")[0]["available"] == "no"


@pytest.mark.needs("linux")
def test_the_examination_leaves_no_descriptor_and_no_child_behind(examined):
    report = examined("""
        before = os.listdir("/proc/self/fd")
        doctor.examine()
        assert os.listdir("/proc/self/fd") == before
        try:
            os.waitpid(-1, os.WNOHANG)
            raise SystemExit("a child was left")
        except ChildProcessError:
            pass
    """)
    assert report["schema_version"] == 1
