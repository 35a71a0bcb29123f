"""The configuration and its builder."""

from __future__ import annotations

from pathlib import Path

import pytest

from kavach.errors import BackendUnavailable, ConfigError, PolicyError
from kavach.model.backend import Backend
from kavach.model.builder import SandboxConfigBuilder
from kavach.model.config import SandboxConfig
from kavach.model.policy import SandboxPolicy
from kavach.model.secret import EnvVar, SecretRef
from kavach.model.validate import check
from kavach.model.verdict import ExternalizationPolicy

SETTINGS = {
    "backend": "process",
    "policy": "strict",
    "secrets": (SecretRef("k", EnvVar("K")),),
    "credentials": object(),
    "timeout_ms": 5,
    "workdir": "/srv/work",
    "workdir_rw": True,
    "env": {"A": "1"},
    "agent_id": "agent-123",
    "externalization": ExternalizationPolicy.enforce(),
    "audit": object(),
    "receipt_key": object(),
    "quarantine": object(),
    "offenders": object(),
    "guards": object(),
    "integrity": object(),
    "events": object(),
    "image_policy": object(),
    "attestation_policy": object(),
    "inner_backend": "wasm",
    "layers": ("process", "wasm"),
    "hostname": "box-1",
    "domainname": "example.org",
    "runtime_manifest": object(),
    "min_score": 60,
    "why": True,
    "labels": {"team": "a"},
}


def test_the_defaults_are_the_designs():
    config = SandboxConfig()
    assert (config.backend, config.policy, config.timeout_ms) == ("process", "basic", 30_000)
    assert (config.env, config.secrets, config.workdir, config.min_score) == ({}, (), None, None)
    check(config)


def test_every_field_has_a_setter_of_its_name():
    assert set(SETTINGS) == set(SandboxConfig.__struct_fields__)
    builder = SandboxConfig.builder()
    for name, value in SETTINGS.items():
        assert getattr(builder, name)(value) is builder
    config = builder.build()
    assert {name: getattr(config, name) for name in SETTINGS} == SETTINGS


def test_the_designs_example_builds():
    config = (
        SandboxConfig.builder()
        .backend(Backend.PROCESS)
        .policy_seccomp("basic")
        .network(False)
        .timeout_ms(30_000)
        .agent_id("agent-123")
        .build()
    )
    assert config.policy == SandboxPolicy.basic()
    assert config.backend == "process"


def test_changes_are_laid_over_the_policy_whatever_the_order_of_the_calls():
    one = SandboxConfigBuilder().policy_seccomp("Python").policy("strict").build().policy
    two = SandboxConfigBuilder().policy(SandboxPolicy.strict()).policy_seccomp("python").build().policy
    assert one == two == SandboxPolicy.strict(profile="python")


def test_network_true_is_the_hosts_and_strict_refuses_it():
    assert SandboxConfigBuilder().network(True).build().policy.network.mode == "host"
    with pytest.raises(PolicyError):
        SandboxConfigBuilder().policy("strict").network(True).build()


@pytest.mark.parametrize("value", ["false", "true", 0, 1, None])
def test_no_text_or_number_passes_for_a_network_switch(value):
    with pytest.raises(ConfigError, match="expected bool"):
        SandboxConfigBuilder().network(value)


def test_the_seccomp_switch_refuses_a_misspelt_profile():
    with pytest.raises(ConfigError, match="profiles"):
        SandboxConfigBuilder().policy_seccomp("strickt").build()


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"timeout_ms": 0}, "$.timeout_ms"),
        ({"timeout_ms": "30"}, "$.timeout_ms"),
        ({"timeout_ms": 1.5}, "$.timeout_ms"),
        ({"timeout_ms": True}, "$.timeout_ms"),
        ({"backend": ""}, "$.backend"),
        ({"backend": "a\nb"}, "$.backend"),
        ({"backend": None}, "$.backend"),
        ({"policy": 5}, "$.policy"),
        ({"policy": None}, "$.policy"),
        ({"policy": {"preset": "strict"}}, "$.policy"),
        ({"secrets": ("k",)}, "$.secrets[0]"),
        ({"secrets": "k"}, "$.secrets"),
        ({"secrets": (SecretRef("bad name", EnvVar("K")),)}, "$.secrets[0].name"),
        ({"secrets": (SecretRef("k", "K"),)}, "$.secrets[0].inject_via"),
        ({"workdir": "work"}, "$.workdir"),
        ({"workdir": "/"}, "$.workdir"),
        ({"workdir": "/a/../b"}, "$.workdir"),
        ({"workdir_rw": True}, "$.workdir_rw"),
        ({"workdir_rw": "false", "workdir": "/w"}, "$.workdir_rw"),
        ({"env": {"A": 1}}, "$.env['A']"),
        ({"env": {"A=": "1"}}, "$.env"),
        ({"env": [("A", "1")]}, "$.env"),
        ({"agent_id": ""}, "$.agent_id"),
        ({"agent_id": "a\x1b[2J"}, "$.agent_id"),
        ({"externalization": "redact"}, "$.externalization"),
        ({"layers": ()}, "$.layers"),
        ({"layers": "process"}, "$.layers"),
        ({"hostname": "-a"}, "$.hostname"),
        ({"hostname": "a b"}, "$.hostname"),
        ({"hostname": "x" * 65}, "$.hostname"),
        ({"domainname": "a."}, "$.domainname"),
        ({"min_score": 101}, "$.min_score"),
        ({"min_score": -1}, "$.min_score"),
        ({"min_score": "60"}, "$.min_score"),
        ({"labels": {"a": 1}}, "$.labels['a']"),
    ],
)
def test_a_wrong_value_is_named_by_its_path(values, key):
    with pytest.raises(ConfigError) as caught:
        check(SandboxConfig(**values))
    assert caught.value.key == key


def test_mappings_are_copied_and_paths_become_texts():
    env = {"A": "1"}
    config = SandboxConfig(env=env, workdir=Path("/srv"), policy=Path("/p.toml"), layers=["process"])
    env["A"] = "2"
    assert config.env == {"A": "1"}
    assert (config.workdir, config.policy, config.layers) == ("/srv", "/p.toml", ("process",))


def test_repr_shows_no_environment():
    assert "hunter2" not in repr(SandboxConfig(env={"KEY": "hunter2"}, receipt_key="hunter2"))


def test_an_unknown_field_is_refused():
    with pytest.raises(TypeError):
        SandboxConfig(time_out=5)


@pytest.mark.parametrize(
    ("name", "wall"),
    [("PROCESS", "process"), ("SyAgnos", "sy-agnos"), ("sy_agnos", "sy-agnos"), ("sy-agnos", "sy-agnos")],
)
def test_a_walls_name_is_read_whatever_its_case(name, wall):
    assert Backend.parse(name) == wall
    assert str(Backend.parse(name)) == wall


@pytest.mark.parametrize("name", ["x", "", "auto", None, 5])
def test_an_unknown_wall_is_named(name):
    with pytest.raises(BackendUnavailable, match=f"unknown backend: {name}"):
        Backend.parse(name)


def test_there_are_ten_walls():
    assert len(Backend.all()) == 10
