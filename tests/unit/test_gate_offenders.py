"""Sums fade, tiers act as written, what is held stays until a person lifts it, and all of it survives a restart."""

from __future__ import annotations

import os
import sqlite3
import threading

import pytest

from kavach.errors import ConfigError, KavachError
from kavach.gate.offenders import OffenderTracker, Standing
from kavach.gate.threat import Assessment, Tier, assess, classify
from kavach.model.verdict import Finding, Severity


class Clock:
    now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def assessment(intent: float) -> Assessment:
    threat_class = classify(intent)
    return Assessment(intent, (), 1.0, threat_class, list(Tier)[list(type(threat_class)).index(threat_class)])


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tracker(tmp_path, clock) -> OffenderTracker:
    return OffenderTracker(tmp_path / "offenders.sqlite", clock=clock)


@pytest.mark.parametrize(
    ("intents", "tier"),
    [
        ([1.0, 0.49], Tier.LOG),
        ([1.0, 0.5], Tier.ALERT),
        ([1.0, 1.0, 0.99], Tier.ALERT),
        ([1.0, 1.0, 1.0], Tier.SUSPEND),
        ([0.5] * 6, Tier.SUSPEND),
        ([1.0] * 5 + [0.99], Tier.SUSPEND),
        ([1.0] * 6, Tier.REVOKE),
    ],
)
def test_sums_reach_the_tiers_at_half_once_and_twice_the_threshold(tracker, intents, tier):
    for intent in intents:
        standing = tracker.add("a", assessment(intent))
    assert standing.tier is tier
    assert tracker.tier("a") is tier
    assert standing.sum_after == pytest.approx(sum(intents))
    assert standing.sum_before == pytest.approx(sum(intents[:-1]))


def test_one_printed_key_does_not_suspend(tracker):
    key = Finding(
        id="1", scanner="secrets", rule="aws", category="aws", severity=Severity.CRITICAL, message="m", stream="stdout",
        start=0, end=20, evidence="e",
    )  # fmt: skip
    assert tracker.add("a", assess([key], redacted=["1"])).tier is Tier.LOG
    assert tracker.add("a", assess([key])).tier is Tier.LOG


def test_benign_work_never_adds_up(tracker):
    for _ in range(200):
        standing = tracker.add("a", assessment(0.19))
    assert standing == Standing(Tier.LOG, 0.0, 0.0)


def test_half_is_left_after_half_a_window_and_nothing_after_a_whole_one(tracker, clock):
    tracker.add("a", assessment(1.0))
    clock.now += 1800
    assert tracker.standing("a").sum_after == pytest.approx(0.5)
    clock.now += 1799
    assert tracker.standing("a").sum_after == pytest.approx(0.25, abs=1e-3)
    clock.now += 2
    assert tracker.standing("a").sum_after == 0.0


def test_clock_set_back_makes_nothing_weigh_more(tracker, clock):
    tracker.add("a", assessment(1.0))
    clock.now -= 86400
    assert tracker.standing("a").sum_after == pytest.approx(1.0)


def test_agents_are_counted_apart(tracker):
    for _ in range(6):
        tracker.add("a", assessment(1.0))
    assert tracker.tier("b") is Tier.LOG


def test_history_survives_a_restart(tracker, tmp_path, clock):
    tracker.add("a", assessment(1.0))
    again = OffenderTracker(tmp_path / "offenders.sqlite", clock=clock)
    assert again.standing("a").sum_after == pytest.approx(1.0)
    for _ in range(2):
        again.add("a", assessment(1.0))
    assert OffenderTracker(tmp_path / "offenders.sqlite", clock=clock).tier("a") is Tier.SUSPEND


@pytest.mark.parametrize(("count", "tier"), [(3, Tier.SUSPEND), (6, Tier.REVOKE)])
def test_suspension_and_revocation_stand_until_a_person_lifts_them(tracker, clock, count, tier):
    for _ in range(count):
        tracker.add("a", assessment(1.0))
    clock.now += 100_000
    assert tracker.standing("a").sum_after == 0.0
    assert tracker.tier("a") is tier
    lifted = tracker.reinstate("a", "ana")
    assert lifted.tier is Tier.LOG
    assert tracker.tier("a") is Tier.LOG


def test_revocation_is_not_softened_by_a_later_small_offence(tracker, clock):
    for _ in range(6):
        tracker.add("a", assessment(1.0))
    clock.now += 100_000
    assert tracker.add("a", assessment(0.3)).tier is Tier.REVOKE


def test_who_reinstated_stays_on_record(tracker, tmp_path):
    for _ in range(3):
        tracker.add("a", assessment(1.0))
    assert tracker.reinstate("a", "ana") == Standing(Tier.LOG, pytest.approx(3.0), 0.0)
    with sqlite3.connect(tmp_path / "offenders.sqlite") as file:
        rows = file.execute("SELECT agent_id, tier, by FROM reinstated").fetchall()
    file.close()
    assert rows == [("a", 3, "ana")]


def test_file_is_its_owner_s_alone(tracker, tmp_path):
    assert os.stat(tmp_path / "offenders.sqlite").st_mode & 0o777 == 0o600


def test_link_in_the_file_s_place_is_refused(tmp_path):
    (tmp_path / "real").write_bytes(b"")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(KavachError, match="cannot be opened"):
        OffenderTracker(tmp_path / "link")


@pytest.mark.parametrize("content", [b"no database at all, but long enough to be looked at as one" * 20, None])
def test_file_of_somebody_else_is_refused(tmp_path, content):
    path = tmp_path / "x"
    if content is None:
        with sqlite3.connect(path) as file:
            file.execute("CREATE TABLE t (a)")
        file.close()
    else:
        path.write_bytes(content)
    with pytest.raises(KavachError):
        OffenderTracker(path)


def test_missing_folder_raises_and_guesses_no_tier(tracker, tmp_path):
    with pytest.raises(KavachError):
        OffenderTracker(tmp_path / "absent" / "x")
    (tmp_path / "offenders.sqlite").unlink()
    (tmp_path / "offenders.sqlite").mkdir()
    with pytest.raises(KavachError):
        tracker.tier("a")


def test_threads_lose_no_offence(tmp_path, clock):
    tracker = OffenderTracker(tmp_path / "o", clock=clock, threshold=1000.0)
    threads = [threading.Thread(target=lambda: [tracker.add("a", assessment(1.0)) for _ in range(5)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert tracker.standing("a").sum_after == pytest.approx(20.0)


@pytest.mark.parametrize(
    "given",
    [
        {"window_s": 0},
        {"decay": 0.0},
        {"decay": 1.5},
        {"threshold": -1.0},
        {"threshold": float("nan")},
        {"window_s": True},
    ],
)
def test_wrong_limit_is_refused(tmp_path, given):
    with pytest.raises(ConfigError):
        OffenderTracker(tmp_path / "o", **given)


@pytest.mark.parametrize("name", ["", "a\x1b[2J", "x" * 257, None])
def test_wrong_name_is_refused(tracker, name):
    for act in (
        lambda: tracker.tier(name),
        lambda: tracker.add(name, assessment(1.0)),
        lambda: tracker.reinstate("a", name),
    ):
        with pytest.raises(ConfigError):
            act()
