"""Withheld outputs that wait for a person: stored, decided by name, released or deleted, nothing forgotten.

Enforces: quarantined -> approved -> released, or quarantined -> rejected -> deleted, each with who and when; an output
is stored whole or not at all; the index holds masked findings, never content. Does not: decide, print, or write the
audit log: whoever gives `record` does, and a move that cannot be recorded does not happen. May be used by:
kavach.sandbox and kavach.cli.
"""

from __future__ import annotations

import os
import re
import sqlite3
import time
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from kavach.errors import ConfigError, KavachError, LifecycleError
from kavach.gate.sealed_files import SealedFolder
from kavach.model.validate import Model
from kavach.model.verdict import Finding, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

__all__ = ["QuarantineEntry", "QuarantineMove", "QuarantineState", "QuarantineStore"]

QuarantineState = Literal["quarantined", "approved", "released", "rejected", "deleted"]

_NEXT: dict[str, frozenset[str]] = {
    "quarantined": frozenset({"approved", "rejected", "deleted"}),
    "approved": frozenset({"released", "rejected", "deleted"}),
    "released": frozenset({"released", "deleted"}),  # again: whoever released it may have lost it on the way
    "rejected": frozenset({"deleted"}),
    "deleted": frozenset(),
}
_SCHEMA = 1
_TABLES = """
CREATE TABLE entries (
    id TEXT PRIMARY KEY, sandbox_id TEXT NOT NULL, agent_id TEXT, verdict TEXT NOT NULL, state TEXT NOT NULL,
    findings BLOB NOT NULL, sizes BLOB NOT NULL, size_bytes INTEGER NOT NULL, digest TEXT NOT NULL,
    is_encrypted INTEGER NOT NULL, stored_at REAL NOT NULL
) STRICT;
CREATE TABLE moves (
    number INTEGER PRIMARY KEY, id TEXT NOT NULL REFERENCES entries (id), state TEXT NOT NULL, by TEXT NOT NULL,
    at REAL NOT NULL
) STRICT;
CREATE INDEX moves_of ON moves (id);
"""
_INSERT = """
INSERT INTO entries VALUES (:id, :sandbox_id, :agent_id, :verdict, :state, :findings, :sizes, :size_bytes, :digest,
    :is_encrypted, :stored_at)
"""
_INDEX = "index.sqlite"
_SUFFIX = ".output"
_ID = re.compile(r"[0-9a-f]{32}")
_WAIT_S = 10.0  # how long one writer waits for another
_UNFINISHED_AFTER_S = 3600.0  # a staged file this old has no writer any more
_SYSTEM = "retention"


class QuarantineMove(Model, frozen=True, kw_only=True):
    """One step of an entry's life.

    Args:
        id: the entry.
        state: what it became.
        by: who did it: a person's name, the gate, or `retention`.
        at_utc: when, ISO 8601.
    """

    id: str
    state: QuarantineState
    by: str
    at_utc: str


class QuarantineEntry(Model, frozen=True, kw_only=True):
    """What may be known of a withheld output without releasing it.

    Args:
        id: its name in the store.
        sandbox_id: the sandbox it came from.
        agent_id: whose sandbox it was, or None.
        verdict: what the gate said.
        state: where it stands.
        findings: masked.
        sizes: bytes by part: stdout, stderr, files by name.
        digest: SHA-256 of what is on the disk.
        is_encrypted: whether a key is needed to release it.
        stored_utc: when it was stored, ISO 8601.
        moves: who did what, oldest first.
    """

    id: str
    sandbox_id: str
    agent_id: str | None
    verdict: Verdict
    state: QuarantineState
    findings: tuple[Finding, ...]
    sizes: dict[str, int]
    digest: str
    is_encrypted: bool
    stored_utc: str
    moves: tuple[QuarantineMove, ...]


class QuarantineStore:
    """A folder of withheld outputs with an index. Safe to use from any thread and process.

    Args:
        folder: made if it is missing; must belong to this user alone.
        key: 32 bytes to encrypt outputs with, or None.
        max_age_s: `sweep` deletes outputs older than this; None = never.
        max_bytes: the oldest outputs are deleted, decided ones first, so that the rest fits; None = no limit.
        record: called with each move before it is made; what it raises prevents the move.
        clock: seconds since 1970.
        random: a source of random bytes.

    Raises:
        ConfigError: an argument is wrong, or the folder is not this user's alone.
        KavachError: the folder or its index cannot be opened.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        key: bytes | None = None,
        max_age_s: float | None = None,
        max_bytes: int | None = None,
        record: Callable[[QuarantineMove], None] | None = None,
        clock: Callable[[], float] = time.time,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        for name, limit in (("max_age_s", max_age_s), ("max_bytes", max_bytes)):
            if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int | float) or limit < 0):
                raise ConfigError(f"{name}: expected a number of 0 or more, got {limit!r}", key=name)
        self._files = SealedFolder(os.fspath(folder), key=key, random=random)
        self._max_age_s, self._max_bytes = max_age_s, max_bytes
        self._record, self._clock, self._random = record, clock, random
        with self._changing() as index:
            if index.execute("PRAGMA user_version").fetchone()[0] not in {0, _SCHEMA}:
                raise KavachError("the quarantine's index was written by a later version of Kavach")

    def put(
        self,
        content: Mapping[str, bytes],
        *,
        sandbox_id: str,
        verdict: Verdict,
        findings: Sequence[Finding],
        agent_id: str | None = None,
    ) -> str:
        """Store an output, whole or not at all, and return its id.

        Args:
            content: bytes by part: stdout, stderr, files by name.
            sandbox_id: where it came from.
            verdict: why it is here.
            findings: masked.
            agent_id: whose sandbox it was.

        Raises:
            ConfigError: a part is no bytes or has no name.
            KavachError: it is larger than the whole store may be, the disk is full, the folder cannot be written, or
                the move cannot be recorded; nothing of it was stored.
        """
        if not all(isinstance(name, str) and isinstance(part, bytes) for name, part in content.items()):
            raise ConfigError("content: expected bytes by the name of the part", key="content")
        packed = msgspec.msgpack.encode(dict(content))
        if self._max_bytes is not None and len(packed) > self._max_bytes:
            raise KavachError(f"an output of {len(packed)} bytes does not fit into a quarantine of {self._max_bytes}")
        id_ = self._random(16).hex()
        stored = self._files.stage(id_ + _SUFFIX, packed)
        row = {
            "id": id_,
            "sandbox_id": sandbox_id,
            "agent_id": agent_id,
            "verdict": verdict.value,
            "state": "quarantined",
            "findings": msgspec.json.encode(tuple(findings)),
            "sizes": msgspec.json.encode({name: len(part) for name, part in content.items()}),
            "size_bytes": stored.size_bytes,
            "digest": stored.digest,
            "is_encrypted": int(self._files.is_encrypting),
            "stored_at": self._clock(),
        }
        try:
            with self._changing() as index:
                index.execute(_INSERT, row)
                self._note(index, id_, "quarantined", "gate")
                self._files.publish(id_ + _SUFFIX)  # ORDER: inside the transaction, so that `sweep` sees both or none
        except BaseException:
            self._files.discard(id_ + _SUFFIX)
            raise
        self._make_room()
        return id_

    def entries(self, *, state: QuarantineState | None = None) -> tuple[QuarantineEntry, ...]:
        """Return what is known of every output, oldest first.

        Args:
            state: only those that stand here; None = all, deleted ones too.

        Raises:
            KavachError: the index cannot be read.
        """
        query = "SELECT * FROM entries WHERE ?1 IS NULL OR state = ?1 ORDER BY stored_at, id"
        with self._reading() as index:
            return tuple(_entry(index, row) for row in index.execute(query, (state,)).fetchall())

    def entry(self, id: str) -> QuarantineEntry:  # noqa: A002 - the word of the result and of the command line
        """Return what is known of one output.

        Raises:
            ConfigError: there is no such output.
            KavachError: the index cannot be read.
        """
        with self._reading() as index:
            return _entry(index, _row(index, id))

    def approve(self, id: str, *, by: str) -> None:  # noqa: A002 - as above
        """Let an output be released later.

        Args:
            id: the entry.
            by: who decides.

        Raises:
            ConfigError: there is no such output, or nobody is named.
            LifecycleError: it is decided already.
            KavachError: the index cannot be written, or the move cannot be recorded.
        """
        with self._changing() as index:
            self._move(index, id, "approved", by)

    def reject(self, id: str, *, by: str) -> None:  # noqa: A002 - as above
        """Decide that an output is never released, and delete it.

        Raises:
            ConfigError: there is no such output, or nobody is named.
            LifecycleError: it was released or deleted already.
            KavachError: the index cannot be written, or the move cannot be recorded.
        """
        with self._changing() as index:
            self._move(index, id, "rejected", by)
            self._move(index, id, "deleted", by)
        self._files.discard(id + _SUFFIX)  # ORDER: recorded first; what a crash leaves here, `sweep` removes

    def release(self, id: str, *, by: str) -> dict[str, bytes]:  # noqa: A002 - as above
        """Return an approved output by part.

        Raises:
            ConfigError: there is no such output, or nobody is named.
            LifecycleError: it was not approved.
            KavachError: it was changed on the disk or needs another key, or the move cannot be recorded.
        """
        with self._changing() as index:
            row = self._move(index, id, "released", by)
            packed = self._files.read(id + _SUFFIX, digest=row["digest"])
            return msgspec.msgpack.decode(packed, type=dict[str, bytes])

    def sweep(self) -> tuple[str, ...]:
        """Delete what is older than the store keeps, what does not fit, and what a crash left; return their ids.

        Raises:
            KavachError: the index or the folder cannot be written, or a move cannot be recorded.
        """
        gone = self._drop("stored_at < ?", self._clock() - self._max_age_s) if self._max_age_s is not None else ()
        gone += self._make_room()
        with self._changing() as index:
            kept = {row["id"] for row in index.execute("SELECT id FROM entries WHERE state != 'deleted'").fetchall()}
            for name, changed_at in self._files.names(_SUFFIX):
                is_staged = changed_at > self._clock() - _UNFINISHED_AFTER_S
                if name.removesuffix(_SUFFIX) not in kept and not is_staged:
                    self._files.discard(name)
        return gone

    def _drop(self, condition: str, value: float) -> tuple[str, ...]:
        with self._changing() as index:
            query = f"SELECT id FROM entries WHERE state != 'deleted' AND {condition}"  # noqa: S608 - our own words
            ids = tuple(str(row["id"]) for row in index.execute(query, (value,)).fetchall())
            for id_ in ids:
                self._move(index, id_, "deleted", _SYSTEM)
        return self._discard(ids)

    def _make_room(self) -> tuple[str, ...]:
        if self._max_bytes is None:
            return ()
        gone: list[str] = []
        with self._changing() as index:
            rows = index.execute(
                "SELECT id, size_bytes FROM entries WHERE state != 'deleted' "
                "ORDER BY state IN ('released', 'rejected') DESC, stored_at, id"
            ).fetchall()
            excess = sum(row["size_bytes"] for row in rows) - self._max_bytes
            for row in rows:
                if excess <= 0:
                    break
                self._move(index, row["id"], "deleted", _SYSTEM)
                gone.append(row["id"])
                excess -= row["size_bytes"]
        return self._discard(tuple(gone))

    def _discard(self, ids: tuple[str, ...]) -> tuple[str, ...]:
        for id_ in ids:
            self._files.discard(id_ + _SUFFIX)
        return ids

    def _move(self, index: sqlite3.Connection, id_: str, state: QuarantineState, by: str) -> sqlite3.Row:
        if not isinstance(by, str) or not by.strip() or not by.isprintable() or len(by) > 200:
            raise ConfigError("by: expected who decides, as 1 to 200 printable characters", key="by")
        row = _row(index, id_)
        if state not in _NEXT[row["state"]]:
            raise LifecycleError(
                f"quarantined output {id_} is {row['state']}; expected one that can become {state}",
                state=row["state"],
                target=state,
            )
        index.execute("UPDATE entries SET state = ? WHERE id = ?", (state, id_))
        self._note(index, id_, state, by)
        return row

    def _note(self, index: sqlite3.Connection, id_: str, state: QuarantineState, by: str) -> None:
        at = self._clock()
        index.execute("INSERT INTO moves (id, state, by, at) VALUES (?, ?, ?, ?)", (id_, state, by, at))
        if self._record is not None:
            self._record(QuarantineMove(id=id_, state=state, by=by, at_utc=_utc(at)))

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with _told(), closing(self._connect()) as index:
            yield index

    @contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        """Give one writer at a time the index; all it does happens, or nothing."""
        with _told(), closing(self._connect()) as index:
            index.execute("BEGIN IMMEDIATE")
            try:
                yield index
                index.execute("COMMIT")
            except BaseException:
                if index.in_transaction:
                    index.execute("ROLLBACK")
                raise

    def _connect(self) -> sqlite3.Connection:
        path = os.path.join(self._files.path, _INDEX)
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        os.close(os.open(path, flags, 0o600))  # SECURITY: sqlite would follow a link and make the file 0644
        index = sqlite3.connect(path, timeout=_WAIT_S, isolation_level=None)
        index.row_factory = sqlite3.Row
        index.execute("PRAGMA synchronous = FULL")
        index.execute("PRAGMA foreign_keys = ON")
        if index.execute("PRAGMA user_version").fetchone()[0] == 0:
            _create(index)
        return index


def _create(index: sqlite3.Connection) -> None:
    index.execute("BEGIN IMMEDIATE")
    if index.execute("PRAGMA user_version").fetchone()[0] == 0:
        for statement in _TABLES.split(";"):
            index.execute(statement)
        index.execute(f"PRAGMA user_version = {_SCHEMA}")
    index.execute("COMMIT")


def _row(index: sqlite3.Connection, id_: str) -> sqlite3.Row:
    row: Any = None
    if isinstance(id_, str) and _ID.fullmatch(id_):
        row = index.execute("SELECT * FROM entries WHERE id = ?", (id_,)).fetchone()
    if row is None:
        raise ConfigError("id: expected the id of a quarantined output, 32 hexadecimal digits", key="id")
    found: sqlite3.Row = row
    return found


def _entry(index: sqlite3.Connection, row: sqlite3.Row) -> QuarantineEntry:
    moves = index.execute("SELECT * FROM moves WHERE id = ? ORDER BY number", (row["id"],)).fetchall()
    return QuarantineEntry(
        id=row["id"],
        sandbox_id=row["sandbox_id"],
        agent_id=row["agent_id"],
        verdict=Verdict(row["verdict"]),
        state=row["state"],
        findings=msgspec.json.decode(row["findings"], type=tuple[Finding, ...]),
        sizes=msgspec.json.decode(row["sizes"], type=dict[str, int]),
        digest=row["digest"],
        is_encrypted=bool(row["is_encrypted"]),
        stored_utc=_utc(row["stored_at"]),
        moves=tuple(
            QuarantineMove(id=move["id"], state=move["state"], by=move["by"], at_utc=_utc(move["at"])) for move in moves
        ),
    )


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@contextmanager
def _told() -> Iterator[None]:
    """Turn errors of the index into one sentence that quotes no content."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        reason = getattr(error, "strerror", None) or getattr(error, "sqlite_errorname", type(error).__name__)
        raise KavachError(
            f"the quarantine's index could not be used: {reason}; nothing was changed",
            hint="free space, or make the folder writable for this user alone",
        ) from None
