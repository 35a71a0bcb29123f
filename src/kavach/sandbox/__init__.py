"""The sandbox: its life, and the six steps that every command goes through.

Guarantees: a command starts only in state `running`, behind a wall that was seen standing, at or above `min_score`; its
output leaves only through `gate.release`. Does not: isolate (backends do) or scan (the gate does). May be called by:
users, kavach.aio, kavach.pool, kavach.cli. Safe to call from any thread.

The steps are numbered in kavach.sandbox.passage; the documents cite the numbers.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import msgspec

from kavach.backends import create_backend, requested_score, resolve_best
from kavach.credentials import CredentialProxy, deliver
from kavach.errors import ConfigError, LifecycleError, UnsupportedError
from kavach.files import SandboxFiles
from kavach.launcher.pump import drive
from kavach.model.command import make_command, milliseconds
from kavach.model.config import SandboxConfig
from kavach.model.given import UNSET, Unset, make_config, require_available
from kavach.model.health import Health, Metrics
from kavach.model.policy import SandboxPolicy
from kavach.model.state import SandboxState, require_state, transition
from kavach.process import Process
from kavach.sandbox.steps import Steps, weakly

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from kavach.backends.base import Running, Wall
    from kavach.model.command import Argv, Command
    from kavach.model.enforcement import Enforcement
    from kavach.model.result import ExecResult, RawResult
    from kavach.model.score import StrengthScore
    from kavach.process import Chunk
    from kavach.sandbox.passage import Passage


class Step(NamedTuple):
    """One step in a sandbox's life."""

    state: SandboxState
    time_utc: str


class Sandbox:
    """A wall with a working folder behind it, in which commands are run until it is destroyed.

    `Sandbox(policy="strict")` is destroyed with its `with` block and is running inside it; `Sandbox.create(config)`
    returns one in state `created`.

    Args:
        config: how it is made; instead of it, the fields of `SandboxConfig` as keywords.

    Raises:
        ConfigError: a field is unknown or wrong; named by its path.
        PolicyError: the policy contradicts itself.
        BackendUnavailable: there is no such wall here.
        UnsupportedError: the configuration asks for what this version or this platform does not have.
    """

    def __init__(self, config: SandboxConfig | None = None, /, **fields: Any) -> None:  # noqa: ANN401 - typed by SandboxConfig
        self._config = make_config(config, fields)
        asked = self._config.policy
        self._policy = asked if isinstance(asked, SandboxPolicy) else SandboxPolicy.resolve(asked)
        require_available(self._config)
        if self._config.backend.lower() == "auto":
            self._config = msgspec.structs.replace(self._config, backend=resolve_best(self._policy)[0])
        self._id = f"sb-{os.urandom(6).hex()}"
        self._wall: Wall = create_backend(self._config, self._policy, self._id)
        requested = requested_score(self._config.backend, self._policy)
        #: What its commands share on their way; for kavach.process and kavach.aio.
        self.steps: Steps = Steps(self._config, self._policy, self._id, requested, weakly(self))
        self._lock = threading.RLock()
        self._state = SandboxState.CREATED
        self._owner = os.getpid()
        self._history: list[Step] = []
        known = {"backend": self._wall.backend, "policy": self._policy.preset, "requested_score": int(requested)}
        self._note(SandboxState.CREATED, **known)
        self._spawned: dict[int, Process] = {}
        self._enforcement: Enforcement | None = None
        self._finalizer = weakref.finalize(self, _destroy_forgotten, self._wall, self._owner)
        self._finalizer.atexit = False  # the launcher sees this process end and takes everything along

    @classmethod
    def create(cls, config: SandboxConfig) -> Self:
        """Return a sandbox in state `created`; nothing has been built.

        Raises:
            KavachError: as for the class.
        """
        return cls(config)

    @property
    def id(self) -> str:
        """This sandbox's id."""
        return self._id

    @property
    def state(self) -> SandboxState:
        """The state it is in."""
        return self._state

    @property
    def history(self) -> tuple[Step, ...]:
        """Every state it has been in, with the time in UTC."""
        return tuple(self._history)

    @property
    def files(self) -> SandboxFiles:
        """Its files, as a command sees them."""
        return SandboxFiles(self._transfer, self.steps.release_file)

    @property
    def config(self) -> SandboxConfig:
        """How it was made."""
        return self._config

    @property
    def policy(self) -> SandboxPolicy:
        """The policy in force."""
        return self._policy

    @property
    def requested_score(self) -> StrengthScore:
        """The strength that was asked for."""
        return self.steps.requested

    @property
    def enforcement(self) -> Enforcement | None:
        """What was seen in force for the last command; None before the first."""
        return self._enforcement

    def __enter__(self) -> Self:
        if self._state is SandboxState.CREATED:
            self.transition(SandboxState.RUNNING)
        return self

    def __exit__(self, *_: object) -> None:
        self.destroy()

    def __repr__(self) -> str:
        return f"<Sandbox {self._id} {self._state} {self._config.backend}>"

    def transition(self, target: SandboxState) -> None:
        """Take one step of the life cycle, for real: when it returns, the new state is a fact.

        Args:
            target: a state that one of the eight steps leads to.

        Raises:
            LifecycleError: no step leads there from here; nothing was changed.
            KavachError: the step could not be taken; the state is as before.
        """
        with self._lock:
            self._require_owner()
            if not isinstance(target, SandboxState):
                raise ConfigError(f"target: expected a SandboxState, got {type(target).__name__}", key="target")
            before = self._state
            transition(before, target)
            if target is SandboxState.DESTROYED:
                # ORDER: whatever cannot be recorded, nothing stays behind.
                _ACTS[target](self)
                self._note(target)
                self.steps.record_step(before, target)
                return
            self.steps.record_step(before, target)
            try:
                _ACTS[target](self)
            except BaseException:
                self.steps.record_step(target, before)
                raise
            self._note(target)
            if before is SandboxState.CREATED:
                self._begin_watch()

    def pause(self) -> None:
        """Freeze every process; exec is refused until `resume`. Deadlines go on."""
        self.transition(SandboxState.PAUSED)

    def resume(self) -> None:
        """Let every process run on."""
        self.transition(SandboxState.RUNNING)

    def stop(self) -> None:
        """End every process; the files stay readable until `destroy`."""
        self.transition(SandboxState.STOPPED)

    def destroy(self) -> None:
        """Leave nothing behind, from any state; idempotent."""
        with self._lock:
            if self._owner != os.getpid() or self._state is SandboxState.DESTROYED:
                return
            if self._state is SandboxState.CREATED:
                self._note(SandboxState.RUNNING)
            self.transition(SandboxState.DESTROYED)

    def exec(
        self,
        argv: Argv,
        *,
        stdin: bytes | str | None = None,
        timeout_s: float | Unset | None = UNSET,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        reap: bool = False,
    ) -> ExecResult:
        """Run one command to its end and return what became of it.

        Args:
            argv: program and arguments; a str is split as a POSIX shell would, and not run by one.
            stdin: all it can read; None = nothing.
            timeout_s: wall clock; None = no limit; default: the configuration's.
            cwd: absolute, inside; default: the workspace.
            env: added to the sandbox's environment.
            reap: end what the command leaves running in the background.

        Returns:
            The result: a non-zero exit, a signal, a timeout or a withheld output is a result, not an exception.

        Raises:
            ConfigError: an argument is wrong.
            LifecycleError: the sandbox is not running.
            UnsupportedError: a control that was asked for is not in force, or the strength is below min_score.
            CredentialError: a secret cannot be had.
            BackendError: the sandbox is gone.
            LaunchError: the command could not be brought to its start.
        """
        command = self.command(argv, stdin=stdin, timeout_s=timeout_s, cwd=cwd, env=env)
        passage = self.steps.enter(command)  # 1. intent, 2. guard
        with passage:
            raw = drive(self.begin(passage))  # 3. wall: it is seen standing, then the command starts
        result = passage.conclude(raw)  # 4. judge, 5. release, 6. outcome
        if reap:
            self.reap()
        return result

    def shell(self, text: str, **options: Any) -> ExecResult:  # noqa: ANN401 - those of exec
        """Run a text by /bin/sh inside the sandbox; options as for `exec`."""
        if not isinstance(text, str):
            raise ConfigError(f"shell: expected str, got {type(text).__name__}", key="text")
        return self.exec(["/bin/sh", "-c", text], **options)

    def spawn(
        self,
        argv: Argv,
        *,
        timeout_s: float | Unset | None = UNSET,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Process:
        """Start a command and return its handle at once; its output is drained in the background.

        Raises:
            KavachError: as for `exec`.
        """
        command = self.command(argv, stdin=None, timeout_s=timeout_s, cwd=cwd, env=env)
        return self._spawn(command)

    def stream(self, argv: Argv, **options: Any) -> Iterator[Chunk]:  # noqa: ANN401 - those of spawn
        """Yield a command's released output as it comes; leaving the loop early ends the command.

        Raises:
            KavachError: as for `exec`.
        """
        process = self.spawn(argv, **options)
        try:
            process.close_stdin()
            yield from process.stream()
        finally:
            process.kill()
            process.wait()

    def process(self, pid: int) -> Process:
        """Return the handle of a command that `spawn` started, by its pid inside; its ending is kept until destroy.

        Raises:
            ConfigError: no spawned command has or had that pid.
        """
        with self._lock:
            if pid not in self._spawned:
                raise ConfigError(f"pid: no spawned command {pid!r} in this sandbox", key="pid")
            return self._spawned[pid]

    def processes(self) -> tuple[int, ...]:
        """Return the processes that live in the sandbox, as this host numbers them."""
        with self._lock:
            require_state(self._state, (SandboxState.RUNNING, SandboxState.PAUSED), "list processes")
            return self._wall.processes()

    def health_check(self) -> Health:
        """Return whether the wall stands; running sandboxes are asked to run `true`."""
        started, error = time.monotonic(), None
        if self._state is SandboxState.RUNNING:
            result = self.exec(["true"], timeout_s=10)
            error = None if result.ok else f"true ended by {result.reason} with {result.exit_code}"
        elif self._state in {SandboxState.PAUSED, SandboxState.STOPPED}:
            error = None if self._wall.is_alive() else "the wall has gone"
        else:
            error = f"the sandbox is {self._state}"
        spent_ms = (time.monotonic() - started) * 1000
        return Health(ok=error is None, state=str(self._state), checked_utc=_now(), duration_ms=spent_ms, error=error)

    def metrics(self) -> Metrics:
        """Return what this sandbox has done and used so far."""
        with self._lock:
            alive = self._state in {SandboxState.RUNNING, SandboxState.PAUSED}
            processes = len(self._wall.processes()) if alive else None
            return self.steps.tally.metrics(time.monotonic(), processes=processes, usage=self._wall.usage())

    def prewarm(self) -> None:
        """Let a child stand behind the whole wall now, so that the next command costs one message and one execve."""
        with self._lock:
            require_state(self._state, (SandboxState.RUNNING,), "prewarm")
            self._wall.prewarm()

    def command(
        self,
        argv: Argv,
        *,
        stdin: bytes | str | None,
        timeout_s: float | Unset | None,
        cwd: str | None,
        env: Mapping[str, str] | None,
    ) -> Command:
        """Return the validated command of these arguments."""
        timeout_ms = self._config.timeout_ms if isinstance(timeout_s, Unset) else milliseconds(timeout_s)
        return make_command(argv, stdin=stdin, timeout_ms=timeout_ms, cwd=cwd, env=env)

    def begin(
        self,
        passage: Passage,
        *,
        stdin: int | None = None,
        on_chunk: Callable[[bool, bytes], None] | None = None,
    ) -> Running:
        """Step 3: the wall is observed standing, the secrets are handed over, the command is let go."""
        with self._lock:
            self._require_owner()
            require_state(self._state, (SandboxState.RUNNING,), "run a command")
        proxy = self._config.credentials
        with deliver(self._config.secrets, proxy if proxy is not None else CredentialProxy()) as injection:
            self.steps.know(injection)
            running = self._wall.start(
                passage.command, injection=injection, check=self._admit, stdin=stdin, on_chunk=on_chunk
            )
            passage.has_started = True
            return running

    def _admit(self, enforcement: Enforcement) -> None:
        """Remember and record what was seen; refuse a wall that is weaker than `min_score`."""
        self._enforcement = enforcement
        self.steps.admit(enforcement)
        least = self._config.min_score
        if least is not None:
            score = self.steps.score(enforcement)
            if int(score) < least:
                raise UnsupportedError(
                    f"the observed strength is {score}, below min_score {least}; nothing was run",
                    control="min_score",
                    needed=str(least),
                    found=str(int(score)),
                    hint="kavach score names the rows that would raise it",
                )

    def _spawn(self, command: Command) -> Process:
        process = Process(self, command)
        with self._lock:
            self._spawned[process.pid] = process
        return process

    def _transfer(self, operation: tuple[bytes, ...], content: bytes | None) -> RawResult:
        with self._lock:
            self._require_owner()
            require_state(self._state, (SandboxState.RUNNING, SandboxState.STOPPED), "reach files")
        return drive(self._wall.transfer(operation, content))

    def reap(self) -> None:
        """End every process that commands have left running in the background; the sandbox stays as it is."""
        with self._lock:
            if self._state is SandboxState.RUNNING:
                self._wall.stop()

    def _note(self, state: SandboxState, **known: object) -> None:
        if state is SandboxState.RUNNING and self._state is SandboxState.CREATED:
            facts = self._wall.facts()
            known["pid"] = None if facts is None else facts.init_pid
        self._state = state
        self._history.append(Step(state, _now()))
        self.steps.voice.enter(state, **known)

    def _require_owner(self) -> None:
        if os.getpid() != self._owner:
            raise LifecycleError(
                "this sandbox belongs to the process that made it; expected to be used there, not in a fork of it",
                state=str(self._state),
                target=str(self._state),
            )

    def _enter_running(self) -> None:
        if self._state is SandboxState.PAUSED:
            self._wall.resume()
            return
        try:
            self._wall.build()
        except UnsupportedError as error:
            self.steps.voice.refuse(error)
            raise
        self.steps.tally.started_s = time.monotonic()

    def _begin_watch(self) -> None:
        # ORDER: in state `running`, for the first look tries paths inside and may end the sandbox.
        if self.steps.watch is not None:
            self.steps.watch.begin_integrity(self._wall, self.files)

    def _enter_destroyed(self) -> None:
        if self.steps.watch is not None:
            self.steps.watch.end_integrity()
        self._wall.destroy()
        self._finalizer.detach()


_ACTS: dict[SandboxState, Callable[[Sandbox], None]] = {
    SandboxState.RUNNING: Sandbox._enter_running,  # noqa: SLF001 - this module's own class
    SandboxState.PAUSED: lambda sandbox: sandbox._wall.pause(),  # noqa: SLF001 - as above
    SandboxState.STOPPED: lambda sandbox: sandbox._wall.stop(),  # noqa: SLF001 - as above
    SandboxState.DESTROYED: Sandbox._enter_destroyed,  # noqa: SLF001 - as above
}


def _destroy_forgotten(wall: Wall, owner: int) -> None:
    if os.getpid() == owner:
        wall.destroy()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
