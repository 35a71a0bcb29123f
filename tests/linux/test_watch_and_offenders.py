"""Guards, an agent's sum and the integrity monitor, in real sandboxes: what is refused, ended, and put on record."""

from __future__ import annotations

import asyncio
import json
import os
import time

import pytest

from kavach import AsyncSandbox, AuditError, ExternalizationPolicy, LifecycleError, PolicyError, Sandbox
from kavach.audit.events import EventBus
from kavach.audit.log import AuditLog
from kavach.gate.integrity import IntegrityPolicy
from kavach.gate.offenders import OffenderTracker
from kavach.model.guard import GuardPolicy

pytestmark = [pytest.mark.needs("linux"), pytest.mark.userns, pytest.mark.seccomp]
KEY = "ghp_" + "x9K2mQ7vB4nT8wR1pL6s" + "D3fG5hJ0zXcVbNaE"
PRINT_KEY = ["sh", "-c", f"echo key={KEY}"]
ONE_KEY = 0.9  # what a withheld key adds to its agent's sum: one critical finding (gate.md)
DEADLINE_S = 30


@pytest.fixture
def records(log):
    """Return a function that gives the payloads on record of one event."""

    def read(event):
        with open(log.path, encoding="utf-8") as file:
            return [row["payload"] for row in map(json.loads, file) if row["event"] == event]

    return read


@pytest.fixture
def told():
    """Return a bus and a function that gives the payloads told so far of one kind."""
    bus, got = EventBus(), []
    bus.subscribe("sandbox/#", got.append)

    def read(kind):
        assert bus.drain(DEADLINE_S)
        return [event.payload for event in got if event.kind == kind]

    yield bus, read
    bus.close()


@pytest.fixture
def tracked(tmp_path):
    """Return a function that opens the tracker of this test, as a restart would."""
    return lambda threshold=3.0: OffenderTracker(tmp_path / "offenders.sqlite", threshold=threshold)


def test_a_guard_that_reports_lets_the_command_run_and_is_on_record(log, records, told):
    bus, read = told
    guards = GuardPolicy(blocked_commands=("sleep",), expected_ms=10)
    with Sandbox(audit=log, guards=guards, events=bus) as sandbox:
        assert sandbox.exec(["sh", "-c", "sleep 0.2"]).ok
    before, after = (payload["trips"] for payload in records("guard"))
    assert [kind for kind, _ in before] == ["command"]
    assert [kind for kind, _ in after] == ["time_anomaly"]
    assert [payload["guards"] for payload in read("policy/violation")] == [("command",), ("time_anomaly",)]


def test_a_guard_that_refuses_lets_nothing_run_and_the_outcome_says_so(log, records, told):
    bus, read = told
    guards = GuardPolicy(action="refuse", blocked_commands=("sleep",))
    with Sandbox(audit=log, guards=guards, events=bus) as sandbox:
        with pytest.raises(PolicyError):
            sandbox.exec(["sh", "-c", "touch /workspace/ran; sleep 0"])
        with pytest.raises(PolicyError):
            sandbox.spawn(["sleep", "0"])
        assert sandbox.files.list() == ()
        assert sandbox.exec(["true"]).ok
    assert [payload["reason"] for payload in records("exec.outcome")] == ["not_run", "not_run", "exit"]
    assert len(records("guard")) == 2
    assert [payload["error"] for payload in read("policy/blocked")] == ["PolicyError", "PolicyError"]


@pytest.mark.parametrize(
    ("threshold", "tier", "action"), [(ONE_KEY * 2, 2, "alert"), (ONE_KEY, 3, "suspend"), (ONE_KEY / 2, 4, "revoke")]
)
def test_the_sums_at_half_once_and_twice_the_threshold_act_as_written(
    log, records, told, tracked, threshold, tier, action
):
    bus, read = told
    parts = {"policy": "strict", "agent_id": "a", "audit": log, "events": bus}
    with Sandbox(**parts, offenders=tracked(threshold)) as sandbox:
        ended = sandbox.exec(PRINT_KEY)
        assert str(ended.reason) == "withheld"
        state = str(sandbox.state)
        if action == "alert":
            assert sandbox.exec(["true"]).ok
        else:
            with pytest.raises(PolicyError, match="suspended" if action == "suspend" else "revoked"):
                sandbox.exec(["true"])
    assert state == ("destroyed" if action == "revoke" else "running")
    (escalated,) = records("escalation")
    assert (escalated["tier"], escalated["action"], escalated["sum_before"]) == (tier, action, 0)
    assert escalated["sum_after"] == pytest.approx(ONE_KEY)
    assert [payload["escalation"] for payload in read("policy/violation")] == [action]
    assert records("exec.outcome")[0]["reason"] == "withheld"


def test_a_suspended_agent_is_refused_everywhere_until_a_person_reinstates_it(log, records, tracked):
    parts = {"policy": "strict", "agent_id": "a", "audit": log}
    with Sandbox(**parts, offenders=tracked(ONE_KEY)) as sandbox:
        sandbox.exec(PRINT_KEY)
        with pytest.raises(PolicyError):
            sandbox.exec(["true"])
        with pytest.raises(PolicyError):
            sandbox.spawn(["true"])
        with pytest.raises(PolicyError):
            list(sandbox.stream(["true"]))
    with Sandbox(**parts, offenders=tracked(ONE_KEY)) as sandbox:  # a restart forgets nothing
        with pytest.raises(PolicyError):
            sandbox.exec(["true"])

        async def act():
            async with AsyncSandbox(**parts, offenders=tracked(ONE_KEY)) as other:
                with pytest.raises(PolicyError):
                    await other.exec(["true"])
                with pytest.raises(PolicyError):
                    await other.spawn(["true"])

        asyncio.run(act())
        with Sandbox(**{**parts, "agent_id": "b"}, offenders=tracked(ONE_KEY)) as neighbour:
            assert neighbour.exec(["true"]).ok
        tracked(ONE_KEY).reinstate("a", by="ana")
        assert sandbox.exec(["true"]).ok
    assert len([payload for payload in records("exec.outcome") if payload["reason"] == "not_run"]) == 6


def test_a_revocation_destroys_all_of_the_agents_sandboxes_and_nobody_elses(log, records, tracked):
    tracker = tracked(ONE_KEY / 2)
    parts = {"policy": "strict", "audit": log, "offenders": tracker}
    with (
        Sandbox(**parts, agent_id="a") as first,
        Sandbox(**parts, agent_id="a") as second,
        Sandbox(**parts, agent_id="b") as neighbour,
        Sandbox(**{**parts, "offenders": tracked(ONE_KEY / 2)}, agent_id="a") as elsewhere,
    ):
        process = second.spawn(["sleep", "60"])
        assert str(first.exec(PRINT_KEY).reason) == "withheld"
        assert [str(one.state) for one in (first, second, neighbour)] == ["destroyed", "destroyed", "running"]
        assert process.wait(DEADLINE_S).exit_code is None
        assert neighbour.exec(["true"]).ok
        with pytest.raises(PolicyError):  # as in another process: the next command finds out
            elsewhere.exec(["true"])
        assert str(elsewhere.state) == "destroyed"
        tracker.reinstate("a", by="ana")
        with pytest.raises(LifecycleError):
            first.exec(["true"])
        with Sandbox(**parts, agent_id="a") as later:
            assert later.exec(["true"]).ok
    assert len(records("sandbox.destroyed")) == 5


@pytest.mark.parametrize("parts", [{"policy": "basic", "agent_id": "a"}, {"policy": "strict"}])
def test_without_being_asked_a_sum_only_reports(log, records, tracked, parts):
    gate = ExternalizationPolicy.enforce() if parts["policy"] == "basic" else None
    with Sandbox(**parts, audit=log, offenders=tracked(ONE_KEY / 2), externalization=gate) as sandbox:
        for _ in range(2):
            assert str(sandbox.exec(PRINT_KEY).reason) == "withheld"
    assert {payload["action"] for payload in records("escalation")} <= {"alert"}
    assert len(records("escalation")) == (2 if "agent_id" in parts else 0)


def test_ordinary_commands_after_an_alert_raise_no_more_alerts(log, records, tracked):
    with Sandbox(policy="strict", agent_id="a", audit=log, offenders=tracked(ONE_KEY * 2)) as sandbox:
        sandbox.exec(PRINT_KEY)
        for _ in range(3):
            assert sandbox.exec(["true"]).ok
    assert len(records("escalation")) == 1


def test_one_printed_key_under_redact_does_not_suspend(log, records, tracked):
    gate = ExternalizationPolicy(escalation="act")
    with Sandbox(agent_id="a", audit=log, offenders=tracked(), externalization=gate) as sandbox:
        for _ in range(3):
            assert str(sandbox.exec(PRINT_KEY).verdict) == "warn"
    assert records("escalation") == []


def test_a_tracker_that_cannot_be_read_refuses_the_command(log, records, tracked, tmp_path):
    with Sandbox(policy="strict", agent_id="a", audit=log, offenders=tracked()) as sandbox:
        (tmp_path / "offenders.sqlite").write_bytes(b"no database" * 200)
        with pytest.raises(Exception, match="offenders' file") as caught:
            sandbox.exec(["touch", "/workspace/ran"])
        assert type(caught.value).__module__ == "kavach.errors"
        assert sandbox.files.list() == ()
    assert [payload["reason"] for payload in records("exec.outcome")] == ["not_run"]


def wait_until(holds):
    deadline = time.monotonic() + DEADLINE_S
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert holds()


def test_a_new_setuid_file_is_reported_on_record_and_told_and_the_sandbox_stands(log, records, told):
    bus, read = told
    with Sandbox(policy="minimal", audit=log, events=bus, integrity=IntegrityPolicy(interval_s=0.2)) as sandbox:
        sandbox.exec(["sh", "-c", "cp /bin/true /workspace/t && chmod u+s /workspace/t"])
        wait_until(lambda: records("guard"))
        assert sandbox.exec(["true"]).ok
    ((check, detail),) = records("guard")[0]["integrity"]
    assert (check, "/workspace/t" in detail) == ("setuid", True)
    assert read("policy/violation")[0]["integrity"] == ("setuid",)


def test_a_path_that_can_be_read_at_the_start_ends_the_sandbox_before_a_command(log, records):
    policy = IntegrityPolicy(action="kill", sensitive_paths=("/etc/passwd",))
    with Sandbox(policy="minimal", audit=log, integrity=policy) as sandbox:
        assert str(sandbox.state) == "destroyed"
        with pytest.raises(LifecycleError):
            sandbox.exec(["true"])
    assert records("guard")[0]["integrity"][0][0] == "sensitive"
    assert len(records("sandbox.destroyed")) == 1


def test_integrity_kills_although_nothing_can_be_recorded(tmp_path):
    log = AuditLog(tmp_path / "audit.log", key=os.urandom(32))
    policy = IntegrityPolicy(interval_s=0.2, action="kill", sensitive_paths=("/workspace/late",))
    sandbox = Sandbox(audit=log, integrity=policy)
    sandbox.__enter__()
    log.close()
    sandbox.files.write("/workspace/late", b"x")
    wait_until(lambda: str(sandbox.state) == "destroyed")
    with pytest.raises(AuditError):
        sandbox.exec(["true"])
