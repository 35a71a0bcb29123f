"""How fast the wall is, beside what it replaces: each group is one table with ratios to its fastest row.

Nothing here asserts a time. `make bench` runs it; every other run skips it (--benchmark-skip). For figures worth
publishing use tools/measure.py, which takes the cases in turn.
"""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

import kavach

BWRAP = ("bwrap", "--unshare-all", "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev")
COMMANDS = {"true": ["/bin/true"], "echo": ["sh", "-c", "echo hi"]}
EXPECTED = {"true": b"", "echo": b"hi\n"}
IN_FLIGHT = 8
RUNS = 16
WARM_ROUNDS = 50

pytestmark = pytest.mark.needs("linux", "userns")


@pytest.fixture(scope="module")
def sandbox():
    with kavach.Sandbox(policy="strict", min_score=60) as standing:
        yield standing


@pytest.fixture(params=list(COMMANDS))
def command(request, benchmark):
    benchmark.group = f"one command: {request.param}"
    return request.param


def bare(argv):
    done = subprocess.run(argv, capture_output=True)
    assert done.returncode == 0
    return done.stdout


def ours(result):
    assert result.ok
    return result.stdout_bytes


def test_subprocess_runs_a_command(benchmark, command):
    assert benchmark(bare, COMMANDS[command]) == EXPECTED[command]


@pytest.mark.needs("bwrap")
def test_bubblewrap_runs_a_command(benchmark, command):
    assert benchmark(bare, [*BWRAP, *COMMANDS[command]]) == EXPECTED[command]


def test_standing_sandbox_runs_a_command_cold(benchmark, command, sandbox):
    assert benchmark(lambda: ours(sandbox.exec(COMMANDS[command]))) == EXPECTED[command]


def test_standing_sandbox_runs_a_command_warm(benchmark, command, sandbox):
    # Pedantic mode, which alone has a setup, does not read the options that size a run.
    run = benchmark.pedantic(lambda: ours(sandbox.exec(COMMANDS[command])), setup=sandbox.prewarm, rounds=WARM_ROUNDS)
    assert run == EXPECTED[command]


def test_sandbox_is_made_runs_a_command_and_is_destroyed(benchmark, command):
    assert benchmark(lambda: ours(kavach.run(COMMANDS[command], policy="strict"))) == EXPECTED[command]


@pytest.mark.benchmark(group=f"{RUNS} runs of true, {IN_FLIGHT} in flight")
@pytest.mark.needs("bwrap")
def test_bubblewrap_runs_many_commands_at_once(benchmark):
    _in_flight(benchmark, lambda _: bare([*BWRAP, "/bin/true"]))


@pytest.mark.benchmark(group=f"{RUNS} runs of true, {IN_FLIGHT} in flight")
def test_kavach_runs_many_commands_at_once(benchmark):
    _in_flight(benchmark, lambda _: ours(kavach.run(["/bin/true"], policy="strict")))


@pytest.mark.benchmark(group="whole process")
def test_bare_interpreter_starts(benchmark):
    benchmark(bare, [sys.executable, "-c", "pass"])


@pytest.mark.benchmark(group="whole process")
def test_interpreter_imports_kavach(benchmark):
    benchmark(bare, [sys.executable, "-c", "import kavach"])


@pytest.mark.benchmark(group="whole process")
def test_command_line_runs_true(benchmark):
    code = "import sys; sys.argv = ['kavach', 'run', '--no-record', '--', 'true']; from kavach.cli import main; sys.exit(main())"
    benchmark(bare, [sys.executable, "-c", code])


@pytest.mark.benchmark(group="judging one result")
def test_result_is_scored(benchmark, sandbox):
    enforcement = sandbox.exec(["true"]).enforcement
    assert benchmark(kavach.scoring.score_enforcement, enforcement) >= 60


def _in_flight(benchmark, act):
    with ThreadPoolExecutor(IN_FLIGHT) as threads:
        assert len(benchmark(lambda: list(threads.map(act, range(RUNS))))) == RUNS
