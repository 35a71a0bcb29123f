"""The sandbox on the real kernel: its states, its endings, what they leave behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

import kavach
from kavach import Backend, ConfigError, EndReason, LifecycleError, Sandbox, SandboxConfig, SandboxState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.needs("userns")
PATIENCE_S = 10.0


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(policy="basic") as made:
        yield made


def until(is_so: Callable[[], bool]) -> None:
    """Wait for what must become true soon, and fail when it does not."""
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline, "it did not become true in time"
        time.sleep(0.005)


def counts_up(sandbox: Sandbox) -> kavach.Process:
    started = sandbox.spawn(["sh", "-c", "i=0; while :; do i=$((i+1)); echo $i > count; done"], timeout_s=None)
    until(lambda: any(entry.name == "count" for entry in sandbox.files.list()))
    return started


def written(sandbox: Sandbox) -> bytes:
    return sandbox.files.read("/workspace/count")


def test_quick_start_of_the_readme_prints_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    config = (
        SandboxConfig.builder()
        .backend(Backend.PROCESS)
        .policy_seccomp("basic")
        .network(False)
        .timeout_ms(30_000)
        .agent_id("agent-123")
        .build()
    )
    sandbox = Sandbox.create(config)
    sandbox.transition(SandboxState.RUNNING)
    result = sandbox.exec("echo hello world")
    print(f"exit: {result.exit_code}")
    print(result.stdout, end="")
    sandbox.destroy()
    assert capsys.readouterr().out == "exit: 0\nhello world\n"


def test_run_needs_one_call_and_leaves_no_process() -> None:
    result = kavach.run(["sh", "-c", "sleep 1000 & echo $$"], policy="basic")
    assert result.ok
    assert result.score > 0
    assert not os.path.isdir(f"/proc/{result.stdout.strip()}/root/workspace")


def test_every_transition_is_recorded_in_its_order() -> None:
    sandbox = Sandbox()
    for step in ("running", "paused", "running", "stopped", "destroyed"):
        sandbox.transition(SandboxState(step))
    names = [str(step.state) for step in sandbox.history]
    assert names == ["created", "running", "paused", "running", "stopped", "destroyed"]


@pytest.mark.parametrize("target", ["created", "paused", "stopped"])
def test_a_step_that_does_not_exist_changes_nothing(target: str) -> None:
    sandbox = Sandbox()
    with pytest.raises(LifecycleError):
        sandbox.transition(SandboxState(target))
    assert sandbox.state is SandboxState.CREATED
    sandbox.destroy()


def test_destroy_from_created_and_twice_is_fine() -> None:
    sandbox = Sandbox()
    sandbox.destroy()
    sandbox.destroy()
    assert [str(step.state) for step in sandbox.history] == ["created", "running", "destroyed"]


def test_paused_sandbox_stands_still_and_refuses_commands_until_resumed(sandbox: Sandbox) -> None:
    counter = counts_up(sandbox)
    sandbox.pause()
    with pytest.raises(LifecycleError):
        sandbox.exec(["true"])
    with pytest.raises(LifecycleError):
        sandbox.files.read("/workspace/count")
    used = sum(cpu_ticks(pid) for pid in sandbox.processes())
    time.sleep(0.15)
    assert sum(cpu_ticks(pid) for pid in sandbox.processes()) == used
    sandbox.resume()
    seen = written(sandbox)
    until(lambda: written(sandbox) != seen)
    counter.kill()
    counter.wait()


def cpu_ticks(pid: int) -> int:
    with open(f"/proc/{pid}/stat", encoding="ascii") as handle:
        fields = handle.read().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def test_paused_processes_are_stopped_or_frozen_in_proc(sandbox: Sandbox) -> None:
    counter = counts_up(sandbox)
    sandbox.pause()
    for pid in sandbox.processes():
        with open(f"/proc/{pid}/stat", encoding="ascii") as handle:
            state = handle.read().rpartition(")")[2].split()[0]
        with open(f"/proc/{pid}/wchan", encoding="ascii") as handle:
            # A process that the freezer holds sleeps where signals are taken (kernel/signal.c, do_freezer_trap).
            where = handle.read()
            assert state in "TtDZ" or "freez" in where or "get_signal" in where
    sandbox.resume()
    counter.kill()
    assert counter.wait().reason is EndReason.SIGNAL


def test_paused_sandbox_can_be_destroyed(sandbox: Sandbox) -> None:
    counts_up(sandbox)
    sandbox.pause()
    pids = sandbox.processes()
    sandbox.destroy()
    assert pids
    assert not [pid for pid in pids if os.path.isdir(f"/proc/{pid}")]


def test_stop_ends_every_process_and_keeps_the_files(sandbox: Sandbox) -> None:
    sandbox.shell("echo kept > f; setsid sh -c 'trap \"\" TERM INT HUP; sleep 1000' > /dev/null 2>&1 &")
    assert sandbox.processes()
    pids = sandbox.processes()
    sandbox.stop()
    assert not [pid for pid in pids if os.path.isdir(f"/proc/{pid}")]
    assert sandbox.files.read("/workspace/f") == b"kept\n"
    with pytest.raises(LifecycleError):
        sandbox.exec(["true"])


def test_timeout_ends_the_whole_tree_and_keeps_the_output_so_far(sandbox: Sandbox) -> None:
    hidden = "setsid sh -c 'trap \"\" TERM HUP INT; (sleep 1000 &) ; sleep 1000' & echo so far; sleep 1000"
    started_s = time.monotonic()
    result = sandbox.shell(hidden, timeout_s=0.4)
    assert time.monotonic() - started_s < 5
    assert (result.reason, result.timed_out, result.stdout) == (EndReason.TIMEOUT, True, "so far\n")
    until(lambda: sandbox.processes() == ())
    assert sandbox.exec(["true"]).ok


def test_background_process_persists_between_commands_and_ends_with_destroy(sandbox: Sandbox) -> None:
    sandbox.shell("sleep 1000 > /dev/null 2>&1 &")
    pids = sandbox.processes()
    assert len(pids) == 1
    assert sandbox.exec(["true"]).ok
    assert sandbox.processes() == pids
    sandbox.destroy()
    assert not os.path.isdir(f"/proc/{pids[0]}")


def test_reap_ends_what_a_command_leaves_behind(sandbox: Sandbox) -> None:
    assert sandbox.exec(["sh", "-c", "sleep 1000 > /dev/null 2>&1 &"], reap=True).ok
    assert sandbox.processes() == ()
    assert sandbox.exec(["true"]).ok


def test_prewarmed_child_is_invisible_and_used_once(sandbox: Sandbox) -> None:
    sandbox.prewarm()
    assert sandbox.processes() == ()
    assert sandbox.exec(["sh", "-c", "pwd; echo $X"], env={"X": "late"}).stdout == "/workspace\nlate\n"
    assert sandbox.exec(["true"]).ok


def test_prewarmed_child_that_a_command_could_reach_is_not_used(sandbox: Sandbox) -> None:
    sandbox.exec(["true"])
    sandbox.prewarm()
    spare = sandbox._wall._spare[0]
    running = sandbox.spawn(["sleep", "1000"])  # takes the spare
    assert sandbox._wall._spare is None
    sandbox.prewarm()
    assert not sandbox._wall.is_warm, "a spare was made beside a running command"
    running.kill()
    running.wait()
    sandbox.prewarm()
    assert sandbox._wall.is_warm
    assert sandbox._wall._spare[0] is not spare


def test_reaping_a_prewarmed_sandbox_leaves_it_usable(sandbox: Sandbox) -> None:
    sandbox.prewarm()
    sandbox.reap()
    assert sandbox.exec(["true"]).ok


def test_prewarmed_child_obeys_the_timeout_like_any_other(sandbox: Sandbox) -> None:
    sandbox.prewarm()
    assert sandbox.exec(["sleep", "1000"], timeout_s=0.2).timed_out
    until(lambda: sandbox.processes() == ())


def test_sandbox_made_in_a_worker_thread_outlives_it() -> None:
    made: list[Sandbox] = []

    def make() -> None:
        made.append(Sandbox().__enter__())

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    with made[0] as sandbox:
        assert sandbox.exec(["echo", "alive"]).stdout == "alive\n"


def test_sixteen_threads_share_one_sandbox_and_no_output_is_mixed_up(sandbox: Sandbox) -> None:
    with ThreadPoolExecutor(16) as threads:
        results = list(threads.map(lambda n: sandbox.exec(["echo", str(n)]), range(48)))
    assert [result.stdout for result in results] == [f"{n}\n" for n in range(48)]


def test_concurrent_destroy_and_exec_end_in_a_result_or_a_kavach_error() -> None:
    for _ in range(5):
        sandbox = Sandbox().__enter__()
        with ThreadPoolExecutor(5) as threads:
            futures = [threads.submit(sandbox.exec, ["sleep", "0.05"]) for _ in range(4)]
            threads.submit(sandbox.destroy).result()
        for future in futures:
            error = future.exception()
            assert error is None or isinstance(error, kavach.KavachError), error


FORKED = """
import multiprocessing, sys, warnings
import kavach

def child(sandbox, queue):
    try:
        sandbox.exec(["true"])
    except kavach.LifecycleError as error:
        queue.put(type(error).__name__)
    sandbox.destroy()                              # must not reach the parent's
    queue.put(kavach.run(["echo", "own"]).stdout)  # its own launcher

if __name__ == "__main__":
    warnings.simplefilter("ignore", DeprecationWarning)  # 3.12: fork of a threaded process
    fork = multiprocessing.get_context("fork")
    with kavach.Sandbox() as sandbox:
        assert sandbox.exec(["true"]).ok
        queue = fork.SimpleQueue()
        process = fork.Process(target=child, args=(sandbox, queue))
        process.start()
        print(queue.get(), queue.get().strip())
        process.join(20)
        print(process.exitcode, sandbox.exec(["true"]).ok)
"""


def test_forked_host_cannot_use_its_parents_sandbox_and_does_not_disturb_it(tmp_path: Path) -> None:
    script = tmp_path / "host.py"
    script.write_text(FORKED)
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60)
    assert done.stdout == "LifecycleError own\n0 True\n", done.stderr


def test_killed_init_is_backend_lost_and_then_a_clear_error(sandbox: Sandbox) -> None:
    process = sandbox.spawn(["sleep", "1000"])
    os.kill(sandbox._wall.init_pid, signal.SIGKILL)
    assert process.wait(10).reason is EndReason.BACKEND_LOST
    with pytest.raises(kavach.BackendError):
        sandbox.exec(["true"])


def test_destroy_closes_every_descriptor() -> None:
    kavach.run(["true"])
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with Sandbox(policy="strict") as sandbox:
            sandbox.prewarm()
            sandbox.exec(["true"])
            sandbox.spawn(["sleep", "1000"])
            sandbox.files.write("/workspace/f", b"x")
            sandbox.prewarm()
        until(lambda: threading.active_count() == 1 or not any("kavach" in t.name for t in threading.enumerate()))
    assert len(os.listdir("/proc/self/fd")) == before


def test_unknown_target_state_is_a_config_error(sandbox: Sandbox) -> None:
    with pytest.raises(ConfigError):
        sandbox.transition("paused")  # type: ignore[arg-type]
