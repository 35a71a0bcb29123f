"""Says what rules answer to one call, and why, without compiling them. Pure.

Guarantees: reads an argument as the kernel does, by the C type in the prototypes table, and shares no code
with the compiler, so that each checks the other (a property test compares them on random calls). Does not:
know options or extra calls of a compiled filter (apply the options first), run anything. May be called by:
policy learn, --why, tests.
"""

from __future__ import annotations

import operator

import msgspec

from kavach.linux import syscalls
from kavach.linux.syscall_prototypes import PROTOTYPES
from kavach.policy.seccomp_algebra import ENOSYS, Compare, SeccompRules

_BITS = {"h": 16, "w": 32, "l": 64}
_TESTS = {
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
}


class CallVerdict(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The answer to one call: its name where the table has it, its errno, and the profile's reasons."""

    call: str | None
    allowed: bool
    errno: int
    why: tuple[str, ...]


class Oracle:
    """Answers many calls by the same rules.

    Args:
        rules: what is allowed.
        arch: `x86_64` or `aarch64`: the architecture that the filter is for.

    Raises:
        ValueError: there is no table for the architecture.
    """

    def __init__(self, rules: SeccompRules, arch: str) -> None:
        self._rules = rules
        self._names = {known: call for call, known in syscalls.numbers(arch).items()}
        self._by_call = rules.by_call()
        self._audit_arch = syscalls.AUDIT_ARCH[arch]

    def judge(self, number: int, args: tuple[int, ...], *, audit_arch: int | None = None) -> CallVerdict:
        """Return what a filter made from the rules answers; errno is 0 where the call is allowed.

        Args:
            number: the call's number, as in struct seccomp_data.
            args: the six registers; missing ones are 0.
            audit_arch: the AUDIT_ARCH_ value of the call; None for the filter's own.
        """
        call = self._names.get(number)
        if call is None or audit_arch not in {None, self._audit_arch}:
            return CallVerdict(
                call=None, allowed=False, errno=ENOSYS, why=("no such call on this architecture in our table",)
            )
        rule = self._by_call.get(call)
        if rule is None:
            errno = 0 if self._rules.default_allow else self._rules.default_errno
            reason = f"the profile {self._rules.name!r} does not name it"
            return CallVerdict(call=call, allowed=self._rules.default_allow, errno=errno, why=(reason,))
        registers = (*args, 0, 0, 0, 0, 0, 0)
        types = PROTOTYPES.get(call, "")
        allowed = any(all(_holds(one, types, registers) for one in clause) for clause in rule.clauses)
        return CallVerdict(call=call, allowed=allowed, errno=0 if allowed else rule.errno, why=rule.why)


def judge_call(
    rules: SeccompRules, arch: str, number: int, args: tuple[int, ...], *, audit_arch: int | None = None
) -> CallVerdict:
    """Return what a filter made from the rules answers to one call, as `Oracle.judge` does.

    Raises:
        ValueError: there is no table for the architecture.
    """
    return Oracle(rules, arch).judge(number, args, audit_arch=audit_arch)


def _holds(one: Compare, types: str, registers: tuple[int, ...]) -> bool:
    seen_by_kernel = registers[one.arg] % (1 << _BITS[types[one.arg]])
    return bool(_TESTS[one.op](seen_by_kernel & one.mask, one.value))
