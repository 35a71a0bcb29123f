"""Prints docs/plan-order.md: the launch plan of `strict`, lowered from the code for a made-up host.

    python tools/print_plan.py > docs/plan-order.md

The host is invented (`FakeHost`, two `Facts`), so that the output is the same on every machine; a test compares it
with the file that is checked in. Nothing is mounted, forked or confined.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from kavach.launcher import build, canary, child, negotiate
from kavach.launcher.facts import Facts
from kavach.launcher.groups import Group, LimitSpec
from kavach.launcher.lower import LaunchPlan, lower
from kavach.launcher.situation import INNER_ID, Situation
from kavach.launcher.view import HostFiles, plan_view
from kavach.linux import landlock_abi
from kavach.model.policy import SandboxPolicy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_WIDTH = 150  # of the arguments' column; what is longer ends in an ellipsis
_HEX_FROM = 1 << 12
_PHASES = {canary.BEFORE_LANDLOCK: "before Landlock", canary.AFTER_LANDLOCK: "after Landlock", canary.FINAL: "final"}
_HEAD = """\
# The order of the plan

Made by `tools/print_plan.py` from `kavach.launcher.lower`; do not edit. `tests/arch/test_docs_generated.py` compares.

What a sandbox does on its way to a command is data: a tuple of steps that the launcher hands to init
(`launcher/build.py`) and to each command child (`launcher/child.py`), who interpret it from top to bottom. The tables
show policy `strict` on an invented host with Landlock ABI {abi} on x86-64: once as root with a cgroup, once as a plain
user with one user id and no cgroup. `open_trees` is done by the launcher where it is root.

*Required*: a step that fails ends the sandbox before anything untrusted runs; the others are noted in the evidence.
*Refused as*: the control in the `UnsupportedError` when the kernel says that it is not permitted or not there; any
other errno, and a step with `-`, is a `LaunchError` that names the step.
"""


class FakeHost(HostFiles):
    """A merged-usr distribution, invented."""

    _LINKS = {"/bin": "usr/bin", "/sbin": "usr/sbin", "/lib": "usr/lib", "/lib64": "usr/lib64"}  # noqa: RUF012 - constant
    _THERE = ("/usr", "/etc/ld.so.cache", "/etc/ssl/certs", "/etc/localtime", "/dev/null", "/dev/zero", "/dev/urandom")

    def kind(self, path: str) -> str | None:
        """Return what the invented host has at `path`."""
        if path in self._LINKS:
            return "link"
        return "folder" if path in self._THERE else None

    def exists(self, path: str) -> bool:
        """Return whether the invented host has `path`."""
        return self.kind(path) is not None

    def link(self, path: str) -> str:
        """Return what an invented link says."""
        return self._LINKS[path]


def situation(*, root: bool) -> Situation:
    """Return the invented host's situation, for root with a cgroup or a plain user without one."""
    policy = SandboxPolicy.strict()
    fs, net, scopes, _ = landlock_abi.rights(landlock_abi.HIGHEST_ABI)
    facts = Facts(
        uid=0 if root else 1001,
        gid=0 if root else 1001,
        can_map_range=root,
        is_privileged=root,
        first_id=200_000 if root else 0,
        landlock=(fs, net, scopes),
        landlock_abi=landlock_abi.HIGHEST_ABI,
        machine="x86_64",
        python=(),
    )
    group = Group("plan", LimitSpec(memory_bytes=512 << 20, cpu_cores=1.0, max_pids=66), frozenset({0}))
    if root:
        group.states = dict.fromkeys(group.states, "enforced")
    view = plan_view(
        policy, host=FakeHost(), uid=INNER_ID, gid=INNER_ID, hostname="sb-plan", workdir=None, python=(), devices=(),
        extra=(),
    )  # fmt: skip
    return Situation(
        facts=facts,
        group=group,
        namespaces=negotiate.ALL,
        view=view,
        hostname="sb-plan",
        domainname="",
        own_workdir=True,
        scratch=None,
        slot=0,
        has_secret_files=False,
        listening=False,
    )


def render() -> str:
    """Return the whole document."""
    parts = [_HEAD.format(abi=landlock_abi.HIGHEST_ABI)]
    for title, root in (("As root, with a cgroup", True), ("As a plain user, without a cgroup", False)):
        plan = lower(SandboxPolicy.strict(), situation(root=root))
        parts += [f"\n## {title}\n", *_launcher(plan), *_steps(plan), *_canaries(plan)]
    return "\n".join(parts) + "\n"


def _launcher(plan: LaunchPlan) -> Iterator[str]:
    names = ", ".join(sorted(plan.namespaces))
    maps = plan.maps[0].decode().replace("\n", "; ")
    opened = f"opens {len(plan.trees)} trees (`open_trees`), " if plan.launcher_opens else ""
    yield f"The launcher {opened}clones init with the namespaces {names} (`clone`), and writes the id map `{maps}`"
    denied = " after denying setgroups" if plan.maps[2] else ""
    yield f"(inside outside count{denied}; `id_maps`). It reads init's namespaces while init is"
    yield "dumpable, then lets it go on.\n"


def _steps(plan: LaunchPlan) -> Iterator[str]:
    yield "| n | step | who | required | arguments | what it does | refused as |\n|---|---|---|---|---|---|---|"
    numbers = itertools.count(1)
    for who, steps, table in (("init", plan.init_steps, build.STEPS), ("child", plan.command_steps, child.STEPS)):
        for name, required, arguments in steps:
            word = name.decode()
            cells = (
                str(next(numbers)), f"`{word}`", who, "yes" if required else "no", _summary(word, arguments),
                _first_line(table[name]), negotiate._CONTROL_OF_STEP.get(word, "-"),  # noqa: SLF001 - the one table of it
            )  # fmt: skip
            yield "| " + " | ".join(cells) + " |"
    yield "\nThe child then says `standing`, is observed from outside, and waits for `go`, which brings argv,"
    yield "environment, cwd, descriptors and secrets; the last step is execve.\n"


def _canaries(plan: LaunchPlan) -> Iterator[str]:
    yield "Canaries that the child tries (`try_before`, `try_after`, `try_final`):\n"
    yield "| when | canary | act | with |\n|---|---|---|---|"
    for phase, name, act, *arguments in plan.canaries:
        cells = (_PHASES[int(str(phase))], _words(name), _words(act), _words(tuple(arguments)) or "-")
        yield "| " + " | ".join(cells) + " |"


def _first_line(step: Callable[..., None]) -> str:
    return (step.__doc__ or "").strip().splitlines()[0]


def _summary(name: str, arguments: tuple[object, ...]) -> str:
    if name in {"filter_init", "system_call_filter"}:
        return "a BPF program"
    number = oct if name in {"folders", "files", "niceness"} else _number
    text = _words(arguments[0] if len(arguments) == 1 else arguments, number)
    if len(text) > _WIDTH:
        text = text[:_WIDTH].rsplit(" ", 1)[0] + " ..."
    return text or "-"


def _number(value: int) -> str:
    return hex(value) if value >= _HEX_FROM else str(value)


def _words(value: object, number: Callable[[int], str] = _number) -> str:
    if isinstance(value, bytes):
        text = value.decode("ascii", "replace").replace("|", "\\|").replace("\n", "\\n")
        return f"`{text if len(text) <= 60 else text[:57] + '...'}`" if text else "(empty)"
    if isinstance(value, int):
        return number(value)
    if isinstance(value, tuple):
        rows = bool(value) and all(isinstance(one, tuple) for one in value)
        return ("; " if rows else " ").join(_words(one, number) for one in value)
    return str(value)


if __name__ == "__main__":
    print(render(), end="")
