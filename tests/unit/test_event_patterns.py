"""Which topics a pattern means."""

from __future__ import annotations

import pytest

from kavach.audit.events.patterns import parse_pattern, require_topic
from kavach.errors import ConfigError

CASES = [
    ("sandbox/sb-1/lifecycle/started", "sandbox/sb-1/lifecycle/started", True),
    ("sandbox/*/lifecycle/started", "sandbox/sb-1/lifecycle/started", True),
    ("sandbox/*/lifecycle/started", "sandbox/sb-1/lifecycle/stopped", False),
    ("sandbox/*/started", "sandbox/sb-1/lifecycle/started", False),
    ("sandbox/*/lifecycle/*", "sandbox/sb-1/lifecycle/paused", True),
    ("sandbox/*/lifecycle/*", "sandbox/sb-1/lifecycle/paused/twice", False),
    ("sandbox/*/lifecycle", "sandbox/sb-1/lifecycle/paused", False),
    ("sandbox/sb-1/#", "sandbox/sb-1/limit/oom", True),
    ("sandbox/sb-1/#", "sandbox/sb-10/limit/oom", False),
    ("sandbox/*/scan/#", "sandbox/sb-1/scan/blocked", True),
    ("sandbox/*/scan/#", "sandbox/sb-1/scanner/blocked", False),
    ("sandbox/#", "trace/sb-1/exec", False),
    ("#", "trace/sb-1/exec", True),
    ("*/*/*", "trace/sb-1/exec", True),
    ("sandbox/a/b/#", "sandbox/a/b", True),  # the rest may be nothing
    ("sandbox/a/b/c/#", "sandbox/a/b", False),
]


@pytest.mark.parametrize(("pattern", "topic", "expected"), CASES)
def test_a_pattern_means_exactly_these_topics(pattern, topic, expected):
    assert parse_pattern(pattern).matches(topic.split("/")) is expected


@pytest.mark.parametrize(
    "pattern",
    ["", "/", "sandbox//x", "sandbox/", "#/x", "a/#/b", "a/b#", "a/b*", "a/*b/c", "a\n/b", "x" * 513, 7, None],
)
def test_a_pattern_that_cannot_mean_anything_is_refused(pattern):
    with pytest.raises(ConfigError) as caught:
        parse_pattern(pattern)
    assert caught.value.key == "pattern"


@pytest.mark.parametrize("topic", ["", "a", "a/b", "a//b", "a/b/*", "a/b/#", "a/b/c\x1b", 7, b"a/b/c"])
def test_a_topic_that_cannot_be_is_refused(topic):
    with pytest.raises(ConfigError) as caught:
        require_topic(topic)
    assert caught.value.key == "topic"
