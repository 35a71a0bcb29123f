"""OCI runtime-spec `linux.seccomp` <-> rules.

Guarantees: what is read never allows more than the document does, and is under Kavach's floor like any
profile; what is written allows exactly what the rules allow, also under runc, which takes two tests of one
argument as alternatives: each rule written tests an argument at most once, by masks where the kernel reads
fewer than 64 bits. Where the two forms differ otherwise, a note says so; nothing is dropped in silence. Does
not: read files, or choose a runtime. May be called by: backends, policy, cli.

The superset that Docker and Podman ship (`includes` and `excludes` by capability, architecture and kernel) is
read too, as for a container without capabilities on a kernel that is new enough.
"""

from __future__ import annotations

from itertools import product
from typing import Any, Literal

import msgspec

from kavach.errors import ConfigError, PolicyError
from kavach.linux import syscalls
from kavach.policy.seccomp_algebra import (
    ALWAYS,
    ENOSYS,
    EPERM,
    NEVER,
    CallRule,
    Clause,
    Clauses,
    Compare,
    SeccompRules,
    conjoin,
    disjoin,
    intersect,
    negate,
)
from kavach.policy.seccomp_profile import load_overlays

_Action = Literal[
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_LOG",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_TRAP",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_NOTIFY",
]
_ARCHES = {"x86_64": ("SCMP_ARCH_X86_64", "amd64"), "aarch64": ("SCMP_ARCH_AARCH64", "arm64")}
_OPERATORS = {"EQ": "eq", "NE": "ne", "LT": "lt", "LE": "le", "GT": "gt", "GE": "ge"}
_WORD = (1 << 64) - 1
MAX_WRITTEN_RULES = 1024  # per call; protects the runtime that reads the document


class _Arg(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    index: int
    value: int
    value_two: int = 0
    op: Literal[
        "SCMP_CMP_EQ",
        "SCMP_CMP_NE",
        "SCMP_CMP_LT",
        "SCMP_CMP_LE",
        "SCMP_CMP_GT",
        "SCMP_CMP_GE",
        "SCMP_CMP_MASKED_EQ",
    ]


class _Condition(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    caps: list[str] = []
    arches: list[str] = []
    min_kernel: str = ""


class _Syscall(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    names: list[str]
    action: _Action
    errno_ret: int | None = None
    errno: str = ""
    args: list[_Arg] | None = None
    comment: str = ""
    includes: _Condition = _Condition()
    excludes: _Condition = _Condition()


class _Document(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    default_action: _Action
    default_errno_ret: int | None = None
    syscalls: list[_Syscall] = []


def read_oci(document: object, arch: str, *, name: str = "oci") -> tuple[SeccompRules, tuple[str, ...]]:
    """Return the rules, and notes on what this form says that ours does not.

    Args:
        document: the parsed JSON of `linux.seccomp`.
        arch: `x86_64` or `aarch64`, for entries that hold on one architecture.
        name: the name of the rules.

    Raises:
        ConfigError: the document is not of this form, or tests an argument whose type is not known.
        PolicyError: the rules are too large for a filter.
    """
    try:
        given = msgspec.convert(document, _Document)
    except msgspec.ValidationError as error:
        raise ConfigError(f"OCI seccomp document: {error}", key="seccomp") from error
    if arch not in _ARCHES:
        raise ConfigError(f"there is no seccomp table for {arch}; there is one for {', '.join(_ARCHES)}", key="seccomp")
    notes: set[str] = set()
    default_allow = _is_allowing(given.default_action, notes)
    allows: dict[str, Clauses] = {}
    refusals: dict[str, list[tuple[Clauses, int]]] = {}
    for entry in given.syscalls:
        if not _applies(entry, arch):
            continue
        allowing = _is_allowing(entry.action, notes)
        for call in entry.names:
            if call not in syscalls.KNOWN_CALLS:
                notes.add(f"{call}: not a call of x86_64 or aarch64")
                continue
            clauses = _read_args(call, entry.args or [])
            if allowing:
                allows[call] = disjoin(allows.get(call, NEVER), clauses)
            else:
                refusals.setdefault(call, []).append((clauses, EPERM if entry.errno_ret is None else entry.errno_ret))
    default_errno = EPERM if given.default_errno_ret is None else given.default_errno_ret
    calls = []
    for call in sorted({*allows, *refusals}):
        clauses = ALWAYS if default_allow else allows.get(call, NEVER)
        for refused, _ in refusals.get(call, []):
            for clause in refused:
                clauses = conjoin(clauses, negate(clause))
        errnos = [errno for _, errno in refusals.get(call, [])] or [default_errno]
        calls.append(CallRule(call=call, clauses=clauses, errno=errnos[-1], why=("an OCI document",)))
    rules = SeccompRules(name=name, default_allow=default_allow, default_errno=default_errno, calls=tuple(calls))
    return intersect(rules, load_overlays()["floor"], name=name), tuple(sorted(notes))


def _is_allowing(action: str, notes: set[str]) -> bool:
    if action == "SCMP_ACT_LOG":
        notes.add("SCMP_ACT_LOG: allowed, and not logged")
    elif action not in {"SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO"}:
        notes.add(f"{action}: refused with an errno instead")
    return action in {"SCMP_ACT_ALLOW", "SCMP_ACT_LOG"}


def _applies(entry: _Syscall, arch: str) -> bool:
    """Return whether an entry holds without capabilities, on this architecture and on a new kernel."""
    ours = _ARCHES[arch][1]
    if entry.includes.caps or (entry.includes.arches and ours not in entry.includes.arches):
        return False
    return ours not in entry.excludes.arches and not entry.excludes.min_kernel


def _read_args(call: str, args: list[_Arg]) -> Clauses:
    indexes = [one.index for one in args]
    clause = []
    for one in args:
        try:
            width = syscalls.argument_mask(call, one.index)
        except ValueError as error:
            raise ConfigError(f"OCI seccomp document: {error}", key="seccomp") from error
        if not 0 <= one.value <= _WORD or not 0 <= one.value_two <= _WORD:
            raise ConfigError(f"OCI seccomp document: {call} compares with more than 64 bits", key="seccomp")
        if one.op == "SCMP_CMP_MASKED_EQ":
            # The bits that the kernel throws away are not compared (trap 32).
            mask = one.value & width
            clause.append(Compare(arg=one.index, op="eq", value=one.value_two & mask, mask=mask))
        else:
            op = _OPERATORS[one.op.removeprefix("SCMP_CMP_")]
            clause.append(Compare(arg=one.index, op=op, value=one.value))
    if len(set(indexes)) < len(indexes):
        return tuple((one,) for one in clause)  # as runc reads it: alternatives
    return (tuple(clause),)


def write_oci(rules: SeccompRules, arch: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the `linux.seccomp` object that allows exactly what the rules allow, and notes.

    Args:
        rules: what is allowed, options applied.
        arch: `x86_64` or `aarch64`; the document lists this architecture only, so others are refused.

    Raises:
        ConfigError: there is no table for the architecture.
        PolicyError: a call needs more rules than MAX_WRITTEN_RULES.
    """
    if arch not in _ARCHES:
        raise ConfigError(f"there is no seccomp table for {arch}; there is one for {', '.join(_ARCHES)}", key="seccomp")
    notes = ["a call of a foreign architecture ends the process: the runtime's choice, not in this form"]
    entries: list[dict[str, Any]] = []
    known = syscalls.numbers(arch)
    for rule in rules.calls:
        if rule.call in known:
            entries += _write_call(rule, notes)
    plain = sorted(rule.call for rule in rules.calls if rule.call in known and rule.clauses == ALWAYS)
    listed = {rule.call for rule in rules.calls}
    # A default of ENOSYS keeps numbers that are newer than the table unknown; what exists is listed with its
    # errno.
    rest = sorted(call for call in known if call not in listed)
    if rules.default_allow:
        plain = sorted({*plain, *rest})
    elif rest:
        entries.append(_refusal(rest, rules.default_errno, []))
    entries.insert(0, {"names": plain, "action": "SCMP_ACT_ALLOW"})
    document = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": ENOSYS,
        "architectures": [_ARCHES[arch][0]],
        "syscalls": [entry for entry in entries if entry["names"]],
    }
    return document, tuple(notes)


def _refusal(names: list[str], errno: int, args: list[dict[str, Any]]) -> dict[str, Any]:
    entry: dict[str, Any] = {"names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": errno}
    return entry | {"args": args} if args else entry


def _write_call(rule: CallRule, notes: list[str]) -> list[dict[str, Any]]:
    """Return the entries of one call that is not plainly allowed."""
    if rule.clauses == ALWAYS:
        return []
    if rule.clauses == NEVER:
        return [_refusal([rule.call], rule.errno, [])]
    alternatives = [args for clause in rule.clauses for args in _write_clause(rule.call, clause)]
    if len(alternatives) > MAX_WRITTEN_RULES:
        raise PolicyError(
            f"{rule.call}: {len(alternatives)} OCI rules are needed, {MAX_WRITTEN_RULES} are written at most"
        )
    notes.append(f"{rule.call}: refused arguments get ENOSYS, not errno {rule.errno}: this form has one default")
    return [{"names": [rule.call], "action": "SCMP_ACT_ALLOW", "args": args} for args in alternatives]


def _write_clause(call: str, clause: Clause) -> list[list[dict[str, Any]]]:
    """Return lists of tests, at most one per argument each; one list holds exactly when the clause does."""
    per_argument = []
    for index in sorted({one.arg for one in clause}):
        pairs = [(0, 0)]
        width = syscalls.argument_mask(call, index)
        for one in clause:
            if one.arg == index:
                pairs = _meet(pairs, _pairs(one, one.mask & width))
        per_argument.append([_masked(index, mask, value) for mask, value in pairs])
    return [[test for test in choice if test is not None] for choice in product(*per_argument)]


def _masked(index: int, mask: int, value: int) -> dict[str, Any] | None:
    if mask == 0:
        return None
    if mask == _WORD:
        return {"index": index, "value": value, "op": "SCMP_CMP_EQ"}
    return {"index": index, "value": mask, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ"}


def _meet(left: list[tuple[int, int]], right: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return (mask, value) pairs that hold exactly when one of each side holds."""
    return [(m | n, v | w) for m, v in left for n, w in right if not (v ^ w) & m & n]


def _pairs(one: Compare, mask: int) -> list[tuple[int, int]]:
    """Return (mask, value) pairs, of which one holds exactly when the comparison does."""
    below, equal, above = _split(mask, one.value)
    wanted = {
        "eq": equal,
        "ne": below + above,
        "lt": below,
        "le": below + equal,
        "gt": above,
        "ge": above + equal,
    }
    return wanted[one.op]


def _split(mask: int, value: int) -> tuple[list[tuple[int, int]], list[tuple[int, int]], list[tuple[int, int]]]:
    """Return pairs for (register & mask) below, equal to and above the value."""
    below: list[tuple[int, int]] = []
    above: list[tuple[int, int]] = []
    # By the highest bit in which they differ; `high` holds the bits of the mask above the current one.
    high = 0
    for bit in (1 << at for at in range(63, -1, -1)):
        prefix = (high, value & high)
        if not mask & bit:
            if value & bit:
                return [*below, prefix], [], above
            continue
        high |= bit
        if value & bit:
            below.append((high, prefix[1]))
        else:
            above.append((high, prefix[1] | bit))
    return below, [(mask, value & mask)], above
