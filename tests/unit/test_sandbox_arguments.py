"""What the sandbox, its processes and its files refuse of a caller, by the argument's name, before anything runs."""

from __future__ import annotations

import math
import os
import signal
import threading
import time

import anyio
import pytest

import kavach
from kavach import AsyncSandbox, ConfigError, LifecycleError, Sandbox, SandboxState, UnsupportedError
from kavach.errors import KavachError
from kavach.model.result import EndReason, RawResult
from kavach.process import Chunk, Input
from kavach.testing.fake import FakeEnd

NO_TIME = (0, -1, math.inf, math.nan, True, "1", 1e12)
NO_SIGNAL = (True, 0, -9, 1000, "9", 9.0, None)
NO_PATH = (b"/workspace/f", None, "", "relative", "/a/../b", "/a//b", "/a/", "/a\0b", "/" + "x" * 5000, "/\udc80")


@pytest.fixture
def sandbox(fake):
    with Sandbox(**fake) as made:
        yield made


def key_of(act):
    with pytest.raises(ConfigError) as caught:
        act()
    return caught.value.key


# the sandbox


def test_transition_to_a_word_is_refused_by_name_and_changes_nothing(sandbox):
    assert key_of(lambda: sandbox.transition("paused")) == "target"
    assert sandbox.state is SandboxState.RUNNING


@pytest.mark.parametrize("seconds", NO_TIME)
def test_timeout_that_is_no_time_is_refused_by_name(sandbox, seconds):
    assert key_of(lambda: sandbox.exec(["true"], timeout_s=seconds)) == "timeout_s"
    assert key_of(lambda: sandbox.spawn(["true"], timeout_s=seconds)) == "timeout_s"


@pytest.mark.parametrize("text", [b"true", ["true"], None, 1])
def test_shell_takes_a_text_and_nothing_else(sandbox, text):
    assert key_of(lambda: sandbox.shell(text)) == "text"


def test_shell_is_given_the_text_as_one_word(sandbox):
    result = sandbox.shell("echo a b")  # the fake has no shell, and says so
    assert (result.exit_code, result.stderr) == (127, "kavach: command not found\n")


@pytest.mark.parametrize("pid", [1, -1, "2", None])
def test_pid_that_no_spawned_command_has_is_refused(sandbox, pid):
    assert key_of(lambda: sandbox.process(pid)) == "pid"


def test_spawned_command_is_found_again_by_its_pid_also_after_its_end(sandbox):
    started = sandbox.spawn(["echo", "x"])
    assert sandbox.process(started.pid) is started
    assert started.wait().stdout == "x\n"
    assert sandbox.process(started.pid).wait() is started.wait()


def test_sandbox_below_its_least_strength_runs_nothing(fake):
    with Sandbox(**fake, min_score=1) as sandbox, pytest.raises(UnsupportedError, match="below min_score 1") as caught:
        sandbox.exec(["true"])
    assert (caught.value.control, caught.value.needed, caught.value.found) == ("min_score", "1", "0")
    assert sandbox.metrics().commands == 0


def test_sandbox_of_another_process_is_refused_and_left_as_it_is(sandbox, monkeypatch):
    monkeypatch.setattr(os, "getpid", lambda: 1)
    for act in (sandbox.pause, lambda: sandbox.exec(["true"]), sandbox.files.list):
        with pytest.raises(LifecycleError, match="belongs to the process that made it"):
            act()
    sandbox.destroy()
    assert sandbox.state is SandboxState.RUNNING


@pytest.mark.parametrize("act", ["processes", "prewarm"])
def test_act_that_needs_a_standing_wall_is_refused_after_destroy(sandbox, act):
    sandbox.destroy()
    with pytest.raises(LifecycleError):
        getattr(sandbox, act)()


def test_health_says_what_state_forbids_a_look(fake):
    sandbox = Sandbox(**fake)
    assert sandbox.health_check().error == "the sandbox is created"
    with sandbox:
        assert sandbox.health_check().ok
        sandbox.pause()
        assert sandbox.health_check().ok
        sandbox.resume()
    assert sandbox.health_check().error == "the sandbox is destroyed"


def test_health_of_a_wall_that_has_gone_is_not_ok(sandbox):
    sandbox.stop()
    sandbox._wall._is_built = False
    health = sandbox.health_check()
    assert (health.ok, health.error, health.state) == (False, "the wall has gone", "stopped")


def test_health_of_a_sandbox_whose_true_fails_is_not_ok(sandbox, monkeypatch):
    monkeypatch.setattr(sandbox, "exec", lambda *_, **__: kavach.run(["false"], backend="fakewall", policy="minimal"))
    assert sandbox.health_check().error == "true ended by exit with 1"


def test_words_of_a_sandbox_name_its_id_state_and_wall(sandbox):
    assert repr(sandbox) == f"<Sandbox {sandbox.id} running fakewall>"


def test_stream_left_early_ends_the_command(sandbox):
    stream = sandbox.stream(["echo", "x"])
    assert next(stream) == b"x\n"
    stream.close()
    assert sandbox.processes() == ()


# a spawned command


@pytest.mark.parametrize("seconds", NO_TIME)
def test_wait_for_no_time_is_refused_by_name(sandbox, seconds):
    process = sandbox.spawn(["true"])
    assert key_of(lambda: process.wait(seconds)) == "timeout_s"
    assert key_of(lambda: process.terminate(seconds)) == "grace_s"


@pytest.mark.parametrize("number", NO_SIGNAL)
def test_number_that_is_no_signal_is_refused_by_name(sandbox, number):
    process = sandbox.spawn(["sleep", "60"])
    assert key_of(lambda: process.send_signal(number)) == "signal"
    assert process.poll() is None
    process.kill()


def test_command_that_runs_on_is_no_result_yet_and_a_wait_for_it_ends_in_time(sandbox):
    process = sandbox.spawn(["sleep", "60"])
    with pytest.raises(TimeoutError, match=f"command {process.pid} still runs after 0.01 s"):
        process.wait(0.01)
    assert process.poll() is None
    assert repr(process) == f"<Process {process.pid} in {sandbox.id} running>"
    process.send_signal(signal.SIGUSR1)
    assert process.wait().signal == signal.SIGUSR1
    assert repr(process).endswith(" ended>")


def test_terminate_returns_the_result_of_a_command_that_listens(sandbox):
    result = sandbox.spawn(["sleep", "60"]).terminate(5)
    assert (result.reason, result.signal) == (EndReason.SIGNAL, signal.SIGTERM)


def test_terminate_kills_what_does_not_listen(sandbox, monkeypatch):
    process = sandbox.spawn(["sleep", "60"])
    real, sent = process._running.signal, []

    def deaf(number, *, group):
        sent.append((number, group))
        if number == signal.SIGKILL:
            real(number, group=group)

    monkeypatch.setattr(process._running, "signal", deaf)
    assert process.terminate(0.01).signal == signal.SIGKILL
    assert sent == [(signal.SIGTERM, True), (signal.SIGKILL, True)]


def test_signal_after_the_end_is_sent_to_nobody(sandbox, monkeypatch):
    process = sandbox.spawn(["true"])
    process.wait()
    sent = []
    monkeypatch.setattr(process._running, "signal", lambda *given, **_: sent.append(given))
    process.send_signal(signal.SIGTERM)
    process.kill()
    assert process.terminate().ok
    assert sent == []


def test_failure_of_the_wall_is_raised_by_every_wait(sandbox, monkeypatch):
    process = sandbox.spawn(["sleep", "60"])

    def fail(*_):
        raise KavachError("the wall fell over")

    monkeypatch.setattr(process._running, "tick", fail)
    for _ in range(2):
        with pytest.raises(KavachError, match="fell over"):
            process.wait(10)


def test_time_stands_still_after_the_end(sandbox):
    process = sandbox.spawn(["true"])
    process.wait()
    assert process.elapsed_ms == process.elapsed_ms


def test_chunk_is_bytes_that_know_their_stream():
    chunk = Chunk(b"abc", "stderr")
    assert (chunk, chunk.stream) == (b"abc", "stderr")


# a command's input


@pytest.fixture
def pipe():
    reader, writer = os.pipe()
    made = Input(writer)
    yield made, reader
    made.close()
    os.close(reader)


@pytest.mark.parametrize("content", ["text", 5, None, [1]])
def test_input_takes_bytes_and_nothing_else(pipe, content):
    assert key_of(lambda: pipe[0].write(content)) == "stdin"


def test_closed_input_is_refused_and_may_be_closed_again(pipe):
    given, _ = pipe
    given.close()
    given.close()
    assert key_of(lambda: given.write(b"x")) == "stdin"


def test_input_larger_than_the_pipe_waits_for_the_reader(pipe):
    given, reader = pipe
    content = os.urandom(300_000)
    taken = bytearray()

    def read():
        while len(taken) < len(content):
            taken.extend(os.read(reader, 65536))

    thread = threading.Thread(target=read)
    thread.start()
    assert given.write(memoryview(content).cast("I")) == len(content)
    thread.join()
    assert bytes(taken) == content


def test_input_closed_while_somebody_waits_to_write_lets_the_writer_go(pipe):
    given, _ = pipe
    failed = []

    def write():
        try:
            given.write(b"x" * 300_000)
        except ConfigError as error:
            failed.append(error.key)

    thread = threading.Thread(target=write)
    thread.start()
    while given._handle >= 0 and not given._writing.locked():
        time.sleep(0.001)
    given.close()
    thread.join(10)
    assert failed == ["stdin"]


# files


def test_file_is_written_listed_read_and_removed(sandbox):
    sandbox.files.mkdir("/workspace/d")
    sandbox.files.write("/workspace/d/f", "text", mode=0o600)
    sandbox.files.write("/workspace/d/g", memoryview(b"bytes"))
    assert [entry.name for entry in sandbox.files.list("/workspace/d")] == ["f", "g"]
    assert sandbox.files.read("/workspace/d/g") == b"bytes"
    sandbox.files.remove("/workspace/d/g")
    with pytest.raises(KavachError, match=r"/workspace/d/g.*nothing was changed"):
        sandbox.files.read("/workspace/d/g")


@pytest.fixture
def files(sandbox, monkeypatch):
    """Return the files of a sandbox, and what its wall was asked for."""
    asked = []
    monkeypatch.setattr(sandbox._wall, "transfer", lambda operation, _: asked.append(operation))
    return sandbox.files, asked


@pytest.mark.parametrize("path", NO_PATH)
def test_path_that_is_none_is_refused_by_name_and_reaches_no_wall(files, path):
    given, asked = files
    for act in (given.read, given.list, given.mkdir, given.remove, lambda one: given.write(one, b"")):
        assert key_of(lambda act=act: act(path)) == "path"
    assert asked == []


@pytest.mark.parametrize("content", [5, None, [1], object(), "\udc80"])
def test_content_that_is_none_is_refused_by_name(files, content):
    assert key_of(lambda: files[0].write("/f", content)) == "content"
    assert files[1] == []


@pytest.mark.parametrize("mode", [True, -1, 0o1000, 0o4755, "644", 6.0, None])
def test_mode_that_is_none_is_refused_by_name(files, mode):
    assert key_of(lambda: files[0].write("/f", b"", mode=mode)) == "mode"
    assert key_of(lambda: files[0].mkdir("/d", mode=mode)) == "mode"
    assert files[1] == []


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (RawResult(reason=EndReason.EXIT, exit_code=1, stderr=b"kavach: read: not there\n"), "read: not there"),
        (RawResult(reason=EndReason.BACKEND_LOST), "ended by backend_lost"),
        (RawResult(reason=EndReason.SIGNAL, signal=9, stdout=b"half of it"), "ended by signal"),
    ],
)
def test_operation_that_did_not_end_well_is_an_error_and_gives_no_bytes(sandbox, monkeypatch, raw, said):
    monkeypatch.setattr(sandbox._wall, "transfer", lambda *_: FakeEnd(raw))
    with pytest.raises(KavachError, match=said) as caught:
        sandbox.files.read("/f")
    assert "half of it" not in str(caught.value)


# the awaited twin


def awaited(act):
    anyio.run(act)


def test_awaited_twin_refuses_the_same(fake):
    async def act():
        async with AsyncSandbox(**fake) as sandbox:
            with pytest.raises(ConfigError, match="shell: expected str"):
                await sandbox.shell(b"true")
            with pytest.raises(ConfigError, match="no spawned command"):
                sandbox.process(1)
            process = await sandbox.spawn(["sleep", "60"])
            assert sandbox.process(process.pid) is process
            for number in NO_SIGNAL:
                with pytest.raises(ConfigError, match="signal"):
                    process.send_signal(number)
            for seconds in NO_TIME:
                with pytest.raises(ConfigError, match="timeout_s"):
                    await process.wait(seconds)
                with pytest.raises(ConfigError, match="grace_s"):
                    await process.terminate(seconds)
            with pytest.raises(TimeoutError, match="still runs"):
                await process.wait(0.01)
            assert process.poll() is None
            with pytest.raises(ConfigError, match="stdin"):
                await process.stdin.write("text")
            process.close_stdin()
            process.close_stdin()
            with pytest.raises(ConfigError, match="stdin: it is closed"):
                await process.stdin.write(b"x")
            assert repr(process).endswith("running>")
            process.kill()
            assert (await process.wait()).reason is EndReason.SIGNAL
            assert process.elapsed_ms == process.elapsed_ms
            assert repr(sandbox) == f"<AsyncSandbox {sandbox.id} running fakewall>"

    awaited(act)


def test_awaited_failure_of_the_wall_is_raised_by_every_wait(fake, monkeypatch):
    async def act():
        async with AsyncSandbox(**fake) as sandbox:
            process = await sandbox.spawn(["sleep", "60"])
            monkeypatch.setattr(process._running, "tick", fail)
            monkeypatch.setattr(process._running, "result", fail)
            for _ in range(2):
                with pytest.raises(KavachError, match="fell over"):
                    await process.wait(10)
            process._running._end(EndReason.EXIT, code=0)

    def fail(*_):
        raise KavachError("the wall fell over")

    awaited(act)


def test_awaited_command_that_cannot_begin_leaves_no_descriptor(fake):
    async def act():
        sandbox = await AsyncSandbox.create(kavach.SandboxConfig(**fake))
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(3):
            with pytest.raises(LifecycleError):
                await sandbox.spawn(["true"])
        assert len(os.listdir("/proc/self/fd")) == before
        await sandbox.destroy()

    awaited(act)


def test_awaited_stream_ends_with_the_command_and_shows_its_chunks(fake):
    async def act():
        async with AsyncSandbox(**fake) as sandbox:
            assert [bytes(chunk) async for chunk in sandbox.stream(["echo", "x"])] == [b"x\n"]
            process = await sandbox.spawn(["echo", "y"])
            assert [(bytes(one), one.stream) async for one in process.stream()] == [(b"y\n", "stdout")]

    awaited(act)


def test_awaited_face_shows_what_the_sandbox_shows(fake):
    async def act():
        async with AsyncSandbox(**fake) as sandbox:
            same = sandbox._sandbox
            assert (await sandbox.exec(["true"])).ok
            for name in ("id", "state", "history", "config", "policy", "requested_score", "enforcement"):
                assert getattr(sandbox, name) == getattr(same, name)
            assert (await sandbox.exec(["echo", "x"], reap=True)).stdout == "x\n"

    awaited(act)
