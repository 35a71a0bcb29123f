"""The steps by which init builds the wall around itself, each a function that the plan names.

Guarantees: a step that returns has happened; one that cannot raises OSError and the plan says whether the sandbox
may lack it. Does not: choose the order or the arguments (kavach.launcher.lower does). May be called by: init only,
before any command exists.
"""

from __future__ import annotations

import _socket
import errno
import os
import resource

from kavach.linux import confine, landlock, mounts, namespaces, seccomp, uapi

TYPE_CHECKING = False  # the typing module is not part of the jail
if TYPE_CHECKING:
    from collections.abc import Callable

_READ_ONLY = uapi.MOUNT_ATTR_RDONLY | uapi.MOUNT_ATTR_NOSUID | uapi.MOUNT_ATTR_NODEV | uapi.MOUNT_ATTR_NOEXEC


class Wall:
    """What the steps hand to one another: open trees, the Landlock ruleset, sockets kept for canaries."""

    def __init__(self, channel: _socket.socket, trees: list[int]) -> None:
        self.channel = channel
        self.trees = trees
        self.ruleset = -1
        self.devices: set[int] = set()  # file systems of our own, on which mount points may be made
        self.folder = -1
        self.witnesses: list[_socket.socket] = []


def adopt_orphans(wall: Wall) -> None:
    """Be the parent of what commands leave behind, where no PID namespace makes init that."""
    namespaces.adopt_orphans()


def die_with_launcher(wall: Wall) -> None:
    """Be killed when the launcher ends, also when it ended a moment ago."""
    confine.die_with_parent()
    if os.getppid() == 1 and os.getpid() != 1:
        raise OSError(errno.ESRCH, "the launcher has ended")


def take_ids(wall: Wall, uid: int, gid: int, clear_groups: int) -> None:
    """Take init's own ids."""
    confine.set_ids(uid, gid, clear_groups=bool(clear_groups))


def leave_keyring(wall: Wall) -> None:
    """Leave the caller's session keyring."""
    confine.join_new_session_keyring()


def private_mounts(wall: Wall) -> None:
    """Cut mount propagation."""
    mounts.make_private()


def open_trees(wall: Wall, rows: tuple[tuple[bytes, int, int], ...]) -> None:
    """Open the sources of the view, as (path, attributes, 0); the launcher has done it already where it must."""
    for source, attributes, _ in rows:
        wall.trees.append(mounts.open_tree(source, attributes))


def open_proc(wall: Wall, options: tuple[tuple[bytes, bytes], ...]) -> None:
    """Make a fresh proc of this PID namespace."""
    attributes = uapi.MOUNT_ATTR_NOSUID | uapi.MOUNT_ATTR_NODEV | uapi.MOUNT_ATTR_NOEXEC
    wall.trees.append(mounts.new_tree(b"proc", options, attributes))


def new_root(wall: Wall, options: bytes) -> None:
    """Move into an empty tmpfs; the old root is gone."""
    # ORDER: trees and proc were opened before; from here on no path resolves through the host's root.
    os.umask(0)  # modes below are exact; every command sets its own
    mounts.mount(b"kavach", b"/tmp", b"tmpfs", uapi.MS_NOSUID | uapi.MS_NODEV, options)
    mounts.pivot(b"/tmp")
    wall.devices.add(os.stat(b"/").st_dev)


def folders(wall: Wall, rows: tuple[tuple[bytes, int], ...]) -> None:
    """Make (path, mode) folders on the new root."""
    for path, mode in rows:
        os.mkdir(path, mode)


def links(wall: Wall, rows: tuple[tuple[bytes, bytes], ...]) -> None:
    """Make (target, path) symbolic links on the new root."""
    for target, path in rows:
        os.symlink(target, path)


def files(wall: Wall, rows: tuple[tuple[bytes, int, bytes], ...]) -> None:
    """Write (path, mode, content) files on the new root."""
    for path, mode, content in rows:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
        try:
            os.write(handle, content)
        finally:
            os.close(handle)


def attach(wall: Wall, rows: tuple[tuple[int, bytes], ...]) -> None:
    """Attach opened trees as (index, target), making the target where it is missing on a file system of ours."""
    for index, target in rows:
        tree = wall.trees[index]
        try:
            mounts.attach(tree, target)
        except FileNotFoundError:
            _ensure(wall, target, folder=mounts.is_folder(tree))
            mounts.attach(tree, target)
        os.close(tree)
        wall.trees[index] = -1


def _ensure(wall: Wall, target: bytes, *, folder: bool) -> None:
    """Make a mount point, but never inside something that belongs to the host."""
    parent = os.path.dirname(target)
    if not os.path.lexists(parent):
        _ensure(wall, parent, folder=True)
    # SECURITY: a mount point made in a bound host folder would stay there after the sandbox.
    if os.stat(parent).st_dev not in wall.devices:
        raise OSError(errno.ENOENT, "mount point does not exist in a shown folder")
    if folder:
        os.mkdir(target, 0o755)
    else:
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644))


def mount_new(wall: Wall, kind: bytes, target: bytes, flags: int, options: bytes) -> None:
    """Mount a new tmpfs or devpts at `target`."""
    try:
        mounts.mount(b"kavach", target, kind, flags, options)
    except FileNotFoundError:
        _ensure(wall, target, folder=True)
        mounts.mount(b"kavach", target, kind, flags, options)
    wall.devices.add(os.stat(target).st_dev)


def mask(wall: Wall, targets: tuple[bytes, ...]) -> None:
    """Cover each target with an empty, read-only, unreadable folder or file; make it first where a command could."""
    for target in targets:
        try:
            # SECURITY: opened through any link: what it leads to is covered, and not the link, by all its names.
            place = os.open(target, os.O_PATH | os.O_CLOEXEC)
        except FileNotFoundError:
            # On a read-only view nobody inside can make it; on a file system of ours it is made now and covered.
            if os.stat(_nearest(target)).st_dev not in wall.devices:
                continue
            _ensure(wall, target, folder=True)
            place = os.open(target, os.O_PATH | os.O_CLOEXEC)
        try:
            tree = mounts.open_tree(b"/.kavach/folder" if mounts.is_folder(place) else b"/.kavach/file", _READ_ONLY)
            try:
                mounts.attach_at(tree, place)
            finally:
                os.close(tree)
        finally:
            os.close(place)


def _nearest(path: bytes) -> bytes:
    """Return the longest part of the path that exists."""
    while not os.path.exists(path):
        path = os.path.dirname(path)
    return path


def seal(wall: Wall, target: bytes) -> None:
    """Make one mount read-only; what is mounted on it keeps its own flags."""
    handle = os.open(target, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        mounts.set_attributes(handle, uapi.MOUNT_ATTR_RDONLY, recursive=False)
    finally:
        os.close(handle)


def hold_folder(wall: Wall, path: bytes) -> None:
    """Keep a descriptor of the working folder, which goes to the host before any command runs."""
    wall.folder = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


def name_host(wall: Wall, hostname: bytes, domainname: bytes) -> None:
    """Name the host inside."""
    namespaces.set_hostname(hostname)
    namespaces.set_domainname(domainname or b"(none)")


def loopback_up(wall: Wall) -> None:
    """Bring up lo in the own network namespace."""
    namespaces.bring_loopback_up()


def forbid_user_namespaces(wall: Wall) -> None:
    """Let nobody inside make a user namespace, whatever the filter says."""
    handle = os.open("/proc/sys/user/max_user_namespaces", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(handle, b"0")
    finally:
        os.close(handle)


def listen(wall: Wall, name: bytes, ports: tuple[int, ...]) -> None:
    """Keep the live counterparts that canaries try to reach: an abstract socket, TCP listeners on lo."""
    handle = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    handle.bind(b"\0" + name)
    wall.witnesses.append(handle)
    for port in ports:
        listener = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
        listener.bind(("127.0.0.1", port))
        listener.listen(1)
        wall.witnesses.append(listener)


def landlock_ruleset(
    wall: Wall,
    filesystem: int,
    network: int,
    scoped: int,
    paths: tuple[tuple[bytes, int], ...],
    ports: tuple[tuple[int, int], ...],
) -> None:
    """Make the ruleset that every command will be restricted by."""
    wall.ruleset = landlock.create_ruleset(filesystem, network, scoped)
    for path, access in paths:
        try:
            handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except FileNotFoundError:
            continue  # nothing there that could be allowed
        try:
            landlock.add_path(wall.ruleset, handle, access)
        finally:
            os.close(handle)
    for port, access in ports:
        landlock.add_port(wall.ruleset, port, access)


def core_limit(wall: Wall) -> None:
    """Keep cores from being written and from reaching the host's core handler."""
    # 1 and not 0: with 0 a piped core_pattern still starts the host's handler (fs/coredump.c).
    if resource.getrlimit(resource.RLIMIT_CORE) == (1, 1):
        return  # an outer sandbox has set it, and its filter lets nobody set it again
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (1, 1))
    except ValueError as error:
        raise OSError(errno.EPERM, str(error)) from None


def oom_score(wall: Wall, score: int) -> None:
    """Be a likelier victim of the host's memory killer than the host's own processes."""
    # ORDER: while dumpable; afterwards the file belongs to root.
    handle = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(handle, b"%d" % score)
    finally:
        os.close(handle)


def no_new_privileges(wall: Wall) -> None:
    """Set no_new_privs on init, which every command inherits."""
    confine.set_no_new_privileges()


def drop_bounding_set(wall: Wall) -> None:
    """Empty the bounding set and lock the securebits."""
    confine.empty_bounding_set()
    confine.lock_securebits()


def keep_capabilities(wall: Wall, kept: tuple[int, ...]) -> None:
    """Keep what init needs to fork commands under their own ids, nothing else."""
    confine.keep_capabilities(kept)


def become_undumpable(wall: Wall) -> None:
    """Close init's memory to the commands, and tie it to the launcher again."""
    # ORDER: both are cleared by a change of ids, so they come after it.
    confine.set_undumpable()
    die_with_launcher(wall)


def filter_init(wall: Wall, program: bytes) -> None:
    """Put init itself behind a filter; the commands' own comes on top of it."""
    seccomp.install(program)


STEPS: dict[bytes, Callable[..., None]] = {
    b"adopt_orphans": adopt_orphans,
    b"die_with_launcher": die_with_launcher,
    b"take_ids": take_ids,
    b"leave_keyring": leave_keyring,
    b"private_mounts": private_mounts,
    b"open_trees": open_trees,
    b"open_proc": open_proc,
    b"new_root": new_root,
    b"folders": folders,
    b"links": links,
    b"files": files,
    b"attach": attach,
    b"mount_new": mount_new,
    b"mask": mask,
    b"seal": seal,
    b"hold_folder": hold_folder,
    b"name_host": name_host,
    b"loopback_up": loopback_up,
    b"forbid_user_namespaces": forbid_user_namespaces,
    b"listen": listen,
    b"landlock_ruleset": landlock_ruleset,
    b"core_limit": core_limit,
    b"oom_score": oom_score,
    b"no_new_privileges": no_new_privileges,
    b"drop_bounding_set": drop_bounding_set,
    b"keep_capabilities": keep_capabilities,
    b"become_undumpable": become_undumpable,
    b"filter_init": filter_init,
}
