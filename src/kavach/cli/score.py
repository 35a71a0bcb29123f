"""`kavach score`: the wall is run once, and each row says what was asked, seen, earned, and what would raise it.

Guarantees: points come from what that run saw. Does not: keep anything. May be called by: kavach.cli.
Exit code: 0, or 1 when the observed strength is below `--min`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kavach.cli.streams import say, write_json, write_table, write_text
from kavach.cli.words import Parser, whole_number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kavach.model.result import ExecResult


def main(argv: Sequence[str]) -> int:
    """Print the breakdown; see the module.

    Raises:
        KavachError: the wall does not stand under that policy.
    """
    options = _options(argv)
    from kavach import run

    result = run(["true"], policy=options.policy, backend=options.backend, timeout_s=30)
    rows = breakdown(result)
    if options.json:
        write_json(
            {
                "schema": "kavach.score/1",
                "backend": result.enforcement.backend if result.enforcement is not None else options.backend,
                "policy": options.policy,
                "observed": {"value": int(result.score), "label": result.score.label},
                "requested": {"value": int(result.requested_score), "label": result.requested_score.label},
                "rows": rows,
            }
        )
    else:
        columns = ("control", "asked", "state", "points", "evidence", "to_raise")
        write_table(
            ("control", "asked", "state", "points", "evidence", "what would raise it"),
            [[_cell(row, name) for name in columns] for row in rows],
        )
        write_text(f"\nobserved {result.score}, requested {result.requested_score}\n")
    if options.min is not None and int(result.score) < options.min:
        say(f"the observed strength {result.score} is below --min {options.min}")
        return 1
    return 0


def _options(argv: Sequence[str]) -> Any:  # noqa: ANN401 - argparse's own type says no more
    parser = Parser("kavach score", "Run the wall once and say what it is worth, row by row.")
    add = parser.add_argument
    add("preset", nargs="?", metavar="P", help="minimal, basic (default), strict, or a profile file")
    add("--policy", metavar="P", help="the same as an option")
    add("--backend", default="process", metavar="B", help="the wall, or auto (default: process)")
    add("--min", type=whole_number(0, 100), metavar="N", help="exit with 1 when the observed strength is less")
    add("--json", action="store_true", help="print the breakdown as one line of JSON")
    options = parser.parse_args(argv)
    if options.preset is not None and options.policy is not None:
        parser.error("expected the policy once, got it as a word and as --policy")
    options.policy = options.policy or options.preset or "basic"
    return options


def breakdown(result: ExecResult) -> list[dict[str, Any]]:
    """Return one row a control, in the order of the report, and one for each cap."""
    scored = {row.control: row for row in result.score.rows}
    seen = result.enforcement.rows if result.enforcement is not None else ()
    rows: list[dict[str, Any]] = []
    for row in seen:
        points = scored.get(row.control.value)
        rows.append(
            {
                "control": row.control.value,
                "asked": row.asked,
                "state": row.state.value,
                "mechanism": row.detail,
                "evidence": row.evidence,
                "reason": row.reason,
                "points": 0 if points is None else points.points,
                "worth": 0 if points is None else points.worth,
                "to_raise": "" if points is None else points.to_raise,
            }
        )
    for name, cap in scored.items():
        if name == "cap":
            rows.append({"control": name, "asked": False, "state": cap.state, "points": cap.points, "worth": 0})
    return rows


def _cell(row: dict[str, Any], name: str) -> str:
    if name == "points":
        return f"{row['points']}/{row['worth']}"
    if name == "asked":
        return "yes" if row["asked"] else "-"
    if name == "evidence":
        if not row["asked"]:
            return ""
        return "; ".join(filter(None, (row.get("mechanism"), row.get("evidence"), row.get("reason"))))
    return str(row.get(name, ""))
