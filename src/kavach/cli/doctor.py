"""`kavach doctor`: what this host can do, what it lacks, why, the fix, and the best wall left.

Guarantees: what it says about the presets was seen in a run of each. Does not: change the host. May be called by:
kavach.cli. Exit code: 0 when `strict` stands with everything in force that it asks for, else 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kavach.cli.streams import Progress, write_json, write_table, write_text
from kavach.cli.words import Parser
from kavach.errors import KavachError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kavach.doctor import Report
    from kavach.model.result import ExecResult

PRESETS = ("strict", "basic")


def main(argv: Sequence[str]) -> int:
    """Report on this host; see the module."""
    parser = Parser("kavach doctor", "Say what this host can do, what it lacks, why, and how to fix it.")
    parser.add_argument("--json", action="store_true", help="print the report as one line of JSON")
    options = parser.parse_args(argv)
    from kavach.doctor import examine

    trials = Trials()
    report = examine(probe=trials.observe)
    if options.json:
        import msgspec

        write_json({**msgspec.to_builtins(report), "presets": trials.summary()})
    else:
        _print(report, trials)
    return 0 if trials.is_strict_whole else 1


class Trials:
    """One run of the process wall under each preset."""

    def __init__(self) -> None:
        self._ran: dict[str, ExecResult] = {}
        self._refused: dict[str, KavachError] = {}

    def observe(self) -> Iterator[tuple[str, str, str]]:
        """Yield (control, state, evidence) of the strictest preset that stands, and why a stricter one does not.

        Raises:
            KavachError: none stands.
        """
        from kavach import run

        progress = Progress()
        for preset in PRESETS:
            progress(f"running the wall under {preset}")
            try:
                self._ran[preset] = run(["true"], policy=preset, timeout_s=30)
            except KavachError as error:
                self._refused[preset] = error
        progress("")
        if not self._ran:
            raise self._refused[PRESETS[-1]]
        for preset, refusal in self._refused.items():
            yield f"preset {preset}", "failed", str(refusal)
        seen = next(self._ran[preset] for preset in PRESETS if preset in self._ran).enforcement
        for row in seen.rows if seen is not None else ():
            yield row.control.value, row.state.value, "; ".join(filter(None, (row.detail, row.evidence, row.reason)))

    @property
    def is_strict_whole(self) -> bool:
        """Whether strict stands and nothing of what it asks for is missing or weaker."""
        ran = self._ran.get("strict")
        return ran is not None and ran.enforcement is not None and not _weak(ran)

    def summary(self) -> dict[str, Any]:
        """Return, for each preset, whether it stands, its score, and what is weaker or missing."""
        found: dict[str, Any] = {}
        for preset in PRESETS:
            ran, refusal = self._ran.get(preset), self._refused.get(preset)
            found[preset] = {
                "stands": ran is not None and ran.ok,
                "score": None if ran is None else int(ran.score),
                "requested_score": None if ran is None else int(ran.requested_score),
                "weaker": [] if ran is None else _weak(ran),
                "reason": str(refusal) if refusal is not None else "" if ran is not None else "not tried, see the rows",
            }
        return found


def _weak(result: ExecResult) -> list[str]:
    rows = result.enforcement.rows if result.enforcement is not None else ()
    return [row.control.value for row in rows if row.asked and row.state != "enforced"]


def _print(report: Report, trials: Trials) -> None:
    where = f" in a container ({report.container})" if report.container else ""
    host = "" if report.host == "linux" else f" on {report.host}"
    write_text(f"kernel {report.kernel} {report.machine}{host}{where}\nbest wall here: {report.best_wall}\n")
    for preset, found in trials.summary().items():
        if found["stands"]:
            weaker = f"; weaker: {', '.join(found['weaker'])}" if found["weaker"] else ""
            write_text(f"{preset}: stands, {found['score']} of {found['requested_score']} points{weaker}\n")
        else:
            write_text(f"{preset}: refused: {found['reason']}\n")
    write_text("\n")
    observed = {row.control for row in report.rows if row.observed}
    rows = [row for row in report.rows if row.observed or row.available != "yes" or row.control not in observed]
    write_table(
        ("control", "available", "seen in a run", "evidence"),
        [(row.control, row.available, "yes" if row.observed else "-", row.evidence) for row in rows],
    )
    for row in report.problems:
        said = [f"\n{row.control}: {row.cause or row.available}"]
        said += [f"  fix: {row.fix}"] if row.fix else []
        said += [f"  until then: {row.wall_left}"] if row.wall_left else []
        write_text("\n".join(said) + "\n")
    for family, nodes in report.devices.items():
        write_text(f"\ndevices {family}: {', '.join(nodes) if nodes else 'none'}\n")
