"""Receipts: what they say, who can verify them, and what they never hold."""

from __future__ import annotations

import hashlib
import json
import pickle
import subprocess
import warnings
from base64 import b64decode, b64encode

import pytest

from kavach.audit.canonical import canonical_json
from kavach.audit.digest import argv_sha256, policy_sha256
from kavach.audit.dsse import open_envelope, pre_authentication, seal_envelope
from kavach.audit.log import AppendedRecord
from kavach.audit.payload import (
    AuditEvent,
    enforcement_payload,
    findings_payload,
    intent_payload,
    limits_payload,
    outcome_payload,
)
from kavach.audit.receipt import PAYLOAD_TYPE, Receipt, host_facts, open_receipt, verify_receipt
from kavach.audit.signing import PublicKey, SigningKey
from kavach.audit.statement import make_statement
from kavach.errors import AuditError, ConfigError
from kavach.model.command import make_command
from kavach.model.enforcement import Control, ControlRow, ControlState, Enforcement
from kavach.model.policy import SandboxPolicy
from kavach.model.result import EndReason, ExecResult
from kavach.model.score import StrengthScore
from kavach.model.verdict import Finding, Severity, Verdict

SECRET = "tok" + "en-" + "q7" * 12
COMMAND = make_command(["sh", "-c", f"echo {SECRET}"], stdin=SECRET, env={"TOKEN": SECRET}, timeout_ms=1000)
POLICY = SandboxPolicy.strict()
ROW = ControlRow(control=Control.SECCOMP, asked=True, state=ControlState.ENFORCED, detail="allow_list", evidence="2")
FINDING = Finding(
    id="f1",
    scanner="secrets",
    rule="api_key",
    category="secret",
    severity=Severity.HIGH,
    message="an API key",
    stream="stdout",
    start=0,
    end=20,
    evidence="api_key, 20 bytes",
)


def made(**more):
    values = {
        "sandbox_id": "sb-1",
        "reason": EndReason.EXIT,
        "exit_code": 0,
        "stdout_bytes": b"[REDACTED:api_key]\n",
        "duration_ms": 12.3456,
        "enforcement": Enforcement.of("process", [ROW]),
        "score": StrengthScore(69),
        "requested_score": StrengthScore(72),
        "verdict": Verdict.WARN,
        "findings": (FINDING,),
        "limits_hit": ("memory",),
    }
    return ExecResult(**{**values, **more})


def stated(result=None, **more):
    values = {
        "command": COMMAND,
        "policy": POLICY,
        "policy_digest": policy_sha256(POLICY),
        "agent_id": "crew",
        "time_utc": "2026-01-31T12:00:00.000000+00:00",
        "host": host_facts(),
        "intent": AppendedRecord(7, "a" * 64),
    }
    return make_statement(result or made(), **{**values, **more})


@pytest.fixture(scope="module")
def key():
    return SigningKey.generate()


def test_a_receipt_says_what_was_seen(key):
    receipt = Receipt(stated(), key)
    said = open_receipt(receipt.export(), key.public)
    predicate = said["predicate"]
    assert said["_type"] == "https://in-toto.io/Statement/v1"
    assert predicate["policy"] == {"preset": "strict", "sha256": policy_sha256(POLICY)}
    assert predicate["audit"] == {"intent_serial": 7, "intent_mac": "a" * 64}
    assert predicate["strength"] == {"value": 69, "label": "standard", "requested": 72, "weights_version": 1}
    assert predicate["gate"]["verdict"] == "warn"
    assert predicate["gate"]["findings"] == {"info": 0, "low": 0, "medium": 0, "high": 1, "critical": 0}
    assert predicate["ending"]["limits_hit"] == ["memory"]
    assert len(predicate["enforcement"]["rows"]) == len(Control)
    assert predicate["image_sha256"] is predicate["runtime_sha256"] is predicate["evidence"] is None
    assert predicate["host"]["system"] == "Linux"
    assert predicate["stdout"] == {
        "sha256": hashlib.sha256(b"[REDACTED:api_key]\n").hexdigest(),
        "bytes": 19,
        "dropped_bytes": 0,
    }
    assert [one["name"] for one in said["subject"]] == ["argv", "stdout", "stderr"]


def test_the_arguments_digest_is_made_again_with_a_shell():
    ours = argv_sha256([b"echo", "hällo wörld".encode(), b""])
    theirs = subprocess.run(
        ["sh", "-c", r"printf '%s\0' echo 'hällo wörld' '' | sha256sum"], capture_output=True, check=True
    )
    assert theirs.stdout.split()[0].decode() == ours


def test_a_withheld_output_leaves_not_even_a_digest(key):
    result = made(reason=EndReason.WITHHELD, verdict=Verdict.QUARANTINE, stdout_bytes=b"", quarantine_id="q-1")
    said = stated(result)
    assert said["predicate"]["stdout"] is said["predicate"]["stderr"] is None
    assert [one["name"] for one in said["subject"]] == ["argv"]
    verify_receipt(Receipt(said, key).export(), key.public)


def test_no_argument_no_input_no_output_and_no_variable_is_in_a_receipt_or_a_record(key):
    receipt = Receipt(stated(), key)
    payloads = [
        intent_payload(COMMAND, policy_digest="0" * 64, record_argv=False),
        outcome_payload(made(), intent_serial=1, receipt=receipt),
        enforcement_payload(Enforcement.of("process", [ROW]), StrengthScore(69)),
        findings_payload([FINDING] * 300),
        limits_payload(("memory", "cpu")),
    ]
    text = receipt.export() + receipt.statement_bytes + b"".join(map(canonical_json, payloads))
    assert SECRET.encode() not in text
    assert b64encode(SECRET.encode())[:-4] not in text
    assert b"REDACTED" not in text
    assert SECRET not in repr(receipt)


def test_arguments_are_recorded_only_where_that_was_asked_for():
    assert "argv" not in intent_payload(COMMAND, policy_digest="0" * 64, record_argv=False)
    shown = intent_payload(make_command(["a", b"\xff\x00"[:1]]), policy_digest="0" * 64, record_argv=True)
    assert canonical_json(shown["argv"]) == b'["a","\\\\udcff"]'
    long = make_command(["a" * 70_000])
    assert intent_payload(long, policy_digest="0" * 64, record_argv=True)["argv"] is None


def test_findings_beyond_the_hundredth_are_counted():
    payload = findings_payload([FINDING] * 250)
    assert (len(payload["findings"]), payload["omitted"], payload["counts"]["high"]) == (100, 150, 250)


def test_the_words_of_records_do_not_change():
    assert {str(one) for one in AuditEvent} >= {"exec.intent", "exec.outcome", "sandbox.created", "sandbox.destroyed"}


def test_the_digest_is_known_before_anything_is_signed_and_stays(key):
    receipt = Receipt(stated(), key)
    assert receipt._envelope is None
    assert receipt.digest == hashlib.sha256(b64decode(json.loads(receipt.export())["payload"])).hexdigest()
    assert receipt.export() == receipt.export()
    assert outcome_payload(made(), intent_serial=7, receipt=receipt)["receipt_sha256"] == receipt.digest


def test_a_receipt_without_a_key_carries_a_digest_only():
    receipt = Receipt(stated())
    assert receipt.to_dict() == {"sha256": receipt.digest, "envelope": None}
    with pytest.raises(AuditError) as caught:
        receipt.export()
    assert caught.value.check == "signature"


def test_a_copy_in_another_process_carries_the_signature_and_not_the_key(key):
    receipt = Receipt(stated(), key)
    pickled = pickle.dumps(receipt)
    copy = pickle.loads(pickled)
    assert copy.export() == receipt.export()
    assert (copy.digest, copy._key) == (receipt.digest, None)
    assert pickle.loads(pickle.dumps(Receipt(stated()))).is_signed is False
    with pytest.raises(ConfigError):
        pickle.dumps(key)


def opened_or_check(envelope, public):
    try:
        return open_receipt(envelope, public)
    except AuditError as error:
        return error.check


def test_every_flipped_byte_of_a_receipt_is_noticed_or_changes_nothing_that_is_said(key):
    envelope = Receipt(stated(), key).export()
    said = open_receipt(envelope, key.public)
    start = envelope.index(b'"keyid":"') + 9
    for place in range(len(envelope)):
        changed = bytearray(envelope)
        changed[place] ^= 0x01
        if start <= place < start + 64:  # a hint, which is not believed and not signed
            assert open_receipt(bytes(changed), key.public) == said
            continue
        assert opened_or_check(bytes(changed), key.public) in [said, "form", "signature", "type", "version"], place


def test_another_key_and_another_kind_of_envelope_are_refused(key):
    receipt = Receipt(stated(), key)
    with pytest.raises(AuditError) as caught:
        verify_receipt(receipt.export(), SigningKey.generate().public)
    assert caught.value.check == "signature"
    other = seal_envelope("application/vnd.kavach.audit-checkpoint+json", receipt.statement_bytes, key)
    with pytest.raises(AuditError) as caught:
        verify_receipt(other, key.public)
    assert caught.value.check == "type"
    for said, check in (({**stated(), "predicateType": "x"}, "type"), ({**stated(), "predicate": {}}, "version")):
        with pytest.raises(AuditError) as caught:
            verify_receipt(Receipt(said, key).export(), key.public)
        assert caught.value.check == check
    for junk in (b"", b"{}", b"[]", b"\xff", b'{"payload":"!","payloadType":"x","signatures":[]}', b"x" * (9 << 20)):
        with pytest.raises(AuditError) as caught:
            verify_receipt(junk, key.public)
        assert caught.value.check == "form"


def test_an_envelope_without_signatures_is_refused(key):
    body = json.loads(Receipt(stated(), key).export())
    with pytest.raises(AuditError) as caught:
        verify_receipt(json.dumps({**body, "signatures": []}).encode(), key.public)
    assert caught.value.check == "signature"


def test_what_is_signed_is_the_protocols_own_example():
    assert pre_authentication("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


def test_an_independent_dsse_library_verifies_a_receipt(key):
    dsse = pytest.importorskip("securesystemslib.dsse")
    signer = pytest.importorskip("securesystemslib.signer")
    from cryptography.hazmat.primitives.serialization import load_pem_public_key
    from securesystemslib.exceptions import VerificationError

    def theirs(public):
        return signer.SSlibKey.from_crypto(load_pem_public_key(public.pem()), keyid=public.id)

    envelope = dsse.Envelope.from_dict(json.loads(Receipt(stated(), key).export()))
    assert envelope.payload_type == PAYLOAD_TYPE
    assert list(envelope.verify([theirs(key.public)], 1)) == [key.public.id]
    with pytest.raises(VerificationError):
        envelope.verify([theirs(SigningKey.generate().public)], 1)
    envelope.payload += b" "
    with pytest.raises(VerificationError):
        envelope.verify([theirs(key.public)], 1)


def test_an_independent_in_toto_library_takes_the_statement(key):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # protobuf's own
        pb = pytest.importorskip("in_toto_attestation.v1.statement_pb2")
        from google.protobuf.json_format import ParseDict
        from in_toto_attestation.v1.statement import Statement
    statement = Statement.copy_from_pb(ParseDict(Receipt(stated(), key).statement, pb.Statement()))
    statement.validate()
    assert statement.pb.subject[0].digest["sha256"] == argv_sha256(COMMAND.argv)


def test_keys_are_read_from_pem_and_never_shown(tmp_path):
    path = tmp_path / "key.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", str(path)], check=True, capture_output=True)
    public = subprocess.run(
        ["openssl", "pkey", "-in", str(path), "-pubout"], check=True, capture_output=True, stdin=subprocess.DEVNULL
    ).stdout
    key = SigningKey.from_file(path)
    assert PublicKey.from_pem(public).id == key.public.id
    assert key.public.pem() == public
    assert repr(key) == f"<SigningKey {key.public.id[:16]}>"
    assert SigningKey.take(key) is key
    for wrong in (b"", b"-----BEGIN x", public):
        with pytest.raises(ConfigError):
            SigningKey.from_pem(wrong)
    for wrong in (b"", path.read_bytes()):
        with pytest.raises(ConfigError):
            PublicKey.from_pem(wrong)
    with pytest.raises(ConfigError):
        SigningKey.take(b"bytes")
    with pytest.raises(AuditError):
        PublicKey.from_file(tmp_path / "nothing")


def test_nothing_of_a_payload_is_given_out_before_its_signature_holds(key):
    envelope = seal_envelope("text/plain", b"hello", key)
    assert open_envelope(envelope, "text/plain", key.public) == b"hello"
