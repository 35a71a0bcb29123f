#!/usr/bin/env python3
"""Write the system call tables of kavach.linux from kernel headers; run by hand when a newer kernel is out.

    tools/gen_syscalls.py --version 6.12.117 \
        --x86-64 HEADERS/arch/x86/include/generated/uapi/asm/unistd_64.h \
        --aarch64 COMMON/include/uapi/asm-generic/unistd.h \
        --prototypes COMMON/include/linux/syscalls.h

On Debian the three files come from `linux-headers-VERSION-amd64` and `linux-headers-VERSION-common`. Needs
`cc`. A call that is newer than the headers is one row in NEWER (every architecture has shared one numbering
since 424).
"""

from __future__ import annotations

import argparse
import re
import subprocess
from pathlib import Path

LINUX = Path(__file__).resolve().parent.parent / "src" / "kavach" / "linux"

# name: (number, argument kinds, first kernel). Rows that a header already holds are checked against it.
NEWER = {
    "setxattrat": (463, "wlwlll", "6.13"),
    "getxattrat": (464, "wlwlll", "6.13"),
    "listxattrat": (465, "wlwll", "6.13"),
    "removexattrat": (466, "wlwl", "6.13"),
    "open_tree_attr": (467, "wlwll", "6.15"),
    "file_getattr": (468, "wlllw", "6.17"),
    "file_setattr": (469, "wlllw", "6.17"),
    "listns": (470, "lllw", "6.19"),
}
# arm64's asm/unistd.h selects these parts of the generic table.
AARCH64_WANTS = (
    "RENAMEAT",
    "NEW_STAT",
    "SET_GET_RLIMIT",
    "TIME32_SYSCALLS",
    "SYS_CLONE3",
    "MEMFD_SECRET",
)
# Defined per architecture, or under another function name, so absent from include/linux/syscalls.h.
ARCH_PROTOTYPES = {
    "arch_prctl": "wl",
    "clone": "lllll",
    "fork": "",
    "fstat": "wl",
    "iopl": "w",
    "ioperm": "llw",
    "lstat": "ll",
    "map_shadow_stack": "llw",
    "mmap": "llllll",
    "modify_ldt": "wll",
    "rt_sigreturn": "",
    "stat": "ll",
    "umount2": "lw",
    "uname": "l",
    "vfork": "",
}
HALF = {"umode_t"}
# Typedefs of 32 bits on a 64-bit kernel; everything else that is not a plain int is a register's width.
WORD = {
    "int", "unsigned", "unsigned int", "u32", "__u32", "__s32", "s32", "pid_t", "uid_t", "gid_t", "qid_t",
    "key_t", "mqd_t", "clockid_t", "timer_t", "key_serial_t", "rwf_t", "enum landlock_rule_type",
}  # fmt: skip


def preprocess(header: Path, defines: tuple[str, ...] = ()) -> dict[str, int]:
    """Return name -> number of every __NR_ macro that the header defines for a 64-bit program."""
    command = ["cc", "-E", "-dM", "-x", "c", "-nostdinc", "-D__BITS_PER_LONG=64", "-D__LP64__"]
    text = subprocess.run(
        [*command, *[f"-D{d}" for d in defines], "-"],
        # asm/bitsperlong.h is the header's only include; its one answer is given above.
        input=re.sub(r"^#include.*$", "", header.read_text(), flags=re.MULTILINE),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    macros = dict(re.findall(r"^#define (__NR\w+) (\w+)$", text, flags=re.MULTILINE))
    numbers = {}
    for macro, given in macros.items():
        if not macro.startswith("__NR_") or macro in {"__NR_syscalls", "__NR_arch_specific_syscall"}:
            continue
        value = given
        while value in macros:
            value = macros[value]
        if value.isdigit():
            numbers[macro.removeprefix("__NR_")] = int(value)
    return numbers


def with_newer(numbers: dict[str, int]) -> dict[str, int]:
    """Return the table with the rows of NEWER, which must not contradict the header."""
    for name, (number, _, _) in NEWER.items():
        if numbers.setdefault(name, number) != number:
            raise SystemExit(f"{name}: header says {numbers[name]}, NEWER says {number}")
    return dict(sorted(numbers.items(), key=lambda item: item[1]))


def kind(parameter: str) -> str:
    """Return h (16 bits), w (32 bits) or l (a whole register) for one C parameter declaration."""
    words = re.sub(r"\b(const|__user|volatile)\b", "", parameter)
    if "*" in words or "[" in words:
        return "l"
    tokens = words.split()
    nameless = tokens[-1] in {"int", "long", "short", "char", "unsigned"}
    for declared in (" ".join(tokens), "" if nameless else " ".join(tokens[:-1])):
        if declared in WORD:
            return "w"
        if declared in HALF:
            return "h"
    return "l"


def prototypes(header: Path) -> dict[str, str]:
    """Return name -> one letter per argument, from `asmlinkage long sys_NAME(...)`."""
    text = re.sub(r"/\*.*?\*/", "", header.read_text(), flags=re.DOTALL)
    found: dict[str, str] = {}
    for name, inside in re.findall(r"asmlinkage\s+(?:long|ssize_t)\s+sys_(\w+)\(([^)]*)\)", text):
        parameters = [p.strip() for p in inside.split(",")]
        found.setdefault(name, "" if parameters == ["void"] else "".join(kind(p) for p in parameters))
    return found | {name: row[1] for name, row in NEWER.items()} | ARCH_PROTOTYPES


def write(path: Path, docstring: str, name: str, rows: dict[str, object], annotation: str) -> None:
    """Write one module that holds one dict."""
    lines = [f'"""{docstring}"""', "", "from __future__ import annotations", "", f"{name}: {annotation} = {{"]
    lines += [f'    "{key}": {value!r},'.replace("'", '"') for key, value in rows.items()]
    path.write_text("\n".join([*lines, "}", ""]))


def main() -> None:
    """Write the three generated modules."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--version", required=True, help="the version of the headers, for the docstrings")
    parser.add_argument("--x86-64", required=True, type=Path)
    parser.add_argument("--aarch64", required=True, type=Path)
    parser.add_argument("--prototypes", required=True, type=Path)
    options = parser.parse_args()
    wants = tuple(f"__ARCH_WANT_{w}" for w in AARCH64_WANTS)
    tables = {
        "x86_64": with_newer(preprocess(options.x86_64)),
        "aarch64": with_newer(preprocess(options.aarch64, wants)),
    }
    newer = ", ".join(f"{name} ({row[2]})" for name, row in NEWER.items())
    origin = f"Generated by tools/gen_syscalls.py from Linux {options.version}'s headers; newer rows: {newer}."
    origin = re.sub(r"(.{1,105})(?: |$)", r"\1\n", origin)
    for arch, numbers in tables.items():
        write(
            LINUX / f"syscalls_{arch}.py",
            f"Name -> number on {arch}. Says nothing of what a kernel has; read by syscalls.py.\n\n{origin}",
            "NUMBERS",
            dict(numbers),
            "dict[str, int]",
        )
    known = set(tables["x86_64"]) | set(tables["aarch64"])
    kinds = {name: value for name, value in sorted(prototypes(options.prototypes).items()) if name in known}
    write(
        LINUX / "syscall_prototypes.py",
        "Name -> kinds of a call's arguments: of a register the kernel reads h 16, w 32 or l 64 bits.\n\n"
        f"A call that is absent has no arguments that a filter may compare. Read by syscalls.py.\n\n{origin}",
        "PROTOTYPES",
        dict(kinds),
        "dict[str, str]",
    )
    print({arch: len(numbers) for arch, numbers in tables.items()}, len(kinds), sorted(known - set(kinds)))


if __name__ == "__main__":
    main()
