"""`learn`: what it proposes lets the command pass, and nothing of it can be left out."""

from __future__ import annotations

import socket

import pytest

import kavach
from kavach.errors import ConfigError
from kavach.learning import learn
from kavach.model.groups import Filesystem
from kavach.policy.profiles import read_profile_text

pytestmark = [pytest.mark.needs("linux", "userns", "seccomp")]


@pytest.fixture
def folder(tmp_path):
    for parent in (tmp_path, *tmp_path.parents):
        if str(parent).startswith("/tmp/"):
            parent.chmod(0o755)
    (tmp_path / "out").mkdir()
    for name in ("first", "second", "unused"):
        (tmp_path / name).write_text(name)
        (tmp_path / name).chmod(0o644)
    return tmp_path


def program(folder):
    return ["/bin/sh", "-ec", f"cat {folder}/first {folder}/second > {folder}/out/both; cat {folder}/unused || true"]


def without_one_rule(policy):
    for leaf in ("read", "write", "execute"):
        rules = getattr(policy.filesystem, leaf)
        for rule in rules:
            yield (leaf, rule.path), policy.replace(**{leaf: tuple(one for one in rules if one != rule)})


@pytest.mark.parametrize("preset", ["strict", "basic"])
def test_the_proposal_lets_the_program_pass_and_none_of_its_single_rule_removals_does(folder, preset):
    proposal = learn(program(folder), policy=preset, writable=[str(folder / "out")])
    assert proposal.passes
    again = read_profile_text(proposal.policy_text.encode(), name="learnt.toml")
    assert again == proposal.policy
    (folder / "out/both").unlink()
    if [rule.path for rule in again.filesystem.write] != [str(folder / "out")]:
        (folder / "out/both").touch()
    assert kavach.run(program(folder), policy=again).ok
    assert (folder / "out/both").read_text() == "firstsecond"
    removals = dict(without_one_rule(again))
    assert {path for _, path in removals} >= {f"{folder}/first", f"{folder}/second"}
    assert len(removals) == 3
    for rule, fewer in removals.items():
        assert not kavach.run(program(folder), policy=fewer).ok, rule


def test_only_files_that_are_needed_are_proposed_and_each_by_its_own_name(folder):
    proposal = learn(["cat", f"{folder}/first"], policy="strict")
    assert proposal.policy == kavach.SandboxPolicy.strict(read=(f"{folder}/first",))
    assert proposal.policy.filesystem != Filesystem()
    assert proposal.changes == (f'filesystem.read += "{folder}/first"',)
    assert int(proposal.score_after) >= 0
    assert proposal.unresolved == ()


def test_a_program_outside_the_view_is_proposed_as_executable(folder):
    copy = folder / "mytrue"
    with open("/bin/true", "rb") as source:
        copy.write_bytes(source.read())
    copy.chmod(0o755)
    proposal = learn([str(copy)], policy="strict")
    assert proposal.passes
    assert [rule.path for rule in proposal.policy.filesystem.execute] == [str(copy)]


def test_a_command_that_passes_needs_no_change():
    proposal = learn(["true"], policy="strict")
    assert (proposal.passes, proposal.changes, proposal.rounds) == (True, (), 1)
    assert proposal.policy_text == 'extends = "strict"\n'


def test_a_write_is_granted_only_where_the_caller_said_so(folder):
    act = ["/bin/sh", "-ec", f"echo x > {folder}/out/new"]
    refused = learn(act, policy="strict")
    assert not refused.passes
    assert refused.policy.filesystem.write == ()
    assert not (folder / "out/new").exists()
    assert any(one.change == f'filesystem.write += "{folder}/out"' for one in refused.unresolved)
    assert learn(act, policy="strict", writable=[str(folder)]).passes


def test_the_network_and_nesting_are_never_granted_unasked():
    source = "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(('127.0.0.53', 53)); socket.socket().connect(('192.0.2.1', 9))"
    proposal = learn(["/usr/bin/python3", "-S", "-c", source], policy="basic")
    assert not proposal.passes
    assert proposal.policy.network.mode == "none"
    assert any(one.change == 'network.mode = "host"' for one in proposal.unresolved)
    nested = learn(["/usr/bin/unshare", "-U", "true"], policy="basic")
    assert not nested.passes
    assert not nested.policy.nested
    assert any(one.change == "nested = true" for one in nested.unresolved)


def test_the_network_is_granted_where_the_caller_said_so():
    with socket.create_server(("127.0.0.1", 0)) as server:
        source = f"import socket; socket.create_connection(('127.0.0.1', {server.getsockname()[1]}), 2)"
        proposal = learn(["/usr/bin/python3", "-S", "-c", source], policy="basic", network=True)
    assert proposal.passes
    assert proposal.changes == ('network.mode = "host"',)
    assert proposal.score_after.value < proposal.score_before.value


def test_a_deny_rule_is_the_callers_word(folder):
    start = kavach.SandboxPolicy.strict(read=(str(folder),), deny=(f"{folder}/first",))
    proposal = learn(["cat", f"{folder}/first"], policy=start)
    assert not proposal.passes
    assert proposal.policy.filesystem.deny == start.filesystem.deny
    assert [one.change for one in proposal.unresolved if one.target == f"{folder}/first"] == [
        f'filesystem.deny -= "{folder}/first"'
    ]


@pytest.mark.parametrize("wrong", [{"why": True}, {"backend": "noop"}, {"writable": ["relative"]}, {"nonsense": 1}])
def test_a_wrong_argument_is_named_before_anything_runs(wrong):
    with pytest.raises(ConfigError):
        learn(["true"], **wrong)
