"""Holes that a canary finds on a real kernel: the host's PID 1 in reach, a variable of the host's in a child."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap

import pytest

import kavach
from kavach.launcher import client

DEADLINE_S = 60
WITHOUT_PID_NAMESPACES_AND_LANDLOCK = """
import ctypes, json, struct
LIBC = ctypes.CDLL(None, use_errno=True)
code = [(0x20, 0, 0, 0)]
for number in (56, 272):  # clone, unshare: asm/unistd_64.h; CLONE_NEWPID: linux/sched.h
    code += [(0x15, 0, 4, number), (0x20, 0, 0, 16), (0x45, 0, 1, 0x20000000), (0x06, 0, 0, 0x50001), (0x20, 0, 0, 0)]
for number in (435, 444):  # clone3, landlock_create_ruleset: ENOSYS
    code += [(0x15, 0, 1, number), (0x06, 0, 0, 0x50026)]
code.append((0x06, 0, 0, 0x7FFF0000))
text = b"".join(struct.pack("HBBI", *row) for row in code)
kept = ctypes.create_string_buffer(text, len(text))
assert LIBC.prctl(38, 1, 0, 0, 0) == 0
assert LIBC.syscall(317, 1, 0, struct.pack("@HP", len(code), ctypes.addressof(kept))) == 0
import kavach
found = {}
for policy in ("minimal", "basic", "strict"):
    try:
        result = kavach.run(["sh", "-c", "kill -0 1 && echo reached"], policy=policy)
        found[policy] = [result.stdout.strip(), list(result.enforcement.holes), int(result.score)]
    except kavach.UnsupportedError as error:
        found[policy] = error.control
print(json.dumps(found))
"""


@pytest.mark.needs("plain", "userns", "x86_64", "seccomp")
def test_a_host_init_that_a_command_can_signal_caps_the_score_and_stricter_policies_refuse():
    as_pid_1 = ["unshare", "--user", "--map-current-user", "--pid", "--fork", "--mount-proc"]
    argv = [*as_pid_1, sys.executable, "-B", "-c", textwrap.dedent(WITHOUT_PID_NAMESPACES_AND_LANDLOCK)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=DEADLINE_S, cwd="/", env=os.environ)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    reached, holes, score = found["minimal"]
    assert reached == "reached"
    assert "host_init_signalable" in holes  # a neighbour's socket may be reachable too
    assert score <= 29
    assert (found["basic"], found["strict"]) == ("filesystem", "filesystem")


@pytest.mark.needs("userns", "seccomp")
def test_a_variable_of_the_host_in_a_child_is_refused_before_anything_runs(monkeypatch: pytest.MonkeyPatch):
    spawn = os.posix_spawn

    def leak(path: str, argv: list[str], _env: dict[str, str], **more: object) -> int:
        return spawn(path, argv, {"DATABASE_PASSWORD": "of the host"}, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(client, "_shared", None)
    monkeypatch.setattr(os, "posix_spawn", leak)
    try:
        with pytest.raises(kavach.UnsupportedError, match="host_secret_in_environment"):
            kavach.run(["true"], policy="basic")
    finally:
        leaking, client._shared = client._shared, None
        if leaking is not None:
            leaking.close()
