"""The tracer of the jail records what coverage.py would have recorded, and what it never could: after a fork."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from coverage import CoverageData

TRACING = Path(__file__).parents[2] / "tools/tracing"
SAMPLE = """
import contextlib
import os


def count(limit):
    for number in range(limit):
        if number == 2:
            continue
        yield number
    return "end"


@contextlib.contextmanager
def opened():
    try:
        yield 1
    finally:
        os.getpid()


class Thing:
    word = "x"

    def act(self, fail):
        try:
            if fail:
                raise ValueError("no")
        except ValueError as error:
            return str(error)
        else:
            return [one * 2 for one in count(4) if one != 1]


async def awaited():
    return 3


def run():
    thing = Thing()
    with opened() as one, opened():
        seen = [thing.act(True), thing.act(False), one]
    while seen:
        seen.pop()
    assert sum(
        number
        for number in count(3)
    ) == 1
    try:
        awaited().send(None)
    except StopIteration as stop:
        return stop.value
    return None


run()
"""
FORKS = """
import os


def inside():
    os._exit(0 if os.getppid() else 1)


pid = os.fork()
if pid == 0:
    inside()
os.waitpid(pid, 0)
"""


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """Return (the arc map's module, a function that runs a file of the jail under the tracer and returns its arcs)."""
    spec = importlib.util.spec_from_file_location("arc_map", TRACING / "arc_map.py")
    arc_map = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(arc_map)
    folder = tmp_path / "src/kavach/linux"
    folder.mkdir(parents=True)
    for name, value in {"ROOT": tmp_path, "MAP": tmp_path / "map", "INDEX": tmp_path / "map.index"}.items():
        monkeypatch.setattr(arc_map, name, value)

    def run(source):
        path = folder / "sample.py"
        path.write_text(source)
        arc_map.create()
        begin = f"import sys; sys.path[:0] = [{str(TRACING)!r}]; import launcher_trace, runpy; "
        begin += f"launcher_trace.start({str(tmp_path / 'map')!r}); runpy.run_path({str(path)!r})"
        subprocess.run([sys.executable, "-I", "-S", "-c", begin], check=True, timeout=60)
        arc_map.collect()
        data = CoverageData(basename=str(tmp_path / ".coverage.launcher"))
        data.read()
        return path, set(data.arcs(str(path)))

    return arc_map, run


def test_arcs_are_those_that_coverage_py_records_itself(tree, tmp_path):
    path, arcs = tree[1](SAMPLE)
    config = tmp_path / "rc"
    config.write_text(f"[run]\nbranch = true\ninclude = {path}\ndata_file = {tmp_path}/own\n")
    (tmp_path / "main.py").write_text(f"import runpy; runpy.run_path({str(path)!r})")
    words = [sys.executable, "-m", "coverage", "run", f"--rcfile={config}", str(tmp_path / "main.py")]
    subprocess.run(words, check=True, timeout=60, env={"COVERAGE_CORE": "ctrace"})
    own = CoverageData(basename=str(tmp_path / "own"))
    own.read()
    assert arcs == set(own.arcs(str(path)))
    assert len(arcs) > 40


def test_process_that_ends_without_a_word_has_left_its_arcs(tree):
    _, arcs = tree[1](FORKS)
    first = FORKS.splitlines().index("def inside():") + 1
    assert (-first, first + 1) in arcs


def test_map_and_index_are_gone_when_the_arcs_are_collected(tree, tmp_path):
    tree[1]("x = 1\n")
    assert not (tmp_path / "map").exists()
    assert not (tmp_path / "map.index").exists()


def test_data_that_a_killed_process_left_half_written_is_dropped(tree, tmp_path):
    (tmp_path / ".coverage.vm.pid1.broken").write_bytes(b"SQLite format 3\0 and no more")
    tree[1]("x = 1\n")
    assert [path.name for path in tmp_path.glob(".coverage.*")] == [".coverage.launcher"]
