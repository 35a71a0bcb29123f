"""One escape case: an act, what the wall must answer, and where the same act is shown to work without the wall."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from typing import NamedTuple

HOST = "host"  # a bare process of the caller; only for acts that harm nothing
JAIL = "jail"  # throw-away namespaces; a plain user gets them with a user namespace of its own
ROOT = "root"  # throw-away namespaces made by real root; without root the control is skipped, and says so


class Case(NamedTuple):
    """An act in Python.

    Args:
        name: what holds, as a sentence; the test's id.
        inside: what the wall may answer: names of errnos, `HELD`, `exit N` or `signal N`; `|` between them.
        act: a function's body: returning means that the act worked; `held()` and OSError mean that it did not.
        control: where it is shown to work.
        outside: what the control may answer: `OK`, or the kernel's own word about deliberately wrong arguments.
        alone: it disturbs others, and gets a process tree of its own on both sides.
    """

    name: str
    inside: str
    act: str
    control: str = HOST
    outside: str = "OK"
    alone: bool = False


def load_cases() -> list[Case]:
    """Return the cases of every `acts_*` module beside this one."""
    folder = str(Path(__file__).parent)
    names = sorted(found.name for found in pkgutil.iter_modules([folder]) if found.name.startswith("acts_"))
    return [case for name in names for case in importlib.import_module(name).CASES]


def sample(cases: list[Case]) -> list[Case]:
    """Return every fourth case, for what is too slow for all."""
    return cases[::4]
