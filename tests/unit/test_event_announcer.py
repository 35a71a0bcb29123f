"""What one sandbox tells: its life, what is not in force, what ended how; and what it never tells."""

from __future__ import annotations

import pytest

from kavach import ConfigError, SandboxConfig, UnsupportedError
from kavach.audit.events import Announcer, EventBus, make_announcer, topics
from kavach.audit.metrics import Counters, StepClock
from kavach.model.enforcement import Control, ControlRow, ControlState, Enforcement
from kavach.model.result import Denial, EndReason, ExecResult
from kavach.model.score import StrengthScore
from kavach.model.state import SandboxState
from kavach.model.verdict import Finding, Severity, Verdict

DEADLINE_S = 10
SCORE = StrengthScore(61)


@pytest.fixture
def told():
    """Return a bus and a function that gives what was told on it, as pairs of kind and payload."""
    bus, got = EventBus(), []
    bus.subscribe("sandbox/#", got.append)

    def read():
        assert bus.drain(DEADLINE_S)
        return [(event.kind, event.payload) for event in got]

    yield bus, read
    bus.close()


def result(**fields):
    made = {"sandbox_id": "sb-1", "reason": EndReason.EXIT, "exit_code": 0, "verdict": Verdict.PASS}
    return ExecResult(**{**made, "score": SCORE, "requested_score": SCORE, **fields})


def finding(rule, severity):
    return Finding(
        id=rule,
        scanner="secrets",
        rule=rule,
        category="secret",
        severity=severity,
        message="a key",
        stream="stdout",
        start=0,
        end=9,
        evidence="abcd, 40 characters",
    )


def enforcement(**states):
    rows = [
        ControlRow(control=Control(name), asked=True, state=ControlState(state), reason=f"why {name}")
        for name, state in states.items()
    ]
    return Enforcement.of("process", rows)


def test_a_life_is_told_by_its_steps(told):
    bus, read = told
    voice = Announcer(bus, "sb-1", counters=Counters())
    voice.enter(SandboxState.CREATED, backend="process")
    for state in ("running", "paused", "running", "stopped", "destroyed"):
        voice.enter(SandboxState(state))
    kinds = [kind for kind, _ in read()]
    assert kinds == [
        f"lifecycle/{word}" for word in ("created", "started", "paused", "resumed", "stopped", "destroyed")
    ]
    assert read()[0][1] == {"state": "created", "before": None, "backend": "process"}
    assert read()[3][1] == {"state": "running", "before": "paused"}


def test_a_sandbox_destroyed_out_of_pause_is_told_as_destroyed(told):
    bus, read = told
    voice = Announcer(bus, "sb-1", counters=Counters())
    for state in ("created", "running", "paused", "destroyed"):
        voice.enter(SandboxState(state))
    assert [kind for kind, _ in read()][-1] == topics.DESTROYED


def test_what_is_not_in_force_is_told_once_a_sandbox_as_one_event(told):
    bus, read = told
    voice = Announcer(bus, "sb-1", counters=Counters())
    seen = enforcement(limits="degraded", user_ns="unsupported", seccomp="enforced")
    for _ in range(3):
        voice.observe(seen, 47)
    ((kind, payload),) = read()
    assert kind == "policy/degraded"
    assert payload["controls"] == ("user_ns", "limits")
    assert payload["states"] == ("unsupported", "degraded")
    assert payload["reasons"] == ("why user_ns", "why limits")
    assert (payload["score"], payload["backend"]) == (47, "process")


def test_nothing_is_told_of_controls_that_are_all_in_force(told):
    bus, read = told
    Announcer(bus, "sb-1", counters=Counters()).observe(enforcement(seccomp="enforced", limits="not_asked"), 80)
    assert read() == []


def test_a_refusal_is_told_with_its_control(told):
    bus, read = told
    error = UnsupportedError("no Landlock here; nothing was run", control="filesystem")
    Announcer(bus, "sb-1", counters=Counters()).refuse(error)
    assert read() == [
        ("policy/blocked", {"error": "UnsupportedError", "control": "filesystem", "message": str(error)}),
    ]


@pytest.mark.parametrize(
    ("verdict", "kind"),
    [("warn", "scan/warning"), ("quarantine", "scan/quarantined"), ("block", "scan/blocked")],
)
def test_a_verdict_is_told_with_rules_and_the_worst_severity(told, verdict, kind):
    bus, read = told
    found = (finding("aws", Severity.MEDIUM), finding("pem", Severity.CRITICAL), finding("aws", Severity.LOW))
    Announcer(bus, "sb-1", counters=Counters()).end(result(verdict=Verdict(verdict), findings=found))
    ((told_kind, payload),) = read()
    assert told_kind == kind
    assert payload["rules"] == ("aws", "pem")
    assert (payload["worst_severity"], payload["findings"]) == ("critical", 3)


def test_a_quiet_ending_is_not_told(told):
    bus, read = told
    voice = Announcer(bus, "sb-1", counters=Counters())
    voice.end(result())
    voice.end(result(verdict=Verdict.NOT_SCANNED))
    assert read() == []


def test_every_limit_that_was_hit_is_an_event_of_its_own(told):
    bus, read = told
    ended = result(reason=EndReason.TIMEOUT, exit_code=None, limits_hit=("oom", "timeout"))
    Announcer(bus, "sb-1", counters=Counters()).end(ended)
    assert [kind for kind, _ in read()] == ["limit/oom", "limit/timeout"]
    assert read()[1][1] == {"reason": "timeout", "exit_code": None}


def test_output_evidence_and_what_the_command_named_are_in_no_event():
    marker = "MARKER" + "0123456789"
    denial = Denial(
        what="open", target=f"/{marker}", rule=f"filesystem: deny /{marker}", change=f"read /{marker}", sentence=marker
    )
    leak = finding("aws", Severity.HIGH)
    ended = result(
        stdout_bytes=marker.encode(),
        stderr_bytes=marker.encode(),
        verdict=Verdict.WARN,
        findings=(
            Finding(
                **{name: getattr(leak, name) for name in leak.__struct_fields__}
                | {"evidence": marker, "message": marker}
            ),
        ),
        denials=(denial, denial),
        limits_hit=("oom",),
    )
    bus, got = EventBus(), []
    bus.subscribe("#", lambda event: got.append(event.to_json().decode()))
    steps = StepClock()
    steps.enter("wall")
    Announcer(bus, "sb-1", counters=Counters()).end(ended, steps.finish())
    assert bus.close(DEADLINE_S)
    assert len(got) == 4
    assert marker not in "".join(got)
    assert '"acts":["open"]' in got[1]
    assert '"controls":["filesystem"]' in got[1]
    assert '"count":2' in got[1]


def test_an_ended_command_is_traced_beside_the_sandboxes_topics(told):
    bus, read = told
    traces = []
    bus.subscribe("trace/*/exec", traces.append)
    steps = StepClock(clock_ns=iter([100, 100, 150, 400]).__next__, time_ns=lambda: 7_000)
    steps.enter("intent")
    steps.enter("wall")
    Announcer(bus, "sb-1", counters=Counters()).end(result(), steps.finish())
    assert read() == []
    assert traces[0].payload == {
        "reason": "exit",
        "exit_code": 0,
        "verdict": "pass",
        "score": 61,
        "started_ns": 7_000,
        "steps": ("intent", "wall"),
        "begins_ns": (0, 50),
        "ends_ns": (50, 300),
    }


def test_agent_and_labels_of_the_configuration_are_on_every_event(told):
    bus, _ = told
    got = []
    bus.subscribe("#", got.append)
    config = SandboxConfig(events=bus, agent_id="agent-9", labels={"team": "red"})
    voice = make_announcer(config, "sb-7")
    voice.tell(topics.EGRESS_DENIED, host="example.org", port=443)
    assert bus.drain(DEADLINE_S)
    assert (got[0].sandbox_id, got[0].agent_id, got[0].labels) == ("sb-7", "agent-9", {"team": "red"})


def test_without_a_bus_only_the_counts_are_kept():
    counters = Counters()
    voice = Announcer(None, "sb-1", counters=counters)
    voice.enter(SandboxState.CREATED)
    voice.enter(SandboxState.RUNNING)
    voice.observe(enforcement(limits="degraded"), 1)
    voice.end(result(limits_hit=("oom",)))
    assert counters.snapshot().sandboxes == {"created": 0, "running": 1}
    assert counters.snapshot().limits == {"oom": 1}


def test_events_that_is_no_bus_is_refused():
    with pytest.raises(ConfigError) as caught:
        make_announcer(SandboxConfig(events=print), "sb-1")
    assert caught.value.key == "$.events"
