"""What a pickle would call when it is loaded, read from its opcodes; nothing is ever loaded.

Does not: follow the stack; a module and one of its callables in one pickle that looks names up is enough. May be used
by: kavach.gate.binary.
"""

from __future__ import annotations

import pickletools

OPCODES_READ = 200_000
"""How many opcodes of a pickle are read; protects the scan's time. What is longer is never called harmless."""

_LOOKUPS = frozenset({"GLOBAL", "INST", "STACK_GLOBAL"})
_RUNNERS = frozenset(
    {"system", "popen", "execv", "execve", "execvp", "execl", "spawnl", "spawnv", "posix_spawn", "fork"}
)
_BUILTINS = frozenset({"eval", "exec", "compile", "__import__", "getattr", "open", "breakpoint"})
# Modules of the standard library, and those of their names that run code or commands; None = any.
_CALLABLES: dict[str, frozenset[str] | None] = {
    "os": _RUNNERS,
    "posix": _RUNNERS,
    "nt": _RUNNERS,
    "builtins": _BUILTINS,
    "__builtin__": _BUILTINS,
    "subprocess": None,
    "commands": None,  # what `subprocess` was called in Python 2; loading maps it back
    "pty": None,
    "runpy": None,
    "code": None,
    "ctypes": None,
    "importlib": None,
    "socket": frozenset({"socket", "create_connection"}),
    "shutil": frozenset({"rmtree", "move", "copyfile"}),
    "webbrowser": None,
    "timeit": frozenset({"timeit", "repeat"}),
    "cProfile": frozenset({"run", "runctx"}),
    "pickle": frozenset({"loads", "load"}),
    "_pickle": frozenset({"loads", "load"}),
    "operator": frozenset({"attrgetter", "methodcaller"}),
}


def is_pickle(data: bytes) -> bool:
    """Return whether the bytes begin as a pickle of protocol 2 to 5 does (PEP 3154).

    Args:
        data: the artifact, or its beginning.
    """
    return data[:1] == b"\x80" and data[1:2] in {b"\x02", b"\x03", b"\x04", b"\x05"}


def has_calls(data: bytes) -> bool:
    """Return whether loading the pickle would reach something that runs code.

    Args:
        data: the whole pickle.

    Raises:
        ValueError: nothing was seen so far, but the opcodes are broken or too many to tell.
    """
    names: set[str] = set()
    looks_up = False
    problem: ValueError | None = None
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(data)):
            if count >= OPCODES_READ:
                raise ValueError(f"more than {OPCODES_READ} opcodes")
            looks_up = looks_up or opcode.name in _LOOKUPS
            if isinstance(argument, str):
                names.update(argument.split(" ") if opcode.name in {"GLOBAL", "INST"} else (argument,))
    except ValueError as error:
        problem = error  # SECURITY: a pickle runs what comes before its broken end
    if looks_up and any(_reaches(names, module, wanted) for module, wanted in _CALLABLES.items()):
        return True
    if problem is not None:
        raise problem
    return False


def _reaches(names: set[str], module: str, wanted: frozenset[str] | None) -> bool:
    is_named = module in names or any(name.startswith(module + ".") for name in names if wanted is None)
    return is_named and (wanted is None or not wanted.isdisjoint(names))
