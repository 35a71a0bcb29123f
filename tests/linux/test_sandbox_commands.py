"""Commands in a sandbox on the real kernel: bytes in, bytes out, limits of both, handles."""

from __future__ import annotations

import hashlib
import os
import signal
import threading
import time
from typing import TYPE_CHECKING

import pytest

import kavach
from kavach import ConfigError, EndReason, ExternalizationPolicy, ResourceLimits, Sandbox, SandboxPolicy

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.needs("userns")


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(policy="basic") as made:
        yield made


def test_binary_input_of_a_mebibyte_arrives_whole(sandbox: Sandbox) -> None:
    content = os.urandom(1 << 20)
    result = sandbox.exec(["sha256sum"], stdin=content)
    assert result.stdout.split()[0] == hashlib.sha256(content).hexdigest()


def test_output_is_exact_bytes(sandbox: Sandbox) -> None:
    content = bytes(range(256)) * 512
    result = sandbox.exec(["cat"], stdin=content)
    assert result.stdout_bytes == content
    assert not result.truncated_stdout
    assert "\ufffd" in result.stdout


def test_streams_are_kept_apart(sandbox: Sandbox) -> None:
    result = sandbox.shell("echo out; echo err >&2; exit 3")
    assert (result.stdout, result.stderr, result.exit_code, result.ok) == ("out\n", "err\n", 3, False)


def test_output_beyond_its_cap_is_drained_counted_and_marked() -> None:
    policy = SandboxPolicy.basic()
    with Sandbox(policy=capped(policy, "truncate"), externalization=ExternalizationPolicy.off()) as sandbox:
        result = sandbox.shell("head -c 300000 /dev/zero; echo done >&2")
    assert (result.reason, result.exit_code) == (EndReason.EXIT, 0)
    assert (len(result.stdout_bytes), result.truncated_stdout, result.truncated_stderr) == (4096, True, False)
    assert result.stdout_dropped_bytes == 300000 - 4096
    assert result.stderr == "done\n"


def test_output_beyond_its_cap_ends_the_command_where_the_policy_says_kill() -> None:
    with Sandbox(policy=capped(SandboxPolicy.basic(), "kill"), externalization=ExternalizationPolicy.off()) as sandbox:
        result = sandbox.exec(["cat", "/dev/zero"], timeout_s=20)
    assert result.reason is EndReason.OUTPUT_LIMIT
    assert len(result.stdout_bytes) == 4096
    assert result.truncated_stdout


def capped(policy: SandboxPolicy, action: str) -> SandboxPolicy:
    import msgspec

    limits = msgspec.structs.replace(policy.limits, output_bytes=4096, output_action=action)
    assert isinstance(limits, ResourceLimits)
    return msgspec.structs.replace(policy, limits=limits)


def test_environment_is_clean_and_adds_only_what_was_given(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAVACH_TEST_SECRET", "of the host")
    names = {line.partition("=")[0] for line in sandbox.exec(["env"], env={"A": "1"}).stdout.splitlines()}
    assert names == {"PATH", "HOME", "LANG", "TERM", "A"}


def test_working_folder_is_the_workspace_or_the_one_given(sandbox: Sandbox) -> None:
    assert sandbox.exec(["pwd"]).stdout == "/workspace\n"
    assert sandbox.exec(["pwd"], cwd="/tmp").stdout == "/tmp\n"
    with pytest.raises(kavach.LaunchError, match="working folder"):
        sandbox.exec(["pwd"], cwd="/nowhere")


def test_string_is_split_like_a_shell_would_but_run_by_none(sandbox: Sandbox) -> None:
    assert sandbox.exec("echo 'a  b' $HOME ; true").stdout == "a  b $HOME ; true\n"


def test_missing_and_unrunnable_programs_have_the_shells_exit_codes(sandbox: Sandbox) -> None:
    assert sandbox.exec(["no-such-program"]).exit_code == 127
    assert sandbox.exec(["/etc"]).exit_code == 126


def test_signal_is_told_apart_from_an_exit(sandbox: Sandbox) -> None:
    result = sandbox.shell("kill -SEGV $$")
    assert (result.reason, result.signal, result.exit_code) == (EndReason.SIGNAL, signal.SIGSEGV, None)


def test_files_persist_between_commands(sandbox: Sandbox) -> None:
    sandbox.shell("echo one > /workspace/a; echo two > /tmp/b")
    assert sandbox.exec(["cat", "/workspace/a", "/tmp/b"]).stdout == "one\ntwo\n"


def test_spawned_command_is_polled_waited_for_and_found_by_its_pid(sandbox: Sandbox) -> None:
    process = sandbox.spawn(["cat"])
    assert process.poll() is None
    with pytest.raises(TimeoutError):
        process.wait(0.01)
    process.stdin.write(b"through")
    process.close_stdin()
    assert process.wait(10).stdout == "through"
    assert process.poll() is process.wait()
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.append(sandbox.process(process.pid).wait()))
    thread.start()
    thread.join()
    assert found == [process.wait()]


def test_unknown_pid_is_a_config_error(sandbox: Sandbox) -> None:
    with pytest.raises(ConfigError):
        sandbox.process(12345)


def test_terminate_asks_first_and_kills_after_its_grace(sandbox: Sandbox) -> None:
    polite = sandbox.spawn(["sh", "-c", "trap 'echo bye; exit 7' TERM; echo up; while :; do sleep 0.01; done"])
    assert b"up\n".startswith(next(iter(polite.stream())))
    assert polite.terminate(grace_s=10).exit_code == 7
    deaf = sandbox.spawn(["sh", "-c", "trap '' TERM; echo up; while :; do sleep 0.01; done"])
    assert b"up\n".startswith(next(iter(deaf.stream())))
    started_s = time.monotonic()
    result = deaf.terminate(grace_s=0.2)
    assert result.signal == signal.SIGKILL
    assert 0.15 < time.monotonic() - started_s < 5


def test_signals_reach_the_command_and_wrong_numbers_are_refused(sandbox: Sandbox) -> None:
    process = sandbox.spawn(["sleep", "1000"])
    with pytest.raises(ConfigError):
        process.send_signal(12345)
    process.send_signal(signal.SIGINT)
    assert process.wait(10).signal == signal.SIGINT
    process.send_signal(signal.SIGKILL)  # none is sent to a number that may be somebody else's by now


def test_spawned_commands_deadline_is_kept_without_a_waiter(sandbox: Sandbox) -> None:
    process = sandbox.spawn(["sleep", "1000"], timeout_s=0.2)
    assert process.wait(10).reason is EndReason.TIMEOUT


def test_stream_yields_before_the_end_and_leaving_it_ends_the_command(sandbox: Sandbox) -> None:
    stream = sandbox.stream(["sh", "-c", "echo first; echo second >&2; sleep 1000"])
    seen = {next(stream), next(stream)}
    assert all(b"first\n".startswith(chunk) or b"second\n".startswith(chunk) for chunk in seen)
    assert {chunk.stream for chunk in seen} == {"stdout", "stderr"}
    stream.close()
    deadline = time.monotonic() + 5
    while sandbox.processes() and time.monotonic() < deadline:
        time.sleep(0.005)
    assert sandbox.processes() == ()


def test_health_check_and_metrics_tell_what_happened(sandbox: Sandbox) -> None:
    sandbox.exec(["false"])
    assert sandbox.health_check().ok
    found = sandbox.metrics()
    assert (found.commands, found.failures, found.processes) == (2, 1, 0)
    assert found.uptime_ms > 0


def test_min_score_refuses_before_anything_runs(tmp_path: object) -> None:
    with Sandbox(policy="minimal", min_score=95) as sandbox, pytest.raises(kavach.UnsupportedError):
        sandbox.exec(["true"])
