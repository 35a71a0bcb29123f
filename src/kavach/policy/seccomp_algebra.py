"""What a set of seccomp rules allows, and exact operations on it. Pure.

Guarantees: `intersect` allows a call with given arguments exactly when both sides do; `widen` exactly when
either does. A set of rules is kept as, per call, a tuple of clauses (any may hold) of comparisons (all must
hold), which is closed under both. Does not: know numbers, architectures or files. May be called by:
kavach.policy.
"""

from __future__ import annotations

import msgspec

from kavach.errors import PolicyError

FULL = (1 << 64) - 1
EPERM = 1  # asm-generic/errno-base.h
ENOSYS = 38  # asm-generic/errno.h
MAX_CLAUSES = 512  # protects the compiler: a filter may hold 4096 instructions in all
_NEGATION = {"eq": "ne", "ne": "eq", "lt": "ge", "ge": "lt", "gt": "le", "le": "gt"}
OPERATORS = tuple(_NEGATION)


class Compare(msgspec.Struct, frozen=True, kw_only=True, order=True, forbid_unknown_fields=True):
    """`(argument & mask) OP value`, unsigned, on the bits of the argument that the kernel reads."""

    arg: int
    op: str
    value: int
    mask: int = FULL


Clause = tuple[Compare, ...]
Clauses = tuple[Clause, ...]
ALWAYS: Clauses = ((),)
NEVER: Clauses = ()


class CallRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When one call is allowed, what it gets otherwise, and why."""

    call: str
    clauses: Clauses
    errno: int = EPERM
    why: tuple[str, ...] = ()


class SeccompRules(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a filter allows: one rule per call, and one answer for every other call that exists.

    A call that is in no table of ours gets ENOSYS whatever the rules say.
    """

    name: str
    default_allow: bool
    default_errno: int = EPERM
    calls: tuple[CallRule, ...] = ()

    def by_call(self) -> dict[str, CallRule]:
        """Return the rules by name of the call."""
        return {rule.call: rule for rule in self.calls}

    def default_rule(self, call: str) -> CallRule:
        """Return the rule that holds for a call that no rule names."""
        return CallRule(call=call, clauses=ALWAYS if self.default_allow else NEVER, errno=self.default_errno)


def conjoin(a: Clauses, b: Clauses) -> Clauses:
    """Return clauses that hold exactly when `a` and `b` hold.

    Raises:
        PolicyError: the result is too large for a filter.
    """
    if a == ALWAYS or not b:
        return b
    if b == ALWAYS or not a:
        return a
    return _simplify([(*left, *right) for left in a for right in b])


def disjoin(a: Clauses, b: Clauses) -> Clauses:
    """Return clauses that hold exactly when `a` or `b` holds.

    Raises:
        PolicyError: the result is too large for a filter.
    """
    if () in a or () in b:
        return ALWAYS
    return _simplify([*a, *b])


def negate(clause: Clause) -> Clauses:
    """Return clauses that hold exactly when the clause does not."""
    return tuple((Compare(arg=c.arg, op=_NEGATION[c.op], value=c.value, mask=c.mask),) for c in clause)


def _simplify(clauses: list[Clause]) -> Clauses:
    reduced = {one for one in map(_reduce, clauses) if one is not None}
    if len(reduced) > MAX_CLAUSES:
        raise PolicyError(
            f"a seccomp rule grew to {len(reduced)} alternatives; a filter of ours takes {MAX_CLAUSES}",
            hint="compare fewer arguments of one call, or list fewer values",
        )
    sets = {clause: frozenset(clause) for clause in reduced}
    kept = [c for c in reduced if not any(sets[d] < sets[c] for d in reduced)]
    return tuple(sorted(kept))


def _reduce(clause: Clause) -> Clause | None:
    """Return the clause without repetitions, or None where it contradicts itself in an obvious way."""
    exact: dict[tuple[int, int], int] = {}
    for one in clause:
        if one.op == "eq" and exact.setdefault((one.arg, one.mask), one.value) != one.value:
            return None
    kept = set()
    for one in clause:
        known = exact.get((one.arg, one.mask))
        if known is not None and one.op == "ne":
            if one.value == known:
                return None
            continue
        kept.add(one)
    return tuple(sorted(kept))


def intersect(a: SeccompRules, b: SeccompRules, *, name: str | None = None) -> SeccompRules:
    """Return rules that allow exactly what both allow.

    Args:
        a: one set of rules.
        b: the other.
        name: the result's name; both names where it is None.

    Raises:
        PolicyError: the result is too large for a filter.
    """
    left, right = a.by_call(), b.by_call()
    calls = []
    for call in sorted({*left, *right}):
        one, other = left.get(call), right.get(call)
        if one and not other and b.default_allow:
            calls.append(one)
        elif other and not one and a.default_allow:
            calls.append(other)
        else:
            calls.append(_intersect_call(one or a.default_rule(call), other or b.default_rule(call)))
    if name is None:
        name = a.name if a.name == b.name else f"{a.name}&{b.name}"
    refusing = [rules.default_errno for rules in (a, b) if not rules.default_allow]
    return SeccompRules(
        name=name,
        default_allow=not refusing,
        default_errno=max(refusing, default=EPERM),
        calls=tuple(calls),
    )


def _intersect_call(one: CallRule, other: CallRule) -> CallRule:
    never = [rule.errno for rule in (one, other) if rule.clauses == NEVER]
    partly = [rule.errno for rule in (one, other) if rule.clauses != ALWAYS]
    return CallRule(
        call=one.call,
        clauses=conjoin(one.clauses, other.clauses),
        errno=max(never or partly or [EPERM]),
        why=tuple(dict.fromkeys((*one.why, *other.why))),
    )


def widen(rules: SeccompRules, more: SeccompRules) -> SeccompRules:
    """Return rules that also allow what the rules of `more` name, under the first one's name and default.

    Raises:
        PolicyError: the result is too large for a filter.
    """
    calls = rules.by_call()
    for extra in more.calls:
        present = calls.get(extra.call) or rules.default_rule(extra.call)
        calls[extra.call] = CallRule(
            call=extra.call,
            clauses=disjoin(present.clauses, extra.clauses),
            errno=present.errno,
            why=tuple(dict.fromkeys((*present.why, *extra.why))),
        )
    return msgspec.structs.replace(rules, calls=tuple(calls[name] for name in sorted(calls)))
