"""What a crash leaves behind, and what is said of it."""

from __future__ import annotations

import json

import msgspec
import pytest

from kavach.audit.head import parse_head
from kavach.audit.key import KeyRing
from kavach.audit.log import AuditLog
from kavach.audit.verify import verify_log
from kavach.errors import AuditError

KEY = b"k" * 32
RING = KeyRing(KEY)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "audit.jsonl"


def head_of(path):
    return path.with_name("audit.jsonl.head")


def written(path, count=3, **more):
    with AuditLog(path, key=KEY, **more) as log:
        for number in range(count):
            log.append("a", payload={"n": number})


def lines(path):
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def sides(path):
    return sorted(path.parent.glob("*.torn-*"))


def put_head(path, **changes):
    """Let the head say something else, as a head that never reached the disk would."""
    head = msgspec.structs.replace(parse_head(head_of(path).read_bytes(), RING), **changes)
    head_of(path).write_bytes(head.block(RING.first))


def test_a_torn_last_line_is_set_aside_and_reported(path):
    written(path)
    torn = b'{"serial":4,"time_utc":"20'
    with path.open("ab") as file:
        file.write(torn)
    found = verify_log(path, KEY)
    assert (found.head.records, found.torn_bytes) == (4, len(torn))
    with AuditLog(path, key=KEY) as log:
        assert log.append("b").serial == 5
        log.verify()
    report = lines(path)[4]
    (side,) = sides(path)
    assert side.read_bytes() == torn
    assert report["event"] == "chain.recovered"
    assert (report["payload"]["side_file"], report["payload"]["torn_bytes"]) == (side.name, len(torn))


def test_a_log_that_is_open_meets_a_torn_line_of_another_writer(path):
    with AuditLog(path, key=KEY) as log:
        log.append("a")
        with path.open("ab") as file:
            file.write(b"half a reco")
        assert log.append("b").serial == 3
        assert [one["event"] for one in lines(path)] == ["chain.genesis", "a", "chain.recovered", "b"]
        log.verify()
    assert len(sides(path)) == 1


def test_a_side_file_that_nobody_reported_is_reported_by_the_next_who_opens(path):
    written(path)
    side = path.with_name("audit.jsonl.torn-4-00000000.pending")
    side.write_bytes(b"half")
    with AuditLog(path, key=KEY):
        pass
    assert lines(path)[4]["payload"]["side_file"] == "audit.jsonl.torn-4-00000000"
    assert [one.name for one in sides(path)] == ["audit.jsonl.torn-4-00000000"]


def test_a_record_that_the_head_does_not_count_yet_is_taken_in(path):
    written(path)
    before = head_of(path).read_bytes()
    with AuditLog(path, key=KEY) as log:
        late = log.append("late")
    head_of(path).write_bytes(before)
    assert verify_log(path, KEY).uncounted == 1
    with AuditLog(path, key=KEY) as log:
        assert log.head() == (5, late.mac)
        assert log.append("b").serial == 5
        assert log.verify().uncounted == 0


def test_a_forged_record_behind_the_head_is_not_taken_in(path):
    written(path)
    content = path.read_bytes()
    last = content.splitlines(keepends=True)[-1]
    path.write_bytes(content + last.replace(b'"serial":3', b'"serial":4'))
    with pytest.raises(AuditError) as caught:
        AuditLog(path, key=KEY)
    assert (caught.value.index, caught.value.check) == (4, "prev")


def test_records_that_never_reached_the_disk_are_reported_as_lost(path):
    written(path)
    kept = path.read_bytes()
    with AuditLog(path, key=KEY) as log:
        log._flusher.note = lambda: None
        log.append("never on the disk".replace(" ", "_"))
        log.append("nor_this")
        block = head_of(path).read_bytes()
    path.write_bytes(kept)
    head_of(path).write_bytes(block)
    with pytest.raises(AuditError) as caught:
        verify_log(path, KEY)
    assert (caught.value.index, caught.value.check) == (4, "truncated")
    with AuditLog(path, key=KEY) as log:
        assert log.verify().head.records == 5
    assert lines(path)[4]["payload"] == {"lost_records": 2}


def test_records_that_had_reached_the_disk_are_never_accepted_as_lost(path):
    written(path)
    content = path.read_bytes()
    path.write_bytes(content[: content.rindex(b"\n", 0, -1) + 1])
    with pytest.raises(AuditError) as caught:
        AuditLog(path, key=KEY)
    assert caught.value.check == "truncated"


def test_a_change_of_files_that_was_interrupted_is_ended(path):
    written(path)
    path.rename(path.with_name("audit.jsonl.000000"))
    assert verify_log(path, KEY).head.records == 4
    with AuditLog(path, key=KEY) as log:
        log.append("b")
        assert log.verify().files == 2
    assert lines(path)[0]["event"] == "chain.rotated"


def test_a_new_file_that_was_never_begun_is_begun(path):
    written(path)
    path.rename(path.with_name("audit.jsonl.000000"))
    head = parse_head(head_of(path).read_bytes(), RING)
    put_head(path, segment=1, size=0, synced_size=0, synced_count=head.count, synced_mac=head.mac)
    with AuditLog(path, key=KEY) as log:
        log.append("b")
        assert log.verify().files == 2


def test_a_head_without_any_record_is_gone_on_with(path):
    written(path, 0)
    block = head_of(path).read_bytes()
    head = parse_head(block, RING)
    zero = "0" * 64
    put_head(path, count=0, size=0, mac=zero, synced_count=0, synced_size=0, synced_mac=zero)
    path.unlink()
    with AuditLog(path, key=KEY) as log:
        assert log.verify().chain == head.chain


def test_a_killed_key_rotation_is_taken_in_with_both_keys(path):
    other = b"o" * 32
    written(path)
    before = head_of(path).read_bytes()
    with AuditLog(path, key=KEY) as log:
        log.rotate_key(other)
    head_of(path).write_bytes(before)
    with AuditLog(path, key=other, old_keys=[KEY]) as log:
        log.append("b")
    assert verify_log(path, [KEY, other]).head.records == 6


def test_rubbish_without_an_end_is_no_torn_record(path):
    written(path)
    with path.open("ab") as file:
        file.write(b"\0" * ((1 << 20) + 10))
    with pytest.raises(AuditError) as caught:
        AuditLog(path, key=KEY)
    assert (caught.value.index, caught.value.check) == (4, "form")


@pytest.mark.parametrize("content", [b"{}", b"\xff" * 512, b"\0" * 512, b"x" * 600])
def test_a_head_that_is_none_is_refused(path, content):
    written(path)
    head_of(path).write_bytes(content)
    for act in (lambda: AuditLog(path, key=KEY), lambda: verify_log(path, KEY)):
        with pytest.raises(AuditError) as caught:
            act()
        assert caught.value.check == "head"


def test_every_flipped_byte_of_a_head_is_noticed(path):
    written(path)
    block = head_of(path).read_bytes()
    assert len(block) == 512
    for place in range(len(block)):
        changed = bytearray(block)
        changed[place] ^= 0x01
        with pytest.raises(AuditError) as caught:
            parse_head(bytes(changed), RING)
        assert caught.value.check in {"head", "key"}
