"""Which files exist inside: the policy's words about files, turned into mounts, links and files of a new root.

Guarantees: nothing of the host is shown but what this module lists or the policy names; homes, /run, /var, /srv and
/sys are never part of the `system` and `allow` views. Does not: mount (kavach.launcher.build does), or touch the host
beyond looking (`HostFiles`, which tests replace by a fake). May be called by: kavach.launcher.lower.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from kavach.errors import ConfigError, PolicyError, UnsupportedError
from kavach.linux import uapi

if TYPE_CHECKING:
    from kavach.model.policy import SandboxPolicy

WORKSPACE = "/workspace"
READ_ONLY = uapi.MOUNT_ATTR_RDONLY | uapi.MOUNT_ATTR_NOSUID | uapi.MOUNT_ATTR_NODEV
DATA = uapi.MOUNT_ATTR_NOSUID | uapi.MOUNT_ATTR_NODEV | uapi.MOUNT_ATTR_NOEXEC
DEVICE = uapi.MOUNT_ATTR_NOSUID | uapi.MOUNT_ATTR_NOEXEC

#: Where programs and libraries live: hier(7), and the stores of Nix and Guix.
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/gnu/store")
#: Settings that programs need to start and that hold no secret; everything else of /etc is absent.
SETTINGS = (
    "/etc/alternatives",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/etc/pki/tls/certs",
    "/etc/services",
    "/etc/ssl/certs",
)
DEVICES = ("null", "zero", "full", "random", "urandom")
#: Files of proc that tell about the host or act on it; those that exist are covered (process-traps 33).
MASKED_PROC = (
    "acpi",
    "asound",
    "interrupts",
    "kallsyms",
    "kcore",
    "keys",
    "kmsg",
    "latency_stats",
    "sched_debug",
    "scsi",
    "sysrq-trigger",
    "timer_list",
)
#: Entries of a root that are never taken from a shown root: they are the sandbox's own.
OWN = frozenset({"dev", "proc", "sys", "tmp", "workspace", ".kavach"})
_MAXIMUM_ENTRIES = 2_000_000  # protects create from a folder without end; a search of a million takes a second
IF_POSSIBLE = 2  # of `Tree.owned`: where the file system cannot translate, the node's own permissions decide
_ACCEPTING = 0x10000  # linux/net.h: __SO_ACCEPTCON
_TRIED_SOCKETS = 3  # one that answers is enough to know
PROC = -1  # stands for the fresh proc, which init opens itself, in rows of `attach`


class Tree(NamedTuple):
    """One part of the host that is shown: source, place inside, attributes, and whether its owner is translated.

    `owned` is 0 (it keeps its owner), 1 (the caller's files are the command's own, or the step fails) or IF_POSSIBLE.
    """

    source: str
    target: str
    attributes: int
    owned: int = 0


class View(NamedTuple):
    """The whole view, in the order in which it is built."""

    trees: tuple[Tree, ...]
    links: tuple[tuple[str, str], ...]
    files: tuple[tuple[str, int, str], ...]
    masked: tuple[str, ...]
    writable: tuple[str, ...]
    path: tuple[str, ...]
    sockets: tuple[str, ...] = ()


class HostFiles:
    """The host's files as far as the view needs to look at them; a test gives another one."""

    def kind(self, path: str) -> str | None:
        """Return `folder`, `file`, `link` or None, of the path itself."""
        try:
            mode = os.lstat(path).st_mode
        except OSError:
            return None
        if stat.S_ISLNK(mode):
            return "link"
        return "folder" if stat.S_ISDIR(mode) else "file"

    def exists(self, path: str) -> bool:
        """Return whether the path leads to something."""
        return os.path.exists(path)

    def link(self, path: str) -> str:
        """Return what a link says."""
        return os.readlink(path)

    def entries(self, path: str) -> list[str]:
        """Return the names in a folder."""
        return sorted(os.listdir(path))

    def sockets(self, path: str) -> list[str]:
        """Return the socket files below a folder, and the folders that cannot be searched; links are not followed.

        Raises:
            ConfigError: the folder holds more entries than are looked at, or cannot be looked into itself.
        """
        found, pending, seen = [], [path], 0
        while pending:
            folder = pending.pop()
            try:
                with os.scandir(folder) as entries:
                    for entry in entries:
                        seen += 1
                        if entry.is_dir(follow_symlinks=False):
                            pending.append(entry.path)
                        elif not entry.is_file(follow_symlinks=False) and not entry.is_symlink():
                            found += [entry.path] if _is_socket(entry) else []
            except PermissionError:
                if folder == path:
                    raise ConfigError(
                        f"{path!r} cannot be searched for sockets; expected a folder that you may list",
                        key="$.filesystem",
                    ) from None
                # SECURITY: who may not list a folder may own it and change its mode, or enter it and know a name.
                found.append(folder)
            except OSError:
                continue  # a file, or gone
            if seen > _MAXIMUM_ENTRIES:
                raise ConfigError(
                    f"{path!r} holds more than {_MAXIMUM_ENTRIES} entries, too many to be searched for sockets;"
                    " name a smaller folder",
                    key="$.filesystem",
                )
        return sorted(found)

    def listening(self) -> list[str]:
        """Return the paths of the sockets that are listened on in this network namespace (proc(5))."""
        try:
            with open("/proc/net/unix", encoding="utf-8", errors="surrogateescape") as handle:
                rows = [line.rstrip("\n").split(" ", 7) for line in handle.readlines()[1:]]
        except OSError:
            return []
        named = [row[7] for row in rows if len(row) == 8 and row[7].startswith("/") and int(row[3], 16) & _ACCEPTING]
        return sorted(set(named))


def _is_socket(entry: os.DirEntry[str]) -> bool:
    return stat.S_ISSOCK(entry.stat(follow_symlinks=False).st_mode)


def plan_view(
    policy: SandboxPolicy,
    *,
    host: HostFiles,
    uid: int,
    gid: int,
    hostname: str,
    workdir: str | None,
    python: tuple[str, ...],
    devices: tuple[str, ...],
    extra: tuple[Tree, ...],
    exposes_host: bool = False,
) -> View:
    """Return everything that will exist inside.

    Args:
        policy: whose `filesystem` is turned into a view.
        host: the host's files.
        uid: the command's user id inside.
        gid: the command's group id inside.
        hostname: the name inside.
        workdir: host folder to bind writable at /workspace, None for a private one.
        python: prefixes of the Python to show.
        devices: device nodes to show beside the standard ones.
        exposes_host: whether everything of the host is shown, so that its live sockets have to be tried.
        extra: further trees (what a device family needs).

    Raises:
        ConfigError: a path that the policy names does not exist.
        UnsupportedError: the policy names an image.
    """
    filesystem = policy.filesystem
    trees, links = _base(filesystem.rootfs, filesystem.view, host)
    taken = {tree.target for tree in trees}
    trees += [Tree(prefix, prefix, READ_ONLY) for prefix in python if prefix not in taken]
    named, writable = _named(policy, host)
    trees += named
    trees += [Tree(f"/dev/{name}", f"/dev/{name}", DEVICE) for name in DEVICES if host.exists(f"/dev/{name}")]
    trees += [_device(node, host) for node in devices]
    trees += extra
    if workdir is not None:
        trees.append(Tree(workdir, WORKSPACE, uapi.MOUNT_ATTR_NOSUID | uapi.MOUNT_ATTR_NODEV, owned=1))
    shown = {tree.target for tree in trees}
    files = [] if filesystem.rootfs != "host" else _identity(uid, gid, hostname)
    files = [row for row in files if row[0] not in shown and not any(row[0].startswith(f"{one}/") for one in shown)]
    # SECURITY: neither a read-only mount nor Landlock keeps a command from connecting to a socket file of the host.
    bound = [tree for tree in trees if tree.owned == 1 or tree in named]
    sockets = [tree.target + path[len(tree.source) :] for tree in bound for path in host.sockets(tree.source)]
    for rule in filesystem.deny:
        _require_coverable(rule.path, trees, host)
    masked = (*(rule.path for rule in filesystem.deny), *sockets)
    return View(
        tuple(trees),
        tuple(links),
        tuple(files),
        masked,
        tuple(writable),
        tuple(f"{one}/bin" for one in python),
        _exposed(host, trees, masked) if exposes_host else (),
    )


def _exposed(host: HostFiles, trees: list[Tree], masked: tuple[str, ...]) -> tuple[str, ...]:
    """Return some live sockets of the host that the view shows; no control of this wall refuses a connection to one."""
    shown = tuple(f"{tree.target.rstrip('/')}/" for tree in trees)
    live = [path for path in host.listening() if path.startswith(shown) and path not in masked]
    return tuple(live[:_TRIED_SOCKETS])


def _require_coverable(path: str, trees: list[Tree], host: HostFiles) -> None:
    """Refuse a deny rule for what does not exist in a writable folder of the host: the command could make it.

    Raises:
        PolicyError: nothing can be put over it without leaving a mount point in the host's folder.
    """
    over = [tree for tree in trees if path == tree.target or path.startswith(f"{tree.target.rstrip('/')}/")]
    if not over:
        return
    deepest = max(over, key=lambda tree: len(tree.target))
    writable = not deepest.attributes & uapi.MOUNT_ATTR_RDONLY
    if writable and not host.exists(deepest.source + path[len(deepest.target.rstrip("/")) :]):
        raise PolicyError(
            f"deny rule {path!r}: it does not exist below the writable folder {deepest.source!r}, so it cannot be held",
            hint="make it first, or do not make the folder writable",
        )


def _device(node: str, host: HostFiles) -> Tree:
    if not host.exists(node):
        raise ConfigError(f"device {node!r}: it does not exist on this host", key="$.devices")
    return Tree(node, node, DEVICE, owned=IF_POSSIBLE)


def _base(rootfs: str, view: str, host: HostFiles) -> tuple[list[Tree], list[tuple[str, str]]]:
    if rootfs != "host" and not rootfs.startswith("/"):
        raise UnsupportedError(
            f"rootfs {rootfs!r} is an image, which the process wall cannot unpack; give a folder or 'host'",
            control="rootfs",
            needed="an unpacked folder",
            found="an image reference",
        )
    if rootfs != "host":
        if host.kind(rootfs) != "folder":
            raise ConfigError(f"rootfs {rootfs!r}: expected a folder that exists", key="$.filesystem.rootfs")
        return _entries(rootfs, host)
    if view == "all":
        return _entries("/", host)
    trees: list[Tree] = []
    links: list[tuple[str, str]] = []
    for path in SYSTEM:
        kind = host.kind(path)
        if kind == "link":
            links.append((host.link(path), path))
        elif kind is not None:
            trees.append(Tree(path, path, READ_ONLY))
    trees += [Tree(path, path, READ_ONLY | uapi.MOUNT_ATTR_NOEXEC) for path in SETTINGS if host.exists(path)]
    return trees, links


def _entries(root: str, host: HostFiles) -> tuple[list[Tree], list[tuple[str, str]]]:
    """Show a root folder entry by entry, so that the new root itself stays ours."""
    trees: list[Tree] = []
    links: list[tuple[str, str]] = []
    prefix = root.rstrip("/")
    for name in host.entries(root):
        if name in OWN:
            continue
        path = f"{prefix}/{name}"
        if host.kind(path) == "link":
            links.append((host.link(path), f"/{name}"))
        else:
            trees.append(Tree(path, f"/{name}", READ_ONLY))
    return trees, links


def _named(policy: SandboxPolicy, host: HostFiles) -> tuple[list[Tree], list[str]]:
    """Return the trees of the policy's own rules, outer folders first."""
    filesystem = policy.filesystem
    execute = {rule.path for rule in filesystem.execute}
    write = {rule.path for rule in filesystem.write} | ({filesystem.data_dir} if filesystem.data_dir else set())
    read = {rule.path for rule in filesystem.read}
    trees = []
    for path in sorted(execute | write | read):
        if not host.exists(path):
            raise ConfigError(f"path rule {path!r}: it does not exist on this host", key="$.filesystem")
        attributes = uapi.MOUNT_ATTR_NOSUID | uapi.MOUNT_ATTR_NODEV
        attributes |= 0 if path in execute else uapi.MOUNT_ATTR_NOEXEC
        attributes |= 0 if path in write else uapi.MOUNT_ATTR_RDONLY
        trees.append(Tree(path, path, attributes, owned=int(path in write)))
    return trees, sorted(write)


def _identity(uid: int, gid: int, hostname: str) -> list[tuple[str, int, str]]:
    """Return the few files by which programs learn who and where they are."""
    return [
        (
            "/etc/passwd",
            0o644,
            f"root:x:0:0:root:/:/sbin/nologin\nsandbox:x:{uid}:{gid}:sandbox:{WORKSPACE}:/bin/sh\nnobody:x:65534:65534:nobody:/:/sbin/nologin\n",
        ),
        ("/etc/group", 0o644, f"root:x:0:\nsandbox:x:{gid}:\nnogroup:x:65534:\n"),
        ("/etc/hosts", 0o644, f"127.0.0.1 localhost {hostname}\n::1 localhost\n"),
        ("/etc/hostname", 0o644, f"{hostname}\n"),
        ("/etc/resolv.conf", 0o644, "# no name server: this sandbox has no network\n"),
        ("/etc/nsswitch.conf", 0o644, "passwd: files\ngroup: files\nhosts: files dns\n"),
        ("/etc/shells", 0o644, "/bin/sh\n"),
    ]
