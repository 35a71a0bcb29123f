"""Eight writers, SIGKILL at random instants: one chain, and every record that was acknowledged is in it.

KAVACH_SOAK=1 makes it 500 instants instead of 40.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from kavach.audit.log import AuditLog
from kavach.audit.reading import read_records
from kavach.audit.verify import verify_log

pytestmark = pytest.mark.needs("linux")
INSTANTS = 500 if os.environ.get("KAVACH_SOAK") == "1" else 40
DRIVER = Path(__file__).with_name("audit_writers_driver.py")
KEY = b"k" * 32


def test_writers_that_are_killed_at_any_instant_leave_one_whole_chain(tmp_path):
    path, acknowledged = tmp_path / "audit.jsonl", tmp_path / "acknowledged"
    acknowledged.mkdir()
    seed = random.randrange(1 << 30)
    with subprocess.Popen(
        [sys.executable, str(DRIVER), str(path), str(acknowledged), str(seed)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as driver:
        assert driver.stdin is not None
        assert driver.stdout is not None
        for instant in range(INSTANTS):
            driver.stdin.write("kill\n")
            driver.stdin.flush()
            assert driver.stdout.readline() == "killed\n", f"seed {seed}"
            if instant % 20 == 0:
                verify_log(path, KEY)
        out, err = driver.communicate()
    assert (out, err) == ("", ""), f"seed {seed}"

    found = verify_log(path, KEY)
    assert found.uncounted <= 1
    with AuditLog(path, key=KEY) as log:
        assert log.verify().torn_bytes == 0
    records = {record.serial: record for record in read_records(path)}
    kept = [line.split() for file in acknowledged.iterdir() for line in file.read_text().splitlines()]
    assert len(kept) > INSTANTS
    missing = [serial for serial, mac in kept if records[int(serial)].mac != mac]
    assert missing == []

    # What was torn is in a side file, and each side file is reported by a record; nothing else is there.
    sides = {one.name for one in tmp_path.glob("audit.jsonl.torn-*")}
    reported = {one.payload["side_file"] for one in records.values() if one.event == "chain.recovered"}
    assert sides == reported
    assert len(sides) <= INSTANTS


def test_processes_that_nobody_kills_write_every_record_once(tmp_path):
    path = tmp_path / "audit.jsonl"
    script = (
        "import sys; from kavach.audit.log import AuditLog\n"
        "with AuditLog(sys.argv[1], key=b'k' * 32) as log:\n"
        "    for n in range(200): log.append('a', sandbox_id=sys.argv[2], payload={'n': n})\n"
    )
    started = [subprocess.Popen([sys.executable, "-c", script, str(path), str(number)]) for number in range(4)]
    assert [one.wait(timeout=60) for one in started] == [0] * 4
    assert verify_log(path, KEY).head.records == 801
    by_writer: dict[str | None, list[int]] = {}
    for record in read_records(path):
        by_writer.setdefault(record.sandbox_id, []).append(record.payload.get("n", -1))
    assert by_writer.pop(None) == [-1]
    assert list(by_writer.values()) == [list(range(200))] * 4
