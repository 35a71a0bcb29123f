"""`run`: one command, a sandbox of its own, nothing left behind.

Guarantees: those of kavach.sandbox. Does not: keep the sandbox. May be called by: users, kavach.cli.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kavach.model.given import UNSET, Unset
from kavach.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kavach.model.command import Argv
    from kavach.model.result import ExecResult


def run(
    argv: Argv,
    *,
    stdin: bytes | str | None = None,
    cwd: str | None = None,
    env: Mapping[str, str] | None = None,
    timeout_s: float | Unset | None = UNSET,
    **fields: Any,  # noqa: ANN401 - typed by SandboxConfig
) -> ExecResult:
    """Run one command in a sandbox of its own, and leave nothing behind.

    Args:
        argv: program and arguments; a str is split as a POSIX shell would, and not run by one.
        stdin: all it can read; None = nothing.
        cwd: absolute, inside; default: the workspace.
        env: added to a clean environment.
        timeout_s: wall clock; None = no limit; default 30.
        fields: the fields of `SandboxConfig`.

    Raises:
        KavachError: as for `Sandbox` and `Sandbox.exec`.
    """
    with Sandbox(**fields) as sandbox:
        return sandbox.exec(argv, stdin=stdin, cwd=cwd, env=env, timeout_s=timeout_s)
