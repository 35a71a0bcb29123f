"""Profile files: a policy as TOML or JSON, laid over a preset or over another file.

Enforces: an unknown key is an error that names the nearest known one, a chain of `extends` ends, no file is
larger than a profile can be, and what comes out is a valid policy. Does not: look at the paths a profile
names, read system-call profiles, or narrow: a file may loosen what it extends, as its author says. Called by
`SandboxPolicy.from_file` and the CLI; the one part of `kavach.policy`, beside the system-call profiles, that
reads files.

A file holds `extends` (a preset, or a file beside this one; `basic` if it is not there), `description`, the
groups of a policy as tables, and `devices`, `may_lack`, `nested`. TOML has no null: the text `unrestricted`
is None.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Any

import msgspec

from kavach.errors import ConfigError
from kavach.model.policy import GROUPS, SandboxPolicy
from kavach.model.validate import check, nearest
from kavach.policy.presets import PRESETS, preset

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["UNRESTRICTED", "dump_profile", "load_profile", "read_profile_text"]

MAX_PROFILE_BYTES = 256 * 1024  # protects the caller against a file that is no profile
MAX_EXTENDS = 8  # protects against a chain that nobody can review
UNRESTRICTED = "unrestricted"
"""What stands for None in a file."""

PLAIN = ("devices", "may_lack", "nested")
_TOP = ("extends", "description", *GROUPS, *PLAIN)
#: open(2); Windows has neither flag, and no named pipe in its file system that could make an open wait.
_NO_WAIT = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)


def load_profile(path: str | os.PathLike[str]) -> SandboxPolicy:
    """Return the policy of a profile file, with everything it extends.

    Args:
        path: a `.toml` or `.json` file.

    Raises:
        ConfigError: it cannot be read, or something in it is wrong; names file and key.
        PolicyError: what it says contradicts itself.
    """
    if not isinstance(path, str | os.PathLike):
        raise ConfigError(f"expected the path of a profile file, got {type(path).__name__}")
    return _load(os.path.abspath(os.fsdecode(path)), ())


def read_profile_text(text: bytes, *, name: str, folder: str = "/") -> SandboxPolicy:
    """Return the policy that a profile's text says.

    Args:
        text: TOML, or JSON if the name ends in `.json`.
        name: how it is called in messages.
        folder: where files that it names relatively lie.

    Raises:
        ConfigError: as `load_profile`.
        PolicyError: as `load_profile`.
    """
    return _policy(_parse(text, name), name, os.path.join(folder, os.path.basename(name)), ())


def dump_profile(policy: SandboxPolicy) -> str:
    """Return a TOML profile that reads back as this policy: its preset, and what differs from it.

    Args:
        policy: a valid policy.
    """
    start = preset(policy.preset)
    lines = [f'extends = "{policy.preset}"']
    lines.extend(_changed(PLAIN, start, policy))
    for name in GROUPS:
        before, after = getattr(start, name), getattr(policy, name)
        changed = list(_changed(after.__struct_fields__, before, after))
        if changed:
            lines.extend(["", f"[{name}]", *changed])
    return "\n".join(lines) + "\n"


def _load(path: str, chain: tuple[str, ...]) -> SandboxPolicy:
    data = _read(path)
    real = os.path.realpath(path)
    if real in chain:
        raise ConfigError("extends: expected a chain that ends, got a circle", key="$.extends", source=path)
    if len(chain) >= MAX_EXTENDS:
        raise ConfigError(f"extends: expected at most {MAX_EXTENDS} files", key="$.extends", source=path)
    return _policy(_parse(data, path), path, path, (*chain, real))


def _read(path: str) -> bytes:
    try:
        data = _read_regular(path)
    except (OSError, ValueError) as error:
        what = error.strerror if isinstance(error, OSError) else "its name holds a NUL byte"
        raise ConfigError(f"the profile {path!r} cannot be read: {what}", source=path) from error
    if data is None:
        raise ConfigError(f"the profile {path!r} is not a regular file", source=path)
    if len(data) > MAX_PROFILE_BYTES:
        raise ConfigError(f"the profile is larger than {MAX_PROFILE_BYTES} bytes", source=path)
    return data


def _read_regular(path: str) -> bytes | None:
    """Return one byte more than a profile may have at most, or None for what is no regular file."""
    # SECURITY: a pipe or a device must not make a loader hang or read for ever.
    descriptor = os.open(path, os.O_RDONLY | _NO_WAIT)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(MAX_PROFILE_BYTES + 1)
    finally:
        os.close(descriptor)


def _parse(data: bytes, name: str) -> dict[str, Any]:
    document: object
    try:
        if name.endswith(".json"):
            document = msgspec.json.decode(data)
        elif name.endswith(".toml"):
            import tomllib  # its errors and UTF-8's are ValueErrors

            document = tomllib.loads(data.decode("utf-8"))
        else:
            raise ConfigError(f"expected a profile file called .toml or .json, got {name!r}", source=name)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        what = "it nests too deeply" if isinstance(error, RecursionError) else str(error)
        raise ConfigError(f"the profile does not parse: {what}", source=name) from error
    if not isinstance(document, dict):
        raise ConfigError("$: expected a table of settings", key="$", source=name)
    return document


def _policy(document: dict[str, Any], source: str, path: str, chain: tuple[str, ...]) -> SandboxPolicy:
    _require_known(document, _TOP, "$", source)
    if not isinstance(document.get("description", ""), str):
        raise ConfigError("$.description: expected str", key="$.description", source=source)
    policy = _extended(document.get("extends", "basic"), source, path, chain)
    changes: dict[str, Any] = {name: document[name] for name in PLAIN if name in document}
    for name, group in GROUPS.items():
        if name in document:
            leaves = _leaves(document[name], name, group.__struct_fields__, source, path)
            changes[name] = msgspec.structs.replace(getattr(policy, name), **leaves)
    policy = msgspec.structs.replace(policy, **changes)
    check(policy, source=source)
    return policy


def _extended(name: object, source: str, path: str, chain: tuple[str, ...]) -> SandboxPolicy:
    if not isinstance(name, str):
        raise ConfigError("$.extends: expected a preset or a file, as str", key="$.extends", source=source)
    if name.lower() in PRESETS:
        return preset(name)
    if not name.endswith((".toml", ".json")):
        raise ConfigError(
            f"$.extends: expected minimal, basic, strict or a .toml or .json file, got {name!r}",
            key="$.extends",
            source=source,
        )
    return _load(os.path.join(os.path.dirname(path), name), chain)


def _leaves(table: object, group: str, fields: tuple[str, ...], source: str, path: str) -> dict[str, Any]:
    where = f"$.{group}"
    if not isinstance(table, dict):
        raise ConfigError(f"{where}: expected a table, got {type(table).__name__}", key=where, source=source)
    known = (*fields, "profile") if group == "seccomp" else fields
    _require_known(table, known, where, source)
    leaves = {name: None if value == UNRESTRICTED else value for name, value in table.items()}
    if "profile" in leaves:
        if "profiles" in leaves:
            raise ConfigError(f"{where}: expected profile or profiles, got both", key=where, source=source)
        leaves["profiles"] = leaves.pop("profile")
    files = leaves.get("custom_files")
    if isinstance(files, list):
        folder = os.path.dirname(path)
        leaves["custom_files"] = [
            os.path.normpath(os.path.join(folder, one)) if isinstance(one, str) else one for one in files
        ]
    return leaves


def _require_known(table: dict[str, Any], known: Iterable[str], where: str, source: str) -> None:
    for key in table:
        if key not in known:
            raise ConfigError(f"{where}: there is no {key!r}{nearest(key, known)}", key=f"{where}.{key}", source=source)


def _changed(names: Iterable[str], before: object, after: object) -> Iterator[str]:
    for name in names:
        value = getattr(after, name)
        if value != getattr(before, name):
            yield f"{name} = {_toml(msgspec.to_builtins(value))}"


def _toml(value: object) -> str:
    """Return a TOML value; paths are written as their texts."""
    if value is None:
        return f'"{UNRESTRICTED}"'
    if isinstance(value, dict):
        return _toml(value["path"])
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml(one) for one in value) + "]"
    # JSON's texts, numbers and booleans are TOML's, but for DEL, which TOML wants escaped.
    return msgspec.json.encode(value).decode().replace("\x7f", "\\u007f")
