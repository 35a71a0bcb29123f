"""Brings one process wall to its standing: limits, plan, init; with what the host gives and the policy demands.

Guarantees: returns a standing wall, or raises with nothing left. Does not: observe it (kavach.launcher.observe does).
May be called by: kavach.backends.process.
"""

from __future__ import annotations

import functools
import itertools
import os
from typing import TYPE_CHECKING, NamedTuple

from kavach.errors import ConfigError, UnsupportedError
from kavach.launcher import client, limits, negotiate
from kavach.launcher.devices import expand_families
from kavach.launcher.facts import IDS_A_SANDBOX, count_tasks, read_facts
from kavach.launcher.groups import LimitSpec
from kavach.launcher.lower import LaunchPlan, lower, may_lack
from kavach.launcher.prepared import StepError
from kavach.launcher.scratch import make_scratch, sweep_scratch
from kavach.launcher.situation import INNER_ID, Situation
from kavach.launcher.view import HostFiles, plan_view
from kavach.linux import trees
from kavach.model.secret import File

if TYPE_CHECKING:
    from kavach.launcher.groups import Group
    from kavach.model.config import SandboxConfig
    from kavach.model.policy import SandboxPolicy

_OVERHEAD_PIDS = 2  # init and one child that stands and waits
_slots = itertools.count()


@functools.cache
def limits_driver() -> limits.Driver:
    """Return the means of limits on this host; at first use what a crashed owner left is swept away."""
    driver = limits.choose_driver()
    limits.sweep(driver)
    sweep_scratch()
    return driver


class Built(NamedTuple):
    """A standing wall, what has to be removed with it, and the policy with device nodes in place of families."""

    standing: client.Standing
    plan: LaunchPlan
    group: Group
    scratch: str | None
    policy: SandboxPolicy


class Builder:
    """Builds one wall; use once."""

    def __init__(self, config: SandboxConfig, policy: SandboxPolicy, sandbox_id: str, *, listening: bool) -> None:
        self._config = config
        self._policy, self._beside = expand_families(policy, HostFiles())
        self._id = sandbox_id
        self._listening = listening
        self._scratch: str | None = None

    def build(self) -> Built:
        """Return the standing wall.

        Raises:
            UnsupportedError: this host lacks a control that the policy demands.
            LaunchError: a step failed.
            ConfigError: a path of the policy does not exist.
        """
        self._require_workdir()
        client.shared()  # ORDER: before the first cgroup or folder, which it removes should this process be killed
        group = self._make_group()
        try:
            standing, plan = self._stand(group)
        except BaseException:
            group.kill()
            group.remove()
            if self._scratch is not None:
                trees.remove_tree(self._scratch.encode())
            raise
        return Built(standing, plan, group, self._scratch, self._policy)

    def _require_workdir(self) -> None:
        folder = self._config.workdir
        if folder is not None and not os.path.isdir(folder):
            raise ConfigError(f"$.workdir: expected a folder that this user can reach, got {folder!r}", key="$.workdir")

    def _make_group(self) -> Group:
        asked = self._policy.limits
        memory = None if asked.memory_limit_mb is None else asked.memory_limit_mb << 20
        pids = None if asked.max_pids is None else asked.max_pids + _OVERHEAD_PIDS
        driver = limits_driver()
        spec = LimitSpec(memory_bytes=memory, cpu_cores=asked.cpu_limit, max_pids=pids)
        return driver.make(self._id, spec)

    def _stand(self, group: Group) -> tuple[client.Standing, LaunchPlan]:
        launcher = client.shared()
        names = negotiate.ALL - ({"net"} if self._policy.network.mode == "host" else set())
        if limits_driver().name == "cgroup2":
            # With nsdelegate an init in a cgroup namespace of its own could not clone into a command's leaf.
            names -= {"cgroup"}
        facts = read_facts()
        has_proc = True
        while True:
            plan = lower(self._policy, self._situation(group, names, has_proc=has_proc))
            try:
                return launcher.create(self._request(group, plan)), plan
            except StepError as error:
                if error.step == "clone" and names:
                    found = negotiate.find_namespaces(launcher, plan.maps) & names
                    negotiate.require_lackable(self._policy, names - found, os.strerror(error.errno))
                    if found == names:
                        raise negotiate.refusal(error, plan) from error
                    names = found
                elif error.step == "open_proc" and has_proc and may_lack(self._policy, "mount_view"):
                    has_proc = False
                elif (
                    negotiate.is_mounting_refused(error)
                    and "mnt" in names
                    and may_lack(self._policy, "mount_view")
                    and facts.landlock[0]
                ):
                    names -= {"mnt"}
                else:
                    raise negotiate.refusal(error, plan) from error

    def _situation(self, group: Group, names: frozenset[str], *, has_proc: bool) -> Situation:
        facts = read_facts()
        self._require_files_held(names, facts.landlock[0])
        slot = next(_slots) % (1024 // IDS_A_SANDBOX)
        if "mnt" not in names:
            self._place_scratch(slot)
        hostname = self._config.hostname or self._id
        python = self._python(facts.python)
        view = plan_view(
            self._policy,
            host=HostFiles(),
            uid=INNER_ID,
            gid=INNER_ID,
            hostname=hostname,
            workdir=self._config.workdir,
            python=python,
            devices=self._policy.devices,
            extra=self._beside,
            exposes_host="mnt" not in names or self._policy.filesystem.view == "all",
        )
        return Situation(
            facts=facts,
            group=group,
            namespaces=names,
            view=view,
            hostname=hostname,
            domainname=self._config.domainname or "",
            own_workdir=self._config.workdir is None,
            scratch=self._config.workdir if "mnt" not in names and self._config.workdir else self._scratch,
            slot=slot,
            has_secret_files=any(isinstance(ref.inject_via, File) for ref in self._config.secrets),
            listening=self._listening,
            has_proc=has_proc,
            user_tasks=count_tasks(facts.uid) if "user" not in names and not facts.can_map_range else 0,
        )

    def _place_scratch(self, slot: int) -> None:
        """Make the working folder that stands in for the view's; it belongs to the command."""
        facts = read_facts()
        if self._config.workdir is not None and facts.can_map_range:
            raise UnsupportedError(
                "without a mount view the workdir cannot be shown as the command's own; nothing was run",
                control="workdir",
                needed="a mount namespace",
                found="none",
                hint="leave workdir out and use sb.files, or run Kavach as the workdir's owner and not as root",
            )
        if self._scratch is None:
            self._scratch = make_scratch()
        if facts.can_map_range:
            outer = facts.first_id + IDS_A_SANDBOX * slot + 1
            os.chown(self._scratch, outer, outer)

    def _python(self, caller: tuple[str, ...]) -> tuple[str, ...]:
        asked = self._policy.filesystem.python
        if asked is None:
            return ()
        return caller if asked == "caller" else (asked,)

    def _require_files_held(self, names: frozenset[str], landlock_files: int) -> None:
        """Refuse where nothing would hold the files: strict wants Landlock, everyone wants one of the two."""
        held_by_view = "mnt" in names
        strict = self._policy.preset == "strict" and not self._policy.nested
        if landlock_files or may_lack(self._policy, "filesystem") or (held_by_view and not strict):
            return
        raise UnsupportedError(
            "this kernel has no Landlock, which the policy needs to hold files; nothing was run",
            control="filesystem",
            needed="Landlock ABI 1 (Linux 5.13, and landlock in the lsm= list)",
            found="no Landlock" if held_by_view else "no Landlock and no mount namespace",
            hint="use policy 'basic', which a mount view alone may hold, or a kernel with Landlock",
        )

    def _request(self, group: Group, plan: LaunchPlan) -> client.Request:
        if plan.separate_init:
            first = int(plan.maps[0].split()[1]) if plan.maps[0] else 0
            group.allow_init(first, first)
        return client.Request(
            flags=plan.flags,
            maps=plan.maps,
            sources=plan.trees if plan.launcher_opens else (),
            plan=plan.wire(),
            joins=tuple(path.encode() for path in group.join_paths()),
            folders=tuple(path.encode() for path in group.folders),
            scratch=() if self._scratch is None else (self._scratch.encode(),),
            cgroup_fd=-1 if group.init.dirfd is None else group.init.dirfd,
        )
