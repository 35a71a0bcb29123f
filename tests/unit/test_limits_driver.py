"""Which driver is chosen, what it writes and what it says: on trees that a small fake kernel fills."""

from __future__ import annotations

import errno
import os
import resource

import pytest

from kavach.errors import LaunchError
from kavach.launcher import limits
from kavach.launcher.limits import Events, LimitSpec

ALL = LimitSpec(memory_bytes=64 << 20, cpu_cores=1.5, max_pids=20)
V2_FILES = {
    "memory": {
        "memory.max": "max", "memory.swap.max": "max", "memory.oom.group": "0", "memory.current": "4096",
        "memory.peak": "8192", "memory.events": "low 0\noom 1\noom_kill 0",
    },
    "cpu": {"cpu.max": "max 100000"},
    "pids": {"pids.max": "max", "pids.current": "2", "pids.peak": "3", "pids.events": "max 0"},
    "io": {"io.stat": "8:0 rbytes=10 wbytes=20 rios=1\n8:16 rbytes=1 wbytes=2 rios=1"},
}  # fmt: skip
V1_FILES = {
    "memory": {
        "memory.limit_in_bytes": "9223372036854771712", "memory.memsw.limit_in_bytes": "9223372036854771712",
        "memory.swappiness": "60", "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 0",
        "memory.usage_in_bytes": "0", "memory.max_usage_in_bytes": "8192", "memory.failcnt": "3",
        "memory.force_empty": "",
    },
    "cpu": {"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "-1"},
    "cpuacct": {"cpuacct.usage": "5000000"},
    "pids": {"pids.max": "max", "pids.current": "1", "pids.events": "max 0"},
}  # fmt: skip


class FakeKernel:
    """Cgroup folders in a temporary directory: mkdir fills, rmdir empties, writes follow the rules."""

    def __init__(self, base, monkeypatch):
        self.base = base
        self.root = base / "cg"
        self.proc = base / "proc"
        self.root.mkdir()
        for folder in ("self/ns", f"{os.getpid()}"):
            (self.proc / folder).mkdir(parents=True)
        os.symlink("pid:[4026531836]", self.proc / "self/ns/pid")
        stat = f"{os.getpid()} (a b) c) S " + " ".join(str(n) for n in range(4, 22)) + " 777 0 0"
        (self.proc / "self/stat").write_text(stat)
        (self.proc / str(os.getpid()) / "stat").write_text(stat)
        self.mounts = []
        self.positions = []
        self.refused = {}  # (folder below root, file) -> errno, or the value that is stored instead
        self.missing = set()  # names of files this kernel has not
        self._fill = {}
        self._real = (os.mkdir, os.rmdir, os.write)
        monkeypatch.setattr(os, "mkdir", self.mkdir)
        monkeypatch.setattr(os, "rmdir", self.rmdir)
        monkeypatch.setattr(os, "write", self.write)

    def mount(self, name, version, controllers=(), position="/", *, handed=()):
        point = self.root / name if name else self.root
        os.makedirs(point, exist_ok=True)
        kind, options = ("cgroup2", "rw") if version == 2 else ("cgroup", "rw," + ",".join(controllers))
        self.mounts.append(f"33 31 0:30 / {point} rw shared:9 - {kind} {kind} {options}")
        self.positions.append(f"{len(self.positions)}:{'' if version == 2 else ','.join(controllers)}:{position}")
        (self.proc / "self/mountinfo").write_text("1 0 0:1 / / rw - ext4 /dev/x rw\n" + "\n".join(self.mounts) + "\n")
        (self.proc / "self/cgroup").write_text("\n".join(self.positions) + "\n")
        self.populate(point, version, tuple(controllers))
        folder = str(point)
        for part in position.strip("/").split("/"):
            if part:
                self._fill[folder][2].update(handed)
                folder += "/" + part
                os.mkdir(folder)
        return point

    def populate(self, folder, version, controllers):
        self._fill[str(folder)] = (version, controllers, set())
        files = {"cgroup.procs": ""}
        if version == 1:
            files["tasks"] = ""
            for name in controllers:
                files |= V1_FILES.get(name, {})
        else:
            files |= {
                "cgroup.controllers": " ".join(controllers),
                "cgroup.subtree_control": "",
                "cgroup.kill": "",
            }
            files |= {
                "cgroup.events": "populated 0\nfrozen 0",
                "cgroup.freeze": "0",
                "cpu.stat": "usage_usec 42",
            }
            for name in controllers:
                files |= V2_FILES[name]
        for name, content in files.items():
            if name not in self.missing:
                with open(f"{folder}/{name}", "w", encoding="ascii") as file:
                    file.write(content)

    def mkdir(self, path, mode=0o777, **rest):
        self._real[0](path, mode, **rest)
        parent = self._fill.get(os.path.dirname(str(path)))
        if parent is not None:
            version, controllers, enabled = parent
            self.populate(path, version, controllers if version == 1 else tuple(sorted(enabled)))

    def rmdir(self, path, **rest):
        if self._fill.pop(str(path), None) is not None:
            for entry in os.scandir(path):
                if entry.is_file():
                    os.unlink(entry.path)
        self._real[1](path, **rest)

    def write(self, fd, data):
        path = os.readlink(f"/proc/self/fd/{fd}")
        folder, name = os.path.split(path)
        if folder not in self._fill:
            return self._real[2](fd, data)
        rule = self.refused.get((os.path.relpath(folder, self.root), name)) or self.refused.get(("*", name))
        if isinstance(rule, int):
            raise OSError(rule, os.strerror(rule), path)
        if name == "cgroup.subtree_control":
            sign, word = data[:1], data[1:].decode()
            enabled = self._fill[folder][2]
            enabled.add(word) if sign == b"+" else enabled.discard(word)
            data = " ".join(sorted(enabled)).encode()
        return self._real[2](fd, (rule or "").encode() or data)

    def choose(self):
        return limits.choose_driver(root=str(self.root), proc=str(self.proc))

    def read(self, path):
        with open(path, encoding="ascii") as file:
            return file.read()


@pytest.fixture
def kernel(tmp_path, monkeypatch):
    return FakeKernel(tmp_path, monkeypatch)


def version2(kernel, position="/", controllers=("cpu", "io", "memory", "pids")):
    return kernel.mount("", 2, controllers, position)


def version1(kernel, *, twin=False):
    for name in ("memory", "cpu", "cpuacct", "pids"):
        kernel.mount(name, 1, (name,), "/box/a" if name == "memory" else "/")
    if twin:
        kernel.mount("unified", 2, ())


def test_v2_is_preferred_and_the_probe_leaves_nothing_behind(kernel):
    version2(kernel)
    driver = kernel.choose()
    assert (driver.name, driver.why_not) == ("cgroup2", ())
    assert set(driver.controllers) == {"memory", "pids", "cpu", "io"}
    assert [entry for entry in os.listdir(kernel.root) if entry.startswith("kavach")] == []


def test_v2_group_writes_the_limits_and_reads_them_back(kernel):
    version2(kernel)
    group = kernel.choose().make("sb", ALL)
    assert group.readback == {
        "memory.max": str(64 << 20), "memory.swap.max": "0", "cpu.max": "150000 100000", "pids.max": "20",
    }  # fmt: skip
    assert group.states == {"memory": "enforced", "cpu": "enforced", "pids": "enforced"}
    assert (group.rlimits, group.cores, group.needs_watchdog) == ((), None, False)
    assert kernel.read(group.folders[0] + "/pids.max") == "20"


def test_a_value_that_reads_back_otherwise_is_not_enforced(kernel):
    version2(kernel)
    driver = kernel.choose()
    kernel.refused["*", "memory.max"] = "4096"
    group = driver.make("sb", ALL)
    assert group.states == {"memory": "failed", "cpu": "enforced", "pids": "enforced"}
    assert group.readback["memory.max"] == "4096"


def test_a_refused_write_is_failed_and_says_so(kernel):
    version2(kernel)
    driver = kernel.choose()
    kernel.refused["*", "cpu.max"] = errno.EINVAL
    group = driver.make("sb", ALL)
    assert (group.states["cpu"], group.readback["cpu.max"]) == ("failed", "refused: Invalid argument")


def test_an_absent_swap_file_does_not_spoil_the_memory_limit(kernel):
    kernel.missing.add("memory.swap.max")
    version2(kernel)
    group = kernel.choose().make("sb", ALL)
    assert (group.states["memory"], group.readback["memory.swap.max"]) == ("enforced", "absent")


def test_a_limit_that_is_not_asked_is_not_written(kernel):
    version2(kernel)
    group = kernel.choose().make("sb", LimitSpec(max_pids=5))
    assert group.states == {"memory": "not_asked", "cpu": "not_asked", "pids": "enforced"}
    assert group.readback == {"pids.max": "5"}


def test_oom_group_is_set_on_a_command_leaf_and_neither_on_the_sandbox_nor_on_init(kernel):
    version2(kernel)
    group = kernel.choose().make("sb", ALL)
    leaf = group.leaf("e1")
    folder = group.folders[0]
    assert kernel.read(leaf.path + "/memory.oom.group") == "1"
    assert kernel.read(folder + "/memory.oom.group") == "0"
    assert kernel.read(folder + "/init/memory.oom.group") == "0"
    assert os.path.samestat(os.fstat(leaf.dirfd), os.stat(leaf.path))
    assert leaf.remove()
    assert leaf.remove(), "removal is idempotent"


def test_v2_usage_and_events_come_from_the_leaf_and_pids_from_both(kernel):
    version2(kernel)
    group = kernel.choose().make("sb", ALL)
    leaf = group.leaf("e1")
    for folder, count in ((group.folders[0], 2), (leaf.path, 5)):
        with open(folder + "/pids.events", "w", encoding="ascii") as file:
            file.write(f"max {count}")
    with open(group.folders[0] + "/memory.events", "w", encoding="ascii") as file:
        file.write("oom_kill 9")
    assert leaf.events() == Events(oom_kills=0, pids_refused=7)
    assert group.events() == Events(oom_kills=9, pids_refused=2)
    assert leaf.usage() == limits.Usage(
        memory_bytes=4096, memory_peak_bytes=8192, cpu_time_us=42, pids=2, pids_peak=3, io_read_bytes=11,
        io_write_bytes=22,
    )  # fmt: skip


def test_v2_remove_takes_the_leaves_first_and_can_be_repeated(kernel):
    version2(kernel)
    group = kernel.choose().make("sb", ALL)
    group.leaf("e1")
    assert group.remove()
    assert not os.path.exists(group.folders[0])
    assert group.remove()


def test_an_own_group_with_processes_is_passed_over_for_its_parent(kernel):
    kernel.refused["user.slice/app.slice/shell.scope", "cgroup.subtree_control"] = errno.EBUSY
    controllers = ("cpu", "memory", "pids")
    kernel.mount("", 2, controllers, "/user.slice/app.slice/shell.scope", handed=controllers)
    driver = kernel.choose()
    assert driver.bases == (f"{kernel.root}/user.slice/app.slice",)
    assert "shell.scope" in driver.why_not[0]


def test_controllers_enabled_for_a_parent_that_fails_are_disabled_again(kernel):
    version2(kernel, controllers=("memory",))
    driver = kernel.choose()
    assert driver.name == "none"
    assert "does not give pids" in driver.why_not[0]
    assert kernel.read(f"{kernel.root}/cgroup.subtree_control") == ""


def test_without_a_cpu_controller_cores_stand_in_and_the_state_is_degraded(kernel):
    version2(kernel, controllers=("memory", "pids"))
    group = kernel.choose().make("sb", LimitSpec(memory_bytes=1 << 20, cpu_cores=1.0, max_pids=4))
    assert group.states == {"memory": "enforced", "cpu": "degraded", "pids": "enforced"}
    assert group.cores is not None
    assert len(group.cores) == 1
    assert group.cores <= os.sched_getaffinity(0)


def test_v1_groups_lie_below_the_own_position_and_are_read_back(kernel):
    version1(kernel)
    driver = kernel.choose()
    assert driver.name == "cgroup1"
    assert driver.why_not == ("cgroup2: not mounted",)
    group = driver.make("sb", ALL)
    assert group.folders[0].startswith(f"{kernel.root}/memory/box/a/kavach-{os.getpid()}-777-4026531836-sb")
    assert group.states == {"memory": "enforced", "cpu": "enforced", "pids": "enforced"}
    assert group.readback == {
        "memory.limit_in_bytes": str(64 << 20), "memory.memsw.limit_in_bytes": str(64 << 20),
        "memory.swappiness": "0", "pids.max": "20",
        "cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "150000",
    }  # fmt: skip
    assert sorted(group.join_paths()) == sorted(folder + "/tasks" for folder in group.folders)


def test_v1_without_swap_accounting_is_enforced_and_says_absent(kernel):
    kernel.missing.add("memory.memsw.limit_in_bytes")
    version1(kernel)
    group = kernel.choose().make("sb", ALL)
    assert group.states["memory"] == "enforced"
    assert group.readback["memory.memsw.limit_in_bytes"] == "absent"


def test_v1_without_a_v2_hierarchy_shares_one_group_and_neither_freezes_nor_tells_commands_apart(kernel):
    version1(kernel)
    group = kernel.choose().make("sb", ALL)
    leaf = group.leaf("e1")
    assert (leaf.shared, leaf.path, leaf.dirfd, leaf.kill()) == (True, None, None, False)
    assert (group.freeze(1), group.thaw(1)) == (False, False)
    assert leaf.usage() == group.usage()
    assert group.usage().cpu_time_us == 5000
    assert group.usage().io_read_bytes is None


def test_v1_on_a_hybrid_host_has_leaves_in_the_v2_twin(kernel):
    version1(kernel, twin=True)
    group = kernel.choose().make("sb", ALL)
    leaf = group.leaf("e1")
    assert leaf.path == f"{group.folders[-1]}/exec-e1"
    assert leaf.path.startswith(f"{kernel.root}/unified/")
    assert leaf.usage().cpu_time_us == 42
    assert leaf.kill()
    assert kernel.read(leaf.path + "/cgroup.kill") == "1"
    assert group.remove()
    assert not any(os.path.exists(folder) for folder in group.folders)


def test_v1_recycling_resets_the_peaks_and_removes_leaves(kernel):
    version1(kernel, twin=True)
    driver = kernel.choose()
    group = driver.make("sb", ALL)
    leaf = group.leaf("e1")
    leaf.close()
    assert driver.recycle(group)
    assert group.usage().memory_peak_bytes == 0
    assert group.usage().cpu_time_us == 0
    assert not os.path.exists(leaf.path)


def test_recycling_is_refused_while_memory_is_charged_or_a_process_lives(kernel):
    version1(kernel)
    driver = kernel.choose()
    group = driver.make("sb", ALL)
    usage = group.folders[0] + "/memory.usage_in_bytes"
    with open(usage, "w", encoding="ascii") as file:
        file.write(str(50 << 20))
    assert not driver.recycle(group)
    with open(usage, "w", encoding="ascii") as file:
        file.write("0")
    assert driver.recycle(group)
    with open(group.folders[-1] + "/cgroup.procs", "w", encoding="ascii") as file:
        file.write("999999999\n")
    assert not driver.recycle(group)


def test_v2_recycling_is_refused(kernel):
    version2(kernel)
    driver = kernel.choose()
    assert not driver.recycle(driver.make("sb", ALL))


def test_without_any_hierarchy_the_driver_is_none_and_every_limit_is_degraded(kernel):
    (kernel.proc / "self/mountinfo").write_text("1 0 0:1 / / rw - ext4 /dev/x rw\n")
    (kernel.proc / "self/cgroup").write_text("0::/\n")
    driver = kernel.choose()
    assert (driver.name, driver.controllers) == ("none", ())
    assert len(driver.why_not) == 2
    group = driver.make("sb", ALL)
    assert set(group.states.values()) == {"degraded"}
    assert group.needs_watchdog
    assert group.rlimits == ((resource.RLIMIT_NPROC, 20, 20),)
    assert group.events() == Events()
    assert group.usage() == limits.Usage()
    assert (group.join_paths(), group.folders, group.leaf("e").dirfd) == ([], (), None)
    assert group.remove()


def test_a_host_without_cgroup_files_in_proc_gets_the_driver_none(kernel):
    assert kernel.choose().name == "none"


def test_a_name_that_could_leave_its_folder_is_refused(kernel):
    version2(kernel)
    driver = kernel.choose()
    group = driver.make("sb", ALL)
    for name in ("", "..", "a/b", "x" * 65, "a b"):
        with pytest.raises(ValueError, match="name: expected"):
            driver.make(name, ALL)
        with pytest.raises(ValueError, match="name: expected"):
            group.leaf(name)


def test_a_group_that_exists_is_a_launch_error_and_is_kept(kernel):
    version2(kernel)
    driver = kernel.choose()
    group = driver.make("sb", ALL)
    with pytest.raises(LaunchError) as caught:
        driver.make("sb", ALL)
    assert caught.value.errno == errno.EEXIST
    assert os.path.isdir(group.folders[0])


def test_sweep_removes_the_folders_of_dead_owners_only(kernel):
    version2(kernel)
    driver = kernel.choose()
    own = driver.make("sb", ALL).folders[0]
    dead = f"{kernel.root}/kavach-999999999-5-4026531836-x"
    reused = f"{kernel.root}/kavach-{os.getpid()}-776-4026531836-x"
    elsewhere = f"{kernel.root}/kavach-999999999-5-4026539999-x"
    foreign = f"{kernel.root}/kavach-notes"
    for folder in (dead, reused, elsewhere, foreign):
        os.mkdir(folder)
    os.mkdir(dead + "/init")
    removed = limits.sweep(driver, lambda pid, start: limits.is_owner_alive(pid, start, proc=str(kernel.proc)))
    assert set(removed) == {dead, reused}
    assert all(os.path.isdir(folder) for folder in (own, elsewhere, foreign))


@pytest.mark.parametrize(
    ("before", "after", "hit"),
    [
        (Events(oom_kills=1, pids_refused=0), Events(oom_kills=2, pids_refused=0), ("oom",)),
        (Events(oom_kills=1, pids_refused=0), Events(oom_kills=2, pids_refused=3), ("oom", "pids")),
        (Events(oom_kills=1, pids_refused=4), Events(oom_kills=1, pids_refused=4), ()),
        (Events(pids_refused=4), Events(pids_refused=5), ("pids",)),
        (Events(), Events(), None),
        (Events(), Events(oom_kills=3), None),
    ],
)
def test_limits_hit_names_counters_that_rose_and_is_none_where_nothing_counts(before, after, hit):
    assert limits.limits_hit(before, after) == hit


def test_cores_differ_from_turn_to_turn_and_stay_within_the_callers_own():
    allowed = {3, 5, 8, 9}
    picks = [limits.pick_cores(1.0, allowed, turn) for turn in range(8)]
    assert {core for pick in picks for core in pick} == allowed
    assert all(len(pick) == 1 for pick in picks)
    assert limits.pick_cores(0.5, allowed, 1) == {5}
    assert limits.pick_cores(1.5, allowed, 1) == {8, 9}
    assert limits.pick_cores(64, allowed, 7) == allowed


def test_rlimits_never_bound_the_address_space():
    planned = limits.rlimits_for(ALL)
    assert planned == ((resource.RLIMIT_NPROC, 20, 20),)
    assert limits.rlimits_for(LimitSpec(memory_bytes=1 << 30)) == ()


def test_nproc_caveats_name_host_root_and_old_kernels():
    assert limits.nproc_caveats(1000, (6, 1)) == ()
    assert len(limits.nproc_caveats(0, (6, 1))) == 1
    assert len(limits.nproc_caveats(0, (5, 13))) == 2


@pytest.mark.parametrize(
    ("wrong", "word"),
    [({"memory_bytes": 4095}, "memory_bytes"), ({"cpu_cores": 0.0}, "cpu_cores"),
     ({"max_pids": 0}, "max_pids"),
     ({"cpu_cores": float("nan")}, "cpu_cores")],
)  # fmt: skip
def test_a_limit_that_cannot_be_held_is_refused(wrong, word):
    with pytest.raises(ValueError, match=word):
        LimitSpec(**wrong)


def test_memory_is_rounded_down_to_pages_and_small_cpu_shares_get_a_long_period():
    spec = LimitSpec(memory_bytes=(1 << 20) + 1, cpu_cores=0.005)
    assert spec.memory_pages_bytes == 1 << 20
    assert spec.cpu_quota_us == (5000, 1_000_000)
    assert LimitSpec(cpu_cores=0.01).cpu_quota_us == (1000, 100_000)
