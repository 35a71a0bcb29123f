"""The JSON Schema of profile files, made from the models so that it cannot drift from them.

Enforces: nothing; editors and CI use it. Does not: say what needs more than types (paths that must be
normalised, values that contradict one another); loading a profile does. Called by the CLI and by tests; pure.
"""

from __future__ import annotations

from typing import Any

import msgspec

from kavach.model.enforcement import Control
from kavach.model.policy import GROUPS, PathRule
from kavach.policy.presets import PRESETS
from kavach.policy.profiles import UNRESTRICTED

__all__ = ["profile_schema"]

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def profile_schema() -> dict[str, Any]:
    """Return the schema of a profile file, as a new document."""
    (_, *_), parts = msgspec.json.schema_components([*GROUPS.values(), PathRule], ref_template="#/$defs/{name}")
    definitions = {name: _definition(name, part) for name, part in parts.items()}
    properties: dict[str, Any] = {
        "extends": {
            "description": "what this file is laid over: a preset or a file beside this one",
            "anyOf": [{"enum": list(PRESETS)}, {"type": "string", "pattern": r"\.(toml|json)$"}],
            "default": "basic",
        },
        "description": {"type": "string"},
        "devices": {"type": "array", "items": {"type": "string", "pattern": "^(/dev/.*|nvidia|dri|kfd|accel)$"}},
        "may_lack": {"type": "array", "items": {"enum": ["*", *(control.value for control in Control)]}},
        "nested": {"type": "boolean"},
    }
    properties |= {name: {"$ref": f"#/$defs/{group.__name__}"} for name, group in GROUPS.items()}
    return {
        "$schema": _DIALECT,
        "title": "Kavach profile",
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
        "$defs": definitions,
    }


def _definition(name: str, part: dict[str, Any]) -> dict[str, Any]:
    if name == PathRule.__name__:
        return {"title": name, "type": "string", "pattern": "^/"}
    if "properties" not in part:
        return part
    properties = {leaf: _leaf(shape) for leaf, shape in part["properties"].items()}
    if "profiles" in properties:
        properties["profile"] = {
            "anyOf": [{"$ref": "#/$defs/SeccompProfile"}, {"enum": [None, UNRESTRICTED]}],
            "description": "short for one profile",
        }
    return {**part, "properties": properties, "required": []}


def _leaf(shape: dict[str, Any]) -> dict[str, Any]:
    """Return a leaf without its default (what it extends says it), `unrestricted` where null is allowed."""
    leaf = {key: value for key, value in shape.items() if key != "default"}
    if {"type": "null"} in leaf.get("anyOf", ()):
        leaf["anyOf"] = [*leaf["anyOf"], {"const": UNRESTRICTED}]
    return leaf
