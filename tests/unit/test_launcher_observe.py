"""A row says `enforced` only while every piece of its evidence is there: each is taken away or spoilt in turn."""

from __future__ import annotations

import errno
from types import SimpleNamespace

import pytest

from kavach.launcher import canary, observe
from kavach.launcher.canary import AFTER_LANDLOCK, BEFORE_LANDLOCK, FINAL
from kavach.launcher.evidence import NAMESPACES, Sight, own_filters
from kavach.linux import landlock_abi as abi
from kavach.model.enforcement import ControlState, Hole
from kavach.model.policy import PathRule, SandboxPolicy
from kavach.policy.strength import score_enforcement

ENFORCED = ControlState.ENFORCED
GONE = object()
POLICY = SandboxPolicy.strict(
    deny=(PathRule(path="/usr/share"),),
    read=(PathRule(path="/opt"),),
    tcp_connect_ports=(80,),
    tcp_bind_ports=(80,),
    scope_abstract=True,
    scope_signal=True,
    devices=("/dev/kvm",),
)
OUTCOMES = {
    ("signal", BEFORE_LANDLOCK): 0,
    ("signal", AFTER_LANDLOCK): errno.EPERM,
    ("abstract", BEFORE_LANDLOCK): 0,
    ("abstract", AFTER_LANDLOCK): errno.EPERM,
    ("device", BEFORE_LANDLOCK): errno.EPERM,
    ("device", AFTER_LANDLOCK): errno.EACCES,
    ("connect", BEFORE_LANDLOCK): errno.ECONNREFUSED,
    ("connect", AFTER_LANDLOCK): errno.EACCES,
    ("bind", BEFORE_LANDLOCK): 0,
    ("bind", AFTER_LANDLOCK): errno.EACCES,
    ("ptrace", FINAL): errno.EPERM,
    ("add_key", FINAL): errno.EPERM,
    ("user_namespace", FINAL): errno.EPERM,
    ("udp", FINAL): errno.ENETUNREACH,
    ("root", FINAL): errno.EROFS,
    ("system", FINAL): errno.EROFS,
    ("denied:0", FINAL): errno.EACCES,
    ("allowed:0", FINAL): 0,
    ("node:0", FINAL): 0,
}
CANARIES = tuple((phase, name.encode(), b"open") for name, phase in OUTCOMES)
CAPABILITIES = dict.fromkeys(("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"), "0000000000000000")
MOUNTS = (
    (b"/", b"ro,nosuid", b"tmpfs", b"kavach"),
    (b"/usr", b"ro,nosuid", b"ext4", b"/dev/vda"),
    (b"/tmp", b"rw,nosuid", b"tmpfs", b"kavach"),
    (b"/proc", b"ro,nosuid", b"proc", b"proc"),
    (b"/dev/kvm", b"rw,nosuid", b"devtmpfs", b"devtmpfs"),
)
STATUS = {
    "NoNewPrivs": "1",
    "Seccomp": "2",
    "Seccomp_filters": "2",
    "Uid": "200001\t200001\t200001\t200001",
    **CAPABILITIES,
}


def plan(**changes):
    made = {
        "namespaces": frozenset(NAMESPACES),
        "landlock": abi.rights(abi.HIGHEST_ABI)[:3],
        "trees": ((b"/usr", 1, 0),),
        "canaries": CANARIES,
        "filters": 2,
        "has_filter": True,
        "separate_init": True,
    }
    return SimpleNamespace(**(made | changes))


def sight(*, outcomes=None, status=None, **changes):
    def merged(whole, few):
        return {key: value for key, value in (whole | (few or {})).items() if value is not GONE}

    made = {
        "inodes": {name: 100 + at for at, name in enumerate(NAMESPACES)},
        "host_inodes": {name: 500 + at for at, name in enumerate(NAMESPACES)},
        "mounts": MOUNTS,
        "interfaces": ("lo",),
        "outside": {"ptrace": errno.ESRCH, "add_key": errno.EFAULT},
        "lost": frozenset(),
        "init_ids": ("200000",) * 4,
    }
    filters = {"Seccomp_filters": str(2 + own_filters())}
    return Sight(outcomes=merged(OUTCOMES, outcomes), status=merged(STATUS | filters, status), **(made | changes))


def group(**states):
    return SimpleNamespace(states={"memory": "enforced"} | states, readback={"memory.max": "1"})


def judge(seen, *, policy=POLICY, how=None, limits=None, allow_list=True):
    return observe.judge(policy, how or plan(), limits or group(), "cgroup2", seen, allow_list=allow_list, bypass=False)


def test_whole_evidence_is_enforced_without_a_hole():
    found = judge(sight())
    assert {row.control.value: row.reason for row in found.rows if row.asked and row.state is not ENFORCED} == {}
    assert found.holes == ()
    assert all(row.evidence for row in found.rows if row.asked)


def same_inode(name):
    return {"inodes": {one: 500 + at if one == name else 100 + at for at, one in enumerate(NAMESPACES)}}


def outcome(name, code, phase=FINAL):
    return {"outcomes": {(name, phase): code}}


SPOILT = [
    *[(control, same_inode(name)) for control, name in (
        ("user_ns", "user"), ("pid_ns", "pid"), ("ipc_ns", "ipc"), ("uts_ns", "uts"), ("mount_view", "mnt"),
        ("network", "net"),
    )],
    ("mount_view", {"mounts": (*MOUNTS, (b"/usr/local", b"rw,nosuid", b"ext4", b"/dev/vda"))}),
    ("mount_view", {"mounts": tuple(row for row in MOUNTS if row[0] != b"/proc")}),
    ("mount_view", outcome("system", 0)),
    ("mount_view", outcome("system", GONE)),
    *[("no_caps", {"status": {name: value}}) for name in CAPABILITIES for value in ("0000000000000001", GONE, "")],
    ("no_new_privs", {"status": {"NoNewPrivs": "0"}}),
    ("no_new_privs", {"status": {"NoNewPrivs": GONE}}),
    ("seccomp", {"status": {"Seccomp": "0"}}),
    ("seccomp", {"status": {"Seccomp": "1"}}),
    ("seccomp", {"status": {"Seccomp": GONE}}),
    ("seccomp", {"status": {"Seccomp_filters": str(1 + own_filters())}}),
    *[("seccomp", outcome(name, code)) for name in ("ptrace", "add_key") for code in (0, errno.ESRCH, errno.ENOSYS, GONE)],
    ("seccomp", outcome("user_namespace", 0)),
    ("seccomp", outcome("user_namespace", GONE)),
    ("seccomp", {"outside": {"ptrace": errno.EPERM, "add_key": errno.EPERM}, "status": {"Seccomp_filters": GONE}}),
    ("seccomp", {"outside": {}, "status": {"Seccomp_filters": GONE}}),
    *[("filesystem", outcome("denied:0", code)) for code in (0, errno.EIO, GONE)],
    *[("filesystem", outcome("allowed:0", code)) for code in (errno.EACCES, GONE)],
    *[("filesystem", outcome("system", code)) for code in (0, errno.ENOENT, GONE)],
    *[("filesystem", outcome("device", code, AFTER_LANDLOCK)) for code in (0, GONE)],
    *[("filesystem", outcome("device", code, BEFORE_LANDLOCK)) for code in (0, errno.EACCES, GONE)],
    *[("network", outcome("udp", code)) for code in (0, errno.EPERM, GONE)],
    ("network", {"interfaces": ("lo", "eth0")}),
    *[("read_only_root", outcome("root", code)) for code in (0, errno.ENOENT, GONE)],
    *[("tcp_ports", outcome(name, code, AFTER_LANDLOCK)) for name in ("connect", "bind") for code in (0, errno.EPERM, GONE)],
    *[("tcp_ports", outcome(name, code, BEFORE_LANDLOCK)) for name in ("connect", "bind") for code in (errno.EACCES, GONE)],
    # Landlock's canary answers as before it, and no scope of the same ruleset was seen either.
    ("filesystem", {"outcomes": {("device", AFTER_LANDLOCK): errno.EPERM, ("signal", AFTER_LANDLOCK): 0, ("abstract", AFTER_LANDLOCK): 0}}),
    ("devices", {"mounts": MOUNTS[:-1]}),
]  # fmt: skip


@pytest.mark.parametrize(("control", "change"), SPOILT)
def test_control_without_one_piece_of_its_evidence_is_not_enforced(control, change):
    found = judge(sight(**change))
    assert found[control].asked
    assert found[control].state is not ENFORCED
    assert found[control].reason
    assert score_enforcement(found) <= score_enforcement(judge(sight()))


@pytest.mark.parametrize("name", ["abstract", "signal"])
@pytest.mark.parametrize(("phase", "code"), [(AFTER_LANDLOCK, 0), (AFTER_LANDLOCK, GONE), (BEFORE_LANDLOCK, errno.EPERM), (BEFORE_LANDLOCK, GONE)])  # fmt: skip
def test_scope_is_not_enforced_by_landlock_without_both_canaries(name, phase, code):
    found = judge(sight(**outcome(name, code, phase)))
    assert found[f"scope_{name}"].state is not ENFORCED


@pytest.mark.parametrize(("name", "namespace"), [("abstract", "net"), ("signal", "pid")])
def test_scope_by_a_namespace_needs_another_namespace(name, namespace):
    old = plan(landlock=(*abi.rights(4)[:2], 0))
    assert judge(sight(), how=old)[f"scope_{name}"].detail == "namespace"
    assert judge(sight(**same_inode(namespace)), how=old)[f"scope_{name}"].state is not ENFORCED


@pytest.mark.parametrize("name", NAMESPACES)
def test_namespace_that_the_plan_does_not_have_is_not_enforced(name):
    control = {"mnt": "mount_view", "net": "network"}.get(name, f"{name}_ns")
    if control == "cgroup_ns":
        return
    without = plan(namespaces=frozenset(NAMESPACES) - {name}, has_filter=False)
    assert judge(sight(), how=without)[control].state is not ENFORCED


def test_network_without_a_namespace_is_held_by_the_filter_alone():
    without = plan(namespaces=frozenset(NAMESPACES) - {"net"})
    seen = sight(**outcome("udp", errno.EPERM))
    assert (judge(seen, how=without)["network"].state, judge(seen, how=without)["network"].detail) == (
        ENFORCED,
        "seccomp",
    )
    assert judge(seen, how=plan(namespaces=without.namespaces, has_filter=False))["network"].state is not ENFORCED
    assert judge(sight(), how=without)["network"].state is not ENFORCED


def test_files_without_landlock_are_degraded_and_say_so():
    row = judge(sight(), how=plan(landlock=(0, 0, 0)))["filesystem"]
    assert (row.state, row.detail) == (ControlState.DEGRADED, "mount_view")


def test_filter_that_only_denies_is_worth_less_and_named():
    found = judge(sight(), allow_list=False)
    assert found["seccomp"].detail == "deny_list"
    assert score_enforcement(found) < score_enforcement(judge(sight()))


def test_canary_that_an_outer_filter_refuses_too_does_not_speak_for_ours():
    found = judge(sight(outside={"ptrace": errno.ESRCH, "add_key": errno.EPERM}))
    assert found["seccomp"].state is ENFORCED
    assert "add_key: EPERM outside" not in found["seccomp"].evidence
    assert "ptrace: ESRCH outside" in found["seccomp"].evidence


@pytest.mark.parametrize(("states", "state"), [
    ({"pids": "degraded"}, ControlState.DEGRADED),
    ({"pids": "failed"}, ControlState.FAILED),
    ({"pids": "failed", "cpu": "degraded"}, ControlState.FAILED),
    ({"pids": "not_asked"}, ENFORCED),
])  # fmt: skip
def test_limits_are_as_good_as_the_worst_of_them(states, state):
    assert judge(sight(), limits=group(**states))["limits"].state is state


def test_bounding_set_without_a_user_namespace_is_degraded_and_not_hidden():
    seen = sight(status={"CapBnd": "000001ffffffffff"})
    without = plan(namespaces=frozenset(NAMESPACES) - {"user"})
    assert judge(seen, how=without)["no_caps"].state is ControlState.DEGRADED
    assert judge(seen)["no_caps"].state is ControlState.FAILED


def test_shared_init_and_missing_pid_namespace_are_degraded():
    shared = sight(init_ids=("200001",) * 4)
    found = judge(shared, how=plan(namespaces=frozenset(NAMESPACES) - {"pid"}))
    assert found["init_separation"].state is ControlState.DEGRADED
    assert found["no_orphans"].state is ControlState.DEGRADED
    uids = " ".join(["200001"] * 4)
    assert found["init_separation"].evidence == f"/proc/PID/status: Uid {uids}, init's {uids}"


def test_no_orphans_claims_only_the_namespace_that_was_seen():
    seen = sight()
    numbers = f"pid:[{seen.inodes['pid']}], the host's is [{seen.host_inodes['pid']}]"
    assert judge(seen)["no_orphans"].evidence == numbers
    without = judge(seen, how=plan(namespaces=frozenset(NAMESPACES) - {"pid"}))
    assert without["no_orphans"].evidence == numbers


@pytest.mark.parametrize("ids", [(), ("200000", "200001", "200000", "200000")], ids=["unread", "one shared"])
def test_init_is_separate_only_where_no_id_is_seen_to_be_shared(ids):
    assert judge(sight(init_ids=ids))["init_separation"].state is ControlState.DEGRADED


@pytest.mark.parametrize(("code", "state"), [
    (errno.EINVAL, ENFORCED), (errno.EPERM, ControlState.FAILED), (errno.ENOSYS, ControlState.FAILED), (GONE, ControlState.FAILED),
])  # fmt: skip
def test_nested_is_in_force_where_an_unshare_reaches_the_kernel(code, state):
    found = judge(sight(outcomes={("nested", FINAL): code}), policy=SandboxPolicy.strict(nested=True))
    assert found["nested"].state is state


@pytest.mark.parametrize(("change", "hole"), [
    (outcome("host_init", 0), Hole.HOST_INIT_SIGNALABLE),
    (outcome("environment", 0), Hole.HOST_SECRET_IN_ENVIRONMENT),
    (outcome("udp", 0), Hole.NETWORK_ESCAPED),
    (outcome("denied:0", 0), Hole.DENIED_PATH_READABLE),
    (outcome("host_socket:0", 0), Hole.HOST_SOCKET_REACHABLE),
    (outcome("host_socket:0", errno.EINPROGRESS), Hole.HOST_SOCKET_REACHABLE),
])  # fmt: skip
def test_canary_that_got_through_caps_the_score(change, hole):
    found = judge(sight(**change))
    assert hole in found.holes
    assert score_enforcement(found) <= 29


def test_commands_of_host_root_cap_the_score():
    without = plan(namespaces=frozenset(NAMESPACES) - {"user"})
    found = judge(sight(status={"Uid": "0\t0\t0\t0"}), how=without)
    assert Hole.HOST_ROOT in found.holes
    assert score_enforcement(found) <= 49


def test_every_canary_of_the_table_is_one_that_the_plans_use():
    assert set(canary.EVERY_TIME) <= {name for _, name, _ in CANARIES}
