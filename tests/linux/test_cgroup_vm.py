"""The v2 tests of test_cgroup_kernel run to their end inside a stock kernel that has v2 controllers."""

from __future__ import annotations

import os
import subprocess

import pytest

DEADLINE_S = 600


@pytest.mark.vm
@pytest.mark.parametrize("kernel", ["6.12", "6.1"])
def test_v2_limits_hold_inside_a_stock_kernel(vmrun, machine_tree, kernel):
    inside = [machine_tree.python, "-B", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly"]
    inside += [str(machine_tree.repository / "tests/linux/test_cgroup_kernel.py"), "-k", "cgroup2"]
    done = subprocess.run(
        [vmrun, "--kernel", kernel, "--timeout", str(DEADLINE_S - 60), "--", *inside],
        env=os.environ | {"KAVACH_REQUIRE": "cgroup2,root", "PYTHONPATH": ":".join(machine_tree.packages)},
        cwd=machine_tree.repository,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert "13 passed" in done.stdout
    assert "skipped" not in done.stdout
