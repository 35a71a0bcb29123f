"""An OpenTelemetry sink that sends to an OTLP/HTTP receiver, ready made.

Guarantees: sending happens in the SDK's threads; a receiver that is down costs telemetry, which is counted, and never
time of the bus. Does not: touch the global providers. Needs the extra `otel`. May be called by: users, kavach.cli.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Self

from kavach.audit.metrics import PROCESS
from kavach.audit.sinks.telemetry import OpenTelemetrySink
from kavach.errors import UnsupportedError

try:
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk._logs import LoggerProvider
    from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, LogRecordExportResult
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import MetricExportResult, PeriodicExportingMetricReader
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
except ImportError as _missing:
    raise UnsupportedError(
        "sending OTLP needs the package opentelemetry-exporter-otlp-proto-http",
        control="events",
        needed="opentelemetry-exporter-otlp-proto-http",
        found="not installed",
        hint="pip install 'kavach-sandbox[otel]'",
    ) from _missing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from opentelemetry.sdk._logs import ReadableLogRecord
    from opentelemetry.sdk.metrics.export import MetricsData
    from opentelemetry.sdk.trace import ReadableSpan

    from kavach.audit.metrics import Counters

__all__ = ["OTLPSink"]


class _Losses:
    """How many spans, log records and collections of metrics were not taken."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.count = 0

    def add(self, number: int) -> None:
        with self._lock:
            self.count += number


class OTLPSink(OpenTelemetrySink):
    """Sends what becomes of events to a receiver: `bus.subscribe("#", OTLPSink("http://127.0.0.1:4318"))`.

    Args:
        endpoint: the receiver's base; `/v1/traces`, `/v1/metrics` and `/v1/logs` are added (OTLP 1.0, OTLP/HTTP).
        headers: added to each request.
        timeout_s: for each request, tries again included.
        interval_s: how often metrics are collected and sent; spans and logs are sent after at most as long.
        resource: attributes of this process.
        counters: the process's counts.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 1.0,
        interval_s: float = 5.0,
        resource: Mapping[str, str] | None = None,
        counters: Counters = PROCESS,
    ) -> None:
        self._losses = _Losses()
        base, sent = endpoint.rstrip("/"), dict(headers or {})
        about = Resource.create({"service.name": "kavach", **(resource or {})})
        pause_ms = interval_s * 1000
        spans = _Spans(self._losses, f"{base}/v1/traces", sent, timeout_s)
        logs = _Logs(self._losses, f"{base}/v1/logs", sent, timeout_s)
        sums = _Sums(self._losses, f"{base}/v1/metrics", sent, timeout_s)
        self._traces = TracerProvider(resource=about, shutdown_on_exit=False)
        self._traces.add_span_processor(BatchSpanProcessor(spans, schedule_delay_millis=pause_ms))
        self._records = LoggerProvider(resource=about, shutdown_on_exit=False)
        self._records.add_log_record_processor(BatchLogRecordProcessor(logs, schedule_delay_millis=pause_ms))
        reader = PeriodicExportingMetricReader(sums, export_interval_millis=pause_ms)
        self._metrics = MeterProvider([reader], resource=about, shutdown_on_exit=False)
        super().__init__(
            tracer_provider=self._traces,
            meter_provider=self._metrics,
            logger_provider=self._records,
            counters=counters,
        )

    @property
    def dropped(self) -> int:
        """How many spans, log records and collections of metrics the receiver did not take."""
        return self._losses.count

    def flush(self) -> None:
        """Send what waits, now."""
        self._traces.force_flush()
        self._records.force_flush()
        self._metrics.force_flush()

    def close(self) -> None:
        """Send what waits and end the SDK's threads; takes at most a few times `timeout_s`."""
        self._traces.shutdown()
        self._records.shutdown()
        self._metrics.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


class _Spans(OTLPSpanExporter):
    def __init__(self, losses: _Losses, endpoint: str, headers: dict[str, str], timeout_s: float) -> None:
        super().__init__(endpoint=endpoint, headers=headers, timeout=timeout_s)
        self._losses = losses

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = super().export(spans)
        self._losses.add(0 if result is SpanExportResult.SUCCESS else len(spans))
        return result


class _Logs(OTLPLogExporter):
    def __init__(self, losses: _Losses, endpoint: str, headers: dict[str, str], timeout_s: float) -> None:
        super().__init__(endpoint=endpoint, headers=headers, timeout=timeout_s)
        self._losses = losses

    def export(self, batch: Sequence[ReadableLogRecord]) -> LogRecordExportResult:
        result = super().export(batch)
        self._losses.add(0 if result is LogRecordExportResult.SUCCESS else len(batch))
        return result


class _Sums(OTLPMetricExporter):
    def __init__(self, losses: _Losses, endpoint: str, headers: dict[str, str], timeout_s: float) -> None:
        super().__init__(endpoint=endpoint, headers=headers, timeout=timeout_s)
        self._losses = losses

    def export(
        self,
        metrics_data: MetricsData,
        timeout_millis: float | None = 10_000,
        **kwargs: Any,  # noqa: ANN401 - the SDK's own signature
    ) -> MetricExportResult:
        result = super().export(metrics_data, timeout_millis, **kwargs)
        self._losses.add(result is not MetricExportResult.SUCCESS)
        return result
