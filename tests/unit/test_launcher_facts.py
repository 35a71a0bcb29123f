"""A block of ids that nobody uses, and the host's means as they are read."""

from __future__ import annotations

import os

import pytest

from kavach.launcher import facts

WHOLE = [(0, 4294967295)]
TOP = 0x7FFF0000 - 1024


@pytest.mark.parametrize(
    ("extents", "used", "first"),
    [
        (WHOLE, [], TOP),
        (WHOLE, [(TOP + 5, 1)], TOP + 5 - 1024),
        (WHOLE, [(TOP + 1023, 1)], TOP + 1023 - 1024),
        (WHOLE, [(TOP - 10, 2000), (TOP - 1100, 100)], TOP - 1100 - 1024),
        (WHOLE, [(0, 4294967295)], 0),
        ([(0, 1)], [], 0),
        ([(0, 1024)], [], 0),  # id 0 is never handed out
        ([(0, 1025)], [], 1),
        ([(1000, 1024)], [], 1000),
        ([(1000, 1024)], [(2023, 1)], 0),
        ([(1000, 1024)], [(2024, 1)], 1000),
        ([(1000, 1024)], [(999, 1)], 1000),
        ([(100, 2000), (5000, 10)], [], 2100 - 1024),
        ([(100, 2000), (5000, 5000)], [(5000, 5000)], 2100 - 1024),
        ([], [], 0),
    ],
)
def test_block_is_the_highest_that_nobody_uses(extents, used, first):
    assert facts._free_block(extents, used) == first


def test_ids_that_exist_are_those_of_users_and_groups_alike(monkeypatch, tmp_path):
    texts = {"uid_map": "0 1000 10\n20 2000 100\n", "gid_map": "5 0 50\n"}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    real = open
    monkeypatch.setattr(
        "builtins.open", lambda path, **how: real(str(path).replace("/proc/self", str(tmp_path)), **how)
    )
    assert facts._own_range() == [(5, 5), (20, 35)]


def test_accounts_and_lent_ids_count_as_used(monkeypatch, tmp_path):
    (tmp_path / "passwd").write_text("root:x:0:0::/:\nbad\nodd:x:minus:0::/:\nuser:x:1000:1000::/:\n")
    (tmp_path / "group").write_text("staff:x:50:\n")
    (tmp_path / "subuid").write_text("user:100000:65536\nbroken:1\nword:a:b\n")
    real = open
    monkeypatch.setattr("builtins.open", lambda path, **how: real(str(path).replace("/etc", str(tmp_path)), **how))
    assert sorted(facts._used_ids()) == [(0, 1), (50, 1), (1000, 1), (65534, 2), (100000, 65536)]


@pytest.mark.needs("linux")
def test_facts_tell_this_process():
    found = facts.read_facts()
    assert (found.uid, found.gid, found.machine) == (os.geteuid(), os.getegid(), os.uname().machine)
    assert found.can_map_range == (found.first_id > 0)
    assert facts.count_tasks(os.geteuid()) >= 1
    assert facts.count_tasks(0x7FFFFFF0) == 0
