"""The private working folder where no mount namespace gives one: a folder on the host that goes with the sandbox.

Guarantees: mode 0700, a name that nobody can foresee, and an owner that a later process can recognise as dead. Does
not: limit its size. May be called by: kavach.backends.process.
"""

from __future__ import annotations

import os
import re
import tempfile

from kavach.launcher.limits import is_owner_alive
from kavach.linux import trees
from kavach.linux.cgroup import find_identity

_NAME = re.compile(r"kavach-(\d+)-(\d+)-(\d+)-[A-Za-z0-9_]+")


def make_scratch() -> str:
    """Return a new folder for one sandbox, named after this process and its start."""
    pid, start, namespace = find_identity("/proc")
    return tempfile.mkdtemp(prefix=f"kavach-{pid}-{start}-{namespace}-")


def sweep_scratch() -> tuple[str, ...]:
    """Remove the folders of this user whose owner process is gone; return what was removed."""
    root = tempfile.gettempdir()
    own = find_identity("/proc")[2]
    gone = []
    for name in os.listdir(root):
        match = _NAME.fullmatch(name)
        path = os.path.join(root, name)
        if match is None or int(match[3]) != own or os.lstat(path).st_uid != os.geteuid():
            continue
        if not is_owner_alive(int(match[1]), int(match[2])) and trees.remove_tree(path.encode()):
            gone.append(path)
    return tuple(gone)
