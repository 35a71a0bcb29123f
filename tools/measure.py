"""Prints the figures of docs/benchmarks.md for the user who runs it, as a Markdown table.

    python tools/measure.py                 # about four minutes; run it as root and again as a plain user
    python tools/measure.py --smoke         # a few rounds of everything, to see that it works; not for publishing

Every case is measured in the same run as its peers, in turn, so that a busy moment meets all of them; medians are
compared. It starts thousands of short processes and measures nothing else: leave the machine alone meanwhile.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import kavach

if TYPE_CHECKING:
    from collections.abc import Callable

COMMANDS = {"/bin/true": ["/bin/true"], "sh -c 'echo hi'": ["sh", "-c", "echo hi"]}
BWRAP = ["bwrap", "--unshare-all", "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev"]
IN_FLIGHT = 8


class Row(NamedTuple):
    """One line of the table."""

    case: str
    value: str
    beside: str
    goal: str


class Size(NamedTuple):
    """How much is measured."""

    rounds: int
    starts: int
    runs: int
    standing: int


FULL = Size(rounds=400, starts=40, runs=2000, standing=500)
SMOKE = Size(rounds=3, starts=2, runs=16, standing=4)


def measure(size: Size) -> list[Row]:
    """Return every row, in the order of the table."""
    has_bwrap = shutil.which(BWRAP[0]) is not None and _run([*BWRAP, "/bin/true"])
    rows: list[Row] = []
    for name, argv in COMMANDS.items():
        rows += _single(name, argv, size.rounds, has_bwrap=has_bwrap)
    rows += _many(size.runs, has_bwrap=has_bwrap)
    rows += _standing(size.standing)
    rows += _starts(size.starts)
    return rows


def _single(name: str, argv: list[str], rounds: int, *, has_bwrap: bool) -> list[Row]:
    """Time one command at a time: bare, by bubblewrap, and by each way of ours."""
    with kavach.Sandbox(policy="strict") as cold, kavach.Sandbox(policy="strict") as warm:
        ways: dict[str, Callable[[], object]] = {"bare": lambda: _run(argv)}
        if has_bwrap:
            ways["bwrap"] = lambda: _run([*BWRAP, *argv])
        ways["cold"] = lambda: cold.exec(argv).raise_for_status()
        ways["warm"] = lambda: warm.exec(argv).raise_for_status()
        ways["whole"] = lambda: kavach.run(argv, policy="strict").raise_for_status()
        taken: dict[str, list[float]] = {way: [] for way in ways}
        for turn in range(rounds + 2):
            for way, act in ways.items():
                if way == "warm":
                    warm.prewarm()
                spent = _timed(act)
                if turn >= 2:  # the first two start launchers and fill caches
                    taken[way].append(spent)
    ms = {way: statistics.median(spent) * 1000 for way, spent in taken.items()}
    extra = f", +{ms['cold'] - ms['bare']:.2f} ms"
    return [
        Row(f"{name}: subprocess.run", f"{ms['bare']:.2f} ms", "1.00x subprocess", ""),
        *([Row(f"{name}: bubblewrap", f"{ms['bwrap']:.2f} ms", _beside(ms, "bwrap"), "")] if has_bwrap else []),
        Row(f"{name}: exec in a sandbox", f"{ms['cold']:.2f} ms", _beside(ms, "cold") + extra, "1.0x bwrap, +1.0 ms"),
        Row(f"{name}: create, exec, destroy", f"{ms['whole']:.2f} ms", _beside(ms, "whole"), "1.3x bwrap"),
        Row(f"{name}: warm claim, exec", f"{ms['warm']:.2f} ms", _beside(ms, "warm"), "2.0x subprocess"),
    ]


def _many(runs: int, *, has_bwrap: bool) -> list[Row]:
    """Count runs a second, eight in flight; each run creates and destroys its sandbox."""
    ways: dict[str, Callable[[], object]] = {"bwrap": lambda: _run([*BWRAP, "/bin/true"])} if has_bwrap else {}
    ways["kavach.run"] = lambda: kavach.run(["/bin/true"], policy="strict").raise_for_status()
    rates = {}
    for way, act in ways.items():
        rates[way] = runs / _timed(lambda act=act: _at_once(act, runs))
    ratio = f"{rates['kavach.run'] / rates['bwrap']:.2f}x bwrap" if has_bwrap else ""
    beside = {"bwrap": ("bubblewrap", "1.00x bwrap", ""), "kavach.run": ("kavach.run", ratio, "1.5x bwrap")}
    return [
        Row(f"{IN_FLIGHT} in flight: {beside[way][0]}", f"{rate:.0f} runs/s", *beside[way][1:])
        for way, rate in rates.items()
    ]


def _at_once(act: Callable[[], object], runs: int) -> None:
    with ThreadPoolExecutor(IN_FLIGHT) as threads:
        for started in [threads.submit(act) for _ in range(runs)]:
            started.result()


def _standing(count: int) -> list[Row]:
    """Let many sandboxes stand, each after one command, and weigh their inits."""
    kavach.run(["true"], policy="strict").raise_for_status()  # the launcher itself is not what is weighed
    before = _available_bytes()
    with ExitStack() as all_of_them:
        for _ in range(count):
            sandbox = all_of_them.enter_context(kavach.Sandbox(policy="strict"))
            sandbox.exec(["/bin/true"]).raise_for_status()
        inits = [init for launcher in _children(os.getpid()) for init in _children(launcher)]
        private = [size for init in inits if (size := _private_bytes(init)) is not None]
        whole = (before - _available_bytes()) / count / (1 << 20)
    if private:
        shown, seen = f"{statistics.median(private) / (1 << 20):.2f} MiB", f"{len(private)} inits seen"
    else:
        shown, seen = "not readable", "needs root: init is not dumpable"
    return [
        Row(f"{count} standing: private memory each", shown, seen, "2 MiB"),
        Row(f"{count} standing: memory of the host each", f"{whole:.2f} MiB", "MemAvailable, kernel included", ""),
    ]


def _starts(count: int) -> list[Row]:
    """Time whole processes: the interpreter, the import, the command line."""
    python = [sys.executable]
    command = shutil.which("kavach", path=f"{os.path.dirname(sys.executable)}:{os.environ.get('PATH', os.defpath)}")
    ways = {"bare": [*python, "-c", "pass"], "import": [*python, "-c", "import kavach"]}
    if command is not None and _run([command, "run", "--no-record", "--", "true"]):
        ways["run"] = [command, "run", "--no-record", "--", "true"]
    taken: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(count):
        for way, argv in ways.items():
            taken[way].append(_timed(lambda argv=argv: _run(argv)))
    ms = {way: statistics.median(spent) * 1000 for way, spent in taken.items()}
    more = f"+{ms['import'] - ms['bare']:.0f} ms over python -c pass"
    shown = f"{ms['run']:.0f} ms" if "run" in ms else "does not run here"
    return [
        Row("import kavach", f"{ms['import']:.0f} ms", more, "+45 ms"),
        Row("kavach run -- true", shown, "whole process", "150 ms"),
    ]


def _timed(act: Callable[[], object]) -> float:
    started = time.perf_counter()
    act()
    return time.perf_counter() - started


def _run(argv: list[str]) -> bool:
    return subprocess.run(argv, capture_output=True, check=False).returncode == 0


def _beside(ms: dict[str, float], way: str) -> str:
    peers = {"subprocess": "bare", "bwrap": "bwrap"}
    return ", ".join(f"{ms[way] / ms[peer]:.2f}x {name}" for name, peer in peers.items() if peer in ms and peer != way)


def _children(pid: int) -> list[int]:
    found = []
    for task in os.listdir(f"/proc/{pid}/task"):
        found += [int(word) for word in Path(f"/proc/{pid}/task/{task}/children").read_text(encoding="ascii").split()]
    return found


def _private_bytes(pid: int) -> int | None:
    """Return what only this process holds; None where it may not be looked at."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(("Private_Clean:", "Private_Dirty:")))


def _available_bytes() -> int:
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))


def main() -> None:
    """Measure and print."""
    # 500 sandboxes stand at once, each with a handful of descriptors.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="a few rounds of everything, to see that it works")
    size = SMOKE if parser.parse_args().smoke else FULL
    rows = measure(size)
    who = "root" if os.geteuid() == 0 else "a plain user"
    limits = kavach.run(["true"], policy="strict").enforcement["limits"]
    cores = len(os.sched_getaffinity(0))
    print(f"As {who}, limits by {limits.detail}; Linux {platform.release()}, Python {platform.python_version()},")
    print(f"{cores} cores, kavach {kavach.__version__}, {size.rounds} rounds, {size.runs} runs in flight\n")
    print("| case | median | beside | goal |\n|---|---|---|---|")
    for row in rows:
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
