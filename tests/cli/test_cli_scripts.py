"""The blocks of scripts.txt, each run by the installed command."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from command_line import kavach

pytestmark = pytest.mark.needs("linux", "userns")
SCRIPTS = Path(__file__).with_name("scripts.txt")


@dataclass
class Script:
    title: str
    words: list[str] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)
    stdin: list[str] = field(default_factory=list)
    stdout: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    unsaid: list[str] = field(default_factory=list)
    files: dict[str, list[str]] = field(default_factory=dict)
    code: int = 0

    def take(self, sign, rest):
        if sign == "$":
            name, *self.words = shlex.split(rest)
            assert name == "kavach"
        elif sign == "=":
            name, _, value = rest.partition("=")
            self.env[name] = value
        elif sign == "@":
            name, _, line = rest.partition(": ")
            self.files.setdefault(name, []).append(line)
        elif sign == "?":
            self.code = int(rest)
        else:
            {"<": self.stdin, ">": self.stdout, "2>": self.said, "2!": self.unsaid}[sign].append(rest)


def read_scripts():
    scripts = []
    for line in SCRIPTS.read_text(encoding="utf-8").splitlines():
        sign, _, rest = line.partition(" ")
        if sign == "##":
            scripts.append(Script(rest))
        elif line and sign != "#":
            scripts[-1].take(sign, rest)
    return scripts


@pytest.mark.parametrize("script", read_scripts(), ids=lambda script: script.title.replace(" ", "_"))
def test_script_ends_as_it_says(script, tmp_path):
    for name, lines in script.files.items():
        (tmp_path / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    stdin = "".join(f"{line}\n" for line in script.stdin).encode() if script.stdin else None
    done = kavach(*script.words, stdin=stdin, cwd=tmp_path, env=script.env)
    stderr = done.stderr.decode()
    assert (done.returncode, "Traceback" in stderr) == (script.code, False), stderr
    if script.stdout == ["..."]:
        assert done.stdout
    else:
        assert done.stdout.decode().removesuffix("\n").split("\n") == (script.stdout or [""])
    assert [text for text in script.said if text not in stderr] == [], stderr
    assert [text for text in script.unsaid if text in stderr] == [], stderr


def test_no_two_scripts_have_one_title():
    titles = [script.title for script in read_scripts()]
    assert len(titles) == len(set(titles)) > 40
