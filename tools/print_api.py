"""Prints docs/api.md: every public name with the first line of its docstring, and its public methods with theirs.

    python tools/print_api.py > docs/api.md

Types are left out: the package is typed, and an editor or `help()` shows them with the whole docstring. A test compares
the output with the file that is checked in.
"""

from __future__ import annotations

import enum
import inspect
from typing import TYPE_CHECKING

import msgspec

import kavach

if TYPE_CHECKING:
    from collections.abc import Iterator

_HEAD = """\
# API

Made by `tools/print_api.py`; do not edit. Every name is imported from `kavach`. Errors are `KavachError` and its kinds;
what a callable raises stands in its docstring (`help(kavach.Sandbox.exec)`).
"""


def render() -> str:
    """Return the whole document."""
    values = {name: getattr(kavach, name) for name in kavach.__all__ if name != "__version__"}
    errors = sorted(name for name, value in values.items() if _is_error(value))
    functions = sorted(name for name, value in values.items() if inspect.isfunction(value))
    rest = sorted(set(values) - set(errors) - set(functions), key=str.lower)
    parts = [_HEAD, "## Functions\n"]
    parts += [f"- `{_call(name, values[name])}`: {_first_line(values[name])}" for name in functions]
    parts.append("\n## Classes\n")
    for name in rest:
        parts += [*_class(name, values[name]), ""]
    parts.append("## Errors\n")
    parts += [f"- `{name}`: {_first_line(values[name])}" for name in errors]
    return "\n".join(parts) + "\n"


def _is_error(value: object) -> bool:
    return inspect.isclass(value) and issubclass(value, BaseException)


def _class(name: str, value: object) -> Iterator[str]:
    yield f"### {name}\n"
    yield _first_line(value)
    if inspect.isclass(value) and issubclass(value, enum.Enum):
        yield "\nMembers: " + ", ".join(f"`{member.value}`" for member in value) + "."
    if inspect.isclass(value) and issubclass(value, msgspec.Struct):
        yield "\nFields: " + ", ".join(f"`{field}`" for field in value.__struct_fields__) + "."
    rows = list(_members(value))
    if rows:
        yield ""
        yield from rows


def _members(value: object) -> Iterator[str]:
    holders = [vars(value)] if inspect.ismodule(value) else [vars(one) for one in reversed(_own_bases(value))]
    found = {name: member for holder in holders for name, member in holder.items()}
    for name, member in found.items():
        plain = member.__func__ if isinstance(member, classmethod | staticmethod) else member
        if name.startswith("_") or (inspect.ismodule(value) and name not in value.__all__):
            continue
        if isinstance(plain, property):
            yield f"- `{name}`: {_first_line(plain)}"
        elif inspect.isfunction(plain):
            yield f"- `{_call(name, plain)}`: {_first_line(plain)}"


def _own_bases(value: object) -> list[type]:
    assert inspect.isclass(value)
    bases = [one for one in value.__mro__ if one.__module__.startswith("kavach.")]
    return [one for one in bases if one is value or not issubclass(one, msgspec.Struct)]


def _call(name: str, value: object) -> str:
    assert callable(value)
    words = []
    star = False
    for word, parameter in inspect.signature(value).parameters.items():
        if word in {"self", "cls"}:
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and not star:
            words.append("*")
            star = True
        star = star or parameter.kind is parameter.VAR_POSITIONAL
        prefix = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
        default = "" if parameter.default is parameter.empty else f"={_default(parameter.default)}"
        words.append(f"{prefix}{word}{default}")
    return f"{name}({', '.join(words)})"


def _default(value: object) -> str:
    plain = value is None or isinstance(value, bool | int | float | str | bytes | tuple)
    return repr(value) if plain and not isinstance(value, enum.Enum) else "..."


def _first_line(value: object) -> str:
    text = inspect.getdoc(value) or ""
    return " ".join(text.split("\n\n")[0].split())


if __name__ == "__main__":
    print(render(), end="")
