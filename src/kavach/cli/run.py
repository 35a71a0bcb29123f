"""`kavach run`: one command in a sandbox of its own, its output as it comes, its exit code.

Guarantees: the command gets neither the caller's environment nor the caller's descriptors; input is copied to it
through a pipe, never handed over; what a terminal is shown is made visible first; a reader that goes, a full disk and
a signal end the command; what cannot be recorded is not run. Does not: scan. May be called by: kavach.cli.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from typing import TYPE_CHECKING, Any

from kavach.cli.ending import exit_code, lacking, words
from kavach.cli.streams import STDERR, STDIN, STDOUT, StreamLost, is_terminal, say, write, write_json
from kavach.cli.visible import Filter
from kavach.cli.words import Parser, seconds, variable, whole_number
from kavach.errors import ConfigError, UnsupportedError, Withheld

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

    from kavach.model.policy import SandboxPolicy
    from kavach.model.result import ExecResult
    from kavach.process import Process
    from kavach.sandbox import Sandbox

GRACE_S = 1.0  # from a signal to us, passed on as SIGTERM, to SIGKILL
_CHUNK_BYTES = 1 << 16  # pipe(7): the default capacity of a pipe


class Interrupted(BaseException):
    """A signal asks this process to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def main(argv: Sequence[str]) -> int:
    """Run a command and return the exit code that says how it ended.

    Raises:
        KavachError: it could not be run.
    """
    options, command = _parser().split(argv)
    try:
        with _signals():
            return _run(options, command)
    except Interrupted as stop:
        say(f"ended by {signal.Signals(stop.number).name}, and the command with it")
        return 128 + stop.number


def add_sandbox_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how a sandbox is made."""
    add = parser.add_argument
    add("--policy", default="basic", metavar="P", help="minimal, basic (default), strict, or a profile file")
    add("--backend", default="process", metavar="B", help="the wall, or auto (default: process)")
    add("--timeout", type=seconds, default=30.0, metavar="S", help="seconds of wall clock, or none (default: 30)")
    add("--workdir", metavar="DIR", help="host folder shown at /workspace (default: a private one)")
    add("--workdir-rw", action="store_true", help="say that the folder is writable and its files bypass the gate")
    add("--env", type=variable, action="append", default=[], metavar="NAME=VALUE", help="add a variable")
    add(
        "--secret",
        action="append",
        default=[],
        metavar="NAME=SOURCE@TARGET",
        help="inject a secret: env:VAR, file:PATH or cmd:WORDS @ env:VAR, file:PATH, fd:N or stdin",
    )
    add(
        "--net",
        action="append",
        default=[],
        metavar="HOST:PORT",
        help="allow one destination (refused in this version)",
    )


def sandbox_fields(options: argparse.Namespace) -> dict[str, Any]:
    """Return those options as the fields of a `SandboxConfig`.

    Raises:
        KavachError: one of them is wrong, or cannot be had.
    """
    from kavach.credentials import CredentialProxy, parse_secret
    from kavach.model.policy import SandboxPolicy

    policy = SandboxPolicy.resolve(options.policy)
    if options.net:
        policy = policy.replace(mode="allow", rules=tuple(options.net))
        raise UnsupportedError(
            "--net: named destinations need the egress proxy, which this version does not have; nothing was run",
            control="egress",
            needed="the egress proxy",
            found="no egress proxy in this version",
            hint="a policy with network.mode = 'none' or 'host'",
        )
    fields: dict[str, Any] = {
        "backend": options.backend,
        "policy": policy,
        "timeout_ms": None if options.timeout is None else max(1, round(options.timeout * 1000)),
        "env": dict(options.env),
    }
    if options.workdir is not None:
        folder = os.path.realpath(options.workdir)
        if not os.path.isdir(folder):
            raise ConfigError(f"--workdir: expected a folder, got {options.workdir!r}", key="--workdir")
        fields |= {"workdir": folder, "workdir_rw": options.workdir_rw}
    if options.secret:
        fields["secrets"] = tuple(parse_secret(text) for text in options.secret)
        fields["credentials"] = CredentialProxy(environ=os.environ)
    return fields


def _parser() -> Parser:
    parser = Parser("kavach run", "Run one command in a sandbox of its own and pass its exit code on.", command=True)
    add_sandbox_options(parser)
    add = parser.add_argument
    add("--min-score", type=whole_number(0, 100), metavar="N", help="refuse to run below it, on observed strength")
    add("--json", action="store_true", help="print the result as one line of JSON instead of the output")
    add("--receipt", metavar="FILE", help="write the signed receipt to a new file")
    add("--no-record", action="store_true", help="keep no audit record and no withheld output")
    add("--why", action="store_true", help="watch what is refused and name it on standard error")
    add("--raw", action="store_true", help="pass control characters on to a terminal (dangerous)")
    add("--no-stdin", action="store_true", help="give the command no input, whatever standard input is")
    add("--tty", action="store_true", help="a terminal inside (refused in this version)")
    return parser


def _refuse(options: argparse.Namespace) -> None:
    """Refuse what cannot be had, before anything is made."""
    if options.tty:
        raise UnsupportedError(
            "--tty: a terminal inside the sandbox is not part of this version; nothing was run",
            control="tty",
            hint="without --tty the command reads a pipe or nothing, and never the caller's terminal",
        )
    if options.receipt is None:
        return
    if options.no_record:
        raise ConfigError("--receipt: expected a run on record, got --no-record", key="--receipt")
    if os.path.lexists(options.receipt):
        raise ConfigError(f"--receipt: {options.receipt} is there already; nothing was run", key="--receipt")


def _run(options: argparse.Namespace, command: list[str]) -> int:
    from kavach.sandbox import Sandbox

    _refuse(options)
    fields = sandbox_fields(options)
    with (
        _recorded(options, fields["policy"]) as records,
        Sandbox(**fields, **records, min_score=options.min_score, why=options.why) as sandbox,
    ):
        if sandbox.config.backend == "noop":
            result = sandbox.exec(command)
        else:
            process = sandbox.spawn(command)
            result = _attend(sandbox, process, options)
        if options.receipt is not None and result.receipt is not None:
            _write_new(options.receipt, result.receipt.export() + b"\n")
        if options.json:
            write_json(result.to_dict())
        else:
            for line in words(result, sandbox.policy, sandbox.config.timeout_ms):
                say(line)
            for denial in result.denials:
                say(f"denied: {denial.sentence}")
        return exit_code(result)


def _recorded(options: argparse.Namespace, policy: SandboxPolicy) -> contextlib.AbstractContextManager[dict[str, Any]]:
    """Return what lets the run be recorded: nothing where the user wants no record, or nothing will run."""
    from kavach.backends import require_platform

    if options.no_record or options.backend.lower() == "noop":
        return contextlib.nullcontext({})
    require_platform()
    from kavach.cli.state import open_records
    from kavach.model.verdict import ExternalizationPolicy

    # A record that is lost in a power cut must not have let anything out where the gate enforces.
    durable = ExternalizationPolicy.for_preset(policy.preset).mode == "enforce"
    return _told(open_records(os.environ, signed=options.json or options.receipt is not None, durable=durable))


@contextlib.contextmanager
def _told(opened: contextlib.AbstractContextManager[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the fields of a run that is on record, and that `kavach top` shows while it lasts."""
    from kavach.cli.status import told_bus

    # What lasts as long as a run has its place below XDG_RUNTIME_DIR; without one, nothing is left in a lasting folder.
    if not os.path.isabs(os.environ.get("XDG_RUNTIME_DIR", "")):
        with opened as records:
            yield records
        return
    with opened as records, told_bus(os.environ) as bus:
        yield {**records, "events": bus}


def _write_new(path: str, content: bytes) -> None:
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644), "wb") as file:
            file.write(content)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}", source=path) from None


def _attend(sandbox: Sandbox, process: Process, options: argparse.Namespace) -> ExecResult:
    """Copy input in and output out until the command has ended; whatever stops the copying ends the command."""
    screen = Screen(raw=options.raw, shown=not options.json)
    if not options.json and sandbox.enforcement is not None and (line := lacking(sandbox.enforcement)):
        say(line)
    _feed(process, wanted=not options.no_stdin and not is_terminal(STDIN))
    try:
        with contextlib.suppress(Withheld):  # the result says so
            screen.copy(process)
        result = process.wait()
        screen.finish(result)
        return result
    except Interrupted:
        process.terminate(grace_s=GRACE_S)
        with contextlib.suppress(StreamLost, Withheld):
            screen.copy(process)
        raise
    except StreamLost:
        process.kill()
        process.wait()
        raise


class Screen:
    """Where the command's output goes: our own streams, made visible where one is a terminal.

    Args:
        raw: control characters reach the terminal.
        shown: False drops everything; the result holds it.
    """

    def __init__(self, *, raw: bool, shown: bool) -> None:
        self._filters = {handle: Filter() for handle in (STDOUT, STDERR) if not raw and is_terminal(handle)}
        self._shown = shown
        self._errors_seen = 0

    def copy(self, process: Process) -> None:
        """Write output as it comes, until the command has ended.

        Raises:
            StreamLost: one of our streams takes no more.
        """
        for chunk in process.stream():
            is_error = chunk.stream == "stderr"
            self._errors_seen += len(chunk) if is_error else 0
            self._write(STDERR if is_error else STDOUT, chunk)

    def finish(self, result: ExecResult) -> None:
        """Write what was added after the stream (why a program could not be started), and what a filter holds back."""
        self._write(STDERR, result.stderr_bytes[self._errors_seen :])
        for handle in self._filters:
            self._write(handle, b"", final=True)

    def _write(self, handle: int, content: bytes, *, final: bool = False) -> None:
        if handle in self._filters:
            content = self._filters[handle].feed(content, final=final)
        if self._shown and content:
            write(handle, content)


def _feed(process: Process, *, wanted: bool) -> None:
    """Copy our standard input to the command's, in a thread that nobody waits for."""
    if not wanted:
        process.close_stdin()
        return
    # SECURITY: copied, never handed over: a folder or a writable file as descriptor 0 would be a door to the host.
    threading.Thread(target=_copy_input, args=(process,), name="kavach-stdin", daemon=True).start()


def _copy_input(process: Process) -> None:
    with contextlib.suppress(OSError, ConfigError):  # the command no longer reads; or ours is a folder
        while content := os.read(STDIN, _CHUNK_BYTES):
            process.stdin.write(content)
    process.close_stdin()


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """Let SIGINT, SIGTERM and SIGHUP raise `Interrupted`, but not where the caller had them ignored."""
    # Not every platform has SIGHUP, and there too a refusal must be heard.
    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers if signal.getsignal(number) != signal.SIG_IGN}
    for number in before:
        signal.signal(number, _interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(number: int, frame: object) -> None:
    del frame
    raise Interrupted(number)
