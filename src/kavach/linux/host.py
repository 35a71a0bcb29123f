"""What this host is and has, read without changing it.

Guarantees: every reader takes the folder that stands for "/", so a host can be described by a folder of
files; an unreadable file is an absent answer (None, "" or an empty tuple), never an exception. Does not:
judge (doctor does), write, start a process, or confine the caller; `host_attempt` tries what only an attempt
can tell. May be called by: doctor and the backends' probes, in the host process.
"""

from __future__ import annotations

import errno
import os
import sys

from kavach.linux import landlock, libc, uapi

SYS_SECCOMP = 317 if uapi.IS_X86_64 else 277  # asm/unistd_64.h, asm-generic/unistd.h; 3.17
SECCOMP_GET_ACTION_AVAIL = 2  # linux/seccomp.h; 4.14
SECCOMP_RET_ERRNO = 0x00050000  # linux/seccomp.h; 3.5
SECCOMP_RET_USER_NOTIF = 0x7FC00000  # linux/seccomp.h; 5.0
CAP_SYS_ADMIN = 21  # linux/capability.h; 2.2

_WRONG_FLAGS = 0xFFFFFFFF
# A call is there when it refuses arguments that no kernel accepts with anything but ENOSYS.
_HARMLESS_CALLS = (
    ("pidfd_open", uapi.SYS_PIDFD_OPEN, (-1, _WRONG_FLAGS)),
    ("clone3", uapi.SYS_CLONE3, (None, 0)),
    ("close_range", uapi.SYS_CLOSE_RANGE, (1, 0, 0)),
    ("openat2", uapi.SYS_OPENAT2, (-1, None, None, 0)),
    ("mount_setattr", uapi.SYS_MOUNT_SETATTR, (-1, None, _WRONG_FLAGS, None, 0)),
    ("open_tree", uapi.SYS_OPEN_TREE, (-1, None, _WRONG_FLAGS)),
)
# Folders that the kernel itself provides to be mounted on: a mount there hides nothing of /proc (fs/proc).
_PROC_MOUNT_POINTS = ("/proc/sys/fs/binfmt_misc", "/proc/fs/nfsd", "/proc/fs/nfs")
_GVISOR_BUILD = "Sun Jan 10 15:06:54 PST 2016"  # the build date that gVisor's kernel always shows


def read_text(path: str, root: str = "/") -> str:
    """Return the file's text without surrounding blanks, or "" when it cannot be read.

    Args:
        path: as the host spells it ("/proc/version").
        root: the folder that stands for "/".
    """
    try:
        with open(_below(root, path), "rb") as file:
            return file.read().decode("utf-8", "replace").strip()
    except OSError:
        return ""


def _below(root: str, path: str) -> str:
    return os.path.join(root, path.lstrip("/"))


def _names(path: str, root: str) -> list[str]:
    try:
        return sorted(os.listdir(_below(root, path)))
    except OSError:
        return []


def _exists(path: str, root: str) -> bool:
    return os.path.lexists(_below(root, path))


def kernel_release(root: str = "/") -> str:
    """Return the kernel's release ("6.1.0-18-amd64"), or ""."""
    release = read_text("/proc/sys/kernel/osrelease", root)
    if release:
        return release
    words = read_text("/proc/version", root).split()
    return words[2] if words[:2] == ["Linux", "version"] and len(words) > 2 else ""


def kernel_version(release: str) -> tuple[int, int]:
    """Return (major, minor) of a release string, or (0, 0) for text that is none."""
    major, _, rest = release.partition(".")
    minor = "".join(rest[: len(rest) - len(rest.lstrip("0123456789"))])
    return (int(major), int(minor)) if major.isdigit() and minor else (0, 0)


def sysctl(name: str, root: str = "/") -> int | None:
    """Return a numeric sysctl ("user.max_user_namespaces"), or None where this kernel has no such switch."""
    text = read_text("/proc/sys/" + name.replace(".", "/"), root)
    return int(text) if text.lstrip("-").isdigit() else None


def namespace_sysctls(root: str = "/") -> dict[str, int]:
    """Return the switches that can turn namespaces off, those that this kernel has."""
    names = [
        "kernel.unprivileged_userns_clone",
        "kernel.apparmor_restrict_unprivileged_userns",
        *(f"user.max_{kind}_namespaces" for kind in ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup")),
    ]
    found = {name: sysctl(name, root) for name in names}
    return {name: value for name, value in found.items() if value is not None}


def namespace_kinds(root: str = "/") -> tuple[str, ...]:
    """Return the kinds of namespaces this kernel is built with."""
    return tuple(name for name in _names("/proc/self/ns", root) if "_" not in name)


def process_status(root: str = "/") -> dict[str, str]:
    """Return the fields of this process's /proc/self/status by name."""
    fields = {}
    for line in read_text("/proc/self/status", root).splitlines():
        name, _, value = line.partition(":")
        fields[name] = value.strip()
    return fields


def has_capability(number: int, status: dict[str, str]) -> bool:
    """Return whether a status shows the capability as effective."""
    try:
        return bool(int(status.get("CapEff", "0"), 16) >> number & 1)
    except ValueError:
        return False


def outer_seccomp(status: dict[str, str]) -> int | None:
    """Return the seccomp mode (0, 1, 2) that a status shows, None where the kernel has no seccomp."""
    text = status.get("Seccomp", "")
    return int(text) if text.isdigit() else None


def seccomp_actions() -> tuple[str, ...]:
    """Return which of `errno` and `user_notif` the running kernel offers to filters."""
    found = []
    for name, action in (("errno", SECCOMP_RET_ERRNO), ("user_notif", SECCOMP_RET_USER_NOTIF)):
        try:
            libc.syscall(SYS_SECCOMP, SECCOMP_GET_ACTION_AVAIL, 0, action.to_bytes(4, sys.byteorder))
        except OSError:
            continue
        found.append(name)
    return tuple(found)


def landlock_state() -> tuple[int, int, tuple[int, int, int]]:
    """Return (claimed ABI, errno of asking or 0, rights that rulesets really take)."""
    try:
        claimed, code = landlock.abi_version(), 0
    except OSError as error:
        claimed, code = 0, error.errno or errno.ENOSYS
    return claimed, code, landlock.probe_rights()


def security_modules(root: str = "/") -> tuple[str, ...]:
    """Return the active Linux security modules; empty also where securityfs is not mounted."""
    return tuple(name for name in read_text("/sys/kernel/security/lsm", root).split(",") if name)


def available_calls() -> dict[str, str]:
    """Return each newer call that the wall likes as "present", "absent" or "refused" (by an outer filter)."""
    found = {}
    for name, number, arguments in _HARMLESS_CALLS:
        try:
            libc.syscall(number, *arguments)
        except OSError as error:
            if libc.is_missing(error):
                found[name] = "absent"
            else:
                found[name] = "refused" if error.errno in {errno.EPERM, errno.EACCES} else "present"
        else:
            found[name] = "refused"  # nonsense was answered with success: the kernel never saw the call
    return found


def emulated_by(root: str = "/") -> str:
    """Return "gvisor", "wsl1" or "wsl2" when one of them plays the kernel, else ""."""
    version = read_text("/proc/version", root)
    release = kernel_release(root)
    if (
        _exists("/proc/gvisor/kernel_is_gvisor", root)
        or release.endswith("-gvisor")
        or "-gvisor" in version
        or _GVISOR_BUILD in version
    ):
        return "gvisor"
    named = f"{release} {version}".lower()
    if "microsoft-standard" in named or "wsl2" in named:
        return "wsl2"
    if "microsoft" in release.lower():
        return "wsl1"
    return "wsl2" if _exists("/proc/sys/fs/binfmt_misc/WSLInterop", root) else ""


def container_kind(root: str = "/") -> str:
    """Return the manager whose container this is ("docker", "podman", "kubernetes", "lxc", ...), or ""."""
    if _exists("/var/run/secrets/kubernetes.io", root):
        return "kubernetes"
    # A disk made from an image keeps the marker file; only a container has its hosts file mounted in.
    if _exists("/.dockerenv", root) and any(line[1] == "/etc/hosts" for line in _mount_lines(root)):
        return "docker"
    if _exists("/run/.containerenv", root):
        return "podman"
    named = read_text("/run/systemd/container", root)
    if named:
        return named
    paths = read_text("/proc/1/cgroup", root) + read_text("/proc/self/cgroup", root)
    signs = (("kubepods", "kubernetes"), ("docker", "docker"), ("libpod", "podman"), ("lxc", "lxc"))
    return next((kind for sign, kind in signs if sign in paths), "")


def is_in_user_namespace(root: str = "/") -> bool:
    """Return whether this process already sits in a user namespace that is not the first one."""
    text = read_text("/proc/self/uid_map", root).split()
    return bool(text) and text != ["0", "0", "4294967295"]


def _mount_lines(root: str) -> list[tuple[str, str, str, str, str]]:
    """Return (root of the mount, mount point, per-mount options, type, super options) of each mount."""
    found = []
    for line in read_text("/proc/self/mountinfo", root).splitlines():
        left, _, right = line.partition(" - ")
        head, tail = left.split(), right.split()
        if len(head) >= 6 and len(tail) >= 1:
            options = tail[2] if len(tail) > 2 else ""
            found.append((_unescape(head[3]), _unescape(head[4]), head[5], tail[0], options))
    return found


def _unescape(path: str) -> str:
    """Undo the octal escapes of mountinfo (blank, tab, newline, backslash)."""
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        path = path.replace(code, character)
    return path


def masked_proc_paths(root: str = "/") -> tuple[str, ...]:
    """Return what is mounted over parts of /proc; any such mount forbids a user namespace a fresh /proc."""
    points = [point for _root, point, _options, _kind, _super in _mount_lines(root)]
    return tuple(p for p in points if p.startswith("/proc/") and p not in _PROC_MOUNT_POINTS)


def cgroup_state(root: str = "/") -> dict[str, object]:
    """Return the layout of control groups and what of it this process may use.

    Returns:
        layout: "v2", "v1", "hybrid" or "none".
        v2_folder: this process's own folder in the v2 hierarchy, or "".
        v2_controllers: the controllers offered there.
        v2_delegated: whether the folder, its cgroup.procs and its cgroup.subtree_control may be written.
        v1_writable: the v1 controllers in whose hierarchy this process may make folders.
        disabled: the controllers that the boot line has taken away.
    """
    v1, unified = _cgroup_hierarchies(root)
    own = _own_cgroups(root)
    layout = ("hybrid" if v1 else "v2") if unified else ("v1" if v1 else "none")
    folder = _own_folder(unified, own.get("", "/"), root) if unified else ""
    controllers = tuple(read_text(folder + "/cgroup.controllers", root).split()) if folder else ()
    needed = ("", "/cgroup.procs", "/cgroup.subtree_control")
    writable = [
        name for name, mount in sorted(v1.items()) if _is_writable(_own_folder(mount, own.get(name, "/"), root), root)
    ]
    return {
        "layout": layout,
        "v2_folder": folder,
        "v2_controllers": controllers,
        "v2_delegated": bool(folder) and all(_is_writable(folder + name, root) for name in needed),
        "v1_writable": tuple(writable),
        "disabled": _boot_words("cgroup_disable", root),
    }


def _boot_words(option: str, root: str) -> tuple[str, ...]:
    """Return the words that an option of the boot line lists."""
    given = [word.partition("=") for word in read_text("/proc/cmdline", root).split()]
    return tuple(one for name, _, value in given if name == option for one in value.split(",") if one)


def _cgroup_hierarchies(root: str) -> tuple[dict[str, tuple[str, str]], tuple[str, str] | None]:
    """Return the v1 controllers and the v2 hierarchy, each as (root of the mount, mount point)."""
    v1: dict[str, tuple[str, str]] = {}
    unified = None
    for mount_root, point, _options, kind, super_options in _mount_lines(root):
        if kind == "cgroup2":
            unified = unified or (mount_root, point)
        elif kind == "cgroup":
            for name in super_options.split(","):
                if name in {"cpu", "cpuacct", "memory", "pids", "freezer", "blkio", "cpuset", "devices"}:
                    v1[name] = (mount_root, point)
    return v1, unified


def _own_cgroups(root: str) -> dict[str, str]:
    """Return this process's path by controller; the key "" is the v2 hierarchy."""
    found = {}
    for line in read_text("/proc/self/cgroup", root).splitlines():
        _number, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        found.update(dict.fromkeys(names.split(","), path))
    return found


def _own_folder(mount: tuple[str, str], own: str, root: str) -> str:
    """Return the folder of a cgroup path below a mount; the mount point where the path lies outside it."""
    mount_root, point = mount
    inside = own[len(mount_root) :] if mount_root != "/" and own.startswith(mount_root) else own
    folder = (point.rstrip("/") + "/" + inside.lstrip("/")).rstrip("/")
    return point if inside.startswith("/..") or not os.path.isdir(_below(root, folder)) else folder


def _is_writable(path: str, root: str) -> bool:
    return os.access(_below(root, path), os.W_OK)


def core_pattern(root: str = "/") -> str:
    """Return where core dumps go; a leading "|" names a program that the kernel runs as root on the host."""
    return read_text("/proc/sys/kernel/core_pattern", root)


def devices(root: str = "/") -> dict[str, tuple[str, ...]]:
    """Return the accelerator nodes present by family (nvidia, dri, kfd, accel), without empty families."""
    top = [f"/dev/{name}" for name in _names("/dev", root)]
    found = {
        "nvidia": [n for n in top if n.startswith("/dev/nvidia") and not os.path.isdir(_below(root, n))]
        + [f"/dev/nvidia-caps/{name}" for name in _names("/dev/nvidia-caps", root)],
        "dri": [f"/dev/dri/{name}" for name in _names("/dev/dri", root) if name.startswith(("card", "render"))],
        "kfd": [n for n in top if n == "/dev/kfd"],
        "accel": [f"/dev/accel/{name}" for name in _names("/dev/accel", root)],
    }
    return {family: tuple(nodes) for family, nodes in found.items() if nodes}


def kvm_state(root: str = "/") -> dict[str, bool]:
    """Return hints on KVM: present, accessible, hardware (vmx or svm), pvm.

    Hints only: /dev/kvm can be there and useless (with `pvm`, stock guest kernels do not boot), so a wall
    that needs it boots something with a deadline.
    """
    flags = ""
    for line in read_text("/proc/cpuinfo", root).splitlines():
        if line.startswith("flags"):
            flags = f" {line.partition(':')[2]} "
            break
    return {
        "present": _exists("/dev/kvm", root),
        "accessible": os.access(_below(root, "/dev/kvm"), os.R_OK | os.W_OK),
        "hardware": " vmx " in flags or " svm " in flags,
        "pvm": _exists("/sys/module/kvm_pvm", root),
    }
