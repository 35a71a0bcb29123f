"""Two policies become the stricter of both: whatever the result allows, each of them allows.

Enforces: None (unrestricted) gives way to the other's value and empty (nothing) stays empty; disjoint lists
allow nothing. Does not: read a file or a profile (several system-call profiles are kept by name, to be
intersected when they are lowered), and it may allow less than both where texts cannot tell, such as a path
rule against a view. Called by profile files, nested walls and callers; pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from msgspec.structs import replace

from kavach.errors import PolicyError
from kavach.model.network import NetworkPolicy, NetworkRule, parse_network_rule
from kavach.model.paths import is_at_or_below
from kavach.model.policy import Filesystem, Landlock, PathRule, ResourceLimits, SandboxPolicy, Seccomp
from kavach.model.validate import check
from kavach.policy.presets import PRESETS

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["narrow"]

_Number = TypeVar("_Number", int, float)
_VIEWS = ("allow", "system", "all")  # from the tightest


def narrow(a: SandboxPolicy, b: SandboxPolicy) -> SandboxPolicy:
    """Return the policy that allows only what both allow; the order of the two does not matter.

    Args:
        a: a policy.
        b: another policy.

    Raises:
        ConfigError: one of them is not valid.
        PolicyError: they stand on different root file systems, of which neither is the stricter.
    """
    check(a)
    check(b)
    order = list(PRESETS)
    narrowed = replace(
        a,
        preset=order[max(order.index(a.preset), order.index(b.preset))],
        filesystem=_filesystem(a.filesystem, b.filesystem),
        seccomp=_seccomp(a.seccomp, b.seccomp),
        network=_network(a.network, b.network),
        limits=_limits(a.limits, b.limits),
        landlock=_landlock(a.landlock, b.landlock),
        devices=tuple(set(a.devices) & set(b.devices)),
        may_lack=_may_lack(a.may_lack, b.may_lack),
        nested=a.nested and b.nested,
    )
    check(narrowed)
    return narrowed


def _filesystem(a: Filesystem, b: Filesystem) -> Filesystem:
    if a.rootfs != b.rootfs:
        raise PolicyError(
            f"rootfs: expected one root file system in both policies, got {a.rootfs!r} and {b.rootfs!r}",
            hint="give both policies the same rootfs, or leave it out of the one that does not care",
        )
    deny = a.deny + b.deny
    data_dir = a.data_dir if a.data_dir == b.data_dir and not _is_denied(a.data_dir, deny) else None
    write_a, write_b = _writable(a, data_dir), _writable(b, data_dir)
    write = _common(write_a, write_b)
    execute = _common_or_viewed(a, b, a.execute, b.execute)
    shown = _common_or_viewed(a, b, a.read + write_a + a.execute, b.read + write_b + b.execute)
    covering = [rule.path for rule in (*write, *execute)]
    read = [rule for rule in shown if not any(is_at_or_below(rule.path, above) for above in covering)]
    return Filesystem(
        rootfs=a.rootfs,
        view=a.view if _VIEWS.index(a.view) <= _VIEWS.index(b.view) else b.view,
        read=tuple(rule for rule in read if not _is_denied(rule.path, deny)),
        write=tuple(rule for rule in write if not _is_denied(rule.path, deny)),
        execute=tuple(rule for rule in execute if not _is_denied(rule.path, deny)),
        deny=deny,
        read_only_rootfs=a.read_only_rootfs or b.read_only_rootfs,
        tmp_bytes=_smaller(a.tmp_bytes, b.tmp_bytes),
        data_dir=data_dir,
        python=_python(a, b),
    )


def _is_denied(path: str | None, deny: tuple[PathRule, ...]) -> bool:
    return path is not None and any(is_at_or_below(path, rule.path) for rule in deny)


def _writable(files: Filesystem, kept: str | None) -> tuple[PathRule, ...]:
    """Return what may be written, where a data folder that is not kept as one counts as a rule."""
    if files.data_dir is None or files.data_dir == kept:
        return files.write
    return (*files.write, PathRule(files.data_dir))


def _common(a: Iterable[PathRule], b: Iterable[PathRule]) -> set[PathRule]:
    """Return the rules for what lies below a rule of both: the deeper of each pair that nests."""
    pairs = [(one, other) for one in a for other in b]
    below = {one for one, other in pairs if is_at_or_below(one.path, other.path)}
    return below | {other for one, other in pairs if is_at_or_below(other.path, one.path)}


def _common_or_viewed(
    a: Filesystem, b: Filesystem, of_a: tuple[PathRule, ...], of_b: tuple[PathRule, ...]
) -> set[PathRule]:
    """Return what both allow, where a view of everything allows to read and run whatever the other names."""
    common = _common(of_a, of_b)
    if b.view == "all":
        common |= set(of_a)
    if a.view == "all":
        common |= set(of_b)
    return common


def _python(a: Filesystem, b: Filesystem) -> str | None:
    if a.python == b.python:
        return a.python
    allowed = {one.python for one, other in ((a, b), (b, a)) if other.view == "all"}
    return min((name for name in allowed if name is not None), default=None)


def _seccomp(a: Seccomp, b: Seccomp) -> Seccomp:
    profiles = a.profiles if b.profiles is None else b.profiles if a.profiles is None else a.profiles + b.profiles
    return Seccomp(
        profiles=profiles,
        custom_files=a.custom_files + b.custom_files,
        refuse_wx=a.refuse_wx or b.refuse_wx,
    )


def _network(a: NetworkPolicy, b: NetworkPolicy) -> NetworkPolicy:
    if "none" in {a.mode, b.mode}:
        return NetworkPolicy()
    if a.mode == "host" and b.mode == "host":
        return a
    rules = [[parse_network_rule(text) for text in one.rules] for one in (a, b) if one.mode == "allow"]
    common = set(rules[0])
    if len(rules) == 2:
        common = {both for one in rules[0] for other in rules[1] if (both := one.intersect(other))}
    return NetworkPolicy(
        mode="allow",
        rules=tuple(str(rule) for rule in common if not _is_covered(rule, common)),
        deny_rules=a.deny_rules + b.deny_rules,
    )


def _is_covered(rule: NetworkRule, rules: set[NetworkRule]) -> bool:
    """Return whether another rule allows all that this one does, so that this one can be left out."""
    return any(other != rule and rule.intersect(other) == rule for other in rules)


def _limits(a: ResourceLimits, b: ResourceLimits) -> ResourceLimits:
    return ResourceLimits(
        memory_limit_mb=_smaller(a.memory_limit_mb, b.memory_limit_mb),
        cpu_limit=_smaller(a.cpu_limit, b.cpu_limit),
        max_pids=_smaller(a.max_pids, b.max_pids),
        file_size=_smaller(a.file_size, b.file_size),
        open_files=_smaller(a.open_files, b.open_files),
        disk_bytes=_smaller(a.disk_bytes, b.disk_bytes),
        cpu_time_s=_smaller(a.cpu_time_s, b.cpu_time_s),
        output_bytes=_smaller(a.output_bytes, b.output_bytes),
        output_action="kill" if "kill" in {a.output_action, b.output_action} else "truncate",
    )


def _landlock(a: Landlock, b: Landlock) -> Landlock:
    return Landlock(
        scope_abstract=a.scope_abstract or b.scope_abstract,
        scope_signal=a.scope_signal or b.scope_signal,
        tcp_bind_ports=_both(a.tcp_bind_ports, b.tcp_bind_ports),
        tcp_connect_ports=_both(a.tcp_connect_ports, b.tcp_connect_ports),
    )


def _smaller(a: _Number | None, b: _Number | None) -> _Number | None:
    # SECURITY: 0 is a limit and None is none; `a or b` would make one of the other.
    if a is None:
        return b
    return a if b is None else min(a, b)


def _both(a: tuple[int, ...] | None, b: tuple[int, ...] | None) -> tuple[int, ...] | None:
    # SECURITY: disjoint lists give the empty tuple (nothing), never None (everything).
    if a is None:
        return b
    return a if b is None else tuple(set(a) & set(b))


def _may_lack(a: tuple[str, ...], b: tuple[str, ...]) -> tuple[str, ...]:
    if "*" in a and "*" in b:
        return ("*",)
    if "*" in a:
        return b
    return a if "*" in b else tuple(set(a) & set(b))
