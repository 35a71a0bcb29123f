"""The view of the files, lowered: mounts in the order in which init makes them, and the Landlock rules over them.

Guarantees: a pure function of policy and situation. Does not: choose what is shown (kavach.launcher.view does). May be
called by: kavach.launcher.lower.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kavach.launcher.situation import INNER_ID, SECRETS_FOLDER, Layout, Situation, Step
from kavach.launcher.view import MASKED_PROC, WORKSPACE
from kavach.linux import landlock_abi as abi
from kavach.linux import uapi

if TYPE_CHECKING:
    from kavach.launcher.view import View
    from kavach.model.policy import SandboxPolicy

READ = abi.LANDLOCK_ACCESS_FS_READ_FILE | abi.LANDLOCK_ACCESS_FS_READ_DIR
EXECUTE = abi.LANDLOCK_ACCESS_FS_EXECUTE
WRITE = (
    abi.LANDLOCK_ACCESS_FS_WRITE_FILE
    | abi.LANDLOCK_ACCESS_FS_REMOVE_DIR
    | abi.LANDLOCK_ACCESS_FS_REMOVE_FILE
    | abi.LANDLOCK_ACCESS_FS_MAKE_DIR
    | abi.LANDLOCK_ACCESS_FS_MAKE_REG
    | abi.LANDLOCK_ACCESS_FS_MAKE_SOCK
    | abi.LANDLOCK_ACCESS_FS_MAKE_FIFO
    | abi.LANDLOCK_ACCESS_FS_MAKE_SYM
    | abi.LANDLOCK_ACCESS_FS_REFER
    | abi.LANDLOCK_ACCESS_FS_TRUNCATE
)
DEVICE = abi.LANDLOCK_ACCESS_FS_WRITE_FILE | abi.LANDLOCK_ACCESS_FS_TRUNCATE | abi.LANDLOCK_ACCESS_FS_IOCTL_DEV


def mount_steps(
    policy: SandboxPolicy,
    situation: Situation,
    trees: tuple[tuple[bytes, int, int], ...],
    *,
    launcher_opens: bool,
) -> list[Step]:
    """Return init's steps from the first mount to the sealed root.

    Args:
        policy: what is asked.
        situation: where it is built.
        trees: what is shown, as (source, attributes, owned).
        launcher_opens: whether the launcher has opened the trees already.
    """
    view = situation.view
    steps: list[Step] = [(b"private_mounts", 1, ())]
    if not launcher_opens:
        steps.append((b"open_trees", 1, (trees,)))
    has_proc = situation.has_proc and "pid" in situation.namespaces
    attachments = [(index, tree.target.encode()) for index, tree in enumerate(view.trees)]
    if has_proc:
        # A nested sandbox's launcher has to see its own init, which is not dumpable.
        options = () if policy.nested else ((b"hidepid", b"2"),)
        steps.append((b"open_proc", 1, (options,)))
        attachments.append((len(trees), b"/proc"))
    steps += [*_own_root(view), *_own_file_systems(policy, situation)]
    steps.append((b"attach", 1, (tuple(attachments),)))
    if view.masked:
        steps.append((b"mask", 1, (tuple(path.encode() for path in view.masked),)))
    if not policy.nested:
        steps.append((b"forbid_user_namespaces", 0, ()))
        if has_proc:
            steps.append((b"mask", 1, (tuple(f"/proc/{name}".encode() for name in MASKED_PROC),)))
            steps.append((b"seal", 1, (b"/proc",)))
    if policy.filesystem.read_only_rootfs:
        steps.append((b"seal", 1, (b"/",)))
    steps.append((b"hold_folder", 1, (WORKSPACE.encode(),)))
    return steps


def _own_root(view: View) -> list[Step]:
    """Return the steps that make the new root and what is ours in it."""
    owner = f"uid={INNER_ID},gid={INNER_ID}"
    return [
        (b"new_root", 1, (f"mode=755,nr_inodes=4096,size=4m,{owner}".encode(),)),
        (
            b"folders",
            1,
            (
                (
                    (b"/.kavach", 0o755),
                    (b"/.kavach/folder", 0),
                    (b"/proc", 0o555),
                    (b"/etc", 0o755),
                    (b"/dev", 0o755),
                    (b"/tmp", 0o755),
                    (b"/workspace", 0o755),
                ),
            ),
        ),
        (
            b"files",
            1,
            (
                (
                    (b"/.kavach/file", 0, b""),
                    *(
                        (path.encode(), mode, text.encode())
                        for path, mode, text in view.files
                        if not path.startswith("/.kavach")
                    ),
                ),
            ),
        ),
        (
            b"links",
            1,
            (tuple((target.encode(), path.encode()) for target, path in (*view.links, *_DEVICE_LINKS)),),
        ),
    ]


def _own_file_systems(policy: SandboxPolicy, situation: Situation) -> list[Step]:
    """Return the steps that mount the sandbox's own writable places."""
    sizes = _sizes(policy)
    owner = f"uid={INNER_ID},gid={INNER_ID}"
    flags = uapi.MS_NOSUID | uapi.MS_NODEV
    steps: list[Step] = [
        (b"mount_new", 1, (b"tmpfs", b"/tmp", flags, f"mode=1777,{sizes['tmp']}{owner}".encode())),
        (
            b"mount_new",
            1,
            (b"tmpfs", b"/dev/shm", flags | uapi.MS_NOEXEC, f"mode=1777,{sizes['shm']}{owner}".encode()),
        ),
        (
            b"mount_new",
            0,
            (b"devpts", b"/dev/pts", uapi.MS_NOSUID | uapi.MS_NOEXEC, b"newinstance,ptmxmode=0666,mode=620"),
        ),
    ]
    if situation.own_workdir:
        steps.append(
            (
                b"mount_new",
                1,
                (b"tmpfs", b"/workspace", flags, f"mode=755,{sizes['workspace']}{owner}".encode()),
            )
        )
    if situation.has_secret_files:
        steps.append(
            (
                b"mount_new",
                1,
                (
                    b"tmpfs",
                    SECRETS_FOLDER.encode(),
                    flags | uapi.MS_NOEXEC,
                    f"mode=700,size=2m,{owner}".encode(),
                ),
            )
        )
    return steps


_DEVICE_LINKS = (
    ("/proc/self/fd", "/dev/fd"),
    ("fd/0", "/dev/stdin"),
    ("fd/1", "/dev/stdout"),
    ("fd/2", "/dev/stderr"),
    ("pts/ptmx", "/dev/ptmx"),
)


def _sizes(policy: SandboxPolicy) -> dict[str, str]:
    """Return the tmpfs options: all together at most half of the memory limit, for what they hold counts as memory."""
    memory = policy.limits.memory_limit_mb
    half = None if memory is None else memory * (1 << 20) // 2
    wanted = {"workspace": policy.limits.disk_bytes, "tmp": policy.filesystem.tmp_bytes, "shm": None}
    shares = {"workspace": 4, "tmp": 3, "shm": 1}
    options = {}
    for name, asked in wanted.items():
        share = None if half is None else half * shares[name] // 8
        size = asked if share is None else min(asked or share, half or 0)
        options[name] = "" if size is None else f"size={size},nr_inodes={max(1024, size // 4096)},"
    return options


def landlock_paths(
    policy: SandboxPolicy, situation: Situation, handled: int, layout: Layout
) -> tuple[tuple[bytes, int], ...]:
    """Return the Landlock rules as (path, rights)."""
    if not handled:
        return ()
    everything = READ | EXECUTE | WRITE
    if "mnt" in situation.namespaces:
        rows = {
            "/": READ | EXECUTE,
            "/dev": READ | EXECUTE | DEVICE,
            "/tmp": everything,
            "/dev/shm": everything,
            WORKSPACE: everything,
        }
        if situation.has_secret_files:
            rows[SECRETS_FOLDER] = READ | WRITE
        if not policy.filesystem.read_only_rootfs:
            rows["/"] = everything
            rows["/dev"] = everything | DEVICE
    else:
        rows = {tree.target: READ | EXECUTE for tree in situation.view.trees if not tree.target.startswith("/dev/")}
        rows |= {
            f"/dev/{name}": READ | DEVICE
            for name in ("null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts")
        }
        rows |= {"/proc": READ}
        if layout.scratch is not None:
            rows[layout.scratch] = everything
    rows |= dict.fromkeys(situation.view.writable, everything)
    rows |= dict.fromkeys(policy.devices, READ | DEVICE)
    return tuple((path.encode(), access & handled) for path, access in rows.items())
