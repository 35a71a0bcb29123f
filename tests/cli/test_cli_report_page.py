"""`kavach report`: what is on the page of a result and of an audit log, and that nothing else is."""

from __future__ import annotations

import hashlib
import json
import os
import re
from base64 import b64encode
from html.parser import HTMLParser
from types import SimpleNamespace

import msgspec
import pytest
from command_line import kavach

from kavach import ConfigError
from kavach.audit.log import AuditLog
from kavach.audit.payload import AuditEvent, enforcement_payload, findings_payload, outcome_payload, transition_payload
from kavach.cli import page as pieces
from kavach.cli.report import main, make_page
from kavach.model.enforcement import Ask, Control, ControlState, Enforcement
from kavach.model.result import EndReason, ExecResult
from kavach.model.verdict import Finding, Verdict
from kavach.policy.strength import score_enforcement

ATTACKS = [
    "<script>alert(1)</script>",
    "</title><img src=x onerror=alert(1)>",
    '"><svg onload=alert(1)>',
    "a&amp;b",
    "\u202egnp",
    "\x1b[2J",
]
VOID = {"meta", "path", "rect", "line"}
ALLOWED = {
    *("html", "head", "meta", "title", "style", "body", "main", "footer", "header", "section", "div", "span", "p"),
    *("h1", "h2", "h3", "table", "thead", "tbody", "tr", "th", "td", "dl", "dt", "dd", "ol", "ul", "li", "code"),
    *("details", "summary", "svg", "path", "rect", "line", "text"),
}


class Reader(HTMLParser):
    """Holds a page to its grammar: known elements, every one closed, no attribute that loads or runs."""

    def __init__(self):
        super().__init__()
        self.open, self.texts, self.seen = [], [], set()

    def handle_starttag(self, tag, attrs):
        assert tag in ALLOWED, tag
        for name, value in attrs:
            assert not name.startswith("on"), name
            assert name not in {"src", "href", "srcset", "style", "action", "xlink:href"}, name
            assert value is None or "url(" not in value
        self.seen.add(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.texts.append(data)

    @property
    def text(self):
        return re.sub(r"\s+", " ", " ".join(self.texts))


def read(text):
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert reader.open == []
    return reader


def result(**changes):
    row = {
        "control": "seccomp",
        "asked": True,
        "state": "enforced",
        "detail": "allow_list",
        "evidence": "Seccomp 2",
        "reason": "",
        "worth": 5,
    }
    lacking = row | {
        "control": "limits",
        "state": "degraded",
        "detail": "rlimits",
        "evidence": "",
        "reason": "no writable cgroup",
    }
    scored = {
        "control": "seccomp",
        "asked": True,
        "state": "enforced",
        "points": 5,
        "worth": 5,
        "evidence": "Seccomp 2",
        "to_raise": "",
    }
    weak = scored | {
        "control": "limits",
        "state": "degraded",
        "points": 1,
        "worth": 2,
        "evidence": "",
        "to_raise": "a delegated cgroup",
    }
    unasked = scored | {"control": "tcp_ports", "asked": False, "state": "not_asked", "points": 0, "evidence": ""}
    return {
        "schema": "kavach.result/1",
        "sandbox_id": "sb-0123",
        "reason": "exit",
        "exit_code": 3,
        "signal": None,
        "duration_ms": 1234.5,
        "usage": {
            "cpu_time_ms": 20.0,
            "memory_peak_bytes": 3 << 20,
            "pids_peak": 2,
            "io_read_bytes": None,
            "io_write_bytes": None,
        },
        "enforcement": {"backend": "process", "rows": [row, lacking], "holes": []},
        "score": {"value": 56, "label": "standard", "rows": [scored, weak, unasked]},
        "requested_score": {"value": 61, "label": "standard", "rows": []},
        "verdict": "warn",
        "findings": [],
        "denials": [],
        "limits_hit": [],
        "stdout": "OUTPUT-OF-THE-COMMAND",
        "stderr": "",
        "receipt": None,
        "a_field_of_a_later_version": 1,
    } | changes


def finding(**changes):
    return {
        "id": "1", "scanner": "secrets", "rule": "aws", "category": "credential", "severity": "critical",
        "message": "A key", "stream": "stdout", "start": 5, "end": 25, "evidence": "20 characters",
    } | changes  # fmt: skip


def page_of(tmp_path, content, name="r.json"):
    path = tmp_path / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return make_page(str(path))


def record(serial, event, prev, **payload):
    mac = hashlib.sha256(f"{serial}{prev}".encode()).hexdigest()
    sandbox = payload.pop("sandbox", "sb-1")
    made = {"serial": serial, "time_utc": f"2026-11-23T02:00:{serial % 60:02}.000+00:00", "event": event}
    return made | {"sandbox_id": sandbox, "agent_id": "agent-1", "payload": payload, "prev": prev, "mac": mac}


def log(*events):
    """Return records that name one another, from pairs of event and payload."""
    prev, lines = "0" * 64, []
    for serial, (event, payload) in enumerate(events):
        made = record(serial, event, prev, **payload)
        prev = made["mac"]
        lines.append(json.dumps(made))
    return lines


def test_a_result_shows_strength_with_its_rows_ending_and_gate(tmp_path):
    found = read(page_of(tmp_path, result())).text
    for words in (
        "Run in sb-0123",
        "56 standard",
        "61 (standard) was asked for",
        "exited with code 3",
        "1,234.5 ms",
        "3.0 MiB",
        "warn",
        "5 of 5",
        "1 of 2",
        "a delegated cgroup",
        "no writable cgroup",
        "1 of 2 controls seen in force; not fully: limits",
        "Not asked for tcp ports",
        "21 bytes released",
        "No receipt",
    ):
        assert words in found, words


def test_what_the_command_wrote_is_not_on_the_page(tmp_path):
    exact = b64encode(b"OUTPUT\xff").decode()
    text = page_of(tmp_path, result(stderr="OUTPUT?", stderr_base64=exact))
    assert "OUTPUT" not in text
    assert exact not in text
    assert "7 bytes released" in read(text).text


def test_findings_denials_limits_and_holes_are_shown(tmp_path):
    denial = {"what": "open", "target": "/etc/shadow", "rule": "filesystem", "change": "read it", "sentence": "no"}
    shown = result(
        findings=[finding()], denials=[denial], limits_hit=["oom"], quarantine_id="q-77", reason="oom", exit_code=None
    )
    shown["enforcement"]["holes"] = ["network_escaped"]
    found = read(page_of(tmp_path, shown)).text
    for words in (
        "aws ✕ critical",
        "stdout 5-25",
        "20 characters",
        "/etc/shadow",
        "read it",
        "q-77",
        "network escaped",
    ):
        assert words in found, words
    assert "ended by the memory limit" in found


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("signal", "ended by signal 9"),
        ("timeout", "ended by its time limit"),
        ("pids", "ended by the limit on processes"),
        ("disk", "ended by a full disk"),
        ("output_limit", "ended by the output limit"),
        ("withheld", "withheld by the gate"),
        ("backend_lost", "lost with its wall"),
        ("not_run", "not run"),
        ("a_later_reason", "a_later_reason"),
    ],
)
def test_every_ending_and_a_run_without_a_wall_have_a_page(tmp_path, reason, words):
    verdict = "block" if reason == "withheld" else "not_scanned"
    shown = result(reason=reason, exit_code=None, signal=9, enforcement=None, verdict=verdict)
    found = read(page_of(tmp_path, shown)).text
    assert words in found
    assert "No wall was built" in found


@pytest.mark.parametrize("attack", ATTACKS)
def test_nothing_that_a_file_says_becomes_markup(tmp_path, attack):
    hostile = finding(
        **dict.fromkeys(("rule", "severity", "scanner", "category", "message", "stream", "evidence"), attack)
    )
    denial = dict.fromkeys(("what", "target", "rule", "change", "sentence"), attack)
    content = result(
        sandbox_id=attack,
        reason=attack,
        verdict=attack,
        quarantine_id=attack,
        findings=[hostile],
        denials=[denial],
        limits_hit=[attack],
    )
    for row in content["enforcement"]["rows"] + content["score"]["rows"]:
        row |= {
            "control": attack,
            "state": attack,
            "evidence": attack,
            "reason": attack,
            "detail": attack,
            "to_raise": attack,
        }
    content["enforcement"] |= {"backend": attack, "holes": [attack]}
    text = page_of(tmp_path, content)
    read(text)
    assert "\u202e" not in text
    assert "\x1b" not in text
    lines = log(
        (
            "exec.outcome",
            {"reason": attack, "verdict": attack, "sandbox": attack, "score": 5, "findings": [hostile], attack: attack},
        )
    )
    read(page_of(tmp_path, "\n".join(lines), name="a.jsonl"))


def test_the_page_forbids_scripts_and_every_resource_but_its_own_style(tmp_path):
    text = page_of(tmp_path, result())
    (style,) = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    digest = b64encode(hashlib.sha256(style.encode()).digest()).decode()
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    assert "prefers-color-scheme: dark" in style
    assert not re.search(r"https?:|//[a-z]|@import|url\(", style)


def test_the_page_names_its_source_by_digest(tmp_path):
    for name, content in (("r.json", json.dumps(result())), ("a.jsonl", "\n".join(log(("chain.genesis", {}))) + "\n")):
        text = page_of(tmp_path, content, name=name)
        assert hashlib.sha256(content.encode()).hexdigest() in text


def test_a_log_shows_endings_verdicts_the_weakest_wall_and_its_records(tmp_path):
    rows = [{"control": "limits", "asked": True, "state": "degraded", "evidence": "", "reason": "no writable cgroup"}]
    lines = log(
        ("chain.genesis", {"sandbox": None}),
        ("exec.outcome", {"sandbox": "sb-a", "reason": "exit", "exit_code": 0, "verdict": "pass", "score": 70}),
        ("enforcement", {"sandbox": "sb-b", "backend": "process", "rows": rows}),
        (
            "exec.outcome",
            {
                "sandbox": "sb-b",
                "reason": "withheld",
                "verdict": "block",
                "score": 41,
                "findings": [finding()],
            },
        ),
    )
    found = read(page_of(tmp_path, "\n".join(lines), name="a.jsonl")).text
    for words in (
        "Audit log a.jsonl",
        "4 records",
        "41 basic",
        "in sb-b",
        "no writable cgroup",
        "2 commands",
        "withheld 1",
        "block 1",
        "✕ critical",
        "links whole",
        "chain.genesis",
        "Sandboxes 2",
    ):
        assert words in found, words


def test_a_log_that_kavach_wrote_shows_points_findings_and_endings(tmp_path):
    controls = {"seccomp": "allow_list", "network": "namespace"}
    rows = [
        Ask(control=Control(name), asked=True, worth=5).row(
            ControlState.ENFORCED, detail=detail, evidence=f"{name} seen"
        )
        for name, detail in controls.items()
    ]
    enforcement = Enforcement.of("process", rows)
    score = score_enforcement(enforcement)
    ended = ExecResult(
        sandbox_id="sb-1", reason=EndReason.TIMEOUT, verdict=Verdict.WARN, score=score, requested_score=score,
        findings=(msgspec.convert(finding(), Finding),) * 102, enforcement=enforcement,
    )  # fmt: skip
    receipt = SimpleNamespace(digest="ab" * 32)
    with AuditLog(tmp_path / "audit.jsonl", key=bytes(range(32))) as log_file:
        for event, payload in (
            (AuditEvent.TRANSITION, transition_payload("created", "running")),
            (AuditEvent.LIMITS, {"limits_hit": ["oom", "pids"], "nested": {"not": "shown"}, "none": None}),
            (AuditEvent.ENFORCEMENT, enforcement_payload(enforcement, score)),
            (AuditEvent.FINDINGS, findings_payload(ended.findings)),
            (AuditEvent.OUTCOME, outcome_payload(ended, intent_serial=0, receipt=receipt)),
        ):
            log_file.append(event, sandbox_id="sb-1", agent_id="agent-1", payload=payload)
    found = read(make_page(str(tmp_path / "audit.jsonl"))).text
    for words in (
        "links whole",
        "5 of 5",
        "seccomp seen",
        "timeout 1",
        "warn 1",
        "The last 100 of 102",
        "chain.genesis",
    ):
        assert words in found, words
    assert f"{int(score)} {score.label}" in found
    assert "limits_hit oom pids" in found
    assert f"receipt_sha256 {'ab' * 6}…" in found


@pytest.mark.parametrize("spoil", ["drop", "swap", "torn"])
def test_a_log_whose_records_do_not_follow_one_another_says_so(tmp_path, spoil):
    lines = log(*[("exec.intent", {"n": n}) for n in range(5)])
    if spoil == "drop":
        del lines[2]
    elif spoil == "swap":
        lines[1], lines[2] = lines[2], lines[1]
    else:
        lines[4] = lines[4][:40]
    found = read(page_of(tmp_path, "\n".join(lines), name="a.jsonl")).text
    assert "links broken" in found
    assert ("Unreadable lines 1" in found) is (spoil == "torn")


def test_a_long_log_is_cut_and_says_how_much_is_left_out(tmp_path):
    lines = log(
        *[("exec.outcome", {"reason": "exit", "exit_code": 0, "verdict": "pass", "score": 50}) for _ in range(2100)]
    )
    text = page_of(tmp_path, "\n".join(lines), name="a.jsonl")
    found = read(text).text
    assert "The last 2,000 of 2,100" in found
    assert "The last 500 of 2,100" in found
    assert "2,100 commands" in found


@pytest.mark.parametrize(
    ("content", "key"),
    [
        ("", None),
        ("not json", None),
        ("[]", "$"),
        ('{"schema": "kavach.result/1"}', "$"),
        (json.dumps(result(schema="kavach.result/9")), "$.schema"),
        (json.dumps(result(exit_code="3")), "$.exit_code"),
        (json.dumps(result(findings=[{"rule": 5}])), "$.findings[0].rule"),
    ],
)
def test_what_is_neither_result_nor_log_is_refused_with_its_path(tmp_path, content, key):
    with pytest.raises(ConfigError) as caught:
        page_of(tmp_path, content)
    assert caught.value.key == key
    assert caught.value.source


def test_a_pretty_printed_result_is_read_too(tmp_path):
    assert "sb-0123" in page_of(tmp_path, json.dumps(result(), indent=2))


def test_a_page_is_there_whole_or_not_at_all(tmp_path):
    (tmp_path / "r.json").write_text(json.dumps(result()))
    target = tmp_path / "page.html"
    target.write_text("before")
    assert main([str(tmp_path / "r.json"), "-o", str(target)]) == 0
    read(target.read_text())
    with pytest.raises(ConfigError):
        main([str(tmp_path / "r.json"), "-o", str(tmp_path / "missing" / "page.html")])
    with pytest.raises(ConfigError):
        main([str(tmp_path / "absent.json")])
    assert sorted(os.listdir(tmp_path)) == ["page.html", "r.json"]


def test_a_gauge_says_its_number_to_those_who_do_not_see_it():
    assert 'aria-label="Strength 0 of 100, minimal"' in pieces.gauge(0, "minimal")
    assert 'aria-label="Strength 100 of 100, fortress; asked for: 61"' in pieces.gauge(100, "fortress", asked=61)
    for value in (0, 29, 30, 100):
        read(str(pieces.gauge(value, "basic", asked=value)))


def test_one_field_of_a_megabyte_does_not_make_a_page_of_one():
    assert len(pieces.safe("x" * (1 << 20))) < 1000


@pytest.mark.needs("linux")
def test_the_command_reads_what_run_prints_from_a_pipe(tmp_path):
    made = kavach("run", "--json", "--policy", "basic", "--", "sh", "-c", "echo secret-word; exit 4")
    assert made.returncode == 4, made.stderr
    done = kavach("report", "-", "-o", str(tmp_path / "page.html"), stdin=made.stdout)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "page.html").read_text()
    assert "exited with code 4" in read(text).text
    assert "secret-word" not in text
