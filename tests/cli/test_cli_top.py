"""`kavach top`: what another process of the same user is shown of running sandboxes."""

from __future__ import annotations

import json
import os
import subprocess
import threading

import pytest
from command_line import KAVACH, environment, kavach

from kavach import Sandbox, SandboxConfig, SandboxState
from kavach.audit.events import make_announcer
from kavach.audit.usage import SandboxUsage
from kavach.cli import top
from kavach.cli.status import status_folder, told_bus

DEADLINE_S = 30


def looks_at(folder, wanted):
    """Look again and again until what is seen is as wanted."""
    limit = threading.Event()
    for _ in range(DEADLINE_S * 20):
        done = kavach("top", "--json", env={"XDG_RUNTIME_DIR": str(folder)})
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)["sandboxes"]
        if wanted(found):
            return found
        limit.wait(0.05)
    raise AssertionError(found)


@pytest.mark.needs("linux")
@pytest.mark.userns
def test_running_sandboxes_are_shown_with_what_they_use_and_vanish_with_their_end(tmp_path):
    tmp_path.chmod(0o700)
    with told_bus({"XDG_RUNTIME_DIR": str(tmp_path)}) as bus:
        with Sandbox(policy="strict") as sandbox:
            voice = make_announcer(SandboxConfig(events=bus, agent_id="agent-7"), sandbox.id)
            voice.enter(SandboxState.CREATED, backend="process", policy="strict")
            voice.enter(SandboxState.RUNNING, pid=sandbox._wall.facts().init_pid)
            process = sandbox.spawn(["sh", "-c", "while :; do :; done"])
            (row,) = looks_at(tmp_path, lambda rows: rows and rows[0]["cpu_percent"])
            assert (row["id"], row["state"], row["agent_id"], row["host_pid"]) == (
                sandbox.id,
                "running",
                "agent-7",
                os.getpid(),
            )
            used = row["usage"]
            assert used["source"] in {"cgroup1", "cgroup2", "procfs"}
            assert used["cpu_time_ms"] > 0
            assert used["memory_bytes"] > 0
            assert used["pids"] >= 2
            lines = kavach("top", env={"XDG_RUNTIME_DIR": str(tmp_path)}).stdout.decode().splitlines()
            assert [line.split("\t")[0] for line in lines] == ["sandbox", sandbox.id]
            process.kill()
            process.wait()
        voice.enter(SandboxState.DESTROYED)
        looks_at(tmp_path, lambda rows: rows == [])
    assert os.listdir(tmp_path / "kavach") == []


@pytest.mark.needs("userns", "seccomp")
def test_a_run_of_the_command_line_is_shown_while_it_lasts_unless_it_leaves_no_record(tmp_path):
    tmp_path.chmod(0o700)
    env = environment(XDG_RUNTIME_DIR=str(tmp_path), XDG_STATE_HOME=str(tmp_path / "state"))
    shown = [*KAVACH, "run", "--policy", "strict", "--", "cat"]
    with subprocess.Popen(shown, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as running:
        (row,) = looks_at(tmp_path, lambda rows: [one["state"] for one in rows] == ["running"] and rows[0]["usage"])
        assert (row["backend"], row["policy"]) == ("process", "strict")
        assert running.communicate(b"end\n", timeout=DEADLINE_S)[0] == b"end\n"
    looks_at(tmp_path, lambda rows: rows == [])
    unshown = [*KAVACH, "run", "--no-record", "--", "cat"]
    with subprocess.Popen(unshown, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as running:
        assert running.stdin is not None
        running.stdin.write(b"x\n")
        running.stdin.flush()
        assert running.stdout is not None
        assert running.stdout.read(1) == b"x"  # it runs
        looks_at(tmp_path, lambda rows: rows == [])
        running.communicate(timeout=DEADLINE_S)


@pytest.fixture
def host(tmp_path, monkeypatch):
    """Return a folder in which this process tells of two sandboxes, one of which has this process as its first."""
    tmp_path.chmod(0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with told_bus(os.environ) as bus:
        for name, pid in (("sb-1", os.getpid()), ("sb-2", None)):
            bus.publish(f"sandbox/{name}/lifecycle/created", {"state": "created", "backend": "process"})
            bus.publish(f"sandbox/{name}/lifecycle/started", {"state": "running", "pid": pid})
        limit = threading.Event()
        while len(top.look(status_folder(os.environ), ())) < 2:
            limit.wait(0.01)
        yield tmp_path


@pytest.mark.needs("linux")
def test_one_look_is_a_table_or_a_line_of_json(host, capfd):
    assert top.main(["--once"]) == 0
    rows = [line.split("\t") for line in capfd.readouterr().out.splitlines()]
    assert [row[0] for row in rows] == ["sandbox", "sb-1", "sb-2"]
    assert rows[1][-1] == "procfs"
    assert set(rows[2][5:12]) == {"-"}
    assert top.main(["--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert found["schema"] == "kavach.top/1"
    assert [row["usage"] is None for row in found["sandboxes"]] == [False, True]


@pytest.mark.needs("linux")
def test_on_a_terminal_it_looks_again_until_it_is_interrupted(host, capfd, monkeypatch):
    pauses = []

    def pause(seconds):
        pauses.append(seconds)
        if len(pauses) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(top, "is_terminal", lambda handle: True)
    monkeypatch.setattr(top.time, "sleep", pause)
    assert top.main(["--interval", "0.01"]) == 0
    shown = capfd.readouterr().out
    assert shown.count("2 sandboxes of 1 processes, 2 running") == 3
    assert pauses == [0.2] * 3  # however short the interval asked for


def test_nothing_is_shown_where_nobody_told_anything(tmp_path):
    tmp_path.chmod(0o700)
    done = kavach("top", env={"XDG_RUNTIME_DIR": str(tmp_path)})
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 1
    assert os.listdir(tmp_path) == []


def test_a_folder_that_others_may_write_to_is_refused(tmp_path):
    (tmp_path / "kavach").mkdir()
    (tmp_path / "kavach").chmod(0o777)
    done = kavach("top", env={"XDG_RUNTIME_DIR": str(tmp_path)})
    assert done.returncode == 125
    assert b"nobody else may write" in done.stderr


def test_a_run_goes_on_where_its_status_cannot_be_told(tmp_path):
    blocked = tmp_path / "file"
    blocked.touch()
    with told_bus({"XDG_RUNTIME_DIR": str(blocked)}) as bus:
        bus.publish("sandbox/sb-1/lifecycle/created", {"state": "created"})
        assert bus.metrics().subscribers == 0


@pytest.mark.parametrize(
    ("environ", "folder"),
    [
        ({"XDG_RUNTIME_DIR": "/run/user/7", "HOME": "/home/a"}, "/run/user/7/kavach"),
        ({"XDG_RUNTIME_DIR": "relative", "XDG_STATE_HOME": "/state", "HOME": "/home/a"}, "/state/kavach/run"),
        ({"XDG_STATE_HOME": "x", "HOME": "/home/a"}, "/home/a/.local/state/kavach/run"),
        ({}, "/nonexistent/.local/state/kavach/run"),
    ],
)
def test_the_folder_follows_the_base_directory_rules(environ, folder):
    assert status_folder(environ) == folder


def test_a_share_of_the_processor_is_over_the_time_between_two_looks():
    now = top.Look(1, None, SandboxUsage("procfs", cpu_time_ms=500.0), at_s=12.0, cpu_percent=None)
    before = now._replace(usage=SandboxUsage("procfs", cpu_time_ms=0.0), at_s=10.0)
    assert top._percent(before, now) == pytest.approx(25.0)
    assert top._percent(None, now) is None
    assert top._percent(before._replace(usage=None), now) is None
    assert top._percent(before, now._replace(usage=SandboxUsage("procfs"))) is None


@pytest.mark.parametrize(
    ("count", "words"), [(None, "-"), (0, "0 B"), (1536, "1.5 KiB"), (3 << 20, "3.0 MiB"), (5 << 30, "5.0 GiB")]
)
def test_bytes_are_shown_as_people_read_them(count, words):
    assert top._bytes(count) == words
