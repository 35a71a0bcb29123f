"""A sandbox inside a sandbox: to depth 3 where the policy says `nested`, and refused by name where it does not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig

import pytest

import kavach

pytestmark = [pytest.mark.needs("userns", "seccomp"), pytest.mark.landlock(6)]
SOURCE = os.path.dirname(os.path.dirname(os.path.abspath(kavach.__file__)))
VICTIM = """
import json, os, sys
where = json.loads(sys.argv[1])
sys.path[:0] = where['path']
import kavach

depth, nested = int(sys.argv[2]), sys.argv[3] == 'nested'
policy = kavach.SandboxPolicy.strict(python='caller', execute=where['read'], nested=nested, max_pids=None)
program = [sys.executable, '-B', '-c', where['code'], sys.argv[1], str(depth - 1), sys.argv[3]]
try:
    where['code'] = where['code'] or ''
    result = kavach.run(program if depth > 1 else ['echo', 'innermost'], policy=policy, timeout_s=60)
    rows = {row.control.value: row.state.value for row in result.enforcement.rows if row.asked}
    print(json.dumps({'depth': depth, 'score': int(result.score), 'rows': rows, 'reason': result.reason,
                      'exit': result.exit_code, 'stderr': result.stderr[-2000:]}))
    print(result.stdout, end='')
except kavach.KavachError as error:
    print(json.dumps({'depth': depth, 'error': type(error).__name__, 'control': getattr(error, 'control', None),
                      'message': str(error)}))
"""


def _run(depth, word):
    packages = list(
        dict.fromkeys([SOURCE, sysconfig.get_path("purelib"), *os.environ.get("PYTHONPATH", "").split(":")])
    )
    packages = [path for path in packages if path and os.path.isdir(path)]
    where = json.dumps({"path": packages, "read": packages, "code": VICTIM})
    argv = [sys.executable, "-B", "-c", VICTIM, where, str(depth), word]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=180, cwd="/")
    assert done.returncode == 0, done.stderr
    return [json.loads(line) if line.startswith("{") else line for line in done.stdout.splitlines()]


def test_strict_in_strict_runs_to_depth_3_and_the_inner_score_is_observed():
    lines = _run(3, "nested")
    assert lines[-1] == "innermost", lines
    layers = {row["depth"]: row for row in lines[:-1]}
    assert set(layers) == {3, 2, 1}
    for row in layers.values():
        assert (row["reason"], row["exit"]) == ("exit", 0), row
        for control in ("user_ns", "pid_ns", "mount_view", "no_caps", "no_new_privs", "seccomp", "network"):
            assert row["rows"][control] == "enforced", row
        assert row["score"] >= 60


def test_without_nested_the_inner_one_refuses_and_names_the_control():
    lines = _run(2, "plain")
    inner = next(row for row in lines if isinstance(row, dict) and row["depth"] == 1)
    assert inner.get("error") == "UnsupportedError", lines
    assert inner["control"] == "user_ns"
