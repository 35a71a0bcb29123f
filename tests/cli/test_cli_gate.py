"""What leaves through the command line, what it keeps of it, and what happens where nothing can be kept."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys

import pytest
from command_line import DEADLINE_S, environment, kavach, start

from kavach.cli.state import find_state
from kavach.errors import AuditError, ConfigError, KavachError

TOKEN = "gh" + "p_" + "aB3dE5gH7jK9mN1pQ2rS4tU6vW8xY0zA1bC3"  # made up, and put together here so that no file holds it
CARD = "4111 1111 " + "1111 1111"  # the issuers' own example
RUNS = pytest.mark.needs("linux", "userns")


def modes(folder):
    return {str(path.relative_to(folder)): stat.S_IMODE(path.lstat().st_mode) for path in sorted(folder.rglob("*"))}


def events(*words):
    done = kavach("audit", "show", "--json", *words)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture
def quarantined(own_state):
    """Run what strict quarantines, and return its id."""
    done = kavach("run", "--policy", "strict", "--json", "--", "echo", f"card {CARD}")
    result = json.loads(done.stdout)
    assert (done.returncode, result["verdict"], result["stdout"]) == (120, "quarantine", "")
    return result["quarantine_id"]


# --- scan


def test_scan_shows_findings_masked_with_their_lines(tmp_path):
    (tmp_path / "text").write_text(f"one\ntwo {TOKEN}\n")
    done = kavach("scan", "text", cwd=tmp_path)
    head, row = done.stdout.decode().splitlines()
    assert (done.returncode, head.split("\t")[0], row.split("\t")[:4]) == (
        1,
        "line",
        ["2", "8-48", "critical", "github-token"],
    )
    assert TOKEN[5:] not in row


def test_scan_as_json_is_the_schema_of_a_scan_result():
    done = kavach("scan", "--json", "-", stdin=f"a {TOKEN}".encode())
    said = json.loads(done.stdout)
    assert (done.returncode, said["schema"], said["verdict"], said["worst_severity"]) == (
        1,
        "kavach.scan/1",
        "warn",
        "critical",
    )
    assert said["redacted"] == "a [REDACTED:github-token]"


def test_scan_writes_the_redacted_bytes_and_says_the_rest_elsewhere():
    done = kavach("scan", "--redact", "-", stdin=b"\xff\x00 " + TOKEN.encode() + b"\n")
    assert (done.returncode, done.stdout) == (1, b"\xff\x00 [REDACTED:github-token]\n")
    assert done.stderr == b"kavach: standard input: 1 finding\n"


def test_scan_under_enforce_writes_nothing_of_what_is_withheld():
    done = kavach("scan", "--redact", "--policy", "enforce", "-", stdin=f"fine\n{CARD}\n".encode())
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"withheld: verdict quarantine" in done.stderr


@pytest.mark.parametrize(
    ("words", "code"),
    [([], 0), (["--fail-on", "low"], 1), (["--fail-on", "info"], 1), (["--fail-on", "high"], 0)],
    ids=str,
)
def test_scan_ends_with_what_fail_on_asks(words, code):
    done = kavach("scan", *words, "-", stdin=b"write to a.person@gmail.com\n")
    assert (done.returncode, b"email-address" in done.stdout) == (code, True)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ([], 2),
        (["--fail-on", "some", "-"], 2),
        (["--policy", "off", "-"], 2),
        (["--json", "--redact", "-"], 2),
        (["missing"], 125),
        (["."], 125),
    ],
    ids=str,
)
def test_scan_says_usage_and_could_not(tmp_path, words, code):
    done = kavach("scan", *words, cwd=tmp_path)
    assert (done.returncode, done.stdout, b"Traceback" in done.stderr) == (code, b"", False)


def test_scan_calls_nothing_clean_that_it_did_not_read_whole(tmp_path):
    with (tmp_path / "large").open("wb") as file:
        file.truncate((50 << 20) + 1)
    done = kavach("scan", "large", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (125, b"")
    assert b"larger than 52428800 bytes" in done.stderr


# --- what a run lets out, and keeps


@RUNS
def test_redactions_of_a_run_are_said_once_and_without_content():
    done = kavach("run", "--", "echo", f"a {TOKEN} b")
    assert (done.returncode, done.stdout) == (0, b"a [REDACTED:github-token] b\n")
    assert done.stderr.count(b"1 finding, redacted\n") == 1
    assert TOKEN.encode()[5:] not in done.stderr


@RUNS
def test_withheld_output_is_120_and_named_by_verdict_and_id(own_state):
    done = kavach("run", "--policy", "strict", "--", "echo", f"card {CARD}")
    (entry,) = map(json.loads, kavach("quarantine", "list", "--json").stdout.splitlines())
    assert (done.returncode, CARD.encode() in done.stdout) == (120, False)
    assert f"the output was withheld: quarantine; quarantined as {entry['id']}".encode() in done.stderr


@RUNS
def test_blocked_output_is_120_and_destroyed(own_state):
    done = kavach("run", "--policy", "strict", "--", "echo", TOKEN)
    assert (done.returncode, b"withheld: block; destroyed" in done.stderr) == (120, True)
    assert kavach("quarantine", "list", "--json").stdout == b""
    found = subprocess.run(["grep", "-r", TOKEN, own_state], capture_output=True)
    assert (found.returncode, found.stdout) == (1, b"")


@RUNS
def test_first_run_makes_the_users_own_folders_and_one_audit_key(own_state):
    assert kavach("run", "--", "true").returncode == 0
    assert modes(own_state) == {
        "audit": 0o700,
        "audit/audit.jsonl": 0o600,
        "audit/audit.jsonl.head": 0o600,
        "keys": 0o700,
        "keys/audit.key": 0o600,
        "quarantine": 0o700,
        "quarantine/index.sqlite": 0o600,
    }
    assert stat.S_IMODE(own_state.stat().st_mode) == 0o700
    assert [record["event"] for record in events("--event", "exec")][-1] == "exec.outcome"
    assert kavach("audit", "verify").returncode == 0
    assert kavach("run", "--", "true").returncode == 0
    assert kavach("audit", "verify").returncode == 0


@RUNS
def test_no_record_keeps_nothing_and_destroys_what_is_withheld(own_state):
    done = kavach("run", "--no-record", "--policy", "strict", "--", "echo", f"card {CARD}")
    assert (done.returncode, b"withheld: quarantine; destroyed" in done.stderr) == (120, True)
    assert not own_state.exists()


@RUNS
def test_two_first_runs_at_once_keep_one_chain_under_one_key(own_state):
    runs = [start("run", "--json", "--", "true", stdout=-3, stderr=-1, stdin=-3) for _ in range(4)]
    said = [(run.communicate(timeout=DEADLINE_S)[1], run.returncode) for run in runs]
    assert said == [(b"", 0)] * 4
    assert kavach("audit", "verify").returncode == 0
    assert [name for name in modes(own_state) if name.startswith("keys/")] == [
        "keys/audit.key",
        "keys/receipt.pem",
        "keys/receipt.pub.pem",
    ]
    assert len(events("--event", "exec.outcome")) == 4


def _shut(state):
    state.parent.mkdir()
    state.write_text("in the way")


def _lose_key(state):
    (state / "keys" / "audit.key").unlink()


def _open_key(state):
    (state / "keys" / "audit.key").chmod(0o644)


def _open_folder(state):
    (state / "audit").chmod(0o750)


def _break_log(state):
    shutil.rmtree(state / "audit")
    (state / "audit").write_text("in the way")


def _break_quarantine(state):
    (state / "quarantine" / "index.sqlite").write_bytes(b"no database" * 1000)


@RUNS
@pytest.mark.parametrize(
    ("harm", "was_used"),
    [
        (_shut, False),
        (_lose_key, True),
        (_open_key, True),
        (_open_folder, True),
        (_break_log, True),
        (_break_quarantine, True),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_run_that_cannot_be_recorded_is_refused_before_it_runs(own_state, tmp_path, harm, was_used):
    if was_used:
        assert kavach("run", "--", "true").returncode == 0
    harm(own_state)
    before = sorted(own_state.rglob("*"))
    act = ("run", "--workdir", str(tmp_path), "--workdir-rw", "--", "sh", "-c", "echo ran; echo ran >/workspace/ran")
    done = kavach(*act)
    assert (done.returncode, done.stdout, (tmp_path / "ran").exists()) == (125, b"", False)
    assert done.stderr.startswith(b"kavach: nothing was run, for no record can be kept: ")
    assert sorted(own_state.rglob("*")) == before
    unrecorded = kavach("run", "--no-record", *act[1:])
    assert (unrecorded.returncode, unrecorded.stdout) == (0, b"ran\n"), "the control: it runs where none is wanted"


@RUNS
def test_full_disk_refuses_the_run(own_state):
    """A limit on the size of files stands in for a full disk: the log's next record does not fit."""
    assert kavach("run", "--", "true").returncode == 0
    with (own_state / "audit" / "audit.jsonl").open("rb") as log:
        size = len(log.read())
    script = "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
    script += f"resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size})); from kavach.cli import main; "
    script += "sys.exit(main(['run', '--', 'echo', 'out']))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, env=environment(), timeout=DEADLINE_S, stdin=-3
    )
    assert (done.returncode, done.stdout) == (125, b"")
    assert b"File too large" in done.stderr
    assert kavach("audit", "verify").returncode == 0


@RUNS
def test_plain_run_loads_no_cryptography():
    script = "import sys; from kavach.cli import main; main(['run', '--', 'true']); "
    script += "print([name for name in sys.modules if name.split('.')[0] == 'cryptography'])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, env=environment(), timeout=DEADLINE_S)
    assert (done.returncode, done.stdout) == (0, b"[]\n")


# --- receipts


@RUNS
def test_receipt_of_a_run_verifies_by_the_key_that_was_made_for_it(own_state, tmp_path):
    assert kavach("run", "--receipt", "receipt.json", "--", "true", cwd=tmp_path).returncode == 0
    done = kavach("audit", "receipt", "verify", "receipt.json", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, b"")
    again = kavach("run", "--receipt", "receipt.json", "--", "echo", "never", cwd=tmp_path)
    assert (again.returncode, again.stdout, b"there already" in again.stderr) == (125, b"", True)
    result = json.loads(kavach("run", "--json", "--", "true").stdout)
    envelope = json.dumps(result["receipt"]["envelope"]).encode()
    assert kavach("audit", "receipt", "verify", "-", stdin=envelope).returncode == 0
    (own_state / "keys" / "receipt.pem").unlink()
    lost = kavach("run", "--json", "--", "true")
    assert (lost.returncode, lost.stdout, b"the key is lost" in lost.stderr) == (125, b"", True)


# --- quarantine


@RUNS
def test_quarantine_is_listed_and_shown_without_content(quarantined):
    for words in (["list"], ["list", "--json"], ["show", quarantined], ["show", quarantined, "--json"]):
        done = kavach("quarantine", *words)
        assert (done.returncode, done.stderr) == (0, b"")
        assert quarantined.encode() in done.stdout
        assert CARD.encode() not in done.stdout
    assert b"payment-card" in kavach("quarantine", "show", quarantined).stdout
    assert kavach("quarantine", "list", "--state", "released", "--json").stdout == b""


@RUNS
def test_release_needs_an_approval_and_writes_private_files_over_nothing(quarantined, tmp_path):
    act = ("quarantine", "release", quarantined, "-o", str(tmp_path / "out"), "--by", "bob")
    early = kavach(*act)
    assert (early.returncode, os.listdir(tmp_path / "out")) == (125, [])
    assert kavach("quarantine", "approve", quarantined, "--by", "ann").returncode == 0
    (tmp_path / "out" / "stderr").write_text("mine")
    assert kavach(*act).returncode == 125
    assert (tmp_path / "out" / "stderr").read_text() == "mine"
    (tmp_path / "out" / "stderr").unlink()
    assert kavach(*act).returncode == 0
    assert (tmp_path / "out" / "stdout").read_text() == f"card {CARD}\n"
    assert modes(tmp_path / "out") == {"stderr": 0o600, "stdout": 0o600}
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o700
    moves = [
        (record["payload"]["from"], record["payload"]["to"], record["payload"]["by"])
        for record in events()
        if record["event"] == "quarantine"
    ]
    assert moves == [(None, "quarantined", None), ("quarantined", "approved", "ann"), ("approved", "released", "bob")]
    assert kavach("audit", "verify").returncode == 0


@RUNS
def test_release_into_a_folder_that_others_may_read_is_refused(quarantined, tmp_path):
    kavach("quarantine", "approve", quarantined)
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o755)
    done = kavach("quarantine", "release", quarantined, "-o", str(tmp_path / "open"))
    assert (done.returncode, os.listdir(tmp_path / "open")) == (125, [])


@RUNS
def test_rejected_output_is_gone_and_stays_on_record(quarantined, own_state):
    assert kavach("quarantine", "reject", quarantined, "--by", "ann").returncode == 0
    assert os.listdir(own_state / "quarantine") == ["index.sqlite"]
    assert kavach("quarantine", "approve", quarantined).returncode == 125
    (entry,) = map(json.loads, kavach("quarantine", "list", "--json").stdout.splitlines())
    assert [(move["state"], move["by"]) for move in entry["moves"]][1:] == [("rejected", "ann"), ("deleted", "ann")]
    moves = [(record["payload"]["from"], record["payload"]["to"]) for record in events("--event", "quarantine")]
    assert moves == [(None, "quarantined"), ("quarantined", "rejected"), ("rejected", "deleted")]


@RUNS
def test_decision_that_cannot_be_recorded_is_not_made(quarantined, own_state):
    (own_state / "keys" / "audit.key").rename(own_state / "kept")
    done = kavach("quarantine", "approve", quarantined)
    assert (done.returncode, b"the key is lost" in done.stderr) == (125, True)
    (own_state / "kept").rename(own_state / "keys" / "audit.key")
    assert json.loads(kavach("quarantine", "show", quarantined, "--json").stdout)["state"] == "quarantined"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ([], 2),
        (["fly"], 2),
        (["show"], 2),
        (["release", "0" * 32], 2),
        (["--help"], 0),
        (["show", "0" * 32], 125),
        (["approve", "../../etc/passwd"], 125),
        (["reject", "0" * 32, "--by", ""], 125),
    ],
    ids=str,
)
def test_quarantine_says_usage_and_could_not(words, code):
    done = kavach("quarantine", *words)
    assert (done.returncode, b"Traceback" in done.stderr, b"defect" in done.stderr) == (code, False, False)


# --- the folder of records, without a command


@pytest.mark.parametrize(
    ("environ", "path"),
    [
        ({"XDG_STATE_HOME": "/state", "HOME": "/home/a"}, "/state/kavach"),
        ({"XDG_STATE_HOME": "state", "HOME": "/home/a"}, "/home/a/.local/state/kavach"),
        ({"HOME": "/home/a"}, "/home/a/.local/state/kavach"),
    ],
)
def test_records_are_where_the_environment_says(environ, path):
    assert find_state(environ).path == path


@pytest.mark.parametrize("environ", [{}, {"HOME": "here"}, {"XDG_STATE_HOME": "here", "HOME": ""}])
def test_no_place_for_records_is_said(environ):
    with pytest.raises(ConfigError, match="neither XDG_STATE_HOME nor HOME"):
        find_state(environ)


@pytest.mark.root
def test_root_leaves_nothing_in_another_users_home(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    os.chown(home, 12345, 12345)
    with pytest.raises(AuditError, match="belongs to another user"):
        find_state({"HOME": str(home)}).make()
    assert os.listdir(home) == []


def test_link_in_place_of_a_folder_is_refused(tmp_path):
    state = find_state({"XDG_STATE_HOME": str(tmp_path)})
    state.make()
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / "kavach" / "audit").rmdir()
    (tmp_path / "kavach" / "audit").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(KavachError, match="expected a folder of this user's alone"):
        state.make()
