"""Appending: the record is in the chain when `append` returns, or nothing has happened."""

from __future__ import annotations

import gc
import json
import os
import threading

import pytest

from kavach.audit.files import LogFiles
from kavach.audit.key import AuditKey
from kavach.audit.log import AppendedRecord, AuditLog
from kavach.audit.verify import verify_log
from kavach.errors import AuditError, ConfigError

KEY, OTHER = b"k" * 32, b"o" * 32
NOON_NS = 1_800_000_000_000_000_000


def opened(path, **more):
    return AuditLog(path, **{"key": KEY, "clock_ns": lambda: NOON_NS, **more})


def lines(path):
    return [json.loads(line) for line in path.read_bytes().splitlines()]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "audit.jsonl"


def test_a_record_has_the_eight_fields_in_their_order(path):
    with opened(path) as log:
        appended = log.append("exec.intent", sandbox_id="sb-1", agent_id="crew/ä", payload={"b": 1, "a": [None, "x"]})
    genesis, record = lines(path)
    assert list(record) == ["serial", "time_utc", "event", "sandbox_id", "agent_id", "payload", "prev", "mac"]
    assert appended == AppendedRecord(1, record["mac"])
    assert record["prev"] == genesis["mac"]
    assert record["time_utc"] == "2027-01-15T08:00:00.000000+00:00"
    assert record["payload"] == {"a": [None, "x"], "b": 1}
    assert (record["event"], record["sandbox_id"], record["agent_id"]) == ("exec.intent", "sb-1", "crew/ä")


def test_the_first_record_says_version_and_key(path):
    with opened(path):
        pass
    (genesis,) = lines(path)
    assert genesis["event"] == "chain.genesis"
    assert genesis["prev"] == "0" * 64
    assert genesis["payload"]["version"] == 1
    assert len(genesis["payload"]["key_id"]) == 16


def test_there_is_no_default_key(path):
    with pytest.raises(ConfigError, match="no default"):
        AuditLog(path)
    assert not path.exists()


def test_a_log_goes_on_where_it_ended(path):
    with opened(path) as log:
        first = log.append("a")
    with opened(path) as log:
        second = log.append("a")
        assert log.head() == (3, second.mac)
    assert second.serial == first.serial + 1
    assert lines(path)[2]["prev"] == first.mac


@pytest.mark.parametrize("event", ["", "Exec", "a b", "chain.genesis", "chain.x", "x" * 65, "a\n", None, "é"])
def test_an_event_that_is_no_word_or_the_chains_own_is_refused(path, event):
    with opened(path) as log:
        with pytest.raises(ConfigError):
            log.append(event)
        assert log.head().records == 1


@pytest.mark.parametrize("payload", [{"a": b"bytes"}, {"a": float("nan")}, {"a": object()}, {1: 2}])
def test_a_payload_that_json_cannot_carry_is_refused_whole(path, payload):
    with opened(path) as log:
        with pytest.raises(ConfigError):
            log.append("a", payload=payload)
        with pytest.raises(ConfigError):
            log.append("a", sandbox_id="\ud800")
        with pytest.raises(ConfigError):
            log.append("a", agent_id=7)
        assert log.head().records == 1


def test_a_record_beyond_a_mebibyte_is_refused_whole(path):
    with opened(path) as log:
        with pytest.raises(AuditError, match="nothing was recorded"):
            log.append("a", payload={"a": "x" * (1 << 20)})
        log.append("a", payload={"a": "x" * 1_000_000})
        assert log.verify().head.records == 2


def test_files_belong_to_their_owner_alone(path):
    with opened(path, rotate_bytes=4096) as log:
        for _ in range(30):
            log.append("a")
    assert {entry.stat().st_mode & 0o777 for entry in path.parent.iterdir()} == {0o600}
    assert len(list(path.parent.iterdir())) > 3


def test_a_log_behind_a_symbolic_link_is_refused(tmp_path, path):
    (tmp_path / "elsewhere").touch()
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(AuditError) as caught:
        opened(path)
    assert caught.value.check in {"open", "head"}
    assert (tmp_path / "elsewhere").read_bytes() == b""


def test_a_log_that_is_a_folder_or_a_pipe_is_refused(tmp_path):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name in ("folder", "pipe"):
        with pytest.raises(AuditError):
            opened(tmp_path / name)


def test_a_missing_folder_is_said_when_the_log_is_opened(tmp_path):
    with pytest.raises(AuditError, match="No such file") as caught:
        opened(tmp_path / "missing" / "audit.jsonl")
    assert caught.value.check == "open"


def test_a_folder_that_goes_away_stops_the_next_record(tmp_path, path):
    folder = tmp_path / "logs"
    folder.mkdir()
    with opened(folder / "audit.jsonl") as log:
        log.append("a")
        folder.rename(tmp_path / "away")
        with pytest.raises(AuditError, match="missing"):
            log.append("b")
        (tmp_path / "away").rename(folder)
        assert log.append("c").serial == 2


def test_a_log_file_that_was_removed_stops_the_next_record(path):
    log = opened(path)
    log.append("a")
    path.unlink()
    for act in (lambda: log.append("b"), log.close):
        with pytest.raises(AuditError) as caught:
            act()
        assert caught.value.check == "truncated"
    assert not path.exists()


def test_a_head_file_that_was_removed_or_replaced_stops_the_next_record(path):
    log = opened(path)
    log.append("a")
    head = path.with_name("audit.jsonl.head")
    content = head.read_bytes()
    head.unlink()
    head.write_bytes(content)
    for act in (lambda: log.append("b"), log.close):
        with pytest.raises(AuditError) as caught:
            act()
        assert caught.value.check == "head"


def test_a_log_without_its_head_is_not_gone_on_with(path):
    with opened(path):
        pass
    path.with_name("audit.jsonl.head").unlink()
    with pytest.raises(AuditError) as caught:
        opened(path)
    assert caught.value.check == "head"


def test_a_log_under_another_key_is_not_gone_on_with(path):
    with opened(path):
        pass
    before = path.read_bytes()
    with pytest.raises(AuditError) as caught:
        opened(path, key=OTHER)
    assert caught.value.check == "key"
    assert path.read_bytes() == before


def test_a_log_that_was_cut_is_not_gone_on_with(path):
    with opened(path) as log:
        log.append("a")
        log.append("b")
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.rindex(b"\n", 0, -1) + 1])
    with pytest.raises(AuditError) as caught:
        opened(path)
    assert caught.value.check == "truncated"


def test_a_log_whose_last_record_was_replaced_is_not_gone_on_with(path):
    with opened(path) as log:
        log.append("a")
    content = bytearray(path.read_bytes())
    content[-10] ^= 1
    path.write_bytes(content)
    with pytest.raises(AuditError) as caught:
        opened(path)
    assert (caught.value.check, caught.value.index) == ("head", 1)


def test_a_closed_log_takes_nothing(path):
    log = opened(path)
    log.close()
    log.close()
    for act in (lambda: log.append("a"), log.head, log.sync, lambda: log.rotate_key(OTHER)):
        with pytest.raises(AuditError, match="closed"):
            act()
    assert len(lines(path)) == 1


def test_files_are_rotated_by_size_and_the_chain_goes_on(path):
    with opened(path, rotate_bytes=4096) as log:
        for number in range(60):
            log.append("a", payload={"n": number})
        assert log.verify().files >= 4
    opening = lines(path)[0]
    before = lines(path.with_name("audit.jsonl.000000"))
    second = lines(path.with_name("audit.jsonl.000001"))
    assert opening["event"] == second[0]["event"] == "chain.rotated"
    assert second[0]["prev"] == before[-1]["mac"]
    assert second[0]["serial"] == before[-1]["serial"] + 1
    assert second[0]["payload"]["previous"] == "audit.jsonl.000000"


def test_the_key_is_rotated_by_a_record_and_both_keys_verify_the_whole(path):
    with opened(path) as log:
        log.append("a")
        log.rotate_key(OTHER)
        log.append("b")
        assert log.verify().head.records == 4
    assert [one["event"] for one in lines(path)] == ["chain.genesis", "a", "chain.key_rotated", "b"]
    assert verify_log(path, [OTHER, KEY]).head.records == 4
    with pytest.raises(AuditError) as caught:
        verify_log(path, KEY)
    assert caught.value.check == "key"
    with pytest.raises(AuditError) as caught:
        opened(path)
    assert caught.value.check == "key"
    with opened(path, key=OTHER) as log:
        log.append("c")
    with opened(path, key=KEY, old_keys=[OTHER]) as log:
        assert log.append("d").serial == 5


def test_two_logs_of_one_file_keep_one_chain(path):
    with opened(path) as one, opened(path) as other:
        serials = [log.append("a").serial for _ in range(20) for log in (one, other)]
        assert serials == list(range(1, 41))
        assert one.verify() == other.verify()


def test_a_log_that_another_one_rotates_is_followed(path):
    with opened(path, rotate_bytes=4096) as one, opened(path) as other:
        for _ in range(40):
            one.append("a")
            other.append("b")
        assert one.verify() == other.verify()
        assert one.verify().files > 2


def test_a_key_that_another_one_rotates_stops_whoever_lacks_the_new_one(path):
    with opened(path) as one, opened(path, old_keys=[OTHER]) as other, opened(path) as third:
        one.rotate_key(OTHER)
        other.append("a")
        with pytest.raises(AuditError) as caught:
            third.append("a")
        assert caught.value.check == "key"
        third._chain._ring.add(AuditKey(OTHER))
    assert verify_log(path, [KEY, OTHER]).head.records == 3


def test_threads_keep_one_chain(path):
    taken: list[int] = []
    with opened(path) as log:
        threads = [
            threading.Thread(target=lambda: taken.extend(log.append("a").serial for _ in range(50))) for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(taken) == list(range(1, 401))
        log.verify()


def test_a_fork_works_on_files_of_its_own(path):
    with opened(path) as log:
        log.append("a")
        child = os.fork()
        if child == 0:
            try:
                log.append("child")
                os._exit(0)
            finally:
                os._exit(1)
        log.append("parent")
        assert os.waitpid(child, 0)[1] == 0
        log.append("a")
        assert log.verify().head.records == 5


def test_a_fork_that_never_writes_does_not_keep_the_lock(path, monkeypatch):
    """`flock` belongs to the open file; a child that inherited it would hold it after its parent had died."""
    monkeypatch.setattr("kavach.audit.lock.LOCK_TIMEOUT_S", 2.0)
    reader, writer = os.pipe()
    parent = os.fork()
    if parent == 0:
        log = opened(path)
        with log._chain._files:
            if os.fork() == 0:
                os.read(reader, 1)
            os._exit(0)
    os.waitpid(parent, 0)
    with opened(path) as log:
        log.append("a")
    os.write(writer, b"x")


def test_always_is_on_the_disk_before_append_returns(path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fdatasync", lambda _: synced.append(path.read_bytes().count(b"\n")))
    with opened(path, fsync="always") as log:
        log.append("a")
        assert synced == [2]
    with opened(path) as log:
        log._flusher.note = lambda: None
        log.append("b")
        assert len(synced) == 1
        log.append("c", durable=True)
        assert synced[-1] == 4


def test_batch_is_on_the_disk_soon_without_anybody_asking(path, monkeypatch):
    done = threading.Event()
    real = os.fdatasync
    monkeypatch.setattr(os, "fdatasync", lambda handle: (real(handle), done.set()))
    with opened(path) as log:
        log.append("a")
        assert done.wait(5)


def test_a_disk_that_refuses_to_sync_stops_every_later_record(path, monkeypatch):
    log = opened(path)

    def refuse(_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", refuse)
    with pytest.raises(AuditError, match="refused"):
        log.append("a", durable=True)
    monkeypatch.undo()
    with pytest.raises(AuditError, match="refused"):
        log.append("b")
    with pytest.raises(AuditError):
        log.close()
    with opened(path) as log:
        log.verify()


def test_a_head_that_cannot_be_written_takes_the_record_back(path, monkeypatch):
    with opened(path) as log:
        before = path.read_bytes()

        def refuse(*_):
            raise AuditError("no", check="write")

        monkeypatch.setattr(LogFiles, "write_head", refuse)
        with pytest.raises(AuditError):
            log.append("a")
        monkeypatch.undo()
        assert path.read_bytes() == before
        log.append("b")
        assert log.verify().head.records == 2


def test_half_a_write_is_taken_back(path, monkeypatch):
    with opened(path) as log:
        before, real = path.read_bytes(), os.write
        monkeypatch.setattr(os, "write", lambda handle, line: real(handle, line[: len(line) // 2]))
        with pytest.raises(AuditError, match="nothing was recorded") as caught:
            log.append("a")
        monkeypatch.undo()
        assert caught.value.check == "write"
        assert path.read_bytes() == before
        log.append("b")
        log.verify()


def test_a_log_that_nobody_closed_is_closed_with_its_last_reference(path):
    log = opened(path)
    log.append("a")
    del log
    gc.collect()
    assert verify_log(path, KEY).head.records == 2
    assert [one for one in threading.enumerate() if one.name == "kavach-audit-flush"] == []


@pytest.mark.parametrize(
    "wrong", [{"fsync": "never"}, {"rotate_bytes": 10}, {"checkpoint_every": 0}, {"checkpoint_every": True}]
)
def test_an_option_that_means_nothing_is_refused(path, wrong):
    with pytest.raises(ConfigError):
        opened(path, **wrong)
    assert not path.exists()


def test_a_writer_that_never_lets_go_is_an_error_not_a_hang(path, monkeypatch):
    monkeypatch.setattr("kavach.audit.lock.LOCK_TIMEOUT_S", 0.01)
    with opened(path) as one, opened(path) as other, one._chain._files:
        with pytest.raises(AuditError) as caught:
            other.append("a")
        assert caught.value.check == "lock"
