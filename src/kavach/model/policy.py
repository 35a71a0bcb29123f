"""What a command may do, in one frozen value: the policy that every wall lowers.

Enforces: that a policy built by keywords is valid as a whole, that a misspelt word is named, and that what is
not said is the `basic` preset's. Does not: apply anything, read a file (`from_file` hands over to
`kavach.policy.profiles`), or know what this host can do. May be used by: everybody.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import msgspec

from kavach.errors import ConfigError
from kavach.model.enforcement import Control
from kavach.model.groups import Filesystem, Landlock, PathRule, ResourceLimits, Seccomp, SeccompProfile
from kavach.model.network import NetworkPolicy
from kavach.model.paths import path_problem
from kavach.model.validate import Model, check, nearest

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator

    Paths = Iterable[str | PathRule]

__all__ = [
    "DEVICE_FAMILIES",
    "GROUPS",
    "LEAVES",
    "Filesystem",
    "Landlock",
    "NetworkPolicy",
    "PathRule",
    "ResourceLimits",
    "SandboxPolicy",
    "Seccomp",
    "SeccompProfile",
]

GROUPS: dict[str, type[Model]] = {
    "filesystem": Filesystem,
    "seccomp": Seccomp,
    "network": NetworkPolicy,
    "limits": ResourceLimits,
    "landlock": Landlock,
}
"""The groups of a policy by their keyword."""

LEAVES: dict[str, str] = {leaf: name for name, group in GROUPS.items() for leaf in group.__struct_fields__}
"""The group that each leaf keyword belongs to; the names are unique across groups, by test."""

LEAVES["profile"] = "seccomp"

DEVICE_FAMILIES = ("nvidia", "dri", "kfd", "accel")
"""Words in `devices` that stand for every node of a kind that the host has, and what its libraries read beside it."""

BASIC_MAY_LACK = ("ipc_ns", "limits", "mount_view", "pid_ns", "user_ns", "uts_ns")
"""What an unprivileged container lacks; a mount view may be missing only where Landlock holds the files."""


class _PolicyType(msgspec.StructMeta):
    """Lets `SandboxPolicy(...)` take leaf keywords and validates the whole tree that comes of them."""

    if not TYPE_CHECKING:  # type checkers read the signature that is written out in the class

        def __call__(cls, **given):  # noqa: ANN003, ANN204, N805 - a metaclass, hidden from type checkers
            start = _preset(given.pop("preset", "basic"), lambda: super(_PolicyType, cls).__call__())
            return _with(start, given)


class SandboxPolicy(Model, frozen=True, kw_only=True, metaclass=_PolicyType):
    """What a command may do; starts from a preset, `basic` unless `preset=` names another.

    Keywords are groups (`limits=ResourceLimits(...)`) or leaf names (`memory_limit_mb=256`), not both for one
    group; `profile=` is short for one seccomp profile. None means unrestricted, empty means nothing allowed.

    Args:
        preset: the preset it started from; decides the gate's default, and `strict` refuses the host's network.
        filesystem: files. seccomp: system calls. network: hosts and ports. limits: memory, processors, processes,
        sizes. landlock: scopes and TCP ports. devices: device nodes below /dev, or families of them (nvidia, dri,
        kfd, accel), that the command may use. may_lack: names of controls that may be missing without the run being
        refused; `*` = all. nested: the command may build sandboxes of its own (user namespaces are permitted).

    Raises:
        ConfigError: an unknown word, or a value of a wrong type or outside its bounds, named by its path.
        PolicyError: values that are right alone and contradict one another.
    """

    preset: Literal["minimal", "basic", "strict"] = "basic"
    filesystem: Filesystem = Filesystem()
    seccomp: Seccomp = Seccomp()
    network: NetworkPolicy = NetworkPolicy()
    limits: ResourceLimits = ResourceLimits()
    landlock: Landlock = Landlock()
    devices: tuple[str, ...] = ()
    may_lack: tuple[str, ...] = BASIC_MAY_LACK
    nested: bool = False

    if TYPE_CHECKING:

        def __init__(
            self,
            *,
            preset: str = "basic",
            filesystem: Filesystem = ...,
            seccomp: Seccomp = ...,
            network: NetworkPolicy = ...,
            limits: ResourceLimits = ...,
            landlock: Landlock = ...,
            devices: Iterable[str] = (),
            may_lack: Iterable[str] = (),
            nested: bool = False,
            rootfs: str = "host",
            view: Literal["all", "system", "allow"] = "system",
            read: Paths = (),
            write: Paths = (),
            execute: Paths = (),
            deny: Paths = (),
            read_only_rootfs: bool = False,
            tmp_bytes: int | None = None,
            data_dir: str | None = None,
            python: str | None = None,
            profile: str | None = "basic",
            profiles: Iterable[str] | None = (),
            custom_files: Iterable[str] = (),
            refuse_wx: bool = False,
            mode: Literal["none", "allow", "host"] = "none",
            rules: Iterable[str] = (),
            deny_rules: Iterable[str] = (),
            memory_limit_mb: int | None = None,
            cpu_limit: float | None = None,
            max_pids: int | None = None,
            file_size: int | None = None,
            open_files: int | None = None,
            disk_bytes: int | None = None,
            cpu_time_s: int | None = None,
            output_bytes: int | None = None,
            output_action: Literal["truncate", "kill"] = "truncate",
            scope_abstract: bool = False,
            scope_signal: bool = False,
            tcp_bind_ports: Iterable[int] | None = None,
            tcp_connect_ports: Iterable[int] | None = None,
        ) -> None: ...

    def __post_init__(self) -> None:
        for name in ("devices", "may_lack"):
            given = getattr(self, name)
            if isinstance(given, list | tuple | set | frozenset):
                texts = all(isinstance(one, str) for one in given)
                ordered = tuple(sorted({str(one) for one in given}) if texts else given)
                msgspec.structs.force_setattr(self, name, ordered)

    @classmethod
    def minimal(cls, **keywords: Any) -> SandboxPolicy:  # noqa: ANN401 - typed by the class
        """Return the preset that runs anywhere: no network, host files read-only; it may lack all of it.

        Args:
            keywords: changes, as the class takes them.
        """
        return cls(preset="minimal", **keywords)

    @classmethod
    def basic(cls, **keywords: Any) -> SandboxPolicy:  # noqa: ANN401 - typed by the class
        """Return the default: no network, no homes, keys or sockets, and a filter of dangerous system calls.

        Args:
            keywords: changes, as the class takes them.
        """
        return cls(preset="basic", **keywords)

    @classmethod
    def strict(cls, **keywords: Any) -> SandboxPolicy:  # noqa: ANN401 - typed by the class
        """Return the preset for hostile code: allow-lists, limits, scopes; it may lack only a cgroup.

        Args:
            keywords: changes, as the class takes them.
        """
        return cls(preset="strict", **keywords)

    @classmethod
    def from_preset(cls, name: str, **keywords: Any) -> SandboxPolicy:  # noqa: ANN401 - typed by the class
        """Return the preset of that name, whatever its case.

        Args:
            name: minimal, basic or strict.
            keywords: changes, as the class takes them.

        Raises:
            ConfigError: there is no such preset; names the three.
        """
        return cls(preset=name, **keywords)

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> SandboxPolicy:
        """Return the policy of a profile file, TOML or JSON, with everything it extends.

        Args:
            path: the file.

        Raises:
            ConfigError: it cannot be read, or is wrong; names file and key.
            PolicyError: what it says contradicts itself.
        """
        from kavach.policy.profiles import load_profile

        return load_profile(path)

    @classmethod
    def resolve(cls, given: SandboxPolicy | str | os.PathLike[str]) -> SandboxPolicy:
        """Return the policy that a configuration names, validated: itself, a preset, or a profile file.

        Args:
            given: a policy; a preset's name in any case; or a file, known by a `/`, `.toml` or `.json` in it.

        Raises:
            ConfigError: it is none of these, or the file is wrong.
            PolicyError: it contradicts itself.
        """
        if isinstance(given, SandboxPolicy):
            check(given, path="$.policy")
            return given
        if not isinstance(given, str) or "/" in given or given.endswith((".toml", ".json")):
            return cls.from_file(given)
        return cls.from_preset(given)

    def replace(self, **keywords: Any) -> SandboxPolicy:  # noqa: ANN401 - typed by the class
        """Return this policy with other values, validated as a whole.

        Args:
            keywords: groups or leaf names, as the class takes them.

        Raises:
            ConfigError: as the class.
            PolicyError: as the class.
        """
        if "preset" in keywords:
            raise ConfigError("preset: expected a new policy for another preset", key="$.preset")
        return _with(self, keywords)

    def problems(self) -> Iterator[tuple[str, str]]:
        """Yield names of controls that do not exist, and devices outside /dev."""
        known = [control.value for control in Control]
        for index, name in enumerate(self.may_lack):
            if name != "*" and name not in known:
                words = ", ".join(known)
                yield (
                    f".may_lack[{index}]",
                    f"no control {name!r}{nearest(name, known)}; expected * or of {words}",
                )
        for index, path in enumerate(self.devices):
            if path in DEVICE_FAMILIES:
                continue
            found = path_problem(path)
            if not path.startswith("/dev/"):
                found = f"expected a path below /dev or one of {', '.join(DEVICE_FAMILIES)}, got {path!r}"
            if found is not None:
                yield f".devices[{index}]", found

    def contradictions(self) -> Iterator[tuple[str, str]]:
        """Yield what a preset promises and the values take back."""
        if self.preset == "strict" and self.network.mode == "host":
            yield ".network.mode", "strict never has the host's network; start from basic to ask for it"
        if any(rule.path == "/" for rule in self.filesystem.deny):
            yield ".filesystem.deny", "a command cannot run where / is denied; deny what lies below it"


def _preset(name: object, basic: Any) -> SandboxPolicy:  # noqa: ANN401 - the unpatched constructor
    """Return the preset of that name; `basic` is the values the fields have by themselves."""
    if isinstance(name, str) and name.lower() == "basic":
        policy: SandboxPolicy = basic()
        return policy
    from kavach.policy.presets import preset

    return preset(name)


def _with(start: SandboxPolicy, given: dict[str, Any]) -> SandboxPolicy:
    """Return `start`, which is right, with keywords laid over it, and the whole of it checked."""
    if not given:
        return start
    whole: dict[str, Any] = {}
    leaves: dict[str, dict[str, Any]] = {}
    for word, value in given.items():
        if word in SandboxPolicy.__struct_fields__:
            whole[word] = value
        elif word in LEAVES:
            leaves.setdefault(LEAVES[word], {})["profiles" if word == "profile" else word] = value
        else:
            known = [*SandboxPolicy.__struct_fields__, *LEAVES]
            raise ConfigError(f"$: a policy has no {word!r}{nearest(word, known)}", key=f"$.{word}")
    for group, values in leaves.items():
        if group in whole:
            words = ", ".join(values)
            raise ConfigError(f"$.{group}: expected the group or {words}, got both", key=f"$.{group}")
        whole[group] = msgspec.structs.replace(getattr(start, group), **values)
    policy = msgspec.structs.replace(start, **whole)
    check(policy)
    return policy
