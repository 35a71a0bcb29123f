"""An audit log as a page: what ran, how it ended, what the gate found, and the records in their order.

Guarantees: the file is read once, line by line, in bounded memory; what is left out of the page is counted on it. Says
whether each record names the one before it, which anybody can see; does not: check a MAC, which needs the key (`kavach
audit verify` does). May be called by: kavach.cli.report.
"""

from __future__ import annotations

import contextlib
import re
from collections import Counter, deque
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from kavach.cli.page import (
    TONES,
    Markup,
    Part,
    card,
    chip,
    element,
    facts,
    gauge,
    header,
    join,
    section,
    strip,
    table,
    timeline,
)
from kavach.cli.report_run import (
    ControlRowFile,
    EnforcementFile,
    FindingFile,
    ScoreFile,
    ScoreRowFile,
    ending,
    ending_tone,
    findings_table,
    strength_table,
)
from kavach.errors import KavachError
from kavach.model.enforcement import Enforcement
from kavach.model.score import StrengthScore
from kavach.policy.strength import score_enforcement

if TYPE_CHECKING:
    from collections.abc import Iterable

T = TypeVar("T")
MOST_RECORDS, MOST_RUNS, MOST_FINDINGS = 2000, 500, 500  # protect a browser from a page of a million rows
_DIGEST, _DIGEST_SHOWN = re.compile("[0-9a-f]{40,128}"), 12
_ENDED = "outcome"  # the last word of the record that says what became of a command


class RecordFile(msgspec.Struct):
    """One line of an audit log."""

    serial: int
    time_utc: str
    event: str
    prev: str
    mac: str
    sandbox_id: str | None = None
    agent_id: str | None = None
    payload: dict[str, Any] = {}


class LogFile:
    """What is kept of a log while it is read."""

    def __init__(self) -> None:
        self.count: int = 0
        self.unreadable: int = 0
        self.broken_links: int = 0
        self.first: RecordFile | None = None
        self.last: RecordFile | None = None
        self.endings: Counter[str] = Counter()
        self.verdicts: Counter[str] = Counter()
        self.sandboxes: set[str] = set()
        self.agents: set[str] = set()
        self.records: deque[RecordFile] = deque(maxlen=MOST_RECORDS)
        self.runs: deque[RecordFile] = deque(maxlen=MOST_RUNS)
        self.findings: deque[FindingFile] = deque(maxlen=MOST_FINDINGS)
        self.finding_count: int = 0
        self.weakest: tuple[int, RecordFile] | None = None
        self.enforcement: dict[str | None, dict[str, Any]] = {}

    def add(self, record: RecordFile) -> None:
        """Take one record in."""
        if self.last is not None and (record.prev, record.serial) != (self.last.mac, self.last.serial + 1):
            self.broken_links += 1
        self.first = self.first or record
        self.last = record
        self.count += 1
        self.records.append(record)
        if record.sandbox_id is not None and len(self.sandboxes) < 1_000_000:
            self.sandboxes.add(record.sandbox_id)
        if record.agent_id is not None and len(self.agents) < 1_000_000:
            self.agents.add(record.agent_id)
        self._note_rows(record)
        if record.event.rpartition(".")[2] == _ENDED:
            self._end(record)
        findings = _list(record.payload.get("findings"))
        omitted = record.payload.get("omitted")
        self.finding_count += len(findings) + (omitted if isinstance(omitted, int) else 0)
        self.findings += _converted(findings, FindingFile)

    def _end(self, record: RecordFile) -> None:
        self.runs.append(record)
        self.endings[str(record.payload.get("reason", "unknown"))] += 1
        self.verdicts[str(record.payload.get("verdict", "not_scanned"))] += 1
        score = _score(record.payload)
        if score is not None and (self.weakest is None or score < self.weakest[0]):
            self.weakest = score, record

    def _note_rows(self, record: RecordFile) -> None:
        if _list(record.payload.get("rows")):
            self.enforcement[record.sandbox_id] = record.payload
            if len(self.enforcement) > MOST_RUNS:
                self.enforcement.pop(next(iter(self.enforcement)))


def read_log(lines: Iterable[bytes]) -> LogFile:
    """Return what a page shows of a log; a line that is no record is counted."""
    found, decoder = LogFile(), msgspec.json.Decoder(RecordFile)
    for line in lines:
        try:
            record = decoder.decode(line)
        except msgspec.DecodeError:
            found.unreadable += bool(line.strip())
            continue
        found.add(record)
    return found


def log_page(log: LogFile, name: str) -> tuple[str, Markup]:
    """Return title and body of the page of one log.

    Args:
        log: what was read.
        name: the file's, without its folder.
    """
    title = f"Audit log {name}"
    first, last = ("", "") if log.first is None or log.last is None else (log.first.time_utc, log.last.time_utc)
    about = f"{log.count:,} records, {_time(first)} to {_time(last)} (UTC)" if log.count else "No record."
    return title, join(
        header(title, element("p", about, css="soft")),
        element("div", _strength_card(log), _endings_card(log), _chain_card(log), css="cards"),
        _weakest_rows(log),
        section("Commands", _runs(log)),
        section("Findings", findings_table(log.findings), _left_out(log.finding_count, len(log.findings))),
        section("Timeline", _records(log), _left_out(log.count, len(log.records))),
    )


def _strength_card(log: LogFile) -> Markup:
    if log.weakest is None:
        return card("Strength", element("p", "No command ended.", css="soft"))
    score, record = log.weakest
    return card(
        "Weakest wall",
        gauge(score, StrengthScore(score).label),
        element("p", f"The lowest observed strength of all commands, in {record.sandbox_id}.", css="small soft"),
    )


def _endings_card(log: LogFile) -> Markup:
    parts = [Part(reason, count, ending_tone(reason, 0)) for reason, count in log.endings.most_common()]
    verdicts = [Part(verdict, count, TONES.get(verdict, "none")) for verdict, count in log.verdicts.most_common()]
    return card(
        "Endings",
        element("p", f"{sum(log.endings.values()):,} commands", css="big"),
        strip(parts) if parts else Markup(),
        element("h3", "Verdicts of the gate"),
        strip(verdicts) if verdicts else Markup(),
    )


def _chain_card(log: LogFile) -> Markup:
    whole = not log.broken_links and not log.unreadable
    words = "links whole" if whole else "links broken"
    return card(
        "Chain",
        element("p", chip(words, "good" if whole else "bad"), css="big"),
        element(
            "p",
            "Each record names the one before it. ",
            element("code", "kavach audit verify"),
            " checks the MACs, which needs the key.",
            css="small soft",
        ),
        facts(
            (
                ("Records", f"{log.count:,}"),
                ("Broken links", log.broken_links or None),
                ("Unreadable lines", log.unreadable or None),
                ("Sandboxes", f"{len(log.sandboxes):,}"),
                ("Agents", f"{len(log.agents):,}"),
                ("Last MAC", element("code", log.last.mac) if log.last is not None else None),
            )
        ),
    )


def _weakest_rows(log: LogFile) -> Markup:
    if log.weakest is None:
        return Markup()
    value, record = log.weakest
    recorded = log.enforcement.get(record.sandbox_id)
    if recorded is None:
        return Markup()
    seen = EnforcementFile(
        backend=str(recorded.get("backend", "")),
        rows=_converted(_list(recorded.get("rows")), ControlRowFile),
        holes=[str(hole) for hole in _list(recorded.get("holes"))],
    )
    rows = _points(recorded, value) or [
        ScoreRowFile(one.control, one.state, one.asked, evidence=one.evidence) for one in seen.rows
    ]
    score = ScoreFile(value, StrengthScore(value).label, rows)
    return section("The weakest wall, row by row", strength_table(score, seen))


def _points(recorded: dict[str, Any], value: int) -> list[ScoreRowFile]:
    """Return the rows with what each earned, nothing where today's weights give another strength than the recorded."""
    given = {name: recorded.get(name) for name in Enforcement.__struct_fields__}
    try:
        score = score_enforcement(msgspec.convert(given, Enforcement))
    except (msgspec.ValidationError, KavachError):  # a log of another version
        return []
    rows = msgspec.to_builtins(list(score.rows))
    return _converted(rows, ScoreRowFile) if int(score) == value else []


def _runs(log: LogFile) -> Markup:
    rows = [_run(record) for record in log.runs]
    if not rows:
        return element("p", "None.", css="note")
    head = ("when (UTC)", "sandbox", "agent", "ending", "verdict", "strength")
    return join(table(head, rows, numbers=frozenset({5})), _left_out(sum(log.endings.values()), len(log.runs)))


def _run(record: RecordFile) -> tuple[object, ...]:
    known = record.payload
    code, signal = known.get("exit_code"), known.get("signal")
    reason = str(known.get("reason", "unknown"))
    words = ending(reason, code, signal)
    verdict = str(known.get("verdict", "not_scanned"))
    return (
        _time(record.time_utc),
        element("code", record.sandbox_id),
        record.agent_id,
        chip(words, ending_tone(reason, code)),
        chip(verdict),
        _score(known),
    )


def _records(log: LogFile) -> Markup:
    if not log.records:
        return element("p", "None.", css="note")
    return timeline((_tone(one), _time(one.time_utc), one.event, _more(one)) for one in log.records)


def _tone(record: RecordFile) -> str:
    words = (record.payload.get(name) for name in ("verdict", "state", "reason"))
    found = [TONES[word] for word in words if isinstance(word, str) and word in TONES]
    return next((tone for tone in ("bad", "weak", "good", "info") if tone in found), "")


def _more(record: RecordFile) -> Markup:
    who = [element("code", record.sandbox_id), " "] if record.sandbox_id is not None else []
    shown = {name: _plain(value) for name, value in record.payload.items()}
    return join(*who, ", ".join(f"{name} {value}" for name, value in shown.items() if value))


def _plain(value: object) -> str:
    """Return a value in a few words, nothing for what has none: nested values are shown elsewhere."""
    if isinstance(value, list):
        return " ".join(one for one in value if isinstance(one, str))
    if isinstance(value, str):
        return f"{value[:_DIGEST_SHOWN]}…" if _DIGEST.fullmatch(value) else value
    return str(value) if isinstance(value, (int, float)) else ""


def _left_out(total: int, shown: int) -> Markup:
    if total <= shown:
        return Markup()
    return element("p", f"The last {shown:,} of {total:,}; the others are in the file.", css="small soft")


def _time(text: str) -> str:
    return text[:19].replace("T", " ")


def _score(payload: dict[str, Any]) -> int | None:
    value = payload.get("score")
    return value if isinstance(value, int) and 0 <= value <= 100 else None


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _converted(values: list[Any], kind: type[T]) -> list[T]:
    """Return the values that have this shape; what a log of another version says differently is left out."""
    found = []
    for value in values:
        with contextlib.suppress(msgspec.ValidationError):
            found.append(msgspec.convert(value, kind))
    return found
