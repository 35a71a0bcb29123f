"""Plain decisions -> the bytes of a seccomp filter. Pure.

Guarantees: every filter checks the architecture first, answers a foreign one, an x32 number and every number
without a decision with ENOSYS, and reads only the bits of an argument that the decision's mask names. Calls
with one answer are found by a balanced binary search over ranges of numbers, using only instructions that the
kernel's own cache of constant answers understands (5.11), so that an unconditional allow costs nothing after
the first look. Does not: know profiles or names (policy/seccomp_rules.py), install anything (seccomp.py). May
be called by: anything.
"""

from __future__ import annotations

from kavach.linux import bpf

# A decision about one number: an action, or (clauses, action on a match, action otherwise). A clause is a
# tuple of comparisons that must all hold; one clause that holds is a match. A comparison is (argument, mask,
# operator, value): (register & mask) OPERATOR value, unsigned, operator one of eq ne lt le gt ge.
Comparison = tuple[int, int, str, int]
Clauses = tuple[tuple[Comparison, ...], ...]
Decision = int | tuple[Clauses, int, int]

SECCOMP_RET_ALLOW = 0x7FFF0000  # linux/seccomp.h, 3.5
SECCOMP_RET_LOG = 0x7FFC0000  # linux/seccomp.h, 4.14
SECCOMP_RET_USER_NOTIF = 0x7FC00000  # linux/seccomp.h, 5.0
SECCOMP_RET_ERRNO = 0x00050000  # linux/seccomp.h, 3.5
ENOSYS = 38  # asm-generic/errno.h

# SECURITY: a foreign architecture (int 0x80, a 32-bit program) gets ENOSYS, as on a kernel built without it:
# the call does not happen, nothing is killed, and a program that only probes goes on.
REFUSE_UNKNOWN = SECCOMP_RET_ERRNO | ENOSYS

_WORD = 0xFFFFFFFF


def build(audit_arch: int, decisions: dict[int, Decision]) -> bytes:
    """Return the program for one architecture.

    Args:
        audit_arch: the AUDIT_ARCH_ value that the filter is for.
        decisions: number -> decision, for every number that exists; the rest get ENOSYS.

    Raises:
        ValueError: a comparison is malformed, or the program is longer than the kernel takes.
    """
    program = bpf.Assembler()
    start, foreign = program.label(), program.label()
    targets: dict[Decision, str] = {REFUSE_UNKNOWN: foreign}
    ranges: list[tuple[int, str]] = []
    following = 0
    for number, decision in [*sorted(decisions.items()), (1 << 32, REFUSE_UNKNOWN)]:
        if number > following:
            ranges.append((following, foreign))
        if number < 1 << 32:
            ranges.append((number, _target(program, targets, _reduce(decision))))
        following = number + 1
    merged = [one for at, one in enumerate(ranges) if at == 0 or ranges[at - 1][1] != one[1]]
    # ORDER: the architecture before the number, which means nothing without it.
    program.load(bpf.OFFSET_ARCH)
    program.jump(bpf.JEQ, audit_arch, start, foreign)
    program.place(start)
    program.load(bpf.OFFSET_NR)
    _search(program, merged)
    _emit_targets(program, targets)
    return program.assemble()


def _target(program: bpf.Assembler, targets: dict[Decision, str], decision: Decision) -> str:
    """Return the label where the decision will be carried out; equal decisions share one."""
    if decision not in targets:
        targets[decision] = program.label()
    return targets[decision]


def _search(program: bpf.Assembler, ranges: list[tuple[int, str]]) -> None:
    """Emit a balanced search: jump to the label of the last range that starts at or below the number."""
    if len(ranges) == 1:
        program.goto(ranges[0][1])
        return
    middle = len(ranges) // 2
    halves = [ranges[:middle], ranges[middle:]]
    labels = [half[0][1] if len(half) == 1 else program.label() for half in halves]
    program.jump(bpf.JGE, ranges[middle][0], labels[1], labels[0])
    for half, label in zip(halves, labels, strict=True):
        if len(half) > 1:
            program.place(label)
            _search(program, half)


def _emit_targets(program: bpf.Assembler, targets: dict[Decision, str]) -> None:
    """Emit the conditional blocks, then one return per action."""
    returns = {action: label for action, label in targets.items() if isinstance(action, int)}
    for decision, label in targets.items():
        if isinstance(decision, int):
            continue
        clauses, hit, miss = decision
        for action in (hit, miss):
            if action not in returns:
                returns[action] = program.label()
        program.place(label)
        _Block(program, returns[hit], returns[miss]).emit(clauses)
    for action, label in returns.items():
        program.place(label)
        program.ret(action)


def _reduce(decision: Decision) -> Decision:
    """Return the decision without comparisons whose answer never varies."""
    if isinstance(decision, int):
        return decision
    clauses, hit, miss = decision
    kept: list[tuple[Comparison, ...]] = []
    for clause in clauses:
        answers = [_constant(one) for one in clause]
        if False in answers:
            continue
        kept.append(tuple(one for one, answer in zip(clause, answers, strict=True) if answer is None))
    if () in kept or hit == miss:
        return hit
    return (tuple(kept), hit, miss) if kept else miss


def _constant(comparison: Comparison) -> bool | None:
    """Return the answer of a comparison that does not depend on the register, else None."""
    argument, mask, operator, value = comparison
    if not 0 <= argument < 6 or not 0 <= mask < 1 << 64 or not 0 <= value < 1 << 64:
        raise ValueError(f"malformed comparison: {comparison}")
    if operator in {"eq", "ne"}:
        if value & ~mask:
            return operator == "ne"
        return None if mask else operator == "eq"  # an empty mask leaves 0, and the value is 0 here
    if operator not in {"lt", "le", "gt", "ge"}:
        raise ValueError(f"unknown operator in {comparison}")
    if value > mask:
        return operator in {"lt", "le"}
    if value == 0 and operator in {"lt", "ge"}:
        return operator == "ge"
    if mask == 0:
        return operator == "le"
    return None


class _Block:
    """Emits the comparisons of one decision, loading a word only when the accumulator does not hold it."""

    def __init__(self, program: bpf.Assembler, hit: str, miss: str) -> None:
        self._program = program
        self._hit = hit
        self._miss = miss
        self._held: tuple[int, int] | None = None  # (offset, mask) of the word in the accumulator
        self._arrivals: dict[str, set[tuple[int, int] | None]] = {}

    def emit(self, clauses: Clauses) -> None:
        """Emit all clauses; control leaves by `hit` or `miss`."""
        for at, clause in enumerate(clauses):
            failed = self._miss if at == len(clauses) - 1 else self._program.label()
            for index, comparison in enumerate(clause):
                last = index == len(clause) - 1
                passed = self._hit if last else self._program.label()
                self._compare(comparison, passed, failed)
                if not last:
                    self._place(passed)
            if failed != self._miss:
                self._place(failed)

    def _place(self, label: str) -> None:
        self._program.place(label)
        arrivals = self._arrivals.get(label, {None})
        self._held = next(iter(arrivals)) if len(arrivals) == 1 else None

    def _load(self, offset: int, mask: int) -> None:
        if self._held == (offset, mask):
            return
        if self._held != (offset, _WORD):
            self._program.load(offset)
        if mask != _WORD:
            self._program.mask(mask)
        self._held = (offset, mask)

    def _jump(self, op: int, value: int, yes: str, no: str) -> None:
        for label in (yes, no):
            self._arrivals.setdefault(label, set()).add(self._held)
        self._program.jump(op, value, yes, no)

    def _compare(self, comparison: Comparison, passed: str, failed: str) -> None:
        argument, mask, operator, value = comparison
        low = bpf.OFFSET_ARGS + 8 * argument  # little-endian: the low word first
        words = [(low + 4, mask >> 32, value >> 32), (low, mask & _WORD, value & _WORD)]
        words = [word for word in words if word[1] or word[2]]
        if operator in {"ne", "lt", "le"}:
            operator = {"ne": "eq", "lt": "ge", "le": "gt"}[operator]
            passed, failed = failed, passed
        if operator == "eq":
            self._equal(words, passed, failed)
        else:
            self._greater(words, bpf.JGE if operator == "ge" else bpf.JGT, passed, failed)

    def _equal(self, words: list[tuple[int, int, int]], passed: str, failed: str) -> None:
        for at, (offset, mask, value) in enumerate(words):
            following = passed if at == len(words) - 1 else self._program.label()
            if value == 0 and mask != _WORD and self._held != (offset, mask):
                self._load(offset, _WORD)
                self._jump(bpf.JSET, mask, failed, following)
            else:
                self._load(offset, mask)
                self._jump(bpf.JEQ, value, following, failed)
            if following != passed:
                self._place(following)

    def _greater(self, words: list[tuple[int, int, int]], op: int, passed: str, failed: str) -> None:
        for at, (offset, mask, value) in enumerate(words):
            self._load(offset, mask)
            if at == len(words) - 1:
                self._jump(op, value, passed, failed)
                return
            equal, low = self._program.label(), self._program.label()
            self._jump(bpf.JGT, value, passed, equal)
            self._place(equal)
            self._jump(bpf.JEQ, value, low, failed)
            self._place(low)
