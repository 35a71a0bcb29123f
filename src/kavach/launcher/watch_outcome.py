"""What a waiting call will meet: the sandbox's view, its mounts, its Landlock rules and its network, looked up.

Guarantees: an attempt is returned only where something of the wall, not an ordinary absence, stands in the way: the
file exists on the host, the mount is read-only, the rule is missing. Does not: decide about the call; the kernel does
that afterwards, so every answer here is an inference and is reported as one. May be called by: kavach.launcher.watch.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, NamedTuple, cast

from kavach.launcher import watch_paths
from kavach.launcher.watch_paths import READ, SEARCH, WRITE
from kavach.linux import landlock_abi as abi
from kavach.model.paths import is_at_or_below
from kavach.policy.learn import Access, Attempt, Cause

if TYPE_CHECKING:
    from kavach.launcher.lower import LaunchPlan
    from kavach.launcher.watch_paths import Ids, Place
    from kavach.launcher.watch_sight import PathUse, Peer
    from kavach.model.policy import SandboxPolicy

_BITS = {Access.READ: READ, Access.LIST: READ, Access.WRITE: WRITE, Access.EXECUTE: SEARCH}
_RIGHTS = {
    Access.READ: abi.LANDLOCK_ACCESS_FS_READ_FILE,
    Access.LIST: abi.LANDLOCK_ACCESS_FS_READ_DIR,
    Access.WRITE: abi.LANDLOCK_ACCESS_FS_WRITE_FILE,
    Access.CREATE: abi.LANDLOCK_ACCESS_FS_MAKE_REG,
    Access.REMOVE: abi.LANDLOCK_ACCESS_FS_REMOVE_FILE,
    Access.EXECUTE: abi.LANDLOCK_ACCESS_FS_EXECUTE,
}
_CHANGES_FOLDER = frozenset({Access.CREATE, Access.REMOVE})
_DNS = 53  # RFC 1035, 4.2


class Rules(NamedTuple):
    """What of a plan this module looks at.

    Args:
        has_view: whether the command sees a root of its own.
        own_network: whether it has a network namespace of its own.
        handled: Landlock's (file system, network, scopes) in force.
        paths: Landlock's rules over files.
        deny: the policy's denied paths.
        ports: the TCP ports it may connect to, None for all.
        network: the policy's network mode.
        automounts: where on the host a look would mount something.
    """

    has_view: bool
    own_network: bool
    handled: tuple[int, int, int]
    paths: tuple[tuple[str, int], ...]
    deny: tuple[str, ...]
    ports: tuple[int, ...] | None
    network: str
    automounts: tuple[str, ...]


def rules_of(policy: SandboxPolicy, plan: LaunchPlan) -> Rules:
    """Return the rules that a plan puts in force."""
    has_view = "mnt" in plan.namespaces
    rows: list[tuple[str, int]] = []
    for name, _, arguments in plan.init_steps:
        if name == b"landlock_ruleset":
            for raw, rights in cast("tuple[tuple[bytes, int], ...]", arguments[3]):
                path = os.fsdecode(raw)
                rows.append((path if has_view else os.path.realpath(path), rights))
    return Rules(
        has_view=has_view,
        own_network="net" in plan.namespaces,
        handled=plan.landlock,
        paths=tuple(rows),
        deny=tuple(rule.path for rule in policy.filesystem.deny),
        ports=policy.landlock.tcp_connect_ports,
        network=policy.network.mode,
        automounts=_automounts(),
    )


def _automounts() -> tuple[str, ...]:
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        rows = [line.split(" ") for line in table]
    return tuple(row[4] for row in rows if "-" in row and row[row.index("-") + 1] == "autofs")


def _on_host(rules: Rules, path: str) -> bool:
    """Return whether a path exists on the host, without asking where the question would mount something."""
    # SECURITY: the path is untrusted code's choice, and /net/NAME would make this host call NAME.
    return not any(is_at_or_below(path, one) for one in rules.automounts) and os.path.lexists(path)


def path_attempt(rules: Rules, thread: int, ids: Ids, call: str, use: PathUse, *, creates: bool) -> Attempt | None:
    """Return what stands in the way of a path, None for nothing of the wall's.

    Args:
        rules: what is in force.
        thread: who asks.
        ids: whose rights it has.
        call: the system call.
        use: the path and what for.
        creates: whether the file is made where it is missing.

    Raises:
        OSError: the thread is closed to this process, or has gone.
    """
    place = watch_paths.walk(thread, use.path, ids, follow=use.follow)
    if place is None:
        return None
    path = os.path.normpath(use.path)
    if any(is_at_or_below(one, rule) for one in (path, place.wanted) for rule in rules.deny):
        return None if use.access is Access.LOOK else Attempt(use.access, Cause.DENIED, call, path)
    if place.code == errno.EACCES:
        return Attempt(use.access, Cause.MODE, call, path)
    if place.code == errno.ENOENT:
        return _missing(rules, ids, call, use, place, path, creates=creates)
    return None if place.code else _present(rules, ids, call, use, place, path)


def program_attempt(rules: Rules, program: str) -> Attempt | None:
    """Return what stood in the way of a program that the kernel did not find, None for nothing of the wall's."""
    if not rules.has_view or not program.startswith("/") or not _on_host(rules, program):
        return None
    path = os.path.normpath(program)
    return Attempt(Access.EXECUTE, Cause.NOT_SHOWN, "execve", path, place=path)


def _missing(
    rules: Rules, ids: Ids, call: str, use: PathUse, place: Place, path: str, *, creates: bool
) -> Attempt | None:
    """Judge a path that does not exist inside."""
    makes = use.access is Access.CREATE or (use.access is Access.WRITE and creates)
    wanted = place.wanted
    if rules.has_view and _on_host(rules, wanted):
        return _not_shown(ids, call, use.access, path, wanted)
    folder = os.path.dirname(wanted)
    if not makes:
        return None
    if place.is_last:
        cause = _folder_cause(rules, ids, place, Access.CREATE)
        return None if cause is None else Attempt(Access.CREATE, cause, call, path, place=_grantable(folder))
    if rules.has_view and _on_host(rules, folder) and os.path.isdir(folder):
        is_open = _open(ids, folder, WRITE)
        return Attempt(Access.CREATE, Cause.NOT_SHOWN, call, path, place=folder, open_to_command=is_open)
    return None


def _grantable(folder: str) -> str:
    """Return a folder that a rule can name, for it is on the host too; else nothing."""
    return folder if os.path.isdir(folder) else ""


def _existing(path: str) -> str:
    """Return a path that a rule can name, for it is on the host too; else nothing."""
    return path if os.path.exists(path) else ""


def _not_shown(ids: Ids, call: str, access: Access, path: str, wanted: str) -> Attempt:
    """Return the attempt on a path that is not shown; `wanted` is what it means once links are followed."""
    if access is Access.READ and os.path.isdir(wanted):
        access = Access.LIST
    place = os.path.dirname(wanted) if access in _CHANGES_FOLDER else wanted
    needs = Access.EXECUTE if access is Access.READ and watch_paths.is_program(wanted) else access
    is_open = _open(ids, place, WRITE if access in _CHANGES_FOLDER else _BITS.get(access, 0))
    return Attempt(needs, Cause.NOT_SHOWN, call, path, place=place, open_to_command=is_open)


def _open(ids: Ids, path: str, bits: int) -> bool:
    """Return whether a file of the host would let the command in, were it shown (its folders do not matter then)."""
    try:
        found = os.stat(path)
    except OSError:
        return False
    # As root a writable tree is shown under the command's ids in the place of the caller's (an idmapped mount).
    translated = bits & WRITE and found.st_uid == os.geteuid()
    owner = ids.uid if translated else found.st_uid
    return watch_paths.allows(found.st_mode, owner, found.st_gid, ids, bits)


def _present(rules: Rules, ids: Ids, call: str, use: PathUse, place: Place, path: str) -> Attempt | None:
    """Judge a path that leads to something inside."""
    if use.access in _CHANGES_FOLDER:
        # It exists: creating it fails by itself; removing it changes the folder, which is asked for by its own path.
        if use.access is Access.CREATE or not place.is_read_only:
            return None
        return Attempt(use.access, Cause.READ_ONLY, call, path, place=_grantable(os.path.dirname(place.path)))
    access = Access.LIST if use.access is Access.READ and place.is_folder else use.access
    if access is Access.WRITE and place.is_read_only and not _is_device(place):
        return Attempt(access, Cause.READ_ONLY, call, path, place=_existing(place.path))
    if access is Access.EXECUTE and place.is_no_execute:
        return Attempt(access, Cause.NO_EXECUTE, call, path, place=_existing(place.path))
    if access in _BITS and not place.lets(ids, _BITS[access]):
        return Attempt(access, Cause.MODE, call, path)
    if not _landlock_allows(rules, access, place.path):
        return Attempt(access, Cause.LANDLOCK, call, path, place=path)
    return None


def _folder_cause(rules: Rules, ids: Ids, folder: Place, access: Access) -> Cause | None:
    """Return what stands in the way of changing the names in a folder."""
    if folder.is_read_only:
        return Cause.READ_ONLY
    if not folder.lets(ids, WRITE | SEARCH):
        return Cause.MODE
    return None if _landlock_allows(rules, access, folder.path) else Cause.LANDLOCK


def _is_device(place: Place) -> bool:
    return place.path.startswith("/dev/")


def _landlock_allows(rules: Rules, access: Access, path: str) -> bool:
    wanted = _RIGHTS.get(access, 0) & rules.handled[0]
    given = 0
    for rule, rights in rules.paths:
        if is_at_or_below(path, rule):
            given |= rights
    return not wanted & ~given


def peer_attempt(rules: Rules, thread: int, call: str, peer: Peer) -> Attempt | None:
    """Return what stands in the way of an address, None for nothing of the wall's.

    Raises:
        OSError: the thread is closed to this process, or has gone.
    """
    if peer.family == "abstract":
        name = f"@{peer.host}"
        if _unix_names("self", name) and not (rules.own_network and _unix_names(str(thread), name)):
            cause = Cause.SCOPE if rules.handled[2] & abi.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET else Cause.NO_ROUTE
            return Attempt(Access.CONNECT, cause, call, name)
        return None
    if peer.family != "inet":
        return None
    target = f"[{peer.host}]:{peer.port}" if ":" in peer.host else f"{peer.host}:{peer.port}"
    if rules.network == "none":
        barred = _unreachable(rules, thread, peer)
        if barred is not None:
            return Attempt(Access.CONNECT, barred, call, target, port=peer.port)
    handles = rules.handled[1] & abi.LANDLOCK_ACCESS_NET_CONNECT_TCP
    if handles and call == "connect" and peer.port != _DNS and peer.port not in (rules.ports or ()):
        return Attempt(Access.CONNECT, Cause.PORT, call, target, port=peer.port)
    return None


def _unreachable(rules: Rules, thread: int, peer: Peer) -> Cause | None:
    if not _is_own(peer.host):
        return Cause.NO_ROUTE
    if not rules.own_network or _listens(str(thread), peer.port):
        return None
    if peer.port == _DNS:
        return Cause.NO_NAMES
    return Cause.OTHER_HOST if _listens("self", peer.port) else None


def _is_own(host: str) -> bool:
    """Return whether an address is the machine's own: loopback, or the wildcard that stands for it."""
    return host.startswith(("127.", "::ffff:127.")) or host in {"::1", "0.0.0.0", "::"}  # noqa: S104 - compared


def _listens(process: str, port: int) -> bool:
    """Return whether a process's network namespace has a socket bound to a port (any protocol)."""
    wanted = f"{port:04X}"
    for name in ("tcp", "tcp6", "udp", "udp6"):
        try:
            with open(f"/proc/{process}/net/{name}", encoding="ascii", errors="replace") as table:
                rows = [line.split() for line in table]
        except OSError:
            continue
        listening = {"07", "0A"}  # net/tcp_states.h: TCP_CLOSE (an unconnected UDP socket), TCP_LISTEN
        if any(len(row) > 3 and row[1].endswith(f":{wanted}") and row[3] in listening for row in rows[1:]):
            return True
    return False


def _unix_names(process: str, name: str) -> bool:
    with open(f"/proc/{process}/net/unix", encoding="utf-8", errors="surrogateescape") as table:
        return any(line.rstrip("\n").endswith(f" {name}") for line in table)
