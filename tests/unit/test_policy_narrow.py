"""narrow(): the stricter wins, and None is never taken for nothing."""

from __future__ import annotations

import msgspec
import pytest

from kavach.errors import ConfigError, PolicyError
from kavach.model.policy import Filesystem, SandboxPolicy
from kavach.policy.narrow import narrow

P = SandboxPolicy


def both(a, b):
    left, right = narrow(a, b), narrow(b, a)
    assert left == right
    return left


def paths(rules):
    return [rule.path for rule in rules]


def test_disjoint_lists_allow_nothing_and_not_everything():
    merged = both(P(tcp_connect_ports=[80]), P(tcp_connect_ports=[443]))
    assert merged.landlock.tcp_connect_ports == ()
    hosts = both(P(mode="allow", rules=["a.example:1"]), P(mode="allow", rules=["b.example:1"]))
    assert (hosts.network.mode, hosts.network.rules) == ("allow", ())


def test_none_gives_way_and_empty_stays():
    assert both(P(tcp_bind_ports=None), P(tcp_bind_ports=[80])).landlock.tcp_bind_ports == (80,)
    assert both(P(tcp_bind_ports=None), P(tcp_bind_ports=[])).landlock.tcp_bind_ports == ()
    assert both(P(tcp_bind_ports=None), P(tcp_bind_ports=None)).landlock.tcp_bind_ports is None
    assert both(P(file_size=0), P(file_size=None)).limits.file_size == 0
    assert both(P(output_bytes=None), P(output_bytes=0)).limits.output_bytes == 0


def test_a_filter_and_none_is_the_filter_and_two_filters_are_both():
    assert both(P(profile=None), P(profile="strict")).seccomp.profiles == ("strict",)
    assert both(P(profile=None), P(profile=None)).seccomp.profiles is None
    assert both(P(profile="python"), P(profile="strict")).seccomp.profiles == ("python", "strict")
    merged = both(P(profile="custom", custom_files=["/a"]), P(profile="custom", custom_files=["/b"]))
    assert merged.seccomp.custom_files == ("/a", "/b")


def test_path_rules_meet_below_each_other_and_denies_add_up():
    merged = both(
        P(read=["/data", "/opt/a"], write=["/out"], deny=["/data/keys"]),
        P(read=["/data/in", "/opt"], write=["/out/mine"], deny=["/etc/ssh"]),
    )
    assert paths(merged.filesystem.read) == ["/data/in", "/opt/a"]
    assert paths(merged.filesystem.write) == ["/out/mine"]
    assert paths(merged.filesystem.deny) == ["/data/keys", "/etc/ssh"]


def test_a_path_is_not_below_one_that_only_begins_like_it():
    assert narrow(P(read=["/data"]), P(read=["/database"])).filesystem.read == ()


def test_writing_for_one_and_reading_for_the_other_is_reading():
    merged = both(P(write=["/data"]), P(read=["/data"]))
    assert paths(merged.filesystem.read) == ["/data"]
    assert merged.filesystem.write == ()


def test_a_view_of_everything_lets_the_other_read_and_run_but_not_write():
    merged = both(P.minimal(), P(read=["/r"], execute=["/x"], write=["/w"], python="caller"))
    assert merged.filesystem.view == "system"
    assert paths(merged.filesystem.execute) == ["/x"]
    assert paths(merged.filesystem.read) == ["/r", "/w"]
    assert merged.filesystem.write == ()
    assert merged.filesystem.python == "caller"


def test_the_tighter_network_wins():
    allow = P(mode="allow", rules=["*.example.com:443", "10.0.0.0/8:*"], deny_rules=["bad.example.com:443"])
    assert both(allow, P()).network == P().network
    assert both(allow, P(mode="host")).network == allow.network
    assert both(P(mode="host"), P(mode="host")).network.mode == "host"
    merged = both(allow, P(mode="allow", rules=["a.example.com:*", "10.1.0.0/16:22", "example.com:443"]))
    assert merged.network.rules == ("10.1.0.0/16:22", "a.example.com:443")
    assert merged.network.deny_rules == ("bad.example.com:443",)


@pytest.mark.parametrize(
    ("a", "b", "common"),
    [
        ("a.example:1", "a.example:1", "a.example:1"),
        ("a.example:1", "a.example:2", None),
        ("*.example:*", "*.a.example:5", "*.a.example:5"),
        ("*.example:5", "example:5", None),
        ("*.a.example:5", "*.b.example:5", None),
        ("[fd00::/8]:1", "[fd00:1::/32]:*", "[fd00:1::/32]:1"),
        ("[fd00::/8]:1", "10.0.0.0/8:1", None),
        ("10.0.0.0/8:1", "a.example:1", None),
        ("a.example:1/udp", "a.example:1", None),
        ("notexample:1", "*.example:1", None),
    ],
)
def test_two_rules_have_in_common_what_both_name(a, b, common):
    merged = both(P(mode="allow", rules=[a]), P(mode="allow", rules=[b]))
    assert merged.network.rules == (() if common is None else (common,))


def test_flags_limits_and_lacks():
    merged = both(
        P(read_only_rootfs=True, memory_limit_mb=5, cpu_limit=2.0, refuse_wx=True, nested=True),
        P(
            memory_limit_mb=9,
            max_pids=3,
            scope_signal=True,
            output_action="kill",
            may_lack=["limits", "seccomp"],
        ),
    )
    assert merged.filesystem.read_only_rootfs
    assert merged.seccomp.refuse_wx
    assert merged.landlock.scope_signal
    assert not merged.nested
    assert (merged.limits.memory_limit_mb, merged.limits.cpu_limit, merged.limits.max_pids) == (5, 2.0, 3)
    assert merged.limits.output_action == "kill"
    assert merged.may_lack == ("limits",)


def test_all_may_lack_gives_way_to_the_others_list():
    assert both(P(may_lack=["*"]), P(may_lack=["seccomp"])).may_lack == ("seccomp",)
    assert both(P(may_lack=["*"]), P(may_lack=[])).may_lack == ()


def test_devices_and_granted_folders_must_be_granted_by_both():
    a = P(devices=["/dev/a", "/dev/b"], data_dir="/d", python="caller")
    assert both(a, P()).devices == ()
    assert both(a, P()).filesystem.data_dir is None
    assert both(a, P()).filesystem.python is None
    assert both(a, P(devices=["/dev/b"])).devices == ("/dev/b",)
    assert both(a, P(data_dir="/d", python="caller")).filesystem.data_dir == "/d"
    assert both(a, P(data_dir="/d", deny=["/x"])).filesystem.data_dir == "/d"


def test_the_stricter_presets_name_stays():
    assert both(P.minimal(), P.strict()).preset == "strict"
    assert both(P.strict(), P.strict()) == P.strict()
    assert both(P.basic(mode="host"), P.strict()).network.mode == "none"


def test_two_root_file_systems_have_no_stricter_one():
    with pytest.raises(PolicyError, match="rootfs"):
        narrow(P(rootfs="/srv/a"), P())


def test_a_policy_that_is_not_valid_is_refused():
    broken = msgspec.structs.replace(P(), filesystem=Filesystem(read_only_rootfs="false"))
    for pair in ((broken, P()), (P(), broken)):
        with pytest.raises(ConfigError):
            narrow(*pair)
