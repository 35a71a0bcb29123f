"""Whether namespaces really stand here, found by making them in a victim process that is thrown away.

Guarantees: `attempt_namespaces` leaves the calling process and the host as they were. Does not: prove the
wall (the wall's own observed run does), map more than one id, or start the victim itself: the caller hands a
runner in. May be called by: doctor calls `attempt_namespaces`; `enter_namespaces` and `mount_fresh_proc` run
in the victims alone.
"""

from __future__ import annotations

import errno
import os
import sys

from kavach.linux import libc, mounts, uapi

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_IMPORT = "import sys; sys.path.insert(0, sys.argv[1]); from kavach.linux import host_attempt; "
_VICTIM = _IMPORT + "sys.stdout.write('%s %d %s' % host_attempt.enter_namespaces(sys.argv[1]))"
_PROC_VICTIM = _IMPORT + "sys.exit(host_attempt.mount_fresh_proc())"
STAGES = ("unshare_user", "id_map", "unshare_rest", "mount", "fresh_proc")
NOT_RUN = "victim"
_KINDS = {
    "mnt": uapi.CLONE_NEWNS,
    "pid": uapi.CLONE_NEWPID,
    "net": uapi.CLONE_NEWNET,
    "ipc": uapi.CLONE_NEWIPC,
    "uts": uapi.CLONE_NEWUTS,
    "cgroup": uapi.CLONE_NEWCGROUP,
}


def attempt_namespaces(run: Callable[[list[str]], tuple[int, bytes]]) -> tuple[str, int, tuple[str, ...]]:
    """Return where a real attempt at namespaces failed, the errno, and which kinds could not be made.

    Args:
        run: starts a program with an empty environment, waits for its end and returns (return code, stdout).

    Returns:
        One of `STAGES` with an errno, or ("", 0), and the kinds that a user namespace of the victim's own could
        not make; ("unshare_rest" means: none). (`NOT_RUN`, 0, ()) when the victim itself did not run.
    """
    package_folder = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    returncode, output = run([sys.executable, "-I", "-S", "-c", _VICTIM, package_folder])
    stage, code, refused = [*output.decode("ascii", "replace").split(" "), "", "", ""][:3]
    if returncode != 0 or not code.isdigit() or stage not in {"", *STAGES}:
        return NOT_RUN, 0, ()
    return stage, int(code), tuple(kind for kind in refused.split(",") if kind in _KINDS)


def enter_namespaces(package_folder: str) -> tuple[str, int, str]:
    """Try all namespaces, a tmpfs and a fresh /proc; return (failed stage or "", errno, refused kinds with commas).

    SECURITY: for a victim process only: it leaves the caller inside the new namespaces.

    Args:
        package_folder: where a second victim, inside the PID namespace, imports kavach from.
    """
    uid, gid = os.geteuid(), os.getegid()
    refused: list[str] = []
    acts: tuple[Callable[[], object], ...] = (
        lambda: libc.syscall(uapi.SYS_UNSHARE, uapi.CLONE_NEWUSER),
        lambda: _map_ids(uid, gid),
        lambda: refused.extend(_unshare_rest()),
        lambda: _mount_something(refused),
        lambda: _try_fresh_proc(package_folder, refused),
    )
    for stage, act in zip(STAGES, acts, strict=True):
        try:
            act()
        except OSError as error:
            return stage, error.errno or 0, ",".join(refused)
    return "", 0, ",".join(refused)


def _map_ids(uid: int, gid: int) -> None:
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
            file.write(text)


def _unshare_rest() -> list[str]:
    """Return the kinds that were refused; raise if every one was."""
    refused = []
    for kind, flag in _KINDS.items():
        try:
            libc.syscall(uapi.SYS_UNSHARE, flag)
        except OSError:
            refused.append(kind)
            if len(refused) == len(_KINDS):
                raise
    return refused


def _mount_something(refused: list[str]) -> None:
    if "mnt" in refused:
        return  # this would change the host
    mounts.make_private()
    # On /proc, and off again: any other folder may hold the interpreter or this package.
    mounts.mount(b"kavach-probe", b"/proc", b"tmpfs", uapi.MS_NOSUID | uapi.MS_NODEV, b"size=4k")
    libc.syscall(uapi.SYS_UMOUNT2, b"/proc", uapi.MNT_DETACH)


def _try_fresh_proc(package_folder: str, refused: list[str]) -> None:
    """Mount /proc from inside the new PID namespace, which only a child of this victim is in."""
    if "mnt" in refused or "pid" in refused:
        return
    argv = [sys.executable, "-I", "-S", "-c", _PROC_VICTIM, package_folder]
    status = os.waitpid(os.posix_spawn(sys.executable, argv, {}), 0)[1]
    code = os.waitstatus_to_exitcode(status)
    if code > 0:
        raise OSError(code, os.strerror(code))
    if code < 0:
        raise OSError(errno.ECHILD, "the probe inside the PID namespace was killed")


def mount_fresh_proc() -> int:
    """Mount a new /proc over the old one; return 0 or the errno. For a victim inside a PID namespace only."""
    try:
        mounts.mount(b"proc", b"/proc", b"proc", uapi.MS_NOSUID | uapi.MS_NODEV | uapi.MS_NOEXEC, b"")
    except OSError as error:
        return error.errno or errno.EIO
    return 0
