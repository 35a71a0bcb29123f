"""The contract of every wall, as a class whose `test_` methods pytest collects from a subclass.

Guarantees: it uses the programs `true`, `false`, `echo`, `cat` and `sleep` alone, and no more than ten seconds a test.
Does not: depend on pytest. May be called by: tests of walls, here and in other distributions.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, ClassVar

from kavach.errors import KavachError, LifecycleError, UnsupportedError
from kavach.model.result import EndReason
from kavach.model.state import SandboxState
from kavach.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Callable

_SOON_S = 10.0


class WallContract:
    """Subclass it, name the wall, and let pytest collect the subclass.

    Attributes:
        backend: the name under which the wall is registered.
        policy: a policy that this host and this wall can hold.
        lacks: what the wall refuses with UnsupportedError: `run`, `spawn`, `files`. A wall that lacks `run` accepts
            commands, and says `not_run`.
    """

    backend: ClassVar[str]
    policy: ClassVar[str] = "minimal"
    lacks: ClassVar[frozenset[str]] = frozenset()

    def create(self, **fields: Any) -> Sandbox:  # noqa: ANN401 - typed by SandboxConfig
        """Return a sandbox behind the wall, not yet running."""
        return Sandbox(backend=self.backend, policy=self.policy, **fields)

    def test_command_ends_with_its_exit_code_and_output(self) -> None:
        """`echo` gives its words and 0, `false` gives 1."""
        with self.create() as sandbox:
            said, failed = sandbox.exec(["echo", "a", "b"]), sandbox.exec(["false"])
        if "run" in self.lacks:
            _expect(said.reason is EndReason.NOT_RUN and said.stdout == "", "a wall that runs nothing says so")
            return
        _expect((said.reason, said.exit_code, said.stdout) == (EndReason.EXIT, 0, "a b\n"), f"echo: {said.reason}")
        _expect((failed.reason, failed.exit_code) == (EndReason.EXIT, 1), f"false: {failed.exit_code}")

    def test_result_names_the_wall_and_an_observed_score(self) -> None:
        """The evidence is that of this wall."""
        with self.create() as sandbox:
            result = sandbox.exec(["true"])
        _expect(result.enforcement is not None, "a result carries its enforcement")
        _expect(getattr(result.enforcement, "backend", None) == self.backend, "the enforcement names the wall")
        _expect(0 <= int(result.score) <= 100, "a score is 0 to 100")
        _expect(result.sandbox_id == sandbox.id, "a result names its sandbox")

    def test_input_arrives_as_exact_bytes(self) -> None:
        """`cat` gives back every byte value."""
        if "run" in self.lacks:
            return
        content = bytes(range(256)) * 64
        with self.create() as sandbox:
            result = sandbox.exec(["cat"], stdin=content)
        _expect(result.stdout_bytes == content, f"{len(result.stdout_bytes)} of {len(content)} bytes came back")

    def test_absent_program_is_a_result_with_127(self) -> None:
        """A command that is not there is no exception."""
        if "run" in self.lacks:
            return
        with self.create() as sandbox:
            result = sandbox.exec(["no-such-program-anywhere"])
        _expect((result.reason, result.exit_code) == (EndReason.EXIT, 127), f"{result.reason} {result.exit_code}")

    def test_deadline_ends_the_command(self) -> None:
        """A timeout is a result, in time, and the sandbox lives on."""
        if "run" in self.lacks:
            return
        with self.create() as sandbox:
            started_s = time.monotonic()
            result = sandbox.exec(["sleep", "60"], timeout_s=0.2)
            _expect(time.monotonic() - started_s < _SOON_S, "a deadline is kept")
            _expect(result.timed_out and result.reason is EndReason.TIMEOUT, f"{result.reason}")
            _expect(sandbox.exec(["true"]).ok, "the sandbox lives on")

    def test_min_score_above_what_is_observed_refuses_the_run(self) -> None:
        """The observed strength counts, before the command starts."""
        with self.create(min_score=100) as sandbox:
            _expect_raises(UnsupportedError, lambda: sandbox.exec(["true"]))

    def test_spawned_command_is_polled_signalled_and_waited_for(self) -> None:
        """A handle tells whether the command runs, and ends it."""
        with self.create() as sandbox:
            if "spawn" in self.lacks:
                _expect_raises(UnsupportedError, lambda: sandbox.spawn(["sleep", "60"]))
                return
            process = sandbox.spawn(["sleep", "60"])
            _expect(process.poll() is None, "it runs")
            _expect(sandbox.processes() != (), "it is one of the sandbox's processes")
            result = process.terminate(grace_s=2)
            _expect(result.reason is EndReason.SIGNAL and not result.ok, f"terminate: {result.reason}")
            _expect(sandbox.process(process.pid).poll() is result, "its ending is kept")

    def test_spawned_command_reads_what_is_written_to_it(self) -> None:
        """Output is streamed while input is still open."""
        if "spawn" in self.lacks:
            return
        with self.create() as sandbox:
            process = sandbox.spawn(["cat"])
            process.stdin.write(b"one")
            chunks = process.stream()
            _expect(bytes(next(chunks)) == b"one", "a chunk comes before the end")
            process.close_stdin()
            _expect(process.wait(_SOON_S).stdout == "one", "the result has all of it")

    def test_files_are_written_read_listed_and_removed(self) -> None:
        """`sandbox.files` reaches the workspace, and refusals are KavachErrors."""
        with self.create() as sandbox:
            if "files" in self.lacks:
                _expect_raises(UnsupportedError, lambda: sandbox.files.read("/workspace/a"))
                return
            sandbox.files.mkdir("/workspace/d")
            sandbox.files.write("/workspace/d/f", b"\x00\xff")
            _expect(sandbox.files.read("/workspace/d/f") == b"\x00\xff", "bytes come back")
            _expect([entry.name for entry in sandbox.files.list("/workspace/d")] == ["f"], "it is listed")
            _expect_raises(KavachError, lambda: sandbox.files.remove("/workspace/d"))
            sandbox.files.remove("/workspace/d/f")
            sandbox.files.remove("/workspace/d")
            _expect_raises(KavachError, lambda: sandbox.files.read("/workspace/d/f"))

    def test_prewarming_changes_nothing_but_the_speed(self) -> None:
        """A warm command is a command."""
        with self.create() as sandbox:
            for _ in range(2):
                sandbox.prewarm()
                result = sandbox.exec(["echo", "warm"])
                _expect("run" in self.lacks or result.stdout == "warm\n", "a warm command gives its output")

    def test_life_cycle_is_real(self) -> None:
        """Pause, resume, stop and destroy; commands are refused where they must be."""
        sandbox = self.create()
        _expect_raises(LifecycleError, lambda: sandbox.exec(["true"]))
        sandbox.transition(SandboxState.RUNNING)
        sandbox.pause()
        _expect_raises(LifecycleError, lambda: sandbox.exec(["true"]))
        _expect(sandbox.health_check().ok, "a paused wall stands")
        sandbox.resume()
        _expect("run" in self.lacks or sandbox.exec(["true"]).ok, "a resumed sandbox runs commands")
        sandbox.stop()
        _expect_raises(LifecycleError, lambda: sandbox.exec(["true"]))
        sandbox.destroy()
        sandbox.destroy()
        _expect(sandbox.state is SandboxState.DESTROYED, "destroy is the end, and idempotent")
        _expect(not sandbox.health_check().ok, "a destroyed sandbox is not healthy")

    def test_destroy_ends_what_still_runs(self) -> None:
        """Nothing outlives its sandbox, and whoever waits for it is told."""
        if "spawn" in self.lacks:
            return
        sandbox = self.create()
        sandbox.transition(SandboxState.RUNNING)
        process = sandbox.spawn(["sleep", "60"])
        sandbox.destroy()
        _expect(not process.wait(_SOON_S).ok, "the command did not end well")

    def test_metrics_count_commands(self) -> None:
        """What was done is counted."""
        with self.create() as sandbox:
            sandbox.exec(["true"])
            found = sandbox.metrics()
        _expect(found.commands == 1 and found.uptime_ms >= 0, f"{found.commands} commands")


def _expect(is_so: bool, words: str) -> None:  # noqa: FBT001 - an assertion
    if not is_so:
        raise AssertionError(words)


def _expect_raises(kind: type[KavachError], act: Callable[[], object]) -> None:
    try:
        act()
    except kind:
        return
    raise AssertionError(f"expected {kind.__name__}, nothing was raised")
