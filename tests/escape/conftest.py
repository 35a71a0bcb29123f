"""The driver of the escape corpus: one strict sandbox, one host that can be attacked, every act in few executions."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import subprocess
import sys
import sysconfig
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import kavach
from kavach.linux.syscalls import numbers

sys.path.insert(0, str(Path(__file__).parent))
from escape_case import HOST, JAIL, ROOT, Case, load_cases, sample

if TYPE_CHECKING:
    from collections.abc import Iterator

PYTHON = "/usr/bin/python3"
PRELUDE = (Path(__file__).parent / "prelude.py").read_text(encoding="utf-8")
NESTED_DRIVER = (Path(__file__).parent / "nested_driver.py").read_text(encoding="utf-8")
CANARY = "KAVACH_ESCAPE_CANARY"
UNSHARE = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "--net", "--uts", "--ipc", "--kill-child"]


class Host:
    """What a host has that a sandbox must not reach: live listeners, processes, files, keys, memory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.secret = f"secret-{secrets.token_hex(8)}"
        self._closing = contextlib.ExitStack()
        self.folder.chmod(0o755)
        self.file = folder / "secret"
        self.file.write_text(self.secret, encoding="ascii")
        environment = {**os.environ, CANARY: self.secret}
        argument = [PYTHON, "-c", "import time; time.sleep(600)", self.secret]
        self.victim = subprocess.Popen(argument, env=environment, start_new_session=True, stdin=subprocess.DEVNULL)
        self.shared = Path("/dev/shm") / f"kavach-escape-{os.getpid()}"
        self.shared.write_text(self.secret, encoding="ascii")
        self.tcp = self._listener(socket.AF_INET, "127.0.0.1")
        self.tcp_everywhere = self._listener(socket.AF_INET, "0.0.0.0")
        self.tcp6 = self._listener(socket.AF_INET6, "::1")
        self.udp = self._echo(socket.AF_INET, ("127.0.0.1", 0)).getsockname()[1]
        self.abstract = f"kavach-escape-{secrets.token_hex(4)}"
        stream = self._keep(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        stream.bind("\0" + self.abstract)
        stream.listen(64)
        self._keep(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)).bind("\0" + self.abstract + "-datagram")
        self.path = str(folder / "socket")
        pathname = self._keep(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        pathname.bind(self.path)
        pathname.listen(64)

    def _keep(self, handle: socket.socket) -> socket.socket:
        return self._closing.enter_context(contextlib.closing(handle))

    def _listener(self, family: int, address: str) -> int:
        handle = self._keep(socket.socket(family, socket.SOCK_STREAM))
        handle.bind((address, 0))
        handle.listen(64)
        return int(handle.getsockname()[1])

    def _echo(self, family: int, address: tuple[str, int]) -> socket.socket:
        handle = self._keep(socket.socket(family, socket.SOCK_DGRAM))
        handle.bind(address)

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    content, sender = handle.recvfrom(2048)
                    if content == b"end":
                        return
                    handle.sendto(content, sender)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        self._closing.callback(thread.join)
        self._closing.callback(_end_echo, family, handle.getsockname())
        return handle

    def facts(self, side: str) -> dict[str, Any]:
        """Return what an attacker knows."""
        return {
            "side": side,
            "nr": numbers(os.uname().machine),
            "victim": self.victim.pid,
            "pids": [os.getpid(), self.victim.pid, os.getppid()],
            "secret": self.secret,
            "secret_file": str(self.file),
            "folder": str(self.folder),
            "shared": str(self.shared),
            "canary": CANARY,
            "tcp": self.tcp,
            "tcp_everywhere": self.tcp_everywhere,
            "tcp6": self.tcp6,
            "udp": self.udp,
            "abstract": self.abstract,
            "socket": self.path,
            "hostname": os.uname().nodename,
            "cwd": os.getcwd(),
            "user": _name_of_user(),
            "system": "/usr",
            "file": "/usr/bin/env",
            "root": "/",
            "base": "/tmp",
        }

    def close(self) -> None:
        """Leave nothing."""
        self.victim.kill()
        self.victim.wait()
        self.shared.unlink()
        self._closing.close()


def _end_echo(family: int, address: tuple[str, int]) -> None:
    with socket.socket(family, socket.SOCK_DGRAM) as one:
        one.sendto(b"end", address)


def _name_of_user() -> str:
    import pwd

    return pwd.getpwuid(os.geteuid()).pw_name


@pytest.fixture(scope="session")
def host() -> Iterator[Host]:
    """Return a host worth attacking, outside every view."""
    with tempfile.TemporaryDirectory(prefix="kavach-escape-", dir="/var/tmp") as folder:
        made = Host(Path(folder))
        try:
            yield made
        finally:
            made.close()


@contextlib.contextmanager
def leaking(host: Host) -> Iterator[None]:
    """Let this process hold what must not be inherited: a secret variable, a descriptor, an open file mode mask."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CANARY, host.secret)
        before = os.umask(0)
        leak = os.open(host.file, os.O_RDONLY)
        os.set_inheritable(leak, True)
        try:
            yield
        finally:
            os.close(leak)
            os.umask(before)


@pytest.fixture(scope="session")
def strict(host: Host) -> Iterator[kavach.Sandbox]:
    """Return the one strict sandbox that all acts of the corpus run in."""
    with leaking(host), kavach.Sandbox(policy="strict") as sandbox:
        yield sandbox


def attack_inside(sandbox: kavach.Sandbox, host: Host, acts: list[str], **more: Any) -> list[str]:
    """Return what became of each act behind the wall."""
    token, text = _message(host, "inside", acts, more)
    result = sandbox.exec([PYTHON, "-I", "-S", "-c", PRELUDE], stdin=text, timeout_s=120)
    assert result.exit_code == 0, (result.reason, result.exit_code, result.stderr[-2000:])
    return _outcomes(result.stdout, token)


def attack_outside(host: Host, control: str, acts: list[str], **more: Any) -> list[str]:
    """Return what became of each act without the wall."""
    side = "host" if control == HOST else "jail"
    with tempfile.TemporaryDirectory(prefix="kavach-act-", dir="/tmp") as base:
        return _attack_outside(host, control, *_message(host, side, acts, {**more, "base": base}))


def _attack_outside(host: Host, control: str, token: str, text: str) -> list[str]:
    prefix = [] if control == HOST else UNSHARE if os.geteuid() == 0 else [*UNSHARE, "--map-root-user"]
    leak = os.open(host.file, os.O_RDONLY)
    try:
        done = subprocess.run(
            [*prefix, PYTHON, "-I", "-S", "-c", PRELUDE, host.secret],
            input=text.encode(),
            capture_output=True,
            timeout=120,
            env={**os.environ, CANARY: host.secret},
            pass_fds=(leak,),
        )
    finally:
        os.close(leak)
    assert done.returncode == 0, (done.returncode, done.stderr[-2000:])
    return _outcomes(done.stdout.decode(), token)


def _message(host: Host, side: str, acts: list[str], more: dict[str, Any]) -> tuple[str, str]:
    token = secrets.token_hex(8)
    return token, json.dumps({"facts": {**host.facts(side), **more}, "acts": acts, "token": token})


def _outcomes(output: str | bytes, token: str) -> list[str]:
    text = output.decode() if isinstance(output, bytes) else output
    found: list[str] = json.loads(text.rpartition(token)[2])
    return found


@pytest.fixture(scope="session")
def inside(strict: kavach.Sandbox, host: Host) -> dict[str, str]:
    """Return the outcome of every act behind the wall, by name."""
    return _run_all(load_cases(), lambda acts: attack_inside(strict, host, acts))


@pytest.fixture(scope="session")
def outside(host: Host) -> dict[str, str]:
    """Return the outcome of every act's control that can run here, by name."""
    outcomes: dict[str, str] = {}
    for control in (HOST, JAIL, ROOT):
        if control == ROOT and os.geteuid() != 0:
            continue
        cases = [case for case in load_cases() if case.control == control]
        outcomes |= _run_all(cases, lambda acts, control=control: attack_outside(host, control, acts))
    return outcomes


def _run_all(cases: list[Case], attack: Any) -> dict[str, str]:
    together = [case for case in cases if not case.alone]
    outcomes = dict(zip((case.name for case in together), attack([case.act for case in together]), strict=True))
    for case in cases:
        if case.alone:
            outcomes[case.name] = attack([case.act])[0]
    return outcomes


@pytest.fixture(scope="session")
def innermost(host: Host) -> dict[int, dict[str, str]]:
    """Return, for depth 2 and 3, the outcome of the acts in the innermost of so many sandboxes, by name."""
    cases = load_cases()
    return {2: _attack_nested(host, 2, cases), 3: _attack_nested(host, 3, sample(cases))}


def _attack_nested(host: Host, depth: int, cases: list[Case]) -> dict[str, str]:
    batches = [[case for case in cases if not case.alone], *([case] for case in cases if case.alone)]
    messages = [_message(host, "inside", [case.act for case in batch], {}) for batch in batches]
    source = os.path.dirname(os.path.dirname(os.path.abspath(kavach.__file__)))
    folders = [source, sysconfig.get_path("purelib"), *os.environ.get("PYTHONPATH", "").split(":")]
    path = [one for one in dict.fromkeys(folders) if one and os.path.isdir(one)]
    told = {"path": path, "depth": depth, "texts": [text for _, text in messages], "python": PYTHON}
    told |= {"prelude": PRELUDE, "driver": NESTED_DRIVER}
    policy = kavach.SandboxPolicy.strict(python="caller", execute=path, nested=True, max_pids=None)
    with leaking(host):
        argv = [sys.executable, "-B", "-c", NESTED_DRIVER]
        result = kavach.run(argv, policy=policy, stdin=json.dumps(told), timeout_s=300)
    assert result.exit_code == 0, (result.reason, result.exit_code, result.stderr[-4000:])
    outcomes: dict[str, str] = {}
    for batch, (token, _), said in zip(batches, messages, json.loads(result.stdout), strict=True):
        assert said[:2] == ["exit", 0], said
        outcomes |= dict(zip((case.name for case in batch), _outcomes(said[2], token), strict=True))
    return outcomes
