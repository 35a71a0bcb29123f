"""Make the map that `launcher_trace` writes, and turn what was written into coverage.py's own data.

    python tools/tracing/arc_map.py create    # before the suite: nothing is measured while the map is missing
    python tools/tracing/arc_map.py collect   # after it: writes .coverage.launcher, removes the map

Each file of the jail has a square of bytes, one for each pair (previous line, line) from -lines to +lines. The file is
sparse; a byte is only ever set, so every process of the suite may write to the one map at once.
"""

from __future__ import annotations

import sys
from pathlib import Path

from coverage import CoverageData
from coverage.exceptions import CoverageException

ROOT = Path(__file__).resolve().parents[2]
MAP = ROOT / ".coverage-arcs"
INDEX = ROOT / ".coverage-arcs.index"
TRACED = ("launcher/*.py", "linux/*.py", "__init__.py")


def create() -> None:
    """Write an empty map and the index of its squares: path, offset, lines."""
    rows, offset = [], 0
    for path in sorted(path for pattern in TRACED for path in (ROOT / "src/kavach").glob(pattern)):
        lines = len(path.read_bytes().splitlines()) + 1
        rows.append(f"{path}\t{offset}\t{lines}\n")
        offset += (2 * lines + 1) ** 2
    INDEX.write_text("".join(rows), encoding="utf-8")
    with MAP.open("wb") as file:
        file.truncate(offset)
    MAP.chmod(0o666)  # a test's host process may run under another user's id


def collect() -> None:
    """Write every arc that was set as coverage data, beside that of the host processes."""
    cells = MAP.read_bytes()
    arcs: dict[str, list[tuple[int, int]]] = {}
    for row in INDEX.read_text(encoding="utf-8").splitlines():
        name, offset, lines = row.split("\t")[0], *map(int, row.split("\t")[1:])
        width = 2 * lines + 1
        square = cells[offset : offset + width**2]
        arcs[name] = [(at // width - lines, at % width - lines) for at, cell in enumerate(square) if cell]
    data = CoverageData(basename=str(ROOT / ".coverage.launcher"))
    data.erase()
    data.add_arcs({name: found for name, found in arcs.items() if found})
    data.write()
    MAP.unlink()
    INDEX.unlink()
    _drop_broken()


def _drop_broken() -> None:
    """Remove data that a killed process left half written: the tests that kill hosts do so at any instant."""
    for path in ROOT.glob(".coverage.*"):
        try:
            CoverageData(basename=str(path)).read()
        except CoverageException:
            path.unlink()


if __name__ == "__main__":
    {"create": create, "collect": collect}[sys.argv[1]]()
