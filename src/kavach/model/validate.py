"""Whole trees are checked strictly, once, at every public entry point; the wrong value is named by its path.

Enforces: exact types (a bool is not an int, a str is not a path rule, NaN and infinity are no numbers), the
bounds written on the fields, and each Struct's own rules (`problems`). Does not: convert, complete or repair
a value, and it never quotes one that is not a number: a configuration may hold what must not be logged.
Called by every public entry point and by the constructors of `SandboxPolicy`; raises `ConfigError`,
or `PolicyError` where the values are right and contradict one another.
"""

from __future__ import annotations

import enum
import math
import re
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import msgspec
from msgspec import inspect as shapes

from kavach.errors import ConfigError, InternalError, PolicyError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Problem = tuple[str, str]  # path, what is wrong

__all__ = ["Model", "check", "nearest", "reworded"]


class Model(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The shape of every noun: frozen, keyword-only, unknown keys are errors."""

    def problems(self) -> Iterable[tuple[str, str]]:
        """Return what the types cannot say: pairs of a path below this value and what was expected there."""
        return ()

    def contradictions(self) -> Iterable[tuple[str, str]]:
        """Return, as `problems` does, where parts that are right alone do not go together."""
        return ()


class _Rule(NamedTuple):
    """What one field takes: its name in messages, a test of the type, and what must hold inside."""

    name: str
    fits: Callable[[Any], bool]
    inside: Callable[[Any, str], Problem | None] | None = None

    def find(self, value: object, path: str) -> Problem | None:
        """Return the first path below `path` that is wrong, or None."""
        if not self.fits(value):
            got = "None" if value is None else type(value).__name__
            return path, f"expected {self.name}, got {got}"
        return None if self.inside is None else self.inside(value, path)


_RULES: dict[type[msgspec.Struct], _Rule] = {}


def check(value: object, *, path: str = "$", source: str | None = None) -> None:
    """Return None when the whole tree holds what its types promise, else name the first path that does not.

    Args:
        value: an instance of a msgspec Struct; a `Model` may add rules of its own.
        path: how the root is called in the message.
        source: the file or entry point the value came from.

    Raises:
        ConfigError: with `.key` the path and a message without the value.
        PolicyError: the root's parts contradict one another.

    Fails closed: a value whose type is not a Struct is refused.
    """
    if not isinstance(value, msgspec.Struct):
        raise ConfigError(f"{path}: expected a Kavach model, got {type(value).__name__}", key=path, source=source)
    found = _rule_of(type(value)).find(value, path)
    if found is not None:
        raise ConfigError(f"{found[0]}: {found[1]}", key=found[0], source=source)
    for where, what in value.contradictions() if isinstance(value, Model) else ():
        raise PolicyError(f"{path}{where}: {what}")


def reworded(error: msgspec.ValidationError, *, source: str | None = None) -> ConfigError:
    """Return msgspec's complaint as ours: the same path, no value quoted.

    Args:
        error: what `msgspec.convert` or a decoder raised.
        source: the file the text came from.
    """
    text, _, where = str(error).partition(" - at `")
    key = where.rstrip("`") or "$"
    if text.startswith("Invalid enum value"):
        text = "not one of the values allowed here"
    return ConfigError(f"{key}: {text[:1].lower()}{text[1:].replace('`', '')}", key=key, source=source)


def nearest(word: str, known: Iterable[str]) -> str:
    """Return ` (did you mean 'x'?)` for the known word closest to a misspelt one, or the empty string."""
    from difflib import get_close_matches

    close = get_close_matches(word.lower(), list(known), n=1, cutoff=0.6)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _rule_of(cls: type[msgspec.Struct]) -> _Rule:
    rule = _RULES.get(cls)
    if rule is None:
        shape = cast("shapes.StructType", shapes.type_info(cls))
        rule = _RULES[cls] = _model_rule(shape)
    return rule


def _model_rule(shape: shapes.StructType) -> _Rule:
    fields = [(field.name, _compile(field.type)) for field in shape.fields]
    cls = shape.cls

    def inside(value: msgspec.Struct, path: str) -> Problem | None:
        for name, rule in fields:
            found = rule.find(getattr(value, name), f"{path}.{name}")
            if found is not None:
                return found
        if isinstance(value, Model):
            for where, what in value.problems():
                return path + where, what
        return None

    return _Rule(cls.__name__, lambda value: isinstance(value, cls), inside)


def _compile(shape: shapes.Type) -> _Rule:
    """Return the rule of one field's type; a type that no model uses is our own defect."""
    make = _MAKERS.get(type(shape))
    if make is None:
        raise InternalError(f"no rule for a field of the shape {type(shape).__name__}")
    return make(shape)


def _number(shape: shapes.IntType | shapes.FloatType) -> _Rule:
    whole = isinstance(shape, shapes.IntType)
    kinds = (int,) if whole else (int, float)

    def inside(value: float, path: str) -> Problem | None:
        if not math.isfinite(value):
            return path, "expected a finite number, got NaN or infinity"
        if shape.ge is not None and value < shape.ge:
            return path, f"expected a number >= {shape.ge}, got {value}"
        if shape.gt is not None and value <= shape.gt:
            return path, f"expected a number > {shape.gt}, got {value}"
        if shape.le is not None and value > shape.le:
            return path, f"expected a number <= {shape.le}, got {value}"
        return None

    # SECURITY: True is an int to Python; a limit of `True` is a mistake that must not mean 1.
    return _Rule(
        "int" if whole else "float",
        lambda value: isinstance(value, kinds) and not isinstance(value, bool),
        inside,
    )


def _text(shape: shapes.StrType) -> _Rule:
    pattern = None if shape.pattern is None else re.compile(shape.pattern)

    def inside(value: str, path: str) -> Problem | None:
        found = _length_problem(shape, value, path)
        if found is None and pattern is not None and pattern.search(value) is None:
            return path, f"expected text that matches {shape.pattern}"
        if found is None and not _is_utf8(value):
            return path, "expected text that is UTF-8, which records need"
        return found

    return _Rule("str", lambda value: isinstance(value, str), inside)


def _is_utf8(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _length_problem(
    shape: shapes.StrType | shapes.VarTupleType, value: str | tuple[object, ...], path: str
) -> Problem | None:
    if shape.min_length is not None and len(value) < shape.min_length:
        return path, f"expected a length of {shape.min_length} or more, got {len(value)}"
    if shape.max_length is not None and len(value) > shape.max_length:
        return path, f"expected a length of at most {shape.max_length}, got {len(value)}"
    return None


def _literal(shape: shapes.LiteralType) -> _Rule:
    values = shape.values
    names = ", ".join(repr(value) for value in values)
    return _Rule(f"one of {names}", lambda value: type(value) is str and value in values)


def _many(shape: shapes.VarTupleType) -> _Rule:
    item = _compile(shape.item_type)

    def inside(value: tuple[object, ...], path: str) -> Problem | None:
        for index, member in enumerate(value):
            found = item.find(member, f"{path}[{index}]")
            if found is not None:
                return found
        return _length_problem(shape, value, path)

    return _Rule("tuple", lambda value: isinstance(value, tuple), inside)


def _mapping(shape: shapes.DictType) -> _Rule:
    key, member = _compile(shape.key_type), _compile(shape.value_type)

    def inside(value: dict[object, object], path: str) -> Problem | None:
        for name, held in value.items():
            found = key.find(name, f"{path} (a key)") or member.find(held, f"{path}[{name!r}]")
            if found is not None:
                return found
        return None

    return _Rule("dict", lambda value: isinstance(value, dict), inside)


def _union(shape: shapes.UnionType) -> _Rule:
    rules = [_compile(member) for member in shape.types]

    def inside(value: object, path: str) -> Problem | None:
        return next(rule for rule in rules if rule.fits(value)).find(value, path)

    name = " or ".join(rule.name for rule in rules if rule.name != "None")
    return _Rule(name, lambda value: any(rule.fits(value) for rule in rules), inside)


def _instance(shape: shapes.EnumType | shapes.CustomType) -> _Rule:
    cls = shape.cls
    name = cls.__name__
    if issubclass(cls, enum.Enum):
        name = "one of " + ", ".join(repr(member.value) for member in cls)
    return _Rule(name, lambda value: isinstance(value, cls))


_MAKERS: dict[type[shapes.Type], Callable[[Any], _Rule]] = {
    shapes.AnyType: lambda _: _Rule("anything", lambda _value: True),
    shapes.NoneType: lambda _: _Rule("None", lambda value: value is None),
    shapes.BoolType: lambda _: _Rule("bool", lambda value: isinstance(value, bool)),
    shapes.IntType: _number,
    shapes.FloatType: _number,
    shapes.StrType: _text,
    shapes.BytesType: lambda _: _Rule("bytes", lambda value: isinstance(value, bytes)),
    shapes.LiteralType: _literal,
    shapes.VarTupleType: _many,
    shapes.DictType: _mapping,
    shapes.UnionType: _union,
    shapes.EnumType: _instance,
    shapes.CustomType: _instance,
    shapes.StructType: lambda shape: _rule_of(shape.cls),
}
