"""A sandbox whose log is lost, closed, full or read-only gives no output, says so, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from kavach import AuditError, Sandbox
from kavach.audit.log import AuditLog
from kavach.audit.receipt import open_receipt
from kavach.audit.signing import PublicKey, SigningKey
from kavach.audit.verify import verify_log

pytestmark = [pytest.mark.needs("linux"), pytest.mark.userns, pytest.mark.seccomp]
KEY = b"k" * 32
TIMEOUT_S = 90


def left_behind(sandbox):
    """Return the processes of a sandbox that still live, by its id in their environment or arguments."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found += [path] if sandbox.id.encode() in path.read_bytes() else []
        except OSError:
            continue
    return found


@pytest.mark.parametrize("how", ["closed", "log removed", "head removed", "folder removed", "head of another key"])
@pytest.mark.parametrize("way", ["exec", "spawn", "stream", "shell"])
def test_a_log_that_is_lost_while_the_sandbox_runs_lets_nothing_out(tmp_path, how, way):
    folder, marker = tmp_path / "audit", tmp_path / "work"
    folder.mkdir()
    marker.mkdir()
    marker.chmod(0o777)
    log = AuditLog(folder / "audit.log", key=KEY)
    sandbox = Sandbox(audit=log, workdir=str(marker), workdir_rw=True)
    sandbox.__enter__()
    assert sandbox.exec(["echo", "hello"]).stdout == "hello\n"
    group = sandbox.processes()
    _lose(how, log, folder)
    argv = ["sh", "-c", "touch ran; echo hello"]
    ways = {
        "exec": lambda: sandbox.exec(argv),
        "spawn": lambda: sandbox.spawn(argv),
        "stream": lambda: list(sandbox.stream(argv)),
        "shell": lambda: sandbox.shell("touch ran"),
    }
    with pytest.raises(AuditError):
        ways[way]()
    assert not (marker / "ran").exists()
    with pytest.raises(AuditError):
        sandbox.destroy()
    assert str(sandbox.state) == "destroyed"
    assert not [pid for pid in group if os.path.exists(f"/proc/{pid}")]
    assert left_behind(sandbox) == []


def _lose(how, log, folder):
    if how == "closed":
        log.close()
    elif how == "folder removed":
        os.rename(folder, f"{folder}-away")
    elif how == "log removed":
        os.unlink(log.path)
    elif how == "head removed":
        os.unlink(f"{log.path}.head")
    else:
        with AuditLog(folder / "other.log", key=b"x" * 32):
            pass
        with open(folder / "other.log.head", "rb") as other, open(f"{log.path}.head", "r+b") as head:
            head.write(other.read())


def test_a_key_that_cannot_be_had_begins_no_sandbox(tmp_path):
    def lost():
        raise LookupError("the key store says secret things")

    with pytest.raises(AuditError) as caught:
        AuditLog(tmp_path / "audit.log", key_source=lost)
    assert "secret things" not in str(caught.value)
    assert not (tmp_path / "audit.log").exists()


def run_in_small_disk(body, *words, size="96k"):
    mount = f'mount -t tmpfs -o size={size} none "$0" && exec "$@"'
    folder = words[0]
    argv = ["unshare", "-m", "--propagation", "private", "sh", "-c", mount, folder]
    argv += [sys.executable, "-B", "-c", textwrap.dedent(body), *words]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


VICTIM = """
import json, os, sys
import kavach
from kavach.audit.log import AuditLog
folder = sys.argv[1]
log = AuditLog(folder + "/audit.log", key=b"k" * 32)
sandbox = kavach.Sandbox(audit=log)
sandbox.__enter__()
pids = sandbox.processes()
outputs = []
def attempt(act):
    try:
        outputs.append(act().stdout)
        return "went on"
    except kavach.AuditError as error:
        return error.check
"""


@pytest.mark.root
def test_a_disk_that_fills_up_gives_no_output_and_the_chain_verifies_and_goes_on_when_there_is_room(tmp_path):
    body = VICTIM + textwrap.dedent(
        """
        ballast = os.open(folder + "/ballast", os.O_CREAT | os.O_WRONLY)
        try:
            while os.write(ballast, b"x" * 512):
                pass
        except OSError:
            pass
        for _ in range(200):
            checked = attempt(lambda: sandbox.exec(["echo", "hello"]))
            if checked != "went on":
                break
        again = attempt(lambda: sandbox.exec(["echo", "hello"]))
        log.verify()
        os.truncate(folder + "/ballast", 0)
        later = attempt(lambda: sandbox.exec(["echo", "hello"]))
        with open(log.path) as file:
            rows = [json.loads(line) for line in file]
        sandbox.destroy()
        log.verify()
        released = sum(row["event"] == "exec.outcome" and "stdout_bytes" in row["payload"] for row in rows)
        alive = [pid for pid in pids if os.path.exists(f"/proc/{pid}")]
        print(json.dumps([checked, again, later, len(outputs), released, alive]))
        """
    )
    checked, again, later, outputs, released, alive = run_in_small_disk(body, str(tmp_path))
    assert (checked, again, later) == ("write", "write", "went on")
    assert outputs == released
    assert alive == []


def test_two_processes_and_their_sandboxes_write_one_chain(tmp_path):
    body = """
    import sys
    import kavach
    from kavach.audit.log import AuditLog
    with AuditLog(sys.argv[1], key=b"k" * 32) as log:
        for _ in range(5):
            assert kavach.run(["echo", "hello"], audit=log).stdout == "hello\\n"
    """
    argv = [sys.executable, "-B", "-c", textwrap.dedent(body), str(tmp_path / "audit.log")]
    victims = [subprocess.Popen(argv) for _ in range(2)]
    assert [victim.wait(TIMEOUT_S) for victim in victims] == [0, 0]
    assert verify_log(tmp_path / "audit.log", KEY).head.records == 1 + 2 * 5 * 6


def test_arguments_are_on_record_only_where_the_log_was_told_to(tmp_path):
    word = "an-argument-" + "nobody-should-see"
    for name, told in (("a", False), ("b", True)):
        with AuditLog(tmp_path / name, key=KEY, record_argv=told) as log, Sandbox(audit=log) as sandbox:
            sandbox.exec(["true", word], env={"NAME": word}, stdin=word)
        text = (tmp_path / name).read_text(encoding="utf-8")
        assert (word in text) == told
        assert text.count(word) == int(told)


def test_a_receipt_is_verified_by_another_program_with_the_public_key_and_says_what_happened(tmp_path):
    key = SigningKey.generate()
    with AuditLog(tmp_path / "audit.log", key=KEY) as log:
        with Sandbox(audit=log, receipt_key=key, agent_id="agent-1", policy="strict") as sandbox:
            ended = sandbox.exec(["sh", "-c", "echo hello; exit 3"], stdin="in")
        rows = [json.loads(line) for line in Path(log.path).read_text(encoding="utf-8").splitlines()]
    said = open_receipt(ended.receipt.export(), PublicKey.from_pem(key.public.pem()))["predicate"]
    (outcome,) = [row["payload"] for row in rows if row["event"] == "exec.outcome"]
    (intent,) = [row for row in rows if row["event"] == "exec.intent"]
    assert outcome["receipt_sha256"] == ended.receipt.digest
    assert (said["audit"]["intent_serial"], said["audit"]["intent_mac"]) == (intent["serial"], intent["mac"])
    assert said["argv_sha256"] == intent["payload"]["argv_sha256"]
    assert said["policy"]["sha256"] == intent["payload"]["policy_sha256"]
    assert said["policy"]["preset"] == "strict"
    assert (said["ending"]["reason"], said["ending"]["exit_code"]) == ("exit", 3)
    assert said["stdout"]["bytes"] == len(b"hello\n")
    assert said["strength"]["value"] == int(ended.score)
    assert {row["control"] for row in said["enforcement"]["rows"]} == {
        str(row.control) for row in ended.enforcement.rows
    }
    assert ended.to_dict()["receipt"]["sha256"] == ended.receipt.digest


def test_a_withheld_output_has_no_digest_in_its_receipt():
    key = SigningKey.generate()
    text = "ghp_" + "x9K2mQ7vB4nT8wR1pL6s" + "D3fG5hJ0zXcVbNaE"
    with Sandbox(receipt_key=key, policy="strict") as sandbox:
        ended = sandbox.exec(["echo", text])
    said = open_receipt(ended.receipt.export(), key.public)
    assert (said["predicate"]["stdout"], said["predicate"]["gate"]["verdict"]) == (None, "block")
    assert [one["name"] for one in said["subject"]] == ["argv"]


def test_a_sandbox_that_was_forgotten_is_cleared_away(tmp_path):
    with AuditLog(tmp_path / "audit.log", key=KEY) as log:
        sandbox = Sandbox(audit=log)
        sandbox.__enter__()
        pids = sandbox.processes()
        del sandbox
        assert not [pid for pid in pids if os.path.exists(f"/proc/{pid}")]
        log.verify()
