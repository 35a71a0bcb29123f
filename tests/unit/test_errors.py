"""The exception tree: what each carries, that it survives pickling, and that it says nothing it must not."""

from __future__ import annotations

import copy
import pickle

import pytest

from kavach import errors

CASES = [
    (errors.KavachError("a", hint="h"), {}),
    (errors.ConfigError("a", key="$.x", source="f.toml", hint="h"), {"key": "$.x", "source": "f.toml"}),
    (errors.PolicyError("a", hint="h"), {}),
    (
        errors.UnsupportedError("a", control="seccomp", needed="x", found="y", hint="h"),
        {"control": "seccomp", "needed": "x", "found": "y"},
    ),
    (
        errors.BackendUnavailable("a", backend="oci", missing=["crun", "runc"], hint="h"),
        {"backend": "oci", "missing": ("crun", "runc")},
    ),
    (errors.LaunchError("a", step="mounts", errno=13, hint="h"), {"step": "mounts", "errno": 13}),
    (
        errors.BackendError("a", runtime="runc", exit_code=1, stderr_tail="words", hint="h"),
        {"runtime": "runc", "exit_code": 1, "stderr_tail": "words"},
    ),
    (
        errors.LifecycleError("a", state="paused", target="exec", hint="h"),
        {"state": "paused", "target": "exec"},
    ),
    (
        errors.Withheld("a", verdict="block", findings=["f"], quarantine_id="q", hint="h"),
        {"verdict": "block", "findings": ("f",), "quarantine_id": "q"},
    ),
    (errors.AuditError("a", index=3, check="hash", hint="h"), {"index": 3, "check": "hash"}),
    (errors.CredentialError("a", hint="h"), {}),
    (errors.EgressError("a", hint="h"), {}),
    (errors.ImageError("a", hint="h"), {}),
    (errors.AttestationError("a", check="nonce", hint="h"), {"check": "nonce"}),
    (errors.InternalError("a", hint="h"), {}),
]


def test_the_tree_has_exactly_the_public_names():
    assert sorted(errors.__all__) == sorted(type(error).__name__ for error, _ in CASES)


@pytest.mark.parametrize(("error", "attributes"), CASES, ids=lambda case: type(case).__name__)
def test_every_error_is_a_kavach_error_with_its_attributes(error, attributes):
    assert isinstance(error, errors.KavachError)
    assert str(error) == error.message == "a"
    assert error.hint == "h"
    for name, value in attributes.items():
        assert getattr(error, name) == value


@pytest.mark.parametrize(("error", "attributes"), CASES, ids=lambda case: type(case).__name__)
def test_every_error_survives_pickle_and_copy(error, attributes):
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(twin) is type(error)
        assert str(twin) == str(error)
        assert twin.__dict__ == error.__dict__
        assert set(attributes) <= set(twin.__dict__)


@pytest.mark.parametrize("cls", [type(error) for error, _ in CASES])
def test_every_attribute_may_be_left_out(cls):
    error = cls("what happened")
    assert str(error) == "what happened"
    assert all(value in (None, (), "") for name, value in vars(error).items() if name != "hint")


def test_internal_error_says_how_to_report_it():
    assert "report" in errors.InternalError("broken").hint


def test_backend_error_keeps_the_runtimes_words_out_of_its_message():
    error = errors.BackendError("runc failed", stderr_tail="token=abc")
    assert "abc" not in str(error)
    assert "abc" not in repr(error)


def test_one_missing_thing_may_be_given_as_a_text():
    assert errors.BackendUnavailable("a", missing="crun").missing == ("crun",)
