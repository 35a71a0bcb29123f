"""Who may import whom: the contracts of pyproject.toml, and the exact list of what runs inside the jail."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SRC = ROOT / "src"
JAIL_ENTRY = "kavach.launcher.zygote"
# All but `stat` are thin C; `_socket` and `_signal` are what `socket` and `signal` wrap in enums.
JAIL_MAY_IMPORT = {
    *("__future__", "os", "sys", "struct", "errno", "ctypes", "select", "signal", "socket"),
    *("_signal", "_socket", "fcntl", "gc", "marshal", "resource", "stat", "time"),
}
# What ctypes and struct load themselves, and what the interpreter may or may not have loaded at its start.
LOADED_BY_THOSE = {
    "_collections_abc",
    "_ctypes",
    "_struct",
    "ctypes._endian",
    "genericpath",
    "os.path",
    "types",
    "os",
    "stat",
    "abc",
    "_abc",
    "_stat",
    "posixpath",
}
JAIL_MODULES_AT_MOST = 20
NO_IO = {"fspath", "fsencode", "fsdecode", "PathLike"}
PURE_BUT_FOR_FSPATH = ["model/**/*.py", "policy/**/*.py", "linux/bpf.py"]
READERS = {"policy/seccomp_profile.py", "policy/profiles.py"}


def source_of(module: str) -> Path:
    path = SRC / Path(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def is_for_checkers(node: ast.AST) -> bool:
    """Return whether this is a block `if TYPE_CHECKING:`, which no interpreter runs."""
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def imports_of(path: Path) -> set[str]:
    """Return every module that a file imports, with `from a import b` as `a.b` where that is a module."""
    found: set[str] = set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    unread = {id(node) for block in ast.walk(tree) if is_for_checkers(block) for node in ast.walk(block)}
    for node in ast.walk(tree):
        if id(node) in unread:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                is_module = whole.startswith("kavach.") and source_of(whole).exists()
                found.add(whole if is_module else str(node.module))
    return found


def jail_modules() -> dict[str, set[str]]:
    """Return every module of ours that the launcher's process loads, with what it imports."""
    seen: dict[str, set[str]] = {}
    waiting = [JAIL_ENTRY]
    while waiting:
        module = waiting.pop()
        if module in seen:
            continue
        seen[module] = imports_of(source_of(module))
        waiting += [name for name in seen[module] if name.startswith("kavach.")]
    return seen


def test_import_contracts_hold():
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_jail_imports_only_the_allowed_modules():
    strangers = {
        module: sorted(name for name in imports if not name.startswith("kavach.") and name not in JAIL_MAY_IMPORT)
        for module, imports in jail_modules().items()
    }
    assert {module: names for module, names in strangers.items() if names} == {}


@pytest.mark.needs("linux")
def test_a_real_launcher_has_loaded_nothing_but_the_jail():
    probe = (
        "import sys; before = set(sys.modules); sys.path.insert(0, sys.argv[1]); from kavach.launcher import zygote;"
        "print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-B", "-c", probe, str(SRC)], capture_output=True, text=True, check=True, env={}
    )
    loaded = set(done.stdout.split())
    ours = {name for name in loaded if name.split(".")[0] == "kavach"}
    assert ours == set(jail_modules()) | {"kavach", "kavach.launcher", "kavach.linux"}
    assert loaded - ours <= JAIL_MAY_IMPORT | LOADED_BY_THOSE


def test_jail_is_launcher_and_linux_and_stays_a_handful():
    modules = jail_modules()
    assert {module.split(".")[1] for module in modules} == {"launcher", "linux"}
    assert len(modules) <= JAIL_MODULES_AT_MOST


def test_packages_on_the_jails_path_load_nothing():
    for package in ("kavach.launcher", "kavach.linux"):
        assert imports_of(source_of(package)) <= {"__future__"}


def test_jail_has_no_annotation_machinery():
    for module in jail_modules():
        tree = ast.parse(source_of(module).read_text(encoding="utf-8"))
        decorated = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.decorator_list]
        assert not decorated, f"{module}: {decorated[0].name} is decorated"


def test_deciding_modules_use_os_for_nothing_but_paths_as_text():
    for pattern in PURE_BUT_FOR_FSPATH:
        for path in (SRC / "kavach").glob(pattern):
            if path.relative_to(SRC / "kavach").as_posix() in READERS:
                continue
            tree = ast.parse(path.read_text(encoding="utf-8"))
            used = {
                node.attr
                for node in ast.walk(tree)
                if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "os"
            }
            assert used <= NO_IO, f"{path}: os.{', os.'.join(sorted(used - NO_IO))}"
