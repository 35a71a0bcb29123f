"""What stands in for cgroups, on the real /proc: the watchdog sees memory in each place where it can hide."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

from kavach.launcher import limits, watchdog
from kavach.launcher.limits import LimitSpec

pytestmark = pytest.mark.needs("linux")
MIB = 1 << 20
DEADLINE_S = 30
SPEC = LimitSpec(memory_bytes=64 * MIB, max_pids=6)


@pytest.fixture
def start():
    running = []

    def run(code):
        argv = [
            sys.executable,
            "-I",
            "-S",
            "-c",
            textwrap.dedent(code) + "\nprint('up', flush=True); input()",
        ]
        victim = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        running.append(victim)
        assert victim.stdout.readline() == "up\n"
        return victim

    yield run
    for victim in running:
        victim.communicate("\n", timeout=DEADLINE_S)


def look(victim, **options):
    return watchdog.sample(victim.pid, precise_above_bytes=SPEC.memory_bytes, **options)


def test_a_small_process_is_under_every_limit(start):
    found = look(start(""))
    assert (found.processes, found.tasks, found.is_precise) == (1, 1, False)
    assert watchdog.judge(found, SPEC) == ()


@pytest.mark.parametrize(
    "code",
    [
        "block = bytearray(100 << 20)",
        "import mmap; block = mmap.mmap(-1, 100 << 20); block.write(bytes(100 << 20))",
        "import os; fd = os.memfd_create('x'); os.write(fd, bytes(100 << 20))",
        """
        import os
        r, w = os.pipe()
        if os.fork() == 0:
            block = bytearray(100 << 20)
            os.write(w, b"x")
            os.read(0, 1)
            os._exit(0)
        os.read(r, 1)
        """,
    ],
    ids=["anonymous", "shared", "memfd", "child"],
)
def test_memory_over_the_limit_is_seen_wherever_it_lies(start, code):
    found = look(start(code), count_memfds=True)
    assert found.memory_bytes > 100 * MIB
    assert watchdog.judge(found, SPEC) == ("oom",)


def test_pages_shared_by_forked_children_are_counted_once(start):
    code = """
    import os
    block = bytearray(30 << 20)
    for _ in range(4):
        if os.fork() == 0:
            os.read(0, 1)
            os._exit(0)
    """
    found = look(start(code))
    assert found.is_precise, "resident sizes add up to more than the limit"
    assert (found.processes, found.memory_bytes < SPEC.memory_bytes) == (5, True)


def test_threads_count_towards_the_process_limit(start):
    code = """
    import threading
    halt = threading.Event()
    for _ in range(5):
        threading.Thread(target=halt.wait, daemon=True).start()
    """
    found = look(start(code))
    assert (found.processes, found.tasks) == (1, 6)
    assert watchdog.judge(found, SPEC) == ("pids",)


def test_the_tree_is_the_same_without_children_files(start, monkeypatch):
    victim = start("import os\nif os.fork() == 0:\n    os.read(0, 1)\n    os._exit(0)")
    assert look(victim).processes == 2
    monkeypatch.setattr(watchdog.os.path, "exists", lambda path: not path.endswith("/children"))
    assert look(victim).processes == 2


def test_a_host_whose_hierarchies_are_elsewhere_gets_the_driver_none(tmp_path):
    driver = limits.choose_driver(root=str(tmp_path))
    assert driver.name == "none"
    assert driver.why_not
    assert set(driver.make("sb", SPEC).states.values()) == {"degraded", "not_asked"}
