"""`kavach top`: the sandboxes of this user on this host, live, with what each uses.

Guarantees: figures are the kernel's, read by this command itself from cgroups or /proc; the column `counted by` says
which. Sees the sandboxes of `kavach run` and of every process that keeps a `StatusFile`; others it cannot name, and
says nothing of. Does not: write anything. May be called by: kavach.cli. Exit code: 0.
"""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from kavach.audit.sinks.status import read_status_files
from kavach.audit.usage import measure
from kavach.cli.status import status_folder
from kavach.cli.streams import STDOUT, is_terminal, write_json, write_table, write_text
from kavach.cli.words import Parser, seconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kavach.audit.sinks.status import SandboxStatus
    from kavach.audit.usage import SandboxUsage

SCHEMA = "kavach.top/1"
_HEAD = (
    *("sandbox", "state", "wall", "policy", "score", "cpu %", "cpu s", "memory", "peak", "pids"),
    *("read", "written", "commands", "failed", "withheld", "age", "agent", "counted by"),
)
_CLEAR = "\x1b[H\x1b[2J"
_SHORTEST_S = 0.2


class Look(NamedTuple):
    """One sandbox at one moment."""

    host_pid: int
    status: SandboxStatus
    usage: SandboxUsage | None
    at_s: float
    cpu_percent: float | None


def main(argv: Sequence[str]) -> int:
    """Show the sandboxes until interrupted, once where standard output is no terminal; see the module."""
    parser = Parser("kavach top", "Show this user's sandboxes and what each uses.")
    parser.add_argument("--interval", type=seconds, default=1.0, metavar="S", help="seconds between looks (default: 1)")
    parser.add_argument("--once", action="store_true", help="look once, also on a terminal")
    parser.add_argument("--json", action="store_true", help="print one look as one line of JSON")
    options = parser.parse_args(argv)
    folder, pause_s = status_folder(os.environ), max(_SHORTEST_S, options.interval or 1.0)
    if options.json or options.once or not is_terminal(STDOUT):
        before = look(folder, ())
        time.sleep(_SHORTEST_S if before else 0)
        _show(look(folder, before), as_json=options.json)
        return 0
    seen: list[Look] = []
    try:
        while True:
            seen = look(folder, seen)
            write_text(_CLEAR)
            _show(seen, as_json=False)
            time.sleep(pause_s)
    except KeyboardInterrupt:
        return 0


def look(folder: str, before: Sequence[Look]) -> list[Look]:
    """Return what is there now.

    Args:
        folder: of the status files.
        before: what the last look has seen; a share of the processor is over the time since then.

    Raises:
        ConfigError: others than its owner may write to the folder.
    """
    earlier = {one.status.id: one for one in before}
    found = []
    for host in read_status_files(folder):
        for status in host.sandboxes:
            usage = None if status.pid is None else measure(status.pid, status.id)
            now = Look(host.pid, status, usage, time.monotonic(), None)
            found.append(now._replace(cpu_percent=_percent(earlier.get(status.id), now)))
    return found


def _percent(before: Look | None, now: Look) -> float | None:
    """Return the share of one processor since the look before."""
    used = [None if one is None or one.usage is None else one.usage.cpu_time_ms for one in (before, now)]
    if before is None or used[0] is None or used[1] is None:
        return None
    return max(0.0, (used[1] - used[0]) / max(1e-3, now.at_s - before.at_s) / 10)


def _show(seen: list[Look], *, as_json: bool) -> None:
    if as_json:
        write_json({"schema": SCHEMA, "sandboxes": [_plain(one) for one in seen]})
        return
    if is_terminal(STDOUT):
        running = sum(one.status.state == "running" for one in seen)
        hosts = len({one.host_pid for one in seen})
        write_text(
            f"{_now().strftime('%H:%M:%S')} UTC  {len(seen)} sandboxes of {hosts} processes, {running} running\n\n"
        )
    write_table(_HEAD, [_row(one) for one in seen])


def _plain(one: Look) -> dict[str, Any]:
    import msgspec

    usage = None if one.usage is None else one.usage._asdict()
    return {
        **msgspec.to_builtins(one.status),
        "host_pid": one.host_pid,
        "cpu_percent": None if one.cpu_percent is None else round(one.cpu_percent, 1),
        "usage": usage,
    }


def _row(one: Look) -> tuple[object, ...]:
    status, usage = one.status, one.usage
    cpu_s = None if usage is None or usage.cpu_time_ms is None else usage.cpu_time_ms / 1000
    age_s = (_now() - datetime.fromisoformat(status.created_utc)).total_seconds()
    return (
        *(status.id, status.state, status.backend, status.policy, _or_dash(status.score)),
        *(_or_dash(one.cpu_percent, "{:.0f}"), _or_dash(cpu_s, "{:.2f}")),
        *(_bytes(usage and usage.memory_bytes), _bytes(usage and usage.memory_peak_bytes)),
        _or_dash(usage and usage.pids),
        *(_bytes(usage and usage.io_read_bytes), _bytes(usage and usage.io_write_bytes)),
        *(status.commands, status.failures, status.withheld, f"{age_s:.0f}s"),
        *(status.agent_id or "-", usage.source if usage is not None else "-"),
    )


def _or_dash(value: float | None, form: str = "{}") -> str:
    return "-" if value is None else form.format(value)


def _bytes(count: int | None) -> str:
    if count is None:
        return "-"
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"


def _now() -> datetime:
    return datetime.now(UTC)
