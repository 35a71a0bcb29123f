"""Texts that are run as code by a command, what shells would act on, what is installed, and weak or open keys.

Enforces: one low finding where a command does this at all, more where it is done with a text from elsewhere. Does not:
judge what an installed package holds. May be used by: kavach.gate.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from kavach.gate.code.names import names
from kavach.gate.code.wrappers import is_shell, shell_text
from kavach.model.verdict import Severity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kavach.gate.code.acts import Act, Deeds

    Hit = tuple[str, Severity, Act]

INFO, LOW, MEDIUM, HIGH, CRITICAL = Severity
_INSTALLERS = {
    "pip": "install", "pip3": "install", "pipx": "install", "uv": "add", "npm": "install i add ci", "yarn": "add",
    "pnpm": "add install i", "bun": "add install", "gem": "install", "cargo": "install", "go": "install get",
    "apt": "install", "apt-get": "install", "dnf": "install", "yum": "install", "apk": "add", "zypper": "install in",
    "brew": "install", "conda": "install", "snap": "install", "composer": "require", "cpan": "", "easy_install": "",
    "dpkg": "-i --install", "rpm": "-i -U -ivh --install", "pacman": "-S -U -Sy -Syu", "port": "install",
    "luarocks": "install",
}  # fmt: skip
_FOREIGN = re.compile(
    r"git\+|https?://|--index-url|--extra-index-url|--trusted-host|--registry|--allow-unauthenticated|--force-yes|--nogpgcheck|--allow-untrusted"
)
_WEAK = re.compile(
    r"-(?:md4|md5|sha1|des|des3|des-\w+|rc2\S*|rc4|bf\S*|aes-\d+-ecb|ecb)|md4|md5|rc4|des3?|des-\S+|aes-\d+-ecb|1des"
)
_KEY_OPTIONS = frozenset(names("-k -K -pass -passin -passout -hmac"))
_META = re.compile(r"(?:;|&&|\|\|?|\$\(|\n)\s{0,4}\w|`\s{0,4}\w[^`]*`|\$\{IFS\}")
_TAKE_PROGRAMS = frozenset(
    names(
        "awk gawk mawk sed grep egrep rg perl ruby python node jq find echo printf php lua git tldr curl expr psql"
        " sqlite3 mysql eval ssh su trap script cmd powershell pwsh"
    )
)


def has_metacharacters(word: str) -> bool:
    """Whether a shell would act on something in a word, beyond what paths, globs and URLs have."""
    return _META.search(word) is not None and not word.startswith(("http://", "https://"))


def hits_of(deeds: Deeds) -> Iterator[Hit]:
    """Yield what runs texts, installs, or holds weak or open keys.

    Args:
        deeds: what a text would do.
    """
    for act in deeds.acts:
        for group, severity in (*_runs_text(act), *_installs(act), *_keys(act)):
            yield group, severity, act


def _runs_text(act: Act) -> Iterator[tuple[str, Severity]]:
    if is_shell(act.name):
        if shell_text(act.name, act.args) is not None:
            yield "shell-invocation", LOW
            yield "shell-exec", INFO
        elif act.args[:1] and act.args[0].startswith("-") and act.has_option("-i"):
            yield "shell-invocation", LOW
    elif act.name in {"cmd", "powershell", "pwsh"} and any(
        arg.lower() in {"/c", "/k", "-c", "-command", "-enc", "-e"} for arg in act.args
    ):
        yield "shell-invocation", LOW
    elif act.name == "eval" or act.path.startswith("$(") or act.path.startswith("`"):
        yield "eval", LOW
    takes_text = is_shell(act.name) or act.name.rstrip("0123456789.") in _TAKE_PROGRAMS
    if not takes_text and any(has_metacharacters(arg) for arg in act.args):
        yield "metacharacters", LOW
    if act.name in {"nohup", "setsid", "xargs", "parallel", "at", "systemd-run"} or "find" in act.wrappers:
        yield "process-spawn", INFO


def _installs(act: Act) -> Iterator[tuple[str, Severity]]:
    verbs = _INSTALLERS.get(act.name)
    words = act.args
    if act.name.startswith(("python", "pypy")) and words[:2] == ("-m", "pip"):
        verbs, words = "install", words[2:]
    if verbs is None or (verbs and not set(names(verbs)) & set(words[:3])):
        return
    yield "package-install", MEDIUM if any(_FOREIGN.search(word) for word in words) else LOW


def _keys(act: Act) -> Iterator[tuple[str, Severity]]:
    if act.name == "openssl":
        if any(_WEAK.fullmatch(arg) for arg in act.args):
            yield "weak-hash", LOW
        pairs = list(zip(act.args, act.args[1:], strict=False))
        is_open = any(
            a in _KEY_OPTIONS and not b.startswith(("env:", "file:", "fd:", "stdin", "$", "-")) for a, b in pairs
        )
        if is_open or any(arg.startswith("pass:") and "$" not in arg for arg in act.args):
            yield "hard-coded-key", LOW
    elif act.name in {"htpasswd", "mkpasswd"} and act.has_option("-m", "-d", "-s"):
        yield "weak-hash", LOW
    elif act.name == "sshpass" and any(arg.startswith("-p") for arg in act.args):
        yield "hard-coded-key", LOW
    elif act.name == "ssh-keygen" and (
        "dsa" in act.args or ("rsa" in act.args and {"512", "768", "1024"} & set(act.args))
    ):
        yield "weak-hash", LOW
