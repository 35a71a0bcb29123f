"""The quarantine on disks that are full or read-only, and under writers that are killed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kavach.gate.quarantine import QuarantineStore

SOURCE = Path(__file__).resolve().parents[2] / "src"
PROLOGUE = """
import os, sys
from kavach.errors import KavachError
from kavach.gate.quarantine import QuarantineStore
from kavach.model.verdict import Verdict

def put(store, size):
    return store.put({"stdout": b"SECRET" * (size // 6)}, sandbox_id="sb", verdict=Verdict.QUARANTINE, findings=())
"""
# Every test prints what it saw; the sentence stands in the test.
FULL = """
store = QuarantineStore("disk/q")
kept = put(store, 6000)
before = sorted(os.listdir("disk/q"))
try:
    put(store, 6 << 20)
except KavachError as error:
    print("refused:", error, "| hint:", error.hint)
print("left:", sorted(os.listdir("disk/q")) == before, [entry.id == kept for entry in store.entries()])
store.approve(kept, by="Asha")
print("released:", len(store.release(kept, by="Asha")["stdout"]))
"""
FULL_INDEX = """
store = QuarantineStore("disk/q")
while True:
    try:
        with open("disk/filler", "ab", buffering=0) as filler:
            filler.write(b"x" * 512)
    except OSError:
        break
try:
    put(store, 60)
except KavachError as error:
    print("refused:", error)
print("left:", [name for name in os.listdir("disk/q") if name != "index.sqlite"])
os.unlink("disk/filler")
print("entries:", len(store.entries()), "again:", len(put(store, 60)))
"""
READ_ONLY = """
store = QuarantineStore("disk/q")
kept = put(store, 60)
os.system("mount -o remount,bind,ro disk")
for act in (lambda: put(store, 60), lambda: store.approve(kept, by="Asha"), lambda: store.reject(kept, by="Asha")):
    try:
        act()
        print("done")
    except KavachError as error:
        print("refused:", error)
try:
    QuarantineStore("disk/new")
except KavachError as error:
    print("refused:", error)
os.system("mount -o remount,bind,rw disk")
print("state:", store.entry(kept).state, len(os.listdir("disk/q")))
"""


def on_small_disk(tmp_path: Path, script: str) -> str:
    """Run a script whose folder `disk` is a filesystem of 1 MiB that nobody else sees."""
    (tmp_path / "disk").mkdir()
    mount = 'mount -t tmpfs -o size=1m,mode=0700 none disk && exec "$0" -B -c "$1"'
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, sys.executable, PROLOGUE + script],
        cwd=tmp_path,
        env={"PYTHONPATH": os.pathsep.join([str(SOURCE), *sys.path]), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.userns
def test_a_full_disk_gives_one_clear_error_and_keeps_what_was_stored(tmp_path):
    seen = on_small_disk(tmp_path, FULL)
    assert "refused: the quarantine could not be written: No space left on device" in seen
    assert "hint: free space" in seen
    assert "left: True [True]" in seen
    assert "released: 6000" in seen
    assert "SECRET" not in seen


@pytest.mark.userns
def test_an_index_that_cannot_grow_leaves_no_output_behind(tmp_path):
    seen = on_small_disk(tmp_path, FULL_INDEX)
    assert "refused: the quarantine" in seen
    assert "left: []" in seen
    assert "entries: 0 again: 32" in seen


@pytest.mark.userns
def test_a_read_only_folder_refuses_every_change_and_changes_nothing(tmp_path):
    seen = on_small_disk(tmp_path, READ_ONLY)
    assert seen.count("refused: the quarantine") == 4
    assert "done" not in seen
    assert "state: quarantined 2" in seen


def test_whatever_instant_a_writer_is_killed_every_entry_is_whole(tmp_path):
    folder = tmp_path / "q"
    writer = PROLOGUE + "store = QuarantineStore(sys.argv[1])\nprint(flush=True)\nwhile True: put(store, 30_000)\n"
    chance = random.Random(7)
    for _ in range(12):
        with subprocess.Popen(
            [sys.executable, "-B", "-c", writer, str(folder)],
            env={"PYTHONPATH": os.pathsep.join([str(SOURCE), *sys.path])},
            stdout=subprocess.PIPE,
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(chance.uniform(0, 0.05))
            process.send_signal(signal.SIGKILL)
    store = QuarantineStore(folder, clock=lambda: time.time() + 7200)
    store.sweep()
    entries = store.entries()
    files = {name for name in os.listdir(folder) if ".output" in name}
    assert files == {f"{entry.id}.output" for entry in entries}
    for entry in entries:
        store.approve(entry.id, by="Asha")
        assert store.release(entry.id, by="Asha") == {"stdout": b"SECRET" * 5000}
