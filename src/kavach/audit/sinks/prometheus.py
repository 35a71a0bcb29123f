"""Metrics -> the text that Prometheus scrapes (text exposition format 0.0.4).

Guarantees: what is unknown is left out, never 0; label values are escaped. Does not: serve it; put it behind your own
web server. Pure. May be called by: users, kavach.cli.
"""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING

from kavach.audit.metrics import BUCKETS_S

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from kavach.audit.metrics import Histogram, ProcessMetrics
    from kavach.audit.usage import SandboxUsage

__all__ = ["CONTENT_TYPE", "prometheus_text"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""What to serve it as (prometheus.io/docs/instrumenting/exposition_formats)."""

#: Field of ProcessMetrics -> metric, its label, kind, what it is.
_COUNTS = (
    ("sandboxes", "kavach_sandboxes", "state", "gauge", "Sandboxes of this process by state; destroyed ones so far."),
    ("commands", "kavach_commands_total", "reason", "counter", "Ended commands by what ended them."),
    ("verdicts", "kavach_verdicts_total", "verdict", "counter", "Verdicts of the gate."),
    ("denials", "kavach_denials_total", "control", "counter", "What walls refused, where it was observed."),
    ("limits", "kavach_limits_hit_total", "limit", "counter", "Limits whose counters rose."),
)
#: Field of SandboxUsage -> metric, factor, kind, what it is.
_USAGE = (
    ("cpu_time_ms", "kavach_sandbox_cpu_seconds_total", 0.001, "counter", "Processor time, user and system."),
    ("memory_bytes", "kavach_sandbox_memory_bytes", 1, "gauge", "Memory now."),
    ("memory_peak_bytes", "kavach_sandbox_memory_peak_bytes", 1, "gauge", "The most memory at one moment."),
    ("pids", "kavach_sandbox_pids", 1, "gauge", "Processes now."),
    ("io_read_bytes", "kavach_sandbox_io_read_bytes_total", 1, "counter", "Read from block devices."),
    ("io_write_bytes", "kavach_sandbox_io_write_bytes_total", 1, "counter", "Written to block devices."),
)


def prometheus_text(process: ProcessMetrics, sandboxes: Mapping[str, SandboxUsage] | None = None) -> str:
    """Return the metrics of this process, and of its sandboxes.

    Args:
        process: of `kavach.audit.metrics.PROCESS.snapshot()`.
        sandboxes: by id, what each uses (`kavach.audit.usage.measure`); each adds series, so leave out short ones.
    """
    lines = [*_process(process), *_steps(process.steps), *_sandboxes(sandboxes or {})]
    return "".join(f"{line}\n" for line in lines)


def _process(found: ProcessMetrics) -> Iterator[str]:
    for field, name, label, kind, about in _COUNTS:
        yield from _head(name, kind, about)
        for key, count in sorted(getattr(found, field).items()):
            yield f"{name}{_labels({label: key})} {count}"
    yield from _head("kavach_pool_claims_total", "counter", "Claims of pools: a hit got a warm sandbox.")
    yield f"kavach_pool_claims_total{_labels({'result': 'hit'})} {found.pool_hits}"
    yield f"kavach_pool_claims_total{_labels({'result': 'miss'})} {found.pool_misses}"
    yield from _head(
        "kavach_orphans_swept_total", "counter", "What earlier processes left behind and this one removed."
    )
    yield f"kavach_orphans_swept_total {found.orphans_swept}"


def _steps(steps: Mapping[str, Histogram]) -> Iterator[str]:
    name = "kavach_step_duration_seconds"
    yield from _head(name, "histogram", "Time of each step of a command, and of all of them: total.")
    for step, found in sorted(steps.items()):
        sums = list(accumulate(found.counts))
        for bound, count in zip([*map(str, BUCKETS_S), "+Inf"], sums, strict=True):
            yield f"{name}_bucket{_labels({'step': step, 'le': bound})} {count}"
        yield f"{name}_sum{_labels({'step': step})} {found.sum_s}"
        yield f"{name}_count{_labels({'step': step})} {sums[-1]}"


def _sandboxes(found: Mapping[str, SandboxUsage]) -> Iterator[str]:
    for field, name, factor, kind, about in _USAGE if found else ():
        yield from _head(name, kind, about)
        for sandbox_id, usage in sorted(found.items()):
            if (value := getattr(usage, field)) is not None:
                yield f"{name}{_labels({'sandbox': sandbox_id, 'source': usage.source})} {value * factor}"


def _head(name: str, kind: str, about: str) -> Iterable[str]:
    return f"# HELP {name} {about}", f"# TYPE {name} {kind}"


def _labels(pairs: Mapping[str, str]) -> str:
    return "{" + ",".join(f'{name}="{_escape(value)}"' for name, value in pairs.items()) + "}"


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
