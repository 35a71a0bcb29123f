"""References -> sealed memfds that the launcher puts in place, all of them or none.

Enforces: one value one sealed descriptor, one target one secret, and values that fit where they go. Does not:
touch the sandbox. May be called by: `sandbox`, `aio`, `pool`.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Literal, NoReturn, Self

import msgspec

from kavach.errors import ConfigError, CredentialError, UnsupportedError
from kavach.model.secret import EnvVar, Fd, File, SecretRef, Source, Target
from kavach.model.validate import check

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

    from kavach.credentials.proxy import CredentialProxy
    from kavach.credentials.value import SecretValue

__all__ = ["Delivery", "Injection", "deliver"]

MAX_VARIABLE_BYTES = 131_072  # MAX_ARG_STRLEN, linux/binfmts.h, Linux 2.6.23: `NAME=value` and its NUL

Kind = Literal["env", "file", "stdin", "fd"]


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """One value on its way: where it goes inside, and the sealed memfd that holds it.

    Args:
        name: the secret's name.
        kind: `env`, `file`, `stdin` or `fd`.
        target: the variable's name, the path inside, or the descriptor inside (0 for stdin).
        mode: permission bits of a file, 0 for everything else.
        fd: a descriptor of this process at offset 0; it belongs to the `Injection`.
    """

    name: str
    kind: Kind
    target: str | int
    mode: int
    fd: int


class Injection:
    """The values of one run: closing it closes every descriptor and wipes every value.

    `values` is what the gate searches the output for; it is empty after `close`.
    """

    __slots__ = ("_deliveries", "_values")

    def __init__(self, deliveries: list[Delivery], values: list[tuple[str, SecretValue]]) -> None:
        self._deliveries = deliveries
        self._values = values

    @property
    def deliveries(self) -> tuple[Delivery, ...]:
        """One row for each reference, in their order."""
        return tuple(self._deliveries)

    @property
    def values(self) -> tuple[tuple[str, SecretValue], ...]:
        """Every injected value, once, with its name."""
        return tuple(self._values)

    def close(self) -> None:
        """Close the descriptors and wipe the values; closing twice is allowed."""
        while self._deliveries:
            os.close(self._deliveries.pop().fd)
        while self._values:
            self._values.pop()[1].wipe()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Injection({[(row.name, row.kind, row.target) for row in self._deliveries]})"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise CredentialError("an injection belongs to one run and can be neither copied nor pickled")


def deliver(refs: Iterable[SecretRef], proxy: CredentialProxy) -> Injection:
    """Return every referenced value in a sealed memfd of its own, or nothing at all.

    Args:
        refs: what goes where. A name without a source is looked up in `proxy`.
        proxy: the registered names, and the environment for `FromEnv`.

    Returns:
        A context manager that owns the descriptors; close it after the gate has read the output.

    Raises:
        ConfigError: a reference has a wrong shape.
        CredentialError: a name is unknown, a source gave no value, a value does not fit its target, or two
            secrets want one target.
        UnsupportedError: this host has no memfd.

    Fails closed: on any error every descriptor is closed, and every value that was read is wiped.
    """
    wanted = _checked(refs)
    _refuse_collisions(wanted)
    deliveries: list[Delivery] = []
    read: dict[tuple[str, Source | None], SecretValue] = {}
    values: list[tuple[str, SecretValue]] = []
    with contextlib.ExitStack() as undo:
        injection = undo.enter_context(Injection(deliveries, values))
        for ref in wanted:
            key = (ref.name, ref.source)
            if key not in read:  # a command or a keyring that asks a person asks once a run
                read[key] = proxy.read(ref.name, ref.source) if ref.source else proxy.resolve(ref.name)
                values.append((ref.name, read[key]))
            kind, target, mode = _place(ref, read[key])
            fd = _sealed(read[key])
            deliveries.append(Delivery(name=ref.name, kind=kind, target=target, mode=mode, fd=fd))
        undo.pop_all()
    return injection


def _checked(refs: Iterable[SecretRef]) -> tuple[SecretRef, ...]:
    wanted = tuple(refs)
    for index, ref in enumerate(wanted):
        if not isinstance(ref, SecretRef):
            path = f"$.secrets[{index}]"
            raise ConfigError(f"{path}: expected SecretRef, got {type(ref).__name__}", key=path)
        check(ref, path=f"$.secrets[{index}]")
    return wanted


def _refuse_collisions(refs: tuple[SecretRef, ...]) -> None:
    taken: dict[str, str] = {}
    for ref in refs:
        words = _words(ref.inject_via)
        for other, name in taken.items():
            # A file cannot be where another one needs a folder.
            if words == other or f"{words}/".startswith(f"{other}/") or f"{other}/".startswith(f"{words}/"):
                raise CredentialError(
                    f"the secrets {name!r} and {ref.name!r} both want {words}",
                    hint="give each its own target",
                )
        taken[words] = ref.name


def _words(target: Target) -> str:
    match target:
        case EnvVar():
            return f"the variable {target.var_name}"
        case File():
            return f"the file {target.path}"
        case Fd():
            return f"the descriptor {target.number}"
        case _:
            return "the standard input"


def _place(ref: SecretRef, value: SecretValue) -> tuple[Kind, str | int, int]:
    """Return kind, target and mode of a delivery whose value fits there."""
    match ref.inject_via:
        case EnvVar(var_name=variable):
            if len(variable) + value.size_bytes + 2 > MAX_VARIABLE_BYTES:
                raise CredentialError(
                    f"the secret {ref.name!r} has {value.size_bytes} bytes, too many for a variable",
                    hint="inject it as a File",
                )
            if value.has_nul():
                raise CredentialError(
                    f"the secret {ref.name!r} holds a NUL byte, which no variable can hold",
                    hint="inject it as a File, Stdin or Fd",
                )
            return "env", variable, 0
        case File(path=path, mode=mode):
            return "file", path, mode
        case Fd(number=number):
            return "fd", number, 0
        case _:
            return "stdin", 0, 0


def _sealed(value: SecretValue) -> int:
    """Return a descriptor at offset 0 of memory that holds the value and that nobody can change any more."""
    if not hasattr(os, "memfd_create"):
        raise UnsupportedError(
            "secrets are delivered in sealed memory, which this platform lacks",
            control="secrets",
            needed="memfd_create, Linux 3.17",
            found=os.name,
        )
    from kavach.linux import memory

    try:
        with contextlib.ExitStack() as undo:
            fd = memory.create_memory("secret")
            undo.callback(os.close, fd)
            value.write_to(fd)
            os.lseek(fd, 0, os.SEEK_SET)
            # SECURITY: whoever receives the descriptor can read it and nothing else.
            memory.seal(fd)
            undo.pop_all()
    except OSError as error:
        raise CredentialError(f"no sealed memory for a secret: {error.strerror}") from error
    return fd
