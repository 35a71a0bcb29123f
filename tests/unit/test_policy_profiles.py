"""Profile files: what they say, what they extend, and what is refused by name; their schema; differences."""

from __future__ import annotations

import json
import os
from itertools import pairwise

import pytest

from kavach.errors import ConfigError, PolicyError
from kavach.model.policy import SandboxPolicy
from kavach.policy.difference import compare
from kavach.policy.profiles import (
    MAX_EXTENDS,
    MAX_PROFILE_BYTES,
    dump_profile,
    load_profile,
    read_profile_text,
)
from kavach.policy.schema import profile_schema

WHOLE = """
description = "for the nightly build"
extends = "strict"
devices = ["/dev/dri/renderD128"]
may_lack = ["limits", "scope_signal"]
nested = true

[filesystem]
read = ["/data"]
deny = ["/data/keys"]
read_only_rootfs = false

[seccomp]
profile = "python"

[limits]
memory_limit_mb = "unrestricted"
cpu_limit = 2

[landlock]
tcp_connect_ports = []
"""
WHOLE_POLICY = SandboxPolicy.strict(
    devices=["/dev/dri/renderD128"],
    may_lack=["limits", "scope_signal"],
    nested=True,
    read=["/data"],
    deny=["/data/keys"],
    read_only_rootfs=False,
    profile="python",
    memory_limit_mb=None,
    cpu_limit=2,
    tcp_connect_ports=[],
)


def toml(text):
    return read_profile_text(text.encode(), name="p.toml")


def test_a_file_is_laid_over_what_it_extends():
    assert toml(WHOLE) == WHOLE_POLICY


def test_json_says_the_same_with_null_for_unrestricted():
    text = json.dumps({"extends": "STRICT", "limits": {"memory_limit_mb": None}, "seccomp": {"profile": None}})
    policy = read_profile_text(text.encode(), name="p.json")
    assert policy == SandboxPolicy.strict(memory_limit_mb=None, profile=None)


def test_an_empty_file_is_basic():
    assert toml("") == SandboxPolicy.basic()


def test_a_file_extends_a_file_beside_it(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "team.json").write_text('{"extends": "strict", "limits": {"max_pids": 32}}')
    (tmp_path / "sub" / "mine.toml").write_text('extends = "../team.json"\n[limits]\nmemory_limit_mb = 9\n')
    assert load_profile(tmp_path / "sub" / "mine.toml") == SandboxPolicy.strict(max_pids=32, memory_limit_mb=9)
    assert SandboxPolicy.from_file(str(tmp_path / "team.json")) == SandboxPolicy.strict(max_pids=32)


def test_a_custom_profile_is_found_beside_the_file(tmp_path):
    file = tmp_path / "p.toml"
    file.write_text('[seccomp]\nprofile = "custom"\ncustom_files = ["calls.toml", "/etc/x.json"]\n')
    assert load_profile(file).seccomp.custom_files == tuple(sorted([str(tmp_path / "calls.toml"), "/etc/x.json"]))


@pytest.mark.parametrize("names", [["a", "a"], ["a", "b", "a"], ["a", "b", "c", "a"]])
def test_a_circle_of_extends_is_refused(tmp_path, names):
    for name, following in pairwise(names):
        (tmp_path / f"{name}.toml").write_text(f'extends = "{following}.toml"\n')
    with pytest.raises(ConfigError, match="circle") as caught:
        load_profile(tmp_path / "a.toml")
    assert caught.value.key == "$.extends"


def test_a_circle_through_a_symbolic_link_is_refused(tmp_path):
    (tmp_path / "a.toml").write_text('extends = "b.toml"\n')
    os.symlink("a.toml", tmp_path / "b.toml")
    with pytest.raises(ConfigError, match="circle"):
        load_profile(tmp_path / "a.toml")


def test_a_chain_too_long_to_review_is_refused(tmp_path):
    for number in range(MAX_EXTENDS + 1):
        (tmp_path / f"{number}.toml").write_text(f'extends = "{number + 1}.toml"\n')
    (tmp_path / f"{MAX_EXTENDS + 1}.toml").write_text("")
    load_profile(tmp_path / "2.toml")
    with pytest.raises(ConfigError, match=str(MAX_EXTENDS)):
        load_profile(tmp_path / "0.toml")


def test_a_file_too_large_to_be_a_profile_is_refused(tmp_path):
    file = tmp_path / "p.toml"
    file.write_bytes(b"#" * MAX_PROFILE_BYTES)
    assert load_profile(file) == SandboxPolicy.basic()
    file.write_bytes(b"#" * (MAX_PROFILE_BYTES + 1))
    with pytest.raises(ConfigError, match=str(MAX_PROFILE_BYTES)):
        load_profile(file)


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        ("memory_limit_mb = 5", "$.memory_limit_mb", "memory_limit_mb"),
        ("[limit]", "$.limit", "did you mean 'limits'"),
        ("[limits]\nmemory_limt_mb = 5", "$.limits.memory_limt_mb", "did you mean 'memory_limit_mb'"),
        ('[limits]\nmemory_limit_mb = "5"', "$.limits.memory_limit_mb", "expected int, got str"),
        ("[limits]\nmemory_limit_mb = true", "$.limits.memory_limit_mb", "got bool"),
        ("[limits]\ncpu_limit = nan", "$.limits.cpu_limit", "finite"),
        ("limits = 5", "$.limits", "expected a table"),
        ('[network]\nmode = "false"', "$.network.mode", "'allow', 'host', 'none'"),
        ("network = false", "$.network", "expected a table"),
        ('nested = "no"', "$.nested", "expected bool"),
        ('[filesystem]\nread = ["etc"]', "$.filesystem.read[0].path", "absolute"),
        ('[filesystem]\nread = [{path = "/etc"}]', "$.filesystem.read[0]", "PathRule, got dict"),
        ('[filesystem]\nread_only_rootfs = "unrestricted"', "$.filesystem.read_only_rootfs", "got None"),
        ('[seccomp]\nprofile = "strikt"', "$.seccomp.profiles[0]", "'strict'"),
        ('[seccomp]\nprofile = "strict"\nprofiles = ["basic"]', "$.seccomp", "got both"),
        ('preset = "strict"', "$.preset", "preset"),
        ('extends = "paranoid"', "$.extends", "minimal, basic, strict"),
        ("extends = 5", "$.extends", "as str"),
        ("description = 5", "$.description", "expected str"),
        ("devices = 2024-01-01", "$.devices", "expected tuple, got date"),
    ],
)
def test_a_wrong_key_or_value_is_named_with_its_file(text, key, words):
    with pytest.raises(ConfigError) as caught:
        toml(text)
    assert caught.value.key == key
    assert caught.value.source == "p.toml"
    assert words in str(caught.value)


def test_a_contradiction_is_the_policys_error():
    with pytest.raises(PolicyError):
        toml('extends = "strict"\n[network]\nmode = "host"')


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("p.toml", b"x = "),
        ("p.toml", b"\xff\xfe"),
        ("p.toml", b"x = 1\nx = 2"),
        ("p.toml", b"a = " + b"[" * 20000),
        ("p.json", b"[" * 200000),
        ("p.json", b"{"),
        ("p.json", b""),
        ("p.json", b"[]"),
        ("p.json", b"null"),
        ("p.yaml", b""),
        ("p", b""),
    ],
)
def test_what_does_not_parse_is_refused_with_its_file(name, data):
    with pytest.raises(ConfigError) as caught:
        read_profile_text(data, name=name)
    assert caught.value.source == name


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    (tmp_path / "folder.toml").mkdir()
    os.mkfifo(tmp_path / "pipe.toml")
    for name in ("absent.toml", "folder.toml", "pipe.toml", "nul\0.toml"):
        with pytest.raises(ConfigError) as caught:
            load_profile(f"{tmp_path}/{name}")
        assert caught.value.source is not None
    with pytest.raises(ConfigError):
        load_profile(5)


def test_a_device_is_not_read_for_ever(tmp_path):
    os.symlink("/dev/zero", tmp_path / "z.toml")
    with pytest.raises(ConfigError, match="regular"):
        load_profile(tmp_path / "z.toml")


@pytest.mark.parametrize(
    "policy",
    [
        SandboxPolicy.minimal(),
        SandboxPolicy.basic(),
        SandboxPolicy.strict(),
        WHOLE_POLICY,
        SandboxPolicy.basic(mode="allow", rules=["a.example:443"], read=['/a "b"\\\x7f\n'], max_pids=None),
    ],
)
def test_a_dumped_policy_reads_back_as_itself(policy):
    assert toml(dump_profile(policy)) == policy


def test_a_dump_says_only_what_differs():
    assert dump_profile(SandboxPolicy.strict()) == 'extends = "strict"\n'
    assert dump_profile(SandboxPolicy.strict(max_pids=5)) == 'extends = "strict"\n\n[limits]\nmax_pids = 5\n'


def test_the_schema_is_one_and_knows_every_key():
    jsonschema = pytest.importorskip("jsonschema")
    schema = profile_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    import tomllib

    assert list(validator.iter_errors(tomllib.loads(WHOLE))) == []
    assert list(validator.iter_errors({})) == []
    for wrong in (
        {"limit": {}},
        {"limits": {"memory_limit_mb": "5"}},
        {"limits": {"memory_limit_mb": 0}},
        {"network": {"mode": "false"}},
        {"filesystem": {"read": ["etc"]}},
        {"seccomp": {"profile": "strikt"}},
        {"may_lack": ["netwrk"]},
        {"extends": "paranoid"},
    ):
        assert list(validator.iter_errors(wrong)), wrong


def test_a_difference_lists_every_leaf_and_what_it_does_to_the_score():
    difference = compare(SandboxPolicy.basic(), SandboxPolicy.strict())
    keys = [change.key for change in difference.changes]
    assert keys == [
        "preset",
        "filesystem.view",
        "filesystem.read_only_rootfs",
        "seccomp.profiles",
        "limits.memory_limit_mb",
        "limits.cpu_limit",
        "limits.max_pids",
        "landlock.scope_abstract",
        "landlock.scope_signal",
        "may_lack",
    ]
    assert (difference.score_before, difference.score_after, difference.score_change) == (60, 69, 9)
    assert str(difference.changes[4]) == "limits.memory_limit_mb: unrestricted -> 512"
    assert str(difference.changes[3]) == "seccomp.profiles: basic -> strict"


def test_a_difference_says_nothing_apart_from_unrestricted():
    before, after = SandboxPolicy(tcp_connect_ports=None), SandboxPolicy(tcp_connect_ports=[])
    change = compare(before, after).changes[0]
    assert str(change) == "landlock.tcp_connect_ports: unrestricted -> nothing"
    assert compare(before, before).changes == ()


def test_path_rules_differ_by_their_paths():
    change = compare(SandboxPolicy(), SandboxPolicy(read=["/a", "/b"])).changes[0]
    assert (change.before, change.after) == ([], ["/a", "/b"])
