"""The groups of a policy: files, system calls, limits, Landlock; each field says what may be done.

None means unrestricted and empty means nothing allowed; they are never confused. The exceptions grant
something (`data_dir`, `python`) and say so. Enforces: nothing by itself. Does not: read a file, resolve a
name, or know a kernel. Built by `SandboxPolicy` and by profile files; validated by `validate.check`.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from msgspec import Meta

from kavach.model.paths import is_at_or_below, path_problem
from kavach.model.validate import Model

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Filesystem", "Landlock", "PathRule", "ResourceLimits", "Seccomp", "SeccompProfile"]

MIB = 1 << 20
Bytes = Annotated[int, Meta(ge=0, le=1 << 60)]
BindPort = Annotated[int, Meta(ge=0, le=65535)]  # 0 = a port the kernel picks
ConnectPort = Annotated[int, Meta(ge=1, le=65535)]


class SeccompProfile(enum.StrEnum):
    """The system-call profiles by name; `custom` stands for the ones a policy brings along."""

    BASIC = "basic"
    STRICT = "strict"
    PYTHON = "python"
    NODE = "node"
    SHELL = "shell"
    WASM = "wasm"
    EDGE = "edge"
    CUSTOM = "custom"


class PathRule(Model, frozen=True, kw_only=False, order=True):
    """One absolute path, and everything below it.

    Args:
        path: normalised: no `..`, no `.`, no `//`, no NUL.
    """

    path: str

    def problems(self) -> Iterator[tuple[str, str]]:
        """Yield what is wrong with the path."""
        found = path_problem(self.path)
        if found is not None:
            yield ".path", found

    def __str__(self) -> str:
        return self.path


class Filesystem(Model, frozen=True, kw_only=True):
    """Which files exist for the command, and what it may do with them.

    Args:
        rootfs: `host` = a read-only view of the host, or an absolute folder, or an image reference.
        view: how much of the host the view shows: `all`; `system` = programs, libraries and filtered
            settings, without homes, keys and sockets; `allow` = system libraries and interpreters only.
        read: shown beside the view, for reading.
        write: shown beside the view, for reading and changing.
        execute: shown beside the view, for reading and running.
        deny: not to be had, also below a readable parent; wins over everything else.
        read_only_rootfs: the new root itself takes no writes.
        tmp_bytes: the size of the private /tmp; None = as the memory limit allows.
        data_dir: a host folder shown writable at its own path; None = none.
        python: a Python shown read-only beside the view: `caller` = the one that runs Kavach, or the prefix
            folder of another; None = none.
    """

    rootfs: Annotated[str, Meta(min_length=1, max_length=4095)] = "host"
    view: Literal["all", "system", "allow"] = "system"
    read: tuple[PathRule, ...] = ()
    write: tuple[PathRule, ...] = ()
    execute: tuple[PathRule, ...] = ()
    deny: tuple[PathRule, ...] = ()
    read_only_rootfs: bool = False
    tmp_bytes: Annotated[int, Meta(ge=4096, le=1 << 60)] | None = None
    data_dir: str | None = None
    python: str | None = None

    def __post_init__(self) -> None:
        for name in ("read", "write", "execute", "deny"):
            msgspec.structs.force_setattr(self, name, _path_rules(getattr(self, name)))

    @property
    def rules(self) -> tuple[PathRule, ...]:
        """Every rule the caller added to the view."""
        return self.read + self.write + self.execute + self.deny

    def problems(self) -> Iterator[tuple[str, str]]:
        """Yield paths that are not absolute and normalised."""
        for name in ("data_dir", "python", "rootfs"):
            text = getattr(self, name)
            if text is None or (name, text) == ("python", "caller") or (name == "rootfs" and text[0] != "/"):
                continue
            found = path_problem(text)
            if found is not None:
                yield f".{name}", found
        if "\0" in self.rootfs:
            yield ".rootfs", "expected 'host', a folder or an image without NUL bytes"
        if self.data_dir is not None and any(is_at_or_below(self.data_dir, rule.path) for rule in self.deny):
            yield ".data_dir", "expected a folder that no deny rule covers"


class Seccomp(Model, frozen=True, kw_only=True):
    """Which system calls the command may make.

    Args:
        profiles: the names whose intersection is allowed; None = no filter. Never empty.
        custom_files: absolute paths of profile files, for `custom`; read when the policy is lowered.
        refuse_wx: no memory may be writable and executable at once (breaks just-in-time compilers).
    """

    profiles: tuple[SeccompProfile, ...] | None = (SeccompProfile.BASIC,)
    custom_files: tuple[str, ...] = ()
    refuse_wx: bool = False

    def __post_init__(self) -> None:
        force = msgspec.structs.force_setattr
        force(self, "profiles", _profiles(self.profiles))
        force(self, "custom_files", _sorted_texts(self.custom_files))

    def problems(self) -> Iterator[tuple[str, str]]:
        """Yield an empty list of profiles, and `custom` without a profile or the other way round."""
        for index, text in enumerate(self.custom_files):
            found = path_problem(text)
            if found is not None:
                yield f".custom_files[{index}]", found
        if self.profiles is not None and not self.profiles:
            yield ".profiles", "expected None (no filter) or at least one profile, got none"
        named = SeccompProfile.CUSTOM in (self.profiles or ())
        if named and not self.custom_files:
            yield ".custom_files", "expected the profile's file beside the profile 'custom', got none"
        if self.custom_files and not named:
            yield ".profiles", "expected the profile 'custom' because there are custom files"


class ResourceLimits(Model, frozen=True, kw_only=True):
    """How much the command may use; None = as much as it can.

    Args:
        memory_limit_mb: of the whole sandbox, in MiB.
        cpu_limit: cores of the whole sandbox; 0.5 is half a core.
        max_pids: processes and threads of the whole sandbox.
        file_size: bytes of one file.
        open_files: descriptors of one process.
        disk_bytes: of the private workspace.
        cpu_time_s: processor seconds of one process.
        output_bytes: kept of each of stdout and stderr; the rest is counted and dropped.
        output_action: what happens beyond that: `truncate` goes on, `kill` ends the command.
    """

    memory_limit_mb: Annotated[int, Meta(ge=1, le=1 << 24)] | None = None
    cpu_limit: Annotated[float, Meta(ge=0.01, le=4096)] | None = None
    max_pids: Annotated[int, Meta(ge=1, le=1 << 22)] | None = 1024
    file_size: Bytes | None = None
    open_files: Annotated[int, Meta(ge=8, le=1 << 20)] | None = None
    disk_bytes: Annotated[int, Meta(ge=4096, le=1 << 60)] | None = None
    cpu_time_s: Annotated[int, Meta(ge=1, le=1 << 31)] | None = None
    output_bytes: Bytes | None = MIB
    output_action: Literal["truncate", "kill"] = "truncate"


class Landlock(Model, frozen=True, kw_only=True):
    """What the command may reach of its neighbours and of TCP.

    Args:
        scope_abstract: no abstract unix socket outside the sandbox.
        scope_signal: no signal to a process outside the sandbox.
        tcp_bind_ports: ports it may listen on; None = all, empty = none.
        tcp_connect_ports: ports it may connect to; None = all, empty = none.
    """

    scope_abstract: bool = False
    scope_signal: bool = False
    tcp_bind_ports: tuple[BindPort, ...] | None = None
    tcp_connect_ports: tuple[ConnectPort, ...] | None = None

    def __post_init__(self) -> None:
        for name in ("tcp_bind_ports", "tcp_connect_ports"):
            ports = getattr(self, name)
            if isinstance(ports, list | tuple | set | frozenset):
                whole = all(type(port) is int for port in ports)
                msgspec.structs.force_setattr(self, name, tuple(sorted(set(ports)) if whole else ports))


def _path_rules(given: Any) -> Any:  # noqa: ANN401 - anything a caller may pass; `check` names what is wrong
    """Return rules sorted and without repeats, texts as rules; leave anything else for `check` to name."""
    if not isinstance(given, list | tuple | set | frozenset):
        return given
    rules = [PathRule(one) if isinstance(one, str) else one for one in given]
    if all(isinstance(rule, PathRule) and isinstance(rule.path, str) for rule in rules):
        return tuple(sorted(set(rules)))
    return tuple(rules)


def _profiles(given: Any) -> Any:  # noqa: ANN401 - as above
    if isinstance(given, str):
        given = (given,)
    if not isinstance(given, list | tuple | set | frozenset):
        return given
    known = SeccompProfile.__members__.values()
    named = [SeccompProfile(one) if isinstance(one, str) and one in known else one for one in given]
    whole = all(isinstance(one, SeccompProfile) for one in named)
    return tuple(sorted(set(named)) if whole else named)


def _sorted_texts(given: Any) -> Any:  # noqa: ANN401 - as above
    if not isinstance(given, list | tuple | set | frozenset):
        return given
    return tuple(sorted(set(given)) if all(isinstance(one, str) for one in given) else given)
