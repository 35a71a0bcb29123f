"""A disk that is full, small or read-only: an error, nothing half-written, and the chain goes on afterwards."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from kavach.audit.verify import verify_log

pytestmark = pytest.mark.needs("linux")
KEY = b"k" * 32
PRELUDE = """
import os, resource, sys
from kavach.audit.log import AuditLog
from kavach.audit.verify import verify_log
from kavach.errors import AuditError
KEY = b"k" * 32

def fill(log, stop_after=100000):
    for n in range(stop_after):
        before = os.stat(log.path).st_size
        try:
            log.append("a", payload={"x": "y" * (n * 613 % 3000)})
        except AuditError as error:
            assert error.check == "write", error
            assert os.stat(log.path).st_size == before, "something was left behind"
            return n
    raise SystemExit("the disk never filled up")
"""


def run(body, *words, prefix=()):
    done = subprocess.run(
        [*prefix, sys.executable, "-c", PRELUDE + body, *words], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_file_size_limit_in_the_middle_of_a_record_leaves_no_half_record(tmp_path):
    """RLIMIT_FSIZE makes the kernel take a part of a write: the rest is EFBIG."""
    path = tmp_path / "audit.jsonl"
    body = """
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY))
with AuditLog(sys.argv[1], key=KEY) as log:
    count = fill(log)
    for _ in range(3):
        assert fill(log, 100) < 60
    assert log.verify().torn_bytes == 0
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    log.append("b")
    log.verify()
print(count)
"""
    assert int(run(body, str(path))) > 10
    assert verify_log(path, KEY).torn_bytes == 0


@pytest.mark.root
def test_a_full_disk_takes_no_half_record_and_the_chain_goes_on_when_there_is_room(tmp_path):
    body = """
folder = sys.argv[1]
with AuditLog(f"{folder}/audit.jsonl", key=KEY) as log:
    with open(f"{folder}/ballast", "wb") as file:
        file.write(b"x" * 20000)
    count = fill(log)
    assert count > 5
    assert log.verify().torn_bytes == 0
    os.unlink(f"{folder}/ballast")
    log.append("b")
    log.append("c", durable=True)
    assert log.verify().head.records >= count + 3
"""
    mount = 'mount -t tmpfs -o size=100k none "$0" && exec "$@"'
    run(body, str(tmp_path), prefix=["unshare", "-m", "--propagation", "private", "sh", "-c", mount, str(tmp_path)])
    assert os.listdir(tmp_path) == []


@pytest.mark.root
def test_a_folder_that_is_full_from_the_start_begins_no_log(tmp_path):
    body = """
folder = sys.argv[1]
try:
    with open(f"{folder}/ballast", "wb") as file:
        for _ in range(1000):
            os.write(file.fileno(), b"x" * 4096)
except OSError:
    pass
try:
    AuditLog(f"{folder}/audit.jsonl", key=KEY)
except AuditError as error:
    assert error.check in {"write", "open"}, error
else:
    raise SystemExit("a log was begun on a full disk")
os.unlink(f"{folder}/ballast")
with AuditLog(f"{folder}/audit.jsonl", key=KEY) as log:
    log.append("a")
    log.verify()
"""
    mount = 'mount -t tmpfs -o size=64k none "$0" && exec "$@"'
    run(body, str(tmp_path), prefix=["unshare", "-m", "--propagation", "private", "sh", "-c", mount, str(tmp_path)])


@pytest.mark.root
def test_a_disk_that_becomes_read_only_stops_the_next_record(tmp_path):
    body = """
folder = sys.argv[1]
log = AuditLog(f"{folder}/audit.jsonl", key=KEY)
log.append("a")
log.close()
os.system(f"mount -o remount,ro {folder}")
verify_log(f"{folder}/audit.jsonl", KEY)
try:
    AuditLog(f"{folder}/audit.jsonl", key=KEY)
except AuditError as error:
    assert error.check == "open", error
else:
    raise SystemExit("a log was opened on a read-only disk")
"""
    mount = 'mount -t tmpfs -o size=1m none "$0" && exec "$@"'
    run(body, str(tmp_path), prefix=["unshare", "-m", "--propagation", "private", "sh", "-c", mount, str(tmp_path)])


@pytest.mark.plain
def test_a_folder_without_write_permission_begins_no_log(tmp_path):
    tmp_path.chmod(0o500)
    body = """
try:
    AuditLog(f"{sys.argv[1]}/audit.jsonl", key=KEY)
except AuditError as error:
    assert error.check == "open", error
else:
    raise SystemExit("a log was begun in a read-only folder")
"""
    try:
        run(body, str(tmp_path))
        assert os.listdir(tmp_path) == []
    finally:
        tmp_path.chmod(0o700)
