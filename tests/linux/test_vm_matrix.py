"""`strict` inside stock kernels 6.1, 6.12 and 7.3, as root and as a plain user, with cgroup v2 limits as root.

The score must be lower than the requested one by exactly the rows that were not seen in force there.
"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.vm
DEADLINE_S = 600
KERNELS = ("6.1", "6.12", "7.3")
PLAIN_ID = 12345
VICTIM = """
import json, os, subprocess, sys, time
sys.path[:0] = json.loads(sys.argv[1])
who = sys.argv[2]
if who == 'plain':
    os.setgroups([]); os.setresgid(12345, 12345, 12345); os.setresuid(12345, 12345, 12345)
os.chdir('/')
import kavach

def rows(result):
    return {row.control.value: [row.state.value, row.detail, row.worth, row.reason] for row in result.enforcement.rows
            if row.asked}

found = {'kernel': os.uname().release}
try:
    result = kavach.run(['sh', '-c', 'echo a | tr a b; (sleep 0.1; echo c) & wait'], policy='strict', timeout_s=200)
    found |= {'stdout': result.stdout, 'reason': result.reason.value, 'score': int(result.score),
              'requested': int(result.requested_score), 'rows': rows(result), 'stderr': result.stderr}
    if who == 'root':
        hog = "kept = []\\nwhile True: kept.append(bytearray(16 << 20))"
        with kavach.Sandbox(policy=kavach.SandboxPolicy.strict(memory_limit_mb=64)) as sandbox:
            beside = sandbox.spawn(['sleep', '500'], timeout_s=None)
            found['oom'] = sandbox.exec(['/usr/bin/python3', '-c', hog], timeout_s=200).reason.value
            found['timeout'] = sandbox.exec(['sh', '-c', 'setsid sleep 500 & sleep 500'], timeout_s=10).reason.value
            found['beside_lives'] = beside.poll() is None
            beside.kill()
            beside.wait()
            build = "i=0; while [ $i -lt 100 ]; do sleep 100 & i=$((i+1)); done; wait"
            found['pids'] = sandbox.exec(['bash', '-c', build], timeout_s=200).reason.value
        # A piped core handler must not run on the host for a core of a command.
        handler = '/run/kavach-core'
        with open(handler, 'w') as file:
            file.write('#!/bin/sh\\ncat > /dev/null\\necho ran >> /run/kavach-core-ran\\n')
        os.chmod(handler, 0o755)
        with open('/proc/sys/kernel/core_pattern', 'w') as file:
            file.write('|' + handler + ' %p')
        crash = ['sh', '-c', 'kill -SEGV $$']
        found['crash'] = kavach.run(crash, policy='strict', timeout_s=200).reason.value
        time.sleep(2)
        found['handler_ran_for_command'] = os.path.exists('/run/kavach-core-ran')
        subprocess.run(['sh', '-c', 'ulimit -c unlimited; kill -SEGV $$'])
        time.sleep(2)
        found['handler_ran_outside'] = os.path.exists('/run/kavach-core-ran')
except kavach.KavachError as error:
    found['error'] = [type(error).__name__, getattr(error, 'control', None), str(error)]
print('FOUND ' + json.dumps(found))
"""

#: Of the folders here, /tmp is a tmpfs and /var/tmp an overlay over virtiofs.
LEARNER = """
import json, os, sys, tempfile
sys.path[:0] = json.loads(sys.argv[1])
who = sys.argv[2]
places = {'tmpfs': tempfile.mkdtemp(dir='/tmp'), 'overlay': tempfile.mkdtemp(dir='/var/tmp')}
for place in places.values():
    os.chmod(place, 0o755)
    os.mkdir(place + '/out')
    os.chmod(place + '/out', 0o777)
    with open(place + '/first', 'w') as file:
        file.write('first')
if who == 'plain':
    os.setgroups([]); os.setresgid(12345, 12345, 12345); os.setresuid(12345, 12345, 12345)
os.chdir('/')
import kavach
from kavach.learning import learn

refused = kavach.run(['sh', '-c', 'cat /etc/shadow; mount -t tmpfs none /tmp'], policy='strict', why=True, timeout_s=200)
found = {'kernel': os.uname().release, 'denials': [(one.what, one.target) for one in refused.denials], 'learnt': {}}
for name, place in places.items():
    program = ['sh', '-ec', f'cat {place}/first > {place}/out/copy']
    try:
        proposal = learn(program, policy='strict', writable=[place + '/out'], timeout_ms=200_000)
    except kavach.KavachError as error:
        said = [type(error).__name__, getattr(error, 'control', None), str(error).replace(place, 'PLACE')]
    else:
        rules = proposal.policy.filesystem
        os.unlink(place + '/out/copy')
        again = kavach.run(program, policy=proposal.policy, timeout_s=200).ok
        fewer = [kavach.run(program, policy=proposal.policy.replace(**{leaf: ()}), timeout_s=200).ok for leaf in ('read', 'write')]
        said = [proposal.passes, [one.replace(place, 'PLACE') for one in sorted(proposal.changes)], again, fewer]
    found['learnt'][name] = said
print('FOUND ' + json.dumps(found))
"""


def _run(vmrun, machine_tree, kernel, who, victim=VICTIM):
    packages = list(machine_tree.packages)
    interpreter = machine_tree.python if who == "root" else "/usr/bin/python3"
    argv = [vmrun, "--kernel", kernel, "--timeout", str(DEADLINE_S - 60), "--"]
    argv += [interpreter, "-B", "-c", victim, json.dumps(packages), who]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=DEADLINE_S, cwd="/")
    lines = [line for line in done.stdout.splitlines() if line.startswith("FOUND ")]
    assert lines, done.stdout[-3000:] + done.stderr[-3000:]
    return json.loads(lines[0].removeprefix("FOUND "))


#: What Landlock of these kernels lacks, against the requested strength: scopes come by namespace alone, one point less each.
LESS = {"6.1": {"scope_abstract": 1, "scope_signal": 1}, "6.12": {}, "7.3": {}}


def _same_interpreter():
    """Return whether the packages of this interpreter also load in the distribution's, which a plain user can start."""
    return sys.version_info[:2] == (3, 11)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("who", ["root", "plain"])
def test_strict_runs_with_a_score_lower_by_exactly_the_rows_not_seen(vmrun, machine_tree, kernel, who):
    if who == "plain" and not _same_interpreter():
        pytest.skip("packages of this Python do not load in the distribution's")
    found = _run(vmrun, machine_tree, kernel, who)
    assert "error" not in found, found
    assert found["kernel"].startswith(kernel)
    assert (found["stdout"], found["reason"]) == ("b\nc\n", "exit")
    less = dict(LESS[kernel])
    if who == "plain":
        less["limits"] = 1  # no delegated cgroup: rlimits and the watchdog
    assert found["requested"] - found["score"] == sum(less.values()), found["rows"]
    for control in less:
        assert found["rows"][control][1] in {"namespace", "rlimits"}
    if who == "root":
        assert found["rows"]["limits"][:2] == ["enforced", "cgroup2"]
        assert (found["oom"], found["timeout"], found["pids"]) == ("oom", "timeout", "pids"), found
        assert found["beside_lives"] is True
        assert found["crash"] in {"signal", "exit"}
        assert found["handler_ran_for_command"] is False
        assert found["handler_ran_outside"] is True


#: Where root cannot show a host folder as the command's own: tmpfs has idmapped mounts from 6.3, overlays later than 6.12.
NO_IDMAPS = {"6.1": {"tmpfs", "overlay"}, "6.12": {"overlay"}}


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("who", ["root", "plain"])
def test_refusals_are_named_and_policies_learnt_on_every_kernel(vmrun, machine_tree, kernel, who):
    if who == "plain" and not _same_interpreter():
        pytest.skip("packages of this Python do not load in the distribution's")
    found = _run(vmrun, machine_tree, kernel, who, LEARNER)
    assert {("open", "/etc/shadow"), ("mount", "/tmp")} <= {tuple(one) for one in found["denials"]}
    for place, said in found["learnt"].items():
        if who == "root" and place in NO_IDMAPS.get(kernel, ()):
            assert said[:2] == ["UnsupportedError", "workdir"]
            assert said[2].startswith("run 2 of learning: this host does not let filesystem.write += "), said
        else:
            assert said == [
                True,
                ['filesystem.read += "PLACE/first"', 'filesystem.write += "PLACE/out"'],
                True,
                [False, False],
            ]
