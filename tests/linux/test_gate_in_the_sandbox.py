"""What leaves a real sandbox: results, files and streams under each preset, and the secrets that a run was given."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import pickle
import stat
import time
from pathlib import Path

import pytest
import trio

from kavach import (
    AsyncSandbox,
    CredentialProxy,
    EnvVar,
    ExternalizationPolicy,
    Fd,
    File,
    KavachError,
    Sandbox,
    SecretRef,
    Severity,
    Stdin,
    Withheld,
)
from kavach.audit.events import EventBus
from kavach.audit.log import AuditLog
from kavach.audit.signing import SigningKey
from kavach.gate.quarantine import QuarantineStore

pytestmark = [pytest.mark.needs("linux"), pytest.mark.userns, pytest.mark.seccomp]
KEY = "ghp_" + "x9K2mQ7vB4nT8wR1pL6s" + "D3fG5hJ0zXcVbNaE"
WORD = "canary-" + "Va_of+77/x"
LONG_WORD = "canary-" + "of-a-value-that-is-as-long-as-many-tokens-are-77"
DEADLINE_S = 30
PRINT_KEY = ["sh", "-c", f"echo key={KEY}"]


@pytest.fixture
def proxy():
    made = CredentialProxy()
    made.register("Token", WORD)
    return made


@pytest.fixture(params=["asyncio", "trio"])
def run_async(request):
    """Return what runs an async function under one of the two event loops."""
    return {"asyncio": lambda act: asyncio.run(act()), "trio": trio.run}[request.param]


def printed(program, *args):
    return ["/usr/bin/python3", "-c", program, *args]


def test_basic_redacts_a_printed_key_and_warns():
    with Sandbox() as sandbox:
        ended = sandbox.exec(PRINT_KEY)
    assert (ended.stdout, str(ended.verdict), str(ended.reason)) == ("key=[REDACTED:github-token]\n", "warn", "exit")
    assert ended.raise_for_status() is ended
    (finding,) = ended.findings
    assert KEY[4:] not in json.dumps(ended.to_dict())
    assert KEY[4:] not in repr(finding)
    assert (finding.stream, finding.rule, finding.start) == ("stdout", "github-token", 4)


def test_strict_withholds_all_of_both_streams_and_raises_where_asked():
    with Sandbox(policy="strict") as sandbox:
        ended = sandbox.exec(["sh", "-c", f"echo harmless; echo key={KEY} >&2"])
    assert (str(ended.reason), str(ended.verdict), ended.exit_code, ended.ok) == ("withheld", "block", 0, False)
    assert (ended.stdout_bytes, ended.stderr_bytes, ended.quarantine_id) == (b"", b"", None)
    with pytest.raises(Withheld) as caught:
        ended.raise_for_status()
    assert "destroyed" in str(caught.value)
    assert caught.value.findings == ended.findings


def test_what_is_quarantined_waits_in_the_store_for_its_owner_alone(tmp_path):
    store = QuarantineStore(tmp_path / "quarantine")
    gate = ExternalizationPolicy(mode="enforce", personal="verdict", quarantine_threshold=Severity.MEDIUM)
    card = "card 4111 1111 " + "1111 1111"
    with Sandbox(externalization=gate, quarantine=store, agent_id="agent-1") as sandbox:
        ended = sandbox.exec(["echo", card])
        sandbox.files.write("/workspace/a", card)
        with pytest.raises(Withheld) as caught:
            sandbox.files.read("/workspace/a")
    assert (str(ended.reason), str(ended.verdict), ended.stdout_bytes) == ("withheld", "quarantine", b"")
    with pytest.raises(Withheld) as of_result:
        ended.raise_for_status()
    assert of_result.value.quarantine_id == ended.quarantine_id
    store.approve(ended.quarantine_id, by="ana")
    assert store.release(ended.quarantine_id, by="ana") == {"stdout": f"{card}\n".encode(), "stderr": b""}
    store.approve(caught.value.quarantine_id, by="ana")
    assert store.release(caught.value.quarantine_id, by="ana") == {"/workspace/a": card.encode()}
    assert store.entry(ended.quarantine_id).agent_id == "agent-1"
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "quarantine").iterdir()}
    assert modes == {0o600}
    assert stat.S_IMODE((tmp_path / "quarantine").stat().st_mode) == 0o700


def test_what_is_quarantined_without_a_store_is_destroyed_and_said_to_be():
    gate = ExternalizationPolicy(mode="enforce", personal="verdict", quarantine_threshold=Severity.MEDIUM)
    with Sandbox(externalization=gate) as sandbox:
        ended = sandbox.exec(["echo", "card 4111 1111 " + "1111 1111"])
    assert (str(ended.verdict), ended.quarantine_id) == ("quarantine", None)
    with pytest.raises(Withheld, match="destroyed"):
        ended.raise_for_status()


def test_minimal_says_that_nobody_looked():
    with Sandbox(policy="minimal") as sandbox:
        ended = sandbox.exec(PRINT_KEY)
        assert (ended.stdout, str(ended.verdict), ended.findings) == (f"key={KEY}\n", "not_scanned", ())
        assert b"".join(sandbox.stream(PRINT_KEY)) == f"key={KEY}\n".encode()
        sandbox.files.write("/workspace/a", KEY)
        assert sandbox.files.read("/workspace/a") == KEY.encode()


WAYS = {
    "plain": "print(v)",
    "base64": "import base64; print(base64.b64encode(b'ab' + v.encode() + b'c').decode())",
    "hex": "print(v.encode().hex())",
    "HEX": "print(v.encode().hex().upper())",
    "reversed": "print(v[::-1])",
    "url": "import urllib.parse as u; print(u.quote(v, safe=''))",
    "json": "import json; print(json.dumps({'a': 'x' + v}))",
    "two streams": "import sys; sys.stdout.write(v[:9]); sys.stdout.flush(); sys.stderr.write(v[9:])",
    "stderr": "import sys; print(v, file=sys.stderr)",
    "colours": "print(v[:5] + '\\x1b[31m' + v[5:])",
    "gzip": "import base64, gzip; print(base64.b64encode(gzip.compress(v.encode())).decode())",
    "noise": "import sys; sys.stdout.buffer.write(b'\\xff\\xfe' + v.encode() + b'\\x80')",
}


@pytest.mark.parametrize("way", WAYS)
def test_an_injected_secret_is_found_and_redacted_by_its_name(proxy, way):
    program = "import os; v = os.environ['T']; " + WAYS[way]
    with Sandbox(secrets=[SecretRef("Token", EnvVar("T"))], credentials=proxy) as sandbox:
        ended = sandbox.exec(printed(program))
    assert ended.exit_code == 0, ended.stderr
    both = ended.stdout_bytes + ended.stderr_bytes
    assert b"[REDACTED:token]" in both or way == "gzip"
    assert "token" in {finding.rule for finding in ended.findings}
    assert str(ended.verdict) == "warn"
    for form in (WORD, WORD[::-1], WORD.encode().hex(), WORD.encode().hex().upper(), WORD[:9], WORD[9:]):
        assert form.encode() not in both


@pytest.mark.parametrize(
    ("how", "program"),
    [
        (EnvVar("T"), "import os; print(os.environ['T'])"),
        (File("/run/secrets/t"), "print(open('/run/secrets/t').read())"),
        (Stdin(), "print(input())"),
        (Fd(7), "import os; print(os.read(7, 999).decode())"),
    ],
)
def test_a_secret_is_found_however_it_was_delivered_and_in_later_commands_too(proxy, how, program):
    with Sandbox(secrets=[SecretRef("Token", how)], credentials=proxy) as sandbox:
        first = sandbox.exec(printed(program + "; open('/workspace/kept', 'w').write('" + WORD[::-1] + "')"))
        assert (first.stdout.strip(), str(first.verdict)) == ("[REDACTED:token]", "warn"), first.stderr
        later = sandbox.exec(["cat", "/workspace/kept"])
        assert (later.stdout, str(later.verdict)) == ("[REDACTED:token]", "warn")
        assert sandbox.files.read("/workspace/kept") == b"[REDACTED:token]"
        assert b"".join(sandbox.stream(["cat", "/workspace/kept"])) == b"[REDACTED:token]"


def test_a_rotated_secret_is_searched_for_in_both_its_values():
    values = iter([WORD, "another-" + "value-entirely-88"])
    given = []

    def ask():
        given.append(next(values))
        return given[-1]

    proxy = CredentialProxy()
    proxy.register("Token", ask)
    with Sandbox(secrets=[SecretRef("Token", EnvVar("T"))], credentials=proxy) as sandbox:
        sandbox.exec(["sh", "-c", 'echo "$T" > /workspace/first'])
        ended = sandbox.exec(["sh", "-c", 'cat /workspace/first; echo "$T"'])
    assert len(given) == 2
    assert ended.stdout == "[REDACTED:token]\n[REDACTED:token]\n"


@pytest.mark.parametrize("length", [26, 48, 300])
def test_a_stream_of_a_run_with_a_long_secret_is_redacted_and_not_withheld(length):
    word = (LONG_WORD * 9)[:length]
    proxy = CredentialProxy()
    proxy.register("Token", word)
    with Sandbox(secrets=[SecretRef("Token", EnvVar("T"))], credentials=proxy) as sandbox:
        assert b"".join(sandbox.stream(["sh", "-c", 'echo "$T"'])) == b"[REDACTED:token]\n"


def test_a_secret_printed_by_a_command_that_destroy_ended_is_redacted(proxy):
    sandbox = Sandbox(secrets=[SecretRef("Token", EnvVar("T"))], credentials=proxy)
    with sandbox:
        process = sandbox.spawn(["sh", "-c", 'echo "$T"; touch /workspace/done; sleep 60'])
        deadline = time.monotonic() + DEADLINE_S
        while not sandbox.files.list() and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.1)
    ended = process.wait(DEADLINE_S)
    assert ended.stdout == "[REDACTED:token]\n"


@pytest.mark.parametrize("policy", ["basic", "strict"])
def test_a_file_leaves_redacted_or_not_at_all(policy):
    with Sandbox(policy=policy) as sandbox:
        sandbox.exec(["sh", "-c", f"echo key={KEY} > /workspace/a"])
        sandbox.files.write("/workspace/plain", b"\x00\x01 plain bytes \xff")
        assert sandbox.files.read("/workspace/plain") == b"\x00\x01 plain bytes \xff"
        if policy == "basic":
            assert sandbox.files.read("/workspace/a") == b"key=[REDACTED:github-token]\n"
            return
        with pytest.raises(Withheld) as caught:
            sandbox.files.read("/workspace/a")
    assert KEY[4:] not in repr(caught.value) + str(caught.value.findings)


def test_a_stream_is_cut_and_its_command_ended_at_the_first_blocking_find():
    script = f"echo before; echo key={KEY}; echo; echo after; sleep 60; echo never"
    got = []
    with Sandbox(policy="strict") as sandbox:
        began = time.monotonic()
        with pytest.raises(Withheld) as caught:
            got += sandbox.stream(["sh", "-c", script])
        assert time.monotonic() - began < DEADLINE_S
        assert sandbox.exec(["true"]).ok
    assert KEY[:8].encode() not in b"".join(got)
    assert b"after" not in b"".join(got)
    assert caught.value.verdict == "block"


def test_an_awaited_stream_is_cut_in_the_same_way(run_async):
    script = f"echo before; echo key={KEY}; echo; echo after; sleep 60; echo never"
    got = []

    async def act():
        async with AsyncSandbox(policy="strict") as sandbox:
            process = await sandbox.spawn(["sh", "-c", script])
            with pytest.raises(Withheld):
                got.extend([chunk async for chunk in process.stream()])
            assert (await process.wait(DEADLINE_S)).stdout_bytes == b""
            process = await sandbox.spawn(["sh", "-c", script])
            ended = await process.wait(DEADLINE_S)
            assert (str(ended.reason), ended.stdout_bytes) == ("withheld", b"")

    run_async(act)
    assert b"after" not in b"".join(got)
    assert KEY[:8].encode() not in b"".join(got)


def test_a_stream_under_redact_shows_labels_at_every_cut(proxy):
    program = (
        "import os, sys, time\n"
        "for byte in ('x ' + os.environ['T'] + ' y').encode():\n"
        "    os.write(1, bytes([byte])); time.sleep(0.001)\n"
    )
    with Sandbox(secrets=[SecretRef("Token", EnvVar("T"))], credentials=proxy) as sandbox:
        assert b"".join(sandbox.stream(printed(program))) == b"x [REDACTED:token] y"


ALTERNATING = (
    "import os, time\n"
    "word = os.environ['T'].encode()\n"
    "for at in range(0, len(word), 6):\n"
    "    os.write(1 + at // 6 % 2, word[at:at + 6] + b'\\n'); time.sleep(0.2)\n"
)


def assert_no_part_of_the_long_word(streamed, ended):
    for text in (streamed, ended.stdout_bytes + ended.stderr_bytes):
        assert b"[REDACTED:token]" in text
        assert not [at for at in range(0, len(LONG_WORD) - 6, 6) if LONG_WORD[at : at + 6].encode() in text]


def test_a_secret_that_alternates_between_both_streams_is_redacted_in_the_stream_and_in_the_result():
    proxy = CredentialProxy()
    proxy.register("Token", LONG_WORD)
    with Sandbox(secrets=[SecretRef("Token", EnvVar("T"))], credentials=proxy) as sandbox:
        process = sandbox.spawn(printed(ALTERNATING))
        streamed = b"".join(process.stream())
        assert_no_part_of_the_long_word(streamed, process.wait(DEADLINE_S))


def test_an_awaited_secret_that_alternates_between_both_streams_is_redacted_likewise(run_async):
    proxy = CredentialProxy()
    proxy.register("Token", LONG_WORD)

    async def act():
        async with AsyncSandbox(secrets=[SecretRef("Token", EnvVar("T"))], credentials=proxy) as sandbox:
            process = await sandbox.spawn(printed(ALTERNATING))
            streamed = b"".join([chunk async for chunk in process.stream()])
            assert_no_part_of_the_long_word(streamed, await process.wait(DEADLINE_S))

    run_async(act)


def test_beyond_the_output_cap_the_flag_is_set_and_the_tail_never_leaves():
    program = f"print('a' * (1 << 20)); print('key={KEY}')"
    with Sandbox() as sandbox:
        ended = sandbox.exec(printed(program))
    assert ended.truncated_stdout
    assert b"ghp_" not in ended.stdout_bytes


def test_a_key_that_the_cap_cuts_in_two_does_not_leave_its_first_half():
    program = f"import sys; sys.stdout.write('a ' * (512 * 1024 - 6) + 'key={KEY}' + ' b' * 999)"
    with Sandbox() as sandbox:
        ended = sandbox.exec(printed(program))
    assert ended.truncated_stdout
    assert b"ghp_" not in ended.stdout_bytes


ORDINARY = {
    "ls": ["ls", "-la", "--full-time", "/usr/bin"],
    "ls -R": ["ls", "-R", "/usr/lib/python3"],
    "traceback": printed("import json; json.loads('{')"),
    "id": ["sh", "-c", "id; uname -a; env; df; mount; ps 2>/dev/null; cat /proc/meminfo /proc/cpuinfo; true"],
    "help": ["sh", "-c", "/usr/bin/python3 --help; ls --help; sort --help"],
    "hashes": ["sh", "-c", "cd /usr/bin; sha256sum a* b* c* | head -200; md5sum d* | head -100"],
    "packages": printed(
        "import importlib.metadata as m\nfor d in m.distributions(): print(d.metadata['Name'], d.version)"
    ),
}


@pytest.mark.parametrize("what", ORDINARY)
def test_ordinary_output_leaves_unchanged_under_strict(what):
    with Sandbox(policy="minimal") as sandbox:
        plain = sandbox.exec(ORDINARY[what], cwd="/tmp")
    with Sandbox(policy="strict") as sandbox:
        ended = sandbox.exec(ORDINARY[what], cwd="/tmp")
    seen = [(finding.scanner, finding.rule, str(finding.severity)) for finding in ended.findings]
    assert str(ended.verdict) == "pass", seen
    assert plain.stdout_bytes + plain.stderr_bytes
    assert b"[REDACTED" not in ended.stdout_bytes + ended.stderr_bytes


@pytest.mark.needs("gcc", "git")
def test_the_errors_of_a_compiler_and_a_history_leave_unchanged_under_strict():
    script = """
    export HOME=/workspace
    cd /workspace && git init -q . 2>/dev/null
    git config user.email nobody@localhost; git config user.name Nobody
    for n in 1 2 3 4 5; do echo $n > f$n.c; git add .; git commit -qm "change number $n"; done
    git log --stat; git log -p | head -200; git cat-file -p HEAD
    printf 'int main(void){ return undefined_name + (char *)0 }\\n' > a.c; gcc -Wall a.c
    printf '#include <missing.h>\\n' > b.c; gcc b.c; true
    """
    with Sandbox(policy="strict") as sandbox:
        ended = sandbox.exec(["sh", "-c", script], timeout_s=60)
    seen = [(finding.scanner, finding.rule, str(finding.severity)) for finding in ended.findings]
    assert str(ended.verdict) == "pass", seen
    assert "change number 5" in ended.stdout
    assert "error" in ended.stderr


def _said(act):
    """Return what an act gives, or all that its exception says."""
    try:
        return act()
    except KavachError as error:
        return [str(error).encode(), repr(error).encode(), pickle.dumps(error)]


def test_no_artifact_of_a_run_holds_its_secrets(tmp_path, caplog, proxy):
    caplog.set_level(logging.DEBUG)
    bus, told = EventBus(), []
    bus.subscribe("#", lambda event: told.append(event.to_json()))
    store = QuarantineStore(tmp_path / "quarantine")
    left = []
    with AuditLog(tmp_path / "audit.log", key=os.urandom(32)) as log:
        parts = {"audit": log, "quarantine": store, "receipt_key": SigningKey.generate(), "events": bus}
        parts |= {"secrets": [SecretRef("Token", EnvVar("T"))], "credentials": proxy, "agent_id": "a"}
        for policy in ("basic", "strict"):
            with Sandbox(policy=policy, **parts) as sandbox:
                left += _leavings(sandbox)
        log.verify()
    assert bus.drain(DEADLINE_S)
    bus.close()
    left += [*told, caplog.text.encode()]
    left += [path.read_bytes() for path in tmp_path.iterdir() if path.is_file()]
    left += [path.read_bytes() for path in (tmp_path / "quarantine").glob("index*")]
    needles = [KEY.encode()[8:], WORD.encode(), WORD.encode()[::-1], WORD.encode().hex().encode()]
    assert len(left) > 30
    assert not [needle for one in left for needle in needles if needle in one]


def _leavings(sandbox):
    """Run what prints its secrets and return everything about it that can be had."""
    script = 'echo "$T"; echo "$T" | base64; printf "key=%s%s\\n" "$0" "$1" >&2; echo "$T" > /workspace/f; sleep 0.1'
    process = sandbox.spawn(["/bin/sh", "-c", script, KEY[:20], KEY[20:]])
    lists = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.parent.name != str(os.getpid())]
    ended = process.wait(DEADLINE_S)
    plain = [repr(ended).encode(), pickle.dumps(ended), ended.to_json().encode(), repr(process).encode()]
    plain += [ended.receipt.export(), repr(sandbox.config).encode(), repr(sandbox.steps.known).encode()]
    plain += [
        str(_said(act)).encode()
        for act in (
            ended.raise_for_status,
            lambda: sandbox.files.read("/workspace/f"),
            lambda: list(sandbox.stream(["cat", "/workspace/f"])),
            lambda: sandbox.exec(["sh", "-c", 'echo "$T" >&2']),
        )
    ]
    return plain + lists
