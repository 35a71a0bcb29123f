"""The number: parity with the design's tables, and points only for what was seen."""

from __future__ import annotations

import pickle

import pytest

from kavach import scoring
from kavach.errors import BackendUnavailable, ConfigError, InternalError
from kavach.model.backend import Backend
from kavach.model.enforcement import DETAILS, Ask, Control, ControlRow, ControlState, Enforcement, Hole
from kavach.model.policy import NetworkPolicy, SandboxPolicy
from kavach.policy import strength
from kavach.policy.strength import asks, base_score, earned, score_backend, score_enforcement

PARITY = {
    "noop": (5, 10, 19),
    "process": (55, 60, 69),
    "oci": (60, 65, 74),
    "wasm": (70, 75, 84),
    "gvisor": (75, 80, 89),
    "sgx": (85, 90, 99),
    "sy-agnos": (85, 90, 99),
    "sev": (87, 92, 100),
    "tdx": (90, 95, 100),
    "firecracker": (95, 100, 100),
}
BEST = {
    Control.SECCOMP: "allow_list",
    Control.FILESYSTEM: "landlock",
    Control.LIMITS: "cgroup2",
    Control.SCOPE_ABSTRACT: "landlock",
    Control.SCOPE_SIGNAL: "landlock",
}


def observed(policy, details=BEST, states=None, holes=(), backend="process"):
    states = states or {}
    rows = [
        ask.row(states.get(ask.control, ControlState.ENFORCED), detail=details.get(ask.control, ""))
        for ask in asks(policy, backend)
    ]
    return score_enforcement(Enforcement.of(backend, rows, holes=holes))


@pytest.mark.parametrize("backend", list(Backend))
def test_requested_strength_has_parity_with_the_designs_table(backend):
    got = tuple(int(score_backend(backend, name)) for name in ("minimal", "basic", "strict"))
    assert got == PARITY[backend.value]


@pytest.mark.parametrize("name", ["process", "PROCESS", Backend.PROCESS, "SyAgnos", "qemu"])
def test_a_walls_name_is_read_whatever_its_case(name):
    assert base_score(name) > 0


@pytest.mark.parametrize("name", ["x", "auto", "", "docker"])
def test_an_unknown_wall_has_no_strength(name):
    with pytest.raises(BackendUnavailable):
        base_score(name)
    with pytest.raises(BackendUnavailable):
        score_backend(name, "basic")


def test_an_unknown_policy_has_no_strength():
    with pytest.raises(ConfigError):
        score_backend("process", "strongest")


def test_the_process_walls_parts_add_up_to_its_base():
    assert sum(strength.BASE_SPLIT["process"].values()) == strength.BASE["process"] == 50
    assert sum(strength.BASE_SPLIT["noop"].values()) == strength.BASE["noop"] == 0


def test_the_best_mechanism_is_worth_the_modifier_and_every_mechanism_has_a_word():
    for control, table in strength.MECHANISMS.items():
        assert max(table.values()) == strength.MODIFIERS[control]
        assert set(table) == DETAILS[control]


def test_everything_in_force_gives_the_requested_strength():
    for policy in (SandboxPolicy.strict(), SandboxPolicy.strict(read=["/d"], tcp_connect_ports=[])):
        assert observed(policy) == score_backend("process", policy)


def test_asking_earns_nothing():
    for state in (ControlState.UNSUPPORTED, ControlState.FAILED, ControlState.NOT_ASKED):
        states = dict.fromkeys(Control, state)
        assert observed(SandboxPolicy.strict(), states=states) == 0


def test_what_was_not_asked_earns_nothing_even_if_it_was_seen():
    rows = [
        ControlRow(control=control, asked=False, state=ControlState.ENFORCED, detail=BEST.get(control, ""), worth=9)
        for control in Control
    ]
    assert score_enforcement(Enforcement.of("process", rows)) == 0


@pytest.mark.parametrize(
    ("control", "detail", "points"),
    [
        (Control.SECCOMP, "allow_list", 5),
        (Control.SECCOMP, "deny_list", 3),
        (Control.SECCOMP, "", 0),
        (Control.LIMITS, "cgroup2", 2),
        (Control.LIMITS, "cgroup1", 2),
        (Control.LIMITS, "rlimits", 1),
        (Control.LIMITS, "", 0),
        (Control.SCOPE_ABSTRACT, "landlock", 2),
        (Control.SCOPE_ABSTRACT, "namespace", 1),
        (Control.SCOPE_SIGNAL, "landlock", 2),
        (Control.SCOPE_SIGNAL, "namespace", 1),
        (Control.FILESYSTEM, "landlock", 3),
        (Control.FILESYSTEM, "mount_view", 1),
        (Control.FILESYSTEM, "", 0),
    ],
)
def test_a_mechanism_earns_its_points_and_no_more(control, detail, points):
    worth = strength.MODIFIERS[control]
    row = ControlRow(control=control, asked=True, state=ControlState.ENFORCED, detail=detail, worth=worth)
    assert earned(row, "process") == points
    nothing = ControlRow(control=control, asked=True, state=ControlState.ENFORCED, detail=detail, worth=0)
    assert earned(nothing, "process") == 0


def test_degraded_earns_only_what_the_table_says():
    degraded = ControlState.DEGRADED
    limits = ControlRow(control=Control.LIMITS, asked=True, state=degraded, detail="rlimits", worth=2)
    assert earned(limits, "process") == 1
    for control in (Control.NETWORK, Control.READ_ONLY_ROOT, Control.TCP_PORTS, Control.PID_NS):
        row = ControlRow(control=control, asked=True, state=degraded, worth=5)
        assert earned(row, "process") == 0


def test_the_presets_own_view_is_asked_for_but_worth_nothing():
    by_name = {ask.control: ask for ask in asks(SandboxPolicy.basic())}
    assert by_name[Control.FILESYSTEM].asked
    assert by_name[Control.FILESYSTEM].worth == 0
    added = {ask.control: ask for ask in asks(SandboxPolicy.basic(deny=["/etc/ssh"]))}
    assert added[Control.FILESYSTEM].worth == 3


def test_limits_without_memory_or_cpu_are_asked_for_but_worth_nothing():
    by_name = {ask.control: ask for ask in asks(SandboxPolicy.basic())}
    assert (by_name[Control.LIMITS].asked, by_name[Control.LIMITS].worth) == (True, 0)
    assert not {ask.control: ask for ask in asks(SandboxPolicy.minimal())}[Control.LIMITS].asked


def test_a_network_with_rules_is_asked_for_but_only_none_is_worth_points():
    def network(mode):
        policy = SandboxPolicy(network=NetworkPolicy(mode=mode))
        ask = {ask.control: ask for ask in asks(policy)}[Control.NETWORK]
        return ask.asked, ask.worth

    assert [network(mode) for mode in ("none", "allow", "host")] == [(True, 5), (True, 0), (False, 0)]


def test_what_the_configuration_asks_for_is_added_by_the_caller():
    plain = {ask.control for ask in asks(SandboxPolicy()) if ask.asked}
    more = {ask.control for ask in asks(SandboxPolicy(), also=[Control.WORKDIR]) if ask.asked}
    assert more - plain == {Control.WORKDIR}
    assert [ask.control for ask in asks(SandboxPolicy())] == list(Control)


@pytest.mark.parametrize("hole", list(Hole))
def test_a_hole_caps_the_number_and_says_so(hole):
    score = observed(SandboxPolicy.strict(), holes=[hole])
    assert score == strength.CAPS[hole] < 50
    assert [row.state for row in score.rows if row.control == "cap"] == [hole.value]
    assert sum(row.points for row in score.rows) == score


def test_two_holes_take_the_lower_cap():
    score = observed(SandboxPolicy.strict(), holes=[Hole.HOST_ROOT, Hole.NETWORK_ESCAPED])
    assert score == 29
    assert sum(row.points for row in score.rows) == 29
    caps = [(row.state, row.points) for row in score.rows if row.control == "cap"]
    assert caps == [("network_escaped", 29 - 69), ("host_root", 0)]


def test_a_cap_does_not_lift_a_weak_wall():
    states = dict.fromkeys(Control, ControlState.FAILED) | {Control.SECCOMP: ControlState.ENFORCED}
    assert observed(SandboxPolicy.strict(), states=states, holes=[Hole.HOST_ROOT]) == 5


def test_a_wall_without_a_published_split_has_no_observed_base():
    assert observed(SandboxPolicy.strict(), backend="firecracker") == 19


def test_a_row_cannot_name_an_unknown_mechanism():
    ask = Ask(control=Control.SECCOMP, asked=True, worth=5)
    with pytest.raises(InternalError):
        ask.row(ControlState.ENFORCED, detail="very_strong")
    with pytest.raises(InternalError):
        Ask(control=Control.PID_NS, asked=True).row(ControlState.ENFORCED, detail="landlock")


def test_a_row_for_what_nobody_asked_says_not_asked():
    row = Ask(control=Control.NETWORK, asked=False).row(ControlState.ENFORCED, evidence="seen anyway")
    assert (row.asked, row.state, row.worth) == (False, ControlState.NOT_ASKED, 0)


def test_an_enforcement_has_one_row_per_control_and_reads_like_a_mapping():
    row = ControlRow(control=Control.SECCOMP, asked=True, state=ControlState.ENFORCED)
    report = Enforcement.of("process", [row], holes=[Hole.HOST_ROOT, Hole.HOST_ROOT])
    assert list(report) == list(Control)
    assert len(report) == len(Control)
    assert report["seccomp"] is report[Control.SECCOMP] is row
    assert "seccomp" in report
    assert "nope" not in report
    assert report.enforced() == {Control.SECCOMP}
    assert report.holes == (Hole.HOST_ROOT,)
    assert dict(report.items())[Control.NETWORK].state is ControlState.NOT_ASKED
    assert report.to_dict()["rows"][7]["control"] == "seccomp"
    with pytest.raises(KeyError):
        report["nope"]
    with pytest.raises(InternalError):
        Enforcement.of("process", [row, row])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 (minimal)"),
        (29, "29 (minimal)"),
        (30, "30 (basic)"),
        (49, "49 (basic)"),
        (50, "50 (standard)"),
        (69, "69 (standard)"),
        (70, "70 (hardened)"),
        (84, "84 (hardened)"),
        (85, "85 (fortress)"),
        (100, "100 (fortress)"),
    ],
)
def test_a_score_reads_with_its_label(value, text):
    score = scoring.StrengthScore(value)
    assert str(score) == f"{score}" == text
    assert f"{score:3d}" == f"{value:3d}"


def test_scores_compare_and_hash_as_integers():
    low, high = scoring.StrengthScore(50), scoring.StrengthScore(69)
    assert low < high
    assert high >= 60
    assert high == 69
    assert hash(high) == hash(69)
    assert sorted([high, low]) == [50, 69]
    assert {high: 1}[69] == 1


@pytest.mark.parametrize("value", [-1, 101, True, 3.0, "69", None])
def test_a_score_outside_its_range_is_refused(value):
    with pytest.raises(ValueError, match="0 to 100"):
        scoring.StrengthScore(value)


def test_a_score_is_frozen_and_keeps_its_rows_through_pickle():
    score = score_backend("process", "strict")
    twin = pickle.loads(pickle.dumps(score))
    assert (twin, twin.rows) == (score, score.rows)
    with pytest.raises(AttributeError):
        score.rows = ()
    with pytest.raises(AttributeError):
        del score.rows
    assert score.to_dict()["label"] == "standard"


def test_a_breakdown_says_what_would_raise_the_score():
    rows = {row.control: row for row in observed(SandboxPolicy.basic(), BEST | {Control.SECCOMP: "deny_list"}).rows}
    assert (rows["seccomp"].points, rows["seccomp"].worth) == (3, 5)
    assert "strict" in rows["seccomp"].to_raise
    assert rows["network"].to_raise == ""
