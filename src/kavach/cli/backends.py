"""`kavach backends`: the walls, each run once, and what was seen.

Guarantees: `yes` was seen, never concluded from a name. Does not: install anything. May be called by: kavach.cli.
Exit code: 0 when at least one wall starts, else 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kavach.cli.streams import Progress, write_json, write_table
from kavach.cli.words import Parser

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str]) -> int:
    """Print one row a wall; see the module."""
    parser = Parser("kavach backends", "List the walls: whether each was seen to start here, and why not.")
    parser.add_argument("--policy", default="basic", metavar="P", help="the policy they are run under (default: basic)")
    parser.add_argument("--json", action="store_true", help="print the list as one line of JSON")
    options = parser.parse_args(argv)
    rows = examine_walls(options.policy)
    if options.json:
        write_json({"schema": "kavach.backends/1", "policy": options.policy, "backends": rows})
    else:
        write_table(
            ("wall", "available", "observed", "by name", "why not"),
            [
                (
                    row["backend"],
                    "yes" if row["available"] else "no",
                    "-" if row["score"] is None else row["score"],
                    "-" if row["base_score"] is None else row["base_score"],
                    "; ".join(row["reasons"]),
                )
                for row in rows
            ],
        )
    return 0 if any(row["available"] for row in rows) else 1


def examine_walls(policy_name: str) -> list[dict[str, Any]]:
    """Return what a probe of each wall has seen: the ten, and those that other distributions add.

    Raises:
        KavachError: the policy is none.
    """
    from kavach.backends import names, probe
    from kavach.model.backend import Backend
    from kavach.model.policy import SandboxPolicy
    from kavach.policy.strength import BASE

    policy = SandboxPolicy.resolve(policy_name)
    ours = [wall.value for wall in Backend.all()]
    progress = Progress()
    rows: list[dict[str, Any]] = []
    for name in [*ours, *(other for other in names() if other not in ours)]:
        progress(f"trying {name}")
        found = probe(name, policy)
        reasons = list(found.reasons)
        if name == "noop":
            reasons.append("runs nothing; it has to be asked for by name")
        rows.append(
            {
                "backend": name,
                "available": found.available,
                "score": found.score if found.available else None,
                "base_score": BASE.get(name),
                "version": found.version,
                "reasons": reasons,
                "missing": list(found.missing),
            }
        )
    progress("")
    return rows
