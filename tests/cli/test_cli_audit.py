"""`kavach audit`: exit codes, and words that name what does not hold."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
from command_line import kavach, start

from kavach.audit.log import AuditLog
from kavach.audit.receipt import Receipt
from kavach.audit.signing import SigningKey

KEY = "6b" * 32
DOCS = Path(__file__).resolve().parents[2] / "docs" / "audit.md"


@pytest.fixture
def log(tmp_path):
    key = tmp_path / "key"
    key.write_text(KEY + "\n")
    key.chmod(0o600)
    with AuditLog(tmp_path / "audit.jsonl", key_file=key, rotate_bytes=4096) as made:
        for number in range(30):
            made.append("exec.intent", sandbox_id=f"sb-{number % 2}", payload={"n": number, "esc": "\x1b[2J"})
    return tmp_path / "audit.jsonl"


@pytest.fixture
def receipt(tmp_path):
    key = SigningKey.generate()
    statement = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "argv", "digest": {"sha256": "0" * 64}}],
        "predicateType": "urn:kavach:receipt:1",
        "predicate": {"version": 1, "sandbox_id": "sb-1", "time_utc": "2026", "ending": {"reason": "exit"}},
    }
    (tmp_path / "receipt.json").write_bytes(Receipt(statement, key).export())
    (tmp_path / "public.pem").write_bytes(key.public.pem())
    (tmp_path / "other.pem").write_bytes(SigningKey.generate().public.pem())
    return tmp_path / "receipt.json"


def test_a_whole_log_is_a_yes_with_its_head(log):
    done = kavach("audit", "verify", str(log), "--key-file", "key", cwd=log.parent)
    assert (done.returncode, done.stderr) == (0, b"")
    head = re.search(rb"head (\d+:[0-9a-f]{64})\n", done.stdout)
    assert head is not None
    again = kavach(
        "audit", "verify", "audit.jsonl", "--key-env", "K", "--head", head[1], "--json", cwd=log.parent, env={"K": KEY}
    )
    said = json.loads(again.stdout)
    assert (again.returncode, said["ok"], said["head"].encode()) == (0, True, head[1])


def test_a_changed_log_is_a_no_that_names_record_and_check(log):
    log.write_bytes(log.read_bytes().replace(b'"n":29', b'"n":28'))
    done = kavach("audit", "verify", "audit.jsonl", "--key-file", "key", cwd=log.parent)
    assert done.returncode == 1
    assert re.match(rb"kavach: record \d+: .*\(check mac\)", done.stderr)
    said = json.loads(kavach("audit", "verify", "audit.jsonl", "--key-file", "key", "--json", cwd=log.parent).stdout)
    assert (said["ok"], said["check"]) == (False, "mac")
    assert isinstance(said["index"], int)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["verify", "audit.jsonl"], 2),
        (["verify", "--head", "1:zz"], 2),
        (["verify", "audit.jsonl", "--key-file", "key", "--head", "1:zz"], 2),
        ([], 2),
        (["nothing"], 2),
        (["receipt"], 2),
        (["--help"], 0),
        (["receipt", "--help"], 0),
        (["verify", "missing", "--key-file", "key"], 125),
        (["verify", "audit.jsonl", "--key-file", "missing"], 125),
        (["verify", "audit.jsonl", "--key-env", "UNSET"], 125),
        (["show", "missing"], 125),
        (["receipt", "verify", "missing", "--key", "public.pem"], 125),
    ],
    ids=str,
)
def test_exit_codes_say_usage_and_could_not(log, words, code):
    done = kavach("audit", *words, cwd=log.parent)
    assert done.returncode == code
    assert b"Traceback" not in done.stderr


def test_records_are_shown_with_filters_and_without_what_a_terminal_acts_upon(log):
    done = kavach("audit", "show", str(log), "--sandbox", "sb-1", "--event", "exec")
    rows = done.stdout.decode().splitlines()
    assert len(rows) == 15
    assert {row.split("\t")[3] for row in rows} == {"sb-1"}
    assert b"\x1b" not in done.stdout
    (whole,) = kavach("audit", "show", str(log), "--serial", "3").stdout.splitlines()
    assert json.loads(whole)["serial"] == 3
    last = kavach("audit", "tail", str(log), "-n", "2", "--json").stdout.splitlines()
    assert [json.loads(line)["payload"]["n"] for line in last] == [28, 29]


def test_a_log_is_followed_also_into_its_next_file(log):
    with start("audit", "tail", str(log), "-n", "1", "-f", "--json", stdout=subprocess.PIPE) as following:
        assert following.stdout is not None
        assert json.loads(following.stdout.readline())["payload"]["n"] == 29
        with AuditLog(log, key=bytes.fromhex(KEY), rotate_bytes=4096) as more:
            for number in range(100, 130):
                more.append("exec.intent", payload={"n": number})
        seen = []
        while 129 not in seen:
            record = json.loads(following.stdout.readline())
            seen += [record["payload"]["n"]] if record["event"] == "exec.intent" else []
        following.kill()
    assert seen == list(range(100, 130))


def test_a_receipt_is_a_yes_for_its_key_and_a_no_for_another(receipt):
    done = kavach("audit", "receipt", "verify", "receipt.json", "--key", "public.pem", cwd=receipt.parent)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"sandbox sb-1" in done.stdout
    for words in (["verify"], ["show"]):
        done = kavach("audit", "receipt", *words, "receipt.json", "--key", "other.pem", cwd=receipt.parent)
        assert (done.returncode, done.stdout) == (1, b"")
    shown = kavach(
        "audit", "receipt", "show", "-", "--key", "public.pem", cwd=receipt.parent, stdin=receipt.read_bytes()
    )
    assert json.loads(shown.stdout)["predicate"]["sandbox_id"] == "sb-1"


def test_the_openssl_steps_of_the_documentation_verify_a_receipt(receipt):
    block = re.search(r"<!-- openssl -->\n\n((?:    .*\n)+)", DOCS.read_text(encoding="utf-8"))
    assert block is not None
    script = "set -e\n" + "".join(line[4:] + "\n" for line in block[1].splitlines())

    def steps():
        return subprocess.run(["sh", "-c", script], cwd=receipt.parent, capture_output=True, text=True)

    done = steps()
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "Signature Verified Successfully")
    (receipt.parent / "public.pem").write_bytes((receipt.parent / "other.pem").read_bytes())
    assert steps().returncode != 0
