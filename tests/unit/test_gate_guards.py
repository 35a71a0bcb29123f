"""Guards look at what a command resolves to, report by default, and refuse only where a policy says so."""

from __future__ import annotations

import pytest

from kavach.errors import ConfigError, PolicyError
from kavach.gate.guards import check_command, check_run, require_unguarded, search
from kavach.model.command import make_command
from kavach.model.guard import GuardKind, GuardPolicy
from kavach.model.result import EndReason, RawResult, Usage
from kavach.model.validate import check

FILES = {
    "/usr/bin/curl": "/usr/bin/curl",
    "/usr/bin/fetcher": "/usr/bin/curl",
    "/bin/sh": "/usr/bin/dash",
    "/usr/bin/env": "/usr/bin/env",
    "/srv/own/curl": "/srv/own/curl",
}


def resolve(program: str) -> str | None:
    return search(
        program,
        ["/usr/bin", "/bin"],
        cwd="/srv/own",
        real_path=FILES.get,
    )


def kinds(argv, guards: GuardPolicy | None = None) -> set[GuardKind]:
    return {trip.kind for trip in check_command(make_command(argv), guards or GuardPolicy(), resolve=resolve)}


BLOCKED = GuardPolicy(blocked_commands=("curl", "/usr/bin/dash"))


@pytest.mark.parametrize(
    "argv",
    [
        ["curl", "x"],
        ["/usr/bin/curl"],
        ["fetcher", "x"],
        ["./curl"],
        ["env", "A=1", "curl", "x"],
        ["sh", "-c", "true"],
        ["env", "bash", "-c", "fetcher x"],
    ],
)
def test_blocked_executable_trips_by_whatever_name_it_is_called(argv):
    assert GuardKind.COMMAND in kinds(argv, BLOCKED)


@pytest.mark.parametrize("argv", [["echo", "curl"], ["grep", "/usr/bin/curl", "f"], ["curlew"], ["ls", "curl"]])
def test_word_that_is_no_command_does_not_trip(argv):
    assert GuardKind.COMMAND not in kinds(argv, BLOCKED)


def test_nothing_is_blocked_by_default_and_the_action_is_a_report():
    assert GuardPolicy().blocked_commands == ()
    assert GuardPolicy().action == "report"
    assert kinds(["curl", "http://a"]) == set()


@pytest.mark.parametrize(
    "argv",
    [
        ["cat", "/etc/shadow"],
        ["cat", "/srv/keys/a"],
        ["cat", "/srv/x/../keys/./a"],
        ["tar", "--file=/srv/keys"],
        ["sh", "-c", "x < /srv/keys/a"],
    ],
)
def test_sensitive_path_trips_however_it_is_written(argv):
    assert GuardKind.SENSITIVE_PATH in kinds(argv, GuardPolicy(sensitive_paths=("/srv/keys",)))


@pytest.mark.parametrize("argv", [["cat", "/srv/keysmith"], ["cat", "keys"], ["cat", "/etc/hostname"]])
def test_path_that_only_begins_alike_does_not_trip(argv):
    assert GuardKind.SENSITIVE_PATH not in kinds(argv, GuardPolicy(sensitive_paths=("/srv/keys",)))


@pytest.mark.parametrize("word", ["a;id", "$(id)", "`id`", "a && b", "a|b", "x\nid"])
def test_shell_syntax_in_an_argument_trips_where_no_shell_reads_it(word):
    assert kinds(["ls", word]) == {GuardKind.METACHARACTERS}
    assert kinds(["ls", word], GuardPolicy(metacharacters=False)) == set()
    assert GuardKind.METACHARACTERS not in kinds(["sh", "-c", word])


@pytest.mark.parametrize("word", ["a b", "100%", "x=1&y=2", "*.py", "{a,b}", "it's", "http://a/?b;c", "a>b"])
def test_ordinary_argument_does_not_trip(word):
    assert kinds(["ls", word]) == set()


def test_refuse_raises_before_anything_runs_and_report_does_not():
    trips = check_command(make_command(["curl", "s3cret"]), BLOCKED, resolve=resolve)
    require_unguarded(trips, BLOCKED)
    refusing = GuardPolicy(action="refuse", blocked_commands=("curl",))
    with pytest.raises(PolicyError, match="nothing was run") as caught:
        require_unguarded(trips, refusing)
    assert "s3cret" not in str(caught.value)
    require_unguarded((), refusing)


def test_command_that_nests_too_deeply_is_judged_by_its_first_word():
    assert kinds(["curl", "$(" * 200]) >= set()
    assert GuardKind.COMMAND in kinds(["sh", "-c", "$(" * 200], BLOCKED)


RAN = RawResult(reason=EndReason.EXIT, exit_code=0, duration_ms=150.0, usage=Usage(pids_peak=3), limits_hit=())


def run_kinds(raw: RawResult, **given) -> set[GuardKind]:
    return {trip.kind for trip in check_run(raw, GuardPolicy(expected_ms=100), **given)}


@pytest.mark.parametrize(
    ("raw", "given", "expected"),
    [
        (RAN, {"pids_limit": 4, "output_limit_bytes": 10}, set()),
        (RAN, {"pids_limit": 3}, {GuardKind.FORK_BOMB}),
        (RawResult(reason=EndReason.PIDS), {}, {GuardKind.FORK_BOMB}),
        (RawResult(reason=EndReason.EXIT, limits_hit=("pids",)), {}, {GuardKind.FORK_BOMB}),
        (RawResult(reason=EndReason.EXIT, duration_ms=200.0), {}, set()),
        (RawResult(reason=EndReason.EXIT, duration_ms=200.1), {}, {GuardKind.TIME_ANOMALY}),
        (RawResult(reason=EndReason.OUTPUT_LIMIT), {}, {GuardKind.OUTPUT_FLOOD}),
        (RawResult(reason=EndReason.EXIT, stderr_dropped_bytes=1), {}, {GuardKind.OUTPUT_FLOOD}),
        (RawResult(reason=EndReason.EXIT, usage=Usage(pids_peak=None), limits_hit=None), {"pids_limit": 1}, set()),
    ],
)
def test_run_trips_where_a_limit_was_reached(raw, given, expected):
    assert run_kinds(raw, **given) == expected


def test_unexpected_time_needs_an_expectation():
    assert check_run(RawResult(reason=EndReason.EXIT, duration_ms=1e9), GuardPolicy()) == ()


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ({"action": "block"}, "$.action"),
        ({"blocked_commands": ("bin/x",)}, "$.blocked_commands[0]"),
        ({"sensitive_paths": ("etc",)}, "$.sensitive_paths[0]"),
        ({"sensitive_paths": ("/a/../b",)}, "$.sensitive_paths[0]"),
        ({"expected_ms": 0}, "$.expected_ms"),
    ],
)
def test_wrong_policy_is_refused_by_its_path(given, key):
    with pytest.raises(ConfigError) as caught:
        check(GuardPolicy(**given))
    assert caught.value.key == key


def test_search_takes_the_first_folder_that_has_it_and_never_the_working_folder():
    assert search("curl", ["/bin", "/usr/bin"], cwd="/srv/own", real_path=FILES.get) == "/usr/bin/curl"
    assert search("curl", ["", ".", "/bin"], cwd="/srv/own", real_path=FILES.get) is None
    assert search("./curl", [], cwd="/srv/own", real_path=lambda path: path) == "/srv/own/./curl"
