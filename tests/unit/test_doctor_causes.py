"""Each cause that takes a control away is named with a fix, on a host that is a folder of files."""

from __future__ import annotations

import errno

import msgspec
import pytest

from kavach import doctor
from kavach.doctor.report import Availability
from kavach.errors import LaunchError
from kavach.linux import landlock_abi
from kavach.model.enforcement import Control

YES, DEGRADED, NO = Availability.YES, Availability.DEGRADED, Availability.NO
STATUS = "CapEff:\t0000000000000000\nSeccomp:\t0\n"
MOUNTS = "20 1 0:20 / /proc rw - proc proc rw\n21 1 0:21 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
GROUP = "/sys/fs/cgroup/user.slice"
HEALTHY_FILES = {
    "/proc/sys/kernel/osrelease": "6.18.0-generic",
    "/proc/version": "Linux version 6.18.0-generic",
    "/proc/self/status": STATUS,
    "/proc/self/uid_map": "0 0 4294967295",
    "/proc/self/mountinfo": MOUNTS,
    "/proc/self/cgroup": "0::/user.slice",
    "/proc/sys/user/max_user_namespaces": "1000",
    "/proc/sys/kernel/yama/ptrace_scope": "1",
    "/proc/sys/kernel/core_pattern": "core",
    "/sys/kernel/security/lsm": "capability,landlock,yama",
    **{f"/proc/self/ns/{kind}": "" for kind in ("user", "pid", "mnt", "ipc", "uts", "net")},
    f"{GROUP}/cgroup.controllers": "cpu memory pids",
    f"{GROUP}/cgroup.procs": "",
    f"{GROUP}/cgroup.subtree_control": "",
    "/dev/kvm": "",
}
HEALTHY_KERNEL = doctor.KernelAnswers(
    landlock_claimed=7,
    landlock_errno=0,
    landlock_rights=landlock_abi.rights(7)[:3],
    seccomp_actions=("errno", "user_notif"),
    calls=dict.fromkeys(("pidfd_open", "clone3", "close_range", "openat2"), "present"),
    attempt=("", 0),
)


@pytest.fixture
def examined(tmp_path):
    """Diagnose the healthy host with some files changed (None: removed) and some answers replaced."""

    def run(files: dict[str, str | None] | None = None, *, observed=(), **answers) -> doctor.Report:
        for path, text in (HEALTHY_FILES | (files or {})).items():
            if text is None:
                continue
            target = tmp_path / path.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
        facts = doctor.HostFacts(
            machine="x86_64",
            files=doctor.read_files(str(tmp_path)),
            kernel=msgspec.structs.replace(HEALTHY_KERNEL, **answers),
        )
        return doctor.diagnose(facts, observed=observed)

    return run


def causes(report: doctor.Report, control: str) -> str:
    return " | ".join(row.cause for row in report.of(control))


def test_a_healthy_host_has_no_problem_and_the_whole_wall(examined):
    report = examined()
    assert report.problems == ()
    assert report.best_wall == "process wall: namespaces, Landlock, seccomp and limits"
    assert (report.host, report.container, report.kernel) == ("linux", "", "6.18.0-generic")


REFUSED = {"attempt": ("unshare_user", errno.EPERM)}
UNSHARE_ONLY = {"attempt": ("mount", errno.EACCES)}
USERNS_CAUSES = [
    (
        {"/proc/sys/user/max_user_namespaces": "0"},
        {"attempt": ("unshare_user", errno.ENOSPC)},
        "user.max_user_namespaces=0",
        "sysctl -w user.max_user_namespaces=",
    ),
    (
        {"/proc/sys/kernel/unprivileged_userns_clone": "0"},
        REFUSED,
        "kernel.unprivileged_userns_clone=0",
        "sysctl -w kernel.unprivileged_userns_clone=1",
    ),
    (
        {"/proc/sys/kernel/apparmor_restrict_unprivileged_userns": "1"},
        UNSHARE_ONLY,
        "AppArmor",
        "apparmor_restrict_unprivileged_userns=0",
    ),
    ({"/proc/self/status": "Seccomp:\t2\n"}, REFUSED, "seccomp filter of the outer", "seccomp profile"),
    (
        {"/proc/self/ns/user": None},
        {"attempt": ("unshare_user", errno.EINVAL)},
        "without user",
        "CONFIG_USER_NS",
    ),
    ({}, {"attempt": ("unshare_user", errno.EUSERS)}, "nested too deep", "raise user.max_user_namespaces"),
    ({}, {"attempt": ("mount", errno.EACCES)}, "Permission denied", "kernel log"),
    ({}, {"attempt": ("victim", 0)}, "the probe did not run", "-I -S"),
]


@pytest.mark.parametrize(("files", "answers", "cause", "fix"), USERNS_CAUSES)
def test_user_namespaces_that_are_off_have_a_cause_and_a_fix(examined, files, answers, cause, fix):
    report = examined(files, **answers)
    (row,) = report.of("user_ns")
    assert row.available is NO
    assert cause in row.cause
    assert fix in row.fix
    assert row.wall_left == "process wall without namespaces: Landlock, seccomp and limits"
    assert report.best_wall == row.wall_left
    assert report.of("mount_view")[0].available is NO
    assert report.of("network")[0].available is YES
    assert "unix" in report.of("network")[0].evidence
    assert report.of("read_only_root")[0].wall_left == "Landlock refuses writing"


def test_two_causes_at_once_are_both_named(examined):
    report = examined({"/proc/sys/user/max_user_namespaces": "0", "/proc/self/status": "Seccomp:\t2\n"}, **REFUSED)
    assert len(report.of("user_ns")) == 2


def test_a_switch_for_plain_users_is_no_cause_for_a_privileged_one(examined):
    report = examined(
        {
            "/proc/sys/kernel/unprivileged_userns_clone": "0",
            "/proc/self/status": "CapEff:\t000001ffffffffff\nSeccomp:\t0\n",
        },
        **REFUSED,
    )
    assert "unprivileged_userns_clone" not in causes(report, "user_ns")


CONTROL_OF = {"pid": "pid_ns", "mnt": "mount_view", "ipc": "ipc_ns", "uts": "uts_ns", "net": "network"}


@pytest.mark.parametrize("kind", CONTROL_OF)
def test_one_kind_of_namespace_that_is_refused_is_named_alone(examined, kind):
    report = examined({f"/proc/sys/user/max_{kind}_namespaces": "0"}, refused=(kind,))
    (row,) = report.of(CONTROL_OF[kind])
    assert row.cause == f"user.max_{kind}_namespaces=0 forbids new ones"
    assert row.fix == f"sysctl -w user.max_{kind}_namespaces=15000"
    assert row.available is (YES if kind == "net" else NO)
    lost = {"pid": "pid and mnt"}.get(kind, kind)
    assert report.best_wall == f"process wall: namespaces (but {lost}), Landlock, seccomp and limits"
    expected = {CONTROL_OF[kind]} - {"network"}
    expected |= {"mount_view", "read_only_root"} if kind in {"pid", "mnt"} else set()
    assert {one.control for one in report.problems} == expected
    assert report.of("user_ns")[0].available is YES


def test_a_mount_view_is_not_promised_where_its_proc_cannot_be_had(examined):
    (row,) = examined(refused=("pid",)).of("mount_view")
    assert row.available is NO
    assert (row.cause, row.fix) == ("a mount view needs a PID namespace, whose /proc it shows", "see pid_ns")


@pytest.mark.parametrize(
    ("files", "cause"),
    [
        ({"/proc/self/status": "Seccomp:\t2\n"}, "seccomp filter of the outer"),
        ({}, "security module refuses ipc namespaces"),
        ({"/proc/self/ns/ipc": None}, "the kernel has no ipc namespaces"),
    ],
)
def test_a_refused_kind_without_a_limit_has_another_cause(examined, files, cause):
    (row,) = examined(files, refused=("ipc",)).of("ipc_ns")
    assert cause in row.cause


def test_a_missing_cgroup_namespace_costs_nothing(examined):
    report = examined({"/proc/sys/user/max_cgroup_namespaces": "0"}, refused=("cgroup",))
    assert report.problems == ()
    assert report.best_wall == "process wall: namespaces, Landlock, seccomp and limits"


def test_without_a_mount_view_and_landlock_no_wall_is_left(examined):
    report = examined(refused=("mnt",), landlock_errno=errno.ENOSYS, **NO_LANDLOCK)
    assert report.best_wall == "none: neither a mount view nor Landlock; commands are refused"


def test_a_switch_that_is_off_is_no_cause_when_the_attempt_stood(examined):
    report = examined({"/proc/sys/kernel/apparmor_restrict_unprivileged_userns": "1"})
    assert report.of("user_ns")[0].available is YES


def test_masked_proc_is_named_with_the_paths_and_the_containers_switch(examined):
    masked = MOUNTS + "22 20 0:22 / /proc/kcore rw - tmpfs tmpfs rw\n"
    report = examined({"/proc/self/mountinfo": masked}, attempt=("fresh_proc", errno.EPERM))
    (row,) = report.of("proc")
    assert row.available is DEGRADED
    assert "/proc/kcore" in row.cause
    assert "systempaths=unconfined" in row.fix
    assert report.of("user_ns")[0].available is YES


def test_masks_that_did_not_hinder_a_fresh_proc_are_no_problem(examined):
    masked = MOUNTS + "22 20 0:22 / /proc/kcore rw - tmpfs tmpfs rw\n"
    assert examined({"/proc/self/mountinfo": masked}).of("proc")[0].available is YES


def test_a_refused_fresh_proc_without_masks_is_a_problem_too(examined):
    (row,) = examined(attempt=("fresh_proc", errno.EPERM)).of("proc")
    assert row.available is DEGRADED
    assert "EPERM" in row.evidence


@pytest.mark.parametrize(
    ("files", "cause", "fix"),
    [
        ({f"{GROUP}/cgroup.procs": None}, "not delegated", "Delegate=yes"),
        ({f"{GROUP}/cgroup.procs": None, "/run/.containerenv": ""}, "not delegated", "--cgroupns=private"),
        ({f"{GROUP}/cgroup.controllers": "memory pids"}, "lacks cpu", "Delegate=memory pids cpu"),
        (
            {
                "/proc/self/mountinfo": "20 1 0:20 / /sys/fs/cgroup/memory rw - cgroup c rw,memory\n"
                "21 1 0:21 / /sys/fs/cgroup/unified rw - cgroup2 c rw\n"
            },
            "hybrid",
            "systemd.unified_cgroup_hierarchy=1",
        ),
        (
            {"/proc/self/mountinfo": "20 1 0:20 / /sys/fs/cgroup/memory rw - cgroup c rw,memory\n"},
            "version 1",
            "systemd.unified_cgroup_hierarchy=1",
        ),
        ({"/proc/self/mountinfo": ""}, "no control groups", "mount cgroup2"),
        (
            {f"{GROUP}/cgroup.controllers": "cpu", "/proc/cmdline": "quiet cgroup_disable=memory,pids ro"},
            "boot line takes memory, pids away",
            "out of cgroup_disable=",
        ),
    ],
)
def test_limits_without_a_usable_cgroup_fall_back_and_say_why(examined, files, cause, fix):
    (row,) = examined(files).of("limits")
    assert row.available is DEGRADED
    assert cause in row.cause
    assert fix in row.fix
    assert "watchdog" in row.wall_left


def test_writable_v1_controllers_are_a_driver_of_their_own(examined):
    names = ("memory", "pids", "cpu")
    files = {f"/sys/fs/cgroup/{name}/tasks": "" for name in names}
    files["/proc/self/mountinfo"] = "".join(
        f"2{number} 1 0:2{number} / /sys/fs/cgroup/{name} rw - cgroup c rw,{name}\n"
        for number, name in enumerate(names)
    )
    (row,) = examined(files).of("limits")
    assert row.available is YES
    assert "version 1" in row.cause
    assert row.wall_left == "limits by cgroup v1"


NO_LANDLOCK = {"landlock_claimed": 0, "landlock_rights": (0, 0, 0)}


@pytest.mark.parametrize(
    ("files", "answers", "cause", "fix"),
    [
        (
            {"/sys/kernel/security/lsm": "capability,yama"},
            {"landlock_errno": errno.EOPNOTSUPP, **NO_LANDLOCK},
            "lsm= list (capability,yama)",
            "lsm=landlock,capability,yama",
        ),
        (
            {"/sys/kernel/security/lsm": ""},
            {"landlock_errno": errno.EOPNOTSUPP, **NO_LANDLOCK},
            "lsm= list",
            "boot line",
        ),
        (
            {"/proc/sys/kernel/osrelease": "4.18.0-553.el8"},
            {"landlock_errno": errno.ENOSYS, **NO_LANDLOCK},
            "Linux 4.18 has no Landlock",
            "newer kernel",
        ),
        ({}, {"landlock_errno": errno.ENOSYS, **NO_LANDLOCK}, "built without", "CONFIG_SECURITY_LANDLOCK"),
        (
            {"/proc/self/status": "Seccomp:\t2\n"},
            {"landlock_errno": errno.ENOSYS, **NO_LANDLOCK},
            "outer seccomp filter hides",
            "444 to 446",
        ),
        ({}, {"landlock_errno": errno.EPERM, **NO_LANDLOCK}, "outer seccomp filter hides", "444 to 446"),
        (
            {"/proc/version": "Linux version 4.19.0-gvisor"},
            {"landlock_errno": errno.ENOSYS, **NO_LANDLOCK},
            "gVisor has no Landlock",
            "outside",
        ),
        ({}, {"landlock_claimed": 0, "landlock_rights": (0, 0, 0)}, "claims Landlock ABI 0", "444 to 446"),
        ({}, {"landlock_claimed": 6, "landlock_rights": (0, 0, 0)}, "no rights at all", "444 to 446"),
    ],
)
def test_absent_landlock_has_a_cause_and_a_fix(examined, files, answers, cause, fix):
    report = examined(files, **answers)
    (row,) = report.of("landlock")
    assert row.available is NO
    assert cause in row.cause
    assert fix in row.fix
    assert row.wall_left == "process wall: namespaces, seccomp and limits"
    assert report.of("filesystem")[0].wall_left == "the mount view alone"
    assert report.of("tcp_ports")[0].available is NO
    assert report.of("scope_signal")[0].wall_left == "the own namespace alone"


def test_a_kernel_that_claims_more_than_its_rulesets_take_is_called_a_liar(examined):
    report = examined(landlock_claimed=6, landlock_rights=landlock_abi.rights(3)[:3])
    (row,) = report.of("landlock")
    assert row.available is DEGRADED
    assert "claims Landlock ABI 6" in row.cause
    assert "only the rights of ABI 3" in row.cause
    assert report.of("truncate")[0].available is YES
    assert report.of("tcp_ports")[0].available is NO


@pytest.mark.parametrize(
    ("abi", "lost"),
    [
        (1, {"truncate", "tcp_ports", "scope_abstract", "scope_signal"}),
        (3, {"tcp_ports", "scope_abstract", "scope_signal"}),
        (4, {"scope_abstract", "scope_signal"}),
        (6, set()),
        (7, set()),
        (11, set()),
    ],
)
def test_an_old_but_honest_landlock_names_what_it_lacks(examined, abi, lost):
    report = examined(landlock_claimed=abi, landlock_rights=landlock_abi.rights(abi)[:3])
    assert {row.control for row in report.problems} == lost
    assert report.of("landlock")[0].available is YES
    assert report.of("landlock")[0].evidence == f"ABI {min(abi, 7)}, seen by making a ruleset"
    assert all("later" in row.fix for row in report.problems)


def test_a_kernel_without_seccomp_names_it(examined):
    report = examined({"/proc/self/status": "CapEff:\t0\n"}, seccomp_actions=())
    (row,) = report.of("seccomp")
    assert row.available is NO
    assert "CONFIG_SECCOMP_FILTER" in row.fix
    assert row.wall_left == "process wall: namespaces, Landlock and limits"


def test_seccomp_that_an_outer_filter_refuses_names_it(examined):
    report = examined({"/proc/self/status": "Seccomp:\t2\n"}, seccomp_actions=())
    assert "outer filter" in causes(report, "seccomp")


def test_without_namespaces_and_landlock_no_wall_is_left(examined):
    report = examined(landlock_errno=errno.ENOSYS, **NO_LANDLOCK, **REFUSED)
    assert report.best_wall.startswith("none")
    assert report.of("read_only_root")[0].available is NO
    assert report.of("filesystem")[0].available is NO


@pytest.mark.parametrize(
    ("scope", "cause", "fix"),
    [
        ("0", "ptrace_scope=0", "sysctl -w kernel.yama.ptrace_scope=1"),
        (None, "no Yama", "CONFIG_SECURITY_YAMA"),
    ],
)
def test_yama_that_is_off_or_absent_is_named(examined, scope, cause, fix):
    (row,) = examined({"/proc/sys/kernel/yama/ptrace_scope": scope}).of("yama")
    assert row.available is DEGRADED
    assert cause in row.cause
    assert fix in row.fix


def test_a_piped_core_pattern_names_the_handler(examined):
    (row,) = examined({"/proc/sys/kernel/core_pattern": "|/usr/share/apport/apport -p%p"}).of("core_dumps")
    assert row.available is DEGRADED
    assert "/usr/share/apport/apport:" in row.cause
    assert "core_pattern=core" in row.fix
    assert "core limit of 1" in row.wall_left


@pytest.mark.parametrize(
    ("files", "host", "available", "fix"),
    [
        ({"/proc/sys/kernel/osrelease": "4.4.0-19041-Microsoft"}, "wsl1", NO, "--set-version"),
        (
            {"/proc/sys/kernel/osrelease": "6.6.87.2-microsoft-standard-WSL2"},
            "wsl2",
            DEGRADED,
            "/etc/wsl.conf",
        ),
        ({"/proc/version": "Linux version 4.19.0-gvisor"}, "gvisor", DEGRADED, "outside"),
    ],
)
def test_a_host_that_is_played_by_another_is_named(examined, files, host, available, fix):
    report = examined(files)
    assert report.host == host
    assert report.of("host")[0].available is available
    assert fix in report.of("host")[0].fix


@pytest.mark.parametrize(
    ("files", "kind"),
    [({"/run/.containerenv": ""}, "podman"), ({"/proc/self/uid_map": "0 100000 65536"}, "user namespace")],
)
def test_a_container_as_the_host_is_named(examined, files, kind):
    (row,) = examined(files).of("host")
    assert row.available is DEGRADED
    assert kind in row.cause


def test_an_old_kernel_and_each_absent_call_name_their_fallback(examined):
    calls = {"clone3": "refused", "openat2": "absent", "close_range": "present"}
    report = examined({"/proc/sys/kernel/osrelease": "5.4.0-150-generic"}, calls=calls)
    rows = report.of("kernel")
    assert len(rows) == 3
    assert "older than 5.14" in rows[0].cause
    assert "refused by an outer filter" in rows[1].cause
    assert "does not exist" in rows[2].cause
    assert all(row.wall_left for row in rows)


@pytest.mark.parametrize(
    ("files", "available", "cause"),
    [
        ({"/dev/kvm": None}, NO, "no /dev/kvm"),
        ({"/sys/module/kvm_pvm/refcnt": "1"}, DEGRADED, "pvm"),
        ({}, YES, ""),
    ],
)
def test_kvm_is_judged_by_its_hints(examined, files, available, cause):
    (row,) = examined(files).of("kvm")
    assert row.available is available
    assert cause in row.cause


def test_kvm_without_permission_names_the_group(examined):
    report = examined()
    facts_kvm = {"present": True, "accessible": False, "hardware": True, "pvm": False}
    from kavach.doctor.controls import _kvm_row

    assert "group kvm" in _kvm_row(facts_kvm).fix
    assert report.of("kvm")[0].available is YES


def test_accelerators_are_listed_by_family(examined):
    report = examined({"/dev/nvidia0": "", "/dev/dri/renderD128": "", "/dev/kfd": "", "/dev/accel/accel0": ""})
    assert set(report.devices) == {"nvidia", "dri", "kfd", "accel"}
    assert "/dev/dri/renderD128" in report.of("devices")[0].evidence


def test_a_run_that_enforced_a_control_refutes_the_conclusion(examined):
    report = examined(**REFUSED, observed=[("user_ns", "enforced", "inode 4026532"), ("network", "not_asked", "")])
    (row,) = report.of("user_ns")
    assert (row.available, row.observed, row.evidence) == (YES, True, "inode 4026532")
    assert all(not row.observed for row in report.of("network"))


def test_a_run_that_failed_a_control_keeps_the_known_cause_and_fix(examined):
    report = examined(**REFUSED, observed=[("user_ns", "failed", "EPERM"), ("limits", "degraded", "rlimits")])
    first, second = report.of("user_ns")
    assert (first.observed, first.available, first.fix) == (True, NO, second.fix)
    assert report.of("limits")[0].available is DEGRADED


def test_every_scored_control_has_a_row(examined):
    reported = {row.control for row in examined().rows}
    unscored = {"init_separation", "files_gated", "no_orphans", "devices", "workdir", "secrets", "nested"}
    assert {control.value for control in Control} - unscored <= reported


@pytest.mark.parametrize("answers", [{}, REFUSED, {"landlock_errno": errno.ENOSYS, **NO_LANDLOCK}])
def test_every_problem_has_a_cause_a_fix_and_what_is_left(examined, answers):
    report = examined({"/proc/sys/kernel/yama/ptrace_scope": None}, **answers)
    assert report.problems
    assert all(row.cause and row.fix and row.wall_left for row in report.problems)


def test_a_report_survives_json(examined):
    report = examined(**REFUSED)
    assert msgspec.json.decode(msgspec.json.encode(report), type=doctor.Report) == report


def test_another_platform_is_told_so_without_touching_the_kernel(monkeypatch):
    monkeypatch.setattr("sys.platform", "darwin")
    report = doctor.examine()
    assert report.best_wall == "none"
    assert "darwin" in report.rows[0].cause


def test_a_probe_that_could_not_stand_is_the_first_row():
    def probe():
        raise LaunchError("step uid_map failed", step="uid_map", errno=1, hint="try newuidmap")

    row = doctor.examine(probe=probe).rows[0]
    assert (row.control, row.available, row.fix) == ("process_wall", NO, "try newuidmap")


def test_a_probes_rows_are_marked_as_observed():
    report = doctor.examine(probe=lambda: [("seccomp", "enforced", "Seccomp: 2")])
    assert report.rows[0].observed
    assert report.rows[0].control == "seccomp"
