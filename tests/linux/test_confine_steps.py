"""One-way steps of a process against itself, seen afterwards in /proc; each in a victim of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap

import pytest

pytestmark = pytest.mark.needs("linux")
DEADLINE_S = 30
PRELUDE = """
import errno, json, os, resource, struct, sys
from kavach.linux import confine, libc, namespaces, uapi

def status(pid="self"):
    with open(f"/proc/{pid}/status") as handle:
        return dict(line.rstrip("\\n").split(":\\t", 1) for line in handle if ":\\t" in line)

def attempt(act):
    try:
        act()
    except OSError as error:
        return errno.errorcode.get(error.errno, error.errno)
    return "ok"

def in_own_user_namespace():
    uid, gid = os.getuid(), os.getgid()
    ready, go = os.pipe()
    child = namespaces.clone(uapi.CLONE_NEWUSER)
    if child:
        namespaces.write_id_maps(child, b"0 %d 1" % uid, b"0 %d 1" % gid, deny_setgroups=True)
        os.write(go, b"x")
        raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    os.read(ready, 1)
"""


def victim(body, **how):
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + textwrap.dedent(body)],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        stdin=subprocess.DEVNULL,
        **how,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.userns
def test_every_capability_leaves_every_set_and_the_bits_are_locked():
    before, after, again, bits = victim("""
        in_own_user_namespace()
        names = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
        before = [int(status()[name], 16) for name in names]
        confine.empty_bounding_set()
        confine.lock_securebits()
        bits = libc.syscall(uapi.SYS_PRCTL, 27, 0, 0, 0, 0)
        again = attempt(lambda: libc.syscall(uapi.SYS_PRCTL, uapi.PR_SET_SECUREBITS, 0, 0, 0, 0))
        confine.keep_capabilities(())
        print(json.dumps([before, [int(status()[name], 16) for name in names], again, bits]))
    """)
    assert before[1] and before[2] and before[3]  # noqa: PT018 - the positive control is one fact
    assert after == [0, 0, 0, 0, 0]
    assert again == "EPERM"
    assert bits == 0xEF


@pytest.mark.userns
def test_exactly_the_kept_capabilities_stay():
    held = victim("""
        in_own_user_namespace()
        confine.keep_capabilities((uapi.CAP_KILL, uapi.CAP_SETUID))
        found = status()
        print(json.dumps([int(found[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")]))
    """)
    assert held == [0, 1 << 5 | 1 << 7, 1 << 5 | 1 << 7, 0]


@pytest.mark.userns
def test_uid_0_of_a_locked_process_gets_nothing_from_execve():
    found = victim("""
        in_own_user_namespace()
        confine.empty_bounding_set()
        confine.lock_securebits()
        confine.keep_capabilities(())
        os.execv("/bin/sh", ["sh", "-c", "grep CapEff /proc/self/status | cut -f2 | sed 's/.*/[\\"&\\"]/'"])
    """)
    assert found == ["0000000000000000"]


def test_no_new_privileges_holds_for_children():
    found = victim("""
        before = status()["NoNewPrivs"]
        confine.set_no_new_privileges()
        pid = os.fork()
        if pid == 0:
            print(json.dumps([before, status()["NoNewPrivs"]]), flush=True)
            os._exit(0)
        os.waitpid(pid, 0)
    """)
    assert found == ["0", "1"]


def test_limits_are_applied_and_never_raised():
    found = victim("""
        resource.setrlimit(resource.RLIMIT_NOFILE, (50, 60))
        confine.set_limits(((resource.RLIMIT_NOFILE, 40, 1000), (resource.RLIMIT_FSIZE, 4096, 8192)))
        first = resource.getrlimit(resource.RLIMIT_NOFILE)
        confine.set_limits(((resource.RLIMIT_NOFILE, resource.RLIM_INFINITY, resource.RLIM_INFINITY),))
        wrong = attempt(lambda: confine.set_limits(((resource.RLIMIT_NOFILE, 10, 5),)))
        print(json.dumps([first, resource.getrlimit(resource.RLIMIT_NOFILE), resource.getrlimit(resource.RLIMIT_FSIZE), wrong]))
    """)
    assert found == [[40, 60], [60, 60], [4096, 8192], "EPERM"]


def test_all_descriptors_but_the_kept_are_closed():
    found = victim("""
        import fcntl
        null = os.open("/dev/null", os.O_RDWR)
        for number in (5, 9, 200, 900):
            os.dup2(null, number)
        confine.close_all_but((9, 1, 2, 200))
        def is_open(number):
            try:
                fcntl.fcntl(number, fcntl.F_GETFD)
            except OSError:
                return False
            return True
        print(json.dumps([number for number in range(1024) if is_open(number)]))
    """)
    assert found == [1, 2, 9, 200]


def test_closing_works_on_a_kernel_without_close_range():
    found = victim("""
        import fcntl
        null = os.open("/dev/null", os.O_RDWR)
        os.dup2(null, 300)
        real = libc.syscall
        def old(number, *rest):
            if number == uapi.SYS_CLOSE_RANGE:
                raise OSError(errno.ENOSYS, "")
            return real(number, *rest)
        libc.syscall = old
        confine.close_all_but((1, 2))
        print(json.dumps(attempt(lambda: fcntl.fcntl(300, fcntl.F_GETFD))))
    """)
    assert found == "EBADF"


def test_session_keyring_is_another_one():
    before, after = victim("""
        GET, SESSION = 0, -3
        confine.join_new_session_keyring()
        def serial():
            try:
                return libc.syscall(uapi.SYS_KEYCTL, GET, SESSION, 0, 0, 0)
            except OSError:
                return None
        before = serial()
        confine.join_new_session_keyring()
        print(json.dumps([before, serial()]))
    """)
    if before is None:
        pytest.skip("keyctl is refused here")
    assert before != after


@pytest.mark.parametrize(("refusals", "outcome"), [(["ENOSYS"], "ok"), (["EPERM", "EPERM"], "ok"), (["EPERM", "EINVAL"], "EPERM"), (["EDQUOT", "EINVAL"], "EDQUOT")])  # fmt: skip
def test_keyring_may_stay_only_where_nobody_can_reach_one(refusals, outcome):
    found = victim(f"""
        answers = iter({refusals!r})
        def refuse(number, *rest):
            raise OSError(getattr(errno, next(answers)), "")
        libc.syscall = refuse
        print(json.dumps(attempt(confine.join_new_session_keyring)))
    """)
    assert found == outcome


def test_child_dies_with_its_parent():
    pid = victim("""
        ready, told = os.pipe()
        middle = os.fork()
        if middle == 0:
            pid = os.fork()
            if pid == 0:
                confine.die_with_parent()
                os.write(told, b"x")
                import time
                time.sleep(60)
                os._exit(0)
            os.read(ready, 1)
            print(json.dumps(pid), flush=True)
            os._exit(0)
        os.waitpid(middle, 0)
        import time
        time.sleep(0.2)
    """)
    try:
        with open(f"/proc/{pid}/stat", "rb") as handle:
            state = handle.read().rpartition(b")")[2].split()[0]
    except OSError:
        return
    assert state in {b"Z", b"X"}


def test_undumpable_and_signals_default():
    found = victim("""
        import signal
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
        confine.set_undumpable()
        confine.reset_signals()
        confine.unblock_signals()
        print(json.dumps([libc.syscall(uapi.SYS_PRCTL, uapi.PR_GET_DUMPABLE, 0, 0, 0, 0), int(status()["SigIgn"], 16) & ~(3 << 31), int(status()["SigBlk"], 16)]))
    """)
    assert found == [0, 0, 0]


@pytest.mark.root
def test_ids_change_for_good_and_without_groups():
    found = victim("""
        confine.set_ids(4321, 1234, clear_groups=True)
        print(json.dumps([os.getresuid(), os.getresgid(), os.getgroups(), attempt(lambda: os.setuid(0))]))
    """)
    assert found == [[4321] * 3, [1234] * 3, [], "EPERM"]
