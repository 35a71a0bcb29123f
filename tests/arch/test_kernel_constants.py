"""Every kernel constant says where it comes from, and is what the installed headers say it is."""

from __future__ import annotations

import ast
import functools
import importlib
import platform
import re
import subprocess
from pathlib import Path

import pytest

SRC = Path(__file__).resolve().parents[2] / "src"
KERNEL_NAME = re.compile(
    r"(SYS|CLONE|MS|MNT|MFD|PR|SECCOMP|LANDLOCK|RESOLVE|MOUNT_ATTR|OPEN_TREE|MOVE_MOUNT|PIDFD|AUDIT|BPF|CAP|NS|SECBIT|"
    r"KEYCTL|CLOSE_RANGE|AT|RLIMIT|FSCONFIG|PTRACE|IOPRIO)_[A-Z0-9_]+"
)
ORIGIN = re.compile(r"#.*?\b(?P<header>[a-z0-9_-]+/[a-z0-9_/-]+\.h)\b.*?\b(?P<version>\d+\.\d+)")
# What user space sees of a few kernel words is spelt in the C library's headers only.
C_LIBRARY = (
    "sys/mount.h",
    "sys/prctl.h",
    "sched.h",
    "sys/socket.h",
    "fcntl.h",
    "sys/resource.h",
    "sys/ptrace.h",
)


class Constant:
    def __init__(self, module: str, name: str, line: str) -> None:
        self.module, self.name, self.line = module, name, line
        self.origin = ORIGIN.search(line)
        self.value = getattr(importlib.import_module(module), name)

    def __repr__(self) -> str:
        return f"{self.module}.{self.name}"

    @property
    def must_be_known(self) -> bool:
        return KERNEL_NAME.fullmatch(self.name) is not None

    @property
    def c_words(self) -> list[str]:
        """What the header may call it: our name, its reserved form, or the words of the comment."""
        if self.name.startswith("SYS_"):
            return ["__NR_" + self.name[4:].lower()]
        named = re.search(r"\b_*[A-Z][A-Z0-9_]{3,}(?: \| [A-Z0-9_]+)*", self.line.partition("#")[2])
        return [self.name, "_" + self.name, *([named[0]] if named else [])]

    @property
    def headers(self) -> list[str]:
        named = re.findall(r"[a-z0-9_-]+/[a-z0-9_/-]+\.h", self.line)
        return ["asm/unistd.h", *named] if self.name.startswith("SYS_") else [*named, *C_LIBRARY]

    @property
    def version(self) -> tuple[int, ...]:
        assert self.origin is not None
        return tuple(map(int, self.origin["version"].split(".")))


@functools.cache
def constants() -> list[Constant]:
    found = []
    for path in sorted(SRC.rglob("*.py")):
        lines = path.read_text(encoding="utf-8").splitlines()
        module = ".".join(path.relative_to(SRC).with_suffix("").parts)
        for node in ast.parse("\n".join(lines)).body:
            if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
                continue
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            if not isinstance(target, ast.Name) or not target.id.isupper() or target.id.startswith("_"):
                continue
            line = lines[node.lineno - 1]
            if KERNEL_NAME.fullmatch(target.id) or ORIGIN.search(line):
                constant = Constant(module, target.id, line)
                if type(constant.value) is int:
                    found.append(constant)
    return found


def compiled(header: str, words: list[str], folder: Path) -> dict[str, int]:
    """Return what the header says of those C expressions that it knows."""
    if not words:
        return {}
    rows = "".join(f'  printf("%llu\\n", (unsigned long long)({word}));\n' for word in words)
    source, program = folder / "constants.c", folder / "constants"
    head = f"#define _GNU_SOURCE\n#include <stdio.h>\n#include <sys/ioctl.h>\n#include <{header}>\n"
    source.write_text(f"{head}int main(void) {{\n{rows}}}\n")
    environ = {"PATH": "/usr/bin:/bin", "LC_ALL": "C"}
    built = subprocess.run(["gcc", "-w", "-o", program, source], capture_output=True, text=True, env=environ)
    if built.returncode == 0:
        output = subprocess.run([program], capture_output=True, text=True, check=True).stdout
        return dict(zip(words, map(int, output.split()), strict=True))
    unknown = set(re.findall(r"'(\w+)' undeclared", built.stderr))
    left = [word for word in words if not unknown & set(re.findall(r"\w+", word))]
    if left != words:
        return compiled(header, left, folder)
    if len(words) == 1:
        return {}
    # One that the header spells with a word that user space lacks, like PAGE_SIZE: find the others.
    return {word: value for one in words for word, value in compiled(header, [one], folder).items()}


def installed_version() -> tuple[int, ...]:
    text = Path("/usr/include/linux/version.h").read_text(encoding="ascii")
    code = int(re.search(r"LINUX_VERSION_CODE (\d+)", text)[1])  # type: ignore[index]
    return code >> 16, code >> 8 & 255


def test_every_kernel_constant_names_its_header_and_first_version():
    silent = [f"{constant}: {constant.line.strip()}" for constant in constants() if constant.origin is None]
    assert silent == []


@pytest.mark.needs("gcc", "linux")
@pytest.mark.skipif(platform.machine() not in {"x86_64", "aarch64"}, reason="the tables cover two architectures")
def test_every_kernel_constant_equals_the_installed_header(tmp_path):
    wanted = [constant for constant in constants() if constant.origin is not None]
    assert len(wanted) > 100
    known: dict[str, dict[str, int]] = {}
    for header in sorted({header for constant in wanted for header in constant.headers}):
        words = {word for constant in wanted if header in constant.headers for word in constant.c_words}
        known[header] = compiled(header, sorted(words), tmp_path)
    wrong, absent = [], []
    for constant in wanted:
        pairs = [(header, word) for header in constant.headers for word in constant.c_words]
        said = [known[header][word] for header, word in pairs if word in known[header]]
        if not said:
            absent.append(constant)
        elif said[0] & 0xFFFFFFFFFFFFFFFF != constant.value & 0xFFFFFFFFFFFFFFFF:
            wrong.append(f"{constant} is {constant.value:#x}, the header says {said[0]:#x}")
    assert wrong == []
    # A word that no installed header knows must at least be newer than the headers.
    installed = installed_version()
    old = [f"{c}: {c.line.strip()}" for c in absent if c.must_be_known and c.version <= installed]
    assert old == []
    assert len(wanted) - len(absent) > 100
