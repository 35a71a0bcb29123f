"""A host is described by a folder of files, and what cannot be read is an absent answer."""

from __future__ import annotations

import os

import pytest

from kavach.linux import host

MOUNT = "{number} 1 0:{number} {root} {point} rw,relatime - {kind} none rw{extra}\n"


@pytest.fixture
def fake(tmp_path):
    """`fake({"/proc/version": "..."})`: a folder with these files, to be given as root."""

    def build(files: dict[str, str]) -> str:
        for path, text in files.items():
            target = tmp_path / path.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
        return str(tmp_path)

    return build


def mountinfo(*mounts: tuple[str, str, str, str]) -> str:
    """Lines of (root of the mount, mount point, type, super options)."""
    return "".join(
        MOUNT.format(number=number, root=root, point=point, kind=kind, extra=extra and "," + extra)
        for number, (root, point, kind, extra) in enumerate(mounts, 20)
    )


@pytest.mark.parametrize(
    ("release", "version"),
    [
        ("6.1.0-18-amd64", (6, 1)),
        ("5.15.167.4-microsoft-standard-WSL2", (5, 15)),
        ("6.18.44", (6, 18)),
        ("4.19.0-gvisor", (4, 19)),
        ("6.18-rc1", (6, 18)),
        ("", (0, 0)),
        ("unknown", (0, 0)),
        ("6", (0, 0)),
    ],
)
def test_the_version_is_read_from_a_release(release, version):
    assert host.kernel_version(release) == version


def test_the_release_comes_from_proc_version_where_sysctl_is_hidden(fake):
    assert host.kernel_release(fake({"/proc/version": "Linux version 4.4.0 #1 SMP"})) == "4.4.0"
    assert host.kernel_release(fake({"/proc/sys/kernel/osrelease": "6.1.0\n"})) == "6.1.0"


def test_an_empty_host_has_no_answers_and_raises_nothing(fake):
    root = fake({})
    assert host.kernel_release(root) == ""
    assert host.sysctl("user.max_user_namespaces", root) is None
    assert host.namespace_sysctls(root) == {}
    assert host.namespace_kinds(root) == ()
    assert host.outer_seccomp(host.process_status(root)) is None
    assert host.security_modules(root) == ()
    assert (host.emulated_by(root), host.container_kind(root)) == ("", "")
    assert not host.is_in_user_namespace(root)
    assert host.masked_proc_paths(root) == ()
    assert host.cgroup_state(root)["layout"] == "none"
    assert host.devices(root) == {}
    assert not any(host.kvm_state(root).values())


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"/proc/version": "Linux version 4.4.0 #1 SMP Sun Jan 10 15:06:54 PST 2016"}, "gvisor"),
        ({"/proc/sys/kernel/osrelease": "4.19.0-gvisor"}, "gvisor"),
        ({"/proc/version": "Linux version 6.1.0", "/proc/gvisor/kernel_is_gvisor": "1"}, "gvisor"),
        ({"/proc/sys/kernel/osrelease": "5.15.167.4-microsoft-standard-WSL2"}, "wsl2"),
        ({"/proc/sys/kernel/osrelease": "4.4.0-19041-Microsoft"}, "wsl1"),
        ({"/proc/sys/kernel/osrelease": "6.6.0-custom", "/proc/sys/fs/binfmt_misc/WSLInterop": ""}, "wsl2"),
        ({"/proc/sys/kernel/osrelease": "4.4.0-210-generic", "/proc/version": "Linux version 4.4.0"}, ""),
        ({"/proc/sys/kernel/osrelease": "6.8.0-1021-azure"}, ""),
    ],
)
def test_who_plays_the_kernel_is_told_by_its_signs(fake, files, expected):
    assert host.emulated_by(fake(files)) == expected


HOSTS_FILE = ("/var/lib/docker/hosts", "/etc/hosts", "ext4", "")


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"/.dockerenv": "", "/proc/self/mountinfo": mountinfo(HOSTS_FILE)}, "docker"),
        ({"/.dockerenv": "", "/proc/self/mountinfo": mountinfo(("/", "/", "ext4", ""))}, ""),
        ({"/run/.containerenv": ""}, "podman"),
        ({"/run/systemd/container": "systemd-nspawn\n"}, "systemd-nspawn"),
        ({"/var/run/secrets/kubernetes.io/token": "x"}, "kubernetes"),
        ({"/proc/1/cgroup": "0::/kubepods/besteffort/pod1"}, "kubernetes"),
        ({"/proc/self/cgroup": "4:memory:/docker/0123"}, "docker"),
        ({"/proc/self/cgroup": "0::/user.slice/user-1000.slice"}, ""),
    ],
)
def test_the_manager_of_a_container_is_told_by_its_signs(fake, files, expected):
    assert host.container_kind(fake(files)) == expected


@pytest.mark.parametrize(
    ("text", "expected"), [("0 0 4294967295", False), ("0 100000 65536", True), ("0 0 1", True), ("", False)]
)
def test_a_mapped_range_tells_that_this_is_a_user_namespace(fake, text, expected):
    assert host.is_in_user_namespace(fake({"/proc/self/uid_map": f"         {text}\n"})) is expected


def test_switches_that_the_kernel_lacks_are_left_out(fake):
    root = fake({"/proc/sys/user/max_user_namespaces": "0\n", "/proc/sys/kernel/unprivileged_userns_clone": "1\n"})
    found = host.namespace_sysctls(root)
    assert found == {"user.max_user_namespaces": 0, "kernel.unprivileged_userns_clone": 1}


def test_status_tells_capabilities_and_the_outer_filter(fake):
    status = host.process_status(fake({"/proc/self/status": "CapEff:\t0000000000200000\nSeccomp:\t2\n"}))
    assert host.has_capability(host.CAP_SYS_ADMIN, status)
    assert not host.has_capability(0, status)
    assert host.outer_seccomp(status) == 2
    assert not host.has_capability(0, {"CapEff": "nonsense"})


def test_masks_over_proc_are_found_but_not_the_kernels_own_mount_points(fake):
    text = mountinfo(
        ("/", "/proc", "proc", ""),
        ("/null", "/proc/kcore", "tmpfs", ""),
        ("/", "/proc/sys", "proc", ""),
        ("/", "/proc/sys/fs/binfmt_misc", "binfmt_misc", ""),
        ("/", "/processes", "tmpfs", ""),
        ("/", "/proc/with\\040blank", "tmpfs", ""),
    )
    masked = host.masked_proc_paths(fake({"/proc/self/mountinfo": text}))
    assert masked == ("/proc/kcore", "/proc/sys", "/proc/with blank")


def cgroup_files(folder: str, controllers: str) -> dict[str, str]:
    return {
        f"{folder}/cgroup.controllers": controllers + "\n",
        f"{folder}/cgroup.procs": "",
        f"{folder}/cgroup.subtree_control": "",
    }


def test_a_delegated_v2_group_is_found_at_its_own_path(fake):
    own = "/sys/fs/cgroup/user.slice/app.scope"
    state = host.cgroup_state(
        fake(
            {
                "/proc/self/mountinfo": mountinfo(("/", "/sys/fs/cgroup", "cgroup2", "")),
                "/proc/self/cgroup": "0::/user.slice/app.scope\n",
                **cgroup_files(own, "cpu memory pids"),
            }
        )
    )
    assert state["layout"] == "v2"
    assert state["v2_folder"] == own
    assert state["v2_controllers"] == ("cpu", "memory", "pids")
    assert state["v2_delegated"] is True


def test_a_group_without_writable_control_files_is_not_delegated(fake):
    state = host.cgroup_state(
        fake(
            {
                "/proc/self/mountinfo": mountinfo(("/", "/sys/fs/cgroup", "cgroup2", "")),
                "/proc/self/cgroup": "0::/\n",
                "/sys/fs/cgroup/cgroup.controllers": "cpu memory pids\n",
            }
        )
    )
    assert state["v2_delegated"] is False


def test_a_hybrid_host_shows_its_v1_controllers_and_a_named_hierarchy_is_none(fake):
    root = fake(
        {
            "/proc/self/mountinfo": mountinfo(
                ("/", "/sys/fs/cgroup/memory", "cgroup", "memory"),
                ("/", "/sys/fs/cgroup/cpu,cpuacct", "cgroup", "cpu,cpuacct"),
                ("/", "/sys/fs/cgroup/systemd", "cgroup", "xattr,name=systemd"),
                ("/", "/sys/fs/cgroup/unified", "cgroup2", ""),
            ),
            "/proc/self/cgroup": "4:memory:/own\n2:cpu,cpuacct:/\n1:name=systemd:/\n0::/\n",
            "/sys/fs/cgroup/memory/own/tasks": "",
            "/sys/fs/cgroup/cpu,cpuacct/tasks": "",
            "/sys/fs/cgroup/unified/cgroup.controllers": "\n",
        }
    )
    state = host.cgroup_state(root)
    assert state["layout"] == "hybrid"
    assert state["v1_writable"] == ("cpu", "cpuacct", "memory")


def test_a_container_that_sees_only_its_part_of_a_hierarchy_finds_its_folder(fake):
    state = host.cgroup_state(
        fake(
            {
                "/proc/self/mountinfo": mountinfo(("/docker/abc", "/sys/fs/cgroup", "cgroup2", "")),
                "/proc/self/cgroup": "0::/docker/abc/inner\n",
                **cgroup_files("/sys/fs/cgroup/inner", "pids"),
            }
        )
    )
    assert state["v2_folder"] == "/sys/fs/cgroup/inner"


def test_a_path_outside_the_visible_hierarchy_falls_back_to_the_mount_point(fake):
    state = host.cgroup_state(
        fake(
            {
                "/proc/self/mountinfo": mountinfo(("/", "/sys/fs/cgroup", "cgroup2", "")),
                "/proc/self/cgroup": "0::/../other\n",
                "/sys/fs/cgroup/cgroup.controllers": "",
            }
        )
    )
    assert state["v2_folder"] == "/sys/fs/cgroup"


def test_accelerator_nodes_are_grouped_by_family(fake):
    nodes = (
        "nvidia0",
        "nvidiactl",
        "nvidia-caps/nvidia-cap1",
        "dri/card0",
        "dri/renderD128",
        "dri/by-path/x",
        "kfd",
        "accel/accel0",
    )
    found = host.devices(fake({f"/dev/{node}": "" for node in (*nodes, "null", "kfdx")}))
    assert found == {
        "nvidia": ("/dev/nvidia0", "/dev/nvidiactl", "/dev/nvidia-caps/nvidia-cap1"),
        "dri": ("/dev/dri/card0", "/dev/dri/renderD128"),
        "kfd": ("/dev/kfd",),
        "accel": ("/dev/accel/accel0",),
    }


def test_kvm_hints_tell_presence_hardware_and_pvm_apart(fake):
    root = fake({"/dev/kvm": "", "/proc/cpuinfo": "processor: 0\nflags\t\t: fpu svm\nflags\t\t: x\n"})
    assert host.kvm_state(root) == {"present": True, "accessible": True, "hardware": True, "pvm": False}
    root = fake({"/sys/module/kvm_pvm/refcnt": "1", "/proc/cpuinfo": "flags: fpu svmx\n"})
    assert host.kvm_state(root)["pvm"] is True
    assert host.kvm_state(root)["hardware"] is False


def test_the_core_pattern_and_security_modules_are_read(fake):
    files = {
        "/proc/sys/kernel/core_pattern": "|/usr/bin/apport %p\n",
        "/sys/kernel/security/lsm": "capability,yama\n",
    }
    root = fake(files)
    assert host.core_pattern(root) == "|/usr/bin/apport %p"
    assert host.security_modules(root) == ("capability", "yama")


def test_namespace_kinds_leave_the_links_for_children_out(fake):
    root = fake({f"/proc/self/ns/{name}": "" for name in ("user", "pid", "pid_for_children", "mnt")})
    assert host.namespace_kinds(root) == ("mnt", "pid", "user")


def test_bytes_that_are_no_text_are_read_all_the_same(fake, tmp_path):
    root = fake({"/proc/version": ""})
    (tmp_path / "proc/version").write_bytes(b"Linux version 6.1.\xff")
    assert host.kernel_release(root).startswith("6.1.")


def test_reading_a_host_writes_nothing(fake, tmp_path):
    root = fake({"/proc/version": "Linux version 6.1.0", "/proc/self/cgroup": "0::/\n"})
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    host.cgroup_state(root)
    host.devices(root)
    assert sorted(str(path) for path in tmp_path.rglob("*")) == before
    assert os.listdir(tmp_path) == ["proc"]
