"""`AuditLog`: what a sandbox, and whoever else must be believed later, writes to.

Enforces: `append` returns when the record is in the chain, or raises, and then there is no record. Does not: encrypt,
or hide what it is given: a payload is for the eyes of whoever reads the log, so it holds digests and masked findings,
never output or secrets (`kavach.audit.payload` makes such payloads). Safe to call from any thread and after a fork. May
be used by: users, kavach.sandbox, kavach.cli.
"""

from __future__ import annotations

import os
import re
import time
import weakref
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self

from kavach.audit.canonical import canonical_json
from kavach.audit.chain import Chain
from kavach.audit.clock import utc_text
from kavach.audit.flush import Flusher
from kavach.audit.key import AuditKey, KeyRing, take_key
from kavach.audit.links import RESERVED_PREFIX
from kavach.errors import AuditError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from kavach.audit.head import ChainHead
    from kavach.audit.signing import SigningKey
    from kavach.audit.verify import Verified

__all__ = ["AppendedRecord", "AuditLog"]

_EVENT = re.compile(r"[a-z][a-z0-9_.]{0,63}\Z")
_LEAST_ROTATE_BYTES = 4096
_logs: weakref.WeakSet[AuditLog] = weakref.WeakSet()


class AppendedRecord(NamedTuple):
    """A record that is in the chain.

    Args:
        serial: its number, from 0.
        mac: its MAC, in hex.
    """

    serial: int
    mac: str


class AuditLog:
    """A chain of records in a file; `with AuditLog(...) as log` closes it.

    Args:
        path: the file; its folder must be there. Beside it: `.head`, `.checkpoints`, `.torn-*`, closed files `.000000`.
        key: 32 random bytes or more; or one of the next two. There is no default.
        key_file: a file of 64 hex digits or more, readable by its owner alone.
        key_source: called once; returns the bytes.
        old_keys: keys that the chain has been written under before.
        fsync: `batch`: on the disk within 100 ms; `always`: before `append` returns.
        rotate_bytes: a file of this size is closed and another one begun; None = never.
        checkpoint_key: signs a checkpoint now and then; None = none.
        checkpoint_every: how many records there are between two checkpoints.
        record_argv: records of commands hold the arguments, not only their digest.
        clock_ns: returns the time, nanoseconds since 1970.

    Raises:
        ConfigError: an argument is wrong.
        AuditError: the log cannot be opened or begun, or its end does not hold.
        UnsupportedError: this platform has no `flock`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        key: bytes | None = None,
        key_file: str | os.PathLike[str] | None = None,
        key_source: Callable[[], bytes] | None = None,
        old_keys: Iterable[bytes] = (),
        fsync: Literal["batch", "always"] = "batch",
        rotate_bytes: int | None = None,
        checkpoint_key: SigningKey | None = None,
        checkpoint_every: int = 1000,
        record_argv: bool = False,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        if fsync not in {"batch", "always"}:
            raise ConfigError("fsync: expected 'batch' or 'always'", key="fsync")
        if rotate_bytes is not None and (not isinstance(rotate_bytes, int) or rotate_bytes < _LEAST_ROTATE_BYTES):
            raise ConfigError(f"rotate_bytes: expected None or {_LEAST_ROTATE_BYTES} or more", key="rotate_bytes")
        if not isinstance(checkpoint_every, int) or isinstance(checkpoint_every, bool) or checkpoint_every < 1:
            raise ConfigError("checkpoint_every: expected a number >= 1", key="checkpoint_every")
        self.path: str = os.path.abspath(os.fspath(path))
        self.record_argv = record_argv
        self._always = fsync == "always"
        self._ring = KeyRing([take_key(key, key_file, key_source), *old_keys])
        self._clock_ns = clock_ns
        self._chain = Chain(self.path, self._ring, clock_ns=clock_ns, rotate_bytes=rotate_bytes)
        self._checkpoint_key = checkpoint_key
        self._checkpoint_every = checkpoint_every
        self._flusher = Flusher(self._chain)
        self._is_closed = False
        self._chain.open()
        self._plan_checkpoint(self._chain.head.count)
        self._finalizer = weakref.finalize(self, _let_go, self._flusher, self._chain, os.getpid())
        _logs.add(self)

    def append(
        self,
        event: str,
        *,
        sandbox_id: str | None = None,
        agent_id: str | None = None,
        payload: Mapping[str, Any] | None = None,
        durable: bool = False,
    ) -> AppendedRecord:
        """Add one record to the chain; when this returns, it is there.

        Args:
            event: what happened: lower-case words with dots, not beginning with `chain.`.
            sandbox_id: to which sandbox.
            agent_id: on behalf of which agent.
            payload: what is known of it, as JSON values; at most 1 MiB.
            durable: on the disk before this returns, whatever `fsync` says.

        Raises:
            ConfigError: the event or the payload cannot be recorded.
            AuditError: it could not be written and nothing was, or a checkpoint after it could not; no output may be
                released.
        """
        if not isinstance(event, str) or _EVENT.match(event) is None or event.startswith(RESERVED_PREFIX):
            raise ConfigError(f"event: expected words like 'exec.intent', got {event!r:.80}", key="event")
        for name, value in (("sandbox_id", sandbox_id), ("agent_id", agent_id)):
            if value is not None and not isinstance(value, str):
                raise ConfigError(f"{name}: expected str, got {type(value).__name__}", key=name)
        text = canonical_json(dict(payload or {}))
        self._require_open()
        place = self._chain.append(event, sandbox_id, agent_id, text, durable=durable or self._always)
        if not self._always:
            self._flusher.note()
        if self._checkpoint_key is not None and place.records >= self._next_checkpoint:
            self._sign(place, self._checkpoint_key)
        return AppendedRecord(place.records - 1, place.mac)

    @classmethod
    def take(cls, given: object) -> AuditLog | None:
        """Return the log that a configuration holds, or None.

        Raises:
            ConfigError: it is something else.
            AuditError: it is closed.
        """
        if given is None:
            return None
        if not isinstance(given, cls):
            raise ConfigError(f"$.audit: expected an AuditLog, got {type(given).__name__}", key="$.audit")
        given._require_open()  # noqa: SLF001 - this class's own
        return given

    def head(self) -> ChainHead:
        """Return how many records there are and the MAC of the last: what to keep elsewhere.

        Raises:
            AuditError: the log cannot be read.
        """
        self._require_open()
        return self._chain.place()

    def sync(self) -> None:
        """Return when every record so far is on the disk.

        Raises:
            AuditError: the disk refused; nothing can be recorded from now on.
        """
        self._require_open()
        self._chain.sync()

    def rotate_key(self, key: bytes) -> AppendedRecord:
        """Let the next record be written under another key; a record under the old one says so.

        Other processes that have this log open can append again when they have been given the new key.

        Raises:
            ConfigError: it is no key.
            AuditError: it could not be recorded; the old key stays in force.
        """
        self._require_open()
        place = self._chain.rotate_key(AuditKey(key))
        return AppendedRecord(place.records - 1, place.mac)

    def verify(self) -> Verified:
        """Check every record there is; see `verify_log`.

        Raises:
            AuditError: a check does not hold; `.index` and `.check` name it.
        """
        from kavach.audit.verify import verify_log

        public = self._checkpoint_key.public if self._checkpoint_key is not None else None
        return verify_log(self.path, self._ring, checkpoint_key=public)

    def close(self) -> None:
        """Put every record on the disk and let the files go; idempotent.

        Raises:
            AuditError: the disk refused.
        """
        if not self._is_closed:
            self._is_closed = True
            self._finalizer.detach()
            self._flusher.stop()
            self._chain.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<AuditLog {self.path}>"

    def _sign(self, place: ChainHead, key: SigningKey) -> None:
        from kavach.audit.checkpoint import append_checkpoint

        append_checkpoint(self.path, self._chain.head.chain, place, utc_text(self._clock_ns()), key)
        self._plan_checkpoint(place.records)

    def _plan_checkpoint(self, records: int) -> None:
        self._next_checkpoint = (records // self._checkpoint_every + 1) * self._checkpoint_every

    def _require_open(self) -> None:
        if self._is_closed:
            raise AuditError(f"{self.path}: the log is closed", check="open")

    def _after_fork(self) -> None:
        self._chain.abandon()
        self._flusher = Flusher(self._chain)
        self._finalizer.detach()
        self._finalizer = weakref.finalize(self, _let_go, self._flusher, self._chain, os.getpid())


def _let_go(flusher: Flusher, chain: Chain, owner: int) -> None:
    """Close a log that nobody closed, in the process that opened it; nobody is there to be told."""
    if os.getpid() == owner:
        flusher.stop()
        try:
            chain.close()
        except AuditError:
            return


def _abandon_all() -> None:
    for log in list(_logs):
        log._after_fork()  # noqa: SLF001 - this module's own class


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_abandon_all)
