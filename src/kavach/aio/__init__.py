"""`AsyncSandbox`, `AsyncProcess` and `arun`: the sandbox under asyncio and trio, the same names, awaited.

Guarantees: one life cycle and one set of steps, those of kavach.sandbox; a cancelled exec has ended its command, with
all of its processes, before the cancellation goes on; no thread waits for a command. Does not: isolate or judge. May
be called by: users, kavach.pool.
"""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from kavach.aio.calls import in_thread, uninterrupted
from kavach.aio.drive import drive, end
from kavach.aio.files import AsyncSandboxFiles
from kavach.aio.process import AsyncInput, AsyncProcess, Taking
from kavach.errors import ConfigError
from kavach.model.given import UNSET, Unset
from kavach.model.state import SandboxState
from kavach.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from kavach.backends.base import Running
    from kavach.model.command import Argv, Command
    from kavach.model.config import SandboxConfig
    from kavach.model.enforcement import Enforcement
    from kavach.model.health import Health, Metrics
    from kavach.model.policy import SandboxPolicy
    from kavach.model.result import ExecResult
    from kavach.model.score import StrengthScore
    from kavach.process import Chunk
    from kavach.sandbox import Step
    from kavach.sandbox.passage import Passage

__all__ = ["AsyncInput", "AsyncProcess", "AsyncSandbox", "AsyncSandboxFiles", "arun"]

_SHELL = "/bin/sh"


class AsyncSandbox:
    """A `Sandbox` whose waits are awaited; many commands may run in it at once.

    Args:
        config: how it is made; instead of it, the fields of `SandboxConfig` as keywords. `backend="auto"` tries the
            walls in the calling thread; `create` does that in another.

    Raises:
        KavachError: as for `Sandbox`.
    """

    def __init__(self, config: SandboxConfig | None = None, /, **fields: Any) -> None:  # noqa: ANN401 - typed by SandboxConfig
        self._hold(Sandbox(config, **fields))

    def _hold(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._spawned: dict[int, AsyncProcess] = {}
        self.files: AsyncSandboxFiles = AsyncSandboxFiles(sandbox.files)

    @classmethod
    async def create(cls, config: SandboxConfig) -> Self:
        """Return a sandbox in state `created`; nothing has been built.

        Raises:
            KavachError: as for the class.
        """
        return cls.over(await in_thread(partial(Sandbox, config)))

    @classmethod
    def over(cls, sandbox: Sandbox) -> Self:
        """Return the awaited face of a sandbox; both faces are one sandbox."""
        made = cls.__new__(cls)
        made._hold(sandbox)  # noqa: SLF001 - this class's own
        return made

    @property
    def id(self) -> str:
        """This sandbox's id."""
        return self._sandbox.id

    @property
    def state(self) -> SandboxState:
        """The state it is in."""
        return self._sandbox.state

    @property
    def history(self) -> tuple[Step, ...]:
        """Every state it has been in, with the time in UTC."""
        return self._sandbox.history

    @property
    def config(self) -> SandboxConfig:
        """How it was made."""
        return self._sandbox.config

    @property
    def policy(self) -> SandboxPolicy:
        """The policy in force."""
        return self._sandbox.policy

    @property
    def requested_score(self) -> StrengthScore:
        """The strength that was asked for."""
        return self._sandbox.requested_score

    @property
    def enforcement(self) -> Enforcement | None:
        """What was seen in force for the last command; None before the first."""
        return self._sandbox.enforcement

    async def __aenter__(self) -> Self:
        # ORDER: no checkpoint for one that runs: a cancellation between a pool's claim and its block would lose it.
        if self._sandbox.state is SandboxState.CREATED:
            await in_thread(self._sandbox.__enter__, undo=self._destroy_undone)
        return self

    async def _destroy_undone(self, sandbox: Sandbox) -> None:
        await in_thread(sandbox.destroy)

    async def __aexit__(self, *_: object) -> None:
        left: list[None] = []

        def leave() -> None:
            if not left:  # a pool may have given the sandbox to somebody else when this is begun anew
                left.append(None)
                self._sandbox.__exit__(None, None, None)

        cancelled = await uninterrupted(lambda: in_thread(leave))
        if cancelled is not None:
            raise cancelled

    def __repr__(self) -> str:
        return f"<Async{repr(self._sandbox)[1:]}"

    async def transition(self, target: SandboxState) -> None:
        """Take one step of the life cycle, for real: when it returns, the new state is a fact.

        Raises:
            LifecycleError: no step leads there from here; nothing was changed.
            KavachError: the step could not be taken; the state is as before.
        """
        await in_thread(partial(self._sandbox.transition, target))

    async def pause(self) -> None:
        """Freeze every process; exec is refused until `resume`. Deadlines go on."""
        await in_thread(self._sandbox.pause)

    async def resume(self) -> None:
        """Let every process run on."""
        await in_thread(self._sandbox.resume)

    async def stop(self) -> None:
        """End every process; the files stay readable until `destroy`."""
        await in_thread(self._sandbox.stop)

    async def destroy(self) -> None:
        """Leave nothing behind, from any state; idempotent; done to its end even when cancelled."""
        await in_thread(self._sandbox.destroy)

    async def exec(
        self,
        argv: Argv,
        *,
        stdin: bytes | str | None = None,
        timeout_s: float | Unset | None = UNSET,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        reap: bool = False,
    ) -> ExecResult:
        """Run one command to its end and return what became of it; the steps are numbered in `Sandbox.exec`.

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
            KavachError: as for `Sandbox.exec`.
        """
        command = self._sandbox.command(argv, stdin=stdin, timeout_s=timeout_s, cwd=cwd, env=env)
        passage = await self._enter(command)
        with passage:
            raw = await drive(await in_thread(partial(self._sandbox.begin, passage), undo=end))
            result = await in_thread(partial(passage.conclude, raw))
        if reap:
            await in_thread(self._sandbox.reap)
        return result

    async def shell(self, text: str, **options: Any) -> ExecResult:  # noqa: ANN401 - those of exec
        """Run a text by /bin/sh inside the sandbox; options as for `exec`."""
        if not isinstance(text, str):
            raise ConfigError(f"shell: expected str, got {type(text).__name__}", key="text")
        return await self.exec([_SHELL, "-c", text], **options)

    async def spawn(
        self,
        argv: Argv,
        *,
        timeout_s: float | Unset | None = UNSET,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> AsyncProcess:
        """Start a command and return its handle; its output is drained in the background.

        Raises:
            KavachError: as for `exec`.
        """
        command = self._sandbox.command(argv, stdin=None, timeout_s=timeout_s, cwd=cwd, env=env)
        take = Taking(await self._enter(command))
        with take.passage:
            stdin, running = await self._begin(take)
        process = AsyncProcess(self._sandbox, stdin, take, running)
        self._spawned[process.pid] = process
        return process

    async def _enter(self, command: Command) -> Passage:
        async def abandon(passage: Passage) -> None:
            passage.abandon()

        return await in_thread(partial(self._sandbox.steps.enter, command), undo=abandon)

    async def _begin(self, take: Taking) -> tuple[AsyncInput, Running]:
        reader, writer = os.pipe2(os.O_CLOEXEC)
        stdin = AsyncInput(writer)
        try:
            begin = partial(self._sandbox.begin, take.passage, stdin=reader, on_chunk=take.take)
            return stdin, await in_thread(begin, undo=end)
        except BaseException:
            stdin.close()
            raise
        finally:
            os.close(reader)

    async def stream(self, argv: Argv, **options: Any) -> AsyncIterator[Chunk]:  # noqa: ANN401 - those of spawn
        """Yield a command's released output as it comes; closing the iterator early ends the command.

        A loop that is left by `break` closes the iterator when Python collects it; `contextlib.aclosing` does it at
        once.

        Raises:
            KavachError: as for `exec`.
        """
        process = await self.spawn(argv, **options)
        try:
            process.close_stdin()
            while (chunk := await process.next_chunk()) is not None:
                yield chunk
        finally:
            process.kill()
            cancelled = await uninterrupted(process.wait)
            if cancelled is not None:
                raise cancelled

    def process(self, pid: int) -> AsyncProcess:
        """Return the handle of a command that `spawn` started, by its pid inside; its ending is kept until destroy.

        Raises:
            ConfigError: no spawned command has or had that pid.
        """
        if pid not in self._spawned:
            raise ConfigError(f"pid: no spawned command {pid!r} in this sandbox", key="pid")
        return self._spawned[pid]

    async def processes(self) -> tuple[int, ...]:
        """Return the processes that live in the sandbox, as this host numbers them."""
        return await in_thread(self._sandbox.processes)

    async def health_check(self) -> Health:
        """Return whether the wall stands; running sandboxes are asked to run `true`."""
        return await in_thread(self._sandbox.health_check)

    async def metrics(self) -> Metrics:
        """Return what this sandbox has done and used so far."""
        return await in_thread(self._sandbox.metrics)

    async def prewarm(self) -> None:
        """Let a child stand behind the whole wall now, so that the next command costs one message and one execve."""
        await in_thread(self._sandbox.prewarm)


async def arun(
    argv: Argv,
    *,
    stdin: bytes | str | None = None,
    cwd: str | None = None,
    env: Mapping[str, str] | None = None,
    timeout_s: float | Unset | None = UNSET,
    **fields: Any,  # noqa: ANN401 - typed by SandboxConfig
) -> ExecResult:
    """Run one command in a sandbox of its own, and leave nothing behind, cancelled or not.

    Args:
        argv: program and arguments; a str is split as a POSIX shell would, and not run by one.
        stdin: all it can read; None = nothing.
        cwd: absolute, inside; default: the workspace.
        env: added to a clean environment.
        timeout_s: wall clock; None = no limit; default 30.
        fields: the fields of `SandboxConfig`.

    Raises:
        KavachError: as for `Sandbox` and `Sandbox.exec`.
    """
    sandbox = AsyncSandbox.over(await in_thread(partial(Sandbox, **fields)))
    async with sandbox:
        return await sandbox.exec(argv, stdin=stdin, cwd=cwd, env=env, timeout_s=timeout_s)
