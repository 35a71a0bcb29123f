"""Record the arcs of code that coverage.py cannot follow: the launcher, each init and each command child.

These processes fork, sit behind their own seccomp filter and end in `execve` or `_exit`, so none of them could write a
report. Each arc is therefore one byte in a file mapped shared: forks inherit the map, and setting a byte needs no
system call. The rules of what is an arc are coverage.py's: entry is (-first line, line), exit is (line, -first line).

Everything up to `execve` and `_exit` is recorded, also behind the filter; so no line of the jail is beyond it. What is
not counted: a host process that a test kills with SIGKILL (its launcher is), a machine of its own under `vmrun`, and a
victim whose program begins with a `__future__` import.

May be imported by: the Python that `sitecustomize` of this folder starts, before anything of kavach.
"""

# ruff: noqa: ANN401 - a trace function is given anything
from __future__ import annotations

import ctypes
import os
import sys
from opcode import opmap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType, FrameType
    from typing import Any

_SUSPENDS = 0x20 | 0x80 | 0x200  # inspect.CO_GENERATOR, CO_COROUTINE, CO_ASYNC_GENERATOR
_PROT_READ_WRITE = 0x1 | 0x2  # asm-generic/mman-common.h
_MAP_SHARED = 0x1  # linux/mman.h
_RESUME = opmap["RESUME"]
_PUSH_EXC_INFO = opmap["PUSH_EXC_INFO"]


def start(path: str) -> None:
    """Record from here on, in this process and in every one it forks, into the map that `arc_map.create` made."""
    places: dict[str, tuple[int, int]] = {}
    with open(path + ".index", encoding="utf-8") as index:
        for row in index:
            name, offset, lines = row.rstrip("\n").split("\t")
            places[name] = (int(offset), int(lines))
    cells = _map(path)
    codes: dict[CodeType, bytes] = {}

    def enter(frame: FrameType, event: str, _argument: Any) -> Callable[..., Any] | None:
        code = frame.f_code
        if event != "call" or code.co_filename not in places:
            return None
        if code not in codes:
            codes[code] = code.co_code
        return _follow(frame, codes[code], cells, *places[code.co_filename])

    sys.settrace(enter)


def _follow(frame: FrameType, opcodes: bytes, cells: Any, offset: int, lines: int) -> Callable[..., Any]:
    first, suspends, width = frame.f_code.co_firstlineno, frame.f_code.co_flags & _SUSPENDS, 2 * lines + 1
    is_resumed = suspends and opcodes[frame.f_lasti] == _RESUME and opcodes[frame.f_lasti + 1] != 0
    previous = frame.f_lineno if is_resumed else -first

    def step(frame: FrameType, event: str, _argument: Any) -> Callable[..., Any]:
        nonlocal previous
        if event == "line" and opcodes[frame.f_lasti] != _PUSH_EXC_INFO:
            line = frame.f_lineno
            cells[offset + (previous + lines) * width + line + lines] = 1
            previous = line
        elif event == "return" and not (suspends and _is_yield(opcodes, frame.f_lasti)):
            cells[offset + (previous + lines) * width - first + lines] = 1
        return step

    return step


def _is_yield(opcodes: bytes, last: int) -> bool:
    """Return whether a suspending function goes on later: RESUME follows its YIELD_VALUE."""
    return last + 2 < len(opcodes) and opcodes[last + 2] == _RESUME


def _map(path: str) -> Any:
    """Map the file and close it: the launcher's own count of descriptors must not change."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
    handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    size = os.fstat(handle).st_size
    address = libc.mmap(None, size, _PROT_READ_WRITE, _MAP_SHARED, handle, 0)
    os.close(handle)
    if address == ctypes.c_void_p(-1).value:
        raise OSError(ctypes.get_errno(), "mmap", path)
    return (ctypes.c_ubyte * size).from_address(address)
