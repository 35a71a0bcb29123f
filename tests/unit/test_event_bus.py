"""The bus: what reaches whom, in which order, and that nobody can hold up or harm anybody."""

from __future__ import annotations

import gc
import json
import sys
import threading
import weakref

import anyio
import pytest

from kavach.audit.events import Event, EventBus
from kavach.errors import ConfigError

STARTED = "sandbox/sb-1/lifecycle/started"
DEADLINE_S = 10


@pytest.fixture
def bus():
    made = EventBus(clock=lambda: 1_700_000_000.5)
    yield made
    made.close(wait_s=0)


@pytest.fixture
def gate():
    """Return an event that blocks callbacks until the test has ended."""
    opened = threading.Event()
    yield opened
    opened.set()


def test_every_subscriber_whose_pattern_matches_gets_the_event_once(bus):
    everything, lifecycle, scans = [], [], []
    bus.subscribe("#", everything.append)
    bus.subscribe("sandbox/*/lifecycle/#", lifecycle.append)
    bus.subscribe("sandbox/*/scan/#", scans.append)
    bus.publish(STARTED, {"pid": 7})
    assert bus.drain(DEADLINE_S)
    assert [event.topic for event in everything] == [STARTED]
    assert lifecycle == everything
    assert scans == []


def test_an_event_says_what_when_and_for_whom(bus):
    got = []
    bus.subscribe("#", got.append)
    bus.publish(STARTED, {"pid": 7, "names": ["a", None, 2]}, agent_id="agent-1", labels=(("team", "red"),))
    assert bus.drain(DEADLINE_S)
    assert json.loads(got[0].to_json()) == {
        "schema": "kavach.event/1",
        "serial": 1,
        "time_utc": "2023-11-14T22:13:20.500+00:00",
        "topic": STARTED,
        "sandbox_id": "sb-1",
        "agent_id": "agent-1",
        "labels": {"team": "red"},
        "payload": {"pid": 7, "names": ["a", None, 2]},
    }
    assert got[0].kind == "lifecycle/started"


@pytest.fixture
def restless():
    """Let threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("restless")
def test_each_queue_is_in_the_order_of_the_serials_under_many_publishers(bus):
    got = []
    bus.subscribe("#", got.append, queue_size=10_000)
    workers = [threading.Thread(target=lambda: [bus.publish(STARTED) for _ in range(250)]) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert bus.drain(DEADLINE_S)
    assert [event.serial for event in got] == list(range(1, 2001))


def test_a_subscriber_cannot_change_what_the_next_one_sees(bus):
    seen = []

    def spoil(event: Event):
        event.payload["pid"] = "gone"
        event.payload.clear()
        with pytest.raises(AttributeError):
            event.topic = "other"

    spoiler = bus.subscribe("#", spoil)
    bus.subscribe("#", lambda event: seen.append(event.payload))
    bus.publish(STARTED, {"pid": 7})
    assert bus.drain(DEADLINE_S)
    assert seen == [{"pid": 7}]
    assert spoiler.error is None


@pytest.mark.parametrize(
    "value", [b"out", bytearray(b"out"), memoryview(b"out"), object(), {"a": 1}, [b"out"], {"out"}]
)
def test_bytes_and_objects_cannot_be_put_into_an_event(bus, value):
    got = []
    bus.subscribe("#", got.append)
    with pytest.raises(ConfigError) as caught:
        bus.publish(STARTED, {"fine": 1, "output": value})
    assert "output" in str(caught.value)
    assert "out'" not in str(caught.value)
    assert bus.drain(DEADLINE_S)
    assert got == []


def test_a_subscriber_that_blocks_loses_its_own_events_and_nobody_elses(bus, gate):
    entered, got = threading.Event(), []

    def block(event: Event):
        entered.set()
        gate.wait()

    slow = bus.subscribe("#", block, queue_size=3)
    bus.publish(STARTED)
    assert entered.wait(DEADLINE_S)
    fast = bus.subscribe("#", got.append)
    for _ in range(9):
        bus.publish(STARTED)
    assert fast.drain(DEADLINE_S)
    assert (len(got), fast.dropped) == (9, 0)
    assert (slow.waiting, slow.dropped, slow.delivered) == (3, 7, 0)
    assert bus.metrics() == (10, 7, 2)


@pytest.mark.parametrize("error", [ValueError("x"), SystemExit(3), KeyboardInterrupt()], ids=repr)
def test_a_subscriber_that_raises_gets_the_next_event_all_the_same(bus, error):
    got = []

    def fail(event: Event):
        got.append(event.serial)
        if event.serial != 2:
            raise error.__class__("again")

    failing = bus.subscribe("#", fail)
    for _ in range(3):
        bus.publish(STARTED)
    assert bus.drain(DEADLINE_S)
    assert got == [1, 2, 3]
    assert failing.failures == 2
    assert isinstance(failing.error, error.__class__)


def test_what_was_queued_before_close_is_still_delivered(bus):
    got = []
    subscription = bus.subscribe("#", got.append)
    for _ in range(100):
        bus.publish(STARTED)
    assert subscription.close(wait_s=DEADLINE_S)
    bus.publish(STARTED)
    assert len(got) == 100
    assert bus.metrics().subscribers == 0
    assert not subscription.is_open


def test_a_callback_may_close_its_own_subscription(bus):
    got, made = [], []

    def once(event: Event):
        got.append(event)
        made[0].close(wait_s=DEADLINE_S)

    made.append(bus.subscribe("#", once))
    bus.publish(STARTED)
    assert made[0].drain(DEADLINE_S)
    bus.publish(STARTED)
    assert (len(got), made[0].error) == (1, None)


def test_closing_the_bus_waits_for_the_fast_and_not_for_the_one_that_blocks(bus, gate):
    got = []
    bus.subscribe("#", lambda event: gate.wait())
    fast = bus.subscribe("#", got.append)
    bus.publish(STARTED)
    assert bus.close(wait_s=0.2) is False
    assert (len(got), fast.waiting) == (1, 0)
    with pytest.raises(ConfigError):
        bus.subscribe("#", got.append)
    with pytest.raises(ConfigError):
        bus.stream("#")
    bus.publish(STARTED)
    assert len(got) == 1


def test_a_finalizer_may_publish_while_its_own_thread_publishes():
    class Forgotten:
        """A sandbox that nobody destroyed."""

    def clock():  # asked in the middle of publish, where the collector may run as well
        if things:
            del things[0]
        return 1.0

    bus, got, things = EventBus(clock=clock), [], [Forgotten()]
    weakref.finalize(things[0], bus.publish, "sandbox/sb-2/lifecycle/destroyed")
    bus.subscribe("#", got.append)
    bus.publish(STARTED)
    assert bus.close(wait_s=DEADLINE_S)
    assert sorted(event.sandbox_id for event in got) == ["sb-1", "sb-2"]


@pytest.mark.parametrize("size", [0, -1, True, 1.5, "9", None, (1 << 20) + 1])
def test_a_queue_size_that_cannot_be_is_refused(bus, size):
    with pytest.raises(ConfigError) as caught:
        bus.subscribe("#", print, queue_size=size)
    assert caught.value.key == "queue_size"
    with pytest.raises(ConfigError):
        bus.stream("#", queue_size=size)


def test_a_callback_that_cannot_be_called_is_refused(bus):
    with pytest.raises(ConfigError) as caught:
        bus.subscribe("#", "print")
    assert caught.value.key == "callback"


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_stream_yields_what_other_threads_publish(bus, backend):
    async def main():
        got = []
        async with bus.stream("sandbox/*/lifecycle/#") as events:
            worker = threading.Thread(target=lambda: [bus.publish(STARTED, {"n": n}) for n in range(50)])
            worker.start()
            with anyio.fail_after(DEADLINE_S):
                async for event in events:
                    got.append(event.payload["n"])
                    if len(got) == 50:
                        break
            await anyio.to_thread.run_sync(worker.join)
        return got

    assert anyio.run(main, backend=backend) == list(range(50))
    assert bus.metrics().subscribers == 0


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_stream_wakes_a_reader_that_waits_already(bus, backend):
    async def main():
        events = bus.stream("#")
        got = []

        async def read():
            got.extend([event.serial async for event in events])

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            for _ in range(3):
                await anyio.wait_all_tasks_blocked()
                await anyio.to_thread.run_sync(bus.publish, STARTED)
                with anyio.fail_after(DEADLINE_S):
                    while events.waiting:
                        await anyio.lowlevel.checkpoint()
            await anyio.wait_all_tasks_blocked()
            await anyio.to_thread.run_sync(events.close)
        return got

    assert anyio.run(main, backend=backend) == [1, 2, 3]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_stream_that_nobody_reads_is_bounded_and_ends_with_the_bus(bus, backend):
    async def main():
        async with bus.stream("#", queue_size=2) as events:
            for _ in range(5):
                bus.publish(STARTED)
            assert (events.waiting, events.dropped) == (2, 3)
            bus.close()
            with anyio.fail_after(DEADLINE_S):
                return [event.serial async for event in events]

    assert anyio.run(main, backend=backend) == [1, 2]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_cancelled_reader_leaves_the_stream_usable(bus, backend):
    async def main():
        async with bus.stream("#") as events:
            with anyio.move_on_after(0.01):
                await events.__anext__()
            bus.publish(STARTED)
            with anyio.fail_after(DEADLINE_S):
                return (await events.__anext__()).serial

    assert anyio.run(main, backend=backend) == 1


def test_a_forgotten_stream_leaves_the_bus_and_closes_its_sockets(bus):
    stream = bus.stream("#")
    inbox = stream._inbox
    assert bus.metrics().subscribers == 1
    del stream
    gc.collect()
    assert bus.metrics().subscribers == 0
    assert (inbox._reader.fileno(), inbox._bell.fileno()) == (-1, -1)


def test_reprs_tell_counts_and_nothing_of_the_payload(bus):
    subscription = bus.subscribe("sandbox/#", lambda event: None)
    bus.publish(STARTED, {"word": "hidden"})
    assert bus.drain(DEADLINE_S)
    assert repr(subscription) == "<Subscription sandbox/# open, 1 delivered, 0 dropped>"
    assert repr(bus) == "<EventBus 1 published, 0 dropped, 1 subscribers>"
