"""The integrity monitor on real sandboxes: what it sees of healthy ones, and each act that it must notice."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
import time

import pytest

from kavach import KavachError, Sandbox
from kavach.gate.inspection import inspect_sandbox
from kavach.gate.integrity import IntegrityMonitor, IntegrityPolicy, Subject, try_to_read
from kavach.launcher.evidence import host_inodes

pytestmark = [pytest.mark.needs("linux"), pytest.mark.userns, pytest.mark.seccomp]
DEADLINE_S = 30
INTERVAL_S = 0.2


def subject_of(sandbox, *, sensitive=()):
    facts = sandbox._wall.facts()
    return Subject(
        sandbox_id=sandbox.id,
        init_pid=facts.init_pid,
        namespaces=facts.namespaces,
        needs_filter=facts.has_filter,
        needs_no_new_privs=True,
        groups=facts.groups,
        writable=facts.writable,
        sensitive=tuple(sensitive),
        can_read=lambda path: try_to_read(sandbox.files.list, sandbox.files.read, path),
        open_workspace=facts.open_workspace,
    )


def begin_sleep(sandbox):
    """Start a command and return when it is one: the child before it shows itself to root only."""
    process = sandbox.spawn(["sleep", "60"])
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            for pid in sandbox.processes():
                with open(f"/proc/{pid}/comm") as file:
                    if file.read() == "sleep\n":
                        return process
        time.sleep(0.005)
    raise AssertionError("sleep did not start")


@pytest.fixture
def strict():
    with Sandbox(policy="strict") as sandbox:
        yield sandbox


@pytest.fixture
def busy(strict):
    """Return a sandbox with a command that runs, so that a plain user sees its files through that one."""
    process = begin_sleep(strict)
    yield strict
    process.kill()
    process.wait()


@pytest.fixture
def lax():
    """Return a busy sandbox without a filter: where there is one, it refuses setuid bits itself."""
    with Sandbox(policy="minimal") as sandbox:
        process = begin_sleep(sandbox)
        yield sandbox
        process.kill()
        process.wait()


@contextlib.contextmanager
def watching(sandbox, **options):
    """Yield a function that waits for a failure of a check, and the failures so far."""
    told, news = [], threading.Condition()

    def report(failures):
        with news:
            told.extend(failures)
            news.notify_all()

    def wait(check):
        with news:
            assert news.wait_for(lambda: check in [one.check for one in told], DEADLINE_S), told
        return next(one for one in told if one.check == check)

    monitor = IntegrityMonitor()
    monitor.watch(subject_of(sandbox, **options), IntegrityPolicy(interval_s=INTERVAL_S), report)
    try:
        yield wait, told
    finally:
        monitor.forget(sandbox.id)


def test_a_busy_sandbox_of_many_processes_fails_no_check(strict):
    with watching(strict, sensitive=["/etc/shadow", "/root"]) as (_, told):
        for _ in range(4):
            strict.exec(["sh", "-c", "for i in 1 2 3 4 5 6 7 8; do (true | cat) & done; wait; echo x > /tmp/x"])
            time.sleep(INTERVAL_S)
    assert told == []


def test_everything_of_a_healthy_sandbox_can_be_looked_at(busy):
    seen = inspect_sandbox(subject_of(busy, sensitive=["/etc/shadow"]), host_inodes())
    inits, commands = seen.members[:1], seen.members[1:]
    assert inits[0].pid == busy._wall.facts().init_pid
    assert commands
    assert all(one.has_filter and one.has_no_new_privs and one.is_inside for one in seen.members)
    assert {one.shared for one in commands} == {frozenset()}
    assert seen.mounts
    assert seen.readable == frozenset()
    assert seen.unknown == ()


def test_a_sandbox_that_has_gone_is_not_looked_at():
    with Sandbox(policy="basic") as sandbox:
        subject = subject_of(sandbox)
    assert inspect_sandbox(subject, host_inodes()) is None


@pytest.mark.root
def test_a_stranger_without_a_filter_in_the_sandboxes_cgroup_is_noticed(busy):
    folders = busy._wall.facts().groups
    if not folders:
        pytest.skip("no cgroup here")
    stranger = subprocess.Popen(["sleep", "60"])
    try:
        with watching(busy) as (wait, told):
            assert told == []
            folder = next(one for one in folders if "/pids/" in one or os.path.exists(f"{one}/cgroup.threads"))
            with open(f"{folder}/cgroup.procs", "w") as file:
                file.write(str(stranger.pid))
            assert str(stranger.pid) in wait("stranger").detail
            assert str(stranger.pid) in wait("seccomp").detail
            wait("no_new_privs")
            wait("namespaces")
    finally:
        stranger.kill()
        stranger.wait()


def test_a_new_setuid_file_is_noticed_wherever_a_command_can_write(lax):
    lax.exec(["sh", "-c", "mkdir -p /tmp/a/b && cp /bin/true /workspace/old"])
    with watching(lax) as (wait, told):
        assert told == []
        assert lax.exec(["sh", "-c", "cp /bin/true /tmp/a/b/new && chmod 4755 /tmp/a/b/new"]).ok
        assert wait("setuid").detail == "new: /tmp/a/b/new"
        assert lax.exec(["chmod", "2755", "/workspace/old"]).ok
        deadline = time.monotonic() + DEADLINE_S
        while len(told) < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
    assert [one.detail for one in told] == ["new: /tmp/a/b/new", "new: /workspace/old"]


def test_a_planted_link_leads_the_search_nowhere(busy, tmp_path):
    tmp_path.chmod(0o755)
    victim = tmp_path / "victim"
    victim.write_bytes(b"")
    victim.chmod(0o4755)
    busy.exec(["sh", "-c", f"ln -s {tmp_path} /workspace/away; ln -s / /tmp/root"])
    seen = inspect_sandbox(subject_of(busy), host_inodes())
    assert seen.setuid == frozenset()


def test_a_tree_made_to_be_endless_is_named_and_not_followed(busy):
    deep = "cd /tmp; i=0; while [ $i -lt 200 ]; do mkdir d && cd d || exit 1; i=$((i+1)); done"
    assert busy.exec(["sh", "-c", deep]).ok
    seen = inspect_sandbox(subject_of(busy), host_inodes())
    assert any("too deep" in words for words in seen.unknown)


@pytest.mark.root
def test_a_changed_mount_is_noticed(busy):
    with watching(busy) as (wait, told):
        assert told == []
        # In the sandbox's own mount namespace, which ends with it.
        entered = ["nsenter", f"--mount=/proc/{busy._wall.facts().init_pid}/ns/mnt"]
        done = subprocess.run([*entered, "mount", "-t", "tmpfs", "planted", "/workspace"], capture_output=True)
        if done.returncode:
            pytest.skip(f"cannot mount in there: {done.stderr!r}")
        assert "/workspace" in wait("mounts").detail


def test_a_path_that_became_readable_is_noticed(busy):
    with watching(busy, sensitive=["/workspace/late", "/etc/shadow"]) as (wait, told):
        assert told == []
        busy.files.write("/workspace/late", b"x")
        assert wait("sensitive").detail == "can be read: /workspace/late"


def test_a_paused_sandbox_is_looked_at_without_waiting_for_it(busy):
    with watching(busy, sensitive=["/etc/shadow"]) as (_, told):
        busy.pause()
        began = time.monotonic()
        seen = inspect_sandbox(subject_of(busy, sensitive=["/etc/shadow"]), host_inodes())
        assert time.monotonic() - began < 5
        assert seen is not None
        busy.resume()
    assert told == []


def test_a_failure_may_destroy_the_sandbox_from_the_monitors_thread():
    done = threading.Event()
    with Sandbox(policy="strict") as sandbox:
        monitor = IntegrityMonitor()

        def kill(failures):
            monitor.forget(sandbox.id)
            sandbox.destroy()
            done.set()

        monitor.watch(subject_of(sandbox, sensitive=["/workspace/late"]), IntegrityPolicy(interval_s=INTERVAL_S), kill)
        sandbox.files.write("/workspace/late", b"x")
        assert done.wait(DEADLINE_S)
        with pytest.raises(KavachError):
            sandbox.exec(["true"])
