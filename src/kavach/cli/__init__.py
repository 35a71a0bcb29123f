"""The `kavach` command: chooses the sub-command, and turns every failure into one line and an exit code.

Guarantees: no traceback reaches a user; Kavach's own words go to standard error after `kavach:`; what the sub-command
does not need is not imported. Does not: isolate or decide anything; the library does. May be called by: the installed
script and `kavach.__main__`. The only part of Kavach that prints, exits, and reads the process environment.

Exit codes: `run` passes on the command's own, see `kavach.cli.ending`; the others say 0 yes, 1 no, 2 wrong usage; 125
everywhere: Kavach could not.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Self

from kavach.cli.streams import StreamLost, open_missing_streams, say, say_error, write_text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

USAGE = 2
COULD_NOT = 125
BROKEN_PIPE = 141  # 128 + SIGPIPE: what a shell reports for a writer whose reader has gone

#: Sub-command -> its module and what it is for.
COMMANDS = {
    "run": ("kavach.cli.run", "run one command in a sandbox of its own"),
    "doctor": ("kavach.cli.doctor", "say what this host lacks, why, and the fix"),
    "backends": ("kavach.cli.backends", "list the walls, and which were seen to start"),
    "score": ("kavach.cli.score", "run the wall once and say what it is worth, row by row"),
    "policy": ("kavach.cli.policy", "show, check, compare and learn policies"),
    "scan": ("kavach.cli.scan", "say what the gate finds in a file"),
    "quarantine": ("kavach.cli.quarantine", "review withheld outputs: list, show, approve, reject, release"),
    "top": ("kavach.cli.top", "show this user's sandboxes and what each uses, live"),
    "report": ("kavach.cli.report", "make an HTML page of one result or one audit log"),
    "audit": ("kavach.cli.audit", "verify, show and follow an audit log; verify a receipt"),
    "bench": ("kavach.cli.bench", "time the wall beside subprocess.run and bubblewrap"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        argv: the words after the program's name; None = this process's own.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    open_missing_streams()
    with _LastWord() as last:
        last.code = _dispatch(words)
    return last.code


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in {"-h", "--help", "help"}:
        write_text(_help())
        return 0 if words else USAGE
    if words[0] in {"-V", "--version"}:
        from kavach import __version__

        write_text(f"kavach {__version__}\n")
        return 0
    if words[0] not in COMMANDS:
        say(f"there is no sub-command {words[0]!r}; expected one of {', '.join(COMMANDS)}", hint="kavach --help")
        return USAGE
    module = import_module(COMMANDS[words[0]][0])
    code: int = module.main(words[1:])
    return code


def _help() -> str:
    rows = "".join(f"  {name:<10} {words}\n" for name, (_, words) in COMMANDS.items())
    return (
        "usage: kavach COMMAND [options]\n\n"
        "Runs code that nobody trusts behind a Linux process wall, and tells how strong that wall was seen to be.\n\n"
        f"{rows}\nkavach run -- echo hello     kavach COMMAND --help     kavach --version\n"
    )


class _LastWord:
    """Ends a block with an exit code, whatever was raised in it."""

    code = COULD_NOT

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> bool:
        if error is None:
            return True
        if isinstance(error, SystemExit):  # argparse, after it has said why
            self.code = error.code if isinstance(error.code, int) else USAGE
        elif isinstance(error, KeyboardInterrupt):
            self.code = 130
        elif isinstance(error, StreamLost):
            self.code = BROKEN_PIPE if error.is_reader_gone else COULD_NOT
            if not error.is_reader_gone:
                say(str(error))
        else:
            self.code = _explain(error, at)
        return True


def _explain(error: BaseException, at: TracebackType | None) -> int:
    from kavach.errors import InternalError, KavachError

    if isinstance(error, KavachError):
        say_error(error)
        return COULD_NOT
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    place = f"{at.tb_frame.f_globals.get('__name__')}:{at.tb_lineno}" if at is not None else "an unknown place"
    # SECURITY: the exception's own text may quote output or a value; its type and place are enough for a report.
    found = InternalError(f"{type(error).__name__} at {place}")
    say_error(found)
    return COULD_NOT
