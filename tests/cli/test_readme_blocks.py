"""Every ```python and ```sh block of the README is run as it stands; ```text blocks are not."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import DEADLINE_S, environment

pytestmark = pytest.mark.needs("linux", "userns")
README = Path(__file__).resolve().parents[2] / "README.md"
BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks():
    text = README.read_text(encoding="utf-8") if README.exists() else ""
    return [
        pytest.param(*found.groups(), id=f"line_{text[: found.start()].count(chr(10)) + 1}")
        for found in BLOCK.finditer(text)
    ]


@pytest.fixture
def shell_environment(tmp_path):
    """Return an environment in which `kavach` is the command under test."""
    folder = tmp_path / "bin"
    folder.mkdir()
    command = folder / "kavach"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m kavach "$@"\n')
    command.chmod(0o755)
    env = environment()
    return env | {"PATH": f"{folder}:{env['PATH']}"}


@pytest.mark.parametrize(("language", "source"), blocks())
def test_block_of_the_readme_runs(language, source, tmp_path, shell_environment):
    words = [sys.executable, "-W", "error", "-c", source] if language == "python" else ["sh", "-euc", source]
    done = subprocess.run(
        words, cwd=tmp_path, env=shell_environment, capture_output=True, timeout=DEADLINE_S, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stderr.decode()
    if "SandboxConfig.builder()" in source:
        assert done.stdout == b"exit: 0\nhello world\n\n"


def test_quick_start_of_the_readme_is_found():
    assert {block.values[0] for block in blocks()} == {"python", "sh"}
