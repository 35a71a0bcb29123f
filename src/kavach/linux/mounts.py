"""Mounts by descriptor: trees are cloned, marked and only then attached, so nothing is ever visible half-restricted.

Guarantees: `open_tree` returns a detached copy on which the asked attributes already hold for every mount below it.
Does not: choose what is shown. May be called by: the launcher (for its own root) and init.
"""

from __future__ import annotations

import errno
import os
import stat
import struct

from kavach.linux import libc, uapi

_HOW = struct.Struct("=3Q")  # linux/openat2.h: struct open_how; 5.6
_ATTR = struct.Struct("=4Q")  # linux/mount.h: struct mount_attr, version 0; 5.12


def open_tree(source: bytes, attributes: int, *, userns_fd: int = -1) -> int:
    """Return a descriptor of a detached, recursive copy of the mounts at `source`, already marked.

    Args:
        source: path on the side of the caller's mount namespace. Symlinks are followed, but where the copy takes
            writes: a link planted by one sandbox must not become the writable folder of the next.
        attributes: MOUNT_ATTR_* bits set on every mount of the copy.
        userns_fd: user namespace whose map the copy's owners are seen through (idmapped mount), -1 for none.

    Raises:
        OSError: ENOENT and the like for the path, ELOOP for a link on the way to a writable folder, EPERM without
            CAP_SYS_ADMIN, EINVAL where the file system cannot be idmapped. Nothing stays attached.
    """
    flags = uapi.OPEN_TREE_CLONE | uapi.OPEN_TREE_CLOEXEC | uapi.AT_RECURSIVE
    if attributes & uapi.MOUNT_ATTR_RDONLY or not attributes & uapi.MOUNT_ATTR_NODEV:
        tree = libc.syscall(uapi.SYS_OPEN_TREE, uapi.AT_FDCWD, source, flags)
    else:
        folder = _open_without_links(source)
        try:
            tree = libc.syscall(uapi.SYS_OPEN_TREE, folder, b"", flags | uapi.AT_EMPTY_PATH)
        finally:
            os.close(folder)
    try:
        set_attributes(tree, attributes, recursive=True)
        if userns_fd >= 0:
            _set(tree, uapi.AT_EMPTY_PATH, uapi.MOUNT_ATTR_IDMAP, userns_fd)
    except OSError:
        os.close(tree)
        raise
    return tree


def _open_without_links(path: bytes) -> int:
    how = libc.buffer(_HOW.pack(os.O_PATH | os.O_CLOEXEC, 0, uapi.RESOLVE_NO_SYMLINKS))
    try:
        return libc.syscall(uapi.SYS_OPENAT2, uapi.AT_FDCWD, path, how, _HOW.size)
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
    return _walk_without_links(path)  # inside another sandbox, whose filter hides the call


def _walk_without_links(path: bytes) -> int:
    handle = os.open(b"/", os.O_PATH | os.O_CLOEXEC)
    for name in path.split(b"/"):
        if name:
            try:
                inner = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=handle)
            finally:
                os.close(handle)
            handle = inner
            if stat.S_ISLNK(os.fstat(handle).st_mode):
                os.close(handle)
                raise OSError(errno.ELOOP, "a symbolic link in the path")
    return handle


def set_attributes(tree: int, attributes: int, *, recursive: bool) -> None:
    """Set MOUNT_ATTR_* bits on the mount that descriptor `tree` names, and on all below it if `recursive`."""
    if attributes:
        _set(tree, uapi.AT_EMPTY_PATH | (uapi.AT_RECURSIVE if recursive else 0), attributes, 0)


def _set(tree: int, flags: int, attributes: int, userns_fd: int) -> None:
    packed = libc.buffer(_ATTR.pack(attributes, 0, 0, userns_fd))
    libc.syscall(uapi.SYS_MOUNT_SETATTR, tree, b"", flags, packed, _ATTR.size)


def attach(tree: int, target: bytes) -> None:
    """Attach the detached tree at `target`, which exists and is of the same kind (folder or file)."""
    libc.syscall(uapi.SYS_MOVE_MOUNT, tree, b"", uapi.AT_FDCWD, target, uapi.MOVE_MOUNT_F_EMPTY_PATH)


def attach_at(tree: int, place: int) -> None:
    """Attach the detached tree over what descriptor `place` names, which is of the same kind."""
    flags = uapi.MOVE_MOUNT_F_EMPTY_PATH | uapi.MOVE_MOUNT_T_EMPTY_PATH
    libc.syscall(uapi.SYS_MOVE_MOUNT, tree, b"", place, b"", flags)


def is_folder(tree: int) -> bool:
    """Return whether the root of the tree is a folder."""
    return stat.S_ISDIR(os.fstat(tree).st_mode)


def mount(source: bytes, target: bytes, kind: bytes, flags: int, options: bytes) -> None:
    """Mount a new file system of `kind` (mount(2), MS_* flags)."""
    libc.syscall(uapi.SYS_MOUNT, source, target, kind, flags, options)


def make_private() -> None:
    """Stop mount events in both directions between this mount namespace and the one it was copied from."""
    libc.syscall(uapi.SYS_MOUNT, None, b"/", None, uapi.MS_REC | uapi.MS_PRIVATE, None)


def pivot(new_root: bytes) -> None:
    """Make `new_root` (a mount point) the root of this mount namespace; nothing of the old root stays reachable.

    Raises:
        OSError: the kernel refused; the caller must not go on.
    """
    os.chdir(new_root)
    # The old root lands on top of the new one and is detached at once: pivot_root(2), "pivot_root(".", ".")".
    libc.syscall(uapi.SYS_PIVOT_ROOT, b".", b".")
    libc.syscall(uapi.SYS_UMOUNT2, b".", uapi.MNT_DETACH)
    os.chdir(b"/")


def read_mountinfo(text: bytes) -> list[tuple[bytes, bytes, bytes, bytes]]:
    """Return (mount point, per-mount options, file system type, source) of each line, in mount order.

    proc(5), /proc/PID/mountinfo: octal escapes are undone in the mount point only.
    """
    rows = []
    for line in text.splitlines():
        left, _, right = line.partition(b" - ")
        fields = left.split(b" ")
        kind, _, rest = right.partition(b" ")
        if len(fields) < 6 or not kind:
            raise ValueError("not a mountinfo line")
        rows.append((_unescape(fields[4]), fields[5], kind, rest.split(b" ")[0]))
    return rows


def _unescape(path: bytes) -> bytes:
    if b"\\" not in path:
        return path
    for code, char in ((b"\\040", b" "), (b"\\011", b"\t"), (b"\\012", b"\n"), (b"\\134", b"\\")):
        path = path.replace(code, char)
    return path


def new_tree(kind: bytes, options: tuple[tuple[bytes, bytes], ...], attributes: int) -> int:
    """Return a descriptor of a new, detached file system of `kind` with MOUNT_ATTR_* bits (fsopen(2), Linux 5.2).

    For proc the kernel demands that a complete proc is visible in the caller's mount namespace at this moment.

    Raises:
        OSError: EPERM where the only visible proc has files masked, EINVAL for an unknown option.
    """
    context = libc.syscall(uapi.SYS_FSOPEN, kind, uapi.FSOPEN_CLOEXEC)
    try:
        for key, value in options:
            libc.syscall(uapi.SYS_FSCONFIG, context, uapi.FSCONFIG_SET_STRING, key, value, 0)
        libc.syscall(uapi.SYS_FSCONFIG, context, uapi.FSCONFIG_CMD_CREATE, None, None, 0)
        return libc.syscall(uapi.SYS_FSMOUNT, context, uapi.FSMOUNT_CLOEXEC, attributes)
    finally:
        os.close(context)
