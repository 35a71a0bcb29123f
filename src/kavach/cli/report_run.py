"""One result of a run as a page: how strong the wall was seen to be, how the command ended, what the gate found.

Guarantees: what the command wrote is not part of the page, only its size; evidence of findings is shown as it is in the
result: masked. Does not: prove anything; it shows what the file says. May be called by: kavach.cli.report.
"""

from __future__ import annotations

from base64 import b64decode
from typing import TYPE_CHECKING, Any

import msgspec

from kavach.cli.page import Markup, bar, card, chip, element, facts, gauge, header, join, safe, section, table, timeline

if TYPE_CHECKING:
    from collections.abc import Iterable

SCHEMA = "kavach.result/1"
_NAMES = {
    "exit": "exited", "signal": "ended by a signal", "timeout": "ended by its time limit",
    "timeout_sibling": "ended by another command's time limit", "oom": "ended by the memory limit",
    "pids": "ended by the limit on processes", "disk": "ended by a full disk",
    "output_limit": "ended by the output limit", "policy_kill": "ended by the policy",
    "withheld": "withheld by the gate", "backend_lost": "lost with its wall", "not_run": "not run",
}  # fmt: skip
_VERDICTS = {
    "pass": "Nothing to keep back was found.",
    "warn": "Released, after what had to be hidden was hidden.",
    "quarantine": "Kept back for a person to decide.",
    "block": "Kept back and destroyed.",
    "not_scanned": "Nobody has read the output.",
}


class ScoreRowFile(msgspec.Struct):
    """A row of a strength."""

    control: str
    state: str
    asked: bool = True
    points: int = 0
    worth: int = 0
    evidence: str = ""
    to_raise: str = ""


class ScoreFile(msgspec.Struct):
    """A strength."""

    value: int
    label: str
    rows: list[ScoreRowFile] = []


class ControlRowFile(msgspec.Struct):
    """A row of the enforcement."""

    control: str
    state: str
    asked: bool = True
    detail: str = ""
    evidence: str = ""
    reason: str = ""


class EnforcementFile(msgspec.Struct):
    """What was seen in force."""

    backend: str
    rows: list[ControlRowFile] = []
    holes: list[str] = []


class FindingFile(msgspec.Struct):
    """A finding, masked."""

    rule: str
    severity: str
    scanner: str = ""
    category: str = ""
    message: str = ""
    stream: str = ""
    start: int = 0
    end: int = 0
    evidence: str = ""


class DenialFile(msgspec.Struct):
    """Something the wall refused."""

    what: str
    target: str = ""
    rule: str = ""
    change: str = ""


class UsageFile(msgspec.Struct):
    """What was used."""

    cpu_time_ms: float | None = None
    memory_peak_bytes: int | None = None
    pids_peak: int | None = None
    io_read_bytes: int | None = None
    io_write_bytes: int | None = None


class ResultFile(msgspec.Struct):
    """The fields of `kavach.result/1` that a page shows."""

    schema: str
    sandbox_id: str
    reason: str
    score: ScoreFile
    requested_score: ScoreFile
    verdict: str
    exit_code: int | None = None
    signal: int | None = None
    duration_ms: float = 0.0
    usage: UsageFile = msgspec.field(default_factory=UsageFile)
    enforcement: EnforcementFile | None = None
    findings: list[FindingFile] = []
    denials: list[DenialFile] = []
    limits_hit: list[str] | None = None
    quarantine_id: str | None = None
    truncated_stdout: bool = False
    truncated_stderr: bool = False
    stdout_dropped_bytes: int = 0
    stderr_dropped_bytes: int = 0
    stdout: str = ""
    stderr: str = ""
    stdout_base64: str | None = None
    stderr_base64: str | None = None
    receipt: Any = None


def run_page(result: ResultFile) -> tuple[str, Markup]:
    """Return title and body of the page of one result."""
    title = f"Run in {result.sandbox_id}"
    about = "No wall was built."
    if result.enforcement is not None:
        wall = result.enforcement.backend
        about = f"One command behind the {wall} wall; what is shown was observed before it started and while it ran."
    return title, join(
        header(title, element("p", about, css="soft")),
        element("div", _strength_card(result), _ending_card(result), _gate_card(result), css="cards"),
        section("How it went", timeline(_steps(result))),
        section("Strength, row by row", strength_table(result.score, result.enforcement)),
        section("Findings", findings_table(result.findings)),
        _denials(result),
        _receipt(result),
    )


def strength_table(score: ScoreFile, enforcement: EnforcementFile | None) -> Markup:
    """Return the rows that a strength was added up from; what nobody asked for is folded away."""
    seen = {row.control: row for row in (enforcement.rows if enforcement is not None else ())}
    asked = [row for row in score.rows if row.asked]
    others = ", ".join(row.control.replace("_", " ") for row in score.rows if not row.asked)
    head = ["control", "state", "what was seen…"]
    if has_points := any(row.worth for row in asked):
        head += ["points", "what would raise it…"]
    folded = element("details", element("summary", "Not asked for"), element("p", others, css="small soft"))
    rows = [_strength_row(row, seen.get(row.control), has_points=has_points) for row in asked]
    return join(_holes(enforcement), table(head, rows), folded if others else Markup())


def _holes(enforcement: EnforcementFile | None) -> Markup:
    if enforcement is None or not enforcement.holes:
        return Markup()
    names = ", ".join(enforcement.holes).replace("_", " ")
    return element("p", chip("hole", "bad"), f" {names}: a probe got through, which caps the strength")


def findings_table(findings: Iterable[FindingFile]) -> Markup:
    """Return findings as the scanners masked them."""
    rows = [
        (
            one.rule,
            chip(one.severity),
            f"{one.scanner} / {one.category}" if one.category else one.scanner,
            one.message,
            element("span", f"{one.stream} {one.start}-{one.end}", css="nowrap"),
            element("code", one.evidence),
        )
        for one in findings
    ]
    if not rows:
        return element("p", "None.", css="note")
    return table(("rule", "severity", "scanner", "what…", "where", "evidence, masked…"), rows)


def ending(reason: str, exit_code: int | None, signal: int | None) -> str:
    """Return how a command ended, in a few words."""
    if reason == "exit":
        return f"exited with code {exit_code}"
    return f"ended by signal {signal}" if reason == "signal" else _NAMES.get(reason, reason)


def ending_tone(reason: str, exit_code: int | None) -> str:
    """Return how an ending is coloured."""
    if reason == "exit":
        return "good" if exit_code == 0 else "weak"
    return "bad" if reason in {"withheld", "backend_lost", "policy_kill"} else "weak"


def amount(count: int | None) -> str | None:
    """Return bytes as people read them."""
    if count is None:
        return None
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"


def _strength_card(result: ResultFile) -> Markup:
    score, asked = result.score, result.requested_score
    words = (
        f"{asked.value} ({asked.label}) was asked for." if asked.value != score.value else "As much as was asked for."
    )
    return card(
        "Observed strength", gauge(score.value, score.label, asked=asked.value), element("p", words, css="small soft")
    )


def _ending_card(result: ResultFile) -> Markup:
    usage, tone = result.usage, ending_tone(result.reason, result.exit_code)
    return card(
        "Ending",
        element("p", ending(result.reason, result.exit_code, result.signal), css=f"big t-{tone}"),
        facts(
            (
                ("Wall clock", f"{result.duration_ms:,.1f} ms"),
                ("Processor", None if usage.cpu_time_ms is None else f"{usage.cpu_time_ms:,.1f} ms"),
                ("Memory, peak", amount(usage.memory_peak_bytes)),
                ("Processes, peak", usage.pids_peak),
                ("Read / written", _io(usage)),
                ("Limits hit", ", ".join(result.limits_hit) if result.limits_hit else None),
            )
        ),
    )


def _io(usage: UsageFile) -> str | None:
    if usage.io_read_bytes is None or usage.io_write_bytes is None:
        return None
    return f"{amount(usage.io_read_bytes)} / {amount(usage.io_write_bytes)}"


def _gate_card(result: ResultFile) -> Markup:
    held = result.verdict in {"block", "quarantine"}
    return card(
        "Gate",
        element("p", chip(result.verdict), css="big"),
        element("p", _VERDICTS.get(result.verdict, ""), css="small soft"),
        facts(
            (
                ("Findings", len(result.findings)),
                ("stdout", None if held else _size(result.stdout, result.stdout_base64, result.stdout_dropped_bytes)),
                ("stderr", None if held else _size(result.stderr, result.stderr_base64, result.stderr_dropped_bytes)),
                ("Quarantine", result.quarantine_id),
            )
        ),
    )


def _size(text: str, exact: str | None, dropped: int) -> str:
    count = len(text.encode()) if exact is None else len(b64decode(exact))
    return f"{amount(count)} released" + (f", {amount(dropped)} dropped at the cap" if dropped else "")


def _steps(result: ResultFile) -> list[tuple[str, str, object, object]]:
    rows: list[tuple[str, str, object, object]] = []
    if result.enforcement is not None:
        asked = [row for row in result.enforcement.rows if row.asked]
        held = [row for row in asked if row.state == "enforced"]
        tone = "good" if len(held) == len(asked) else "weak"
        lacking = ", ".join(row.control for row in asked if row not in held)
        more = f"{len(held)} of {len(asked)} controls seen in force" + (f"; not fully: {lacking}" if lacking else "")
        rows.append((tone, "before the start", "Wall observed", more))
    rows.append(("info", "0 ms", "Command started", ""))
    rows += [("weak", "", "Denied", f"{one.what} {one.target} by {one.rule}") for one in result.denials[:20]]
    rows += [("weak", "", "Limit hit", name) for name in result.limits_hit or ()]
    end = ending(result.reason, result.exit_code, result.signal)
    rows.append((ending_tone(result.reason, result.exit_code), f"{result.duration_ms:,.1f} ms", "Ended", end))
    verdict = "weak" if result.verdict == "not_scanned" else {"pass": "good", "warn": "weak"}.get(result.verdict, "bad")
    rows.append((verdict, "", "Gate", join(chip(result.verdict), f" {len(result.findings)} findings")))
    return rows


def _strength_row(row: ScoreRowFile, seen: ControlRowFile | None, *, has_points: bool) -> list[object]:
    detail = "" if seen is None else seen.detail.replace("_", " ")
    reason = "" if seen is None else seen.reason
    mechanism = element("div", detail, css="small soft") if detail else Markup()
    evidence = element("code", row.evidence) if row.evidence else Markup()
    why = element("p", reason, css="small") if reason else Markup()
    cells: list[object] = [row.control.replace("_", " "), join(chip(row.state), mechanism), join(evidence, why)]
    if has_points:
        points = join(f"{row.points} of {row.worth}", bar(row.points, row.worth)) if row.worth else safe("reported")
        cells += [points, row.to_raise]
    return cells


def _denials(result: ResultFile) -> Markup:
    if not result.denials:
        return Markup()
    rows = [(one.what, element("code", one.target), one.rule, element("code", one.change)) for one in result.denials]
    return section(
        "Refused by the wall", table(("act", "target…", "rule", "smallest change that would allow it…"), rows)
    )


def _receipt(result: ResultFile) -> Markup:
    words = (
        "No receipt: nothing but this page's source says so."
        if result.receipt is None
        else "The result carries a receipt; `kavach audit receipt verify` checks it without a network."
    )
    return section("Receipt", element("p", words, css="note"))
