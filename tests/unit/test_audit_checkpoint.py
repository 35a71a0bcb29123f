"""Checkpoints: one after every so many records, signed, and what they agree with."""

from __future__ import annotations

import pytest

from kavach.audit.checkpoint import append_checkpoint, checkpoint_path, open_checkpoint, read_checkpoints
from kavach.audit.dsse import seal_envelope
from kavach.audit.head import ChainHead
from kavach.audit.log import AuditLog
from kavach.audit.receipt import verify_receipt
from kavach.audit.signing import SigningKey
from kavach.errors import AuditError, ConfigError

KEY = b"k" * 32
SIGNER = SigningKey.generate()
PLACE = ChainHead(3, "a" * 64)


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "audit.jsonl")


def test_there_is_one_in_every_stretch_of_records_also_across_files_and_openings(path):
    for _ in range(3):
        with AuditLog(path, key=KEY, rotate_bytes=4096, checkpoint_key=SIGNER, checkpoint_every=10) as log:
            for _ in range(25):
                log.append("a")
            found = log.verify()
    counts = [one.count for one in read_checkpoints(path, SIGNER.public)]
    assert [count // 10 for count in counts] == list(range(1, found.head.records // 10 + 1))
    assert found.checkpoints == len(counts)


def test_one_that_a_crash_has_cut_is_not_counted_and_gives_way_to_the_next(path):
    append_checkpoint(path, "c" * 16, PLACE, "2026", SIGNER)
    with open(checkpoint_path(path), "ab") as file:
        file.write(b'{"payload":"half')
    assert [one.place for one in read_checkpoints(path, SIGNER.public)] == [PLACE]
    append_checkpoint(path, "c" * 16, ChainHead(4, "b" * 64), "2026", SIGNER)
    assert [one.count for one in read_checkpoints(path, SIGNER.public)] == [3, 4]


def test_a_checkpoint_is_no_receipt_and_a_receipt_no_checkpoint(path):
    append_checkpoint(path, "c" * 16, PLACE, "2026", SIGNER)
    with open(checkpoint_path(path), "rb") as file:
        envelope = file.read()
    with pytest.raises(AuditError) as caught:
        verify_receipt(envelope, SIGNER.public)
    assert caught.value.check == "type"
    with pytest.raises(AuditError) as caught:
        open_checkpoint(seal_envelope("application/vnd.in-toto+json", b"{}", SIGNER), SIGNER.public)
    assert caught.value.check == "type"
    for payload in (b"{}", b"\xff", b'{"version":2,"chain":"","count":1,"mac":"%b","time_utc":""}' % (b"a" * 64)):
        with pytest.raises(AuditError) as caught:
            open_checkpoint(
                seal_envelope("application/vnd.kavach.audit-checkpoint+json", payload, SIGNER), SIGNER.public
            )
        assert caught.value.check == "form"


def test_a_configuration_holds_an_open_log_or_none(path):
    assert AuditLog.take(None) is None
    with pytest.raises(ConfigError) as caught:
        AuditLog.take("audit.jsonl")
    assert caught.value.key == "$.audit"
    log = AuditLog(path, key=KEY)
    assert AuditLog.take(log) is log
    log.close()
    with pytest.raises(AuditError, match="closed"):
        AuditLog.take(log)
