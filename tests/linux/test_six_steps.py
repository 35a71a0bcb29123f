"""The six steps around real commands: what is on record when, whoever runs them and however they end."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import anyio
import pytest
import trio

import kavach
from kavach import (
    AsyncSandbox,
    AuditError,
    CredentialError,
    CredentialProxy,
    EnvVar,
    File,
    Sandbox,
    SecretRef,
    UnsupportedError,
)
from kavach.launcher.init import descendants

pytestmark = [pytest.mark.needs("linux"), pytest.mark.userns, pytest.mark.seccomp]
DEADLINE_S = 30


@pytest.fixture
def records(log):
    """Return a function that gives what is on record, as pairs of event and payload."""

    def read():
        with open(log.path, encoding="utf-8") as file:
            return [(row["event"], row["payload"]) for row in map(json.loads, file)][1:]

    return read


@pytest.fixture(params=["asyncio", "trio"])
def run_async(request):
    """Return what runs an async function under one of the two event loops."""
    return {"asyncio": lambda act: asyncio.run(act()), "trio": trio.run}[request.param]


def endings(rows):
    return [payload["reason"] for event, payload in rows if event == "exec.outcome"]


def counts(rows):
    return [sum(event == kind for event, _ in rows) for kind in ("exec.intent", "exec.outcome")]


@pytest.fixture
def watched(log, tmp_path, monkeypatch):
    """Return the fields of a sandbox, and a list of each record with whether the command had run by then."""
    folder, seen = tmp_path / "work", []
    folder.mkdir()
    folder.chmod(0o777)
    append = log.append

    def note(event, **more):
        seen.append((str(event), (folder / "ran").exists()))
        return append(event, **more)

    monkeypatch.setattr(log, "append", note)
    return {"audit": log, "workdir": str(folder), "workdir_rw": True}, seen


ORDER = [("exec.intent", False), ("exec.enforcement", False), ("exec.outcome", True)]


def test_nothing_has_run_when_intent_and_enforcement_are_recorded_and_all_has_when_the_outcome_is(watched):
    fields, seen = watched
    with Sandbox(**fields) as sandbox:
        assert sandbox.exec(["touch", "ran"]).ok
        assert [row for row in seen if row[0].startswith("exec.")] == ORDER


def test_the_same_order_holds_for_spawn_stream_and_prewarmed_commands(watched):
    fields, seen = watched
    for way in ("spawn", "stream", "prewarm"):
        with Sandbox(**fields) as sandbox:
            sandbox.exec(["rm", "-f", "ran"])
            del seen[:]
            if way == "spawn":
                assert sandbox.spawn(["touch", "ran"]).wait(DEADLINE_S).ok
            elif way == "stream":
                assert list(sandbox.stream(["touch", "ran"])) == []
            else:
                sandbox.prewarm()
                assert sandbox.exec(["touch", "ran"]).ok
            first, *_, last = [row for row in seen if row[0].startswith("exec.")]
            assert (first, last) == (ORDER[0], ORDER[2]), way
            assert all(row in ORDER for row in seen if row[0].startswith("exec.")), way


def test_the_same_order_holds_for_awaited_commands(watched, run_async):
    fields, seen = watched

    async def act():
        async with AsyncSandbox(**fields) as sandbox:
            assert (await sandbox.exec(["touch", "ran"])).ok

    run_async(act)
    assert [row for row in seen if row[0].startswith("exec.")] == ORDER


def test_each_command_that_is_refused_after_its_intent_has_its_outcome(log, records, tmp_path):
    proxy = CredentialProxy()
    proxy.register("token", "value-" + "of-mine-77")
    work = tmp_path / "work"
    work.mkdir()
    work.chmod(0o777)
    env, file = SecretRef("nobody-knows", EnvVar("T")), SecretRef("token", File("/workspace/t"))
    cases = [
        ({"min_score": 100}, UnsupportedError),
        ({"secrets": [env], "credentials": proxy}, CredentialError),
        ({"secrets": [file], "credentials": proxy, "workdir": str(work), "workdir_rw": True}, UnsupportedError),
    ]
    for fields, kind in cases:
        with Sandbox(audit=log, **fields) as sandbox, pytest.raises(kind):
            sandbox.exec(["true"])
    refused = [payload for event, payload in records() if event == "exec.outcome"]
    assert [payload["error"] for payload in refused] == [kind.__name__ for _, kind in cases]
    assert endings(records()) == ["not_run"] * len(cases)


def test_a_wall_refused_as_too_weak_is_on_record_with_what_was_seen_of_it(log, records):
    with Sandbox(audit=log, min_score=100) as sandbox, pytest.raises(UnsupportedError):
        sandbox.exec(["true"])
    kinds = [event for event, _ in records() if event.startswith("exec.")]
    assert kinds == ["exec.intent", "exec.enforcement", "exec.outcome"]
    (seen,) = [payload for event, payload in records() if event == "exec.enforcement"]
    assert any(row["state"] == "enforced" for row in seen["rows"])


@pytest.mark.parametrize(
    ("argv", "options", "reason"),
    [
        (["false"], {}, "exit"),
        (["sh", "-c", "kill -9 $$"], {}, "signal"),
        (["sleep", "60"], {"timeout_s": 0.2}, "timeout"),
        (["no-such-program"], {}, "exit"),
    ],
)
def test_each_ending_is_on_record_as_it_is_returned(log, records, argv, options, reason):
    with Sandbox(audit=log) as sandbox:
        ended = sandbox.exec(argv, **options)
    (payload,) = [payload for event, payload in records() if event == "exec.outcome"]
    assert (str(ended.reason), payload["reason"]) == (reason, reason)
    assert (payload["exit_code"], payload["signal"]) == (ended.exit_code, ended.signal)
    assert payload["limits_hit"] == (None if ended.limits_hit is None else list(ended.limits_hit))
    assert ("exec.limits" in [event for event, _ in records()]) == bool(ended.limits_hit)


def test_a_cancelled_exec_has_ended_and_is_on_record_before_the_cancellation_goes_on(log, records, run_async):
    async def act():
        async with AsyncSandbox(audit=log) as sandbox:
            with anyio.move_on_after(0.4):
                await sandbox.exec(["sleep", "60"])
            assert endings(records()) == ["policy_kill"]
            assert (await sandbox.exec(["true"])).ok

    run_async(act)
    assert counts(records()) == [2, 2]


def test_tasks_cancelled_at_any_moment_leave_one_outcome_each(log, records):
    async def act():
        async with AsyncSandbox(audit=log) as sandbox:
            for number in range(30):
                task = asyncio.ensure_future(sandbox.exec(["echo", "x"]))
                await asyncio.sleep(number * 0.0006)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            assert (await sandbox.exec(["true"])).ok

    asyncio.run(act())
    intents, outcomes = counts(records())
    assert intents == outcomes > 1


def test_a_spawned_command_that_nobody_waits_for_is_on_record_also_when_destroy_ends_it(log, records):
    with Sandbox(audit=log) as sandbox:
        sandbox.spawn(["true"])
        held = sandbox.spawn(["sleep", "60"])
    assert held.wait(DEADLINE_S).exit_code is None
    deadline = time.monotonic() + DEADLINE_S
    while counts(records()) != [2, 2] and time.monotonic() < deadline:
        time.sleep(0.02)
    assert counts(records()) == [2, 2]


def test_awaited_spawns_that_nobody_waits_for_are_on_record_when_the_loop_ends(log, records, run_async):
    async def act():
        sandbox = AsyncSandbox(audit=log)
        await sandbox.__aenter__()
        await sandbox.spawn(["sleep", "60"])

    run_async(act)
    assert counts(records()) == [1, 1]


def test_many_threads_in_one_sandbox_leave_one_chain(log, records):
    with Sandbox(audit=log) as sandbox:

        def work():
            for _ in range(5):
                assert sandbox.exec(["echo", "x"]).stdout == "x\n"

        threads = [threading.Thread(target=work) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert counts(records()) == [30, 30]
    serials = [payload["intent_serial"] for event, payload in records() if event == "exec.outcome"]
    assert len(set(serials)) == 30


def test_run_returns_nothing_when_its_end_cannot_be_recorded(log, monkeypatch):
    append = log.append

    def refuse(event, **more):
        if event == "sandbox.destroyed":
            raise AuditError("the disk refused", check="write")
        return append(event, **more)

    monkeypatch.setattr(log, "append", refuse)
    with pytest.raises(AuditError):
        kavach.run(["echo", "hello"], audit=log)


def is_asleep(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes() == b"sleep\x0060\x00"
    except OSError:
        return False


def test_an_interrupt_from_the_keyboard_leaves_an_outcome_and_nothing_else(tmp_path):
    body = """
    import json, sys, threading, time, os, signal
    import kavach
    from kavach.audit.log import AuditLog
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a suite in the background inherits it ignored
    log = AuditLog(sys.argv[1], key=b"k" * 32)
    sandbox = kavach.Sandbox(audit=log)
    try:
        with sandbox:
            print("ready", flush=True)
            sandbox.exec(["sleep", "60"])
    except KeyboardInterrupt:
        log.verify()
        with open(log.path) as file:
            rows = [json.loads(line) for line in file]
        ran = [row["payload"]["reason"] for row in rows if row["event"] == "exec.outcome"]
        print(json.dumps([ran, rows[-1]["event"], str(sandbox.state)]))
    """
    argv = [sys.executable, "-B", "-c", textwrap.dedent(body), str(tmp_path / "audit.log")]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as victim:
        assert victim.stdout.readline() == "ready\n"
        deadline = time.monotonic() + DEADLINE_S
        while not any(is_asleep(pid) for pid in descendants(victim.pid)):
            assert time.monotonic() < deadline, "the command did not start"
            time.sleep(0.02)
        victim.send_signal(signal.SIGINT)
        said, _ = victim.communicate(timeout=DEADLINE_S)
    assert json.loads(said) == [["policy_kill"], "sandbox.destroyed", "destroyed"]
