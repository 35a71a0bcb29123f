"""What there is to know about a host, read once, so that judging it is pure.

Guarantees: reading changes nothing; what only an attempt can tell is tried in a victim process with a
deadline. Does not: judge (`diagnosis` does). May be used by: `doctor` and its tests.
"""

from __future__ import annotations

import msgspec

from kavach import runtimes
from kavach.errors import KavachError

ATTEMPT_TIMEOUT_S = 10.0


class CgroupFacts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Control groups as `kavach.linux.host.cgroup_state` reads them."""

    layout: str
    v2_folder: str = ""
    v2_controllers: tuple[str, ...] = ()
    v2_delegated: bool = False
    v1_writable: tuple[str, ...] = ()
    disabled: tuple[str, ...] = ()


class HostFiles(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the host's files say, as `kavach.linux.host` reads them."""

    release: str
    version: tuple[int, int]
    emulated_by: str
    container: str
    is_privileged: bool
    in_user_namespace: bool
    namespaces: tuple[str, ...]
    sysctls: dict[str, int]
    seccomp_mode: int | None
    security_modules: tuple[str, ...]
    ptrace_scope: int | None
    core_pattern: str
    masked_proc: tuple[str, ...]
    cgroup: CgroupFacts
    devices: dict[str, tuple[str, ...]]
    kvm: dict[str, bool]


class KernelAnswers(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the running kernel answered; `attempt` is (failed stage, errno) of `attempt_namespaces`.

    `refused` holds the kinds of namespaces that it could not make below a user namespace of its own.
    """

    landlock_claimed: int
    landlock_errno: int
    landlock_rights: tuple[int, int, int]
    seccomp_actions: tuple[str, ...]
    calls: dict[str, str]
    attempt: tuple[str, int]
    refused: tuple[str, ...] = ()


class HostFacts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All that `diagnose` looks at."""

    machine: str
    files: HostFiles
    kernel: KernelAnswers


def read_files(root: str = "/") -> HostFiles:
    """Return what the files below `root` say of a host; only reads.

    Args:
        root: the folder that stands for "/".
    """
    from kavach.linux import host

    status = host.process_status(root)
    release = host.kernel_release(root)
    return HostFiles(
        release=release,
        version=host.kernel_version(release),
        emulated_by=host.emulated_by(root),
        container=host.container_kind(root),
        is_privileged=host.has_capability(host.CAP_SYS_ADMIN, status),
        in_user_namespace=host.is_in_user_namespace(root),
        namespaces=host.namespace_kinds(root),
        sysctls=host.namespace_sysctls(root),
        seccomp_mode=host.outer_seccomp(status),
        security_modules=host.security_modules(root),
        ptrace_scope=host.sysctl("kernel.yama.ptrace_scope", root),
        core_pattern=host.core_pattern(root),
        masked_proc=host.masked_proc_paths(root),
        cgroup=msgspec.convert(host.cgroup_state(root), CgroupFacts),
        devices=host.devices(root),
        kvm=host.kvm_state(root),
    )


def ask_kernel() -> KernelAnswers:
    """Return the running kernel's own answers; namespaces are tried in a victim process."""
    from kavach.linux import host, host_attempt

    claimed, code, rights = host.landlock_state()
    stage, error, refused = host_attempt.attempt_namespaces(_run_victim)
    return KernelAnswers(
        landlock_claimed=claimed,
        landlock_errno=code,
        landlock_rights=rights,
        seccomp_actions=host.seccomp_actions(),
        calls=host.available_calls(),
        attempt=(stage, error),
        refused=refused,
    )


def _run_victim(argv: list[str]) -> tuple[int, bytes]:
    try:
        done = runtimes.run(argv, timeout_s=ATTEMPT_TIMEOUT_S)
    except KavachError:
        return 1, b""
    return done.returncode, done.stdout
