"""`devices`: a named node is bound, usable and in the Landlock rules; without the policy it is not there."""

from __future__ import annotations

import os
import stat

import pytest

import kavach

pytestmark = [pytest.mark.needs("userns", "seccomp"), pytest.mark.landlock(6)]


def _node():
    """Return a character device beside the standard ones that this user can open."""
    for name in ("/dev/fuse", "/dev/kvm", "/dev/net/tun", "/dev/ptp0", "/dev/rtc0", "/dev/hwrng"):
        try:
            if stat.S_ISCHR(os.stat(name).st_mode):
                os.close(os.open(name, os.O_RDWR | os.O_NONBLOCK))
                return name
        except OSError:
            continue
    pytest.skip("no device node beside the standard ones can be opened by this user")
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
