"""Which acts a command child tries, so that each control of its policy is seen and not believed.

Guarantees: a pure function of policy and situation; every control with a canary gets it. Does not: try (canary.py) or
judge (observe.py). May be called by: kavach.launcher.lower.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from kavach.launcher import canary
from kavach.launcher.situation import DISCARD, NOWHERE, Situation
from kavach.linux import landlock_abi as abi

if TYPE_CHECKING:
    from kavach.model.policy import SandboxPolicy


def canaries_for(
    policy: SandboxPolicy, situation: Situation, rights: tuple[int, int, int]
) -> tuple[tuple[object, ...], ...]:
    """Return the canaries as (phase, name, act, *arguments)."""
    names = situation.namespaces
    before, after, final = canary.BEFORE_LANDLOCK, canary.AFTER_LANDLOCK, canary.FINAL
    rows: list[tuple[object, ...]] = []
    rows += _reach_canaries(situation, rights[2])
    # Without a mount view root's child cannot reach the command's folder before its ids change, or it could make one.
    if rights[0] and ("mnt" in names or not situation.facts.can_map_range):
        place = b"/tmp" if "mnt" in names else (situation.scratch or "/").encode()
        rows += [(when, b"device", b"device", place + b"/.kavach-canary") for when in (before, after)]
    if rights[1]:
        rows += _port_canaries(policy, rights[1])
    if policy.seccomp.profiles is not None:
        rows += [(final, b"ptrace", b"ptrace"), (final, b"add_key", b"add_key")]
    if policy.network.mode == "none":
        rows.append((final, b"udp", b"udp", NOWHERE, DISCARD))
    if "mnt" in names:
        rows.append((final, b"root", b"create", b"/.kavach-canary"))
        rows.append((final, b"system", b"create", _system_folder(situation) + b"/.kavach-canary"))
    elif rights[0]:
        rows.append((final, b"host_file", b"open", b"/proc/1/environ"))
        rows.append((final, b"host_write", b"create", b"/var/tmp/.kavach-canary"))
    rows += _path_canaries(policy)
    for index, path in enumerate(situation.view.sockets):
        rows.append((final, b"host_socket:%d" % index, b"pathname", os.fsencode(path)))
    # Only where the filter refuses it: one that succeeds would put the child itself into the new namespace.
    if not policy.nested and policy.seccomp.profiles is not None:
        rows.append((final, b"user_namespace", b"user_namespace"))
    if policy.nested:
        rows.append((final, b"nested", b"invalid_namespace"))
    return tuple(rows)


def _reach_canaries(situation: Situation, scoped: int) -> list[tuple[object, ...]]:
    """Try init, the host's init where it has a number inside, and look for what a child inherited."""
    names = situation.namespaces
    phases = (canary.BEFORE_LANDLOCK, canary.AFTER_LANDLOCK)
    rows: list[tuple[object, ...]] = [(canary.FINAL, b"environment", b"environment")]
    if scoped & abi.LANDLOCK_SCOPE_SIGNAL and "pid" in names:
        rows += [(when, b"signal", b"signal", 1) for when in phases]
    if "pid" not in names:
        rows.append((canary.FINAL, b"host_init", b"signal", 1))
    if scoped & abi.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET:
        rows += [(when, b"abstract", b"abstract", situation.witness) for when in phases]
    return rows


def _path_canaries(policy: SandboxPolicy) -> list[tuple[object, ...]]:
    """Try every path that the policy names: what is denied, what is allowed, and the device nodes."""
    final = canary.FINAL
    rows: list[tuple[object, ...]] = []
    for index, rule in enumerate(policy.filesystem.deny):
        rows.append((final, b"denied:%d" % index, b"open", rule.path.encode()))
    for index, node in enumerate(policy.devices):
        rows.append((final, b"node:%d" % index, b"access", node.encode()))
    for index, rule in enumerate((*policy.filesystem.read, *policy.filesystem.execute)):
        rows.append((final, b"allowed:%d" % index, b"open", rule.path.encode()))
    return rows


def _system_folder(situation: Situation) -> bytes:
    """Return a folder of the host's (or the image's) that is shown: `/usr`, or what an image has in its place."""
    shown = [tree.target for tree in situation.view.trees]
    found = next((path for path in ("/usr", "/bin", "/lib", "/etc") if path in shown), shown[0] if shown else "/proc")
    return found.encode()


def _port_canaries(policy: SandboxPolicy, handled: int) -> list[tuple[object, ...]]:
    """Try ports that no rule names: refused by Landlock itself (EACCES), whether or not anything listens."""
    rows: list[tuple[object, ...]] = []
    if handled & abi.LANDLOCK_ACCESS_NET_CONNECT_TCP:
        port = _unnamed(policy.landlock.tcp_connect_ports or ())
        rows += [
            (when, b"connect", b"tcp", b"127.0.0.1", port) for when in (canary.BEFORE_LANDLOCK, canary.AFTER_LANDLOCK)
        ]
    if handled & abi.LANDLOCK_ACCESS_NET_BIND_TCP:
        port = _unnamed(policy.landlock.tcp_bind_ports or ())
        rows += [(when, b"bind", b"bind", port) for when in (canary.BEFORE_LANDLOCK, canary.AFTER_LANDLOCK)]
    return rows


def _unnamed(ports: tuple[int, ...]) -> int:
    return next(port for port in range(1024, 65536) if port not in ports)
