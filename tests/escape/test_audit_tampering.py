"""Whoever can write to the files changes a log; verification names the first record that is not what was written.

The positive control of each attack is the same verification before it. With KAVACH_SOAK=1 each attack is made at every
record of the log, without it at every thirteenth, the first two and the last two.
"""

from __future__ import annotations

import os
import random
import shutil

import pytest

from kavach.audit.head import ChainHead
from kavach.audit.log import AuditLog
from kavach.audit.signing import SigningKey
from kavach.audit.verify import verify_log
from kavach.errors import AuditError

KEY = b"k" * 32
COUNT = 1000
STEP = 1 if os.environ.get("KAVACH_SOAK") == "1" else 13
PLACES = sorted({0, 1, COUNT - 2, COUNT - 1, *range(0, COUNT, STEP)})
WHAT = {"argv_sha256": "0" * 64, "reason": "exit", "exit_code": 0}


class Log:
    """A log of a thousand records, and a way to put another one in its place."""

    def __init__(self, folder, key):
        self.path = folder / "audit.jsonl"
        self.head_path = folder / "audit.jsonl.head"
        self.places = {}
        with AuditLog(self.path, key=KEY, checkpoint_key=key, checkpoint_every=100) as log:
            for number in range(COUNT - 1):
                done = log.append("exec.outcome", sandbox_id="sb-1", payload={**WHAT, "n": number})
                self.places[done.serial + 1] = ChainHead(done.serial + 1, done.mac)
        self.whole = self.path.read_bytes()
        self.head = self.head_path.read_bytes()
        self.lines = self.whole.splitlines(keepends=True)

    def verdict(self, lines, **more):
        """Return (index, check) of what verification names in a log of these lines."""
        self.path.write_bytes(b"".join(lines))
        with pytest.raises(AuditError) as caught:
            verify_log(self.path, KEY, **more)
        return caught.value.index, caught.value.check


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    made = Log(tmp_path_factory.mktemp("log"), SigningKey.generate())
    assert verify_log(made.path, KEY).head == made.places[COUNT]
    return made


@pytest.fixture(autouse=True)
def restore(log):
    yield
    log.path.write_bytes(log.whole)
    log.head_path.write_bytes(log.head)


def with_line(lines, index, *new):
    return [*lines[:index], *new, *lines[index + 1 :]]


def test_a_flipped_bit_is_named_at_every_record(log):
    chance = random.Random(20260131)
    for index in PLACES:
        line = log.lines[index]
        changed = bytearray(line)
        changed[chance.randrange(len(line))] ^= 1 << chance.randrange(8)
        where, check = log.verdict(with_line(log.lines, index, bytes(changed)))
        assert where == index
        assert check in {"form", "serial", "prev", "mac", "opening", "key"}


def test_every_byte_of_a_record_counts(log):
    bits = range(8) if STEP == 1 else (0,)
    for index in (0, 2):
        for place in range(len(log.lines[index])):
            for bit in bits:
                changed = bytearray(log.lines[index])
                changed[place] ^= 1 << bit
                where, _ = log.verdict(with_line(log.lines[: index + 1], index, bytes(changed)))
                assert where == index, (place, bit)


def test_a_deleted_record_is_named_at_every_place(log):
    for index in PLACES:
        expected = "serial" if index < COUNT - 1 else "truncated"
        assert log.verdict(with_line(log.lines, index)) == (index, expected)


def test_an_inserted_record_is_named_at_every_place(log):
    forged = [line.replace(b'"n":', b'"n":1') for line in log.lines]
    for index in PLACES[1:]:
        again = [*log.lines[:index], log.lines[index - 1], *log.lines[index:]]
        assert log.verdict(again) == (index, "serial")
        assert log.verdict([*log.lines[:index], forged[index], *log.lines[index:]]) == (index, "mac")


def test_a_record_of_another_log_under_the_same_key_is_named(log, tmp_path):
    other = Log(tmp_path, SigningKey.generate())
    for index in PLACES[1:]:
        assert log.verdict(with_line(log.lines, index, other.lines[index])) == (index, "prev")
    shutil.copy(other.path, log.path)
    with pytest.raises(AuditError) as caught:
        verify_log(log.path, KEY)
    assert caught.value.check in {"head", "checkpoint"}


def test_swapped_records_are_named_at_every_place(log):
    for index in PLACES[:-1]:
        swapped = [*log.lines[:index], log.lines[index + 1], log.lines[index], *log.lines[index + 2 :]]
        assert log.verdict(swapped) == (index, "serial")


def test_a_log_that_was_cut_is_named_at_every_record(log):
    for index in PLACES:
        assert log.verdict(log.lines[:index]) == (index, "truncated")


def test_a_log_that_was_cut_within_a_record_is_named(log):
    for index in PLACES:
        cut = log.lines[index][: (index * 37) % len(log.lines[index])]
        assert log.verdict([*log.lines[:index], cut]) == (index, "form" if cut else "truncated")
        assert log.verdict([*log.lines[:index], log.lines[index][:-1]]) == (index, "form")


def test_a_roll_back_with_its_older_head_is_seen_by_a_head_kept_elsewhere(tmp_path):
    """Log and head are put back to the state after each record; nothing on the host itself tells."""
    path, head = tmp_path / "audit.jsonl", tmp_path / "audit.jsonl.head"
    states = []
    with AuditLog(path, key=KEY, fsync="batch") as log:
        log._flusher.note = lambda: None
        for number in range(COUNT):
            done = log.append("a", payload={"n": number})
            states.append((path.stat().st_size, head.read_bytes()))
        kept = ChainHead(done.serial + 1, done.mac)
    whole = path.read_bytes()
    for number in PLACES[:-2]:
        size, block = states[number]
        path.write_bytes(whole[:size])
        head.write_bytes(block)
        assert verify_log(path, KEY).head.records == number + 2  # the control: locally nothing is wrong
        with pytest.raises(AuditError) as caught:
            verify_log(path, KEY, head=kept)
        assert (caught.value.index, caught.value.check) == (number + 2, "truncated")


def test_a_roll_back_is_seen_by_a_checkpoint(tmp_path):
    key = SigningKey.generate()
    made = Log(tmp_path, key)
    assert verify_log(made.path, KEY, checkpoint_key=key.public).checkpoints == COUNT // 100
    with AuditLog(tmp_path / "other.jsonl", key=KEY) as shorter:
        shorter.append("a")
    shutil.copy(tmp_path / "other.jsonl", made.path)
    shutil.copy(tmp_path / "other.jsonl.head", made.head_path)
    assert verify_log(made.path, KEY).head.records == 2
    with pytest.raises(AuditError) as caught:
        verify_log(made.path, KEY, checkpoint_key=key.public)
    assert (caught.value.index, caught.value.check) == (2, "truncated")


def test_a_rewritten_end_of_one_who_has_the_key_is_seen_by_a_checkpoint(tmp_path):
    key = SigningKey.generate()
    made = Log(tmp_path, key)
    for name in (made.path, made.head_path):
        name.unlink()
    with AuditLog(made.path, key=KEY) as log:
        for number in range(COUNT):
            log.append("exec.outcome", sandbox_id="sb-1", payload={**WHAT, "n": number + 1})
    assert verify_log(made.path, KEY).head.records == COUNT + 1
    with pytest.raises(AuditError) as caught:
        verify_log(made.path, KEY, checkpoint_key=key.public)
    assert (caught.value.index, caught.value.check) == (99, "checkpoint")


@pytest.mark.parametrize("change", ["flip", "drop", "other key"])
def test_checkpoints_that_were_changed_are_not_believed(tmp_path, change):
    key = SigningKey.generate()
    made = Log(tmp_path, key)
    file = tmp_path / "audit.jsonl.checkpoints"
    if change == "flip":
        content = bytearray(file.read_bytes())
        content[300] ^= 1
        file.write_bytes(content)
    elif change == "drop":
        file.unlink()
    public = SigningKey.generate().public if change == "other key" else key.public
    with pytest.raises(AuditError) as caught:
        verify_log(made.path, KEY, checkpoint_key=public)
    assert caught.value.check == "checkpoint"


@pytest.mark.parametrize("change", ["drop first", "drop middle", "drop last", "swap", "empty"])
def test_a_missing_or_exchanged_file_of_a_rotated_log_is_named(tmp_path, change):
    path = tmp_path / "audit.jsonl"
    with AuditLog(path, key=KEY, rotate_bytes=4096) as log:
        for number in range(60):
            log.append("a", payload={"n": number})
        assert log.verify().files > 4
    files = sorted(tmp_path.glob("audit.jsonl.0*"))
    expected = {"segment", "serial", "truncated", "opening"}
    if change.startswith("drop"):
        {"first": files[0], "middle": files[2], "last": files[-1]}[change.split()[1]].unlink()
    elif change == "swap":
        one, other = files[1].read_bytes(), files[2].read_bytes()
        files[1].write_bytes(other)
        files[2].write_bytes(one)
    else:
        files[1].write_bytes(b"")
    with pytest.raises(AuditError) as caught:
        verify_log(path, KEY)
    assert caught.value.check in expected
    assert caught.value.index is not None


def test_files_that_were_moved_away_are_vouched_for_by_the_place_they_ended_at(tmp_path):
    path = tmp_path / "audit.jsonl"
    with AuditLog(path, key=KEY, rotate_bytes=4096) as log:
        for number in range(60):
            log.append("a", payload={"n": number})
    first = tmp_path / "audit.jsonl.000000"
    lines = first.read_bytes().splitlines()
    place = ChainHead(len(lines), lines[-1].split(b'"mac":"')[1][:64].decode())
    first.unlink()
    assert verify_log(path, KEY, after=place).head.records > 60
    for wrong in (ChainHead(place.records + 1, place.mac), ChainHead(place.records, "0" * 64)):
        with pytest.raises(AuditError) as caught:
            verify_log(path, KEY, after=wrong)
        assert caught.value.check in {"serial", "prev"}
