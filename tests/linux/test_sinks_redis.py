"""Events through a real Redis server, one that goes away, and one that never answers."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time

import pytest
import redis

from kavach.audit.events import Event, EventBus
from kavach.audit.sinks.redis_pubsub import RedisSink
from kavach.errors import ConfigError, UnsupportedError

DEADLINE_S = 20
PASSWORD = "pass" + "-".join(["a"] * 8)


def wait_for(look):
    limit = threading.Event()
    end = time.monotonic() + DEADLINE_S
    while time.monotonic() < end:
        if found := look():
            return found
        limit.wait(0.01)
    raise AssertionError("it did not come")


@pytest.fixture
def server(lab, tmp_path):
    """Return a function that starts a server on a unix socket, and its URL."""
    program, started = lab("redis"), []
    path = tmp_path / "redis.sock"

    def start():
        options = ["--port", "0", "--unixsocket", str(path), "--save", "", "--requirepass", PASSWORD, "--dir", tmp_path]
        started.append(subprocess.Popen([program, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        client = redis.Redis(unix_socket_path=str(path), password=PASSWORD)

        def answers():
            try:
                return client.ping()
            except redis.RedisError:
                return False

        wait_for(answers)
        return started[-1], client

    yield start, f"unix://:{PASSWORD}@{path}"
    for process in started:
        process.kill()
        process.wait()


def event(serial=1, topic="sandbox/sb-1/scan/blocked"):
    return Event(serial=serial, time_s=1.7e9, topic=topic, fields=(("rule", "aws"),))


@pytest.mark.needs("redis")
def test_events_reach_whoever_has_subscribed_to_the_channel_by_pattern(server):
    start, url = server
    _, client = start()
    with client.pubsub() as channels, RedisSink(url, timeout_s=5) as sink, EventBus() as bus:
        channels.psubscribe("kavach/sandbox/*/scan/*")
        assert wait_for(lambda: channels.get_message(timeout=0.1))["type"] == "psubscribe"
        bus.subscribe("sandbox/#", sink)
        bus.publish("sandbox/sb-1/lifecycle/started", {"pid": 1})
        bus.publish("sandbox/sb-1/scan/blocked", {"rule": "aws"})
        got = wait_for(lambda: channels.get_message(timeout=0.1))
    assert got["channel"] == b"kavach/sandbox/sb-1/scan/blocked"
    assert json.loads(got["data"])["payload"] == {"rule": "aws"}
    assert sink.dropped == 0
    client.close()


@pytest.mark.needs("redis")
def test_a_server_that_goes_and_comes_back_costs_events_and_nothing_else(server):
    start, url = server
    process, client = start()
    now = [0.0]
    sink = RedisSink(url, timeout_s=5, retry_s=10, clock=lambda: now[0])
    sink(event())
    process.kill()
    process.wait()
    for _ in range(3):
        sink(event())
    assert sink.dropped == 3
    start()[1].close()
    sink(event())  # it is there again, and still left alone
    assert sink.dropped == 4
    now[0] = 10.0
    sink(event())
    assert sink.dropped == 4
    sink.close()
    client.close()


def test_a_server_that_never_answers_holds_up_neither_the_publisher_nor_the_queue():
    with socket.create_server(("127.0.0.1", 0)) as silent, EventBus() as bus:
        port = silent.getsockname()[1]
        sink = RedisSink(f"redis://127.0.0.1:{port}", timeout_s=0.2, retry_s=60)
        subscription = bus.subscribe("#", sink)
        began = time.monotonic()
        for _ in range(500):
            bus.publish("sandbox/sb-1/scan/blocked")
        assert time.monotonic() - began < 10  # far below 500 time-outs
        assert subscription.drain(DEADLINE_S)
        assert (sink.dropped, subscription.dropped, subscription.failures) == (500, 0, 0)
        sink.close()


@pytest.mark.parametrize("url", ["", "http://x", "redis://:secret-word@h:port", 7])
def test_a_url_that_is_none_is_refused_without_its_password(url):
    with pytest.raises(ConfigError) as caught:
        RedisSink(url)
    assert caught.value.key == "url"
    assert "secret-word" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_the_password_is_not_in_the_repr():
    sink = RedisSink(f"redis://:{PASSWORD}@127.0.0.1:1")
    assert PASSWORD not in repr(sink)
    sink.close()


def test_a_missing_package_is_named_with_what_brings_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(UnsupportedError) as caught:
        RedisSink("redis://127.0.0.1")
    assert caught.value.hint == "pip install 'kavach-sandbox[redis]'"
