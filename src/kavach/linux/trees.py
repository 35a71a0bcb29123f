"""Removes a folder that untrusted code has filled, without following anything it planted.

Guarantees: only what lies below the folder itself is removed; symbolic links are removed, never followed; depth costs
no stack; folders made unreadable are made readable first. Does not: cross into other file systems' roots that are
busy. May be called by: the launcher when the host has gone, and the process wall at destroy.
"""

from __future__ import annotations

import errno
import os
import stat


def remove_tree(path: bytes) -> bool:
    """Return whether the folder is gone; what cannot be removed is left and the rest still goes.

    Args:
        path: a folder made by this program; its parent is trusted.
    """
    try:
        top = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno not in {errno.EACCES, errno.EPERM}:
            return False
        os.chmod(path, 0o700)
        return remove_tree(path)
    try:
        while not _empty_one_level(top):
            continue
    except OSError:
        return False
    finally:
        os.close(top)
    try:
        os.rmdir(path)
    except OSError:
        return False
    return True


def _empty_one_level(top: int) -> bool:
    """Remove the entries of `top`; a folder that is not empty has its content moved up first. Return whether done."""
    names = os.listdir(top)
    for name in names:
        found = os.stat(name, dir_fd=top, follow_symlinks=False)
        if not stat.S_ISDIR(found.st_mode):
            os.unlink(name, dir_fd=top)
            continue
        try:
            os.rmdir(name, dir_fd=top)
        except OSError as error:
            if error.errno not in {errno.ENOTEMPTY, errno.EEXIST, errno.EACCES}:
                raise
            _move_up(top, name)
    return not names


def _move_up(top: int, name: str) -> None:
    """Move what is in folder `name` into `top` under new names, so that no path ever grows long or deep."""
    os.chmod(name, 0o700, dir_fd=top)  # SECURITY: a folder, just looked at; a link cannot take its place: nobody lives
    inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=top)
    try:
        for entry in os.listdir(inner):
            if stat.S_ISDIR(os.stat(entry, dir_fd=inner, follow_symlinks=False).st_mode):
                os.chmod(entry, 0o700, dir_fd=inner)
                # SECURITY: a name that could be foreseen could have been taken, and the folder would stay.
                os.rename(entry, f".kavach-{os.urandom(8).hex()}", src_dir_fd=inner, dst_dir_fd=top)
            else:
                os.unlink(entry, dir_fd=inner)
    finally:
        os.close(inner)
