"""What agents have done lately: a sum for each that fades, and the tiers it reaches.

Enforces: the window, decay and threshold that were given; a suspension or revocation, once reached, stands until a
person lifts it; all of it survives a restart. Does not: act or audit: whoever asks does (`kavach.sandbox`). A file that
cannot be read or written raises, and no tier is guessed. May be used by: kavach.sandbox, kavach.cli.
"""

from __future__ import annotations

import math
import os
import sqlite3
import time
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, NamedTuple

from kavach.errors import ConfigError, KavachError
from kavach.gate.threat import ThreatClass, Tier

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kavach.gate.threat import Assessment

__all__ = ["OffenderTracker", "Standing"]

_SCHEMA = 1
_TABLES = """
CREATE TABLE assessments (agent_id TEXT NOT NULL, at REAL NOT NULL, intent REAL NOT NULL) STRICT;
CREATE INDEX assessments_of ON assessments (agent_id, at);
CREATE TABLE held (agent_id TEXT PRIMARY KEY, tier INTEGER NOT NULL, at REAL NOT NULL) STRICT;
CREATE TABLE reinstated (agent_id TEXT NOT NULL, tier INTEGER NOT NULL, by TEXT NOT NULL, at REAL NOT NULL) STRICT;
"""
_HOLD = """
INSERT INTO held VALUES (?, ?, ?) ON CONFLICT (agent_id) DO UPDATE SET tier = max(tier, excluded.tier)
"""
_WAIT_S = 10.0  # how long one writer waits for another
_MAX_NAME = 256


class Standing(NamedTuple):
    """How an agent stands.

    Args:
        tier: what its sum asks for, or what is still held against it.
        sum_before: before what was just added; equal to `sum_after` where nothing was.
        sum_after: now.
    """

    tier: Tier
    sum_before: float
    sum_after: float


class OffenderTracker:
    """Adds up what agents do; safe for any number of threads and processes.

    An assessment that is benign is logged by whoever made it and adds nothing here: a day of ordinary work must not
    come to a suspension. Tier 4 from twice the threshold, 3 from the threshold, 2 from half of it.

    Args:
        path: an SQLite file; made, readable by this user alone, if it is absent.
        window_s: what is older counts nothing.
        decay: what is left of an assessment after half a window.
        threshold: the sum at which an agent is suspended.
        clock: seconds since 1970, so that a sum goes on fading while nothing runs.

    Raises:
        ConfigError: an argument is wrong.
        KavachError: the file cannot be opened, or is not this tracker's.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        window_s: float = 3600.0,
        decay: float = 0.5,
        threshold: float = 3.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        for name, value, most in (("window_s", window_s, 1e9), ("decay", decay, 1.0), ("threshold", threshold, 1e6)):
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if not is_number or not math.isfinite(value) or not 0 < value <= most:
                raise ConfigError(f"{name}: expected more than 0 and at most {most:g}, got {value!r}", key=name)
        self._path = os.fspath(path)
        self._window_s, self._decay, self._threshold, self._clock = window_s, decay, threshold, clock
        self._make_private()
        with self._changing() as file:
            if file.execute("PRAGMA user_version").fetchone()[0] != _SCHEMA:
                raise KavachError("the offenders' file was written by another version of Kavach, or is none")

    def __repr__(self) -> str:
        return f"OffenderTracker(threshold={self._threshold:g}, window_s={self._window_s:g})"

    def add(self, agent_id: str, assessment: Assessment) -> Standing:
        """Add one run's assessment to an agent's sum and return how it stands now.

        Args:
            agent_id: whose run it was.
            assessment: what its findings come to.

        Raises:
            ConfigError: the agent's name is none.
            KavachError: it cannot be written; nothing was added.
        """
        agent = _name(agent_id, "agent_id")
        with self._changing() as file:
            now = self._clock()
            before = self._sum(file, agent, now)
            if assessment.threat_class is not ThreatClass.BENIGN:
                file.execute("INSERT INTO assessments VALUES (?, ?, ?)", (agent, now, assessment.intent))
            after = self._sum(file, agent, now)
            tier = max(self._tier_of(after), self._held(file, agent))
            if tier >= Tier.SUSPEND:
                file.execute(_HOLD, (agent, int(tier), now))
            file.execute("DELETE FROM assessments WHERE at < ?", (now - self._window_s,))
        return Standing(tier, before, after)

    def standing(self, agent_id: str) -> Standing:
        """Return how an agent stands; one that is unknown stands at tier 1.

        Args:
            agent_id: whose.

        Raises:
            ConfigError: the agent's name is none.
            KavachError: the file cannot be read.
        """
        agent = _name(agent_id, "agent_id")
        with self._changing() as file:
            total = self._sum(file, agent, self._clock())
            return Standing(max(self._tier_of(total), self._held(file, agent)), total, total)

    def tier(self, agent_id: str) -> Tier:
        """Return what an agent's sum asks for, or what is still held against it.

        Args:
            agent_id: whose.

        Raises:
            ConfigError: the agent's name is none.
            KavachError: the file cannot be read; whoever asks refuses then.
        """
        return self.standing(agent_id).tier

    def reinstate(self, agent_id: str, by: str) -> Standing:
        """Lift what is held against an agent and forget its sum; who did it stays on record.

        Args:
            agent_id: whose.
            by: the person who decided it.

        Returns:
            How it stood before and stands now.

        Raises:
            ConfigError: a name is none.
            KavachError: it cannot be written; nothing was lifted.
        """
        agent, person = _name(agent_id, "agent_id"), _name(by, "by")
        with self._changing() as file:
            now = self._clock()
            before = self._sum(file, agent, now)
            held = max(self._held(file, agent), self._tier_of(before))
            file.execute("INSERT INTO reinstated VALUES (?, ?, ?, ?)", (agent, int(held), person, now))
            file.execute("DELETE FROM assessments WHERE agent_id = ?", (agent,))
            file.execute("DELETE FROM held WHERE agent_id = ?", (agent,))
        return Standing(Tier.LOG, before, 0.0)

    def _sum(self, file: sqlite3.Connection, agent: str, now: float) -> float:
        rows = file.execute(
            "SELECT at, intent FROM assessments WHERE agent_id = ? AND at >= ?", (agent, now - self._window_s)
        ).fetchall()
        half = self._window_s / 2
        # A clock that was set back must not make the past weigh more than it did.
        return float(sum(intent * self._decay ** (max(0.0, now - at) / half) for at, intent in rows))

    def _tier_of(self, total: float) -> Tier:
        share = round(total / self._threshold, 9)  # three times 1.0 is 3.0, however floats add up
        return Tier.REVOKE if share >= 2 else Tier.SUSPEND if share >= 1 else Tier.ALERT if share >= 0.5 else Tier.LOG

    def _held(self, file: sqlite3.Connection, agent: str) -> Tier:
        row = file.execute("SELECT tier FROM held WHERE agent_id = ?", (agent,)).fetchone()
        return Tier(row[0]) if row is not None else Tier.LOG

    def _make_private(self) -> None:
        try:
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        except OSError as error:
            raise KavachError(f"the offenders' file cannot be opened: {os.strerror(error.errno or 0)}") from None

    @contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        """Hold the file for one change, whole or not at all."""
        try:
            with closing(sqlite3.connect(self._path, timeout=_WAIT_S, isolation_level=None)) as file:
                file.execute("BEGIN IMMEDIATE")
                try:
                    if file.execute("PRAGMA user_version").fetchone()[0] == 0 and _is_empty(file):
                        for statement in _TABLES.strip().split("\n"):
                            file.execute(statement)
                        file.execute(f"PRAGMA user_version = {_SCHEMA}")
                    yield file
                except BaseException:
                    file.execute("ROLLBACK")
                    raise
                file.execute("COMMIT")
        except sqlite3.Error as error:
            raise KavachError(f"the offenders' file cannot be used: {type(error).__name__}") from None


def _is_empty(file: sqlite3.Connection) -> bool:
    return bool(file.execute("SELECT count(*) = 0 FROM sqlite_master").fetchone()[0])


def _name(given: object, key: str) -> str:
    if not isinstance(given, str) or not given or len(given) > _MAX_NAME or not given.isprintable():
        raise ConfigError(f"{key}: expected printable text of 1 to {_MAX_NAME} characters", key=key)
    return given
