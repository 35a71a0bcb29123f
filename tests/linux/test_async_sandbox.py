"""The async twin on the real kernel, under asyncio and trio: the same names, awaited; cancellation kills."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing

import anyio
import pytest

import kavach
from kavach import AsyncSandbox, EndReason, LifecycleError, SandboxConfig, SandboxState

pytestmark = pytest.mark.needs("userns")
STUBBORN = "setsid sh -c 'trap \"\" TERM HUP INT; sleep 1000' & sleep 1000"

Run = Callable[[Callable[[], Awaitable[None]]], None]


@pytest.fixture(params=["asyncio", "trio"])
def under(request: pytest.FixtureRequest) -> Run:
    """Run an async function to its end in the event loop of that kind."""
    return lambda act: anyio.run(act, backend=request.param)


async def until_empty(sandbox: AsyncSandbox) -> None:
    with anyio.fail_after(5):
        while await sandbox.processes():  # noqa: ASYNC110 - what changes, changes in the kernel
            await anyio.sleep(0.005)


def test_quick_start_awaited(under: Run) -> None:
    async def act() -> None:
        async with AsyncSandbox(policy="strict") as sandbox:
            result = await sandbox.exec(["cat"], stdin=b"\x00\xff" * 1000, env={"A": "1"}, cwd="/workspace")
            assert result.stdout_bytes == b"\x00\xff" * 1000
            assert (await sandbox.shell("exit 3")).exit_code == 3
            assert 0 < result.score <= result.requested_score
        assert sandbox.state is SandboxState.DESTROYED

    under(act)


def test_arun_is_one_call(under: Run) -> None:
    async def act() -> None:
        assert (await kavach.arun("echo hello world")).stdout == "hello world\n"
        assert (await kavach.arun(["sleep", "1000"], timeout_s=0.1)).reason is EndReason.TIMEOUT

    under(act)


def test_life_cycle_is_the_same_machine(under: Run) -> None:
    async def act() -> None:
        sandbox = await AsyncSandbox.create(SandboxConfig())
        with pytest.raises(LifecycleError):
            await sandbox.pause()
        await sandbox.transition(SandboxState.RUNNING)
        await sandbox.pause()
        with pytest.raises(LifecycleError):
            await sandbox.exec(["true"])
        await sandbox.resume()
        assert (await sandbox.health_check()).ok
        assert (await sandbox.metrics()).commands == 1
        await sandbox.stop()
        await sandbox.destroy()
        assert [str(step.state) for step in sandbox.history][-2:] == ["stopped", "destroyed"]

    under(act)


def test_many_commands_at_once_take_no_thread_each(under: Run) -> None:
    async def act() -> None:
        async with AsyncSandbox() as one, AsyncSandbox() as other, anyio.create_task_group() as tasks:
            started_s = time.monotonic()
            for sandbox in (one, other) * 12:
                tasks.start_soon(sandbox.exec, ["sleep", "0.5"])
            await anyio.sleep(0.4)
            assert not [thread for thread in threading.enumerate() if thread.name.startswith("kavach")]
        assert time.monotonic() - started_s < 6

    under(act)


def test_cancelled_scope_ends_the_whole_tree_before_it_goes_on(under: Run) -> None:
    async def act() -> None:
        async with AsyncSandbox() as sandbox:
            with anyio.move_on_after(0.3) as scope:
                await sandbox.shell(STUBBORN, timeout_s=None)
            assert scope.cancelled_caught
            await until_empty(sandbox)
            assert (await sandbox.exec(["true"])).ok

    under(act)


def test_cancellation_at_any_instant_leaves_no_process_and_no_descriptor(under: Run) -> None:
    async def act() -> None:
        async with AsyncSandbox() as sandbox:
            await sandbox.exec(["true"])
            before = len(os.listdir("/proc/self/fd"))
            for step in range(40):
                with anyio.move_on_after(step / 4000):
                    await sandbox.exec(["sleep", "1000"])
            await until_empty(sandbox)
            assert len(os.listdir("/proc/self/fd")) == before

    under(act)


def test_native_asyncio_cancellation_loses_nothing_either() -> None:
    async def act() -> None:
        async with AsyncSandbox() as sandbox:
            await sandbox.exec(["true"])
            before = len(os.listdir("/proc/self/fd"))
            for step in range(40):
                task = asyncio.create_task(sandbox.shell(STUBBORN))
                await asyncio.sleep(step / 4000)
                task.cancel()
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            await until_empty(sandbox)
            assert len(os.listdir("/proc/self/fd")) == before
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await sandbox.exec(["sleep", "1000"])

    asyncio.run(act())


def test_sandbox_left_by_a_cancellation_is_destroyed(under: Run) -> None:
    made: list[AsyncSandbox] = []

    async def act() -> None:
        with anyio.move_on_after(0.2):
            async with AsyncSandbox() as sandbox:
                made.append(sandbox)
                await sandbox.exec(["sleep", "1000"])
        assert made[0].state is SandboxState.DESTROYED

    under(act)


def test_spawned_command_is_written_to_waited_for_and_found_again(under: Run) -> None:
    async def act() -> None:
        async with AsyncSandbox() as sandbox:
            process = await sandbox.spawn(["cat"])
            assert process.poll() is None
            with pytest.raises(TimeoutError):
                await process.wait(0.01)
            content = os.urandom(500_000)
            assert await process.stdin.write(content) == len(content)
            process.close_stdin()
            result = await process.wait(10)
            assert result.stdout_bytes == content
            assert sandbox.process(process.pid).poll() is result

    under(act)


def test_spawned_command_ends_by_terminate_kill_and_signal(under: Run) -> None:
    async def act() -> None:
        async with AsyncSandbox() as sandbox:
            polite = await sandbox.spawn(["sleep", "1000"])
            assert (await polite.terminate(grace_s=5)).signal == signal.SIGTERM
            deaf = await sandbox.spawn(["sh", "-c", "trap '' TERM; echo up; while :; do sleep 0.01; done"])
            async with aclosing(deaf.stream()) as chunks:
                assert b"up\n".startswith(await anext(chunks))
            assert (await deaf.terminate(grace_s=0.1)).signal == signal.SIGKILL
            third = await sandbox.spawn(["sleep", "1000"])
            third.send_signal(signal.SIGINT)
            assert (await third.wait(10)).signal == signal.SIGINT
            late = await sandbox.spawn(["sleep", "1000"], timeout_s=0.1)
            await anyio.sleep(0.5)
            assert late.poll() is not None, "its deadline is kept although nobody waits"

    under(act)


def test_writer_is_woken_when_the_command_ends_without_reading(under: Run) -> None:
    async def act() -> None:
        async with AsyncSandbox() as sandbox:
            process = await sandbox.spawn(["sleep", "0.2"])
            with anyio.fail_after(5), pytest.raises(BrokenPipeError):
                await process.stdin.write(bytes(1 << 20))
            await process.wait()

    under(act)


def test_stream_yields_before_the_end_and_closing_it_ends_the_command(under: Run) -> None:
    async def act() -> None:
        async with AsyncSandbox() as sandbox:
            async with aclosing(sandbox.stream(["sh", "-c", "echo first; sleep 1000"])) as chunks:
                async for chunk in chunks:
                    assert (b"first\n".startswith(chunk), chunk.stream) == (True, "stdout")
                    break
            await until_empty(sandbox)

    under(act)


def test_files_are_awaited(under: Run) -> None:
    async def act() -> None:
        async with AsyncSandbox() as sandbox:
            await sandbox.files.mkdir("/workspace/d")
            await sandbox.files.write("/workspace/d/f", b"x")
            assert await sandbox.files.read("/workspace/d/f") == b"x"
            assert [entry.name for entry in await sandbox.files.list("/workspace/d")] == ["f"]
            await sandbox.files.remove("/workspace/d/f")

    under(act)


def test_event_loop_that_ends_first_takes_a_spawned_command_along(under: Run) -> None:
    left: list[tuple[kavach.AsyncProcess, AsyncSandbox]] = []

    async def act() -> None:
        sandbox = AsyncSandbox()
        await sandbox.transition(SandboxState.RUNNING)
        left.append((await sandbox.spawn(["sleep", "1000"], timeout_s=None), sandbox))

    under(act)
    process, sandbox = left[0]
    with pytest.raises(kavach.KavachError, match="event loop"):
        process.poll()
    anyio.run(sandbox.destroy)


def test_refusals_are_raised_where_they_are_awaited(under: Run) -> None:
    async def act() -> None:
        async with AsyncSandbox(policy="minimal", min_score=95) as sandbox:
            with pytest.raises(kavach.UnsupportedError):
                await sandbox.exec(["true"])
            with pytest.raises(kavach.ConfigError):
                await sandbox.exec([])

    under(act)
