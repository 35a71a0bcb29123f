"""What a test may need from the host, and what a skip costs.

A test says what it needs by marker (`@pytest.mark.root`, `@pytest.mark.landlock(6)`,
`@pytest.mark.needs("gcc", "git")`) or in its body by the fixtures `require` and `lab`. Where the host lacks
it the test is skipped. A feature named in KAVACH_REQUIRE (`landlock:6,userns,root`) turns that skip into a
failure, and every run ends with the list of what never ran here. Probes run the thing; a name on PATH is not
enough.
"""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PROBE_DEADLINE_S = 20
LANDLOCK_CREATE_RULESET = 444  # asm-generic/unistd.h, Linux 5.13; one number on x86-64 and aarch64
NODE_NEW = "node/node_modules/.bin/node"
_never_ran: dict[str, list[str]] = defaultdict(list)

settings.register_profile("kavach", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("kavach"), derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "kavach")


def _runs(*argv: str) -> bool:
    try:
        done = subprocess.run(argv, capture_output=True, timeout=PROBE_DEADLINE_S, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _python(source: str) -> bool:
    return _runs(sys.executable, "-I", "-S", "-c", source)


def _landlock_abi() -> int:
    if platform.system() != "Linux":
        return 0
    version_flag = 1  # LANDLOCK_CREATE_RULESET_VERSION, linux/landlock.h
    abi: int = ctypes.CDLL(None).syscall(LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), version_flag)
    return max(abi, 0)


def _has_userns() -> bool:
    new_user_and_mount = 0x10000000 | 0x00020000  # CLONE_NEWUSER | CLONE_NEWNS, linux/sched.h
    return _python(f"import ctypes, sys; sys.exit(ctypes.CDLL(None).unshare({new_user_and_mount}) != 0)")


def _has_seccomp() -> bool:
    get_seccomp = 21  # PR_GET_SECCOMP, linux/prctl.h: -1 only where the kernel has no filters
    return _python(f"import ctypes, sys; sys.exit(ctypes.CDLL(None).prctl({get_seccomp}, 0, 0, 0, 0) < 0)")


def _has_cgroup1() -> bool:
    names = ("memory", "pids", "cpu")
    return all(os.access(f"/sys/fs/cgroup/{name}/cgroup.procs", os.W_OK) for name in names)


def _has_cgroup2() -> bool:
    try:
        controllers = Path("/sys/fs/cgroup/cgroup.controllers").read_text(encoding="ascii").split()
    except OSError:
        return False
    return {"memory", "pids", "cpu"} <= set(controllers) and os.access("/sys/fs/cgroup", os.W_OK)


def _has_newuidmap() -> bool:
    import pwd

    user = pwd.getpwuid(os.geteuid()).pw_name
    try:
        lines = Path("/etc/subuid").read_text(encoding="utf-8").splitlines()
    except OSError:
        return False
    ranged = os.geteuid() == 0 or any(line.split(":")[0] in {user, str(os.geteuid())} for line in lines)
    return ranged and shutil.which("newuidmap") is not None


def _lab_folder() -> Path:
    return Path(os.environ.get("KAVACH_LAB") or Path.home() / ".cache/kavach-lab")


def _has_vm() -> bool:
    vmrun = os.environ.get("KAVACH_VMRUN") or ""
    return os.access(vmrun, os.X_OK) and _runs("qemu-system-x86_64", "--version")


# feature -> a probe that answers False, True, or the highest version that is there.
FEATURES: dict[str, Callable[[], int]] = {
    "linux": lambda: platform.system() == "Linux",
    "x86_64": lambda: platform.machine() == "x86_64",
    "aarch64": lambda: platform.machine() == "aarch64",
    "root": lambda: os.geteuid() == 0,
    "plain": lambda: os.geteuid() != 0,
    "landlock": _landlock_abi,
    "seccomp": _has_seccomp,
    "userns": _has_userns,
    "cgroup1": _has_cgroup1,
    "cgroup2": _has_cgroup2,
    "newuidmap": _has_newuidmap,
    "vm": _has_vm,
    "vectors": lambda: os.path.isdir(os.environ.get("KAVACH_VECTORS") or "/nonexistent"),
    "bwrap": lambda: _runs("bwrap", "--unshare-all", "--ro-bind", "/", "/", "true"),
    "busybox": lambda: _runs("busybox", "true"),
    "strace": lambda: _runs("strace", "-V"),
    "hyperfine": lambda: _runs("hyperfine", "--version"),
    "gcc": lambda: _runs("gcc", "-E", "-x", "c", "-include", "linux/landlock.h", "/dev/null"),
    "git": lambda: _runs("git", "--version"),
    "redis": lambda: _runs("redis-server", "--version"),
    "chromium": lambda: _runs("chromium", "--version"),
    "node": lambda: _runs("node", "--version"),
    "node-new": lambda: _runs(str(_lab_folder() / NODE_NEW), "--version"),
}
MARKERS = ("root", "plain", "landlock", "seccomp", "userns", "vm", "vectors", "cgroup1", "cgroup2")


@functools.cache
def _found(feature: str) -> int:
    return int(FEATURES[feature]())


def _parse(need: str) -> tuple[str, int]:
    """Return `landlock:6` as ("landlock", 6) and `root` as ("root", 1)."""
    feature, _, version = need.partition(":")
    if feature not in FEATURES:
        raise pytest.UsageError(f"no such host feature: {feature!r}; there are {', '.join(sorted(FEATURES))}")
    return feature, int(version or 1)


@functools.cache
def _required() -> dict[str, int]:
    text = os.environ.get("KAVACH_REQUIRE") or ""
    return dict(_parse(entry.strip()) for entry in text.split(",") if entry.strip())


def _need(node: pytest.Item, *needs: str) -> None:
    """Return when the host has all of it; else skip, or fail where KAVACH_REQUIRE promised it."""
    for need in needs:
        feature, version = _parse(need)
        if _found(feature) >= version:
            continue
        if _required().get(feature, 0) >= version:
            pytest.fail(f"KAVACH_REQUIRE promises {need}, this host has {_found(feature)}", pytrace=False)
        _never_ran[need].append(node.nodeid)
        pytest.skip(f"needs {need}")


@pytest.fixture
def require(request: pytest.FixtureRequest) -> Callable[..., None]:
    """`require("landlock:6", "userns")`: go on only where the host has all of it."""
    return functools.partial(_need, request.node)


@pytest.fixture
def lab(request: pytest.FixtureRequest) -> Callable[[str], str]:
    """`lab("bwrap")`: the path of a tool that works here; installs nothing."""

    def find(tool: str) -> str:
        _need(request.node, tool)
        programs = {"node-new": str(_lab_folder() / NODE_NEW), "redis": shutil.which("redis-server")}
        path = programs.get(tool) or shutil.which(tool)
        assert path is not None, f"{tool} is a host feature, not a program"
        return path

    return find


@pytest.fixture
def vectors(request: pytest.FixtureRequest) -> Path:
    """Return the folder of foreign test data that KAVACH_VECTORS names."""
    _need(request.node, "vectors")
    return Path(os.environ["KAVACH_VECTORS"])


@pytest.fixture
def vmrun(request: pytest.FixtureRequest) -> str:
    """Return the program that runs a command inside a stock kernel."""
    _need(request.node, "vm")
    return os.environ["KAVACH_VMRUN"]


class MachineTree(NamedTuple):
    """What a stock kernel's machine can read: it sees this root file system, but its own /tmp."""

    repository: Path
    python: str
    packages: tuple[str, ...]


@pytest.fixture(scope="session")
def machine_tree() -> Iterator[MachineTree]:
    """Return a copy of the repository and its packages that every user of the machine can read, and root's Python."""
    repository, packages = Path(__file__).parents[1], sysconfig.get_path("purelib")
    given = [one for one in os.environ.get("PYTHONPATH", "").split(":") if one and not one.endswith("/src")]
    with tempfile.TemporaryDirectory(prefix="kavach-machine-", dir="/var/tmp") as folder:
        copy = Path(folder)
        copy.chmod(0o755)
        for name in ("src", "tests"):
            shutil.copytree(repository / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(repository / "pyproject.toml", copy)
        heavy = shutil.ignore_patterns("__pycache__", "mypy*", "pyright*", "ruff*", "pip", "*.pth")
        for number, one in enumerate((*given, packages)):
            shutil.copytree(one, copy / f"packages{number}", ignore=heavy)
        copies = tuple(str(copy / f"packages{number}") for number in range(len(given) + 1))
        yield MachineTree(copy, os.path.realpath(sys.executable), (str(copy / "src"), *copies))


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs(*features): skip where the host lacks one of them")
    for name in MARKERS:
        config.addinivalue_line("markers", f"{name}: needs that host feature; landlock(6): that ABI")
    _required()  # a misspelt feature stops the run here, before a promise is silently kept by nothing


def _marked(item: pytest.Item) -> Iterator[str]:
    for mark in item.iter_markers("needs"):
        yield from mark.args
    for name in MARKERS:
        for mark in item.iter_markers(name):
            yield f"{name}:{mark.args[0]}" if mark.args else name


def pytest_runtest_setup(item: pytest.Item) -> None:
    _need(item, *_marked(item))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = {report.nodeid for report in terminalreporter.stats.get("skipped", [])}
    named = {node for nodes in _never_ran.values() for node in nodes}
    rows = [*sorted(_never_ran.items()), ("(no feature named)", sorted(skipped - named))]
    if not any(nodes for _, nodes in rows):
        return
    terminalreporter.section("never ran here")
    for need, nodes in rows:
        for node in sorted(nodes):
            terminalreporter.line(f"{need}: {node}")
