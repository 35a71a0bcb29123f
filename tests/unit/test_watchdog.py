"""What the watchdog sums, and what it concludes, on a fake /proc."""

from __future__ import annotations

import pytest

from kavach.launcher import watchdog
from kavach.launcher.groups import LimitSpec
from kavach.linux.cgroup import PAGE_BYTES

MIB = 1 << 20


class FakeProc:
    """A /proc with the few files that the sampler reads."""

    def __init__(self, base, *, has_children=True):
        self.base = base
        self.has_children = has_children
        if has_children:
            self._write("thread-self/children", "")

    def _write(self, name, text):
        path = self.base / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def add(self, pid, *, parent=1, children=(), threads=1, resident=MIB, shared=0, rollup=None, memfds=()):
        for thread in range(pid, pid + threads):
            self._write(f"{pid}/task/{thread}/comm", "x")
            if self.has_children:
                listed = " ".join(map(str, children)) if thread == pid + threads - 1 else ""
                self._write(f"{pid}/task/{thread}/children", listed)
        self._write(f"{pid}/statm", f"9999 {resident // PAGE_BYTES} {shared // PAGE_BYTES} 0 0 0 0")
        self._write(f"{pid}/stat", f"{pid} (a) b) S {parent} 0 0")
        if rollup is not None:
            anonymous, shmem = rollup
            lines = f"0-f ---p 0 00:00 0 [rollup]\nPss: 1 kB\nPss_Anon: {anonymous // 1024} kB\n"
            lines += "Pss_File: 7000 kB\n"
            self._write(f"{pid}/smaps_rollup", lines + f"Pss_Shmem: {shmem // 1024} kB\nSwapPss: 1024 kB\n")
        return self

    def sample(self, pid=100, **options):
        return watchdog.sample(pid, proc=str(self.base), **options)


def test_descendants_are_found_through_every_thread_and_others_are_not(tmp_path):
    proc = FakeProc(tmp_path).add(100, children=(101,), threads=3).add(101, children=(102, 103)).add(102).add(103)
    proc.add(500, resident=900 * MIB)
    found = proc.sample(precise_above_bytes=100 * MIB)
    assert (found.processes, found.tasks, found.memory_bytes) == (4, 6, 4 * MIB)
    assert not found.is_precise


def test_without_children_files_the_parents_are_asked(tmp_path):
    proc = FakeProc(tmp_path, has_children=False).add(100).add(101, parent=100).add(102, parent=101).add(500)
    found = proc.sample(precise_above_bytes=100 * MIB)
    assert (found.processes, found.memory_bytes) == (3, 3 * MIB)


def test_proportional_sizes_are_read_only_above_the_limit(tmp_path):
    proc = FakeProc(tmp_path).add(100, resident=60 * MIB, rollup=(10 * MIB, 2 * MIB))
    assert proc.sample(precise_above_bytes=60 * MIB).memory_bytes == 60 * MIB
    found = proc.sample(precise_above_bytes=59 * MIB)
    assert (found.is_precise, found.memory_bytes) == (True, 13 * MIB), "anonymous, swapped and shared; no file pages"


def test_a_process_that_may_not_be_looked_into_counts_with_its_anonymous_pages(tmp_path):
    proc = FakeProc(tmp_path).add(100, resident=60 * MIB, shared=20 * MIB)
    assert proc.sample().memory_bytes == 40 * MIB


def test_tmpfs_counts_though_nobody_maps_it_and_is_not_counted_twice(tmp_path):
    proc = FakeProc(tmp_path).add(100, rollup=(10 * MIB, 30 * MIB))
    assert proc.sample(tmpfs_bytes=5 * MIB).memory_bytes == 41 * MIB
    assert proc.sample(tmpfs_bytes=50 * MIB).memory_bytes == 61 * MIB
    assert proc.sample(tmpfs_bytes=50 * MIB, precise_above_bytes=100 * MIB).memory_bytes == 51 * MIB


def test_a_tree_that_is_gone_is_zero_processes(tmp_path):
    found = FakeProc(tmp_path).sample()
    assert (found.processes, found.tasks, found.memory_bytes) == (0, 0, 0)


def test_more_processes_than_are_looked_at_are_said(tmp_path, monkeypatch):
    monkeypatch.setattr(watchdog, "_MAX_PROCESSES", 2)
    proc = FakeProc(tmp_path).add(100, children=(101, 102, 103)).add(101).add(102).add(103)
    found = proc.sample()
    assert not found.is_complete
    assert "pids" in watchdog.judge(found, LimitSpec(max_pids=1000))


@pytest.mark.parametrize(
    ("memory", "tasks", "reached"),
    [(10 * MIB, 4, ()), (10 * MIB + 1, 4, ("oom",)), (0, 5, ("pids",)), (11 * MIB, 9, ("oom", "pids"))],
)
def test_judge_is_over_for_memory_and_at_for_processes(memory, tasks, reached):
    found = watchdog.Sample(
        memory_bytes=memory, is_precise=True, tmpfs_bytes=0, memfd_bytes=0, tasks=tasks, processes=1
    )
    assert watchdog.judge(found, LimitSpec(memory_bytes=10 * MIB, max_pids=5)) == reached
    assert watchdog.judge(found, LimitSpec()) == ()
