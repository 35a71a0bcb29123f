"""Keys of a chain: where they may come from, what they show, and the MAC they make."""

from __future__ import annotations

import json
import os
import pickle

import pytest

from kavach.audit.key import AuditKey, KeyRing, parse_key, read_key_file, take_key
from kavach.errors import AuditError, ConfigError

SECRET = bytes(range(32))


def key_file(tmp_path, text, mode=0o600):
    path = tmp_path / "key"
    path.write_text(text)
    path.chmod(mode)
    return path


def test_an_id_is_computed_from_the_key_and_does_not_show_it():
    key = AuditKey(SECRET)
    assert key.id == AuditKey(SECRET).id != AuditKey(SECRET[::-1]).id
    assert SECRET.hex() not in repr(key)
    assert repr(key) == f"<AuditKey {key.id}>"


@pytest.mark.parametrize("secret", [b"", b"k" * 31, "k" * 64, None, bytearray(32)], ids=repr)
def test_what_is_no_key_is_refused_without_being_quoted(secret):
    with pytest.raises(ConfigError) as caught:
        AuditKey(secret)
    assert "kkk" not in str(caught.value)


def test_a_key_is_not_pickled():
    with pytest.raises(ConfigError):
        pickle.dumps(AuditKey(SECRET))


def test_exactly_one_way_gives_the_key(tmp_path):
    path = key_file(tmp_path, SECRET.hex() + "\n")
    ids = {take_key(SECRET, None, None).id, take_key(None, path, None).id, take_key(None, None, lambda: SECRET).id}
    assert len(ids) == 1
    for given in [(None, None, None), (SECRET, path, None), (SECRET, None, lambda: SECRET)]:
        with pytest.raises(ConfigError, match="exactly one"):
            take_key(*given)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_key_file_that_others_can_reach_is_refused(tmp_path, mode):
    with pytest.raises(AuditError, match="others may read") as caught:
        read_key_file(key_file(tmp_path, SECRET.hex(), mode))
    assert caught.value.check == "key"


@pytest.mark.parametrize("text", ["", "ab" * 31, "zz" * 32, "ab" * 32 + "c", "ab" * 5000])
def test_a_file_without_hex_digits_enough_is_refused_and_not_quoted(tmp_path, text):
    with pytest.raises(AuditError) as caught:
        read_key_file(key_file(tmp_path, text))
    assert caught.value.check == "key"
    assert not text or text not in str(caught.value)


def test_a_missing_key_file_is_a_lost_key(tmp_path):
    with pytest.raises(AuditError, match="cannot be read") as caught:
        take_key(None, tmp_path / "nothing", None)
    assert caught.value.check == "key"


@pytest.mark.parametrize("error", [OSError("vault says hunter2"), KeyError("hunter2"), ValueError("hunter2")])
def test_a_source_that_raises_is_a_lost_key_and_its_words_stay_inside(error):
    def source():
        raise error

    with pytest.raises(AuditError) as caught:
        take_key(None, None, source)
    assert caught.value.check == "key"
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_source_that_gives_no_bytes_is_refused():
    with pytest.raises(ConfigError):
        take_key(None, None, lambda: "text")
    with pytest.raises(ConfigError):
        take_key(None, None, "not callable")


def test_blanks_behind_the_digits_do_not_change_the_key():
    assert parse_key(SECRET.hex().encode() + b" \n", "x") == parse_key(SECRET.hex().upper().encode(), "x") == SECRET


def test_a_ring_knows_its_keys_by_id_and_names_the_missing_one():
    ring = KeyRing([SECRET, b"o" * 32])
    assert ring.first.id == AuditKey(SECRET).id
    assert ring.find(AuditKey(b"o" * 32).id) is not None
    with pytest.raises(AuditError, match="which was not given") as caught:
        ring.require("0" * 16, index=7)
    assert (caught.value.check, caught.value.index) == ("key", 7)
    with pytest.raises(ConfigError):
        KeyRing([])


@pytest.mark.vectors
def test_macs_are_those_of_wycheproof(vectors):
    groups = json.loads((vectors / "audit/hmac_sha256_test.json").read_bytes())["testGroups"]
    seen = {"valid": 0, "invalid": 0}
    for group in groups:
        for case in group["tests"]:
            secret, message = bytes.fromhex(case["key"]), bytes.fromhex(case["msg"])
            if len(secret) < 32:
                continue  # shorter than what Kavach takes
            mac = AuditKey(secret).mac(message)[: group["tagSize"] // 4]
            assert (mac == case["tag"]) is (case["result"] == "valid"), case["tcId"]
            seen[case["result"]] += 1
    assert seen["valid"] >= 20
    assert seen["invalid"] >= 20


def test_a_key_file_may_be_a_pipe_of_the_shell():
    reader, writer = os.pipe()
    os.write(writer, SECRET.hex().encode())
    os.close(writer)
    assert read_key_file(f"/dev/fd/{reader}") == SECRET
    os.close(reader)
