"""Secrets arrive where the references say, and nowhere else: init, launcher, process list, disk and neighbour know none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap

import pytest

pytestmark = [pytest.mark.needs("userns", "seccomp"), pytest.mark.landlock(6)]
VICTIM = """
import glob, json, os, sys, time
import kavach
from kavach.launcher import client

WORD = 'canary-' + 'of-secrets-' + str(os.getpid()) + 'q'
NEEDLE = WORD.encode()




def scan(pid):
    '''Return how often the value is in the memory of a process.'''
    hits = 0
    with open(f'/proc/{pid}/maps') as maps, open(f'/proc/{pid}/mem', 'rb', 0) as memory:
        for line in maps:
            where, rights = line.split()[:2]
            if 'r' not in rights or 'vvar' in line or 'vsyscall' in line:
                continue
            first, last = (int(word, 16) for word in where.split('-'))
            try:
                memory.seek(first)
                hits += memory.read(last - first).count(NEEDLE)
            except (OSError, OverflowError, ValueError):
                continue
    return hits


def lists():
    '''Return the processes whose arguments or environment hold the value.'''
    found = []
    for path in glob.glob('/proc/[0-9]*'):
        for part in ('cmdline', 'environ'):
            try:
                with open(f'{path}/{part}', 'rb') as file:
                    if NEEDLE in file.read():
                        found.append((int(path[6:]), part))
            except OSError:
                continue
    return found
"""


def run(code):
    argv = [sys.executable, "-B", "-c", VICTIM + textwrap.dedent(code)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, env=os.environ)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


SETUP = """
proxy = kavach.CredentialProxy()
proxy.register('token', WORD)
refs = (
    kavach.SecretRef('token', kavach.EnvVar('TOKEN')),
    kavach.SecretRef('token', kavach.File('/run/secrets/token')),
    kavach.SecretRef('token', kavach.Stdin()),
    kavach.SecretRef('token', kavach.Fd(7)),
)
def sandbox(secrets=refs, **more):
    more.setdefault('externalization', kavach.ExternalizationPolicy.off())  # the injection itself is looked at here
    return kavach.Sandbox(policy=more.pop('policy', 'strict'), secrets=secrets, credentials=proxy, **more)
"""
READ_ALL = (
    "import os; print(os.environ['TOKEN']); print(open('/run/secrets/token').read());"
    "print(oct(os.stat('/run/secrets/token').st_mode & 0o777)); print(input()); print(os.read(7, 999).decode())"
)


def test_each_way_of_injection_arrives_and_the_row_says_so():
    found = run(
        SETUP
        + f"""
with sandbox() as box:
    result = box.exec(['/usr/bin/python3', '-c', {READ_ALL!r}])
row = result.enforcement['secrets']
print(json.dumps([WORD, result.stdout, result.stderr, row.state, row.evidence]))
"""
    )
    word, stdout, stderr, state, evidence = found
    assert stdout.split() == [word, word, "0o400", word, word], stderr
    assert state == "enforced"
    assert "/run/secrets/token" in evidence


def test_row_is_not_asked_without_a_secret():
    found = run("print(json.dumps(kavach.run(['true'], policy='strict').enforcement['secrets'].state))")
    assert found == "not_asked"


def test_file_that_would_lie_in_a_host_folder_is_refused(tmp_path):
    os.chmod(tmp_path, 0o755)
    found = run(
        SETUP
        + f"""
ref = kavach.SecretRef('token', kavach.File('/workspace/token'))
try:
    with sandbox((ref,), workdir={str(tmp_path)!r}, workdir_rw=True) as box:
        box.exec(['true'])
    print(json.dumps('ran'))
except kavach.UnsupportedError as error:
    print(json.dumps(error.control))
"""
    )
    assert found == "secrets"
    assert os.listdir(tmp_path) == []


LEAKS = (
    SETUP
    + """
with sandbox() as box, kavach.Sandbox(policy='strict') as neighbour:
    process = box.spawn(['/usr/bin/python3', '-c',
                         'import os, time; os.write(1, os.read(7, 999)); kept = os.environ["TOKEN"]; time.sleep(60)'])
    other = neighbour.spawn(['sleep', '60'])
    time.sleep(0.5)
    init, command = box._wall._standing.pid, box.processes()[0]
    next_init = neighbour._wall._standing.pid
    launcher = client.shared().pid
    late = kavach.Sandbox(policy='strict')
    late.__enter__()
    found = {
        'command': scan(command), 'init': scan(init), 'neighbour': scan(next_init), 'launcher': scan(launcher),
        'late': scan(late._wall._standing.pid),
        'lists': [part for pid, part in lists() if pid not in (command,)],
        'own': [part for pid, part in lists() if pid == command],
        'inside': neighbour.exec(['sh', '-c', 'cat /proc/[0-9]*/environ 2>/dev/null | tr "\\\\0" "\\\\n"']).stdout.count(WORD),
    }
    late.destroy()
    process.kill()
print(json.dumps(found))
"""
)


@pytest.mark.root
def test_memory_of_init_launcher_and_neighbour_and_the_process_list_hold_no_value():
    found = run(LEAKS)
    assert found["command"] > 0  # the positive control: the scan finds it where it must be
    assert found["own"] == ["environ"]
    for who in ("init", "neighbour", "launcher", "late"):
        assert found[who] == 0, found
    assert found["lists"] == []
    assert found["inside"] == 0


def test_value_lies_in_no_file_of_the_host():
    found = run(
        SETUP
        + """
with sandbox() as box:
    box.exec(['sh', '-c', 'cat /run/secrets/token > /tmp/kept; cat /run/secrets/token > /workspace/kept'])
    hits = []
    for root in ('/tmp', '/var/tmp', '/dev/shm', '/run'):
        for folder, _, names in os.walk(root):
            for name in names:
                path = os.path.join(folder, name)
                try:
                    if os.path.isfile(path) and os.stat(path).st_mtime > time.time() - 60 and NEEDLE in open(path, 'rb').read():
                        hits.append(path)
                except OSError:
                    continue
print(json.dumps(hits))
"""
    )
    assert found == []


def test_command_after_it_in_the_same_sandbox_finds_nothing_in_proc_1():
    found = run(
        SETUP
        + """
with sandbox() as box:
    box.exec(['true'])
    result = box.exec(['sh', '-c', 'cat /proc/1/environ /proc/1/cmdline | tr "\\\\0" "\\\\n"'])
print(json.dumps([WORD in result.stdout, result.stdout]))
"""
    )
    assert found[0] is False, found
