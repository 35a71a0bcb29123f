"""What both pools share: the claimed sandbox, building, the background thread, counting.

Guarantees: what is handed out was seen alive, with a child standing behind the whole wall, and is younger than
`max_age_s`; a sandbox that fails a look is destroyed, never handed out. Does not: wait for claims. May be called by:
kavach.pool.
"""

from __future__ import annotations

import math
import os
import threading
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from kavach.audit.metrics import PROCESS
from kavach.errors import ConfigError, KavachError, LifecycleError
from kavach.model.given import make_config
from kavach.model.state import SandboxState
from kavach.pool.ledger import Kept, Ledger, Ticket
from kavach.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Callable

    from kavach.model.config import SandboxConfig

_LOOK_S = 1.0  # how often age and health are looked at, and claims that were forgotten are noticed
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 30.0  # protects a host on which building fails


class PoolMetrics(NamedTuple):
    """What a pool has done.

    Args:
        hits: claims that got a warm sandbox.
        misses: claims that built their own.
        waits: claims that had to wait for their turn.
        wait_ms_total: from claim to sandbox, building included, over all claims.
        wait_ms_max: the longest of them.
        made: sandboxes built in the background.
        discarded: sandboxes destroyed because they were too old or failed the look before a claim.
        failures: builds in the background that failed; `SandboxPool.last_error` is the last one.
        ready: sandboxes that stand now.
        claimed: sandboxes that are handed out now.
    """

    hits: int
    misses: int
    waits: int
    wait_ms_total: float
    wait_ms_max: float
    made: int
    discarded: int
    failures: int
    ready: int
    claimed: int


class PooledSandbox(Sandbox):
    """A sandbox of a pool: leaving its `with` block gives it back, which ends its life in a pool for single use."""

    stock: Stock | None = None
    made_s: float = 0.0

    def __exit__(self, *_: object) -> None:
        if self.stock is None:
            self.destroy()
        else:
            self.stock.give_back(self)

    def destroy(self) -> None:
        """Leave nothing behind, from any state; idempotent; the pool's room is free again."""
        try:
            super().destroy()
        finally:
            if self.stock is not None and self.stock.is_own:
                self.stock.ledger.give_up(self)

    @property
    def is_fit(self) -> bool:
        """Whether it runs, its wall stands, and the next command is as near to its start as the wall can bring it."""
        return self.state is SandboxState.RUNNING and self._wall.is_alive() and getattr(self._wall, "is_warm", True)


class Stock:
    """The sandboxes of one pool, and the thread that makes and unmakes them."""

    def __init__(
        self,
        config: SandboxConfig | None,
        fields: dict[str, Any],
        *,
        warm: int,
        max_size: int | None,
        max_age_s: float | None,
        single_use: bool,
    ) -> None:
        self.config: SandboxConfig = make_config(config, fields)
        _require_count("warm", warm, least=0)
        if max_size is not None:
            _require_count("max_size", max_size, least=max(1, warm))
        if max_age_s is not None and not _is_positive(max_age_s):
            raise ConfigError(f"max_age_s: expected seconds above 0 or None, got {max_age_s!r}", key="max_age_s")
        if not isinstance(single_use, bool):
            raise ConfigError(f"single_use: expected bool, got {type(single_use).__name__}", key="single_use")
        self._max_age_s = max_age_s
        self.single_use = single_use
        self._owner = os.getpid()
        self._wake = threading.Event()
        self._changed = threading.Condition()
        self.ledger: Ledger[PooledSandbox] = Ledger(
            warm=warm, max_size=max_size, is_fit=self._is_fit, on_change=self._note_change
        )
        self._warm = warm
        self._counts = dict.fromkeys(("hits", "misses", "waits", "made", "discarded", "failures"), 0)
        self._waited_ms: tuple[float, float] = (0.0, 0.0)
        self._count_lock = threading.Lock()
        self.last_error: KavachError | None = None
        # An unusable configuration is refused here, in the caller's own thread; `auto` is resolved once.
        trial = PooledSandbox(self.config)
        self.config = trial.config
        trial.destroy()
        #: Set when nobody holds the pool any more; a plain attribute, because collection may interrupt any lock.
        self.is_forgotten = False
        self._wake.set()
        self._thread = threading.Thread(target=self._replenish, name="kavach-pool", daemon=True)
        self._thread.start()

    # ── claims ──

    def ask(self, wake: Callable[[], None]) -> Ticket[PooledSandbox]:
        """Return the claim's ticket, served or in the queue.

        Raises:
            LifecycleError: in a forked child of the pool's process.
        """
        self.require_owner()
        ticket: Ticket[PooledSandbox] = Ticket(wake)
        self.ledger.claim(ticket)
        return ticket

    def collect(self, ticket: Ticket[PooledSandbox], started_s: float) -> PooledSandbox:
        """Return a served ticket's sandbox, built here where it has to be.

        Raises:
            LifecycleError: the pool has closed.
            KavachError: the sandbox cannot be built.
        """
        if ticket.is_refused:
            raise LifecycleError("the pool is closed", state="closed", target="claim")
        sandbox = ticket.item
        if sandbox is None:
            try:
                sandbox = self._build(prewarm=False)
            except BaseException:
                self.ledger.built_for(None)
                raise
            self.ledger.built_for(sandbox)
        self._count_claim(ticket, (time.monotonic() - started_s) * 1000)
        return sandbox

    def refuse(self, ticket: Ticket[PooledSandbox]) -> None:
        """Give up a claim that nobody waits for any more, whatever it got meanwhile."""
        if self.ledger.withdraw(ticket) or ticket.is_refused:
            return
        if ticket.item is None:
            self.ledger.built_for(None)
        else:
            ticket.item.destroy()

    def give_back(self, sandbox: PooledSandbox) -> None:
        """Take a sandbox back: destroy it, or end what runs in it and keep it for the next claim; idempotent."""
        if not self.is_own:
            return
        if self.single_use or self.ledger.is_closed or sandbox.state is not SandboxState.RUNNING:
            sandbox.destroy()
            return
        if not self.ledger.give_back(sandbox):
            return
        kept = None
        try:
            sandbox.reap()
            sandbox.prewarm()  # ORDER: after everything has ended that could reach for the waiting child
            kept = Kept(sandbox, sandbox.made_s)
        except KavachError as error:
            self._note_failure(error)
        finally:
            stays = self.ledger.end_return(kept)
            if kept is None or not stays:
                sandbox.destroy()

    # ── the background ──

    def _replenish(self) -> None:
        pause_s = 0.0
        while not self.ledger.is_closed:
            self._wake.wait(pause_s or _LOOK_S)
            self._wake.clear()
            if self.is_forgotten:
                self._destroy_all(self.ledger.close())
                return
            self._destroy_all(self.ledger.take_unfit(self._is_old), count="discarded")
            pause_s = self._make_all(pause_s)

    def _make_all(self, pause_s: float) -> float:
        """Build what is missing; return how long to pause after a failure, 0 for none."""
        while self.ledger.begin_build():
            kept = None
            try:
                sandbox = self._build(prewarm=True)
                kept = Kept(sandbox, sandbox.made_s)
                pause_s = 0.0
            except KavachError as error:
                self._note_failure(error)
                pause_s = min(_LONGEST_PAUSE_S, pause_s * 2 or _FIRST_PAUSE_S)
            finally:
                stays = self.ledger.end_build(kept)
            if kept is None:
                self._wake.clear()
                return pause_s
            self._count("made")
            if not stays:
                kept.item.destroy()
        return 0.0

    def _destroy_all(self, sandboxes: list[PooledSandbox], *, count: str | None = None) -> None:
        for sandbox in sandboxes:
            if count is not None:
                self._count(count)
            try:
                sandbox.destroy()
            except KavachError as error:
                self._note_failure(error)

    def _build(self, *, prewarm: bool) -> PooledSandbox:
        sandbox = PooledSandbox(self.config)
        try:
            sandbox.transition(SandboxState.RUNNING)
            if prewarm:
                sandbox.prewarm()
        except BaseException:
            sandbox.destroy()
            raise
        sandbox.made_s = time.monotonic()
        sandbox.stock = self
        return sandbox

    def _is_fit(self, kept: Kept[PooledSandbox]) -> bool:
        return not self._is_old(kept) and kept.item.is_fit

    def _is_old(self, kept: Kept[PooledSandbox]) -> bool:
        return self._max_age_s is not None and time.monotonic() - kept.made_s >= self._max_age_s

    def _note_change(self) -> None:
        self._wake.set()
        with self._changed:
            self._changed.notify_all()

    def _note_failure(self, error: KavachError) -> None:
        self.last_error = error
        self._count("failures")

    # ── the end ──

    def wait_warm(self, timeout_s: float | None) -> bool:
        """Return whether as many stand as are to be kept, waiting for it at most `timeout_s`."""
        self.require_owner()
        return self._wait(lambda: self.ledger.counts()[0] >= self._warm, timeout_s)

    def drain(self, timeout_s: float | None) -> bool:
        """Refuse claims, destroy what stands, wait for what is claimed; whether all came back."""
        self.require_owner()
        self._destroy_all(self.ledger.close())
        self._wake.set()
        started_s = time.monotonic()
        self._thread.join(timeout_s)
        left_s = None if timeout_s is None else max(0.0, timeout_s - (time.monotonic() - started_s))
        return self._wait(lambda: self.is_empty, left_s)

    def close(self) -> None:
        """Destroy every sandbox of the pool, claimed ones too; idempotent; nothing in a forked child."""
        if not self.is_own:
            return
        self.drain(0)
        self._thread.join()
        self._destroy_all(self.ledger.claimed())

    def _wait(self, is_so: Callable[[], bool], timeout_s: float | None) -> bool:
        with self._changed:
            return self._changed.wait_for(is_so, timeout_s)

    @property
    def is_empty(self) -> bool:
        """Whether nothing stands, is handed out, or is on its way."""
        return not any(self.ledger.counts())

    @property
    def is_own(self) -> bool:
        """Whether this is the process that made the pool."""
        return os.getpid() == self._owner

    def require_owner(self) -> None:
        """Refuse a forked child: the sandboxes are its parent's.

        Raises:
            LifecycleError: this is not the process that made the pool.
        """
        if not self.is_own:
            raise LifecycleError(
                "this pool belongs to the process that made it; a fork of it makes its own",
                state="foreign",
                target="claim",
            )

    # ── counting ──

    def _count(self, name: str) -> None:
        with self._count_lock:
            self._counts[name] += 1

    def _count_claim(self, ticket: Ticket[PooledSandbox], waited_ms: float) -> None:
        with self._count_lock:
            self._counts["misses" if ticket.item is None else "hits"] += 1
            PROCESS.claim(hit=ticket.item is not None)
            self._counts["waits"] += ticket.has_waited
            total, longest = self._waited_ms
            self._waited_ms = (total + waited_ms, max(longest, waited_ms))

    def metrics(self) -> PoolMetrics:
        """Return what the pool has done so far."""
        ready, claimed, _ = self.ledger.counts()
        with self._count_lock:
            total, longest = self._waited_ms
            return PoolMetrics(**self._counts, wait_ms_total=total, wait_ms_max=longest, ready=ready, claimed=claimed)


def _require_count(name: str, value: object, *, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"{name}: expected an int of at least {least}, got {value!r}", key=name)


def _is_positive(value: object) -> bool:
    return not isinstance(value, bool) and isinstance(value, int | float) and math.isfinite(value) and value > 0
