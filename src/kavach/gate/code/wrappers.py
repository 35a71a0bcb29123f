"""Programs that start other programs: where the command of the inner one begins.

Enforces: `sudo -u bob nice -n 5 sh -c '..'` is known as sudo, nice and sh, and as what stands in the quotes. Does not:
know every option of every program; a word that might be an option's value may be taken for a program, never the other
way round for the wrappers listed. May be used by: kavach.gate.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from kavach.gate.code.syntax import TooDeep

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MAX_WRAPPED = 16
"""So many programs may start one another in one command; each of them is looked at with all the words behind it."""
SHELLS = frozenset(["sh", "bash", "dash", "zsh", "ksh", "mksh", "ash", "fish", "rbash", "tcsh", "csh", "{shell}"])
"""Programs that read the shell's language; the last is how templates of commands write it."""
_INTERPRETER = re.compile(
    r"(?:python|pypy|perl|ruby|php|node|nodejs|lua|luajit|deno|bun|osascript|pwsh|powershell)[\d.]*"
)
_ASSIGNED = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")


class _Wrapper(NamedTuple):
    values: frozenset[str]  # options whose next word is a value
    words: int = 0  # how many words of its own stand before the command


def _wrapper(values: str = "", words: int = 0) -> _Wrapper:
    return _Wrapper(frozenset(values.split()), words)


_WRAPPERS = {
    "sudo": _wrapper("-u -g -h -p -C -r -t -T -U -D -R --user --group --host --prompt --chdir"),
    "doas": _wrapper("-u -C"),
    "pkexec": _wrapper("--user"),
    "runuser": _wrapper("-u -g -G"),
    "env": _wrapper("-u -C --unset --chdir"),
    "nohup": _wrapper(),
    "nice": _wrapper("-n --adjustment"),
    "ionice": _wrapper("-c -n -p --class --classdata"),
    "timeout": _wrapper("-s -k --signal --kill-after", 1),
    "time": _wrapper("-f -o --format --output"),
    "stdbuf": _wrapper("-i -o -e"),
    "setsid": _wrapper(),
    "xargs": _wrapper("-I -n -P -d -L -s -a -E --max-args --max-procs --delimiter --arg-file"),
    "parallel": _wrapper("-j --jobs -a"),
    "busybox": _wrapper(),
    "toybox": _wrapper(),
    "exec": _wrapper("-a"),
    "command": _wrapper(),
    "builtin": _wrapper(),
    "chroot": _wrapper("", 1),
    "unshare": _wrapper("-S -G --setuid --setgid --map-users --map-groups"),
    "nsenter": _wrapper("-t -S -G --target --setuid --setgid"),
    "setarch": _wrapper("", 1),
    "flock": _wrapper("-w -E --timeout", 1),
    "strace": _wrapper("-e -o -s -p -u -P"),
    "ltrace": _wrapper("-e -o -s -p -u"),
    "watch": _wrapper("-n --interval"),
    "proxychains": _wrapper("-f"),
    "proxychains4": _wrapper("-f"),
    "torsocks": _wrapper(),
    "torify": _wrapper(),
    "systemd-run": _wrapper("-u -p --unit --property --uid --gid"),
    "trap": _wrapper(),
    "caffeinate": _wrapper(),
    "unbuffer": _wrapper(),
    "winpty": _wrapper(),
}
"""Programs whose last words are a command."""


def program_name(path: str) -> str:
    """Return a program's name as the rules have it: the file's name in lower case, without `.exe`.

    Args:
        path: the first word of a command.
    """
    name = path.replace("\\", "/").rstrip("/").rpartition("/")[2].lower()
    return name.removesuffix(".exe")


def is_shell(name: str) -> bool:
    """Whether a program reads the shell's language."""
    return name in SHELLS


def is_interpreter(name: str) -> bool:
    """Whether a program runs what it reads: a shell or a language."""
    return is_shell(name) or _INTERPRETER.fullmatch(name) is not None


def unwrap(words: Sequence[str]) -> Iterator[tuple[list[str], str | None]]:
    """Yield a command and then each command that it starts; beside it the text that it hands to a shell, or None.

    Args:
        words: a command's words.

    Raises:
        TooDeep: more than `MAX_WRAPPED` programs start one another.
    """
    rest = list(words)
    for _ in range(MAX_WRAPPED):
        if not rest:
            return
        name = program_name(rest[0])
        yield rest, shell_text(name, rest[1:])
        *found, rest = [*_started(name, rest)] or [[]]
        for more in found:
            yield from unwrap(more)
    if rest:
        raise TooDeep


def _started(name: str, words: list[str]) -> Iterator[list[str]]:
    """Yield the commands that a command starts by its own words."""
    wrapper = _WRAPPERS.get(name)
    if wrapper is not None:
        yield _behind_options(words[1:], wrapper)
    elif name == "find":
        at = 0
        while at < len(words):
            if words[at] in {"-exec", "-execdir", "-ok", "-okdir"}:
                stop = next((n for n in range(at, len(words)) if words[n] in {";", "+"}), len(words))
                yield words[at + 1 : stop]
                at = stop
            at += 1
    elif name in {"docker", "podman", "kubectl", "oc", "lxc", "crictl"} and {"exec", "run"} & set(words):
        shells = [n for n, word in enumerate(words) if n and is_shell(program_name(word)) and "=" not in word]
        at = words.index("--") + 1 if "--" in words else (shells[0] if shells else len(words))
        yield words[at:]


def _behind_options(words: list[str], wrapper: _Wrapper) -> list[str]:
    at, own = 0, wrapper.words
    while at < len(words):
        word = words[at]
        if word == "--":
            at += 1
            break
        if word in wrapper.values:
            at += 2
        elif (word.startswith("-") and len(word) > 1) or _ASSIGNED.match(word):
            at += 1
        elif own:
            own -= 1
            at += 1
        else:
            break
    return words[at:]


def shell_text(name: str, args: Sequence[str]) -> str | None:
    """Return the text that a command hands to a shell, or None.

    Args:
        name: its program's name.
        args: its arguments.
    """
    if name in SHELLS:
        return _after_c(args)
    if name in {"su", "script", "runuser"}:
        return next((args[n + 1] for n, arg in enumerate(args[:-1]) if arg in {"-c", "--command", "-qc"}), None)
    if name == "eval":
        return " ".join(args)
    if name == "trap" and args:
        return args[0]
    if name == "ssh":
        hosts = [n for n, arg in enumerate(args) if not arg.startswith("-") and args[n - 1 : n] not in _SSH_VALUES]
        return " ".join(args[hosts[0] + 1 :]) if hosts and hosts[0] + 1 < len(args) else None
    if name == "sqlite3":
        return next((arg.partition(" ")[2] for arg in args if arg.startswith((".shell ", ".system "))), None)
    return None


_SSH_VALUES = [
    [option] for option in ("-p", "-i", "-l", "-o", "-F", "-J", "-L", "-R", "-D", "-E", "-W", "-b", "-c", "-m")
]


def _after_c(args: Sequence[str]) -> str | None:
    for number, arg in enumerate(args):
        if arg[:1] == "-" and arg[1:].isalpha() and "c" in arg:
            return next((text for text in args[number + 1 :] if not text.startswith("-")), None)
        if not arg.startswith(("-", "+")):
            return None
    return None
