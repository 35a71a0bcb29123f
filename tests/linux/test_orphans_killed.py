"""Whoever is killed, and when: a second later nothing of any sandbox is left on the host.

The victim is a host process of its own that runs sandboxes, has a forked child alive, and is killed at a random
instant; or its launcher is, or an init. Left-overs are looked for by a word in the commands' arguments, by the
owner's pid in folder names, and by counting mounts. KAVACH_SOAK=1 runs the full numbers.
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import uuid

import pytest

pytestmark = [pytest.mark.needs("userns", "seccomp"), pytest.mark.landlock(6)]
FULL = os.environ.get("KAVACH_SOAK") == "1"
HOST_KILLS, LAUNCHER_KILLS, INIT_KILLS = (200, 100, 100) if FULL else (40, 20, 20)
GONE_WITHIN_S = 1.0
VICTIM = """
import json, multiprocessing, os, sys, threading, time
import kavach
mark, stage = sys.argv[1:3]
if stage == 'forked':
    child = os.fork()
    if child == 0:
        time.sleep(8)
        os._exit(0)
script = f'(setsid sleep 300.{mark} &) ; (setsid sh -c "trap : TERM; sleep 300.{mark}; sleep 300.{mark}" &) ; sleep 300.{mark}'
def turn():
    try:
        with kavach.Sandbox(policy='strict') as sandbox:
            init = sandbox._wall._standing.pid
            print(json.dumps({'launcher': kavach.launcher.client.shared().pid, 'init': init}), flush=True)
            if stage == 'short':
                for _ in range(3):
                    sandbox.exec(['sh', '-c', f'(setsid sleep 300.{mark} &); echo x'])
                return
            process = sandbox.spawn(['sh', '-c', script])
            if stage == 'paused':
                time.sleep(0.1)
                sandbox.pause()
                print(json.dumps({'paused': True}), flush=True)
                time.sleep(60)
            if stage == 'forked':
                worker = multiprocessing.get_context('fork').Process(target=time.sleep, args=(8,), daemon=True)
                worker.start()
            result = process.wait()
            print(json.dumps({'reason': result.reason.value}), flush=True)
    except kavach.KavachError as error:
        print(json.dumps({'error': type(error).__name__, 'message': str(error)}), flush=True)
import kavach.launcher.client
turn()
while stage == 'short':
    turn()
if stage in ('again', 'ended'):
    print(json.dumps({'after': kavach.run(['echo', 'anew'], policy='strict').stdout}), flush=True)
"""


def _processes(mark):
    found = []
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        try:
            with open(path, "rb") as file:
                text = file.read()
        except OSError:
            continue
        if f"300.{mark}".encode() in text and b"import json, multiprocessing" not in text:
            found.append((path, text))
    return found


def _launchers_of(host):
    """Return the processes that were started as the launcher of this host process."""
    found = []
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        try:
            with open(path, "rb") as file:
                words = file.read().split(b"\0")
        except OSError:
            continue
        if any(b"kavach.launcher" in word for word in words) and str(host).encode() in words:
            found.append(path)
    return found


def _folders(host):
    """Return the cgroup and temporary folders that carry this host process's pid in their names."""
    found = glob.glob(f"{tempfile.gettempdir()}/kavach-{host}-*")
    for base, folders, _ in os.walk("/sys/fs/cgroup"):
        found += [f"{base}/{name}" for name in folders if name.startswith(f"kavach-{host}-")]
    return found


def _mounts():
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        return file.read()


def _left(mark, host, mounts, children):
    left = [*_processes(mark), *(path for path in _launchers_of(host) if path not in children), *_folders(host)]
    return left + ([] if _mounts() == mounts else ["mounts"])


def _require_gone(mark, host, mounts, children=()):
    deadline = time.monotonic() + GONE_WITHIN_S
    while _left(mark, host, mounts, children) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert _left(mark, host, mounts, children) == []


def _start(stage):
    mark = uuid.uuid4().int % 10**12
    argv = [sys.executable, "-B", "-c", VICTIM, str(mark), stage]
    return mark, subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, start_new_session=True, cwd="/")


def _finish(victim):
    """Kill the whole session of the victim, its forked children too."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(victim.pid, signal.SIGKILL)
    victim.wait()
    victim.stdout.close()


def _hear(victim, key):
    for line in victim.stdout:
        found = json.loads(line)
        if key in found or "error" in found:
            return found
    return {}


def test_positive_control_the_census_sees_what_is_there():
    mark, victim = _start("long")
    try:
        mounts = _mounts()
        _hear(victim, "init")
        time.sleep(0.5)
        assert len(_processes(mark)) >= 3
        assert _launchers_of(victim.pid)
        if os.geteuid() == 0 and glob.glob("/sys/fs/cgroup/*/cgroup.procs"):
            assert _folders(victim.pid)
    finally:
        _finish(victim)
    _require_gone(mark, victim.pid, mounts)


@pytest.mark.parametrize("stage", ["short", "long", "forked"])
def test_host_killed_at_random_instants_leaves_nothing(stage):
    mounts = _mounts()
    chance = random.Random(os.urandom(8))
    for _ in range(-(-HOST_KILLS // 3)):
        mark, victim = _start(stage)
        try:
            if chance.random() < 0.8:
                _hear(victim, "init")
                time.sleep(chance.random() * 0.08)
            else:
                time.sleep(chance.random() * 0.25)  # while it starts
            victim.kill()
            victim.wait()
            # The forked children of the host live on; nothing else may.
            _require_gone(mark, victim.pid, mounts)
        finally:
            _finish(victim)


def test_host_killed_with_its_process_group_leaves_nothing():
    mounts = _mounts()
    for _ in range(5):
        mark, victim = _start("long")
        _hear(victim, "init")
        time.sleep(random.random() * 0.05)
        _finish(victim)
        _require_gone(mark, victim.pid, mounts)


def test_host_killed_while_a_sandbox_is_paused_leaves_nothing():
    mounts = _mounts()
    for _ in range(5):
        mark, victim = _start("paused")
        assert _hear(victim, "paused") == {"paused": True}
        victim.kill()
        try:
            _require_gone(mark, victim.pid, mounts)
        finally:
            _finish(victim)


@pytest.mark.parametrize("whom", ["launcher", "init"])
def test_launcher_or_init_killed_is_backend_lost_and_leaves_nothing(whom):
    mounts = _mounts()
    for _ in range(LAUNCHER_KILLS if whom == "launcher" else INIT_KILLS):
        mark, victim = _start("again")
        try:
            found = _hear(victim, "init")
            time.sleep(random.random() * 0.06)
            os.kill(found[whom], signal.SIGKILL)
            ending = _hear(victim, "reason")
            assert ending.get("reason") == "backend_lost" or ending.get("error") == "BackendError", ending
            assert _hear(victim, "after") == {"after": "anew\n"}
            assert victim.wait(20) == 0
            _require_gone(mark, victim.pid, mounts)
        finally:
            _finish(victim)


def test_sandbox_made_in_a_thread_outlives_the_thread():
    code = """
import threading, time, kavach
made = []
def make():
    made.append(kavach.Sandbox(policy='strict').__enter__())
worker = threading.Thread(target=make); worker.start(); worker.join()
time.sleep(0.3)
print(made[0].exec(['echo', 'alive']).stdout, end='')
made[0].destroy()
"""
    done = subprocess.run([sys.executable, "-B", "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "alive\n", done.stderr


def test_workdir_has_no_new_entry_after_destroy(tmp_path):
    code = """
import sys, kavach
before = sorted(__import__('os').listdir(sys.argv[1]))
with kavach.Sandbox(policy='strict', workdir=sys.argv[1], workdir_rw=True) as sandbox:
    sandbox.exec(['sh', '-c', 'cat file >/dev/null'])
assert sorted(__import__('os').listdir(sys.argv[1])) == before == ['file'], __import__('os').listdir(sys.argv[1])
"""
    (tmp_path / "file").write_text("x", encoding="ascii")
    done = subprocess.run([sys.executable, "-B", "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
