"""Every exception that leaves Kavach is one of these, and each says what happened and what was expected.

The tree is split by who must act: the caller's text (`ConfigError`), the caller's policy (`PolicyError`),
the host (`UnsupportedError`, `BackendUnavailable`), the launch (`LaunchError`, `BackendError`), the order of
calls (`LifecycleError`), the gate (`Withheld`), the records (`AuditError`), one subsystem each, or us
(`InternalError`).

Does not: format for a terminal, log, or hold a secret. Messages and attributes carry no output bytes of a
command and no secret value; whoever raises keeps that promise (`BackendError.stderr_tail` is a runtime's own
words, never the command's, and stays out of the message).
May be imported by every module of Kavach but those of `kavach.linux`; imports nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "AttestationError",
    "AuditError",
    "BackendError",
    "BackendUnavailable",
    "ConfigError",
    "CredentialError",
    "EgressError",
    "ImageError",
    "InternalError",
    "KavachError",
    "LaunchError",
    "LifecycleError",
    "PolicyError",
    "UnsupportedError",
    "Withheld",
]


def _rebuild(cls: type[KavachError], message: str, state: dict[str, Any]) -> KavachError:
    """Return the exception that was pickled, without calling a subclass's own signature."""
    error = cls.__new__(cls, message)
    Exception.__init__(error, message)
    error.__dict__.update(state)
    return error


class KavachError(Exception):
    """What happened and what was expected, in `str()`; what a person can do about it, in `.hint`.

    Args:
        message: one sentence, without secrets and without output bytes.
        hint: the next step for a person, or None.
    """

    hint: str | None

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint

    @property
    def message(self) -> str:
        """The sentence that `str()` gives."""
        return str(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), str(self), dict(self.__dict__))


class ConfigError(KavachError):
    """The caller's text or value is wrong; nothing was run.

    Args:
        message: what was found and what was expected.
        key: the path of the value, `$.limits.memory_limit_mb`, or None.
        source: the file or entry point that held it, or None.
        hint: the next step for a person, or None.
    """

    key: str | None
    source: str | None

    def __init__(
        self, message: str, *, key: str | None = None, source: str | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.key = key
        self.source = source


class PolicyError(KavachError):
    """The policy contradicts itself, or forbids what was asked; nothing was run."""


class UnsupportedError(KavachError):
    """This host, platform or wall cannot do what was asked; nothing was run.

    Args:
        message: what was asked and why it cannot be had here.
        control: the control's name (`seccomp`, `limits`, `workdir`, ...), or None.
        needed: what the control needs ("Landlock ABI 1, Linux 5.13"), or None.
        found: what this host has ("no Landlock"), or None.
        hint: the next step for a person, or None.
    """

    control: str | None
    needed: str | None
    found: str | None

    def __init__(
        self,
        message: str,
        *,
        control: str | None = None,
        needed: str | None = None,
        found: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.control = control
        self.needed = needed
        self.found = found


class BackendUnavailable(KavachError):
    """The wall's runtime is absent, unknown, or does not work; nothing was run.

    Args:
        message: which wall, and what its probe saw.
        backend: the wall's name as it was asked for, or None.
        missing: what would have to be there, most important first.
        hint: the next step for a person, or None.
    """

    backend: str | None
    missing: tuple[str, ...]

    def __init__(
        self,
        message: str,
        *,
        backend: str | None = None,
        missing: Iterable[str] = (),
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.backend = backend
        self.missing = (missing,) if isinstance(missing, str) else tuple(missing)


class LaunchError(KavachError):
    """A step of the launch plan failed; nothing untrusted ran.

    Args:
        message: which step failed and how.
        step: the step's name in the plan, or None.
        errno: the kernel's error number, or None.
        hint: the next step for a person, or None.
    """

    step: str | None
    errno: int | None

    def __init__(
        self, message: str, *, step: str | None = None, errno: int | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.step = step
        self.errno = errno


class BackendError(KavachError):
    """An external runtime failed on its own account; its failure is never taken for the command's.

    Args:
        message: what the runtime was doing. It must not quote `stderr_tail`.
        runtime: the program's name, or None.
        exit_code: its exit code, or None.
        stderr_tail: the end of what the runtime itself said.
        hint: the next step for a person, or None.
    """

    runtime: str | None
    exit_code: int | None
    stderr_tail: str

    def __init__(
        self,
        message: str,
        *,
        runtime: str | None = None,
        exit_code: int | None = None,
        stderr_tail: str = "",
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.runtime = runtime
        self.exit_code = exit_code
        self.stderr_tail = stderr_tail


class LifecycleError(KavachError):
    """The sandbox is not in a state that allows this; its state has not changed.

    Args:
        message: what was asked and what the state allows.
        state: the state it is in, or None.
        target: the state or the act that was asked for, or None.
        hint: the next step for a person, or None.
    """

    state: str | None
    target: str | None

    def __init__(
        self, message: str, *, state: str | None = None, target: str | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.state = state
        self.target = target


class Withheld(KavachError):
    """The gate said no: the output was not released, and no byte of it is reachable from here.

    Args:
        message: why, without quoting the output.
        verdict: the gate's verdict (`quarantine`, `block`), or None.
        findings: masked findings, worst first.
        quarantine_id: where a person can review it, or None when it was destroyed.
        hint: the next step for a person, or None.
    """

    verdict: str | None
    findings: tuple[Any, ...]
    quarantine_id: str | None

    def __init__(
        self,
        message: str,
        *,
        verdict: str | None = None,
        findings: Iterable[Any] = (),
        quarantine_id: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.verdict = verdict
        self.findings = tuple(findings)
        self.quarantine_id = quarantine_id


class AuditError(KavachError):
    """A record could not be written, or does not verify; where it could not be written there is no output.

    Args:
        message: what does not hold.
        index: the number of the record, from 0, or None.
        check: the name of the check that failed, or None.
        hint: the next step for a person, or None.
    """

    index: int | None
    check: str | None

    def __init__(
        self, message: str, *, index: int | None = None, check: str | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.index = index
        self.check = check


class CredentialError(KavachError):
    """A named secret is unknown, or its source could not be read; its value is in no message."""


class EgressError(KavachError):
    """A network rule is wrong, or the proxy that enforces it could not stand."""


class ImageError(KavachError):
    """An image could not be fetched, unpacked or verified; nothing of it was used."""


class AttestationError(KavachError):
    """The evidence does not verify.

    Args:
        message: what does not hold.
        check: the name of the check that failed, or None.
        hint: the next step for a person, or None.
    """

    check: str | None

    def __init__(self, message: str, *, check: str | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.check = check


class InternalError(KavachError):
    """A defect of Kavach; the hint says how to report it.

    Args:
        message: the invariant that did not hold.
        hint: replaces the usual words on reporting.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(
            message,
            hint=hint or "a defect of Kavach: please report this message with the output of `kavach doctor --json`",
        )
