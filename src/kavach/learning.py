"""The smallest policy under which a command passes, found by running it.

Guarantees: each run is under the given policy and what earlier runs were refused, never behind an open door; what a
command could do harm with (writing to the host, its network) is granted only where the caller has said so; what is
proposed was seen to pass, and without any one of its changes seen not to. Does not: undo a deny rule, permit nesting,
add resources, keep a command from reading files that it asks for by name (its output is dropped), or know what a later
input would need. May be called by: users, kavach.cli.

    proposal = kavach.learning.learn(["make", "test"], policy="strict", writable=["/home/me/project/build"])
    print(proposal.policy_text)      # a profile: `extends = "strict"` and the changes
    proposal.passes, proposal.changes, proposal.unresolved, proposal.score_before, proposal.score_after

The command is run once for every round of refusals, and once for every change to see whether it is needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from kavach.errors import ConfigError, KavachError, UnsupportedError
from kavach.model.given import make_config
from kavach.model.paths import is_at_or_below, path_problem
from kavach.model.policy import SandboxPolicy
from kavach.model.result import Denial
from kavach.model.score import StrengthScore
from kavach.model.validate import Model
from kavach.policy.learn import apply_change, propose
from kavach.policy.profiles import dump_profile
from kavach.policy.strength import score_backend
from kavach.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kavach.model.command import Argv
    from kavach.model.result import ExecResult

__all__ = ["Proposal", "learn"]

MAX_ROUNDS = 64  # protects the caller against a command that asks for something else each time


class Proposal(Model, frozen=True, kw_only=True):
    """The policy that was found.

    Args:
        policy: the given policy with the changes.
        policy_text: it as a TOML profile.
        changes: each as `Denial.change` writes it, in the order in which they were found.
        passes: whether the command succeeded under it.
        exit_code: of the last run.
        attempts: everything that was refused on the way, each once.
        unresolved: what was still refused in the last run of a command that does not pass: no change of the policy
            allows it, or none that was to be tried.
        rounds: how often the command was run.
        score_before: the strength asked for by the given policy.
        score_after: the strength asked for by the proposed one.
    """

    policy: SandboxPolicy
    policy_text: str
    changes: tuple[str, ...]
    passes: bool
    exit_code: int | None
    attempts: tuple[Denial, ...]
    unresolved: tuple[Denial, ...]
    rounds: int
    score_before: StrengthScore
    score_after: StrengthScore


def learn(
    argv: Argv,
    *,
    policy: SandboxPolicy | str = "basic",
    writable: Iterable[str] = (),
    network: bool = False,
    stdin: bytes | str | None = None,
    cwd: str | None = None,
    **fields: Any,  # noqa: ANN401 - typed by SandboxConfig
) -> Proposal:
    """Run a command under observation until it passes, and propose the smallest policy that lets it.

    Args:
        argv: as for `Sandbox.exec`; run many times, so what it does to a writable workdir is done many times.
        policy: what to start from: a policy, a preset's name, or a profile file.
        writable: host folders below which write rules may be tried; a write elsewhere stays refused and is listed.
        network: the host's network may be tried; else a refused connection stays refused and is listed.
        stdin: what each run reads.
        cwd: as for `Sandbox.exec`.
        fields: the fields of `SandboxConfig`; the wall is always the process wall.

    Returns:
        What was found; `passes` is False where no change of the policy lets the command succeed.

    Raises:
        ConfigError: an argument is wrong.
        UnsupportedError: this host cannot put a change in force that the command needs; says which, and in which
            run.
        KavachError: as for `Sandbox.exec`: the host lacks something, or the wall failed.
    """
    for name in ("why", "backend"):
        if name in fields:
            raise ConfigError(f"{name}: learning sets it itself; leave it out", key=f"$.{name}")
    start = SandboxPolicy.resolve(policy)
    make_config(None, {**fields, "policy": start})
    run = _Runs(argv, {"stdin": stdin, "cwd": cwd}, fields)
    changes, result = _grow(start, run, _Bounds(_folders(writable), network))
    if result.ok:
        changes = _prune(start, changes, run)
    found = _applied(start, changes)
    return Proposal(
        policy=found,
        policy_text=dump_profile(found),
        changes=changes,
        passes=result.ok,
        exit_code=result.exit_code,
        attempts=tuple(run.seen.values()),
        unresolved=result.denials if not result.ok else (),
        rounds=run.count,
        score_before=score_backend("process", start),
        score_after=score_backend("process", found),
    )


class _Runs:
    """Runs the command under one policy after another, each time in a sandbox of its own."""

    def __init__(self, argv: Argv, options: dict[str, Any], fields: dict[str, Any]) -> None:
        self._argv = argv
        self._options = options
        self._fields = fields
        self.count = 0
        self.seen: dict[Denial, Denial] = {}

    def __call__(self, policy: SandboxPolicy) -> ExecResult:
        """Return how it ended."""
        self.count += 1
        with Sandbox(policy=policy, why=True, **self._fields) as sandbox:
            result = sandbox.exec(self._argv, **self._options)
        for denial in result.denials:
            self.seen.setdefault(denial, denial)
        return result


class _Bounds(NamedTuple):
    """What may be tried."""

    writable: tuple[str, ...]
    network: bool

    def include(self, before: SandboxPolicy, after: SandboxPolicy) -> bool:
        """Return whether a change from one policy to the other may be tried on this host."""
        if after.nested != before.nested or (after.network != before.network and not self.network):
            return False
        fresh = set(after.filesystem.write) - set(before.filesystem.write)
        return all(any(is_at_or_below(rule.path, one) for one in self.writable) for rule in fresh)


def _folders(given: Iterable[str]) -> tuple[str, ...]:
    folders = (given,) if isinstance(given, str) else tuple(given)
    for one in folders:
        problem = path_problem(one) if isinstance(one, str) else f"expected str, got {type(one).__name__}"
        if problem is not None:
            raise ConfigError(f"writable: {problem}", key="writable")
    return folders


def _grow(start: SandboxPolicy, run: _Runs, bounds: _Bounds) -> tuple[tuple[str, ...], ExecResult]:
    """Add what was refused until the command passes or nothing that was refused can be allowed."""
    changes: tuple[str, ...] = ()
    policy = start
    useless: set[str] = set()
    fitting: tuple[str, ...] = ()
    while True:
        try:
            result = run(policy)
        except UnsupportedError as error:
            raise _explained(error, fitting, run.count) from error
        if result.ok or run.count >= MAX_ROUNDS:
            return changes, result
        more = propose(policy, result.denials, useless)
        fitting = tuple(one for one in more if _may_try(policy, one, bounds))
        useless.update(set(more) - set(fitting))
        if not fitting:
            return changes, result
        for one in fitting:
            policy = apply_change(policy, one)
        changes += fitting


def _explained(error: UnsupportedError, tried: tuple[str, ...], runs: int) -> UnsupportedError:
    """Return the refusal of a run, with the changes that brought it about where there are any."""
    if not tried:
        return error
    return UnsupportedError(
        f"run {runs} of learning: this host does not let {' and '.join(tried)} be put in force: {error}",
        control=error.control,
        needed=error.needed,
        found=error.found,
        hint=error.hint,
    )


def _may_try(policy: SandboxPolicy, change: str, bounds: _Bounds) -> bool:
    try:
        return bounds.include(policy, apply_change(policy, change))
    except KavachError:
        return False  # it contradicts what the given policy says


def _prune(start: SandboxPolicy, changes: tuple[str, ...], run: _Runs) -> tuple[str, ...]:
    """Leave out each change without which the command passes all the same."""
    kept = changes
    for one in changes:
        fewer = tuple(other for other in kept if other != one)
        policy = _applied(start, fewer)
        if policy == _applied(start, kept) or _passes(policy, run):
            kept = fewer
    return kept


def _passes(policy: SandboxPolicy, run: _Runs) -> bool:
    try:
        return run(policy).ok
    except KavachError:
        return False  # without this change the policy cannot even be put in force


def _applied(start: SandboxPolicy, changes: tuple[str, ...]) -> SandboxPolicy:
    policy = start
    for one in changes:
        policy = apply_change(policy, one)
    return policy
