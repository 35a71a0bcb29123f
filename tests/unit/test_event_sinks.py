"""Sinks that need no server: logging, JSON Lines, the status file, Prometheus' text."""

from __future__ import annotations

import json
import logging
import os
import stat
import threading

import pytest
from prometheus_client.parser import text_string_to_metric_families

from kavach.audit.events import Event, EventBus
from kavach.audit.metrics import Counters, StepClock
from kavach.audit.sinks.jsonl import JSONLSink
from kavach.audit.sinks.logs import LoggingSink
from kavach.audit.sinks.prometheus import prometheus_text
from kavach.audit.sinks.status import StatusFile, read_status_files
from kavach.audit.usage import SandboxUsage
from kavach.errors import ConfigError
from kavach.model.result import EndReason, ExecResult
from kavach.model.score import StrengthScore
from kavach.model.verdict import Verdict

DEADLINE_S = 10


def event(topic="sandbox/sb-1/lifecycle/started", serial=1, **fields):
    return Event(serial=serial, time_s=1.7e9, topic=topic, fields=tuple(fields.items()))


@pytest.mark.parametrize(
    ("kind", "level"),
    [
        ("lifecycle/started", logging.INFO),
        ("policy/degraded", logging.WARNING),
        ("limit/oom", logging.WARNING),
        ("scan/blocked", logging.ERROR),
    ],
)
def test_an_event_is_logged_as_loud_as_its_kind_deserves(caplog, kind, level):
    caplog.set_level(logging.DEBUG, logger="kavach.events")
    LoggingSink()(event(f"sandbox/sb-1/{kind}", pid=7))
    (record,) = caplog.records
    assert record.levelno == level
    assert record.getMessage() == f'sandbox/sb-1/{kind} {{"pid":7}}'
    assert record.kavach["payload"] == {"pid": 7}


def test_an_event_cannot_forge_a_line_of_the_log(caplog):
    caplog.set_level(logging.INFO, logger="kavach.events")
    LoggingSink()(event(message="a\nERROR forged\r\x1b[2J\u2028\x9b31m\x85"))
    message = caplog.records[0].getMessage()
    assert message.isascii()
    assert message.isprintable()


def test_events_are_appended_as_lines_to_a_file_of_the_users_own(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_text("before\n")
    path.chmod(0o640)
    with JSONLSink(path) as sink:
        sink(event(serial=1))
        sink(event(serial=2, text="a\nb"))
    lines = path.read_text().splitlines()
    assert lines[0] == "before"
    assert [json.loads(line)["serial"] for line in lines[1:]] == [1, 2]
    with JSONLSink(tmp_path / "fresh.jsonl"):
        assert stat.S_IMODE((tmp_path / "fresh.jsonl").stat().st_mode) == 0o600


def test_lines_of_many_threads_and_sinks_do_not_mix(tmp_path):
    path = tmp_path / "events.jsonl"
    sinks = [JSONLSink(path) for _ in range(4)]
    workers = [
        threading.Thread(target=lambda sink=sink: [sink(event(text="x" * 2000)) for _ in range(100)]) for sink in sinks
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for sink in sinks:
        sink.close()
    assert len([json.loads(line) for line in path.read_text().splitlines()]) == 400


def test_what_is_no_regular_file_is_refused(tmp_path):
    (tmp_path / "real").touch()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe", "missing/file"):
        with pytest.raises(ConfigError):
            JSONLSink(tmp_path / name)
    with pytest.raises(ConfigError):
        JSONLSink("/dev/null")


@pytest.mark.needs("linux")
def test_a_full_disk_drops_and_counts_and_the_next_line_stands_alone(tmp_path, monkeypatch):
    sink = JSONLSink(tmp_path / "events.jsonl")
    write, room = os.write, [30]

    def short(handle, content):
        if room[0] == 0:
            raise OSError(28, "No space left on device")
        done = write(handle, content[: room[0]])
        room[0] -= done
        return done

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", short)
        sink(event(serial=1))
        sink(event(serial=2))
    sink(event(serial=3))
    sink.close()
    sink(event(serial=4))
    torn, whole = (tmp_path / "events.jsonl").read_text().splitlines()
    assert len(torn) == 30
    assert json.loads(whole)["serial"] == 3
    assert sink.dropped == 3


def ended(reason=EndReason.EXIT, code=0):
    return ExecResult(
        sandbox_id="sb-1",
        reason=reason,
        exit_code=code,
        verdict=Verdict.PASS,
        score=StrengthScore(1),
        requested_score=StrengthScore(1),
    )


def wait_for(look):
    limit = threading.Event()
    for _ in range(1000):
        if found := look():
            return found
        limit.wait(0.005)
    raise AssertionError("it did not come")


@pytest.mark.needs("linux")
def test_the_status_file_tells_what_is_there_and_goes_with_its_process(tmp_path):
    folder = tmp_path / "kavach"
    with EventBus() as bus, StatusFile(folder, counters=Counters(), pause_s=0.0) as status:
        bus.subscribe("#", status)
        bus.publish("sandbox/sb-1/lifecycle/created", {"state": "created", "backend": "process", "policy": "strict"})
        bus.publish("sandbox/sb-1/lifecycle/started", {"state": "running", "pid": 4711}, agent_id="agent-1")
        bus.publish("trace/sb-1/exec", {"reason": "exit", "exit_code": 0, "score": 77})
        bus.publish("trace/sb-1/exec", {"reason": "withheld", "exit_code": None, "score": 77})
        bus.publish("sandbox/sb-2/lifecycle/created", {"state": "created"})
        bus.publish("sandbox/sb-2/lifecycle/destroyed", {"state": "destroyed"})
        (host,) = wait_for(
            lambda: [one for one in read_status_files(str(folder)) if [row.commands for row in one.sandboxes] == [2]]
        )
        assert stat.S_IMODE(os.stat(status.path).st_mode) == 0o600
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    (row,) = host.sandboxes
    assert (host.pid, row.id, row.state, row.backend, row.policy, row.pid) == (
        os.getpid(),
        "sb-1",
        "running",
        "process",
        "strict",
        4711,
    )
    assert (row.commands, row.failures, row.withheld, row.last_reason, row.score) == (2, 1, 1, "withheld", 77)
    assert list(folder.iterdir()) == []
    assert read_status_files(str(folder)) == []


@pytest.mark.needs("linux")
def test_files_of_processes_that_have_gone_are_removed_and_strangers_are_left(tmp_path):
    (tmp_path / "note.txt").write_text("mine")
    (tmp_path / "broken.json").write_text("{")
    dead = {"schema": "kavach.status/1", "pid": os.getpid(), "start_time": 1, "written_utc": "", "process": {}}
    (tmp_path / "1-1.json").write_text(json.dumps(dead | {"sandboxes": []}))
    assert read_status_files(str(tmp_path)) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken.json", "note.txt"]


def test_a_folder_that_others_may_write_to_is_refused(tmp_path):
    tmp_path.chmod(0o777)
    with pytest.raises(ConfigError):
        StatusFile(tmp_path)
    with pytest.raises(ConfigError):
        read_status_files(str(tmp_path))
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(ConfigError):
        read_status_files(str(tmp_path / "link"))
    assert read_status_files(str(tmp_path / "absent")) == []


def parsed(text):
    return {family.name: family for family in text_string_to_metric_families(text)}


def test_an_independent_parser_reads_the_prometheus_text():
    counters = Counters()
    counters.move(None, "running")
    counters.claim(hit=True)
    clock = StepClock(clock_ns=iter([0, 0, 2_000_000, 5_000_000_000]).__next__, time_ns=lambda: 0)
    clock.enter("wall")
    clock.enter("judge")
    counters.end(ended(), clock.finish())
    usage = SandboxUsage(source="cgroup2", cpu_time_ms=1500.0, memory_bytes=4096)
    found = parsed(prometheus_text(counters.snapshot(), {'sb"\\\n1': usage}))
    assert [(one.labels, one.value) for one in found["kavach_sandboxes"].samples] == [({"state": "running"}, 1.0)]
    assert found["kavach_commands"].type == "counter"
    cpu = found["kavach_sandbox_cpu_seconds"].samples[0]
    assert (cpu.labels["sandbox"], cpu.value) == ('sb"\\\n1', 1.5)
    assert found["kavach_sandbox_memory_peak_bytes"].samples == []  # unknown is left out
    steps = found["kavach_step_duration_seconds"]
    assert steps.type == "histogram"
    wall = [one for one in steps.samples if one.labels.get("step") == "wall"]
    buckets = {one.labels["le"]: one.value for one in wall if one.name.endswith("_bucket")}
    assert (buckets["0.001"], buckets["0.003"], buckets["+Inf"]) == (0.0, 1.0, 1.0)
    assert [one.value for one in wall if one.name.endswith("_sum")] == [0.002]


def test_a_process_that_has_done_nothing_has_text_that_parses_too():
    found = parsed(prometheus_text(Counters().snapshot()))
    assert found["kavach_orphans_swept"].samples[0].value == 0
    assert "kavach_sandbox_pids" not in found
