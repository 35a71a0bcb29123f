"""Both pools on the real wall: warm, never handed out twice, fair, replaced when old or broken."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import anyio
import pytest

from kavach import AsyncSandbox, AsyncSandboxPool, KavachError, LifecycleError, Sandbox, SandboxPool, SandboxState

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

pytestmark = pytest.mark.needs("userns")
PATIENCE_S = 20.0


def until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline, "it did not become true in time"
        time.sleep(0.005)


def is_warm(sandbox: Sandbox) -> bool:
    return bool(sandbox._wall.is_warm)


def test_claimed_sandbox_stands_with_a_child_waiting_and_ends_with_its_block() -> None:
    with SandboxPool(policy="strict", warm=2) as pool:
        assert pool.wait_warm(PATIENCE_S)
        with pool.claim() as sandbox:
            assert sandbox.state is SandboxState.RUNNING
            assert is_warm(sandbox)
            assert sandbox.exec(["echo", "warm"], env={"A": "late"}).stdout == "warm\n"
        assert sandbox.state is SandboxState.DESTROYED
        assert pool.wait_warm(PATIENCE_S), "it is replenished"
        found = pool.metrics()
        assert (found.hits, found.misses, found.ready, found.claimed) == (1, 0, 2, 0)


def test_claims_beyond_warm_are_built_and_counted_as_misses() -> None:
    with SandboxPool(warm=0) as pool, pool.claim() as one, pool.claim() as other:
        assert one.id != other.id
        assert one.exec(["true"]).ok
        assert (pool.metrics().misses, pool.metrics().claimed) == (2, 2)


def test_sixteen_threads_never_hold_the_same_sandbox_or_more_than_there_may_be() -> None:
    held: set[str] = set()
    lock = threading.Lock()
    faults: list[str] = []

    def work(_: int) -> None:
        with pool.claim() as sandbox:
            with lock:
                if sandbox.id in held or len(held) >= 3:
                    faults.append(sandbox.id)
                held.add(sandbox.id)
            if not sandbox.exec(["true"]).ok:
                faults.append(f"{sandbox.id} did not run")
            with lock:
                held.discard(sandbox.id)

    for single_use in (True, False):
        with SandboxPool(warm=1, max_size=3, single_use=single_use) as pool:
            with ThreadPoolExecutor(16) as threads:
                list(threads.map(work, range(64)))
            found = pool.metrics()
            assert faults == []
            assert (found.hits + found.misses, found.claimed) == (64, 0)


def test_waiting_claims_are_served_in_their_order() -> None:
    order: list[int] = []
    with SandboxPool(warm=0, max_size=1) as pool:
        first = pool.claim()
        threads = []
        for number in range(8):

            def wait(number: int = number) -> None:
                with pool.claim():
                    order.append(number)

            threads.append(threading.Thread(target=wait))
            threads[-1].start()
            until(lambda count=number + 1: len(pool._stock.ledger._queue) == count)
        first.destroy()
        for thread in threads:
            thread.join()
    assert order == list(range(8))


def test_claim_gives_up_when_its_time_is_over_and_takes_no_turn_with_it() -> None:
    with SandboxPool(warm=0, max_size=1) as pool:
        with pool.claim(), pytest.raises(TimeoutError):
            pool.claim(timeout_s=0.05)
        with pool.claim(timeout_s=5) as sandbox:
            assert sandbox.exec(["true"]).ok


def test_sandbox_that_died_or_lost_its_child_while_it_stood_is_not_handed_out() -> None:
    with SandboxPool(warm=2) as pool:
        assert pool.wait_warm(PATIENCE_S)
        one, other = [kept.item for kept in pool._stock.ledger._ready]
        os.kill(one._wall.init_pid, signal.SIGKILL)
        os.kill(other._wall._spare[0].pid, signal.SIGKILL)
        until(lambda: not one.is_fit and not other.is_fit)
        with pool.claim() as sandbox:
            assert sandbox.id not in {one.id, other.id}
            assert sandbox.exec(["true"]).ok
        until(lambda: pool.metrics().discarded == 2)


def test_standing_sandbox_is_replaced_when_it_is_too_old() -> None:
    with SandboxPool(warm=1, max_age_s=0.2) as pool:
        assert pool.wait_warm(PATIENCE_S)
        old = pool._stock.ledger._ready[0].item
        until(lambda: old.state is SandboxState.DESTROYED)
        with pool.claim() as sandbox:
            assert sandbox.id != old.id


def test_sandbox_used_again_has_no_process_of_the_last_claim_and_a_new_child() -> None:
    with SandboxPool(warm=1, max_size=1, single_use=False) as pool:
        with pool.claim() as sandbox:
            spare = sandbox._wall._spare[0]
            first = sandbox.id
            sandbox.shell("echo kept > f; sleep 1000 > /dev/null 2>&1 &")
            assert sandbox.processes()
        with pool.claim() as sandbox:
            assert sandbox.id == first
            assert sandbox.processes() == ()
            assert is_warm(sandbox)
            assert sandbox._wall._spare[0] is not spare
            assert sandbox.files.read("/workspace/f") == b"kept\n"


def test_forgotten_claim_makes_room_again() -> None:
    with SandboxPool(warm=0, max_size=1) as pool:
        pool.claim().exec(["true"])
        gc.collect()
        with pool.claim(timeout_s=PATIENCE_S) as sandbox:
            assert sandbox.exec(["true"]).ok


def test_drained_pool_refuses_claims_and_waits_for_what_is_out() -> None:
    pool = SandboxPool(warm=1)
    assert pool.wait_warm(PATIENCE_S)
    standing = pool._stock.ledger._ready[0].item
    sandbox = pool.claim()
    assert not pool.drain(timeout_s=0.05)
    with pytest.raises(LifecycleError):
        pool.claim()
    assert sandbox.exec(["true"]).ok, "what is claimed stays its holder's"
    sandbox.destroy()
    assert pool.drain(timeout_s=5)
    assert {standing.state, pool.metrics().ready} <= {SandboxState.DESTROYED, 0}
    pool.close()


def test_closed_pool_refuses_who_waits_and_destroys_everything() -> None:
    pool = SandboxPool(warm=1, max_size=1)
    sandbox = pool.claim()
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(pool.claim)
        until(lambda: len(pool._stock.ledger._queue) == 1)
        pool.close()
        pool.close()
        with pytest.raises(LifecycleError):
            waiting.result()
    assert sandbox.state is SandboxState.DESTROYED
    assert not [thread for thread in threading.enumerate() if thread.name == "kavach-pool"]


def test_build_that_fails_is_raised_by_the_claim_and_kept_as_last_error(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    with SandboxPool(warm=1, workdir=str(folder), workdir_rw=True) as pool:
        with pytest.raises(KavachError):
            pool.claim()
        until(lambda: pool.last_error is not None)
        assert pool.metrics().failures >= 1


FORKED = """
import multiprocessing, warnings
import kavach

def child(pool, queue):
    for use in (pool.claim, pool.wait_warm, pool.drain):
        try:
            use()
        except kavach.LifecycleError:
            queue.put("refused")
    pool.close()  # must not reach the parent's

if __name__ == "__main__":
    warnings.simplefilter("ignore", DeprecationWarning)
    fork = multiprocessing.get_context("fork")
    with kavach.SandboxPool(warm=1) as pool:
        pool.wait_warm(20)
        queue = fork.SimpleQueue()
        process = fork.Process(target=child, args=(pool, queue))
        process.start()
        print(queue.get(), queue.get(), queue.get())
        process.join(20)
        with pool.claim() as sandbox:
            print(process.exitcode, sandbox.exec(["true"]).ok, pool.metrics().hits)
"""


def test_forked_host_cannot_use_its_parents_pool(tmp_path: Path) -> None:
    script = tmp_path / "host.py"
    script.write_text(FORKED)
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60)
    assert done.stdout == "refused refused refused\n0 True 1\n", done.stderr


@pytest.fixture(params=["asyncio", "trio"])
def under(request: pytest.FixtureRequest) -> Callable[[Callable[[], Awaitable[None]]], None]:
    return lambda act: anyio.run(act, backend=request.param)


def test_tasks_share_the_pool_and_never_a_sandbox(under: Callable[..., None]) -> None:
    async def act() -> None:
        held: set[str] = set()
        async with AsyncSandboxPool(warm=1, max_size=3) as pool:
            assert await pool.wait_warm(PATIENCE_S)

            async def work() -> None:
                async with await pool.claim() as sandbox:
                    assert isinstance(sandbox, AsyncSandbox)
                    assert sandbox.id not in held
                    held.add(sandbox.id)
                    assert len(held) <= 3
                    assert (await sandbox.exec(["true"])).ok
                    held.discard(sandbox.id)

            async with anyio.create_task_group() as tasks:
                for _ in range(24):
                    tasks.start_soon(work)
            assert pool.metrics().hits + pool.metrics().misses == 24
            assert await pool.drain(PATIENCE_S)
            with pytest.raises(LifecycleError):
                await pool.claim()

    under(act)


def test_claim_cancelled_at_any_instant_loses_no_room(under: Callable[..., None]) -> None:
    async def act() -> None:
        async with AsyncSandboxPool(warm=0, max_size=1) as pool:
            before = len(os.listdir("/proc/self/fd"))
            for step in range(30):
                with anyio.move_on_after(step / 3000):
                    async with await pool.claim() as sandbox:
                        await sandbox.exec(["sleep", "1000"])
            async with await pool.claim(timeout_s=PATIENCE_S) as sandbox:
                with pytest.raises(TimeoutError):
                    await pool.claim(timeout_s=0.05)
                with anyio.move_on_after(0.05):
                    await pool.claim()
                assert (await sandbox.exec(["true"])).ok
            assert pool.metrics().claimed == 0
            assert pool._stock.ledger.counts() == (0, 0, 0)
            assert len(os.listdir("/proc/self/fd")) <= before + 1  # the launcher's channel, made meanwhile

    under(act)
