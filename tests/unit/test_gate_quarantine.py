"""Withheld outputs are stored whole, decided by somebody, and released or gone; on a real folder, by an injected clock."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import threading

import pytest

from kavach.errors import ConfigError, KavachError, LifecycleError
from kavach.gate.quarantine import QuarantineStore
from kavach.model.verdict import Finding, Severity, Verdict

CONTENT = {"stdout": b"line\n\x00\xffWITHHELD", "stderr": b"", "out/report.csv": b"a,b\n"}
KEY = bytes(range(32))
FINDING = Finding(
    id="stdout:1",
    scanner="secrets",
    rule="some-key",
    category="key",
    severity=Severity.HIGH,
    message="A key.",
    stream="stdout",
    start=5,
    end=9,
    evidence="key, 4 bytes",
)


class Clock:
    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "quarantine"


def put(store: QuarantineStore, content: dict[str, bytes] | None = None) -> str:
    return store.put(
        CONTENT if content is None else content,
        sandbox_id="sb-1",
        agent_id="agent-7",
        verdict=Verdict.QUARANTINE,
        findings=[FINDING],
    )


def outputs(folder) -> list[str]:
    return sorted(name for name in os.listdir(folder) if not name.startswith("index.sqlite"))


def test_an_approved_output_is_released_exactly(folder):
    store = QuarantineStore(folder, clock=Clock())
    id_ = put(store)
    store.approve(id_, by="Asha")
    assert store.release(id_, by="Asha") == CONTENT
    assert store.release(id_, by="Ben") == CONTENT


def test_an_entry_says_what_is_known_without_the_content(folder):
    store = QuarantineStore(folder, clock=Clock())
    entry = store.entry(put(store))
    assert (entry.sandbox_id, entry.agent_id, entry.verdict, entry.state) == (
        "sb-1",
        "agent-7",
        "quarantine",
        "quarantined",
    )
    assert entry.sizes == {"stdout": 15, "stderr": 0, "out/report.csv": 4}
    assert entry.findings == (FINDING,)
    assert entry.stored_utc == "2027-01-15T08:00:00.000Z"
    assert b"WITHHELD" not in (folder / "index.sqlite").read_bytes()


def test_every_move_says_who_and_when(folder):
    clock = Clock()
    store = QuarantineStore(folder, clock=clock)
    id_ = put(store)
    clock.now += 60
    store.approve(id_, by="Asha")
    clock.now += 60
    store.reject(id_, by="Ben")
    assert [(move.state, move.by, move.at_utc[11:16]) for move in store.entry(id_).moves] == [
        ("quarantined", "gate", "08:00"),
        ("approved", "Asha", "08:01"),
        ("rejected", "Ben", "08:02"),
        ("deleted", "Ben", "08:02"),
    ]


def test_a_rejected_output_is_gone_and_its_entry_stays(folder):
    store = QuarantineStore(folder)
    id_ = put(store)
    store.reject(id_, by="Asha")
    assert outputs(folder) == []
    assert store.entry(id_).state == "deleted"
    assert [entry.id for entry in store.entries(state="deleted")] == [id_]
    assert store.entries(state="quarantined") == ()


@pytest.mark.parametrize(
    ("done", "then"),
    [
        ((), "release"),
        (("approve",), "approve"),
        (("approve", "release"), "approve"),
        (("approve", "release"), "reject"),
        (("reject",), "approve"),
        (("reject",), "release"),
        (("reject",), "reject"),
    ],
)
def test_no_other_order_is_possible(folder, done, then):
    store = QuarantineStore(folder)
    id_ = put(store)
    for verb in done:
        getattr(store, verb)(id_, by="Asha")
    before = store.entry(id_)
    with pytest.raises(LifecycleError) as caught:
        getattr(store, then)(id_, by="Asha")
    assert caught.value.state == before.state
    assert store.entry(id_) == before


@pytest.mark.parametrize("id_", ["0" * 32, "", "../index", "' OR 1=1 --", 7])
def test_an_unknown_id_is_the_callers_mistake(folder, id_):
    store = QuarantineStore(folder)
    for act in (store.entry, lambda id_: store.approve(id_, by="Asha"), lambda id_: store.release(id_, by="Asha")):
        with pytest.raises(ConfigError):
            act(id_)


@pytest.mark.parametrize("by", ["", "  ", "a\nb", "x" * 201, None])
def test_nobody_decides_without_a_name(folder, by):
    store = QuarantineStore(folder)
    id_ = put(store)
    with pytest.raises(ConfigError):
        store.approve(id_, by=by)
    assert store.entry(id_).state == "quarantined"


def test_folder_and_files_are_for_this_user_alone(folder):
    old = os.umask(0)
    try:
        put(QuarantineStore(folder))
    finally:
        os.umask(old)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}


def test_a_folder_that_others_can_open_is_refused(folder):
    folder.mkdir(mode=0o700)
    folder.chmod(0o750)
    with pytest.raises(ConfigError, match="0750"):
        QuarantineStore(folder)


def test_a_link_in_place_of_the_folder_is_refused(folder, tmp_path):
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(KavachError):
        QuarantineStore(folder)
    assert os.listdir(tmp_path / "elsewhere") == []


def test_a_link_in_place_of_the_index_is_not_followed(folder, tmp_path):
    folder.mkdir(mode=0o700)
    (folder / "index.sqlite").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(KavachError):
        QuarantineStore(folder)
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("kind", ["link", "file"])
def test_a_file_that_is_there_already_is_neither_followed_nor_replaced(folder, tmp_path, kind):
    store = QuarantineStore(folder, random=lambda count: b"\x11" * count)
    planted = folder / ("11" * 16 + ".output.tmp")
    target = tmp_path / "target"
    target.write_bytes(b"mine")
    planted.symlink_to(target) if kind == "link" else planted.write_bytes(b"mine")
    with pytest.raises(KavachError):
        put(store)
    assert target.read_bytes() == b"mine"
    assert planted.read_bytes() == b"mine"
    assert store.entries() == ()


def test_an_encrypted_output_is_nowhere_on_the_disk_in_the_clear(folder):
    store = QuarantineStore(folder, key=KEY)
    id_ = put(store)
    assert all(b"WITHHELD" not in path.read_bytes() for path in folder.iterdir())
    assert store.entry(id_).is_encrypted
    store.approve(id_, by="Asha")
    assert store.release(id_, by="Asha") == CONTENT


@pytest.mark.parametrize("key", [None, bytes(32)])
def test_without_its_key_an_output_is_not_released_and_stays_approved(folder, key):
    id_ = put(QuarantineStore(folder, key=KEY))
    other = QuarantineStore(folder, key=key)
    other.approve(id_, by="Asha")
    with pytest.raises(KavachError, match="key"):
        other.release(id_, by="Asha")
    assert other.entry(id_).state == "approved"


@pytest.mark.parametrize("key", [b"", b"short", "x" * 32])
def test_a_key_of_another_length_is_refused(folder, key):
    with pytest.raises(ConfigError):
        QuarantineStore(folder, key=key)


@pytest.mark.parametrize("key", [None, KEY])
def test_a_changed_file_is_not_released(folder, key):
    store = QuarantineStore(folder, key=key)
    id_ = put(store)
    store.approve(id_, by="Asha")
    path = folder / f"{id_}.output"
    stored = bytearray(path.read_bytes())
    stored[-1] ^= 1
    path.write_bytes(stored)
    with pytest.raises(KavachError, match="changed"):
        store.release(id_, by="Asha")
    assert store.entry(id_).state == "approved"


def test_a_file_put_in_the_place_of_another_is_not_released(folder):
    store = QuarantineStore(folder, key=KEY)
    first, second = put(store), put(store, {"stdout": b"other"})
    store.approve(first, by="Asha")
    (folder / f"{first}.output").write_bytes((folder / f"{second}.output").read_bytes())
    with sqlite3.connect(folder / "index.sqlite") as index:
        index.execute("UPDATE entries SET digest = (SELECT digest FROM entries WHERE id = ?)", (second,))
    index.close()
    with pytest.raises(KavachError, match="decrypted"):
        store.release(first, by="Asha")


def test_a_move_that_cannot_be_recorded_does_not_happen(folder):
    def refuse(move):
        if move.state == "approved":
            raise KavachError("the audit log is full")

    store = QuarantineStore(folder, record=refuse)
    id_ = put(store)
    with pytest.raises(KavachError, match="audit log"):
        store.approve(id_, by="Asha")
    assert [move.state for move in store.entry(id_).moves] == ["quarantined"]


def test_an_output_that_cannot_be_recorded_is_not_stored(folder):
    def refuse(move):
        raise KavachError("the audit log is full")

    with pytest.raises(KavachError, match="audit log"):
        put(QuarantineStore(folder, record=refuse))
    assert outputs(folder) == []
    assert QuarantineStore(folder).entries() == ()


def test_every_move_is_recorded_once(folder):
    moves = []
    store = QuarantineStore(folder, record=lambda move: moves.append((move.state, move.by)))
    id_ = put(store)
    store.approve(id_, by="Asha")
    store.release(id_, by="Ben")
    assert moves == [("quarantined", "gate"), ("approved", "Asha"), ("released", "Ben")]


def test_what_is_older_than_the_store_keeps_is_deleted_by_sweep(folder):
    clock = Clock()
    store = QuarantineStore(folder, max_age_s=3600, clock=clock)
    old = put(store)
    clock.now += 3000
    new = put(store)
    clock.now += 1000
    assert store.sweep() == (old,)
    assert [store.entry(id_).state for id_ in (old, new)] == ["deleted", "quarantined"]
    assert store.entry(old).moves[-1].by == "retention"
    assert outputs(folder) == [f"{new}.output"]


def test_the_oldest_make_room_and_decided_ones_first(folder):
    clock = Clock()
    store = QuarantineStore(folder, max_bytes=3500, clock=clock)
    ids = []
    for _ in range(3):
        ids.append(put(store, {"stdout": bytes(1000)}))
        clock.now += 1
    store.approve(ids[1], by="Asha")
    store.release(ids[1], by="Asha")
    ids.append(put(store, {"stdout": bytes(1000)}))
    assert [store.entry(id_).state for id_ in ids] == ["quarantined", "deleted", "quarantined", "quarantined"]
    clock.now += 1
    ids.append(put(store, {"stdout": bytes(1000)}))
    assert [store.entry(id_).state for id_ in ids][:3] == ["deleted", "deleted", "quarantined"]
    assert len(outputs(folder)) == 3


def test_an_output_larger_than_the_store_is_refused_and_nothing_is_deleted_for_it(folder):
    store = QuarantineStore(folder, max_bytes=2000)
    kept = put(store, {"stdout": bytes(1000)})
    with pytest.raises(KavachError, match="fit"):
        put(store, {"stdout": bytes(3000)})
    assert store.entry(kept).state == "quarantined"


@pytest.mark.parametrize("content", [{"stdout": "text"}, {1: b"x"}, {"stdout": None}])
def test_content_that_is_no_bytes_by_name_is_refused(folder, content):
    with pytest.raises(ConfigError):
        put(QuarantineStore(folder), content)
    assert outputs(folder) == []


@pytest.mark.parametrize("limits", [{"max_age_s": -1}, {"max_bytes": "much"}, {"max_age_s": True}])
def test_limits_that_make_no_sense_are_refused(folder, limits):
    with pytest.raises(ConfigError):
        QuarantineStore(folder, **limits)


def test_sweep_removes_what_a_crash_left_and_nothing_that_is_being_written(folder):
    clock = Clock()
    store = QuarantineStore(folder, clock=clock)
    kept = put(store)
    for name, age in (("aa.output", 7200), ("bb.output.tmp", 7200), ("cc.output.tmp", 10), ("notes.txt", 7200)):
        (folder / name).write_bytes(b"x")
        os.utime(folder / name, (clock.now - age,) * 2)
    store.sweep()
    assert set(outputs(folder)) == {f"{kept}.output", "cc.output.tmp", "notes.txt"}


def test_writers_in_many_threads_lose_nothing(folder):
    store = QuarantineStore(folder)
    failed = []

    def write() -> None:
        try:
            for _ in range(3):
                store.approve(put(store), by="Asha")
        except KavachError as error:
            failed.append(error)

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert {entry.state for entry in store.entries()} == {"approved"}
    assert len(outputs(folder)) == 12


def test_only_one_of_two_who_decide_at_once_wins(folder):
    store = QuarantineStore(folder)
    id_ = put(store)
    won = []

    def decide(verb: str) -> None:
        with contextlib.suppress(LifecycleError):
            getattr(store, verb)(id_, by=verb)
            won.append(verb)

    threads = [threading.Thread(target=decide, args=("approve",)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert won == ["approve"]


def test_an_index_of_a_later_version_is_left_alone(folder):
    put(QuarantineStore(folder))
    with sqlite3.connect(folder / "index.sqlite") as index:
        index.execute("PRAGMA user_version = 9")
    index.close()
    with pytest.raises(KavachError, match="later version"):
        QuarantineStore(folder)


def test_a_broken_index_is_one_clear_error(folder):
    folder.mkdir(mode=0o700)
    (folder / "index.sqlite").write_bytes(b"not a database, " * 100)
    with pytest.raises(KavachError, match="index"):
        QuarantineStore(folder)
