"""The installed command, started as a user would, with nothing of the test's environment but what finds it."""

from __future__ import annotations

import os
import subprocess
import sys

KAVACH = (sys.executable, "-m", "kavach")
DEADLINE_S = 90
_KEPT = ("PATH", "HOME", "LANG", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "TMPDIR", "XDG_STATE_HOME")


def environment(**more):
    return {name: os.environ[name] for name in _KEPT if name in os.environ} | {"PYTHONSAFEPATH": "1"} | more


def kavach(*words, stdin=None, cwd=None, env=None, **options):
    given = {"input": stdin} if stdin is not None else {"stdin": subprocess.DEVNULL}
    return subprocess.run(
        [*KAVACH, *words],
        capture_output=True,
        cwd=cwd,
        env=environment(**(env or {})),
        timeout=DEADLINE_S,
        **given,
        **options,
    )


def start(*words, **options):
    return subprocess.Popen([*KAVACH, *words], env=environment(), **options)


def lives(marker):
    """Return the processes that carry a word in their command line, but not the one who asks."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid():
            try:
                with open(f"/proc/{entry}/cmdline", "rb") as file:
                    if marker.encode() in file.read():
                        found.append(int(entry))
            except OSError:
                continue
    return found
