"""The policy: presets, leaf keywords, and what is refused when it is built."""

from __future__ import annotations

import ast
import inspect
import pickle
from collections import Counter

import msgspec
import pytest

from kavach.errors import ConfigError, PolicyError
from kavach.model import policy as module
from kavach.model.enforcement import Control
from kavach.model.policy import (
    GROUPS,
    LEAVES,
    Filesystem,
    NetworkPolicy,
    PathRule,
    ResourceLimits,
    SandboxPolicy,
    SeccompProfile,
)


def test_presets_are_the_designs_table():
    minimal, basic, strict = SandboxPolicy.minimal(), SandboxPolicy.basic(), SandboxPolicy.strict()
    assert [p.seccomp.profiles for p in (minimal, basic, strict)] == [None, ("basic",), ("strict",)]
    assert [p.filesystem.view for p in (minimal, basic, strict)] == ["all", "system", "allow"]
    assert [p.network.mode for p in (minimal, basic, strict)] == ["none"] * 3
    assert [p.filesystem.read_only_rootfs for p in (minimal, basic, strict)] == [False, False, True]
    assert [p.limits.memory_limit_mb for p in (minimal, basic, strict)] == [None, None, 512]
    assert [p.limits.cpu_limit for p in (minimal, basic, strict)] == [None, None, 1.0]
    assert [p.limits.max_pids for p in (minimal, basic, strict)] == [None, 1024, 64]
    assert [p.landlock.scope_abstract for p in (minimal, basic, strict)] == [False, False, True]
    assert [p.landlock.scope_signal for p in (minimal, basic, strict)] == [False, False, True]
    assert minimal.may_lack == ("*",)
    assert set(basic.may_lack) == {"limits", "user_ns", "pid_ns", "mount_view", "ipc_ns", "uts_ns"}
    assert strict.may_lack == ("limits",)
    assert [p.limits.output_bytes for p in (minimal, basic, strict)] == [1 << 20] * 3


def test_what_is_not_said_is_basic():
    assert SandboxPolicy() == SandboxPolicy.basic() == SandboxPolicy.from_preset("BASIC")


def test_leaf_names_are_unique_across_groups_and_fields():
    leaves = [leaf for group in GROUPS.values() for leaf in group.__struct_fields__]
    names = Counter([*leaves, *SandboxPolicy.__struct_fields__, "profile"])
    assert [name for name, count in names.items() if count > 1] == []
    assert set(LEAVES) == {*leaves, "profile"}


def test_the_written_signature_lists_every_keyword():
    tree = ast.parse(inspect.getsource(module))
    written = next(node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == "__init__")
    assert {one.arg for one in written.args.kwonlyargs} == {*SandboxPolicy.__struct_fields__, *LEAVES}


def test_leaf_keywords_change_their_group_and_nothing_else():
    policy = SandboxPolicy(memory_limit_mb=256, max_pids=10, profile="python", read=["/data"], nested=True)
    assert policy.limits == ResourceLimits(memory_limit_mb=256, max_pids=10)
    assert policy.seccomp.profiles == (SeccompProfile.PYTHON,)
    assert policy.filesystem.read == (PathRule("/data"),)
    assert policy.nested
    assert policy.network == SandboxPolicy.basic().network


def test_groups_and_leaves_may_be_mixed_but_not_for_one_group():
    policy = SandboxPolicy(limits=ResourceLimits(memory_limit_mb=1), profile=None)
    assert policy.limits.memory_limit_mb == 1
    assert policy.seccomp.profiles is None
    with pytest.raises(ConfigError, match="got both"):
        SandboxPolicy(limits=ResourceLimits(), memory_limit_mb=1)


def test_a_preset_keyword_starts_from_that_preset():
    assert SandboxPolicy(preset="Strict", memory_limit_mb=64).limits.max_pids == 64
    assert SandboxPolicy.strict(memory_limit_mb=64) == SandboxPolicy(preset="strict", memory_limit_mb=64)


@pytest.mark.parametrize("name", ["strikt", "", 3, None])
def test_an_unknown_preset_lists_the_three(name):
    with pytest.raises(ConfigError, match="minimal, basic or strict"):
        SandboxPolicy.from_preset(name)


def test_an_unknown_keyword_names_the_nearest_known_one():
    with pytest.raises(ConfigError, match="did you mean 'memory_limit_mb'"):
        SandboxPolicy(memory_limt_mb=3)


@pytest.mark.parametrize("profile", ["strikt", "", True, 5])
def test_an_unknown_seccomp_profile_is_an_error_and_never_the_weakest(profile):
    with pytest.raises(ConfigError) as caught:
        SandboxPolicy(profile=profile)
    assert caught.value.key.startswith("$.seccomp.profiles")


@pytest.mark.parametrize(
    ("keywords", "key", "words"),
    [
        ({"memory_limit_mb": "256"}, "$.limits.memory_limit_mb", "expected int, got str"),
        ({"memory_limit_mb": True}, "$.limits.memory_limit_mb", "expected int, got bool"),
        ({"memory_limit_mb": 0}, "$.limits.memory_limit_mb", ">= 1"),
        ({"memory_limit_mb": -5}, "$.limits.memory_limit_mb", ">= 1"),
        ({"memory_limit_mb": 1 << 40}, "$.limits.memory_limit_mb", "<="),
        ({"memory_limit_mb": 2.0}, "$.limits.memory_limit_mb", "expected int, got float"),
        ({"cpu_limit": float("nan")}, "$.limits.cpu_limit", "finite"),
        ({"cpu_limit": float("inf")}, "$.limits.cpu_limit", "finite"),
        ({"cpu_limit": -1.0}, "$.limits.cpu_limit", ">="),
        ({"cpu_limit": True}, "$.limits.cpu_limit", "expected float, got bool"),
        ({"network": "false"}, "$.network", "expected NetworkPolicy, got str"),
        ({"network": False}, "$.network", "expected NetworkPolicy, got bool"),
        ({"mode": "nope"}, "$.network.mode", "'allow', 'host', 'none'"),
        ({"mode": False}, "$.network.mode", "got bool"),
        ({"read_only_rootfs": "false"}, "$.filesystem.read_only_rootfs", "expected bool, got str"),
        ({"read_only_rootfs": 1}, "$.filesystem.read_only_rootfs", "expected bool, got int"),
        ({"nested": "no"}, "$.nested", "expected bool, got str"),
        ({"read": "/etc"}, "$.filesystem.read", "expected tuple, got str"),
        ({"read": ["etc"]}, "$.filesystem.read[0].path", "absolute"),
        ({"write": ["/a/../b"]}, "$.filesystem.write[0].path", "normalised"),
        ({"deny": ["/a\0b"]}, "$.filesystem.deny[0].path", "NUL"),
        ({"execute": ["/a//b"]}, "$.filesystem.execute[0].path", "normalised"),
        ({"read": ["/a/"]}, "$.filesystem.read[0].path", "normalised"),
        ({"read": ["/\udcff"]}, "$.filesystem.read[0].path", "UTF-8"),
        ({"rootfs": "image\ud800"}, "$.filesystem.rootfs", "UTF-8"),
        ({"read": [4]}, "$.filesystem.read[0]", "expected PathRule, got int"),
        ({"data_dir": "data"}, "$.filesystem.data_dir", "absolute"),
        ({"python": "python3"}, "$.filesystem.python", "absolute"),
        ({"rootfs": ""}, "$.filesystem.rootfs", "length"),
        ({"rootfs": "/a/.."}, "$.filesystem.rootfs", "normalised"),
        ({"tcp_connect_ports": [0]}, "$.landlock.tcp_connect_ports[0]", ">= 1"),
        ({"tcp_bind_ports": [65536]}, "$.landlock.tcp_bind_ports[0]", "<= 65535"),
        ({"tcp_bind_ports": ["80"]}, "$.landlock.tcp_bind_ports[0]", "expected int, got str"),
        ({"profiles": ()}, "$.seccomp.profiles", "at least one"),
        ({"profile": "custom"}, "$.seccomp.custom_files", "got none"),
        ({"custom_files": ["/p.toml"]}, "$.seccomp.profiles", "'custom'"),
        ({"profile": "custom", "custom_files": ["p.toml"]}, "$.seccomp.custom_files[0]", "absolute"),
        ({"devices": ["/etc/passwd"]}, "$.devices[0]", "below /dev"),
        ({"devices": ["/dev/../etc"]}, "$.devices[0]", "normalised"),
        ({"devices": "/dev/dri"}, "$.devices", "expected tuple, got str"),
        ({"may_lack": ["netwrk"]}, "$.may_lack[0]", "did you mean 'network'"),
        ({"may_lack": "*"}, "$.may_lack", "expected tuple, got str"),
        ({"output_action": "drop"}, "$.limits.output_action", "'kill', 'truncate'"),
        ({"view": None}, "$.filesystem.view", "got None"),
        ({"data_dir": "/d/x", "deny": ["/d"]}, "$.filesystem.data_dir", "deny"),
    ],
)
def test_a_wrong_value_is_named_by_its_path(keywords, key, words):
    with pytest.raises(ConfigError) as caught:
        SandboxPolicy(**keywords)
    assert caught.value.key == key
    assert words in str(caught.value)


def test_the_message_is_the_designs():
    with pytest.raises(ConfigError) as caught:
        SandboxPolicy(memory_limit_mb="256")
    assert str(caught.value) == "$.limits.memory_limit_mb: expected int, got str"


def test_strict_never_has_the_hosts_network():
    with pytest.raises(PolicyError, match="strict"):
        SandboxPolicy.strict(mode="host")
    with pytest.raises(PolicyError, match="strict"):
        SandboxPolicy.strict().replace(network=NetworkPolicy(mode="host"))
    assert SandboxPolicy.basic(mode="host").network.mode == "host"


def test_denying_the_root_contradicts_running_anything():
    with pytest.raises(PolicyError):
        SandboxPolicy(deny=["/"])


def test_none_and_empty_are_kept_apart():
    assert SandboxPolicy(tcp_connect_ports=None).landlock.tcp_connect_ports is None
    assert SandboxPolicy(tcp_connect_ports=[]).landlock.tcp_connect_ports == ()
    assert SandboxPolicy(file_size=0).limits.file_size == 0


def test_lists_become_sorted_tuples_so_that_equal_policies_are_equal():
    one = SandboxPolicy(read=["/b", "/a", "/b"], tcp_bind_ports=[443, 80], may_lack=["seccomp", "limits"])
    two = SandboxPolicy(read=["/a", "/b"], tcp_bind_ports=(80, 443), may_lack=("limits", "seccomp"))
    assert one == two
    assert hash(one) == hash(two)


def test_every_control_may_be_lacked_by_name():
    policy = SandboxPolicy(may_lack=[control.value for control in Control])
    assert len(policy.may_lack) == len(Control)


def test_a_policy_is_frozen_and_survives_pickle():
    policy = SandboxPolicy.strict(read=["/data"])
    with pytest.raises(AttributeError):
        policy.nested = True
    assert pickle.loads(pickle.dumps(policy)) == policy


def test_replace_checks_the_whole_and_keeps_the_preset():
    policy = SandboxPolicy.strict().replace(memory_limit_mb=64)
    assert policy.preset == "strict"
    assert policy.limits.max_pids == 64
    with pytest.raises(ConfigError):
        policy.replace(memory_limit_mb=None, cpu_limit="1")
    with pytest.raises(ConfigError, match="preset"):
        policy.replace(preset="basic")


def test_resolve_takes_a_policy_a_preset_or_a_file(tmp_path):
    policy = SandboxPolicy(max_pids=3)
    assert SandboxPolicy.resolve(policy) is policy
    assert SandboxPolicy.resolve("STRICT") == SandboxPolicy.strict()
    file = tmp_path / "mine.toml"
    file.write_text('extends = "strict"\n')
    assert SandboxPolicy.resolve(str(file)) == SandboxPolicy.strict()
    assert SandboxPolicy.resolve(file) == SandboxPolicy.strict()
    with pytest.raises(ConfigError):
        SandboxPolicy.resolve("paranoid")


def test_resolve_validates_a_tree_that_was_built_by_hand():
    broken = msgspec.structs.replace(SandboxPolicy(), filesystem=Filesystem(read_only_rootfs="false"))
    with pytest.raises(ConfigError, match=r"\$\.policy\.filesystem\.read_only_rootfs"):
        SandboxPolicy.resolve(broken)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("Example.COM:443", "example.com:443"),
        ("*.example.com:*", "*.example.com:*"),
        ("10.0.0.0/8:53/udp", "10.0.0.0/8:53/udp"),
        ("10.1.2.3:80/tcp", "10.1.2.3/32:80"),
        ("[::1]:80", "[::1/128]:80"),
        ("[FD00::/8]:*", "[fd00::/8]:*"),
    ],
)
def test_a_network_rule_has_one_spelling(text, canonical):
    assert NetworkPolicy(mode="allow", rules=[text]).rules == (canonical,)
    assert SandboxPolicy(mode="allow", rules=[text]).network.rules == (canonical,)


@pytest.mark.parametrize(
    "text",
    [
        "example.com",
        ":443",
        "example.com:",
        "example.com:0",
        "example.com:65536",
        "example.com:٤٤٣",
        "example.com:443/icmp",
        "*:443",
        "*.*.com:1",
        "exa mple.com:1",
        "example.com.:1",
        "-a.com:1",
        "10.0.0.1/8:1",
        "10.0.0:1",
        "127.1:1",
        "2130706433:1",
        "0x7f.1:1",
        "a.0x7f:1",
        "::1:80",
        "[10.0.0.1]:80",
        "[::1:80",
        "bücher.de:443",
        "a" * 64 + ".de:1",
        "",
    ],
)
def test_a_rule_that_could_be_read_in_two_ways_is_refused(text):
    with pytest.raises(ConfigError) as caught:
        SandboxPolicy(mode="allow", rules=[text])
    assert caught.value.key == "$.network.rules[0]"


@pytest.mark.parametrize("mode", ["none", "host"])
def test_rules_need_the_mode_that_uses_them(mode):
    with pytest.raises(ConfigError, match="allow"):
        SandboxPolicy(mode=mode, rules=["a.example:1"])
    with pytest.raises(ConfigError, match="allow"):
        SandboxPolicy(mode=mode, deny_rules=["a.example:1"])
