"""Two sandboxes side by side, what is planted for the host to step on, and sockets in folders that the host shows."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import kavach
from kavach.linux.bpf import interpret
from kavach.linux.syscalls import numbers
from kavach.policy.seccomp_rules import compile_rules, load_profile

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.needs("linux", "x86_64", "userns", "seccomp", "landlock:6")
PYTHON = ["/usr/bin/python3", "-I", "-S", "-c"]
ALLOWED = 0x7FFF0000  # SECCOMP_RET_ALLOW, linux/seccomp.h
X86_64, I386 = 0xC000003E, 0x40000003  # AUDIT_ARCH_*, linux/audit.h
CONNECT = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.settimeout(2); s.connect(sys.argv[1]); print('in')"


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[kavach.Sandbox, kavach.Sandbox]]:
    """Return two strict sandboxes that stand at the same time."""
    with kavach.Sandbox(policy="strict") as one, kavach.Sandbox(policy="strict") as two:
        yield one, two


@pytest.fixture
def folder() -> Iterator[Path]:
    """Return a folder of the host whose path is short enough for a socket, and where setuid bits count."""
    with tempfile.TemporaryDirectory(prefix="kavach-n-", dir="/var/tmp") as made:
        Path(made).chmod(0o755)
        yield Path(made)


@pytest.mark.parametrize("place", ["/tmp", "/dev/shm", "/workspace"])
def test_a_file_of_one_sandbox_is_not_in_another(pair: tuple[kavach.Sandbox, kavach.Sandbox], place: str) -> None:
    one, two = pair
    assert one.shell(f"echo secret > {place}/planted").ok
    assert one.exec(["cat", f"{place}/planted"]).stdout.strip() in {"secret", b"secret"}
    assert not two.exec(["cat", f"{place}/planted"]).ok


def _reach(sandbox: kavach.Sandbox, code: str) -> bool:
    return sandbox.exec([*PYTHON, code], timeout_s=20).exit_code == 0


@pytest.mark.parametrize(
    ("serve", "reach"),
    [
        (
            "import socket, time\ns = socket.socket(socket.AF_UNIX); s.bind('\\0kavach-neighbour'); s.listen(); print('up', flush=True); time.sleep(30)",
            "import socket\ns = socket.socket(socket.AF_UNIX); s.connect('\\0kavach-neighbour')",
        ),
        (
            "import socket, time\ns = socket.create_server(('127.0.0.1', 7117)); print('up', flush=True); time.sleep(30)",
            "import socket\nsocket.create_connection(('127.0.0.1', 7117), timeout=2)",
        ),
        (
            "import socket, time\ns = socket.socket(socket.AF_UNIX); s.bind('/tmp/neighbour'); s.listen(); print('up', flush=True); time.sleep(30)",
            "import socket\ns = socket.socket(socket.AF_UNIX); s.connect('/tmp/neighbour')",
        ),
        (
            "import time\nprint('up', flush=True); time.sleep(30)",
            (
                "import os\ndef there(pid):\n    try:\n        os.getpgid(pid)\n        return True\n    except OSError as error:\n        return False\n"
                "raise SystemExit(not any(there(pid) for pid in range(2, 70000) if pid != os.getpid()))"
            ),
        ),
    ],
    ids=["an abstract name", "a TCP listener", "a pathname socket", "its processes' numbers"],
)
def test_of_one_sandbox_another_cannot_reach(
    pair: tuple[kavach.Sandbox, kavach.Sandbox], serve: str, reach: str, request: pytest.FixtureRequest
) -> None:
    one, two = pair
    process = one.spawn([*PYTHON, serve])
    try:
        assert next(iter(process.stream())).startswith(b"up")
        if "abstract" in request.node.name:
            # Landlock's scope keeps commands of one sandbox apart as well: the control is the serving side's own view.
            assert _reach(one, "raise SystemExit('kavach-neighbour' not in open('/proc/net/unix').read())")
        else:
            assert _reach(one, reach)
        assert not _reach(two, reach)
    finally:
        process.kill()
        process.wait()


@pytest.mark.root
def test_two_sandboxes_of_root_run_under_different_ids_and_neither_is_root(
    pair: tuple[kavach.Sandbox, kavach.Sandbox],
) -> None:
    seen = []
    for sandbox in pair:
        process = sandbox.spawn([*PYTHON, "import time; time.sleep(30)"])
        seen.append({os.stat(f"/proc/{pid}").st_uid for pid in sandbox.processes()})
        process.kill()
        process.wait()
    assert seen[0]
    assert seen[1]
    assert not seen[0] & seen[1]
    assert 0 not in seen[0] | seen[1]


def test_killing_everything_ends_neither_init_nor_the_neighbour_nor_the_host() -> None:
    host = subprocess.Popen(["sleep", "60"])
    try:
        with kavach.Sandbox(policy="strict") as one, kavach.Sandbox(policy="strict") as two:
            mine, other = one.spawn(["sleep", "60"]), two.spawn(["sleep", "60"])
            one.exec([*PYTHON, "import os\ntry:\n    os.kill(-1, 9)\nexcept OSError:\n    pass"])
            assert one.exec(["true"]).ok
            assert host.poll() is None
            assert other.poll() is None
            for process in (mine, other):
                process.kill()
                process.wait()
    finally:
        host.kill()
        host.wait()


@pytest.mark.parametrize("target", ["/etc/shadow", "/etc/passwd", "/proc/1/environ", "/dev/zero"])
def test_a_planted_link_is_not_followed_when_the_host_reads_files(target: str) -> None:
    with kavach.Sandbox(policy="strict") as sandbox:
        assert sandbox.exec(["ln", "-s", target, "/workspace/planted"]).ok
        assert sandbox.exec(["readlink", "/workspace/planted"]).ok  # the control: it is there
        with pytest.raises(kavach.KavachError):
            sandbox.files.read("/workspace/planted")


def test_a_planted_link_in_the_middle_leads_the_host_nowhere_outside(folder: Path) -> None:
    work, secret = folder / "work", folder / "outside"
    work.mkdir(mode=0o777)
    secret.mkdir()
    (secret / "file").write_text("host", encoding="ascii")
    (work / "link").symlink_to(secret)
    assert (work / "link" / "file").read_text(encoding="ascii") == "host"  # the control: outside it leads there
    with kavach.Sandbox(policy="strict", workdir=str(work)) as sandbox:
        for act in (sandbox.files.read, sandbox.files.remove, lambda path: sandbox.files.write(path, b"x")):
            with pytest.raises(kavach.KavachError):
                act("/workspace/link/file")
    assert (secret / "file").read_text(encoding="ascii") == "host"


def test_a_planted_pipe_does_not_hang_the_host() -> None:
    with kavach.Sandbox(policy="strict") as sandbox:
        assert sandbox.exec(["mkfifo", "/workspace/pipe"]).ok
        started = time.monotonic()
        with pytest.raises(kavach.KavachError):
            sandbox.files.read("/workspace/pipe")
        assert time.monotonic() - started < 10


@pytest.mark.root
def test_a_setuid_copy_in_the_workdir_gains_nothing(folder: Path) -> None:
    copy = folder / "planted"
    shutil.copy("/usr/bin/id", copy)
    copy.chmod(0o4755)
    control = subprocess.run([copy, "-u"], user=65534, group=65534, extra_groups=[], capture_output=True, check=True)
    assert control.stdout.strip() == b"0"
    with kavach.Sandbox(policy="strict", workdir=str(folder)) as sandbox:
        assert sandbox.exec(["/workspace/planted", "-u"]).stdout.strip() in {"1000", b"1000"}


PLANT = """
import os, sys
def by_chmod():
    os.close(os.open("planted", os.O_CREAT | os.O_WRONLY, 0o755))
    os.chmod("planted", 0o6755)
def by_fchmod():
    os.fchmod(os.open("planted", os.O_CREAT | os.O_WRONLY, 0o755), 0o6755)
def by_open():
    os.umask(0)
    os.open("planted", os.O_CREAT | os.O_WRONLY, 0o6755)
def by_mknod():
    os.umask(0)
    os.mknod("planted", 0o106755)
def by_openat2():
    import ctypes, struct
    how = ctypes.create_string_buffer(struct.pack("=3Q", os.O_CREAT | os.O_WRONLY, 0o6755, 0))
    os.umask(0)
    assert ctypes.CDLL(None).syscall(437, -100, b"planted", how, 24) >= 0
globals()[sys.argv[1]]()
"""


@pytest.mark.parametrize("preset", ["basic", "strict"])
@pytest.mark.parametrize("way", ["by_chmod", "by_fchmod", "by_open", "by_mknod", "by_openat2"])
def test_a_command_cannot_plant_a_setuid_program_for_the_hosts_users(folder: Path, way: str, preset: str) -> None:
    control = folder / "control"
    control.mkdir()
    subprocess.run([*PYTHON, PLANT, way], cwd=control, check=True)
    assert (control / "planted").stat().st_mode & 0o6000 == 0o6000
    work = folder / "work"
    work.mkdir()
    with kavach.Sandbox(policy=preset, workdir=str(work)) as sandbox:
        assert sandbox.exec([*PYTHON, PLANT, way]).exit_code == 1
    planted = work / "planted"
    assert not planted.exists() or planted.stat().st_mode & 0o6000 == 0


@pytest.mark.parametrize("way", ["read", "workdir"])
@pytest.mark.parametrize("hidden", [False, True], ids=["in plain sight", "in a folder that cannot be listed"])
def test_a_live_socket_in_a_shown_folder_cannot_be_connected_to(folder: Path, way: str, *, hidden: bool) -> None:
    place = folder / "inner"
    place.mkdir()
    with closing(socket.socket(socket.AF_UNIX)) as listener:
        listener.bind(str(place / "s"))
        (place / "s").chmod(0o777)
        listener.listen()
        control = subprocess.run([*PYTHON, CONNECT, str(place / "s")], capture_output=True, check=True)
        assert control.stdout.strip() == b"in"
        place.chmod(0o111 if hidden else 0o755)
        try:
            shown, options = (
                ("/workspace", {"policy": "strict", "workdir": str(folder)})
                if way == "workdir"
                else (str(folder), {"policy": kavach.SandboxPolicy(preset="strict", read=(str(folder),))})
            )
            with kavach.Sandbox(**options) as sandbox:
                code = (
                    f"import os\ntry:\n    os.chmod({shown!r} + '/inner', 0o755)\nexcept OSError:\n    pass\n{CONNECT}"
                )
                result = sandbox.exec([*PYTHON, code, f"{shown}/inner/s"])
        finally:
            place.chmod(0o755)
    assert result.exit_code == 1
    assert not result.stdout


@pytest.mark.parametrize(
    ("call", "arch"),
    [(0x40000000 | 39, X86_64), (0x40000000 | 1, X86_64), (20, I386), (39, I386), (4, I386)],
    ids=["x32 getpid", "x32 write", "i386 getpid", "i386 mkdir", "i386 write"],
)
def test_a_call_by_another_gate_is_refused_by_the_filter_itself(call: int, arch: int) -> None:
    program = compile_rules(load_profile("strict"), "x86_64")
    assert interpret(program, numbers("x86_64")["getpid"], X86_64, (0,) * 6) == ALLOWED
    assert interpret(program, call, arch, (0,) * 6) != ALLOWED
