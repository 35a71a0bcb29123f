"""`kavach bench`: how long the wall takes, beside `subprocess.run` and bubblewrap, in one run and as ratios.

Guarantees: peers are timed in turn with the wall, so that a busy moment meets all of them; medians are compared.
Does not: judge the figures, or count bubblewrap where it does not work. May be called by: kavach.cli.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from kavach.backends import require_platform
from kavach.cli.streams import Progress, say, write_json, write_table
from kavach.cli.words import Parser, whole_number
from kavach.errors import BackendError, KavachError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

TRUE = ["/bin/true"]
BWRAP = ["bwrap", "--unshare-all", "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", *TRUE]
IN_FLIGHT = 8
BATCHES = 4
STARTS = 5
_DEADLINE_S = 300.0
#: Times the peers in an interpreter of their own: argv = how many runs, how many at once, the program.
_PEER = """
import subprocess, sys, time
from concurrent.futures import ThreadPoolExecutor
count, at_once, argv = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
def once(_):
    started = time.perf_counter()
    subprocess.run(argv, capture_output=True, check=True)
    return time.perf_counter() - started
once(0)
started = time.perf_counter()
with ThreadPoolExecutor(at_once) as threads:
    spent = [once(0) for _ in range(count)] if at_once == 1 else list(threads.map(once, range(count)))
print(time.perf_counter() - started, *spent)
"""


class Row(NamedTuple):
    """One figure.

    Args:
        case: what was timed.
        ms: the median of one run; of runs in flight, wall clock divided by their number.
        beside_subprocess: how many times `subprocess.run`; of runs in flight, none.
        beside_bwrap: how many times bubblewrap, None where it does not work.
    """

    case: str
    ms: float
    beside_subprocess: float | None
    beside_bwrap: float | None


def main(argv: Sequence[str]) -> int:
    """Time and print; see the module.

    Raises:
        KavachError: the strict wall does not stand here.
    """
    parser = Parser("kavach bench", "Time the strict wall beside subprocess.run and bubblewrap; lower is better.")
    parser.add_argument("--runs", type=whole_number(1, 10_000), default=40, metavar="N", help="runs a case (40)")
    parser.add_argument("--json", action="store_true", help="print the figures as one line of JSON")
    options = parser.parse_args(argv)
    require_platform()
    rows = [*measure(options.runs), *measure_starts(min(options.runs, STARTS))]
    if options.json:
        write_json({"schema": "kavach.bench/1", "runs": options.runs, "rows": [row._asdict() for row in rows]})
        return 0
    write_table(
        ("case", "ms", "beside subprocess.run", "beside bubblewrap"),
        [(row.case, f"{row.ms:.2f}", _ratio(row.beside_subprocess), _ratio(row.beside_bwrap)) for row in rows],
    )
    if all(row.beside_bwrap is None for row in rows):
        say("bubblewrap does not work here, so nothing is compared with it")
    return 0


def measure(runs: int) -> list[Row]:
    """Return the figures of single runs and of runs in flight.

    Raises:
        KavachError: the strict wall does not stand here.
    """
    from kavach import Sandbox, run

    progress = Progress()
    taken: dict[str, list[float]] = {}
    flight: dict[str, list[float]] = {}
    has_bwrap = _try_peer(BWRAP)
    batch = -(-runs // BATCHES)
    with Sandbox(policy="strict") as cold, Sandbox(policy="strict") as warm:
        for box in (cold, warm):
            box.exec(TRUE).raise_for_status()
        ways: dict[str, Callable[[], list[float]]] = {
            "subprocess.run": lambda: _peer(TRUE, batch, 1)[1],
            **({"bubblewrap": lambda: _peer(BWRAP, batch, 1)[1]} if has_bwrap else {}),
            "exec in a standing sandbox": lambda: [_timed(lambda: cold.exec(TRUE)) for _ in range(batch)],
            "warm exec": lambda: [_warm(warm) for _ in range(batch)],
            "create, exec, destroy": lambda: [_timed(lambda: run(TRUE, policy="strict")) for _ in range(batch)],
        }
        flights: dict[str, Callable[[], float]] = {
            **({"bubblewrap": lambda: _peer(BWRAP, IN_FLIGHT * batch, IN_FLIGHT)[0]} if has_bwrap else {}),
            "create, exec, destroy": lambda: _flight(IN_FLIGHT * batch),
        }
        for turn in range(BATCHES):
            for name, way in ways.items():
                progress(f"{name} ({turn + 1}/{BATCHES})")
                taken.setdefault(name, []).extend(way())
            for name, together in flights.items():
                progress(f"{name}, {IN_FLIGHT} in flight ({turn + 1}/{BATCHES})")
                flight.setdefault(name, []).append(together() / (IN_FLIGHT * batch))
    progress("")
    single = {name: statistics.median(spent) * 1000 for name, spent in taken.items()}
    shared = {name: statistics.median(spent) * 1000 for name, spent in flight.items()}
    rows = [Row(name, ms, ms / single["subprocess.run"], _beside(ms, single)) for name, ms in single.items()]
    rows += [Row(f"{IN_FLIGHT} in flight: {name}", ms, None, _beside(ms, shared)) for name, ms in shared.items()]
    return rows


def measure_starts(starts: int) -> list[Row]:
    """Return the figures of whole processes: the interpreter, the import, `kavach run -- true`."""
    from kavach import runtimes

    python = [sys.executable, "-B"] if sys.dont_write_bytecode else [sys.executable]
    ways = {
        "python -c pass": [*python, "-c", "pass"],
        "python -c 'import kavach'": [*python, "-c", "import kavach"],
        "kavach run -- true": [*python, "-m", "kavach", "run", "--", "true"],
    }
    env = {**runtimes.CLEAN_ENVIRONMENT, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(starts + 1):
        for name, argv in ways.items():
            started = time.perf_counter()
            runtimes.run(argv, timeout_s=_DEADLINE_S, env=env)
            spent = time.perf_counter() - started
            if turn:  # the first fills caches
                taken[name].append(spent)
    return [Row(name, statistics.median(spent) * 1000, None, None) for name, spent in taken.items()]


def _peer(argv: Sequence[str], runs: int, at_once: int) -> tuple[float, list[float]]:
    """Return (wall clock of all, each run's) of a peer, timed by an interpreter of its own."""
    from kavach import runtimes

    words = [sys.executable, "-I", "-S", "-c", _PEER, str(runs), str(at_once), *argv]
    done = runtimes.run(words, timeout_s=_DEADLINE_S)
    if done.returncode != 0:
        raise BackendError(f"{argv[0]} could not be timed", runtime=argv[0], stderr_tail=done.stderr_tail)
    whole, *each = (float(word) for word in done.stdout.split())
    return whole, each


def _try_peer(argv: Sequence[str]) -> bool:
    try:
        _peer(argv, 1, 1)
    except KavachError:
        return False
    return True


def _flight(runs: int) -> float:
    from concurrent.futures import ThreadPoolExecutor

    from kavach import run

    with ThreadPoolExecutor(IN_FLIGHT) as threads:
        return _timed(lambda: list(threads.map(lambda _: run(TRUE, policy="strict").raise_for_status(), range(runs))))


def _warm(sandbox: Any) -> float:  # noqa: ANN401 - a Sandbox, which is imported late
    sandbox.prewarm()
    return _timed(lambda: sandbox.exec(TRUE))


def _timed(act: Callable[[], object]) -> float:
    started = time.perf_counter()
    act()
    return time.perf_counter() - started


def _beside(ms: float, peers: dict[str, float]) -> float | None:
    return ms / peers["bubblewrap"] if "bubblewrap" in peers else None


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}x"
