"""The host's end of the launcher: it starts, dies, is replaced, and what belongs to a forked child does not live on."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time

import pytest

from kavach.errors import InternalError, LaunchError
from kavach.launcher import client, init, negotiate
from kavach.launcher.client import Launcher, Request
from kavach.launcher.lower import FLAGS
from kavach.launcher.prepared import StepError, receive_within
from kavach.model.policy import SandboxPolicy

pytestmark = pytest.mark.needs("linux", "userns")
DEADLINE_S = 60
PLAIN = Request(flags=0, maps=(b"", b"", 0), sources=(), plan=((), (), (), 1))


@pytest.fixture
def launcher():
    one = Launcher()
    one.await_start()
    yield one
    one.close()


def victim(body):
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(body)], capture_output=True, text=True, timeout=DEADLINE_S
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def wait_until(holds, deadline_s=10.0):
    end = time.monotonic() + deadline_s
    while not holds():
        assert time.monotonic() < end, "did not come about in time"
        time.sleep(0.005)


def is_running(pid):
    try:
        with open(f"/proc/{pid}/stat", "rb") as handle:
            return handle.read().rpartition(b")")[2].split()[0] not in {b"Z", b"X"}
    except OSError:
        return False


def test_launcher_has_no_environment_and_three_descriptors_to_nowhere(launcher):
    with open(f"/proc/{launcher.pid}/environ", "rb") as handle:
        assert b"PATH=" not in handle.read()
    assert {os.readlink(f"/proc/{launcher.pid}/fd/{number}") for number in range(3)} == {"/dev/null"}
    assert os.getsid(launcher.pid) == launcher.pid


def test_sandbox_stands_and_goes(launcher):
    standing = launcher.create(PLAIN)
    assert standing.is_alive()
    assert len(standing.inodes) == 7
    standing.kill()
    assert standing.wait_gone(10)
    assert not standing.is_alive()
    standing.release()
    standing.release()
    assert standing.pidfd == -1


def test_killed_launcher_takes_its_sandboxes_along_and_says_so(launcher):
    standing = launcher.create(PLAIN._replace(plan=(((b"die_with_launcher", 1, ()),), (), (), 1)))
    os.kill(launcher.pid, signal.SIGKILL)
    wait_until(lambda: not launcher.is_alive())
    assert standing.wait_gone(10)
    with pytest.raises(LaunchError, match="gone"):
        launcher.create(PLAIN)
    with pytest.raises(BrokenPipeError):
        standing.prepare()
    standing.kill_all()
    standing.release()


def test_shared_launcher_is_one_and_is_replaced_after_its_death():
    found = victim("""
        import json, os, signal, threading, time
        from kavach.launcher import client
        seen = []
        threads = [threading.Thread(target=lambda: seen.append(client.shared().pid)) for _ in range(8)]
        [one.start() for one in threads]; [one.join() for one in threads]
        first = client.shared()
        first.await_start()
        os.kill(first.pid, signal.SIGKILL)
        while first.is_alive():
            time.sleep(0.005)
        second = client.shared()
        second.await_start()
        print(json.dumps([len(set(seen)), second is not first, second is client.shared()]))
    """)
    assert found == [1, True, True]


def test_forked_child_lets_go_and_starts_its_own():
    found = victim("""
        import json, os
        from kavach.launcher import client
        plain = client.Request(flags=0, maps=(b"", b"", 0), sources=(), plan=((), (), (), 1))
        parent = client.shared()
        standing = parent.create(plain)
        ready, told = os.pipe()
        pid = os.fork()
        if pid == 0:
            gone = [standing.pidfd, parent.is_alive()]
            own = client.shared()
            own.await_start()
            os.write(told, json.dumps([*gone, own.pid != parent.pid]).encode())
            own.close()
            os._exit(0)
        os.waitpid(pid, 0)
        child = json.loads(os.read(ready, 1000))
        print(json.dumps([child, standing.is_alive(), client.shared() is parent]))
    """)
    assert found == [[-1, False, True], True, True]


def test_forked_child_that_lives_on_does_not_keep_the_sandboxes():
    init_pid, child = victim("""
        import json, os, time
        from kavach.launcher import client
        standing = client.shared().create(client.Request(flags=0, maps=(b"", b"", 0), sources=(), plan=((), (), (), 1)))
        pid = os.fork()
        if pid == 0:
            for number in (0, 1, 2):
                os.close(number)
            time.sleep(30)
            os._exit(0)
        print(json.dumps([standing.pid, pid]), flush=True)
        os._exit(0)
    """)
    try:
        wait_until(lambda: not is_running(init_pid))
        assert is_running(child)
    finally:
        os.kill(child, signal.SIGKILL)


def test_launcher_that_does_not_start_is_named(monkeypatch):
    monkeypatch.setattr(client, "START_TIMEOUT_S", 0.05)
    monkeypatch.setattr(client, "_BOOT", "import time; time.sleep(30)")
    one = Launcher()
    pid = one.pid
    try:
        with pytest.raises(InternalError, match="did not start"):
            one.await_start()
    finally:
        os.kill(pid, signal.SIGKILL)
        one.close()


def test_launcher_that_ends_at_once_is_named(monkeypatch):
    monkeypatch.setattr(client, "_BOOT", "raise SystemExit(3)")
    one = Launcher()
    with pytest.raises(InternalError, match="did not start"):
        one.await_start()
    one.close()


def test_refused_step_is_named_and_leaves_nothing(launcher):
    before = len(os.listdir("/proc/self/fd"))
    plan = (((b"hold_folder", 1, (b"/absent-folder",)),), (), (), 1)
    with pytest.raises(StepError) as caught:
        launcher.create(PLAIN._replace(plan=plan))
    assert (caught.value.step, caught.value.errno) == ("hold_folder", 2)
    wait_until(lambda: init.children(launcher.pid) == [])
    assert len(os.listdir("/proc/self/fd")) == before


def test_optional_step_that_fails_is_told(launcher):
    plan = (((b"hold_folder", 0, (b"/absent-folder",)),), (), (), 1)
    standing = launcher.create(PLAIN._replace(plan=plan))
    assert standing.lost == ((b"hold_folder", 2),)
    standing.kill()
    standing.release()


def test_request_that_no_init_understands_harms_no_other_sandbox(launcher):
    good = launcher.create(PLAIN)
    with pytest.raises(LaunchError, match="init ended"):
        launcher.create(PLAIN._replace(plan=(((b"no_such_step", 1, ()),), (), (), 1)))
    with pytest.raises(StepError) as caught:
        launcher.create(PLAIN._replace(flags=FLAGS["user"], maps=(b"0 0 4294967295", b"", 0)))
    assert caught.value.step == "id_maps"
    with pytest.raises(StepError) as caught:
        launcher.create(PLAIN._replace(sources=((b"/absent-folder", 0, 0),)))
    assert caught.value.step == "open_trees"
    assert launcher.is_alive()
    assert good.is_alive()
    good.kill()
    good.release()


def test_answer_that_does_not_come_is_not_waited_for():
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with left, right, pytest.raises(TimeoutError):
        receive_within(left, 0.01)


def test_namespaces_are_found_by_trying(launcher):
    maps = (b"1000 %d 1" % os.geteuid(), b"1000 %d 1" % os.getegid(), 1)
    found = negotiate.find_namespaces(launcher, maps)
    assert {"user", "pid", "mnt"} <= found
    assert negotiate.find_namespaces(launcher, (b"0 0 4294967295", b"0 0 4294967295", 0)) <= {*FLAGS}


def test_missing_namespaces_are_let_pass_only_by_name():
    negotiate.require_lackable(SandboxPolicy.strict(), frozenset({"cgroup"}), "why")
    negotiate.require_lackable(SandboxPolicy.basic(), frozenset({"user", "pid", "mnt", "ipc", "uts"}), "why")
    for name, control in (("user", "user_ns"), ("pid", "pid_ns"), ("mnt", "mount_view"), ("uts", "uts_ns")):
        with pytest.raises(negotiate.UnsupportedError) as caught:
            negotiate.require_lackable(SandboxPolicy.strict(), frozenset({name}), "the reason")
        assert caught.value.control == control
        assert "the reason" in str(caught.value)
