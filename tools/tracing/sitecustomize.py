"""Measure every Python that has this folder on PYTHONPATH, and what it starts: only `make coverage` puts it there.

The host processes (pytest, the command line, victims) are measured by coverage.py. What runs under `python -I -S`, the
launcher above all, sees neither PYTHONPATH nor this file: its program is begun with `launcher_trace` instead. Does
nothing while the map is missing, so that a copy of the tree (in a machine, in another user's home) is left alone.
"""

# ruff: noqa: ANN401 - it stands in front of the standard library, whose own types say no more
from __future__ import annotations

import atexit
import functools
import os
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
MAP = ROOT / ".coverage-arcs"
_BEGIN = (
    f"import sys;sys.path.insert(0,{str(ROOT / 'tools/tracing')!r});import launcher_trace;"
    f"launcher_trace.start({str(MAP)!r});del sys.path[0]\n"
)


def _measure() -> None:
    """Start coverage.py in this process; whatever becomes of the working folder, the data land beside the map."""
    from coverage import Coverage

    measured = Coverage(config_file=str(ROOT / "pyproject.toml"), data_file=str(ROOT / ".coverage"), data_suffix=True)
    owner = os.getpid()

    def save() -> None:
        if os.getpid() == owner:
            measured.stop()
            measured.save()

    atexit.register(save)
    measured.start()


def _traced(words: Any) -> Any:
    """Return a command line whose `python -S -c program` records its arcs; every other one as it is."""
    if not isinstance(words, list | tuple) or "-S" not in words:
        return words
    words, flags = list(words), words.index("-S")
    if "-c" not in words[flags:-1]:
        return words
    at = words.index("-c", flags) + 1
    if "kavach" in words[at] and "__future__" not in words[at]:  # nothing may come before that import
        words[at] = _BEGIN + words[at]
    return words


def _wrap_starts() -> None:
    """Let both ways in which a process is started here begin an isolated Python with the tracer."""
    popen, posix_spawn = subprocess.Popen.__init__, os.posix_spawn

    @functools.wraps(popen)
    def start(self: Any, args: Any, *rest: Any, **options: Any) -> None:
        popen(self, _traced(args), *rest, **options)

    @functools.wraps(posix_spawn)
    def spawn(path: Any, argv: Any, *rest: Any, **options: Any) -> int:
        return posix_spawn(path, _traced(argv), *rest, **options)

    subprocess.Popen.__init__ = start  # type: ignore[method-assign]
    os.posix_spawn = spawn


if MAP.exists():
    _measure()
    _wrap_starts()
