"""Events -> OpenTelemetry: a span for each command with one below it for each of the six steps, metrics, log records.

Guarantees: only the API is used, with the providers that the caller has configured, who decide where it goes and what
becomes of it when a receiver is down (`kavach.audit.sinks.otlp` has some ready made). Needs the extra `otel`. May be
called by: users, kavach.cli.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kavach.audit.events import topics
from kavach.audit.metrics import BUCKETS_S, PROCESS
from kavach.audit.sinks.logs import level_of
from kavach.errors import UnsupportedError

try:
    from opentelemetry import metrics as otel_metrics
    from opentelemetry import trace as otel_trace
    from opentelemetry._logs import LogRecord, SeverityNumber, get_logger_provider
    from opentelemetry.metrics import Observation
    from opentelemetry.trace import Status, StatusCode
except ImportError as _missing:
    raise UnsupportedError(
        "an OpenTelemetry sink needs the package opentelemetry-sdk",
        control="events",
        needed="opentelemetry-sdk",
        found="not installed",
        hint="pip install 'kavach-sandbox[otel]'",
    ) from _missing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from opentelemetry._logs import LoggerProvider
    from opentelemetry.metrics import CallbackOptions, MeterProvider
    from opentelemetry.trace import TracerProvider

    from kavach.audit.events.event import Event, Value
    from kavach.audit.metrics import Counters, ProcessMetrics

__all__ = ["OpenTelemetrySink"]

SCOPE = "kavach"
_SEVERITIES = {20: SeverityNumber.INFO, 30: SeverityNumber.WARN, 40: SeverityNumber.ERROR}
#: Field of ProcessMetrics -> instrument, its attribute, what it is.
_COUNTS = (
    ("commands", "kavach.commands", "kavach.reason", "Ended commands by what ended them"),
    ("verdicts", "kavach.verdicts", "kavach.verdict", "Verdicts of the gate"),
    ("denials", "kavach.denials", "kavach.control", "What walls refused, where it was observed"),
    ("limits", "kavach.limits_hit", "kavach.limit", "Limits whose counters rose"),
)


class OpenTelemetrySink:
    """Turns each event it is called with into telemetry: `bus.subscribe("#", OpenTelemetrySink())`.

    Args:
        tracer_provider: None = the global one.
        meter_provider: None = the global one.
        logger_provider: None = the global one.
        counters: the process's counts, read when metrics are collected.
    """

    def __init__(
        self,
        *,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        logger_provider: LoggerProvider | None = None,
        counters: Counters = PROCESS,
    ) -> None:
        self._tracer = (tracer_provider or otel_trace.get_tracer_provider()).get_tracer(SCOPE)
        self._logger = (logger_provider or get_logger_provider()).get_logger(SCOPE)
        self._counters = counters
        meter = (meter_provider or otel_metrics.get_meter_provider()).get_meter(SCOPE)
        self._durations = meter.create_histogram(
            "kavach.step.duration",
            unit="s",
            description="Time of each step of a command",
            explicit_bucket_boundaries_advisory=BUCKETS_S,
        )
        meter.create_observable_gauge(
            "kavach.sandboxes", [self._observe("sandboxes", "kavach.state")], description="Sandboxes by state"
        )
        for field, name, attribute, about in _COUNTS:
            meter.create_observable_counter(name, [self._observe(field, attribute)], description=about)
        meter.create_observable_counter("kavach.pool.claims", [self._observe_pool], description="Claims of pools")
        meter.create_observable_counter(
            "kavach.orphans_swept", [self._observe_orphans], description="What earlier processes left behind"
        )

    def __call__(self, event: Event) -> None:
        """Hand one event over to the SDK, which sends it on in its own time."""
        if event.kind == topics.EXEC:
            self._trace(event)
        else:
            self._log(event)

    def _trace(self, event: Event) -> None:
        known: dict[str, Any] = event.payload
        started_ns, rows = (
            known["started_ns"],
            list(zip(known["steps"], known["begins_ns"], known["ends_ns"], strict=True)),
        )
        told = ("reason", "exit_code", "verdict", "score")
        attributes = _who(event) | {f"kavach.{name}": known[name] for name in told if known[name] is not None}
        span = self._tracer.start_span("kavach.exec", start_time=started_ns, attributes=attributes)
        if (known["reason"], known["exit_code"]) != ("exit", 0):
            span.set_status(Status(StatusCode.ERROR, str(known["reason"])))
        inside = otel_trace.set_span_in_context(span)
        for step, begin, end in rows:
            child = self._tracer.start_span(f"kavach.{step}", context=inside, start_time=started_ns + begin)
            child.end(started_ns + end)
            self._durations.record((end - begin) / 1e9, {"kavach.step": step})
        span.end(started_ns + rows[-1][2] if rows else started_ns)

    def _log(self, event: Event) -> None:
        level = level_of(event.kind)
        self._logger.emit(
            LogRecord(
                timestamp=int(event.time_s * 1e9),
                severity_number=_SEVERITIES[level],
                severity_text=_SEVERITIES[level].name,
                body=event.kind,
                attributes=_who(event) | {f"kavach.{name}": _attribute(value) for name, value in event.fields},
                event_name=f"kavach.{event.kind.replace('/', '.')}",
            )
        )

    def _observe(self, field: str, attribute: str) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def read(options: CallbackOptions) -> Iterable[Observation]:
            del options
            return [Observation(count, {attribute: key}) for key, count in getattr(self._now(), field).items()]

        return read

    def _observe_pool(self, options: CallbackOptions) -> Iterable[Observation]:
        del options
        found = self._now()
        return [
            Observation(found.pool_hits, {"kavach.result": "hit"}),
            Observation(found.pool_misses, {"kavach.result": "miss"}),
        ]

    def _observe_orphans(self, options: CallbackOptions) -> Iterable[Observation]:
        del options
        return [Observation(self._now().orphans_swept)]

    def _now(self) -> ProcessMetrics:
        return self._counters.snapshot()


def _who(event: Event) -> dict[str, Any]:
    found: dict[str, Any] = {"kavach.sandbox.id": event.sandbox_id}
    if event.agent_id is not None:
        found["kavach.agent.id"] = event.agent_id
    return found | {f"kavach.label.{name}": value for name, value in event.label_pairs}


def _attribute(value: Value) -> Any:  # noqa: ANN401 - what the SDK takes as an attribute
    """Return a value as an attribute can hold it: None is no attribute's value, and sequences are of one type."""
    if value is None:
        return ""
    return tuple("" if member is None else str(member) for member in value) if isinstance(value, tuple) else value
