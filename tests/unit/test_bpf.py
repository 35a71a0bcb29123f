"""The classic BPF assembler, disassembler and interpreter."""

from __future__ import annotations

import struct

import pytest

from kavach.linux import bpf


def _run(program: bytes, nr: int = 0, arch: int = 0, *args: int) -> int:
    return bpf.interpret(program, nr, arch, args)


def _compare(op: int, value: int) -> bytes:
    program = bpf.Assembler()
    program.load(bpf.OFFSET_NR)
    program.jump(op, value, "yes", "no")
    program.place("yes")
    program.ret(1)
    program.place("no")
    program.ret(0)
    return program.assemble()


@pytest.mark.parametrize(
    ("op", "value", "accepted", "rejected"),
    [
        (bpf.JEQ, 7, (7,), (6, 8, 0xFFFFFFFF)),
        (bpf.JGT, 7, (8, 0xFFFFFFFF), (7, 0)),
        (bpf.JGE, 7, (7, 8, 0x80000000), (6, 0)),
        (bpf.JSET, 6, (2, 4, 7, 0xFFFFFFFF), (1, 8, 0)),
    ],
)
def test_each_comparison_is_unsigned_and_exact(op, value, accepted, rejected):
    program = _compare(op, value)
    assert [_run(program, nr) for nr in accepted] == [1] * len(accepted)
    assert [_run(program, nr) for nr in rejected] == [0] * len(rejected)


def test_instructions_are_laid_out_as_struct_sock_filter():
    program = bpf.Assembler()
    program.load(bpf.OFFSET_ARCH)
    program.jump(bpf.JEQ, 0xC000003E, None, "no")
    program.ret(0x7FFF0000)
    program.place("no")
    program.ret(0x00050026)
    assert program.assemble() == b"".join(
        struct.pack("=HBBI", *one)
        for one in [
            (0x20, 0, 0, 4),
            (0x15, 0, 1, 0xC000003E),
            (0x06, 0, 0, 0x7FFF0000),
            (0x06, 0, 0, 0x00050026),
        ]
    )


def test_arguments_are_read_low_word_first():
    for index in range(6):
        program = bpf.Assembler()
        program.load(bpf.OFFSET_ARGS + 8 * index + 4)
        program.jump(bpf.JEQ, 0x11, None, "no")
        program.load(bpf.OFFSET_ARGS + 8 * index)
        program.jump(bpf.JEQ, 0x22, None, "no")
        program.ret(1)
        program.place("no")
        program.ret(0)
        args = [0] * 6
        args[index] = 0x11_00000022
        assert _run(program.assemble(), 0, 0, *args) == 1


def test_mask_keeps_only_its_bits():
    program = bpf.Assembler()
    program.load(bpf.OFFSET_NR)
    program.mask(0xF0)
    program.jump(bpf.JEQ, 0x30, "yes", None)
    program.ret(0)
    program.place("yes")
    program.ret(1)
    assert [_run(program.assemble(), nr) for nr in (0x30, 0x13F, 0x40)] == [1, 1, 0]


@pytest.mark.parametrize("distance", [254, 255, 256, 257, 600, 3000])
@pytest.mark.parametrize("far", ["yes", "no", "both"])
def test_jumps_of_any_length_reach_their_target(distance, far):
    program = bpf.Assembler()
    program.load(bpf.OFFSET_NR)
    program.jump(bpf.JEQ, 1, "a" if far != "no" else None, "b" if far != "yes" else None)
    for _ in range(distance):
        program.load(bpf.OFFSET_ARCH)
    program.ret(3)
    for label, offset, action in (("a", bpf.OFFSET_ARGS, 100), ("b", bpf.OFFSET_ARGS + 8, 200)):
        program.place(label)
        program.load(offset)
        program.jump(bpf.JEQ, 5, None, "other")
        program.ret(action)
    program.place("other")
    program.ret(4)
    assembled = program.assemble()
    assert bpf.interpret(assembled, 1, 0, (5, 6)) == (100 if far != "no" else 3)
    assert bpf.interpret(assembled, 2, 0, (6, 5)) == (200 if far != "yes" else 3)


def test_many_jumps_to_one_far_label_share_stepping_stones():
    program = bpf.Assembler()
    program.load(bpf.OFFSET_NR)
    for value in range(1000):
        program.jump(bpf.JEQ, value, "hit", None)
    program.ret(0)
    program.place("hit")
    program.load(bpf.OFFSET_ARCH)
    program.ret(9)
    assembled = program.assemble()
    assert {bpf.interpret(assembled, nr, 0, ()) for nr in (0, 1, 499, 745, 999)} == {9}
    assert bpf.interpret(assembled, 1000, 0, ()) == 0
    assert len(assembled) // 8 <= 1000 + 4 + 5


def test_program_of_4096_instructions_is_taken_and_one_more_is_not():
    program = bpf.Assembler()
    for _ in range(4095):
        program.load(0)
    program.ret(0)
    assert len(program.assemble()) == 4096 * 8
    program.ret(0)
    with pytest.raises(ValueError, match="4097 instructions"):
        program.assemble()


def test_program_must_end_in_a_return():
    program = bpf.Assembler()
    program.load(0)
    with pytest.raises(ValueError, match="end in a return"):
        program.assemble()
    with pytest.raises(ValueError, match="end in a return"):
        bpf.Assembler().assemble()


def test_backward_and_missing_labels_are_refused():
    program = bpf.Assembler()
    program.place("behind")
    program.load(0)
    program.goto("behind")
    program.ret(0)
    with pytest.raises(ValueError, match="behind"):
        program.assemble()


def test_label_placed_twice_is_refused():
    program = bpf.Assembler()
    program.place("twice")
    program.ret(0)
    program.place("twice")
    program.ret(0)
    with pytest.raises(ValueError, match="twice"):
        program.assemble()


@pytest.mark.parametrize("offset", [-4, 2, 64, 1000])
def test_load_outside_the_data_or_unaligned_is_refused(offset):
    with pytest.raises(ValueError, match="offset"):
        bpf.Assembler().load(offset)


@pytest.mark.parametrize("value", [-1, 1 << 32])
def test_constants_are_32_bits(value):
    program = bpf.Assembler()
    for emit in (program.ret, program.mask, lambda v: program.jump(bpf.JEQ, v, None, None)):
        with pytest.raises(ValueError, match="32-bit"):
            emit(value)


def test_unknown_jump_is_refused():
    with pytest.raises(ValueError, match="conditional"):
        bpf.Assembler().jump(bpf.RET, 0, None, None)


def test_interpreter_refuses_what_no_filter_of_ours_has():
    with pytest.raises(ValueError, match="0x87"):
        bpf.interpret(struct.pack("=HBBI", 0x87, 0, 0, 0), 0, 0, ())
    with pytest.raises(ValueError, match="ran off"):
        bpf.interpret(struct.pack("=HBBI", bpf.LD_ABS, 0, 0, 0), 0, 0, ())
    with pytest.raises(ValueError, match="bytes"):
        bpf.decode(b"1234567")
    with pytest.raises(ValueError, match="bytes"):
        bpf.decode(b"")


def test_negative_number_is_compared_as_the_kernel_stores_it():
    assert _run(_compare(bpf.JEQ, 0xFFFFFFFF), -1) == 1


def test_disassembly_names_targets_by_instruction():
    program = bpf.Assembler()
    program.load(0)
    program.mask(1)
    program.jump(bpf.JEQ, 5, "end", None)
    program.goto("mid")
    program.place("mid")
    program.load(4)
    program.place("end")
    program.ret(0x7FFF0000)
    assert [line.split(maxsplit=1)[1] for line in bpf.disassemble(program.assemble()).splitlines()] == [
        "ld 0x0",
        "and 0x1",
        "jeq 0x5 ? 5 : 3",
        "ja 4",
        "ld 0x4",
        "ret 0x7fff0000",
    ]
