"""`devices`: a named node is bound, usable and in the Landlock rules; without the policy it is not there."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys

import pytest

import kavach

pytestmark = [pytest.mark.needs("userns", "seccomp"), pytest.mark.landlock(6)]
MOUNTED = """
import json, os, stat, subprocess, sys
assert subprocess.run(['mount', '-t', 'tmpfs', '-o', 'dev', 'tmpfs', '/dev/shm']).returncode == 0
os.mknod('/dev/shm/node', stat.S_IFCHR | 0o600, os.makedev(1, 5))  # /dev/zero under another name
import kavach
code = "print(len(open('/dev/shm/node', 'rb').read(9)))"
found = {}
for name, devices in (('named', ['/dev/shm/node']), ('not_named', [])):
    result = kavach.run(['/usr/bin/python3', '-c', code], policy=kavach.SandboxPolicy.strict(devices=devices))
    found[name] = [result.stdout, result.stderr, result.enforcement['devices'].state]
print(json.dumps(found))
"""


@pytest.mark.root
def test_device_of_mode_0600_is_the_command_s_own_where_the_file_system_translates_owners():
    argv = ["unshare", "--mount", "--", sys.executable, "-B", "-c", MOUNTED]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["named"][0], found["named"][2]) == ("9\n", "enforced"), found
    assert "No such file" in found["not_named"][1]
    assert found["not_named"][2] == "not_asked"


@pytest.mark.root
def test_device_that_its_permissions_keep_from_the_command_is_refused_by_name():
    if not os.path.exists("/dev/fuse") or stat.S_IMODE(os.stat("/dev/fuse").st_mode) & 0o066:
        pytest.skip("no closed device node on this host")
    with pytest.raises(kavach.UnsupportedError) as caught:
        kavach.run(["true"], policy=kavach.SandboxPolicy.strict(devices=["/dev/fuse"]))
    assert caught.value.control == "devices"


def _node():
    """Return a character device beside the standard ones that everybody can open."""
    for name in ("/dev/net/tun", "/dev/fuse", "/dev/kvm", "/dev/tty"):
        try:
            if stat.S_ISCHR(os.stat(name).st_mode) and os.stat(name).st_mode & 0o006 == 0o006:
                os.close(os.open(name, os.O_RDWR | os.O_NONBLOCK))
                return name
        except OSError:
            continue
    pytest.skip("no device node beside the standard ones can be opened by everybody here")
    raise AssertionError


def _open(node):
    return ["/usr/bin/python3", "-c", f"import os; os.close(os.open({node!r}, os.O_RDWR)); print('opened')"]


def test_named_device_can_be_opened_and_the_row_says_so():
    node = _node()
    result = kavach.run(_open(node), policy=kavach.SandboxPolicy.strict(devices=[node]))
    assert (result.stdout, result.exit_code) == ("opened\n", 0), result.stderr
    row = result.enforcement["devices"]
    assert row.state == "enforced"
    assert node in row.evidence


def test_device_that_is_not_named_is_absent():
    node = _node()
    result = kavach.run(_open(node), policy="strict")
    assert result.exit_code != 0
    assert "No such file" in result.stderr


def test_named_device_is_the_only_one_beside_the_standard_ones():
    node = _node()
    shown = kavach.run(["ls", "/dev"], policy=kavach.SandboxPolicy.strict(devices=[node])).stdout.split()
    without = kavach.run(["ls", "/dev"], policy="strict").stdout.split()
    assert set(shown) - set(without) == {node.removeprefix("/dev/").split("/")[0]}


def test_device_that_does_not_exist_is_refused_before_anything_runs():
    with pytest.raises(kavach.KavachError) as caught:
        kavach.run(["true"], policy=kavach.SandboxPolicy.strict(devices=["/dev/kavach-absent"]))
    assert "/dev/kavach-absent" in str(caught.value)
