"""What a hostile review of the process wall found: each test is the smallest act that once went wrong."""

from __future__ import annotations

import contextlib
import os
import resource
import threading
from typing import TYPE_CHECKING

import pytest

import kavach
from kavach.backends import process_run
from kavach.credentials import CredentialProxy
from kavach.errors import KavachError, LaunchError
from kavach.launcher import client
from kavach.launcher.client import Launcher, Request
from kavach.launcher.prepared import StepError
from kavach.model.secret import Fd, File, FromFile, SecretRef

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.needs("linux", "userns", "seccomp")


@pytest.fixture
def secret_file(tmp_path: Path) -> str:
    path = tmp_path / "secret"
    path.write_text("value")
    path.chmod(0o600)
    return str(path)


def test_writer_of_an_input_that_nobody_reads_does_not_keep_the_ending_back() -> None:
    with kavach.Sandbox(policy="basic") as sandbox:
        process = sandbox.spawn(["sh", "-c", "exec 3<&0; sleep 600 <&3 & exit 0"], timeout_s=10)

        def write() -> None:
            with contextlib.suppress(KavachError, BrokenPipeError):
                process.stdin.write(b"x" * (1 << 22))

        writer = threading.Thread(target=write, daemon=True)
        writer.start()
        assert process.wait(8).exit_code == 0
        writer.join(8)
        assert not writer.is_alive()


def test_input_larger_than_a_pipe_arrives_whole() -> None:
    with kavach.Sandbox(policy="basic") as sandbox:
        process = sandbox.spawn(["wc", "-c"], timeout_s=20)
        assert process.stdin.write(b"x" * 300_001) == 300_001
        process.close_stdin()
        assert process.wait(20).stdout.strip() == "300001"


def test_reading_a_sparse_file_of_any_size_does_not_fill_the_hosts_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_run, "MAXIMUM_FILE_BYTES", 1 << 20)
    with kavach.Sandbox(policy="basic") as sandbox:
        assert sandbox.exec(["truncate", "-s", "1M", "/workspace/fits"]).ok
        assert sandbox.exec(["truncate", "-s", "1G", "/workspace/large"]).ok
        assert len(sandbox.files.read("/workspace/fits")) == 1 << 20
        with pytest.raises(KavachError, match="output_limit"):
            sandbox.files.read("/workspace/large")


def test_secret_file_is_delivered_to_every_command_of_a_sandbox(secret_file: str) -> None:
    reference = SecretRef("key", File("/run/secrets/key"), FromFile(secret_file))
    with kavach.Sandbox(policy="basic", secrets=[reference], credentials=CredentialProxy()) as sandbox:
        for _ in range(2):
            assert sandbox.exec(["cat", "/run/secrets/key"]).stdout == "value"


def test_link_planted_where_a_secret_goes_is_replaced_and_not_followed(secret_file: str) -> None:
    reference = SecretRef("key", File("/run/secrets/key"), FromFile(secret_file))
    with kavach.Sandbox(policy="basic", secrets=[reference], credentials=CredentialProxy()) as sandbox:
        assert sandbox.exec(["ln", "-sf", "/workspace/stolen", "/run/secrets/key"]).ok
        assert sandbox.exec(["cat", "/run/secrets/key"]).stdout == "value"
        assert not sandbox.exec(["test", "-e", "/workspace/stolen"]).ok


def test_more_descriptors_than_the_limit_lets_in_are_named_as_the_reason(secret_file: str) -> None:
    references = [SecretRef(f"key{number}", Fd(number), FromFile(secret_file)) for number in range(3, 15)]
    policy = kavach.SandboxPolicy(open_files=8)
    with pytest.raises(LaunchError, match="Too many open files") as caught:
        kavach.run(["true"], policy=policy, secrets=references, credentials=CredentialProxy())
    assert caught.value.step == "descriptors"


def test_launcher_without_a_free_descriptor_refuses_and_lives_on() -> None:
    launcher = Launcher()
    launcher.await_start()
    try:
        taken = {int(name) for name in os.listdir(f"/proc/{launcher.pid}/fd")}
        used = min(set(range(len(taken) + 1)) - taken)
        _, hard = resource.prlimit(launcher.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(launcher.pid, resource.RLIMIT_NOFILE, (used, hard))
        request = Request(flags=0, maps=(b"", b"", 0), sources=(), plan=((), (), (), 1))
        with pytest.raises((LaunchError, StepError)):
            launcher.create(request)
        assert launcher.is_alive()
        resource.prlimit(launcher.pid, resource.RLIMIT_NOFILE, (used + 20, hard))
        standing = launcher.create(request)
        standing.end_politely()
        assert standing.wait_gone(client.END_TIMEOUT_S)
        standing.release()
    finally:
        launcher.close()


@pytest.mark.needs("landlock")
def test_denied_link_covers_what_it_leads_to(tmp_path: Path) -> None:
    shown = tmp_path / "shown"
    shown.mkdir()
    shown.chmod(0o755)
    (shown / "real").write_text("hidden")
    (shown / "other").write_text("seen")
    (shown / "link").symlink_to("real")
    folder = str(shown)
    policy = kavach.SandboxPolicy(read=[kavach.PathRule(folder)], deny=[kavach.PathRule(f"{folder}/link")])
    with kavach.Sandbox(policy=policy) as sandbox:
        assert sandbox.exec(["cat", f"{folder}/other"]).stdout == "seen"
        for name in ("link", "real"):
            assert not sandbox.exec(["cat", f"{folder}/{name}"]).ok, name


def test_command_that_cannot_be_let_go_leaves_no_descriptor_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    with kavach.Sandbox(policy="basic") as sandbox:
        assert sandbox.exec(["true"]).ok
        before = sorted(os.listdir("/proc/self/fd"))

        def refuse(*_: object) -> int:
            raise OSError(28, "no memory for a copy of the input")

        monkeypatch.setattr(process_run, "_stdin", refuse)
        with pytest.raises(OSError, match="no memory"):
            sandbox.exec(["true"])
        assert sorted(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("policy", ["basic", "strict"])
def test_deadline_while_paused_ends_the_command_and_not_the_sandbox(policy: str) -> None:
    with kavach.Sandbox(policy=policy) as sandbox:
        sandbox.files.write("/workspace/kept", b"kept")
        process = sandbox.spawn(["sleep", "600"], timeout_s=0.2)
        sandbox.pause()
        result = process.wait(8)
        sandbox.resume()
        assert result.timed_out
        assert sandbox.processes() == ()
        assert sandbox.files.read("/workspace/kept") == b"kept"


@pytest.mark.parametrize("policy", ["basic", "strict"])
def test_init_outlives_every_signal_that_a_command_can_send(policy: str) -> None:
    flood = "import os\nfor n in range(1, 65):\n for _ in range(20):\n  try: os.kill(1, n)\n  except OSError: pass"
    with kavach.Sandbox(policy=policy) as sandbox:
        assert sandbox.exec(["python3", "-c", flood]).ok
        assert sandbox.exec(["true"]).ok
