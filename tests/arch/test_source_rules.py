"""The habits that a reader relies on, checked in the source: sizes, names, words, doors."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import tokenize
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "kavach"
MODULES = sorted(PACKAGE.rglob("*.py"))
MODULE_LINES, FUNCTION_LINES = 450, 60
FORBIDDEN_NAMES = {"utils", "util", "helpers", "helper", "common", "core", "manager", "base", "misc"}
BROAD_HANDLERS = 2
Function = ast.FunctionDef | ast.AsyncFunctionDef


def short(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


@functools.cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def functions(tree: ast.AST) -> Iterator[Function]:
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def calls(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func)


def comments(path: Path) -> Iterator[tuple[int, str]]:
    with path.open("rb") as file:
        for token in tokenize.tokenize(file.readline):
            if token.type == tokenize.COMMENT:
                yield token.start[0], token.string


def in_jail(path: Path) -> bool:
    return short(path).startswith("launcher/")


def in_cli(path: Path) -> bool:
    return short(path).startswith("cli/") or short(path) == "__main__.py"


def test_no_module_is_longer_than_the_limit():
    long = {short(p): n for p in MODULES if (n := len(p.read_text(encoding="utf-8").splitlines())) > MODULE_LINES}
    assert long == {}


def test_no_function_is_longer_than_the_limit():
    long = [
        f"{short(path)}:{node.lineno} {node.name} has {node.end_lineno - node.lineno + 1} lines"
        for path in MODULES
        for node in functions(tree_of(path))
        if node.end_lineno is not None and node.end_lineno - node.lineno + 1 > FUNCTION_LINES
    ]
    assert long == []


def test_no_module_has_a_name_that_says_nothing():
    parts = {short(path): set(path.relative_to(PACKAGE).with_suffix("").parts) for path in MODULES}
    parts.pop("backends/base.py", None)
    assert {name: found for name, words in parts.items() if (found := words & FORBIDDEN_NAMES)} == {}


def test_every_module_and_everything_public_says_what_it_guarantees():
    silent = []
    for path in MODULES:
        tree = tree_of(path)
        nodes: list[tuple[str, ast.AST]] = [("the module", tree)]
        for node in tree.body:
            if isinstance(node, (*Function.__args__, ast.ClassDef)) and not node.name.startswith("_"):
                nodes.append((node.name, node))
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                nodes += [
                    (f"{node.name}.{m.name}", m) for m in node.body if isinstance(m, Function) and m.name[0] != "_"
                ]
        silent += [f"{short(path)}: {name}" for name, node in nodes if not ast.get_docstring(node)]  # type: ignore[arg-type]
    assert silent == []


def test_public_names_of_the_package_are_documented():
    import kavach

    names = getattr(kavach, "__all__", None)
    assert names, "kavach names nothing public"
    silent = []
    for name in names:
        thing = getattr(kavach, name)
        if isinstance(thing, type) or callable(thing):
            own = thing.__dict__.get("__doc__") if isinstance(thing, type) else thing.__doc__
            silent += [] if own else [name]
    assert silent == []


def test_exceptions_from_the_linters_say_why():
    """`# noqa: X - why`, `# type: ignore[x]  # why`, `# pragma: no cover - why`."""
    asked = re.compile(r"#\s*(noqa|type:\s*ignore|pragma|ruff:)")
    answered = re.compile(r"(noqa:[\sA-Z0-9,]+|ignore\[[\w,\s-]+\]|no (cover|branch))\s*[#-]+\s*\w")
    mute = [
        f"{short(path)}:{line} {text}"
        for path in MODULES
        for line, text in comments(path)
        if asked.search(text) and not answered.search(text)
    ]
    assert mute == []


def test_unfinished_work_is_not_in_the_source():
    words = re.compile(r"\b(TODO|FIXME|XXX|HACK|WIP)\b")
    found = [f"{short(p)}:{line} {text}" for p in MODULES for line, text in comments(p) if words.search(text)]
    found += [
        f"{short(p)}: NotImplementedError" for p in MODULES if "NotImplementedError" in p.read_text(encoding="utf-8")
    ]
    assert found == []


def keeps_for_the_waiter(node: ast.ExceptHandler) -> bool:
    """Return whether a thread or task keeps the very exception (`self.error = error`) for whoever waits for it."""
    kept = [step for step in node.body if isinstance(step, ast.Assign) and ast.unparse(step.value) == node.name]
    targets = [ast.unparse(step.targets[0]) for step in kept]
    return len(node.body) == 1 and targets in (["self.error"], ["self._error"])


def test_there_are_at_most_two_handlers_that_catch_everything():
    broad = []
    for path in MODULES:
        for node in ast.walk(tree_of(path)):
            if not isinstance(node, ast.ExceptHandler):
                continue
            names = "" if node.type is None else ast.unparse(node.type)
            catches_all = node.type is None or re.search(r"\b(Base)?Exception\b(?!Group)", names)
            passes_on = any(isinstance(step, ast.Raise) and step.exc is None for step in ast.walk(node))
            if catches_all and not passes_on and not keeps_for_the_waiter(node):
                broad.append(f"{short(path)}:{node.lineno}")
    assert len(broad) <= BROAD_HANDLERS, broad


@pytest.mark.parametrize("path", [p for p in MODULES if not in_cli(p)], ids=short)
def test_library_neither_prints_nor_exits_nor_reads_the_environment(path):
    tree = tree_of(path)
    forbidden = {"print", "input", "exit", "quit", "sys.exit", "os.getenv", "os.putenv", "breakpoint"}
    found = sorted(forbidden & set(calls(tree)))
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node) in {"os.environ", "os.environb", "sys.argv"}:
            found.append(f"{ast.unparse(node)} in line {node.lineno}")
    if in_jail(path):
        # The launcher is a program of its own: its arguments are its only configuration.
        found = [name for name in found if not name.startswith(("sys.argv", "sys.exit"))]
    if short(path) == "launcher/canary.py":
        # That nothing was inherited is what this canary is there to see.
        found = [name for name in found if not name.startswith("os.environ")]
    assert found == []


@pytest.mark.parametrize("path", MODULES, ids=short)
def test_processes_are_forked_only_by_the_launcher_and_nothing_is_evaluated(path):
    used = set(calls(tree_of(path)))
    evaluated = {
        "eval",
        "exec",
        "compile",
        "pickle.loads",
        "pickle.load",
        "marshal.loads",
        "os.system",
        "os.popen",
    }
    if short(path) == "launcher/zygote.py":
        evaluated.remove("marshal.loads")  # from the host, which it obeys anyway (ADR 0001)
    started = {name for name in used if re.fullmatch(r"os\.(fork|forkpty|posix_spawnp?|exec[lv]p?e?|spawn\w+)", name)}
    assert used & evaluated == set()
    if not in_jail(path) and short(path) != "linux/host_attempt.py":
        assert started == set()
    assert "preexec_fn" not in path.read_text(encoding="utf-8")


def test_booleans_are_never_positional_in_public_functions():
    found = [
        f"{short(path)}:{node.lineno} {node.name}({argument.arg})"
        for path in MODULES
        # A setter's name says what its one value means; Taking.take has the form in which a wall calls back.
        if short(path) not in {"model/builder.py", "aio/process.py"}
        for node in functions(tree_of(path))
        for argument in [*node.args.posonlyargs, *node.args.args]
        if not node.name.startswith("_")
        and argument.annotation is not None
        and ast.unparse(argument.annotation) == "bool"
    ]
    assert found == []


def test_test_files_have_unique_names():
    names = Counter(path.name for path in (ROOT / "tests").rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []


def test_tests_are_sentences():
    short_names = [
        f"{path.name}: {node.name}"
        for path in (ROOT / "tests").rglob("test_*.py")
        for node in functions(tree_of(path))
        if node.name.startswith("test_") and node.name.count("_") < 3
    ]
    assert short_names == []


@pytest.mark.needs("git")
def test_no_file_names_the_place_it_was_written_in():
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True
    )
    if listed.returncode != 0:
        pytest.skip("not a git work tree")
    # Spelt in pieces, so that this file does not find itself.
    words = re.compile("|".join([r"/" + r"work/", r"\.\./" + r"shared", "pypi" + r"\.org", "registry" + r"\.npmjs"]))
    found = []
    for name in listed.stdout.decode().split("\0"):
        path = ROOT / name
        if name in {"", ".ci/run"} or not path.is_file():
            continue
        if hit := words.search(path.read_text(encoding="utf-8", errors="replace")):
            found.append(f"{name}: {hit[0]}")
    assert found == []
