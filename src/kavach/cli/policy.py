"""`kavach policy`: show one in full, check a file, compare two, print the schema, learn the smallest for a program.

Guarantees: what `show` and `learn` print is a profile that `check` accepts. Does not: decide what is wise. May be
called by: kavach.cli.
Exit codes: `check` 1 when the file is no valid policy, `learn` 1 when no policy lets the program pass.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from kavach.cli.streams import Progress, say, say_error, write_json, write_text
from kavach.cli.words import Parser, seconds, variable
from kavach.errors import ConfigError, PolicyError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kavach.model.policy import SandboxPolicy

USAGE = 2
_ABOUT = {
    "show": "print a policy in full, as a profile",
    "check": "say whether a file is a valid profile",
    "diff": "say what differs between two policies, and what it does to the strength",
    "schema": "print the JSON Schema of profile files",
    "learn": "run a program under observation and propose the smallest policy that lets it pass",
}


def main(argv: Sequence[str]) -> int:
    """Do one of them; see the module.

    Raises:
        KavachError: a policy cannot be read, or the wall does not stand.
    """
    acts = {"show": _show, "check": _check, "diff": _diff, "schema": _schema, "learn": _learn}
    if argv and argv[0] in acts:
        return acts[argv[0]](argv[1:])
    if argv and argv[0] in {"-h", "--help"}:
        rows = "".join(f"  {name:<7} {words}\n" for name, words in _ABOUT.items())
        write_text(f"usage: kavach policy {{{','.join(acts)}}} ...\n\n{rows}")
        return 0
    found = f"there is no policy {argv[0]!r}" if argv else "policy: what?"
    say(f"{found}; expected one of {', '.join(acts)}", hint="kavach policy --help")
    return USAGE


def _show(argv: Sequence[str]) -> int:
    parser = Parser("kavach policy show", "Print a policy in full, as a profile that says every value.")
    parser.add_argument("policy", metavar="P", help="minimal, basic, strict, or a profile file")
    parser.add_argument("--json", action="store_true", help="print it as one line of JSON")
    options = parser.parse_args(argv)
    from kavach.model.policy import SandboxPolicy

    policy = SandboxPolicy.resolve(options.policy)
    if options.json:
        write_json(_document(policy))
    else:
        write_text("".join(_profile(policy)))
    return 0


def _document(policy: SandboxPolicy) -> dict[str, Any]:
    """Return every leaf as a profile holds it: paths as texts, `unrestricted` for None."""
    import msgspec

    plain: dict[str, Any] = msgspec.to_builtins(policy)
    return {"extends": plain.pop("preset"), **{name: _written(value) for name, value in plain.items()}}


def _written(value: Any) -> Any:  # noqa: ANN401 - JSON
    from kavach.policy.profiles import UNRESTRICTED

    if value is None:
        return UNRESTRICTED
    if isinstance(value, dict):
        return value["path"] if "path" in value else {name: _written(one) for name, one in value.items()}
    return [_written(one) for one in value] if isinstance(value, list | tuple) else value


def _profile(policy: SandboxPolicy) -> Iterator[str]:
    """Yield the lines of a TOML profile: the values first, the tables after them."""
    document = _document(policy)
    yield from (f"{name} = {_toml(value)}\n" for name, value in document.items() if not isinstance(value, dict))
    for group, leaves in document.items():
        if isinstance(leaves, dict):
            yield f"\n[{group}]\n"
            yield from (f"{name} = {_toml(value)}\n" for name, value in leaves.items())


def _toml(value: object) -> str:
    """Return a TOML value: JSON's texts, numbers, booleans and lists are TOML's, but for DEL."""
    import msgspec

    return msgspec.json.format(msgspec.json.encode(value), indent=-1).decode().replace("\x7f", "\\u007f")


def _check(argv: Sequence[str]) -> int:
    parser = Parser("kavach policy check", "Say whether a file is a valid profile: 0 yes, 1 no.")
    parser.add_argument("file", metavar="FILE", help="a .toml or .json profile")
    options = parser.parse_args(argv)
    from kavach.policy.profiles import load_profile
    from kavach.policy.strength import score_backend

    if not os.path.exists(options.file):
        raise ConfigError(f"{options.file}: there is no such file; expected a .toml or .json profile")
    try:
        policy = load_profile(options.file)
    except (ConfigError, PolicyError) as error:
        say_error(error)
        return 1
    write_text(f"{options.file}: valid, based on {policy.preset}, asks for {score_backend('process', policy)}\n")
    return 0


def _diff(argv: Sequence[str]) -> int:
    parser = Parser("kavach policy diff", "Say what differs between two policies, and what it does to the strength.")
    parser.add_argument("before", metavar="A", help="minimal, basic, strict, or a profile file")
    parser.add_argument("after", metavar="B", help="likewise")
    parser.add_argument("--backend", default="process", metavar="W", help="the wall whose strength is compared")
    parser.add_argument("--json", action="store_true", help="print it as one line of JSON")
    options = parser.parse_args(argv)
    from kavach.model.policy import SandboxPolicy
    from kavach.policy.difference import compare

    found = compare(
        SandboxPolicy.resolve(options.before), SandboxPolicy.resolve(options.after), backend=options.backend
    )
    if options.json:
        changes = [{"key": one.key, "before": one.before, "after": one.after} for one in found.changes]
        scores = {"score_before": int(found.score_before), "score_after": int(found.score_after)}
        write_json({"schema": "kavach.policy_diff/1", "changes": changes, **scores, "score_change": found.score_change})
        return 0
    write_text("".join(f"{change}\n" for change in found.changes) or "no difference\n")
    write_text(f"requested strength: {found.score_before} -> {found.score_after} ({found.score_change:+d})\n")
    return 0


def _schema(argv: Sequence[str]) -> int:
    Parser("kavach policy schema", "Print the JSON Schema of profile files.").parse_args(argv)
    from kavach.policy.schema import profile_schema

    write_json(profile_schema())
    return 0


def _learn(argv: Sequence[str]) -> int:
    options, command = _learn_parser().split(argv)
    from kavach.learning import learn

    fields: dict[str, Any] = {"timeout_ms": None if options.timeout is None else round(options.timeout * 1000)}
    if options.workdir is not None:
        fields |= {"workdir": os.path.realpath(options.workdir), "workdir_rw": True}
    progress = Progress()
    progress("running the program, once for each round of refusals")
    found = learn(
        command,
        policy=options.policy,
        writable=[os.path.realpath(one) for one in options.writable],
        network=options.network,
        env=dict(options.env),
        **fields,
    )
    progress("")
    for denial in found.attempts:
        say(f"refused on the way: {denial.what} {denial.target}".rstrip(), hint=denial.change or None)
    for denial in found.unresolved:
        say(f"still refused: {denial.sentence}")
    say(f"{found.rounds} runs; requested strength {found.score_before} -> {found.score_after}")
    write_text(found.policy_text)
    if not found.passes:
        say(f"no policy that may be tried lets the command succeed (exit code {found.exit_code})")
    return 0 if found.passes else 1


def _learn_parser() -> Parser:
    parser = Parser(
        "kavach policy learn", "Run a program, many times, and propose the smallest policy for it.", command=True
    )
    add = parser.add_argument
    add("--policy", default="strict", metavar="P", help="what to start from (default: strict)")
    add(
        "--writable", action="append", default=[], metavar="DIR", help="host folder that write rules may be tried below"
    )
    add("--network", action="store_true", help="the host's network may be tried")
    add("--workdir", metavar="DIR", help="host folder shown, writable, at /workspace in every run")
    add("--env", type=variable, action="append", default=[], metavar="NAME=VALUE", help="add a variable")
    add("--timeout", type=seconds, default=30.0, metavar="S", help="seconds for each run, or none (default: 30)")
    return parser
