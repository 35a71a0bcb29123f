"""The six steps around a wall that is played: their order on record, and that nothing leaves without its record."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import pickle
import threading

import pytest
import trio

from kavach import (
    AsyncSandbox,
    AuditError,
    CredentialProxy,
    EnvVar,
    ExternalizationPolicy,
    LifecycleError,
    PolicyError,
    Sandbox,
    SecretRef,
    UnsupportedError,
    Withheld,
)
from kavach.audit.events import EventBus
from kavach.audit.log import AuditLog
from kavach.audit.receipt import open_receipt
from kavach.audit.signing import SigningKey
from kavach.errors import BackendError, KavachError
from kavach.gate import guarded, release, scan
from kavach.gate.offenders import OffenderTracker
from kavach.gate.quarantine import QuarantineStore
from kavach.model.guard import GuardPolicy
from kavach.testing import fake as fakes

KEY = "ghp_" + "x9K2mQ7vB4nT8wR1pL6s" + "D3fG5hJ0zXcVbNaE"
MAC_KEY = b"k" * 32
WAIT_S = 20


@pytest.fixture
def log(tmp_path):
    with AuditLog(tmp_path / "audit.log", key=MAC_KEY) as made:
        yield made


@pytest.fixture
def records(log):
    """Return a function that gives what is on record, and has verified the chain."""

    def read():
        log.verify()
        with open(log.path, encoding="utf-8") as file:
            return [json.loads(line) for line in file][1:]

    return read


@pytest.fixture(params=["asyncio", "trio"])
def run_async(request):
    """Return what runs an async function under one of the two event loops."""
    return {"asyncio": lambda act: asyncio.run(act()), "trio": trio.run}[request.param]


def events(rows):
    return [row["event"] for row in rows]


def outcomes(rows):
    return [row["payload"] for row in rows if row["event"] == "exec.outcome"]


def intents(rows):
    return [row["serial"] for row in rows if row["event"] == "exec.intent"]


def assert_each_intent_has_one_outcome(rows):
    assert sorted(one["intent_serial"] for one in outcomes(rows)) == intents(rows)


def test_a_command_is_recorded_intended_seen_and_ended_in_that_order(fake, log, records):
    with Sandbox(**fake, audit=log) as sandbox:
        sandbox.exec(["echo", "hello"])
    assert events(records()) == [
        "sandbox.created",
        "sandbox.transition",
        "exec.intent",
        "exec.enforcement",
        "exec.outcome",
        "sandbox.destroyed",
    ]
    (ending,) = outcomes(records())
    assert (ending["reason"], ending["exit_code"], ending["stdout_bytes"]) == ("exit", 0, 6)
    assert_each_intent_has_one_outcome(records())


def test_intent_is_on_record_before_the_wall_is_asked_and_enforcement_before_the_command_goes(
    fake, log, records, monkeypatch
):
    at_start, at_go = [], []
    start, begin = fakes.FakeWall.start, fakes.FakeRun._begin

    def watched_start(self, *args, **more):
        at_start.append(events(records()))
        return start(self, *args, **more)

    def watched_begin(self, *args):
        at_go.append(events(records()))
        return begin(self, *args)

    monkeypatch.setattr(fakes.FakeWall, "start", watched_start)
    monkeypatch.setattr(fakes.FakeRun, "_begin", watched_begin)
    with Sandbox(**fake, audit=log) as sandbox:
        sandbox.exec(["true"])
    assert at_start[0][-1] == "exec.intent"
    assert at_go[0][-2:] == ["exec.intent", "exec.enforcement"]


def test_every_life_step_is_on_record_from_where_it_led_to_where(fake, log, records):
    with Sandbox(**fake, audit=log) as sandbox:
        sandbox.pause()
        sandbox.resume()
        sandbox.stop()
    steps = [(row["payload"]["from"], row["payload"]["to"]) for row in records()[1:]]
    life = ["created", "running", "paused", "running", "stopped", "destroyed"]
    assert steps == list(itertools.pairwise(life))


def test_a_life_step_that_fails_is_taken_back_on_record(fake, log, records, monkeypatch):
    def fail(self):
        raise BackendError("it cannot be frozen")

    monkeypatch.setattr(fakes.FakeWall, "pause", fail)
    with Sandbox(**fake, audit=log) as sandbox:
        with pytest.raises(BackendError):
            sandbox.pause()
        assert sandbox.exec(["true"]).ok
    steps = [row["payload"] for row in records() if row["event"] == "sandbox.transition"]
    assert steps[1:] == [{"from": "running", "to": "paused"}, {"from": "paused", "to": "running"}]


@pytest.mark.parametrize(
    ("fields", "kind", "has_rows"),
    [
        ({"min_score": 100}, UnsupportedError, True),  # what was seen says why
        ({"guards": GuardPolicy(action="refuse", sensitive_paths=("/secret",))}, PolicyError, False),
    ],
)
def test_a_refused_command_has_its_outcome_on_record(fake, log, records, fields, kind, has_rows):
    with Sandbox(**fake, audit=log, **fields) as sandbox, pytest.raises(kind):
        sandbox.exec(["cat", "/secret/x"])
    (ending,) = outcomes(records())
    assert (ending["reason"], ending["error"]) == ("not_run", kind.__name__)
    assert ("exec.enforcement" in events(records())) is has_rows
    assert_each_intent_has_one_outcome(records())


def test_a_command_in_a_sandbox_that_does_not_run_has_its_outcome_on_record(fake, log, records):
    with Sandbox(**fake, audit=log) as sandbox:
        sandbox.stop()
        with pytest.raises(LifecycleError):
            sandbox.exec(["true"])
    assert [one["error"] for one in outcomes(records())] == ["LifecycleError"]


def test_a_wall_that_fails_under_a_command_is_recorded_as_lost_not_as_never_run(fake, log, records, monkeypatch):
    def fail(self, now_s):
        raise BackendError("gone")

    monkeypatch.setattr(fakes.FakeRun, "tick", fail)
    with Sandbox(**fake, audit=log) as sandbox, pytest.raises(BackendError):
        sandbox.exec(["sleep", "9"])
    assert [one["reason"] for one in outcomes(records())] == ["backend_lost"]


def test_a_command_that_nobody_waits_for_has_its_outcome_on_record(fake, log, records):
    with Sandbox(**fake, audit=log) as sandbox:
        process = sandbox.spawn(["echo", "hello"])
        assert process._done.wait(WAIT_S)
        assert_each_intent_has_one_outcome(records())
        assert outcomes(records())[0]["reason"] == "exit"


def test_a_spawn_that_cannot_make_its_pipe_has_its_outcome_on_record(fake, log, records, monkeypatch):
    with Sandbox(**fake, audit=log) as sandbox:
        with monkeypatch.context() as patched:

            def fail(flags):
                raise OSError(24, "too many")

            patched.setattr("kavach.process.os.pipe2", fail)
            with pytest.raises(OSError, match="too many"):
                sandbox.spawn(["true"])
        assert [(one["reason"], one["message"]) for one in outcomes(records())] == [("not_run", None)]


@pytest.mark.parametrize("verb", ["created", "exec", "destroy"])
def test_without_a_log_that_takes_records_there_is_no_output_and_nothing_stays(fake, tmp_path, verb):
    log = AuditLog(tmp_path / "audit.log", key=MAC_KEY)
    if verb == "created":
        log.close()
        with pytest.raises(AuditError):
            Sandbox(**fake, audit=log)
        return
    sandbox = Sandbox(**fake, audit=log)
    sandbox.__enter__()
    log.close()
    if verb == "exec":
        with pytest.raises(AuditError):
            sandbox.exec(["echo", "hello"])
        assert sandbox._wall._runs == {}
    with pytest.raises(AuditError):
        sandbox.destroy()
    assert str(sandbox.state) == "destroyed"
    assert not sandbox._wall.is_alive()
    sandbox.destroy()


@pytest.mark.parametrize("event", ["exec.intent", "exec.enforcement", "exec.findings", "exec.outcome"])
def test_whichever_record_cannot_be_written_nothing_of_the_output_leaves(fake, log, records, monkeypatch, event):
    append = log.append

    def refuse(kind, **more):
        if kind == event:
            raise AuditError("the disk refused", check="write")
        return append(kind, **more)

    monkeypatch.setattr(log, "append", refuse)
    gate = ExternalizationPolicy.redact()
    with Sandbox(**fake, audit=log, externalization=gate) as sandbox:
        with pytest.raises(AuditError):
            sandbox.exec(["echo", KEY])
        process_error = None
        try:
            sandbox.spawn(["echo", KEY]).wait(WAIT_S)
        except AuditError as error:
            process_error = error
        assert process_error is not None
    assert not [one for one in outcomes(records()) if "stdout_bytes" in one]
    if event == "exec.findings":
        assert [one["reason"] for one in outcomes(records())] == ["withheld", "withheld"]


def test_a_cancelled_exec_has_its_outcome_on_record(fake, log, records, run_async):
    import anyio

    async def act():
        async with AsyncSandbox(**fake, audit=log) as sandbox:
            with anyio.move_on_after(0.2):
                await sandbox.exec(["sleep", "9"])

    run_async(act)
    assert [one["reason"] for one in outcomes(records())] == ["policy_kill"]
    assert_each_intent_has_one_outcome(records())


@pytest.mark.parametrize("late", ["append", "release", "start"])
def test_an_exec_cancelled_within_any_step_has_exactly_one_outcome(fake, log, records, run_async, monkeypatch, late):
    import anyio

    reached, go_on = threading.Event(), threading.Event()

    def slow(inner, is_it):
        def act(*args, **more):
            if is_it(args):
                reached.set()
                go_on.wait(WAIT_S)
            return inner(*args, **more)

        return act

    if late == "append":
        monkeypatch.setattr(log, "append", slow(log.append, lambda args: args[0] == "exec.intent"))
    elif late == "release":
        from kavach.sandbox import passage

        monkeypatch.setattr(passage, "release", slow(passage.release, lambda args: True))
    else:
        monkeypatch.setattr(fakes.FakeWall, "start", slow(fakes.FakeWall.start, lambda args: True))

    async def act():
        async with AsyncSandbox(**fake, audit=log) as sandbox, anyio.create_task_group() as group:
            group.start_soon(sandbox.exec, ["echo", "x"])
            await anyio.to_thread.run_sync(reached.wait)
            threading.Timer(0.1, go_on.set).start()
            group.cancel_scope.cancel()

    run_async(act)
    assert len(intents(records())) == 1
    assert_each_intent_has_one_outcome(records())


@pytest.mark.parametrize("verb", ["exec", "spawn"])
def test_an_asyncio_task_cancelled_while_its_intent_is_recorded_has_its_outcome(fake, log, records, monkeypatch, verb):
    """asyncio's own cancellation reaches a task inside every shield: what the thread had made is lost to it."""
    reached, go_on = threading.Event(), threading.Event()
    append = log.append

    def slow(event, **more):
        if event == "exec.intent":
            reached.set()
            go_on.wait(WAIT_S)
        return append(event, **more)

    monkeypatch.setattr(log, "append", slow)

    async def act():
        async with AsyncSandbox(**fake, audit=log) as sandbox:
            task = asyncio.ensure_future(getattr(sandbox, verb)(["echo", "x"]))
            await asyncio.to_thread(reached.wait)
            task.cancel()
            threading.Timer(0.1, go_on.set).start()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(act())
    assert [one["reason"] for one in outcomes(records())] == ["not_run"]
    assert_each_intent_has_one_outcome(records())


def test_an_asyncio_task_cancelled_at_random_moments_always_has_one_outcome(fake, log, records):
    async def act():
        async with AsyncSandbox(**fake, audit=log) as sandbox:
            for number in range(40):
                task = asyncio.ensure_future(sandbox.exec(["echo", "x"]))
                await asyncio.sleep(number * 0.00015)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    asyncio.run(act())
    assert intents(records())
    assert_each_intent_has_one_outcome(records())


def test_a_spawned_command_whose_loop_ends_has_its_outcome_on_record(fake, log, records, run_async):
    async def act():
        sandbox = AsyncSandbox(**fake, audit=log)
        await sandbox.__aenter__()
        await sandbox.spawn(["sleep", "9"])

    run_async(act)
    assert_each_intent_has_one_outcome(records())


def test_what_a_destroyed_command_had_written_is_still_searched_for_its_secrets(fake, log, monkeypatch):
    word = "canary-" + "value-of-mine-77"
    proxy = CredentialProxy()
    proxy.register("token", word)
    gate = ExternalizationPolicy.redact()
    begin = fakes.FakeRun._begin

    def talk_and_sleep(self, name, words, content):
        self._emit(word.encode() + b"\n")
        begin(self, "sleep", (b"60",), content)

    monkeypatch.setattr(fakes.FakeRun, "_begin", talk_and_sleep)
    sandbox = Sandbox(**fake, externalization=gate, secrets=[SecretRef("token", EnvVar("T"))], credentials=proxy)
    sandbox.__enter__()
    process = sandbox.spawn(["true"])
    sandbox.destroy()
    assert process.wait(WAIT_S).stdout_bytes == b"[REDACTED:token]\n"


def test_a_stream_that_is_cut_by_its_first_bytes_ends_its_command(fake, log, records, monkeypatch):
    """A wall may hand over output before the handle of the command is known."""
    begin = fakes.FakeRun._begin

    def talk_and_sleep(self, name, words, content):
        self._emit(f"{KEY} {'x ' * 200}\n".encode())
        begin(self, "sleep", (b"60",), content)

    monkeypatch.setattr(fakes.FakeRun, "_begin", talk_and_sleep)
    with Sandbox(**fake, audit=log, externalization=ExternalizationPolicy.enforce()) as sandbox:
        with pytest.raises(Withheld):
            list(sandbox.stream(["true"]))

        async def act():
            async with AsyncSandbox(**fake, externalization=ExternalizationPolicy.enforce()) as other:
                with pytest.raises(Withheld):
                    async for _ in other.stream(["true"]):
                        pass

        asyncio.run(act())
    assert [one["reason"] for one in outcomes(records())] == ["withheld"]
    assert outcomes(records())[0]["duration_ms"] < 30_000


def test_a_cut_stream_withholds_the_result_too_although_the_kept_part_is_clean(fake, log, records, monkeypatch):
    """What was cut may lie behind what the wall keeps of an output; the record must not call that a pass."""
    result = fakes.FakeRun.result

    def keep_little(self):
        raw = result(self)
        return type(raw)(
            reason=raw.reason, exit_code=0, stdout=raw.stdout[:5], stdout_dropped_bytes=9, enforcement=raw.enforcement
        )

    monkeypatch.setattr(fakes.FakeRun, "result", keep_little)
    with Sandbox(**fake, audit=log, externalization=ExternalizationPolicy.enforce()) as sandbox:
        process = sandbox.spawn(["echo", "clean words", KEY, "and more"])
        with pytest.raises(Withheld):
            list(process.stream())
        ended = process.wait(WAIT_S)
    assert (str(ended.reason), str(ended.verdict), ended.stdout_bytes) == ("withheld", "block", b"")
    assert outcomes(records())[0]["verdict"] == "block"


@pytest.mark.parametrize("how", ["raises", "hangs"])
def test_a_scanner_that_raises_or_hangs_withholds_result_file_and_stream(fake, log, records, monkeypatch, how):
    go_on = threading.Event()

    def broken(*args, **more):
        if how == "hangs":
            go_on.wait(WAIT_S)
        raise ZeroDivisionError(KEY)

    monkeypatch.setattr(guarded, "LEAST_S", 0.2)
    monkeypatch.setattr(release, "scan_bytes", broken)
    if how == "raises":
        monkeypatch.setattr(scan.Reading, "feed", broken)
    try:
        with Sandbox(**fake, audit=log, externalization=ExternalizationPolicy.redact()) as sandbox:
            ended = sandbox.exec(["echo", "hello"])
            assert (str(ended.reason), str(ended.verdict), ended.stdout_bytes) == ("withheld", "quarantine", b"")
            with pytest.raises(Withheld):
                ended.raise_for_status()
            sandbox.files.write("/workspace/a", b"hello")
            with pytest.raises(Withheld):
                sandbox.files.read("/workspace/a")
            if how == "raises":
                with pytest.raises(Withheld) as caught:
                    list(sandbox.stream(["echo", "hello"]))
                assert KEY not in str(caught.value)
    finally:
        go_on.set()
    assert KEY not in json.dumps(records())
    assert_each_intent_has_one_outcome(records())


def test_a_quarantine_move_that_cannot_be_recorded_leaves_nothing_in_the_store(fake, log, tmp_path, monkeypatch):
    store = QuarantineStore(tmp_path / "quarantine")
    gate = ExternalizationPolicy.enforce()
    append = log.append

    def refuse(kind, **more):
        if kind == "quarantine":
            raise AuditError("the disk refused", check="write")
        return append(kind, **more)

    monkeypatch.setattr(log, "append", refuse)
    monkeypatch.setattr(guarded, "LEAST_S", 0.5)

    def broken(*args, **more):
        raise ZeroDivisionError

    monkeypatch.setattr(release, "scan_bytes", broken)  # what cannot be read is quarantined
    with Sandbox(**fake, audit=log, quarantine=store, externalization=gate) as sandbox, pytest.raises(AuditError):
        sandbox.exec(["echo", "hello"])
    assert [one.state for one in store.entries()] == ["deleted"]
    assert not list((tmp_path / "quarantine").glob("*.output"))


def test_a_receipt_says_what_was_released_and_its_digest_is_in_the_outcome(fake, log, records):
    key = SigningKey.generate()
    gate = ExternalizationPolicy.redact()
    with Sandbox(**fake, audit=log, receipt_key=key, agent_id="agent-1", externalization=gate) as sandbox:
        ended = sandbox.exec(["echo", KEY])
    said = open_receipt(ended.receipt.export(), key.public)["predicate"]
    (ending,) = outcomes(records())
    assert ending["receipt_sha256"] == ended.receipt.digest
    assert (said["agent_id"], said["ending"]["reason"], said["gate"]["verdict"]) == ("agent-1", "exit", "warn")
    assert said["audit"]["intent_serial"] == ending["intent_serial"]
    copied = pickle.loads(pickle.dumps(ended))
    assert copied.receipt.export() == ended.receipt.export()
    with pytest.raises(AuditError):
        open_receipt(ended.receipt.export(), SigningKey.generate().public)


def test_a_key_without_a_log_signs_and_a_plain_run_has_no_receipt(fake):
    key = SigningKey.generate()
    with Sandbox(**fake, receipt_key=key) as sandbox:
        said = open_receipt(sandbox.exec(["true"]).receipt.export(), key.public)
    assert said["predicate"]["audit"] is None
    with Sandbox(**fake) as sandbox:
        assert sandbox.exec(["true"]).receipt is None


@pytest.mark.parametrize("name", ["audit", "quarantine", "receipt_key", "guards", "integrity", "offenders", "events"])
def test_a_part_of_another_kind_is_refused_by_its_path(fake, name):
    from kavach import ConfigError

    with pytest.raises(ConfigError) as caught:
        Sandbox(**fake, **{name: object()})
    assert caught.value.key == f"$.{name}"


def test_no_secret_is_in_anything_that_a_run_leaves(fake, log, tmp_path, caplog, monkeypatch):
    caplog.set_level(logging.DEBUG)
    bus, told = EventBus(), []
    bus.subscribe("#", lambda event: told.append(event.to_json()))
    store, key = QuarantineStore(tmp_path / "quarantine"), SigningKey.generate()
    parts = {"audit": log, "quarantine": store, "receipt_key": key, "events": bus}
    left = []
    for gate in (ExternalizationPolicy.redact(), ExternalizationPolicy.enforce()):
        with Sandbox(**fake, **parts, externalization=gate) as sandbox:
            ended = sandbox.exec(["echo", KEY])
            left += [repr(ended).encode(), pickle.dumps(ended), ended.to_json().encode(), repr(sandbox).encode()]
            left += [ended.receipt.export(), ended.receipt.statement_bytes]
            sandbox.files.write("/workspace/a", KEY)
            try:
                left.append(sandbox.files.read("/workspace/a"))
                left += list(sandbox.stream(["echo", KEY]))
                ended.raise_for_status()
            except KavachError as error:
                left += [str(error).encode(), repr(error).encode(), pickle.dumps(error)]
    assert bus.drain(WAIT_S)
    bus.close()
    left += [*told, caplog.text.encode()]
    left += [path.read_bytes() for path in tmp_path.iterdir() if path.is_file()]
    left += [path.read_bytes() for path in (tmp_path / "quarantine").glob("index*")]
    assert len(left) > 20
    assert not [one for one in left if KEY.encode()[8:] in one]


def test_one_printed_key_under_redact_does_not_suspend(fake, log, records, tmp_path):
    tracker = OffenderTracker(tmp_path / "offenders.sqlite")
    gate = ExternalizationPolicy(escalation="act")
    with Sandbox(**fake, audit=log, externalization=gate, offenders=tracker, agent_id="a") as sandbox:
        assert str(sandbox.exec(["echo", KEY]).verdict) == "warn"
        assert sandbox.exec(["true"]).ok
    assert "escalation" not in events(records())
