"""What a switch of the host withholds, inside stock kernels: sysctls, the boot line, a mount that is not there.

One machine a kernel (and a boot line) is started, and withheld_driver.py tries every case in it.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
from typing import NamedTuple

import pytest

pytestmark = [
    pytest.mark.vm,
    pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="packages of this Python do not load in the machine's"),
]
DEADLINE_S = 900
LONG = ("6.12",)
KERNELS = ("6.1", *LONG, "7.3")
SYSCTL = "/proc/sys/"


class Switch(NamedTuple):
    """One thing withheld.

    Args:
        lost: the control that strict must name, "" where it runs all the same.
        row: the doctor's row.
        cause: what the row must say, "" where nothing is lost.
        fix: what it must advise.
        changes: what is written where.
        who: who runs Kavach.
        everywhere: on every kernel, not only on the one with all cases.
    """

    lost: str = ""
    row: str = ""
    cause: str = ""
    fix: str = ""
    changes: dict[str, str] = {}  # noqa: RUF012 - a NamedTuple's default
    who: str = "plain"
    everywhere: bool = False


def _limit(kind: str, lost: str, row: str, *, who: str = "plain", everywhere: bool = False) -> Switch:
    name = f"user.max_{kind}_namespaces"
    return Switch(
        lost=lost,
        row=row,
        cause=f"{name}=0 forbids new ones" if row else "",
        fix=f"sysctl -w {name}=15000",
        changes={SYSCTL + name.replace(".", "/"): "0"},
        who=who,
        everywhere=everywhere,
    )


def _harmless(path: str, value: str, *, who: str = "plain", everywhere: bool = False) -> Switch:
    return Switch(changes={SYSCTL + path: value}, who=who, everywhere=everywhere)


CLONE = {SYSCTL + "kernel/unprivileged_userns_clone": "0"}
CLONE_WORDS = ("kernel.unprivileged_userns_clone=0 keeps them for root", "sysctl -w kernel.unprivileged_userns_clone=1")
SWITCHES = {
    "nothing": Switch(everywhere=True),
    "nothing as root": Switch(who="root", everywhere=True),
    "no user namespaces": _limit("user", "user_ns", "user_ns", everywhere=True),
    "no user namespaces as root": _limit("user", "user_ns", "user_ns", who="root"),
    "no pid namespaces": _limit("pid", "pid_ns", "pid_ns", everywhere=True),
    "no pid namespaces as root": _limit("pid", "pid_ns", "pid_ns", who="root"),
    "no mount namespaces": _limit("mnt", "mount_view", "mount_view", everywhere=True),
    "no ipc namespaces": _limit("ipc", "ipc_ns", "ipc_ns"),
    "no uts namespaces": _limit("uts", "uts_ns", "uts_ns"),
    "no network namespaces": _limit("net", "", "network", everywhere=True),
    "no cgroup namespaces": _limit("cgroup", "", ""),
    "no user namespaces for plain users": Switch("user_ns", "user_ns", *CLONE_WORDS, CLONE, everywhere=True),
    "no user namespaces for plain users, as root": Switch(changes=CLONE, who="root"),
    "restricted by AppArmor": Switch(
        "user_ns",
        "user_ns",
        "kernel.apparmor_restrict_unprivileged_userns=1",
        "kernel.apparmor_restrict_unprivileged_userns=0",
        {SYSCTL + "kernel/apparmor_restrict_unprivileged_userns": "1"},
    ),
    "no io_uring": _harmless("kernel/io_uring_disabled", "2"),
    "no executable memfds": _harmless("vm/memfd_noexec", "2", everywhere=True),
    "no executable memfds as root": _harmless("vm/memfd_noexec", "2", who="root"),
    "no more keys": _harmless("kernel/keys/maxkeys", "1"),
    "no control groups mounted as root": Switch(
        row="limits",
        cause="no control groups are mounted",
        fix="mount cgroup2",
        changes={"umount": "/sys/fs/cgroup"},
        who="root",
    ),
    "tracing of children alone": _harmless("kernel/yama/ptrace_scope", "1"),
    "tracing by root alone": _harmless("kernel/yama/ptrace_scope", "2"),
    # This one cannot be taken back: it is tried last.
    "tracing by nobody": _harmless("kernel/yama/ptrace_scope", "3", everywhere=True),
    "tracing by nobody as root": _harmless("kernel/yama/ptrace_scope", "3", who="root"),
}
#: A boot line -> the doctor's row, its cause and its fix.
BOOTS = {
    "lsm=lockdown,capability,yama": ("landlock", "not in the kernel's lsm= list", "lsm=landlock,"),
    "cgroup_disable=memory,pids": ("limits", "boot line takes memory, pids away", "cgroup_disable="),
    "cgroup_disable=memory": ("limits", "boot line takes memory away", "cgroup_disable="),
}
#: What a kernel loses beside: before Landlock ABI 6 only an own network namespace keeps abstract sockets apart.
BESIDE = {("6.1", "no network namespaces"): "scope_abstract"}
#: Points of the requested strength that a kernel cannot earn: scopes come by namespace alone before Landlock ABI 6.
SCOPES = {"6.1": 2, "6.12": 0, "7.3": 0}


def _cases(kernel: str) -> dict[str, Switch]:
    return {name: one for name, one in SWITCHES.items() if one.everywhere or kernel in LONG}


@pytest.fixture(scope="module")
def machine(vmrun, machine_tree, tmp_path_factory):
    """`machine(kernel, boot)`: what the driver found in it, by case."""
    emulator = shutil.which("qemu-system-x86_64")
    folder = tmp_path_factory.mktemp("boot")
    stand_in = folder / "qemu-system-x86_64"
    stand_in.write_text(
        "#!/usr/bin/python3\nimport os, sys\nwords = sys.argv[1:]\n"
        "words[words.index('-append') + 1] += ' ' + os.environ['KAVACH_BOOT']\n"
        f"os.execv({emulator!r}, [{emulator!r}, *words])\n"
    )
    stand_in.chmod(0o755)

    @functools.cache
    def start(kernel, boot=""):
        cases = {name: SWITCHES[name] for name in ("nothing", "nothing as root")} if boot else _cases(kernel)
        driver = str(machine_tree.repository / "tests/linux/withheld_driver.py")
        rows = [(name, one.who, one.changes) for name, one in cases.items()]
        inside = ["/usr/bin/python3", "-B", driver, json.dumps(machine_tree.packages), json.dumps(rows)]
        done = subprocess.run(
            [vmrun, "--kernel", kernel, "--timeout", str(DEADLINE_S - 60), "--", *inside],
            env=os.environ | {"PATH": f"{folder}:{os.environ['PATH']}", "KAVACH_BOOT": boot},
            cwd="/",
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
        )
        lines = [line.removeprefix("FOUND ") for line in done.stdout.splitlines() if line.startswith("FOUND ")]
        found = {one["case"]: one for one in map(json.loads, lines)}
        assert set(found) == set(cases), done.stdout[-3000:] + done.stderr[-3000:]
        return found

    return start


@pytest.fixture(scope="module")
def vmrun(request):
    """Return the program that runs a command inside a stock kernel, for the whole module."""
    return os.environ.get("KAVACH_VMRUN") or pytest.skip("needs vm")


def _found(machine, kernel, name):
    found = machine(kernel)[name]
    if found.get("absent"):
        pytest.skip(f"{kernel} has no such switch")
    assert "trouble" not in found, found.get("trouble")
    return found


ALL = [(kernel, name) for kernel in KERNELS for name in _cases(kernel)]


@pytest.mark.parametrize(("kernel", "name"), ALL)
def test_strict_refuses_what_is_withheld_by_name_and_runs_nothing(machine, sum_of_rows, kernel, name):
    switch, said = SWITCHES[name], _found(machine, kernel, name)["strict"]
    lost = BESIDE.get((kernel, name), switch.lost)
    if lost:
        assert (said.get("error"), said.get("control")) == ("UnsupportedError", lost), said
        assert "nothing was run" in said["message"]
        assert said["marked"] is False
        return
    assert (said.get("reason"), said.get("stdout"), said.get("stderr")) == ("exit", "ran\n", ""), said
    assert said["marked"] is (switch.who == "plain")
    assert said["score"] == sum_of_rows(said, strict=True)
    limits = 1 if switch.who == "plain" or switch.row == "limits" else 0
    assert said["requested"] - said["score"] == SCOPES[kernel] + limits


@pytest.mark.parametrize(("kernel", "name"), ALL)
def test_basic_runs_with_exactly_the_sum_of_the_rows_in_force(machine, sum_of_rows, kernel, name):
    switch, said = SWITCHES[name], _found(machine, kernel, name)["basic"]
    assert (said.get("reason"), said.get("stdout"), said.get("stderr")) == ("exit", "ran secret\n", ""), said
    assert said["marked"] is (switch.who == "plain")
    assert said["score"] == sum_of_rows(said, strict=False)
    assert said["holes"] == []
    if switch.lost:
        assert said["rows"][switch.lost][0] == "unsupported"
        assert said["rows"][switch.lost][2] != ""
    else:
        lost = {control for control, row in said["rows"].items() if row[0] in {"unsupported", "failed"}}
        assert lost <= {"files_gated"}


@pytest.mark.parametrize(("kernel", "name"), ALL)
def test_the_doctor_names_cause_and_fix_of_what_is_withheld_and_of_nothing_else(machine, kernel, name):
    switch, found = SWITCHES[name], _found(machine, kernel, name)
    if switch.cause:
        rows = [row for row in found["doctor"] if row["control"] == switch.row]
        assert any(switch.cause in row["cause"] and switch.fix in row["fix"] for row in rows), rows
    wall = {"user_ns", "pid_ns", "mount_view", "ipc_ns", "uts_ns", "network", "seccomp", "filesystem", "proc", "host"}
    named = {row["control"] for row in found["doctor"] if row["available"] != "yes"} & wall
    if not switch.lost:
        assert named == set()
        assert found["best_wall"].startswith("process wall: namespaces")
    else:
        assert switch.lost in named
        assert ("user_ns" in named) == (switch.lost == "user_ns")


@pytest.mark.parametrize("kernel", KERNELS)
def test_without_landlock_strict_refuses_and_basic_is_held_by_its_view(machine, sum_of_rows, kernel):
    boot = "lsm=lockdown,capability,yama"
    for name in ("nothing", "nothing as root"):
        found = machine(kernel, boot)[name]
        said = found["strict"]
        assert (said.get("error"), said.get("control")) == ("UnsupportedError", "filesystem"), said
        assert said["marked"] is False
        said = found["basic"]
        assert said.get("stdout") == "ran secret\n", said
        assert said["rows"]["filesystem"][:2] == ["degraded", "mount_view"]
        assert said["score"] == sum_of_rows(said, strict=False)
        _named(found, boot)


@pytest.mark.parametrize(("kernel", "boot"), [("6.12", "cgroup_disable=memory,pids"), ("6.1", "cgroup_disable=memory")])
def test_without_a_controller_strict_runs_degraded_for_one_point_less(machine, sum_of_rows, kernel, boot):
    for name in ("nothing", "nothing as root"):
        found = machine(kernel, boot)[name]
        said = found["strict"]
        assert said.get("stdout") == "ran\n", said
        assert said["rows"]["limits"][:2] == ["degraded", "rlimits"]
        assert said["score"] == sum_of_rows(said, strict=True)
        assert said["requested"] - said["score"] == SCOPES[kernel] + 1
        _named(found, boot)


def _named(found, boot):
    control, cause, fix = BOOTS[boot]
    rows = [row for row in found["doctor"] if row["control"] == control]
    assert any(cause in row["cause"] and fix in row["fix"] for row in rows), rows
