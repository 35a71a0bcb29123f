"""What real sandboxes tell on a bus, and that nobody on it changes what becomes of a command."""

from __future__ import annotations

import threading
import time

import pytest

from kavach import ConfigError, ExternalizationPolicy, KavachError, Sandbox, SandboxPolicy, UnsupportedError
from kavach.audit.events import EventBus
from kavach.audit.metrics import PROCESS, STEPS
from kavach.gate.integrity import IntegrityPolicy
from kavach.linux import host

pytestmark = [pytest.mark.needs("linux"), pytest.mark.userns, pytest.mark.seccomp]
DEADLINE_S = 30
MARKER = "MARKER" + "-of-the-output"


@pytest.fixture
def told():
    """Return a bus and a function that gives what was told so far, as pairs of kind and payload."""
    bus, got = EventBus(), []
    bus.subscribe("#", got.append)

    def read(area="sandbox"):
        assert bus.drain(DEADLINE_S)
        return [(event.kind, event.payload) for event in got if event.topic.startswith(f"{area}/")]

    yield bus, read
    bus.close()


def kinds(rows):
    return [kind for kind, _ in rows if kind != "policy/degraded"]  # a host may lack what basic lets be missing


def test_a_life_and_its_commands_are_told_in_their_order(told):
    bus, read = told
    with Sandbox(events=bus, agent_id="agent-1", labels={"team": "red"}) as sandbox:
        sandbox.exec(["true"])
        sandbox.pause()
        sandbox.resume()
        sandbox.stop()
    life = ["created", "started", "paused", "resumed", "stopped", "destroyed"]
    assert kinds(read()) == [f"lifecycle/{word}" for word in life]
    ((_, trace),) = read("trace")
    assert trace["steps"] == STEPS
    assert (trace["reason"], trace["exit_code"]) == ("exit", 0)
    assert all(begin <= end for begin, end in zip(trace["begins_ns"], trace["ends_ns"], strict=True))
    assert abs(trace["started_ns"] / 1e9 - time.time()) < 600
    assert dict(read())["lifecycle/created"]["backend"] == "process"


def test_what_is_not_in_force_is_one_event_however_many_commands_run(told):
    bus, read = told
    with Sandbox(policy="minimal", workdir="/var/tmp", workdir_rw=True, events=bus) as sandbox:
        for _ in range(3):
            result = sandbox.exec(["true"])
        lacking = {
            str(row.control)
            for row in result.enforcement.rows
            if row.asked and row.state not in {"enforced", "not_asked"}
        }
    told_rows = [payload for kind, payload in read() if kind == "policy/degraded"]
    assert lacking
    assert [set(payload["controls"]) for payload in told_rows] == [lacking]
    assert told_rows[0]["score"] == int(result.score)


def test_a_wall_that_cannot_be_built_is_told_as_refused(told):
    bus, read = told
    absent = next((family for family, nodes in host.devices().items() if not nodes), "kfd")
    with pytest.raises(UnsupportedError), Sandbox(events=bus, policy=SandboxPolicy.strict(devices=[absent])):
        pass
    assert dict(read())["policy/blocked"]["error"] == "UnsupportedError"


def test_a_refused_run_and_a_limit_are_told(told):
    bus, read = told
    with Sandbox(events=bus, min_score=100) as sandbox, pytest.raises(UnsupportedError):
        sandbox.exec(["true"])
    blocked = dict(read())["policy/blocked"]
    assert (blocked["error"], blocked["control"]) == ("UnsupportedError", "min_score")
    with Sandbox(events=bus) as sandbox:
        assert sandbox.exec(["sleep", "60"], timeout_s=0.2).timed_out
    assert dict(read())["limit/timeout"]["reason"] == "timeout"


def test_no_event_holds_what_a_command_wrote_was_given_or_named(told):
    bus, _ = told
    lines = []
    bus.subscribe("#", lambda event: lines.append(event.to_json().decode()))
    key = "AKIA" + "Z7WQ4LXN2PJTVHRB"
    gate = ExternalizationPolicy.redact()
    with Sandbox(events=bus, externalization=gate, why=True, env={"WORD": MARKER}) as sandbox:
        sandbox.exec(
            ["sh", "-c", f"echo {MARKER} {key}; cat /{MARKER}; cat /etc/shadow; echo {MARKER} >&2; exit 3"],
            stdin=MARKER,
        )
    assert bus.drain(DEADLINE_S)
    assert any("scan/warning" in line for line in lines)
    assert not [line for line in lines if MARKER in line or key[4:] in line]


def test_subscribers_that_block_and_raise_change_nothing_of_a_run(told):
    bus, read = told
    gate = threading.Event()
    blocked = bus.subscribe("#", lambda event: gate.wait(), queue_size=1)
    failing = bus.subscribe("#", lambda event: 1 / 0)
    try:
        with Sandbox(events=bus) as sandbox:
            results = [sandbox.exec(["echo", "hello"]) for _ in range(5)]
    finally:
        gate.set()
    assert [result.stdout for result in results] == ["hello\n"] * 5
    assert len(read("trace")) == 5
    assert blocked.dropped > 0
    assert failing.drain(DEADLINE_S)
    assert failing.failures == failing.delivered > 5


def test_what_is_no_bus_is_refused_before_anything_is_built():
    with pytest.raises(ConfigError) as caught:
        Sandbox(events=print)
    assert caught.value.key == "$.events"


def test_commands_steps_and_states_are_counted_without_a_bus():
    before = PROCESS.snapshot()
    with Sandbox() as sandbox:
        sandbox.exec(["true"])
        running = PROCESS.snapshot()
    after = PROCESS.snapshot()
    assert running.sandboxes["running"] - before.sandboxes.get("running", 0) == 1
    assert after.sandboxes.get("running", 0) == before.sandboxes.get("running", 0)
    assert after.commands["exit"] - before.commands.get("exit", 0) == 1
    wall_before = before.steps["wall"].total if "wall" in before.steps else 0
    assert after.steps["wall"].total - wall_before == 1


def test_a_failure_of_integrity_is_told_and_kills_where_the_policy_says_so(told):
    bus, read = told
    policy = IntegrityPolicy(interval_s=0.2, action="kill", sensitive_paths=("/workspace/late",))
    with Sandbox(events=bus, integrity=policy) as sandbox:
        assert sandbox.exec(["true"]).ok
        sandbox.files.write("/workspace/late", b"x")
        deadline = time.monotonic() + DEADLINE_S
        while str(sandbox.state) != "destroyed" and time.monotonic() < deadline:
            time.sleep(0.02)
        with pytest.raises(KavachError):
            sandbox.exec(["true"])
    assert dict(read())["policy/violation"]["integrity"] == ("sensitive",)
    assert kinds(read())[-2:] == ["lifecycle/destroyed", "policy/blocked"]


def test_a_started_sandbox_tells_the_process_that_top_measures(told):
    bus, read = told
    with Sandbox(events=bus) as sandbox:
        assert dict(read())["lifecycle/started"]["pid"] == sandbox._wall.facts().init_pid
