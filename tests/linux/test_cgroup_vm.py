"""The v2 tests of test_cgroup_kernel run to their end inside a stock kernel that has v2 controllers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

DEADLINE_S = 600
REPOSITORY = Path(__file__).parents[2]


@pytest.mark.vm
@pytest.mark.parametrize("kernel", ["6.12", "6.1"])
def test_v2_limits_hold_inside_a_stock_kernel(vmrun, kernel):
    inside = [sys.executable, "-B", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly"]
    inside += [str(Path(__file__).with_name("test_cgroup_kernel.py")), "-k", "cgroup2"]
    done = subprocess.run(
        [vmrun, "--kernel", kernel, "--timeout", str(DEADLINE_S - 60), "--", *inside],
        env=os.environ | {"KAVACH_REQUIRE": "cgroup2,root"},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert "13 passed" in done.stdout
    assert "skipped" not in done.stdout
