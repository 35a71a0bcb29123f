"""A pool's stock on a wall without a kernel: what is refused, counted, kept, thrown away and tried again."""

from __future__ import annotations

import math
import os
import threading
import time

import anyio
import pytest

from kavach import AsyncSandboxPool, ConfigError, KavachError, LifecycleError, SandboxPool, SandboxState
from kavach.errors import BackendError
from kavach.pool import stock
from kavach.testing import FakeWall

PATIENCE_S = 10.0


def until(is_so):
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline, "it did not become true in time"
        time.sleep(0.002)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("warm", value) for value in (-1, True, 1.0, "2", None)),
        *(("max_size", value) for value in (0, 1, True, 3.0, "4")),  # 1 is less than the two that are kept warm
        *(("max_age_s", value) for value in (0, -1, True, math.inf, math.nan, "600")),
        *(("single_use", value) for value in (1, None, "no")),
    ],
)
def test_argument_of_a_pool_that_is_wrong_is_refused_by_name_and_starts_nothing(fake, name, value):
    before = threading.active_count()
    with pytest.raises(ConfigError) as caught:
        SandboxPool(**fake, **{name: value})
    assert caught.value.key == name
    assert threading.active_count() == before


def test_words_of_a_pool_count_what_it_holds(fake):
    with SandboxPool(**fake, warm=1) as pool:
        assert pool.wait_warm(PATIENCE_S)
        assert repr(pool) == "<SandboxPool 1 ready 0 claimed>"
        assert pool.last_error is None


def test_claim_waits_for_its_turn_and_no_longer_than_it_was_told(fake):
    with SandboxPool(**fake, warm=0, max_size=1) as pool:
        held = pool.claim()
        with pytest.raises(TimeoutError, match="within 0.01 s"):
            pool.claim(0.01)
        got = []
        waiting = threading.Thread(target=lambda: got.append(pool.claim(PATIENCE_S)))
        waiting.start()
        until(lambda: pool._stock.ledger._queue)
        held.destroy()
        waiting.join(PATIENCE_S)
        assert got[0].state is SandboxState.RUNNING
        assert got[0] is not held
        assert pool.metrics().waits == 1


@pytest.mark.parametrize("seconds", [0, -1, True, "1", math.nan])
def test_wait_for_no_time_is_refused_by_name(fake, seconds):
    with SandboxPool(**fake, warm=0) as pool:
        for act in (pool.claim, pool.wait_warm, pool.drain):
            with pytest.raises(ConfigError, match="timeout_s"):
                act(seconds)


def test_closed_pool_refuses_a_claim_and_may_be_closed_again(fake):
    pool = SandboxPool(**fake, warm=1)
    pool.close()
    pool.close()
    with pytest.raises(LifecycleError, match="pool is closed"):
        pool.claim()


def test_claimed_sandbox_ends_with_its_pool_and_drain_says_that_it_did_not_come_back(fake):
    pool = SandboxPool(**fake, warm=1)
    sandbox = pool.claim()
    assert pool.drain(0.01) is False
    sandbox.destroy()
    assert pool.drain(PATIENCE_S) is True
    other = SandboxPool(**fake, warm=0)
    left = other.claim()
    other.close()
    assert left.state is SandboxState.DESTROYED


def test_pool_of_another_process_is_refused_and_left_as_it_is(fake, monkeypatch):
    with SandboxPool(**fake, warm=1) as pool:
        assert pool.wait_warm(PATIENCE_S)
        with monkeypatch.context() as patch:
            patch.setattr(os, "getpid", lambda: 1)
            for act in (pool.claim, pool.wait_warm, pool.drain):
                with pytest.raises(LifecycleError, match="belongs to the process that made it"):
                    act()
            pool.close()
        assert pool.metrics().ready == 1


def test_sandbox_used_again_keeps_its_files_and_loses_its_processes(fake):
    with SandboxPool(**fake, warm=1, max_size=1, single_use=False) as pool:
        with pool.claim() as first:
            first.files.write("/workspace/f", b"kept")
            first.spawn(["sleep", "1000"])
        with pool.claim() as again:
            assert again is first
            assert again.files.read("/workspace/f") == b"kept"
            assert again.processes() == ()
    assert first.state is SandboxState.DESTROYED


def test_sandbox_that_was_stopped_is_not_used_again(fake):
    with SandboxPool(**fake, warm=0, single_use=False) as pool:
        with pool.claim() as first:
            first.stop()
        assert first.state is SandboxState.DESTROYED
        assert pool.metrics().claimed == 0


def test_sandbox_that_cannot_be_made_ready_again_is_destroyed_and_counted(fake, monkeypatch):
    def fail(_):
        raise BackendError("it does not come back", runtime="fakewall")

    with SandboxPool(**fake, warm=0, single_use=False) as pool:
        with pool.claim() as first:
            monkeypatch.setattr(FakeWall, "prewarm", fail)
        assert first.state is SandboxState.DESTROYED
        assert pool.metrics().failures == 1
        assert "does not come back" in str(pool.last_error)


def test_sandbox_given_back_twice_is_in_the_stock_once(fake):
    with SandboxPool(**fake, warm=0, single_use=False) as pool:
        sandbox = pool.claim()
        sandbox.__exit__()
        sandbox.__exit__()
        assert pool.metrics().ready <= 1
        assert pool.metrics().claimed == 0


def test_sandbox_given_back_to_a_closed_pool_is_destroyed(fake):
    pool = SandboxPool(**fake, warm=0, single_use=False)
    sandbox = pool.claim()
    pool.drain(0.01)
    sandbox.__exit__()
    assert sandbox.state is SandboxState.DESTROYED


def test_sandbox_given_back_in_a_fork_is_left_to_its_owner(fake, monkeypatch):
    with SandboxPool(**fake, warm=0) as pool:
        sandbox = pool.claim()
        with monkeypatch.context() as patch:
            patch.setattr(os, "getpid", lambda: 1)
            sandbox.__exit__()
        assert sandbox.state is SandboxState.RUNNING
        assert pool.metrics().claimed == 1


def test_old_sandbox_is_replaced_before_it_is_handed_out(fake):
    with SandboxPool(**fake, warm=1, max_age_s=600) as pool:
        assert pool.wait_warm(PATIENCE_S)
        (old,) = [kept.item for kept in pool._stock.ledger._ready]
        pool._stock._max_age_s = 0.0
        with pool.claim() as sandbox:
            assert sandbox is not old
        until(lambda: old.state is SandboxState.DESTROYED)
        assert pool.metrics().hits == 0
        assert pool.metrics().discarded >= 1


def test_claim_whose_sandbox_cannot_be_built_raises_and_frees_its_place(fake, monkeypatch):
    def fail(_):
        raise BackendError("no wall today", runtime="fakewall")

    with SandboxPool(**fake, warm=0, max_size=1) as pool:
        with monkeypatch.context() as patch:
            patch.setattr(FakeWall, "build", fail)
            for _ in range(3):
                with pytest.raises(BackendError, match="no wall today"):
                    pool.claim(1)
        with pool.claim(1) as sandbox:
            assert sandbox.state is SandboxState.RUNNING


def test_background_that_fails_tries_again_after_a_pause_and_keeps_the_reason(fake, monkeypatch):
    monkeypatch.setattr(stock, "_FIRST_PAUSE_S", 0.005)
    monkeypatch.setattr(stock, "_LONGEST_PAUSE_S", 0.01)
    failing = [True]
    real = FakeWall.build

    def build(wall):
        if failing:
            raise BackendError("not yet", runtime="fakewall")
        real(wall)

    monkeypatch.setattr(FakeWall, "build", build)
    with SandboxPool(**fake, warm=1) as pool:
        until(lambda: pool.metrics().failures >= 3)
        assert "not yet" in str(pool.last_error)
        failing.clear()
        assert pool.wait_warm(PATIENCE_S)
        assert pool.metrics().made == 1


def test_sandbox_that_cannot_be_destroyed_is_counted_and_the_others_are(fake, monkeypatch):
    pool = SandboxPool(**fake, warm=2)
    assert pool.wait_warm(PATIENCE_S)
    real, refused = FakeWall.destroy, []

    def destroy(wall):
        if not refused:
            refused.append(wall)
            raise BackendError("stuck", runtime="fakewall")
        real(wall)

    monkeypatch.setattr(FakeWall, "destroy", destroy)
    pool.drain(PATIENCE_S)
    assert pool.metrics().failures == 1
    assert pool.metrics().ready == 0


def test_forgotten_pool_is_emptied(fake):
    pool = SandboxPool(**fake, warm=1)
    assert pool.wait_warm(PATIENCE_S)
    kept = pool._stock
    del pool
    kept._wake.set()
    kept._thread.join(PATIENCE_S)
    assert not kept._thread.is_alive()
    assert kept.is_empty


# tasks


def test_awaited_pool_is_the_same_pool(fake):
    async def act():
        async with AsyncSandboxPool(**fake, warm=1, max_size=1) as pool:
            assert await pool.wait_warm(PATIENCE_S)
            held = await pool.claim()
            with pytest.raises(TimeoutError, match="within 0.01 s"):
                await pool.claim(0.01)
            assert repr(pool) == "<AsyncSandboxPool 0 ready 1 claimed>"
            assert await pool.drain(0.01) is False
            await held.destroy()
            assert await pool.drain(PATIENCE_S) is True
            with pytest.raises(LifecycleError, match="closed"):
                await pool.claim()

    anyio.run(act)


def test_awaited_claim_whose_sandbox_cannot_be_built_raises(fake, monkeypatch):
    def fail(_):
        raise BackendError("no wall today", runtime="fakewall")

    async def act():
        async with AsyncSandboxPool(**fake, warm=0) as pool:
            monkeypatch.setattr(FakeWall, "build", fail)
            with pytest.raises(KavachError, match="no wall today"):
                await pool.claim()
            assert pool.metrics().claimed == 0

    anyio.run(act)
