"""What a caller gave, turned into one validated configuration, or refused with the field's name.

Guarantees: a field that this version cannot honour is refused, never ignored. Does not: build anything. May be called
by: kavach.sandbox, kavach.aio, kavach.pool.
"""

from __future__ import annotations

from typing import Any

from kavach.errors import ConfigError, UnsupportedError
from kavach.model.config import SandboxConfig
from kavach.model.validate import check

_NOT_IN_THIS_VERSION = {
    "image_policy": "image verification",
    "attestation_policy": "attestation",
    "runtime_manifest": "runtime manifests",
}


class Unset:
    """The type of `UNSET`: an argument that was not given, where None means something."""

    def __repr__(self) -> str:
        return "<as configured>"


UNSET = Unset()


def make_config(config: object, fields: dict[str, Any]) -> SandboxConfig:
    """Return one validated configuration out of a ready one or of keywords.

    Raises:
        ConfigError: both, neither right; names the field.
        PolicyError: the policy contradicts itself.
    """
    if config is not None and fields:
        raise ConfigError(f"expected a SandboxConfig or keywords, got both ({', '.join(sorted(fields))})", key="$")
    if config is None:
        unknown = sorted(set(fields) - set(SandboxConfig.__struct_fields__))
        if unknown:
            raise ConfigError(f"$: a sandbox has no {unknown[0]!r}; see SandboxConfig", key=f"$.{unknown[0]}")
        config = SandboxConfig(**fields)
    if not isinstance(config, SandboxConfig):
        raise ConfigError(f"$: expected a SandboxConfig, got {type(config).__name__}", key="$")
    check(config)
    return config


def require_available(config: SandboxConfig) -> None:
    """Refuse a configuration that asks for what this version does not have, rather than ignore it.

    Raises:
        UnsupportedError: it asks for one of these.
    """
    for name, words in _NOT_IN_THIS_VERSION.items():
        if getattr(config, name) is not None:
            raise UnsupportedError(
                f"{name}: {words} are not part of this version", control=name, needed=words, found="none"
            )
