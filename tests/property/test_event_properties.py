"""Patterns agree with a regular expression; no text becomes markup or a second line."""

from __future__ import annotations

import logging
import re
from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from kavach.audit.events import Event, EventBus
from kavach.audit.events.patterns import parse_pattern
from kavach.audit.sinks.logs import LoggingSink
from kavach.cli.page import element, safe, table
from kavach.errors import ConfigError

WORD = st.sampled_from(["a", "b", "sandbox", "sb-1", "x"])
TOPICS = st.lists(WORD, min_size=3, max_size=6)
PATTERNS = st.tuples(st.lists(WORD | st.just("*"), min_size=1, max_size=6), st.booleans())
TEXT = st.text(st.characters() | st.sampled_from("<>&\"'\x1b\n\u202e"), max_size=60)
PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT


def oracle(segments, *, is_open):
    head = "/".join("[^/]+" if one == "*" else re.escape(one) for one in segments)
    return re.compile(f"{head}(/.*)?" if is_open else head)


@given(PATTERNS, TOPICS)
def test_a_pattern_agrees_with_a_regular_expression(pattern, topic):
    segments, is_open = pattern
    text = "/".join([*segments, "#"] if is_open else segments)
    expected = oracle(segments, is_open=is_open).fullmatch("/".join(topic)) is not None
    assert parse_pattern(text).matches(topic) is expected


@given(st.text(max_size=20))
def test_any_text_is_a_pattern_or_refused(text):
    try:
        parse_pattern(text)
    except ConfigError:
        return
    assert text.isprintable()
    assert "" not in text.split("/")


@given(st.dictionaries(st.text(max_size=5), PLAIN | st.lists(PLAIN, max_size=3), max_size=4))
def test_a_payload_arrives_as_it_was_published(payload):
    got = []
    with EventBus() as bus:
        bus.subscribe("#", got.append)
        bus.publish("a/b/c", payload)
        assert bus.drain(10)
    expected = {key: tuple(value) if isinstance(value, list) else value for key, value in payload.items()}
    assert got[0].payload == expected


@given(TEXT)
def test_no_event_makes_more_than_one_printable_line_of_a_log(text):
    lines = []
    logger = logging.getLogger("kavach.tests.apart")
    logger.propagate, logger.handlers = False, [handler := logging.Handler()]
    logger.setLevel(logging.INFO)
    handler.emit = lambda record: lines.append(record.getMessage())
    LoggingSink(logger)(Event(serial=1, time_s=0.0, topic="a/b/c", fields=(("text", text),)))
    assert len(lines) == 1
    assert lines[0].isascii()
    assert lines[0].isprintable()


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        self.found.append(tag)

    def handle_comment(self, data):
        self.found.append("comment")

    def handle_decl(self, decl):
        self.found.append("declaration")

    def unknown_decl(self, data):
        self.found.append("declaration")

    def handle_pi(self, data):
        self.found.append("instruction")


@given(TEXT, TEXT)
def test_no_text_becomes_markup_inside_or_as_an_attribute(text, css):
    reader = Tags()
    reader.feed(str(element("p", text, css=css)) + str(table(("a", "b…"), [(text, safe(text))])))
    reader.close()
    assert reader.found == ["p", "div", "table", "thead", "tr", "th", "th", "tbody", "tr", "th", "td"]
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", str(safe(text)))
