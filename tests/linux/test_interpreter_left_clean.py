"""What a run leaves in the interpreter: no cycle for the collector, no warning at its end, no thread inside a scanner."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

pytestmark = [pytest.mark.needs("linux"), pytest.mark.userns, pytest.mark.seccomp]
DEADLINE_S = 60


def interpret(body, *options):
    argv = [sys.executable, "-B", *options, "-c", textwrap.dedent(body)]
    return subprocess.run(argv, capture_output=True, text=True, timeout=DEADLINE_S, cwd="/")


def test_a_run_leaves_no_cycle_for_the_collector():
    done = interpret("""
        import gc, kavach
        def run():
            assert kavach.run(["true"], policy="strict").ok
        for _ in range(3):
            run()
        gc.collect()
        gc.disable()
        run()
        print(gc.collect())
    """)
    assert (done.stdout, done.stderr) == ("0\n", "")


def test_a_launcher_that_is_collected_at_the_interpreters_end_warns_of_nothing():
    # What is registered first runs last.
    body = """
        import atexit, gc
        def collect():
            from kavach.launcher import client
            client._shared = None
            gc.collect()
        atexit.register(collect)
        import kavach
        print(kavach.run(["echo", "x"]).stdout, end="")
    """
    done = interpret(body, "-X", "dev", "-W", "error")
    assert (done.returncode, done.stdout, done.stderr) == (0, "x\n", "")


@pytest.mark.parametrize("delay_ms", [50, 150, 300, 600, 1000])
def test_an_interpreter_that_ends_while_output_is_read_ends_as_it_says(delay_ms):
    """The thread that reads a spawned command's output is inside the engines, which Python must not stop there."""
    done = interpret(f"""
        import time, kavach
        sandbox = kavach.Sandbox(policy="strict").__enter__()
        process = sandbox.spawn(["sh", "-c", "while :; do echo some words and 12345 numbers; done"])
        time.sleep({delay_ms} / 1000)
        print(process._thread.is_alive())
        raise SystemExit(3)
    """)
    assert (done.returncode, done.stdout, done.stderr) == (3, "True\n", "")
