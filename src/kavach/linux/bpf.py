"""Classic BPF: an assembler, a disassembler and an interpreter, all pure.

Guarantees: a program that `Assembler.assemble` returns is one that the kernel's checker accepts (at most 4096
instructions, forward jumps within the program, aligned loads, a return at the end), with jumps longer than
255 instructions made long. The interpreter answers as the kernel would for the instructions that seccomp
filters use. Does not: know system calls, load anything into the kernel (seccomp.py does). May be called by:
anything.
"""

from __future__ import annotations

import struct

MAX_INSTRUCTIONS = 4096  # linux/bpf_common.h BPF_MAXINSNS, 3.5

LD_ABS = 0x20  # linux/bpf_common.h BPF_LD | BPF_W | BPF_ABS, 2.1
AND = 0x54  # BPF_ALU | BPF_AND | BPF_K
JA = 0x05  # BPF_JMP | BPF_JA
JEQ = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
JGT = 0x25  # BPF_JMP | BPF_JGT | BPF_K
JGE = 0x35  # BPF_JMP | BPF_JGE | BPF_K
JSET = 0x45  # BPF_JMP | BPF_JSET | BPF_K
RET = 0x06  # BPF_RET | BPF_K

# linux/seccomp.h struct seccomp_data, 3.5; the low word of an argument comes first on a little-endian
# machine.
OFFSET_NR = 0
OFFSET_ARCH = 4
OFFSET_IP = 8
OFFSET_ARGS = 16
DATA_BYTES = 64

_NAMES = {JEQ: "jeq", JGT: "jgt", JGE: "jge", JSET: "jset"}
_INSTRUCTION = struct.Struct("=HBBI")


class Assembler:
    """Collects instructions and labels, front to back, and makes the bytes of `struct sock_filter[]`.

    A jump target is the name of a label that is placed later, or None for the next instruction. Jumps go
    forward only, as in the kernel.
    """

    def __init__(self) -> None:
        self._items: list[tuple[int, str | None, str | None, int]] = []
        self._labels = 0

    def label(self) -> str:
        """Return a fresh label, to be placed once."""
        self._labels += 1
        return f".{self._labels}"

    def place(self, name: str) -> None:
        """Let the label name the next instruction."""
        self._items.append((-1, name, None, 0))

    def load(self, offset: int) -> None:
        """Load the 32-bit word at `offset` of struct seccomp_data into the accumulator."""
        self._items.append((LD_ABS, None, None, _offset(offset)))

    def mask(self, bits: int) -> None:
        """Keep only `bits` of the accumulator."""
        self._items.append((AND, None, None, _word(bits)))

    def jump(self, op: int, value: int, yes: str | None, no: str | None) -> None:
        """Compare the accumulator with `value` by JEQ, JGT, JGE or JSET, unsigned."""
        if op not in _NAMES:
            raise ValueError(f"not a conditional jump: {op:#x}")
        self._items.append((op, yes, no, _word(value)))

    def goto(self, target: str) -> None:
        """Jump to a label."""
        self._items.append((JA, target, None, 0))

    def ret(self, action: int) -> None:
        """End with a 32-bit seccomp action."""
        self._items.append((RET, None, None, _word(action)))

    def assemble(self) -> bytes:
        """Return the program.

        Raises:
            ValueError: a label is missing, placed twice or behind its jump; the program does not end in a
                return or is longer than the kernel takes.
        """
        # Jumps go forward only, so assembling from the end knows every target's distance: no second pass.
        out: list[tuple[int, int, int, int]] = []
        places: dict[str, int] = {}
        for code, yes, no, value in reversed(self._items):
            if code == -1 and yes is not None:
                if yes in places:
                    raise ValueError(f"label placed twice: {yes}")
                places[yes] = len(out)
            elif code == JA and yes is not None:
                out.append(_far(out, _place(places, yes)))
            elif code in _NAMES:
                out.append(_conditional(out, places, (code, yes, no, value)))
            else:
                out.append((code, 0, 0, value))
        if not out or out[0][0] != RET:
            raise ValueError("a program must end in a return")
        if len(out) > MAX_INSTRUCTIONS:
            raise ValueError(f"{len(out)} instructions, the kernel takes {MAX_INSTRUCTIONS}; use fewer rules")
        return b"".join([_INSTRUCTION.pack(*one) for one in reversed(out)])


def _word(value: int) -> int:
    if not 0 <= value <= 0xFFFFFFFF:
        raise ValueError(f"not a 32-bit value: {value:#x}")
    return value


def _offset(offset: int) -> int:
    if offset % 4 or not 0 <= offset < DATA_BYTES:
        raise ValueError(f"not an aligned offset into struct seccomp_data: {offset}")
    return offset


def _place(places: dict[str, int], name: str) -> int:
    try:
        return places[name]
    except KeyError:
        raise ValueError(f"label is not placed after its jump: {name}") from None


def _far(out: list[tuple[int, int, int, int]], place: int) -> tuple[int, int, int, int]:
    """Return the one instruction that is worth a jump to `place`: a copy of a return, else JA."""
    if out[place - 1][0] == RET:
        return out[place - 1]
    return (JA, 0, 0, len(out) - place)


def _conditional(
    out: list[tuple[int, int, int, int]],
    places: dict[str, int],
    item: tuple[int, str | None, str | None, int],
) -> tuple[int, int, int, int]:
    """Return the jump, having emitted a stepping stone behind it for each target beyond 255."""
    code, yes, no, value = item
    after = len(out)
    at = [after if name is None else _place(places, name) for name in (yes, no)]
    while max(len(out) - at[0], len(out) - at[1]) > 255:
        far = 0 if len(out) - at[0] > 255 else 1
        stone = _far(out, at[far])
        out.append(stone)
        moved = at[far]
        at = [len(out) if place == moved else place for place in at]
    # A stepping stone serves the jumps before it too.
    places.update({name: place for name, place in zip((yes, no), at, strict=True) if name is not None})
    return (code, len(out) - at[0], len(out) - at[1], value)


def decode(program: bytes) -> list[tuple[int, int, int, int]]:
    """Return (code, jt, jf, k) for each instruction.

    Raises:
        ValueError: the length is not that of 1 to 4096 instructions.
    """
    if not program or len(program) % _INSTRUCTION.size or len(program) > MAX_INSTRUCTIONS * _INSTRUCTION.size:
        raise ValueError(f"{len(program)} bytes are not 1 to {MAX_INSTRUCTIONS} instructions")
    return list(_INSTRUCTION.iter_unpack(program))


def disassemble(program: bytes) -> str:
    """Return one line per instruction, for people and for golden tests."""
    lines = []
    for at, (code, jt, jf, k) in enumerate(decode(program)):
        if code in _NAMES:
            text = f"{_NAMES[code]} {k:#x} ? {at + 1 + jt} : {at + 1 + jf}"
        elif code == JA:
            text = f"ja {at + 1 + k}"
        else:
            text = f"{ {LD_ABS: 'ld', AND: 'and', RET: 'ret'}.get(code, f'code {code:#x}') } {k:#x}"
        lines.append(f"{at:4} {text}")
    return "\n".join(lines)


def interpret(program: bytes, nr: int, arch: int, args: tuple[int, ...], *, instruction_pointer: int = 0) -> int:
    """Return the 32-bit action that the kernel would take for one system call.

    Args:
        program: the bytes of struct sock_filter[].
        nr: the number; negative numbers are taken as the kernel does, modulo 2**32.
        arch: the AUDIT_ARCH_ value of the call.
        args: at most six 64-bit register values; the rest are 0.
        instruction_pointer: the address of the call.

    Raises:
        ValueError: the program uses an instruction that no filter of ours has, or runs off its end.
    """
    registers = [*args, 0, 0, 0, 0, 0, 0][:6]
    words = [nr, arch, instruction_pointer, instruction_pointer >> 32]
    for register in registers:
        words += [register, register >> 32]
    instructions = decode(program)
    accumulator = at = 0
    while at < len(instructions):
        code, jt, jf, k = instructions[at]
        at += 1
        if code == RET:
            return k
        if code == LD_ABS:
            accumulator = words[_offset(k) // 4] & 0xFFFFFFFF
        elif code == AND:
            accumulator &= k
        elif code == JA:
            at += k
        else:
            at += jt if _holds(code, accumulator, k) else jf
    raise ValueError("the program ran off its end")


def _holds(code: int, accumulator: int, k: int) -> bool:
    if code == JEQ:
        return accumulator == k
    if code == JGT:
        return accumulator > k
    if code == JGE:
        return accumulator >= k
    if code == JSET:
        return bool(accumulator & k)
    raise ValueError(f"no filter of ours has instruction {code:#x}")
