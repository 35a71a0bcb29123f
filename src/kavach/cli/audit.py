"""`kavach audit`: verify a log, show or follow its records, verify a receipt.

Guarantees: `verify` and `receipt verify` say yes only after every check; what `show` and `tail` print is said to be
unverified. Does not: write to a log. May be called by: kavach.cli.
Exit codes: `verify` and `receipt verify` 1 when a check does not hold.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from kavach.cli.state import find_state
from kavach.cli.streams import say, say_error, write, write_json, write_text
from kavach.cli.visible import make_visible
from kavach.cli.words import Parser, whole_number
from kavach.errors import AuditError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from kavach.audit.head import ChainHead
    from kavach.audit.reading import StoredRecord

USAGE = 2
_STDOUT = 1
_LOOK_AGAIN_S = 0.2
_MOST_RECEIPT_BYTES = 16 << 20
_COULD_NOT_CHECKS = frozenset({"open", "lock", "write"})  # no answer; every other check is a no
_ABOUT = {
    "verify": "say whether a log is what was written, or name the first record that is not",
    "show": "print records, as they stand in the files",
    "tail": "print the last records, and with -f what is added",
    "receipt": "verify or show the signed receipt of one command",
}
_RECEIPT = {
    "verify": "say whether a receipt is signed by a key",
    "show": "print what a receipt says, once its signature holds",
}


def main(argv: Sequence[str]) -> int:
    """Do one of them; see the module.

    Raises:
        KavachError: a file or a key cannot be read.
    """
    return _choose("audit", _ABOUT, {"verify": _verify, "show": _show, "tail": _tail, "receipt": _receipt}, argv)


def _receipt(argv: Sequence[str]) -> int:
    acts = {"verify": _receipt_verify, "show": _receipt_show}
    return _choose("audit receipt", _RECEIPT, acts, argv)


def _choose(name: str, about: dict[str, str], acts: dict[str, Any], argv: Sequence[str]) -> int:
    if argv and argv[0] in acts:
        code: int = acts[argv[0]](argv[1:])
        return code
    if argv and argv[0] in {"-h", "--help"}:
        rows = "".join(f"  {word:<8} {words}\n" for word, words in about.items())
        write_text(f"usage: kavach {name} {{{','.join(acts)}}} ...\n\n{rows}")
        return 0
    found = f"there is no {name} {argv[0]!r}" if argv else f"{name}: what?"
    say(f"{found}; expected one of {', '.join(acts)}", hint=f"kavach {name} --help")
    return USAGE


def _verify(argv: Sequence[str]) -> int:
    parser = _verify_parser()
    options = parser.parse_args(list(argv))
    from kavach.audit.signing import PublicKey
    from kavach.audit.verify import verify_log

    log, own_key = _log(options)
    if own_key is not None and not options.key_file and not options.key_env:
        options.key_file = [own_key]
    keys = [*_keys(options)]
    if not keys:
        parser.error("expected --key-file FILE or --key-env NAME; there is no default key")
    public = None if options.checkpoint_key is None else PublicKey.from_file(options.checkpoint_key)
    try:
        found = verify_log(
            log,
            keys,
            head=options.head,
            checkpoint_key=public,
            after=options.after,
            require_head=not options.no_head,
        )
    except AuditError as error:
        if error.check in _COULD_NOT_CHECKS:
            raise
        if options.json:
            write_json({"ok": False, "index": error.index, "check": error.check, "message": str(error)})
        else:
            say_error(error)
        return 1
    if options.json:
        write_json({"ok": True, **found._asdict(), "head": str(found.head)})
        return 0
    left = [f"{found.uncounted} after the last that the head counts"] if found.uncounted else []
    left += [f"an incomplete one of {found.torn_bytes} bytes, left by a crash"] if found.torn_bytes else []
    left += ["a missing end would not be seen: no head file"] if not found.has_head else []
    write_text(f"{log}: {found.head.records} records hold, in {found.files} files, chain {found.chain}\n")
    write_text(f"head {found.head}\n")
    for what in left:
        say(what)
    return 0


def _verify_parser() -> Parser:
    parser = Parser("kavach audit verify", "Say whether a log is what was written: 0 yes, 1 no.")
    add = parser.add_argument
    _add_log(parser)
    add("--key-file", action="append", default=[], metavar="FILE", help="a file of hex digits; once for each key")
    add("--key-env", action="append", default=[], metavar="NAME", help="a variable that holds such digits")
    add("--head", type=_place, metavar="COUNT:MAC", help="a head that was kept elsewhere, which must be passed")
    add("--after", type=_place, metavar="COUNT:MAC", help="where closed files that were moved away had ended")
    add("--checkpoint-key", metavar="PEM", help="verify the checkpoints beside the log too")
    add("--no-head", action="store_true", help="verify a copy without its head file")
    add("--json", action="store_true", help="print one line of JSON")
    return parser


def _add_log(parser: Parser) -> None:
    parser.add_argument("log", nargs="?", metavar="LOG", help="the current file of the log (default: of kavach run)")


def _log(options: argparse.Namespace) -> tuple[str, str | None]:
    """Return the log's path, and its key's where it is the one that `kavach run` keeps."""
    if options.log is not None:
        return options.log, None
    state = find_state(os.environ)
    return state.log_path, state.audit_key_path


def _place(text: str) -> ChainHead:
    from kavach.audit.head import ChainHead

    count, _, mac = text.partition(":")
    if not (count.isascii() and count.isdecimal()) or len(mac) != 64 or set(mac) - set("0123456789abcdef"):
        raise argparse.ArgumentTypeError("expected COUNT:MAC, as `kavach audit verify` prints it")
    return ChainHead(int(count), mac)


def _keys(options: argparse.Namespace) -> Iterator[bytes]:
    from kavach.audit.key import parse_key, read_key_file

    for path in options.key_file:
        yield read_key_file(path)
    for name in options.key_env:
        if name not in os.environ:
            raise AuditError(f"there is no variable {name!r}; the key is lost", check="open")
        yield parse_key(os.fsencode(os.environ[name]), f"${name}")


def _show(argv: Sequence[str]) -> int:
    parser = Parser("kavach audit show", "Print records, as they stand in the files; nothing is verified.")
    add = parser.add_argument
    _add_log(parser)
    add("--serial", type=whole_number(0, 10**15), metavar="N", help="only this record, in full")
    _add_filters(parser)
    options = parser.parse_args(list(argv))
    from kavach.audit.reading import read_records

    chosen = _chosen(read_records(_log(options)[0]), options)
    if options.serial is not None:
        chosen = (record for record in chosen if record.serial == options.serial)
    return _print(chosen, as_json=options.json or options.serial is not None)


def _tail(argv: Sequence[str]) -> int:
    parser = Parser("kavach audit tail", "Print the last records; nothing is verified.")
    add = parser.add_argument
    _add_log(parser)
    add("-n", type=whole_number(0, 100_000), default=10, metavar="N", dest="count", help="how many (default: 10)")
    add("-f", action="store_true", dest="follow", help="go on with what is added, until interrupted")
    _add_filters(parser)
    options = parser.parse_args(list(argv))
    from kavach.audit.reading import read_records

    log = _log(options)[0]
    last: deque[StoredRecord] = deque(maxlen=options.count)
    has_shown = False

    def show_and_wait() -> None:
        nonlocal has_shown
        if not has_shown:
            _print(last, as_json=options.json)
            has_shown = True
        time.sleep(_LOOK_AGAIN_S)

    for record in _chosen(read_records(log, wait=show_and_wait if options.follow else None), options):
        if has_shown:
            _print([record], as_json=options.json)
        else:
            last.append(record)
    return _print(last, as_json=options.json)


def _add_filters(parser: Parser) -> None:
    parser.add_argument("--event", metavar="E", help="only events that begin with these words: exec, exec.outcome")
    parser.add_argument("--sandbox", metavar="ID", help="only records of this sandbox")
    parser.add_argument("--agent", metavar="ID", help="only records of this agent")
    parser.add_argument("--json", action="store_true", help="print one line of JSON for each")


def _chosen(records: Iterable[StoredRecord], options: argparse.Namespace) -> Iterator[StoredRecord]:
    for record in records:
        asked = options.event
        fits = asked is None or record.event == asked or record.event.startswith(f"{asked}.")
        if options.sandbox not in {None, record.sandbox_id} or options.agent not in {None, record.agent_id}:
            fits = False
        if fits:
            yield record


def _print(records: Iterable[StoredRecord], *, as_json: bool) -> int:
    import msgspec

    if as_json:
        for record in records:
            write(_STDOUT, msgspec.json.encode(record) + b"\n")
        return 0
    write_text("".join(map(_line, records)))
    return 0


def _line(record: StoredRecord) -> str:
    import msgspec

    payload = msgspec.json.encode(record.payload).decode()
    text = f"{record.serial}\t{record.time_utc}\t{record.event}\t{record.sandbox_id or '-'}\t{payload}"
    return make_visible(text.replace("\n", " ")) + "\n"


def _receipt_verify(argv: Sequence[str]) -> int:
    opened = _open_receipt("kavach audit receipt verify", "Say whether a receipt is signed: 0 yes, 1 no.", argv)
    if opened is None:
        return 1
    said, name = opened
    predicate = said["predicate"]
    strength, ending = predicate.get("strength") or {}, predicate.get("ending") or {}
    write_text(
        f"{name}: signed by this key: sandbox {predicate.get('sandbox_id')}, {predicate.get('time_utc')}, "
        f"ended by {ending.get('reason')}, strength {strength.get('value')}\n"
    )
    return 0


def _receipt_show(argv: Sequence[str]) -> int:
    opened = _open_receipt("kavach audit receipt show", "Print what a receipt says, if its signature holds.", argv)
    if opened is None:
        return 1
    write_json(opened[0])
    return 0


def _open_receipt(name: str, about: str, argv: Sequence[str]) -> tuple[dict[str, Any], str] | None:
    parser = Parser(name, about)
    parser.add_argument("receipt", metavar="FILE", help="the exported receipt, or - for standard input")
    parser.add_argument("--key", metavar="PEM", help="the public key that must have signed it (default: kavach run's)")
    options = parser.parse_args(list(argv))
    from kavach.audit.receipt import open_receipt
    from kavach.audit.signing import PublicKey

    key = PublicKey.from_file(options.key or find_state(os.environ).public_key_path)
    try:
        return open_receipt(_read(options.receipt), key), options.receipt
    except AuditError as error:
        say_error(error)
        return None


def _read(name: str) -> bytes:
    try:
        if name == "-":
            return sys.stdin.buffer.read(_MOST_RECEIPT_BYTES)
        with open(name, "rb") as file:
            return file.read(_MOST_RECEIPT_BYTES)
    except OSError as error:
        raise ConfigError(f"{name}: cannot read: {error.strerror}", source=name) from None
