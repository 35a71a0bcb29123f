"""Rules of the model's fields that few values meet, and how a foreign complaint is put into our words."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import pytest

from kavach import Backend, BackendUnavailable, ConfigError, SandboxPolicy, backends, errors
from kavach.backends import noop
from kavach.model.enforcement import Enforcement
from kavach.model.result import EndReason
from kavach.model.validate import Model, check, nearest, reworded


class Leaf(Model, frozen=True, kw_only=True):
    word: Annotated[str, msgspec.Meta(min_length=2, max_length=4, pattern="^[a-z]+$")] = "ab"


class Tree(Model, frozen=True, kw_only=True):
    count: Annotated[int, msgspec.Meta(ge=1, le=9)] = 1
    share: Annotated[float, msgspec.Meta(gt=0)] = 1.0
    names: dict[str, int] = msgspec.field(default_factory=dict)
    leaves: Annotated[tuple[Leaf, ...], msgspec.Meta(max_length=2)] = ()
    either: int | str | None = None
    anything: Any = None


class Odd(msgspec.Struct):
    value: frozenset[int] = frozenset()


@pytest.mark.parametrize(
    ("fields", "key"),
    [
        ({"count": 0}, "$.count"),
        ({"count": 10}, "$.count"),
        ({"count": True}, "$.count"),
        ({"count": 1.0}, "$.count"),
        ({"share": 0}, "$.share"),
        ({"share": float("nan")}, "$.share"),
        ({"share": float("inf")}, "$.share"),
        ({"names": {1: 1}}, "$.names (a key)"),
        ({"names": {"a": "b"}}, "$.names['a']"),
        ({"names": []}, "$.names"),
        ({"leaves": []}, "$.leaves"),
        ({"leaves": (Leaf(), "x")}, "$.leaves[1]"),
        ({"leaves": (Leaf(), Leaf(), Leaf())}, "$.leaves"),
        ({"either": 1.5}, "$.either"),
        ({"either": "\udc80"}, "$.either"),
    ],
)
def test_first_value_that_breaks_its_rule_is_named_by_its_path_and_not_quoted(fields, key):
    with pytest.raises(ConfigError) as caught:
        check(Tree(**fields))
    assert caught.value.key == key


@pytest.mark.parametrize("word", ["a", "abcde", "AB", "a\udc80"])
def test_text_of_another_length_or_form_is_refused(word):
    with pytest.raises(ConfigError) as caught:
        check(Tree(leaves=(Leaf(word=word),)))
    assert caught.value.key == "$.leaves[0].word"


def test_everything_that_keeps_the_rules_passes():
    check(Tree(count=9, share=0.5, names={"a": 1}, leaves=(Leaf(word="abcd"),), either="text", anything=object()))


@pytest.mark.parametrize("value", [None, 5, {"count": 1}, "text"])
def test_what_is_no_model_is_refused(value):
    with pytest.raises(ConfigError, match="expected a Kavach model"):
        check(value)


def test_field_of_a_shape_without_a_rule_is_our_own_defect():
    with pytest.raises(errors.InternalError, match="no rule for a field"):
        check(Odd())


@pytest.mark.parametrize(
    ("document", "key", "said"),
    [
        (b'{"count": "x"}', "$.count", "expected"),
        (b'{"nope": 1}', "$", "nope"),
        (b"[]", "$", "expected"),
    ],
)
def test_complaint_of_the_decoder_is_put_into_our_words(document, key, said):
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.json.decode(document, type=Tree)
    found = reworded(caught.value, source="p.json")
    assert (found.key, found.source) == (key, "p.json")
    assert said in str(found)
    assert "`" not in str(found)


def test_enum_that_is_unknown_is_not_quoted():
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.json.decode(b'"hunter2"', type=EndReason)
    assert "hunter2" not in str(reworded(caught.value))


def test_misspelt_word_is_answered_with_the_nearest():
    assert nearest("Strickt", ["strict", "basic"]) == " (did you mean 'strict'?)"
    assert nearest("zzz", ["strict"]) == ""


# which wall


def probe(name, *, available=True, score=50, reasons=()):
    from kavach.backends.base import Probe

    return Probe(name, available=available, version="1", score=score, reasons=reasons, missing=("userns",))


@pytest.fixture
def walls(monkeypatch):
    def stand(**probes):
        monkeypatch.setattr(backends, "names", lambda: (*probes, "noop"))
        monkeypatch.setattr(backends, "probe", lambda name, _policy: probes[name])

    return stand


def test_strongest_wall_that_starts_is_taken_and_never_noop(walls):
    walls(a=probe("a", score=40), b=probe("b", score=70), c=probe("c", available=False, score=None))
    assert Backend.resolve_best("basic") == "b"
    assert Backend.resolve_min_strength("basic", 30) == "a"
    assert Backend.resolve_min_strength("basic", 60) == "b"
    assert Backend.resolve_min_strength("basic", 80) is None


def test_no_wall_that_starts_says_each_one_s_reason(walls):
    walls(a=probe("a", available=False, reasons=("no user namespaces",)))
    with pytest.raises(BackendUnavailable, match="a: no user namespaces") as caught:
        Backend.resolve_best("basic")
    assert list(caught.value.missing) == ["userns"]


@pytest.mark.parametrize("score", [-1, 101, True, "50", None, 50.0])
def test_strength_out_of_bounds_is_refused(score):
    with pytest.raises(ConfigError) as caught:
        Backend.resolve_min_strength("basic", score)
    assert caught.value.key == "score"


@pytest.mark.parametrize("backend", ["bad", "auto"])
def test_wall_of_another_distribution_that_does_not_load_is_unavailable_and_no_bar_to_the_others(monkeypatch, backend):
    class Point:
        name = "bad"

        def load(self):
            raise ModuleNotFoundError("No module named 'gone'")

    monkeypatch.setattr(backends, "third_party", lambda: {"bad": Point()})
    if backend == "bad":
        with pytest.raises(BackendUnavailable, match="gone") as caught:
            backends.load_backend("Bad")
        assert caught.value.backend == "Bad"
    else:
        backends.probe.cache_clear()
        found = backends.probe("bad", SandboxPolicy.basic())
        assert not found.available
        assert "gone" in found.reasons[0]
        backends.probe.cache_clear()


def test_run_of_no_wall_ends_at_once_having_run_nothing():
    run = noop._NothingRan(Enforcement.of("noop", ()))
    run.ready(0, 0.0)
    run.tick(0.0)
    run.cancel(0.0)
    run.signal(9, group=True)
    assert run.descriptors() == []
    assert run.result().reason is EndReason.NOT_RUN


def test_policy_named_by_no_preset_is_refused_by_the_resolvers():
    with pytest.raises(ConfigError):
        Backend.resolve_best("strickt")
    assert SandboxPolicy.resolve("strict").preset == "strict"
