"""What a sandbox uses, read from trees of files that look like /proc and /sys/fs/cgroup."""

from __future__ import annotations

import os

import pytest

from kavach.audit.usage import SandboxUsage, measure

pytestmark = pytest.mark.needs("linux")
ID = "sb-0123"
V1 = "/sys/fs/cgroup"


class Host:
    """A host of files."""

    def __init__(self, folder):
        self.proc, self.root = folder / "proc", folder / "cgroup"
        self.root.mkdir()
        self.mounts = []

    def write(self, path, text):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def mount(self, kind, name, options=""):
        point = self.root / name if name else self.root
        self.mounts.append(f"30 20 0:1 / {point} rw - {kind} cgroup rw,{options}")
        self.write(self.proc / "self/mountinfo", "\n".join(self.mounts) + "\n")

    def process(self, pid, *, groups="0::/\n", ticks=(0, 0, 0, 0), pages=0, children=""):
        fields = ["S", "1", *["0"] * 9, *map(str, ticks), *["0"] * 30]
        self.write(self.proc / f"{pid}/stat", f"{pid} (a (b) c) {' '.join(fields)}")
        self.write(self.proc / f"{pid}/statm", f"999 {pages} 0 0 0 0 0")
        self.write(self.proc / f"{pid}/cgroup", groups)
        self.write(self.proc / f"{pid}/task/{pid}/children", children)

    def measure(self, pid=10):
        return measure(pid, ID, proc=str(self.proc), root=str(self.root))


@pytest.fixture
def host(tmp_path):
    return Host(tmp_path)


def test_a_v2_group_with_the_sandboxes_name_is_asked(host):
    host.mount("cgroup2", "")
    host.process(10, groups=f"0::/user/kavach-1-{ID}/init\n")
    group = host.root / f"user/kavach-1-{ID}"
    host.write(group / "cpu.stat", "usage_usec 1500\nuser_usec 1\n")
    host.write(group / "memory.current", "4096\n")
    host.write(group / "memory.peak", "8192\n")
    host.write(group / "pids.current", "3\n")
    host.write(group / "io.stat", "8:0 rbytes=10 wbytes=20 rios=1 wios=2\n8:1 rbytes=1 wbytes=2\n")
    assert host.measure() == SandboxUsage("cgroup2", 1.5, 4096, 8192, 3, 11, 22)


def test_v1_groups_are_asked_one_by_one_and_what_is_not_there_is_unknown(host):
    for name in ("memory", "cpuacct", "pids"):
        host.mount("cgroup", name, name)
    host.mount("cgroup2", "unified")
    host.process(10, groups=f"4:memory:/kavach-{ID}\n3:cpuacct:/kavach-{ID}\n2:pids:/\n0::/kavach-{ID}/init\n")
    host.write(host.root / f"memory/kavach-{ID}/memory.usage_in_bytes", "4096\n")
    host.write(host.root / f"cpuacct/kavach-{ID}/cpuacct.usage", "2500000\n")
    host.write(host.root / "pids/pids.current", "999\n")
    assert host.measure() == SandboxUsage("cgroup1", cpu_time_ms=2.5, memory_bytes=4096)


@pytest.mark.parametrize("groups", ["0::/\n", "0::/user/other\n", f"0::/kavach-{ID}/init\n"])
def test_without_a_group_of_its_own_that_counts_the_living_processes_are_added_up(host, groups):
    host.mount("cgroup2", "")
    host.write(host.root / "memory.current", "999\n")  # the host's, or another's
    tick_ms = 1000 / os.sysconf("SC_CLK_TCK")
    host.process(10, groups=groups, ticks=(1, 2, 3, 4), pages=2, children="11 12")
    host.process(11, ticks=(10, 0, 0, 0), pages=5, children="13")
    host.process(13, pages=1)  # 12 has ended meanwhile
    assert host.measure() == SandboxUsage(
        "procfs", cpu_time_ms=20 * tick_ms, memory_bytes=8 * os.sysconf("SC_PAGE_SIZE"), pids=3
    )


def test_a_sandbox_whose_first_process_has_gone_uses_nothing_known(host):
    host.mount("cgroup2", "")
    assert host.measure() is None
