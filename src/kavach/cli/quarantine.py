"""`kavach quarantine`: withheld outputs that wait for a person: list, show, approve, reject, release.

Guarantees: `list` and `show` print masked findings, never content; a decision names who made it and is in the audit log
before it is made; `release` writes to a private folder and never over anything. Does not: print content, ever. May be
called by: kavach.cli.
"""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING, Any

from kavach.cli.state import find_state
from kavach.cli.streams import say, write_json, write_table, write_text
from kavach.cli.words import Parser
from kavach.errors import ConfigError, KavachError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from kavach.gate.quarantine import QuarantineEntry, QuarantineStore

USAGE = 2
_STATES = ("quarantined", "approved", "released", "rejected", "deleted")
_ABOUT = {
    "list": "the withheld outputs",
    "show": "what was found in one, and who decided what",
    "approve": "let one be released",
    "reject": "delete one for good",
    "release": "write an approved one to a folder",
}
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)  # no such flag on Windows


def main(argv: Sequence[str]) -> int:
    """Do one of them; see the module.

    Raises:
        KavachError: there is no such output, it does not stand where this is possible, or a file cannot be written.
    """
    acts = {"list": _list, "show": _show, "approve": _decide, "reject": _decide, "release": _release}
    if argv and argv[0] in acts:
        return acts[argv[0]](argv[0], argv[1:])
    if argv and argv[0] in {"-h", "--help"}:
        rows = "".join(f"  {word:<8} {words}\n" for word, words in _ABOUT.items())
        write_text(f"usage: kavach quarantine {{{','.join(acts)}}} ...\n\n{rows}")
        return 0
    found = f"there is no quarantine {argv[0]!r}" if argv else "quarantine: what?"
    say(f"{found}; expected one of {', '.join(acts)}", hint="kavach quarantine --help")
    return USAGE


def _list(act: str, argv: Sequence[str]) -> int:
    parser = _parser(act, takes_id=False)
    parser.add_argument("--state", choices=_STATES, help="only those that stand here")
    parser.add_argument("--json", action="store_true", help="print one line of JSON for each")
    options = parser.parse_args(list(argv))
    with _store(decides=False) as store:
        entries = store.entries(state=options.state)
    if options.json:
        for entry in entries:
            write_json(entry)
    else:
        head = ("id", "state", "verdict", "bytes", "findings", "stored", "sandbox", "agent")
        write_table(head, map(_row, entries))
    return 0


def _row(entry: QuarantineEntry) -> tuple[object, ...]:
    return (
        entry.id,
        entry.state,
        entry.verdict,
        sum(entry.sizes.values()),
        len(entry.findings),
        entry.stored_utc,
        entry.sandbox_id,
        entry.agent_id or "-",
    )


def _show(act: str, argv: Sequence[str]) -> int:
    parser = _parser(act)
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    options = parser.parse_args(list(argv))
    with _store(decides=False) as store:
        entry = store.entry(options.id)
    if options.json:
        write_json(entry)
        return 0
    write_table(("id", "state", "verdict", "bytes", "findings", "stored", "sandbox", "agent"), [_row(entry)])
    write_table(("part", "bytes"), sorted(entry.sizes.items()))
    seen = [(one.stream, f"{one.start}-{one.end}", one.severity, one.rule, one.evidence) for one in entry.findings]
    write_table(("part", "place", "severity", "rule", "evidence"), seen)
    write_table(("became", "by", "when"), [(move.state, move.by, move.at_utc) for move in entry.moves])
    return 0


def _decide(act: str, argv: Sequence[str]) -> int:
    options = _deciding(_parser(act)).parse_args(list(argv))
    with _store(decides=True) as store:
        if act == "approve":
            store.approve(options.id, by=options.by)
        else:
            store.reject(options.id, by=options.by)
    say(f"{options.id}: {'approved' if act == 'approve' else 'rejected and deleted'} by {options.by}")
    return 0


def _release(act: str, argv: Sequence[str]) -> int:
    parser = _deciding(_parser(act))
    parser.add_argument("-o", required=True, dest="folder", metavar="DIR", help="where its parts are written")
    options = parser.parse_args(list(argv))
    with _store(decides=True) as store, _private_folder(options.folder) as folder:
        # ORDER: what would be in the way is found before the release is on record.
        _require_room(folder, options.folder, store.entry(options.id).sizes)
        parts = store.release(options.id, by=options.by)
        _write_parts(folder, options.folder, parts)
    for name, part in parts.items():
        say(f"{os.path.join(options.folder, _file_name(name))}: {len(part)} bytes")
    return 0


def _parser(act: str, *, takes_id: bool = True) -> Parser:
    about = _ABOUT[act]
    parser = Parser(f"kavach quarantine {act}", f"{about[0].upper()}{about[1:]}.")
    if takes_id:
        parser.add_argument("id", metavar="ID", help="32 hexadecimal digits, as `kavach quarantine list` prints them")
    return parser


def _deciding(parser: Parser) -> Parser:
    parser.add_argument("--by", default=_login_name(), metavar="NAME", help="who decides (default: this user)")
    return parser


def _login_name() -> str:
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"


@contextlib.contextmanager
def _store(*, decides: bool) -> Iterator[QuarantineStore]:
    state = find_state(os.environ)
    state.make()
    with contextlib.ExitStack() as stack:
        yield state.open_quarantine(stack.enter_context(state.open_log(durable=True)) if decides else None)


@contextlib.contextmanager
def _private_folder(path: str) -> Iterator[int]:
    """Open a folder, which is made where it is not there.

    Raises:
        ConfigError: it cannot be had, or others may change what is in it.
    """
    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o700)
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be made: {error.strerror}", key="-o") from None
    try:
        found = os.fstat(folder)
        if found.st_uid != os.geteuid() or found.st_mode & 0o077:
            mode = stat.S_IMODE(found.st_mode)
            raise ConfigError(f"{path}: expected a folder of this user's alone, got mode {mode:04o}", key="-o")
        yield folder
    finally:
        os.close(folder)


def _file_name(part: str) -> str:
    """Return one file's name for a part's, which may be a path."""
    flat = part.replace("%", "%25").replace("/", "%2F").replace("\0", "%00")
    return flat if flat.strip(".") else flat.replace(".", "%2E") or "%"


def _require_room(folder: int, path: str, names: Mapping[str, Any]) -> None:
    for name in map(_file_name, names):
        try:
            os.lstat(name, dir_fd=folder)
        except OSError:  # nothing of that name; a name that cannot be had is found out by whoever writes it
            continue
        raise ConfigError(f"{os.path.join(path, name)}: there already; nothing was released", key="-o")


def _write_parts(folder: int, path: str, parts: Mapping[str, bytes]) -> None:
    made: list[str] = []
    try:
        for name, part in parts.items():
            with open(os.open(_file_name(name), _NEW, 0o600, dir_fd=folder), "wb") as file:
                made.append(_file_name(name))
                file.write(part)
    except OSError as error:
        for name in made:
            os.unlink(name, dir_fd=folder)
        raise KavachError(
            f"{path}: cannot write: {error.strerror}; nothing is left there, and the release can be repeated"
        ) from None
