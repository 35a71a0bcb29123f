"""The Linux process wall: namespaces, Landlock, seccomp, limits, all of it seen in force before a command starts.

Guarantees: what `start` lets go runs behind every control that the policy asks for, but for those that `may_lack`
names; `destroy` returns when no process, mount, cgroup or file of the sandbox is left. Does not: release output. May
be called by: kavach.sandbox and its twins.
"""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time
from typing import TYPE_CHECKING

from kavach.backends.base import WallFacts
from kavach.backends.process_build import Builder, limits_driver
from kavach.backends.process_run import ProcessRun, SecretRow, inside, make_message
from kavach.errors import BackendError, LaunchError
from kavach.launcher import client, evidence, freeze, negotiate, observe
from kavach.launcher.filters import is_allow_list
from kavach.launcher.init import descendants
from kavach.launcher.lower import LaunchPlan
from kavach.launcher.prepared import StepError
from kavach.linux import trees
from kavach.model.result import Usage
from kavach.model.secret import File
from kavach.policy.require import require_standing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from kavach.credentials import Injection
    from kavach.launcher.groups import Group, Leaf
    from kavach.launcher.prepared import Prepared
    from kavach.launcher.watch import Watches
    from kavach.model.command import Command
    from kavach.model.config import SandboxConfig
    from kavach.model.enforcement import Enforcement
    from kavach.model.policy import SandboxPolicy

STAND_TIMEOUT_S = 20.0  # protects the caller from a host that swaps; a child stands within 0.003 s


class ProcessWall:
    """One sandbox behind the process wall.

    Args:
        config: validated.
        policy: the resolved policy of `config`.
        sandbox_id: letters, digits and `-`.
    """

    backend = "process"

    def __init__(self, config: SandboxConfig, policy: SandboxPolicy, sandbox_id: str) -> None:
        self._config = config
        self._policy = policy
        self._id = sandbox_id
        self._watches: Watches | None = None
        self._lock = threading.Lock()
        self._execs = itertools.count(1)
        self._standing: client.Standing | None = None
        self._group: Group | None = None
        self._plan: LaunchPlan | None = None
        self._scratch: str | None = None
        self._stopped: tuple[freeze.Stopped, ...] | None = None
        self._frozen_by_group = False
        self._mounts: tuple[tuple[bytes, bytes, bytes, bytes], ...] = ()
        self._interfaces: tuple[str, ...] | None = None
        self._init_ids: tuple[str, ...] = ()
        self._spare: tuple[Prepared, Leaf] | None = None
        self._commands_begun = self._commands_live = self._commands_at_spare = 0
        self._judged: tuple[object, Enforcement] | None = None
        self._first_outcomes: Mapping[tuple[str, int], int] | None = None
        self._owner = os.getpid()
        #: Counts how often every process of the sandbox was killed, so that a neighbour's end can be told apart.
        self.kills: int = 0
        client.shared()  # starts while the rest of the caller's way is gone; waited for in `build`

    def build(self) -> None:
        """Build the wall; nothing untrusted runs.

        Raises:
            UnsupportedError: this host lacks a control that the policy demands.
            LaunchError: a step failed.
            ConfigError: a path of the policy does not exist.
        """
        built = Builder(self._config, self._policy, self._id, listening=self._config.why).build()
        self._standing, self._plan, self._group, self._scratch, self._policy = built
        if self._config.why:
            from kavach.launcher.watch import Watches

            self._watches = Watches(self._policy, built.plan, built.group)
        self._mounts = evidence.read_mounts(built.standing.pid)
        self._interfaces = evidence.read_interfaces(built.standing.pid)
        self._init_ids = tuple(evidence.read_status(built.standing.pid).get("Uid", "").split())

    def prewarm(self) -> None:
        """Let a child stand now, so that the next `start` costs one message and one execve.

        While a command or what it left behind lives, none is kept: under the same uid it could reach for the child.
        """
        with self._lock:
            if self._spare is not None and self._is_unspoilt():
                return
            self._drop_spare()
            if self._commands_live or freeze.living(self._require_standing().pid):
                return
            # The spare stands in the leaf of the command that it will be, so that a kill of the leaf reaches it.
            leaf = self._leaf()
            try:
                self._spare = self._prepare(leaf), leaf
            except BaseException:
                leaf.remove()
                raise
            self._commands_at_spare = self._commands_begun

    @property
    def is_warm(self) -> bool:
        """Whether a child stands that the next command may be."""
        with self._lock:
            return self._spare is not None and self._is_unspoilt()

    def _is_unspoilt(self) -> bool:
        assert self._spare is not None  # noqa: S101 - asked of a spare only
        # SECURITY: a spare that any command could have reached is never used (process-traps 16).
        return self._commands_at_spare == self._commands_begun and not self._spare[0].has_ended()

    def _drop_spare(self) -> None:
        spare, self._spare = self._spare, None
        if spare is None:
            return
        if self._standing is not None:
            self._standing.signal(spare[0].inner_pid, signal.SIGKILL, group=False)
        spare[0].close()
        spare[1].remove()

    def start(
        self,
        command: Command,
        *,
        injection: Injection | None,
        check: Callable[[Enforcement], None],
        stdin: int | None,
        on_chunk: Callable[[bool, bytes], None] | None,
    ) -> ProcessRun:
        """Observe a child standing, let `check` refuse it, then let the command go.

        Raises:
            UnsupportedError: a control is not in force and `may_lack` does not name it.
            BackendError: the sandbox is gone.
            LaunchError: a step of the child failed.
        """
        plan = self._require_plan()
        message, secrets = make_message(command, plan, self._config.env, injection)
        return self._run(b"go", message, secrets, command.timeout_ms, stdin, command.stdin, check, on_chunk)

    def transfer(self, operation: tuple[bytes, ...], content: bytes | None) -> ProcessRun:
        """Do a file operation inside, with the command's own rights (kavach.launcher.fileops)."""
        plan = self._require_plan()
        workspace = plan.layout.workspace
        verb, path, *more = operation
        message = ((verb, inside(os.fsdecode(path), workspace), *more), (), workspace.encode())
        return self._run(operation[0], message, (), 60_000, None, content, lambda _: None, None, unlimited=True)

    def _run(
        self,
        verb: bytes,
        message: tuple[object, ...],
        secrets: tuple[SecretRow, ...],
        timeout_ms: int | None,
        stdin: int | None,
        content: bytes | None,
        check: Callable[[Enforcement], None],
        on_chunk: Callable[[bool, bytes], None] | None,
        *,
        unlimited: bool = False,
    ) -> ProcessRun:
        is_command = verb == b"go"
        spare = self._take_spare(is_command=is_command)
        leaf = None if spare is None else spare[1]
        try:
            leaf = self._leaf() if leaf is None else leaf
            prepared = self._prepare(leaf) if spare is None else spare[0]
            try:
                enforcement = self._observe(prepared)
                check(enforcement)
                return ProcessRun(
                    self,
                    prepared,
                    leaf,
                    enforcement,
                    verb=verb,
                    message=message,
                    secrets=secrets,
                    timeout_ms=timeout_ms,
                    stdin=stdin,
                    content=content,
                    limits=self._policy.limits,
                    unlimited=unlimited,
                    on_chunk=on_chunk,
                    on_end=self._note_end if is_command else None,
                )
            except BaseException:
                prepared.close()
                raise
        except BaseException:
            if leaf is not None:
                leaf.remove()
            if is_command:
                self._note_end()
            raise

    def _leaf(self) -> Leaf:
        assert self._group is not None  # noqa: S101 - start() needs a built wall
        return self._group.leaf(f"exec{next(self._execs)}")

    def _take_spare(self, *, is_command: bool) -> tuple[Prepared, Leaf] | None:
        with self._lock:
            if self._spare is not None and not self._is_unspoilt():
                self._drop_spare()
            spare, self._spare = self._spare, None
            self._commands_begun += is_command
            self._commands_live += is_command
        return spare

    def _note_end(self) -> None:
        with self._lock:
            self._commands_live -= 1

    def _prepare(self, leaf: Leaf) -> Prepared:
        standing = self._require_standing()
        fd = leaf.dirfd
        prepared = None
        try:
            prepared = standing.prepare(
                -1 if fd is None else fd,
                is_first=self._first_outcomes is None,
                on_listener=None if self._watches is None else self._watches.start,
            )
            prepared.wait_standing(STAND_TIMEOUT_S)
        except StepError as error:
            prepared.close() if prepared else None
            raise negotiate.refusal(error, self._require_plan()) from error
        except TimeoutError as error:
            prepared.close() if prepared else None
            raise LaunchError(
                "the command child did not stand in time; nothing was run", step="standing", errno=error.errno
            ) from error
        except OSError as error:
            prepared.close() if prepared else None
            raise BackendError("the sandbox's init has gone; expected it to stand", runtime="process") from error
        return prepared

    def _observe(self, prepared: Prepared) -> Enforcement:
        """Return what is in force for this child; raise where the policy does not let something be missing."""
        standing, plan, group = self._require_standing(), self._require_plan(), self._group
        assert group is not None  # noqa: S101 - start() needs a built wall
        try:
            sight = evidence.look(standing, prepared, standing.outside, self._mounts, self._interfaces, self._init_ids)
        except OSError as error:
            raise BackendError("the command child ended before it could be observed", runtime="process") from error
        # The first child of a sandbox has tried every canary, the later ones what concerns a child alone.
        sight = sight._replace(outcomes={**(self._first_outcomes or {}), **sight.outcomes})
        key = (sight.outcomes, sight.lost, {name: sight.status.get(name) for name in _STATUS_KEYS})
        if self._judged is None or self._judged[0] != key:
            enforcement = observe.judge(
                self._policy,
                plan,
                group,
                limits_driver().name,
                sight,
                allow_list=is_allow_list(self._policy.seccomp),
                bypass=self._config.workdir is not None,
                secret_files=_secret_files(self._config),
            )
            require_standing(enforcement, self._policy)
            self._judged = (key, enforcement)
            self._first_outcomes = sight.outcomes
        return self._judged[1]

    def kill_run(self, leaf: Leaf) -> None:
        """Kill one command's processes, or all of the sandbox where they cannot be told apart."""
        if not leaf.kill():
            self.kills += 1
            standing = self._standing
            if standing is None:
                return  # destroyed by another thread, which has killed everything
            standing.kill_all()
            if self._frozen_by_group:  # init is frozen too, and hears of it only when it is thawed
                freeze.kill_below(standing.pid)

    def give_up(self) -> None:
        """End the sandbox because a command could not be killed."""
        standing = self._standing
        # A frozen init reports no ending: that is no sign of a command that does not die.
        if standing is not None and not self._frozen_by_group:
            standing.kill()

    def send_signal(self, pid: int, number: int, *, group: bool) -> None:
        """Send a signal to a command by its pid inside."""
        self._require_standing().signal(pid, number, group=group)

    def pause(self) -> None:
        """Freeze every process and confirm it."""
        standing, group = self._require_standing(), self._group
        if group is not None and group.freeze():
            self._frozen_by_group = True
        else:
            self._stopped = freeze.freeze(standing.pid)

    def resume(self) -> None:
        """Continue every process."""
        self._require_standing()
        self._thaw()

    def _thaw(self) -> None:
        if self._frozen_by_group and self._group is not None:
            self._group.thaw()
        if self._stopped is not None:
            freeze.thaw(self._stopped)
        self._frozen_by_group, self._stopped = False, None

    def stop(self) -> None:
        """End every process but init; the files stay."""
        standing = self._require_standing()
        with self._lock:
            self._drop_spare()
        # ORDER: kill, then thaw: a frozen process dies of SIGKILL, and none runs on in between.
        freeze.kill_below(standing.pid)
        self._thaw()
        deadline = time.monotonic() + client.END_TIMEOUT_S
        while time.monotonic() < deadline:
            standing.kill_all()
            if not descendants(standing.pid):
                return
            time.sleep(0.005)
        raise BackendError("processes of the sandbox did not end", runtime="process")

    def destroy(self) -> None:
        """Leave nothing behind; idempotent."""
        with self._lock:
            spare, self._spare = self._spare, None
        if spare is not None:
            spare[0].close()
            spare[1].close()  # the group's removal takes the folder
        standing = self._standing
        if standing is not None and os.getpid() == self._owner:
            self._end(standing)  # ORDER: what does not end is kept, to be ended by a later call
        self._standing = None
        if standing is not None:
            standing.release()
        if os.getpid() != self._owner:
            return
        if self._watches is not None:
            self._watches.close()
        # With init its PID namespace has gone, so the groups are empty already wherever there was one.
        if self._group is not None and not self._group.remove(0):
            self._group.kill()
            self._group.remove()
        if self._scratch is not None:
            trees.remove_tree(self._scratch.encode())
        self._group = self._scratch = None

    def _end(self, standing: client.Standing) -> None:
        if self._plan is not None and "pid" not in self._plan.namespaces:
            below = descendants(standing.pid)
            standing.end_politely()
            if standing.wait_gone(client.END_TIMEOUT_S) and freeze.wait_ended(below, client.END_TIMEOUT_S):
                return
        standing.kill()
        if not standing.wait_gone(client.END_TIMEOUT_S):
            raise BackendError("the sandbox's processes did not end", runtime="process")

    def is_alive(self) -> bool:
        """Return whether init runs."""
        return self._standing is not None and self._standing.is_alive()

    def usage(self) -> Usage:
        """Return what the whole sandbox has used, as far as something counts it."""
        found = self._group.usage() if self._group is not None else None
        if found is None:
            return Usage()
        return Usage(
            cpu_time_ms=None if found.cpu_time_us is None else found.cpu_time_us / 1000,
            memory_peak_bytes=found.memory_peak_bytes,
            pids_peak=found.pids_peak,
            io_read_bytes=found.io_read_bytes,
            io_write_bytes=found.io_write_bytes,
        )

    def processes(self) -> tuple[int, ...]:
        """Return the processes below init but a waiting child of ours, as this host numbers them."""
        spare = self._spare
        mine = 0 if spare is None else spare[0].pid
        return tuple(pid for pid in freeze.living(self._require_standing().pid) if pid != mine)

    def facts(self) -> WallFacts | None:
        """Return what can be looked at from outside; None before it stands."""
        plan, group = self._plan, self._group
        if plan is None or group is None:
            return None
        return WallFacts(
            init_pid=self.init_pid,
            namespaces=plan.namespaces,
            has_filter=plan.has_filter,
            groups=group.folders,
            writable=("/workspace", "/tmp", "/dev/shm") if "mnt" in plan.namespaces else (),  # noqa: S108 - inside
            open_workspace=None if self.folder < 0 else lambda: os.dup(self.folder),
        )

    @property
    def folder(self) -> int:
        """Descriptor of the private workspace, for statvfs; -1 where it is none of ours."""
        # A host's folder would count its whole file system as this sandbox's memory.
        return -1 if self._standing is None or self._config.workdir is not None else self._standing.folder

    @property
    def init_pid(self) -> int:
        """Init, as this host numbers it."""
        return self._require_standing().pid

    @property
    def group(self) -> Group:
        """The limits' group."""
        assert self._group is not None  # noqa: S101 - only a built wall has runs
        return self._group

    def _require_standing(self) -> client.Standing:
        if self._standing is None:
            raise BackendError("the sandbox has no wall; expected it to stand", runtime="process")
        return self._standing

    def _require_plan(self) -> LaunchPlan:
        if self._plan is None:
            raise BackendError("the sandbox has no wall; expected it to stand", runtime="process")
        return self._plan


def _secret_files(config: SandboxConfig) -> tuple[str, ...] | None:
    """Return where secrets become files inside, None where there is no secret."""
    if not config.secrets:
        return None
    return tuple(ref.inject_via.path for ref in config.secrets if isinstance(ref.inject_via, File))


_STATUS_KEYS = ("NoNewPrivs", "Seccomp", "Seccomp_filters", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "Uid")
