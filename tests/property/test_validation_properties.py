"""Nothing but what the types promise gets through, and nothing but a ConfigError or PolicyError comes out."""

from __future__ import annotations

import contextlib
import json
import math

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kavach.errors import ConfigError, PolicyError
from kavach.model.command import make_command, milliseconds
from kavach.model.network import parse_network_rule
from kavach.model.paths import path_problem
from kavach.model.policy import GROUPS, LEAVES, SandboxPolicy
from kavach.model.validate import check
from kavach.policy.profiles import dump_profile, read_profile_text

SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.binary(max_size=4), st.just(object())
)
ANYTHING = st.one_of(
    SCALARS,
    st.lists(SCALARS, max_size=3),
    st.sets(st.integers() | st.text(max_size=3), max_size=3),
    st.dictionaries(st.text(max_size=5), SCALARS, max_size=2),
    st.sampled_from(["none", "host", "allow", "strict", "basic", "/a", "all", "caller", "kill", "*", "limits"]),
    st.integers(1, 65535),
    st.lists(st.sampled_from(["/a", "/b/c", "/dev/x", "seccomp", "a.test:1"]), max_size=3).map(tuple),
)
KEYWORDS = st.dictionaries(st.sampled_from([*LEAVES, *SandboxPolicy.__struct_fields__]), ANYTHING, max_size=4)
REFUSALS = (ConfigError, PolicyError)


@given(KEYWORDS)
def test_a_policy_is_either_refused_or_holds_exactly_what_its_types_say(keywords):
    try:
        policy = SandboxPolicy(**keywords)
    except REFUSALS:
        return
    check(policy)
    hash(policy)
    # msgspec's own strict decoder is the oracle: what we let pass, it must read back as the same.
    assert msgspec.json.decode(msgspec.json.encode(policy), type=SandboxPolicy) == policy
    for name, group in GROUPS.items():
        for leaf in group.__struct_fields__:
            value = getattr(getattr(policy, name), leaf)
            assert not (isinstance(value, float) and not math.isfinite(value))


@given(st.sampled_from(sorted(LEAVES)), st.booleans())
def test_a_bool_passes_only_where_a_bool_is_meant(leaf, value):
    flags = {"read_only_rootfs", "refuse_wx", "scope_abstract", "scope_signal"}
    if leaf in flags:
        assert SandboxPolicy(**{leaf: value}) is not None
    else:
        with pytest.raises(ConfigError):
            SandboxPolicy(**{leaf: value})


@given(st.sampled_from(sorted(LEAVES)), st.sampled_from(["false", "true", "False", "0", "1", "no", "off", "None"]))
def test_no_text_passes_for_a_switch_or_a_number(leaf, text):
    texts = {"rootfs"}  # the one leaf that takes any text: the reference of an image
    if leaf not in texts:
        with pytest.raises(ConfigError):
            SandboxPolicy(**{leaf: text})


@given(st.text(alphabet="ab./\0", max_size=12))
def test_a_path_that_is_allowed_is_absolute_and_goes_nowhere_else(path):
    import posixpath

    fine = path.startswith("/") and "\0" not in path and posixpath.normpath(path) == path
    assert (path_problem(path) is None) == (fine and not path.startswith("//"))


@given(st.text(alphabet="abx01.*:/[]-_udptc ", max_size=24) | st.text(max_size=12))
@example("a.test:1/udp")
def test_a_network_rule_is_refused_or_has_one_spelling(text):
    try:
        rule = parse_network_rule(text)
    except ValueError:
        return
    assert parse_network_rule(str(rule)) == rule
    assert str(parse_network_rule(str(rule))) == str(rule)
    assert rule.intersect(rule) == rule


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
)
DOCUMENT = st.dictionaries(
    st.sampled_from(["extends", "description", "devices", "may_lack", "nested", *GROUPS, "x"]),
    JSON
    | st.dictionaries(st.sampled_from(sorted(LEAVES)), JSON | ANYTHING.filter(lambda v: v in (None, 1)), max_size=3),
    max_size=3,
)


@given(DOCUMENT)
def test_a_profile_is_read_or_refused_and_never_crashes(document):
    try:
        policy = read_profile_text(json.dumps(document).encode(), name="p.json", folder="/nowhere")
    except REFUSALS:
        return
    check(policy)
    assert read_profile_text(dump_profile(policy).encode(), name="p.toml") == policy


@given(st.binary(max_size=64), st.sampled_from(["p.toml", "p.json"]))
def test_any_bytes_are_a_profile_or_refused(data, name):
    with contextlib.suppress(REFUSALS):
        check(read_profile_text(data, name=name, folder="/nowhere"))


@given(KEYWORDS)
def test_every_policy_reads_back_from_its_dump(keywords):
    try:
        policy = SandboxPolicy(**keywords)
    except REFUSALS:
        return
    assert read_profile_text(dump_profile(policy).encode(), name="p.toml") == policy


@given(st.lists(st.text() | st.binary() | st.integers() | st.none(), max_size=4) | st.text() | SCALARS)
def test_a_command_is_bytes_without_nul_or_refused(argv):
    try:
        command = make_command(argv)
    except ConfigError:
        return
    assert command.argv
    assert command.argv[0]
    assert all(isinstance(word, bytes) and b"\0" not in word for word in command.argv)
    check(command)


@given(ANYTHING)
def test_a_time_limit_is_a_positive_whole_number_of_milliseconds_or_refused(seconds):
    try:
        ms = milliseconds(seconds)
    except ConfigError:
        return
    assert ms is None or (type(ms) is int and ms >= 1)
