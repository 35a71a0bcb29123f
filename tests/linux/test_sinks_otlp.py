"""Spans, metrics and log records through the OpenTelemetry SDK to a receiver of OTLP on loopback, and to none."""

from __future__ import annotations

import importlib
import socket
import sys
import threading
import time
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from kavach.audit.events import Announcer, EventBus
from kavach.audit.metrics import STEPS, Counters, StepTimes
from kavach.audit.sinks.otlp import OTLPSink
from kavach.errors import UnsupportedError
from kavach.model.result import EndReason, ExecResult
from kavach.model.score import StrengthScore
from kavach.model.verdict import Verdict

DEADLINE_S = 20
STARTED_NS = 1_700_000_000_000_000_000
REQUESTS = {
    "/v1/traces": ExportTraceServiceRequest,
    "/v1/metrics": ExportMetricsServiceRequest,
    "/v1/logs": ExportLogsServiceRequest,
}


@pytest.fixture
def receiver():
    """Return the address of a receiver and what it has decoded, by path."""
    got = defaultdict(list)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            message = REQUESTS[self.path]()
            message.ParseFromString(self.rfile.read(int(self.headers["Content-Length"])))
            got[self.path].append(message)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *words):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    worker = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    worker.start()
    yield f"http://127.0.0.1:{server.server_port}", got
    server.shutdown()
    worker.join()
    server.server_close()


def ended(**fields):
    made = {"sandbox_id": "sb-1", "reason": EndReason.EXIT, "exit_code": 0, "verdict": Verdict.PASS}
    return ExecResult(**{**made, "score": StrengthScore(61), "requested_score": StrengthScore(61), **fields})


def times():
    return StepTimes(STARTED_NS, tuple((step, at * 1000, at * 1000 + 1000) for at, step in enumerate(STEPS)))


def attributes(pairs):
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}


def run(endpoint, *results, **options):
    counters = Counters()
    with EventBus() as bus, OTLPSink(endpoint, counters=counters, interval_s=60, **options) as sink:
        bus.subscribe("#", sink)
        voice = Announcer(bus, "sb-1", agent_id="agent-1", labels={"team": "red"}, counters=counters)
        voice.enter("created", backend="process")
        for result in results:
            voice.end(result, times())
        counters.claim(hit=True)
        assert bus.drain(DEADLINE_S)
        sink.flush()
    return sink


def test_a_command_is_a_span_with_one_below_it_for_each_step(receiver):
    endpoint, got = receiver
    sink = run(endpoint, ended())
    spans = [
        span
        for message in got["/v1/traces"]
        for resource in message.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]
    by_name = {span.name: span for span in spans}
    assert sorted(by_name) == sorted(["kavach.exec", *(f"kavach.{step}" for step in STEPS)])
    whole = by_name["kavach.exec"]
    assert (whole.start_time_unix_nano, whole.end_time_unix_nano) == (STARTED_NS, STARTED_NS + 6000)
    assert attributes(whole.attributes) == {
        "kavach.sandbox.id": "sb-1",
        "kavach.agent.id": "agent-1",
        "kavach.label.team": "red",
        "kavach.reason": "exit",
        "kavach.exit_code": 0,
        "kavach.verdict": "pass",
        "kavach.score": 61,
    }
    wall = by_name["kavach.wall"]
    assert (wall.parent_span_id, wall.trace_id) == (whole.span_id, whole.trace_id)
    assert (wall.start_time_unix_nano, wall.end_time_unix_nano) == (STARTED_NS + 2000, STARTED_NS + 3000)
    assert whole.status.code == 0
    assert sink.dropped == 0


def test_a_command_that_failed_is_a_span_with_an_error(receiver):
    endpoint, got = receiver
    run(endpoint, ended(reason=EndReason.TIMEOUT, exit_code=None))
    (spans,) = [scope.spans for one in got["/v1/traces"] for part in one.resource_spans for scope in part.scope_spans]
    (whole,) = [span for span in spans if span.name == "kavach.exec"]
    assert (whole.status.code, whole.status.message) == (2, "timeout")


def test_counts_and_times_are_metrics(receiver):
    endpoint, got = receiver
    run(endpoint, ended(), ended(reason=EndReason.OOM, exit_code=None, limits_hit=("oom",)))
    message = got["/v1/metrics"][0]
    metrics = {
        metric.name: metric
        for resource in message.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }

    def points(name, kind):
        rows = getattr(metrics[name], kind).data_points
        return {tuple(attributes(row.attributes).values()): row.as_int for row in rows}

    assert points("kavach.sandboxes", "gauge") == {("created",): 1}
    assert points("kavach.commands", "sum") == {("exit",): 1, ("oom",): 1}
    assert points("kavach.limits_hit", "sum") == {("oom",): 1}
    assert points("kavach.pool.claims", "sum") == {("hit",): 1, ("miss",): 0}
    assert points("kavach.orphans_swept", "sum") == {(): 0}
    rows = {
        attributes(row.attributes)["kavach.step"]: row for row in metrics["kavach.step.duration"].histogram.data_points
    }
    assert sorted(rows) == sorted(STEPS)
    assert (rows["wall"].count, rows["wall"].sum) == (2, pytest.approx(2e-6))
    assert message.resource_metrics[0].resource.attributes[0].key


def test_events_are_log_records_as_loud_as_their_kind(receiver):
    endpoint, got = receiver
    run(endpoint, ended(verdict=Verdict.BLOCK, reason=EndReason.WITHHELD, exit_code=None))
    records = [
        record
        for message in got["/v1/logs"]
        for resource in message.resource_logs
        for scope in resource.scope_logs
        for record in scope.log_records
    ]
    assert [(record.body.string_value, record.severity_text) for record in records] == [
        ("lifecycle/created", "INFO"),
        ("scan/blocked", "ERROR"),
    ]
    assert attributes(records[0].attributes)["kavach.backend"] == "process"
    assert records[0].event_name == "kavach.lifecycle.created"


def test_a_receiver_that_is_down_costs_telemetry_which_is_counted_and_no_time_of_the_bus():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with EventBus() as bus, OTLPSink(f"http://127.0.0.1:{port}", timeout_s=0.2, interval_s=60) as sink:
        subscription = bus.subscribe("#", sink)
        voice = Announcer(bus, "sb-1", counters=Counters())
        began = time.monotonic()
        for _ in range(20):
            voice.end(ended(), times())
            voice.tell("scan/blocked")
        assert time.monotonic() - began < 2  # far below one time-out for each
        assert subscription.drain(DEADLINE_S)
        assert (subscription.dropped, subscription.failures, subscription.error) == (0, 0, None)
        sink.flush()
        assert sink.dropped >= 20 * 7 + 20  # spans and log records; collections of metrics beside them


@pytest.mark.parametrize("module", ["otlp", "telemetry"])
def test_a_missing_package_is_named_with_what_brings_it(monkeypatch, module):
    for name in [name for name in sys.modules if name.startswith(("opentelemetry", "kavach.audit.sinks"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk" if module == "otlp" else "opentelemetry", None)
    with pytest.raises(UnsupportedError) as caught:
        importlib.import_module(f"kavach.audit.sinks.{module}")
    assert caught.value.hint == "pip install 'kavach-sandbox[otel]'"
