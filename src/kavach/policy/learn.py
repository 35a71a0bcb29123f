"""What the wall refused, in words and as the smallest change of the policy that would allow it. Pure.

Guarantees: a change is one line that `apply_change` understands and that widens the policy by what was refused, not by
more than the policy's words can say; a deny rule is never undone by `propose`; names that untrusted code chose are
escaped and cut before they stand in a sentence. Does not: observe (kavach.launcher.watch does) or decide whether a
change is wise. May be called by: the launcher's watch, kavach.learning, the CLI.
"""

from __future__ import annotations

import enum
import functools
import json
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from kavach.errors import ConfigError
from kavach.model.groups import PathRule, SeccompProfile
from kavach.model.paths import is_at_or_below, path_problem
from kavach.model.policy import GROUPS
from kavach.model.result import Denial
from kavach.model.validate import check
from kavach.policy.seccomp_oracle import judge_call
from kavach.policy.seccomp_rules import apply_options, load_profile

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kavach.model.policy import SandboxPolicy
    from kavach.policy.seccomp_rules import SeccompRules

__all__ = ["Access", "Attempt", "Cause", "apply_change", "describe", "propose"]

MAX_SHOWN = 200  # protects a model's context, and a terminal, against a name chosen to fill it


class Access(enum.StrEnum):
    """What a call wanted; the words are those of `Denial.what`."""

    LOOK = "look at"
    READ = "open"
    LIST = "list"
    WRITE = "open for writing"
    CREATE = "create"
    REMOVE = "remove"
    EXECUTE = "execute"
    CONNECT = "connect"
    CALL = "call"


class Cause(enum.StrEnum):
    """What stood in the way: the control, and how, in the words of `Denial.rule`."""

    FILTER = "seccomp"
    DENIED = "filesystem.deny"
    NOT_SHOWN = "mount_view: it is on the host and not shown inside"
    READ_ONLY = "mount_view: it is shown read-only"
    NO_EXECUTE = "mount_view: it is shown without the right to run it"
    LANDLOCK = "landlock: no rule of the policy covers it"
    MODE = "file mode: it is closed to the user id that commands run under"
    NO_ROUTE = "network: the sandbox has no network"
    NO_NAMES = "network: the sandbox has no name server"
    OTHER_HOST = "network: the sandbox's loopback is its own, the host's listener is not there"
    PORT = "landlock: no rule of the policy names the port"
    SCOPE = "landlock: it is a socket outside the sandbox"


class Attempt(NamedTuple):
    """One refused call.

    Args:
        access: what it wanted.
        cause: what stood in its way.
        call: the system call.
        target: path, host and port, or empty.
        place: path that a rule would have to name; empty where none can.
        open_to_command: whether the host's file would let the command's user id in, were it shown.
        port: of a connection.
        number: the call's number, for the filter.
        arguments: its registers, for the filter.
        reason: the filter's own words.
    """

    access: Access
    cause: Cause
    call: str
    target: str = ""
    place: str = ""
    open_to_command: bool = True
    port: int = 0
    number: int = -1
    arguments: tuple[int, ...] = ()
    reason: str = ""


def describe(attempt: Attempt, policy: SandboxPolicy, *, machine: str, options: tuple[str, ...] = ()) -> Denial:
    """Return a refused call as people and models read it.

    Args:
        attempt: what was refused.
        policy: under which policy.
        machine: `x86_64` or `aarch64`.
        options: what the wall adds to the profile (kavach.launcher.filters).
    """
    change = _smallest_change(attempt, policy, machine, options)
    what = attempt.call if attempt.access is Access.CALL else str(attempt.access)
    target = shown(attempt.target)
    if attempt.cause is Cause.FILTER:
        rule = f"seccomp: {attempt.reason}; refused by the filter"
    else:
        rule = f"{attempt.cause} (inferred when it was asked, the kernel's own answer is not seen)"
    return Denial(
        what=what,
        target=target,
        rule=rule,
        change=change,
        sentence=_sentence(what, target, attempt, change),
    )


def shown(text: str) -> str:
    """Return a name that untrusted code chose, fit to be shown: printable, on one line, not longer than it may be."""
    plain = "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)
    return plain if len(plain) <= MAX_SHOWN else plain[: MAX_SHOWN - 3] + "..."


def _sentence(what: str, target: str, attempt: Attempt, change: str) -> str:
    named = f" {json.dumps(target, ensure_ascii=False)}" if target else ""
    act = (
        f"The sandbox refused to {what}{named}"
        if attempt.access is not Access.CALL
        else (f"The sandbox refused the system call {what}{named}")
    )
    why = attempt.reason if attempt.cause is Cause.FILTER else str(attempt.cause).partition(": ")[2]
    ask = f"ask whoever set the policy for: {shown(change)}" if change else "no policy of this wall allows it"
    if not attempt.open_to_command and change:
        ask += " (and for its file mode to let other users in)"
    return f"{act}: {why or 'a deny rule covers it'}; do not retry it outside the sandbox, go on without it or {ask}."


_RULES = {
    Access.LOOK: "read",
    Access.READ: "read",
    Access.LIST: "read",
    Access.WRITE: "write",
    Access.CREATE: "write",
    Access.REMOVE: "write",
    Access.EXECUTE: "execute",
}
_BY_PATH = frozenset({Cause.NOT_SHOWN, Cause.READ_ONLY, Cause.NO_EXECUTE, Cause.LANDLOCK})


def _smallest_change(attempt: Attempt, policy: SandboxPolicy, machine: str, options: tuple[str, ...]) -> str:
    if attempt.cause is Cause.FILTER:
        return _filter_change(attempt, policy, machine, options)
    if attempt.cause in _BY_PATH:
        return _path_change(attempt)
    if attempt.cause is Cause.DENIED:
        covering = [rule.path for rule in policy.filesystem.deny if is_at_or_below(attempt.target, rule.path)]
        return _line("filesystem.deny", "-=", covering[0]) if covering else ""
    if attempt.cause is Cause.PORT:
        return _line("landlock.tcp_connect_ports", "+=", attempt.port)
    if attempt.cause is Cause.SCOPE:
        return _line("landlock.scope_abstract", "=", value=False)
    if attempt.cause in {Cause.NO_ROUTE, Cause.NO_NAMES, Cause.OTHER_HOST}:
        return _network_change(policy)
    return ""


def _path_change(attempt: Attempt) -> str:
    if not attempt.place or path_problem(attempt.place) is not None:
        return ""
    if attempt.place == "/":
        # A new entry of the root itself: the root is a private tmpfs, which may take writes.
        return _line("filesystem.read_only_rootfs", "=", value=False)
    return _line(f"filesystem.{_RULES[attempt.access]}", "+=", attempt.place)


def _network_change(policy: SandboxPolicy) -> str:
    line = _line("network.mode", "=", "host")
    # `strict` never has the host's network, so it takes another preset's name beside it.
    return f"{_line('preset', '=', 'basic')}; {line}" if policy.preset == "strict" else line


def _filter_change(attempt: Attempt, policy: SandboxPolicy, machine: str, options: tuple[str, ...]) -> str:
    if attempt.call in {"socket", "socketpair"} and "no_network" in options:
        return _network_change(policy)
    if policy.seccomp.profiles is None:
        return ""

    def allows(rules: SeccompRules, chosen: tuple[str, ...]) -> bool:
        effective = apply_options(rules, chosen)
        return judge_call(effective, machine, attempt.number, attempt.arguments).allowed

    for name in _by_size(machine):
        if allows(load_profile(name), options):
            return _line("seccomp.profiles", "=", [name])
    if not policy.nested and all(
        name is SeccompProfile.CUSTOM or allows(load_profile(name.value), (*options, "nested"))
        for name in policy.seccomp.profiles
    ):
        return _line("nested", "=", value=True)
    return ""


@functools.cache
def _by_size(machine: str) -> tuple[str, ...]:
    """Return the built-in profiles, from the one that allows the fewest calls to the one that allows the most."""
    from kavach.linux.syscalls import numbers

    def size(name: str) -> int:
        rules = load_profile(name)
        by_call = rules.by_call()
        return sum(bool(by_call[call].clauses) if call in by_call else rules.default_allow for call in numbers(machine))

    return tuple(sorted((one.value for one in SeccompProfile if one is not SeccompProfile.CUSTOM), key=size))


def _line(key: str, operator: str, value: Any) -> str:  # noqa: ANN401 - JSON
    return f"{key} {operator} {json.dumps(value, ensure_ascii=False)}"


def apply_change(policy: SandboxPolicy, change: str) -> SandboxPolicy:
    """Return the policy with one line of `Denial.change` applied.

    Args:
        policy: a valid policy.
        change: `key = value`, `key += value` or `key -= value`, values as in JSON; several are joined by `; `.

    Raises:
        ConfigError: not such a line, or not a valid policy with it.
        PolicyError: the policy contradicts itself with it.
    """
    rest = change
    while rest:
        key, operator, value, rest = _parse(rest, change)
        policy = _apply(policy, key, operator, value, change)
    check(policy)
    return policy


def _parse(text: str, whole: str) -> tuple[str, str, Any, str]:
    try:
        key, operator, rest = text.split(" ", 2)
        value, end = json.JSONDecoder().raw_decode(rest)
    except ValueError as error:
        raise ConfigError(f"expected a change like 'network.mode = \"host\"', got {whole!r}", key="change") from error
    rest = rest[end:]
    if operator not in {"=", "+=", "-="} or (rest and not rest.startswith("; ")):
        raise ConfigError(f"expected a change like 'network.mode = \"host\"', got {whole!r}", key="change")
    return key, operator, value, rest[2:]


def _apply(policy: SandboxPolicy, key: str, operator: str, value: Any, whole: str) -> SandboxPolicy:  # noqa: ANN401 - a value of any field
    group, _, leaf = key.rpartition(".")
    holder: Any = getattr(policy, group) if group in GROUPS else policy
    known = holder.__struct_fields__ if group in GROUPS or not group else ()
    if leaf not in known:
        raise ConfigError(f"a policy has no {key!r}, in the change {whole!r}", key=key)
    before = getattr(holder, leaf)
    if operator == "=":
        changed = {leaf: tuple(value) if isinstance(value, list) else value}
    elif key in {f"filesystem.{name}" for name in ("read", "write", "execute")} and operator == "+=":
        changed = _with_path(holder, leaf, str(value))
    elif isinstance(before, tuple) or before is None:
        entry = PathRule(value) if group == "filesystem" else value
        kept = tuple(one for one in before or () if one != entry)
        changed = {leaf: (*kept, entry) if operator == "+=" else kept}
    else:
        raise ConfigError(f"{key} takes '=', in the change {whole!r}", key=key)
    holder = msgspec.structs.replace(holder, **changed)
    return msgspec.structs.replace(policy, **{group: holder}) if group else holder


def _with_path(filesystem: Any, leaf: str, path: str) -> dict[str, Any]:  # noqa: ANN401 - a Filesystem
    """Return the path rules with one more, and without those that it makes pointless."""
    covering = ("read", "write", "execute") if leaf == "read" else (leaf,)
    if any(is_at_or_below(path, rule.path) for name in covering for rule in getattr(filesystem, name)):
        return {}
    drop = (leaf,) if leaf == "read" else (leaf, "read")
    changed = {
        name: tuple(rule for rule in getattr(filesystem, name) if not is_at_or_below(rule.path, path)) for name in drop
    }
    changed[leaf] = (*changed[leaf], PathRule(path))
    return changed


def propose(policy: SandboxPolicy, denials: Iterable[Denial], refused: Iterable[str] = ()) -> tuple[str, ...]:
    """Return the changes to try next: files by name first, then whole folders, only what changes the policy.

    A program that looks at a folder on its way to a file needs the file, and the folder then exists by itself; so
    folders are proposed only when nothing more exact was refused.

    Args:
        policy: the policy under which these were refused.
        denials: what was refused.
        refused: changes that are not to be proposed.

    Returns:
        Lines for `apply_change`; empty where no change helps. A deny rule is the caller's word and stays.
    """
    exact: list[str] = []
    wide: list[str] = []
    closed = set(refused)
    for denial in denials:
        line = denial.change
        if not line or line in closed or line.startswith("filesystem.deny ") or apply_change(policy, line) == policy:
            continue
        closed.add(line)
        (wide if denial.what in {Access.LOOK, Access.LIST} else exact).append(line)
    return tuple(exact or wide)
