"""What a caller gave becomes one configuration or a named error; what a wall returned becomes a released result."""

from __future__ import annotations

import pytest

from kavach import backends
from kavach.errors import BackendUnavailable, ConfigError, UnsupportedError
from kavach.model.config import SandboxConfig
from kavach.model.given import _NOT_IN_THIS_VERSION, UNSET, make_config, require_available
from kavach.model.policy import SandboxPolicy


def test_configuration_and_keywords_together_are_refused():
    with pytest.raises(ConfigError, match="got both"):
        make_config(SandboxConfig(), {"policy": "strict"})


def test_keyword_that_does_not_exist_is_named():
    with pytest.raises(ConfigError, match="polcy") as caught:
        make_config(None, {"polcy": "strict"})
    assert caught.value.key == "$.polcy"


@pytest.mark.parametrize("given", ["strict", 7, {"policy": "strict"}])
def test_what_is_no_configuration_is_refused(given):
    with pytest.raises(ConfigError, match=type(given).__name__):
        make_config(given, {})


def test_ready_configuration_is_taken_as_it_is():
    ready = SandboxConfig(policy=SandboxPolicy.strict())
    assert make_config(ready, {}) is ready
    assert make_config(None, {"policy": SandboxPolicy.strict()}) == ready


def test_every_field_of_a_later_version_exists_and_is_refused_by_name():
    require_available(SandboxConfig())
    for name in _NOT_IN_THIS_VERSION:
        config = type("Config", (), {**dict.fromkeys(_NOT_IN_THIS_VERSION), name: object()})()
        with pytest.raises(UnsupportedError) as caught:
            require_available(config)
        assert caught.value.control == name
    assert set(_NOT_IN_THIS_VERSION) <= set(SandboxConfig.__struct_fields__)


def test_argument_that_was_not_given_reads_so():
    assert repr(UNSET) == "<as configured>"


def test_wall_that_does_not_exist_is_never_another_wall():
    assert backends.load_backend("PROCESS") is backends.load_backend("process")
    with pytest.raises(BackendUnavailable, match="gvisor") as caught:
        backends.load_backend("gvisor")
    assert caught.value.backend == "gvisor"
    with pytest.raises((BackendUnavailable, ConfigError)):
        backends.load_backend("no-such-wall")


@pytest.mark.parametrize("score", [True, -1, 101, 1.5, "70"])
def test_score_that_is_none_is_refused(score):
    with pytest.raises(ConfigError, match="0 to 100"):
        backends.resolve_min_strength(SandboxPolicy.strict(), score)
