"""Whatever narrow(a, b) allows, a allows and b allows; and it is a meet: commutative and idempotent."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kavach.model.enforcement import Control
from kavach.model.network import parse_network_rule
from kavach.model.paths import is_at_or_below
from kavach.model.policy import SandboxPolicy
from kavach.policy.narrow import narrow

SEGMENTS = ("a", "b", "ab")
PATHS = st.lists(st.sampled_from(SEGMENTS), min_size=1, max_size=3).map(lambda parts: "/" + "/".join(parts))
# Deeper than any rule, so that a rule's inside is asked about and not only its top.
PROBES = sorted(
    {
        "/" + "/".join(parts)
        for a in SEGMENTS
        for b in SEGMENTS
        for c in SEGMENTS
        for parts in ((a,), (a, b), (a, b, c, "leaf"))
    }
)
HOSTS = ("x.test", "y.x.test", "z.y.x.test", "other.test")
RULES = st.sampled_from(
    [f"{host}:{port}" for host in (*HOSTS, "*.x.test", "*.test", "10.0.0.0/8", "10.1.0.0/16") for port in ("*", 1, 2)]
)
PORTS = st.none() | st.lists(st.integers(1, 4), max_size=4)
NETWORKS = st.one_of(
    st.fixed_dictionaries({"mode": st.sampled_from(["none", "host"])}),
    st.fixed_dictionaries(
        {
            "mode": st.just("allow"),
            "rules": st.lists(RULES, max_size=4),
            "deny_rules": st.lists(RULES, max_size=2),
        }
    ),
)
SECCOMP = st.one_of(
    st.fixed_dictionaries({"profiles": st.none()}),
    st.fixed_dictionaries({"profiles": st.lists(st.sampled_from(["basic", "strict", "python"]), min_size=1)}),
    st.fixed_dictionaries(
        {"profiles": st.just(["custom", "basic"]), "custom_files": st.lists(PATHS, min_size=1, max_size=2)}
    ),
)
LISTS = st.lists(PATHS, max_size=3)
LEAVES = st.fixed_dictionaries(
    {
        "read": LISTS,
        "write": LISTS,
        "execute": LISTS,
        "deny": LISTS,
        "view": st.sampled_from(["all", "system", "allow"]),
        "python": st.sampled_from([None, "caller", "/py"]),
        "data_dir": st.sampled_from([None, "/data", "/other"]),
        "read_only_rootfs": st.booleans(),
        "refuse_wx": st.booleans(),
        "tmp_bytes": st.none() | st.integers(4096, 1 << 20),
        "memory_limit_mb": st.none() | st.integers(1, 99),
        "cpu_limit": st.none() | st.floats(0.01, 8),
        "max_pids": st.none() | st.integers(1, 99),
        "file_size": st.none() | st.integers(0, 9),
        "open_files": st.none() | st.integers(8, 99),
        "disk_bytes": st.none() | st.integers(4096, 9999),
        "cpu_time_s": st.none() | st.integers(1, 9),
        "output_bytes": st.none() | st.integers(0, 9),
        "output_action": st.sampled_from(["truncate", "kill"]),
        "scope_abstract": st.booleans(),
        "scope_signal": st.booleans(),
        "tcp_bind_ports": PORTS,
        "tcp_connect_ports": PORTS,
        "devices": st.lists(st.sampled_from(["/dev/a", "/dev/b"])),
        "may_lack": st.lists(st.sampled_from(["*", *Control])),
        "nested": st.booleans(),
        "preset": st.sampled_from(["minimal", "basic"]),
    }
)


@st.composite
def policies(draw):
    return SandboxPolicy(**draw(LEAVES), **draw(NETWORKS), **draw(SECCOMP))


def granted(policy):
    """Return what a policy allows as a set of facts: the oracle, written from the model page and not from narrow()."""
    files, facts = policy.filesystem, set()
    under = {kind: [rule.path for rule in getattr(files, kind)] for kind in ("read", "write", "execute", "deny")}
    if files.data_dir:
        under["write"].append(files.data_dir)
    for probe in [*PROBES, "/data/x", "/other/x"]:
        if any(is_at_or_below(probe, rule) for rule in under["deny"]):
            continue
        hit = {kind: any(is_at_or_below(probe, rule) for rule in rules) for kind, rules in under.items()}
        if hit["read"] or hit["write"] or hit["execute"] or files.view == "all":
            facts.add(("read", probe))
        if hit["execute"] or files.view == "all":
            facts.add(("execute", probe))
        if hit["write"]:
            facts.add(("write", probe))
    if files.view == "all":
        facts |= {("python", "caller"), ("python", "/py")}
    elif files.python:
        facts.add(("python", files.python))
    facts |= {("view", view) for view in ("allow", "system", "all")[: ("allow", "system", "all").index(files.view) + 1]}
    return facts | network_facts(policy.network) | other_facts(policy)


def network_facts(network):
    if network.mode == "none":
        return set()
    probes = [(host, port) for host in (*HOSTS, "10.0.0.1", "10.1.0.1", "elsewhere.test") for port in (1, 2, 3)]
    if network.mode == "host":
        return {("connect", *probe) for probe in probes} | {("connect", "anything")}
    return {
        ("connect", *probe)
        for probe in probes
        if any(matches(rule, *probe) for rule in network.rules)
        and not any(matches(rule, *probe) for rule in network.deny_rules)
    }


def matches(text, host, port):
    rule = parse_network_rule(text)
    if rule.port not in (None, port):
        return False
    if rule.kind == "cidr":
        prefix = {"10.0.0.0/8": "10.", "10.1.0.0/16": "10.1."}[rule.host]
        return host.startswith(prefix)
    return host.endswith("." + rule.host) if rule.kind == "wildcard" else host == rule.host


def other_facts(policy):
    facts = set()
    limits = policy.limits
    for name in (
        "memory_limit_mb",
        "cpu_limit",
        "max_pids",
        "file_size",
        "open_files",
        "disk_bytes",
        "cpu_time_s",
    ):
        bound = getattr(limits, name)
        amounts = (0, 0.5, 1, 2, 5, 8, 9, 50, 99, 4096, 9999, 1e9)
        facts |= {(name, amount) for amount in amounts if bound is None or amount <= bound}
    facts |= {("output", n) for n in range(12) if limits.output_bytes is None or n <= limits.output_bytes}
    facts |= {
        ("tmp", n)
        for n in (4096, 9999, 1 << 20, 1 << 30)
        if not policy.filesystem.tmp_bytes or n <= policy.filesystem.tmp_bytes
    }
    for name in ("tcp_bind_ports", "tcp_connect_ports"):
        ports = getattr(policy.landlock, name)
        facts |= {(name, port) for port in range(1, 7) if ports is None or port in ports}
    # A call passes if every filter lets it: each profile is a set of calls that this model leaves open.
    asked = set(policy.seccomp.profiles or ()) - {"custom"} | set(policy.seccomp.custom_files)
    filters = ["basic", "strict", "python", *policy.seccomp.custom_files, "none"]
    facts |= {("call that only this refuses", one) for one in filters if one not in asked}
    facts |= {("device", device) for device in policy.devices}
    facts |= {("lack", c.value) for c in Control if "*" in policy.may_lack or c.value in policy.may_lack}
    for name, forbids in (
        ("write to root", policy.filesystem.read_only_rootfs),
        ("w+x memory", policy.seccomp.refuse_wx),
        ("abstract socket", policy.landlock.scope_abstract),
        ("signal", policy.landlock.scope_signal),
        ("go on after the cap", limits.output_action == "kill"),
        ("nest", not policy.nested),
    ):
        facts |= set() if forbids else {(name,)}
    return facts


@given(policies(), policies())
def test_whatever_the_narrowed_policy_allows_both_allow(a, b):
    allowed = granted(narrow(a, b))
    customs = {("call that only this refuses", one) for one in (*a.seccomp.custom_files, *b.seccomp.custom_files)}
    for one in (a, b):
        assert allowed - customs <= granted(one)
    merged = set(narrow(a, b).seccomp.custom_files)
    assert merged == {*a.seccomp.custom_files, *b.seccomp.custom_files}


@given(policies(), policies())
def test_the_order_does_not_matter(a, b):
    assert narrow(a, b) == narrow(b, a)


@given(policies(), policies())
def test_narrowing_again_changes_nothing(a, b):
    once = narrow(a, b)
    assert narrow(once, once) == once
    assert narrow(once, a) == once
    assert narrow(once, b) == once


@given(policies())
def test_a_policy_narrowed_by_itself_allows_the_same(policy):
    assert granted(narrow(policy, policy)) == granted(policy)


@given(policies())
def test_minimal_with_the_hosts_network_takes_nothing_that_texts_can_tell(policy):
    """The loosest policy is neutral for everything but grants that it does not make itself."""
    loosest = SandboxPolicy.minimal(mode="host", output_bytes=None, nested=True, devices=["/dev/a", "/dev/b"])
    lost = granted(policy) - granted(narrow(policy, loosest))
    assert {fact[0] for fact in lost} <= {"write"}


@given(policies(), policies())
def test_unrestricted_is_only_where_both_are_unrestricted(a, b):
    merged = narrow(a, b)
    for group, leaf in (
        ("landlock", "tcp_bind_ports"),
        ("landlock", "tcp_connect_ports"),
        ("limits", "file_size"),
    ):
        values = [getattr(getattr(policy, group), leaf) for policy in (a, b, merged)]
        assert (values[2] is None) == (values[0] is None and values[1] is None)
