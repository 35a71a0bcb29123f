"""Seccomp profile files (TOML) -> rules.

Guarantees: a file is read whole or refused with a ConfigError that names the place; an unknown profile, call,
constant, operator or argument is never skipped. What any file yields is intersected with the floor of
`options.toml`, so no profile can open what guards the sandbox's init (traps 1 and 27) or what no filter can
check (io_uring, clone3). Does not: compile or install. May be called by: kavach.policy and what is above it.

A file holds `name`, `summary`, either `default = "allow" | "deny"` or `extends = "<built-in>"`, and any
number of

    [[allow]]  why, calls, when     the calls are allowed (also) when all comparisons of `when` hold
    [[deny]]   why, calls, when, errno     they are refused when all hold; without `when`, always

Within a file the allows are applied first, the denies after them; a file that extends another starts from its
result. A comparison is { arg, op, value, mask }: op is eq ne lt le gt ge in not_in, value a number, the name
of a constant or names joined by "|" (a list for in and not_in).
"""

from __future__ import annotations

import functools
import os
import tomllib
from itertools import product
from math import prod
from typing import Any, Literal

import msgspec

from kavach.errors import ConfigError
from kavach.linux import syscalls
from kavach.policy.seccomp_algebra import (
    ALWAYS,
    ENOSYS,
    EPERM,
    FULL,
    MAX_CLAUSES,
    NEVER,
    CallRule,
    Clauses,
    Compare,
    SeccompRules,
    conjoin,
    disjoin,
    intersect,
    negate,
)
from kavach.policy.seccomp_constants import CONSTANTS

PROFILES = ("basic", "strict", "python", "node", "shell", "wasm", "edge")
_FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "seccomp_profiles")
_ERRNOS = {"EPERM": EPERM, "ENOSYS": ENOSYS}
MAX_PROFILE_BYTES = 1 << 20  # protects the caller against a file that is no profile

_Value = int | str


class _Test(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    arg: int
    op: Literal["eq", "ne", "lt", "le", "gt", "ge", "in", "not_in"]
    value: _Value | list[_Value]
    mask: _Value = FULL


class _Allow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    why: str
    calls: list[str]
    when: list[_Test] = []


class _Deny(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    why: str
    calls: list[str]
    when: list[_Test] = []
    errno: Literal["EPERM", "ENOSYS"] = "EPERM"


class ProfileFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A profile file as written."""

    name: str
    summary: str
    default: Literal["allow", "deny"] | None = None
    extends: str | None = None
    allow: list[_Allow] = []
    deny: list[_Deny] = []


@functools.cache
def load_profile(name: str) -> SeccompRules:
    """Return the rules of a built-in profile.

    Raises:
        ConfigError: there is no profile of that name; the message lists those there are.
    """
    if name not in PROFILES:
        raise ConfigError(
            f"there is no seccomp profile {name!r}; there are {', '.join(PROFILES)}",
            key="seccomp",
            hint="for your own rules, write a profile file and name it with the profile `custom`",
        )
    return _with_floor(_rules(_read(os.path.join(_FOLDER, f"{name}.toml")), f"{name}.toml"))


def load_profile_file(path: str | os.PathLike[str]) -> SeccompRules:
    """Return the rules of a caller's profile file.

    Raises:
        ConfigError: the file cannot be read, or what it says is wrong.
    """
    source = os.fspath(path)
    return _with_floor(_rules(_read(source), source))


@functools.cache
def load_overlays() -> dict[str, SeccompRules]:
    """Return the floor and the options, by name, from `options.toml`."""
    return {
        name: _rules({"name": name, "default": "allow" if "deny" in table else "deny", **table}, "options.toml")
        for name, table in _read(os.path.join(_FOLDER, "options.toml")).items()
    }


def _with_floor(rules: SeccompRules) -> SeccompRules:
    return intersect(rules, load_overlays()["floor"], name=rules.name)


def _read(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_PROFILE_BYTES + 1)
    except (OSError, ValueError) as error:
        raise ConfigError(f"the seccomp profile cannot be read: {error}", key="seccomp", source=path) from error
    if len(content) > MAX_PROFILE_BYTES:
        raise ConfigError(f"the seccomp profile is larger than {MAX_PROFILE_BYTES} bytes", key="seccomp", source=path)
    try:
        return tomllib.loads(content.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"the seccomp profile is not TOML: {error}", key="seccomp", source=path) from error


def _rules(document: dict[str, Any], source: str) -> SeccompRules:
    try:
        file = msgspec.convert(document, ProfileFile)
    except msgspec.ValidationError as error:
        raise ConfigError(f"seccomp profile: {error}", key="seccomp", source=source) from error
    if (file.default is None) == (file.extends is None):
        raise ConfigError("a seccomp profile has either `default` or `extends`", key="$.default", source=source)
    start = SeccompRules(name=file.name, default_allow=file.default == "allow")
    if file.extends is not None:
        start = load_profile(file.extends)
    calls = start.by_call()
    entries: list[tuple[str, _Allow | _Deny]] = [(f"$.allow[{at}]", one) for at, one in enumerate(file.allow)]
    # ORDER: the denies last, so that an allow of the same file cannot undo one.
    entries += [(f"$.deny[{at}]", one) for at, one in enumerate(file.deny)]
    for place, entry in entries:
        try:
            _apply(calls, start, entry)
        except ValueError as error:
            raise ConfigError(f"{place}: {error}", key=place, source=source) from error
    return SeccompRules(
        name=file.name,
        default_allow=start.default_allow,
        default_errno=start.default_errno,
        calls=tuple(calls[call] for call in sorted(calls)),
    )


def _apply(calls: dict[str, CallRule], start: SeccompRules, entry: _Allow | _Deny) -> None:
    """Let one entry widen or narrow the rules of the calls that it names."""
    if not entry.why.strip():
        raise ValueError("`why` is empty; say what needs this, or what it protects")
    for call in entry.calls:
        if call not in syscalls.KNOWN_CALLS:
            raise ValueError(f"there is no system call {call!r}{_near(call)}")
        present = calls.get(call) or start.default_rule(call)
        clauses = _clauses(call, entry.when)
        if isinstance(entry, _Allow):
            changed, errno = disjoin(present.clauses, clauses), present.errno
        else:
            changed, errno = present.clauses, _ERRNOS[entry.errno]
            for clause in clauses:
                changed = conjoin(changed, negate(clause) if clause else NEVER)
        calls[call] = CallRule(call=call, clauses=changed, errno=errno, why=(*present.why, entry.why))


def _near(call: str) -> str:
    import difflib

    near = difflib.get_close_matches(call, syscalls.KNOWN_CALLS, n=3)
    return f"; did you mean {', '.join(near)}?" if near else ""


def _clauses(call: str, tests: list[_Test]) -> Clauses:
    """Return the clauses that hold exactly when all tests hold."""
    if not tests:
        return ALWAYS
    parts = [_alternatives(call, test) for test in tests]
    if prod(map(len, parts)) > MAX_CLAUSES:
        raise ValueError(f"{call}: the lists in `when` make more than {MAX_CLAUSES} alternatives")
    return tuple(tuple(comparison for part in choice for comparison in part) for choice in product(*parts))


def _alternatives(call: str, test: _Test) -> list[tuple[Compare, ...]]:
    width = syscalls.argument_mask(call, test.arg)
    mask = _number(test.mask, FULL)
    many = test.op in {"in", "not_in"}
    if many != isinstance(test.value, list):
        raise ValueError(f"op {test.op} takes {'a list of values' if many else 'one value'}")
    given = test.value if isinstance(test.value, list) else [test.value]
    values = [_number(value, width) for value in given]
    for value in values:
        if value & ~(mask & width) and (test.op in {"eq", "ne"} or many):
            raise ValueError(f"{call} argument {test.arg}: {value:#x} has bits outside the mask {mask & width:#x}")
    if test.op == "in":
        return [(Compare(arg=test.arg, op="eq", value=value, mask=mask),) for value in values]
    op = "ne" if test.op == "not_in" else test.op
    return [tuple(Compare(arg=test.arg, op=op, value=value, mask=mask) for value in values)]


def _number(value: _Value, width: int) -> int:
    """Return the value as the kernel sees it in an argument of `width` bits (a mask of ones)."""
    if isinstance(value, str):
        unknown = [name for name in value.split("|") if name not in CONSTANTS]
        if unknown:
            raise ValueError(
                f"there is no constant {unknown[0]!r}; write a number, or add it to the table of constants"
            )
        number = 0
        for name in value.split("|"):
            number |= CONSTANTS[name]
    else:
        number = value
    if not -(width + 1) // 2 <= number <= width:
        raise ValueError(f"{number} does not fit an argument of {width.bit_length()} bits")
    return number & width
