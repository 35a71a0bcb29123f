"""`kavach scan`: what the gate says of a file or of standard input.

Guarantees: findings are printed masked; with `--redact` only what may leave is written. What could not be read whole is
never called clean. Does not: run, store or record anything. May be called by: kavach.cli.
Exit code: 0, or 1 when something at or above `--fail-on` was found or the output is withheld.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from kavach.cli.streams import STDIN, STDOUT, say, write, write_json, write_table
from kavach.cli.words import Parser
from kavach.errors import ConfigError, KavachError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kavach.gate.public import ScanResult
    from kavach.model.verdict import Finding

_CHUNK_BYTES = 1 << 20
_SEVERITIES = ("info", "low", "medium", "high", "critical")


def main(argv: Sequence[str]) -> int:
    """Scan one input; see the module.

    Raises:
        KavachError: it cannot be read, or not be read whole.
    """
    options = _options(argv)
    from kavach.gate.public import scan
    from kavach.model.verdict import ExternalizationPolicy, Severity

    policy = ExternalizationPolicy.enforce() if options.policy == "enforce" else ExternalizationPolicy.redact()
    data = _read(options.file, policy.max_artifact_size_bytes)
    options.name = "standard input" if options.file == "-" else options.file
    result = scan(data, policy, name=options.name)
    if failed := next((finding for finding in result.findings if finding.scanner == "gate"), None):
        raise KavachError(f"{options.name}: {failed.message}")
    _show(result, data, options)
    worst = result.worst_severity
    is_found = worst is not None and worst >= Severity(options.fail_on)
    return 1 if is_found or not result.verdict.is_released else 0


def _options(argv: Sequence[str]) -> Any:  # noqa: ANN401 - argparse's own type says no more
    parser = Parser("kavach scan", "Say what the gate finds in a file: 0 nothing, 1 something.")
    add = parser.add_argument
    add("file", metavar="FILE", help="what is scanned; - for standard input")
    add("--policy", choices=("redact", "enforce"), default="redact", help="what findings lead to (default: redact)")
    add("--fail-on", choices=_SEVERITIES, default="medium", help="exit with 1 from this severity on (default: medium)")
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument("--json", action="store_true", help="print the result as one line of JSON")
    shown.add_argument("--redact", action="store_true", help="write what may leave to standard output instead")
    return parser.parse_args(list(argv))


def _read(name: str, most_bytes: int) -> bytes:
    """Return all of a file.

    Raises:
        ConfigError: it cannot be read, or is larger than one scan reads.
    """
    parts: list[bytes] = []
    size = 0
    try:
        handle = STDIN if name == "-" else os.open(name, os.O_RDONLY | os.O_CLOEXEC)
        try:
            while part := os.read(handle, _CHUNK_BYTES):
                parts.append(part)
                size += len(part)
                if size > most_bytes:
                    raise ConfigError(f"{name}: larger than {most_bytes} bytes, the most that one scan reads")
        finally:
            if handle != STDIN:
                os.close(handle)
    except OSError as error:
        raise ConfigError(f"{name}: cannot read: {error.strerror}", source=name) from None
    return b"".join(parts)


def _show(result: ScanResult, data: bytes, options: Any) -> None:  # noqa: ANN401 - as above
    if options.json:
        write_json(result.to_dict())
        return
    if options.redact:
        if result.redacted is not None:
            write(STDOUT, result.redacted)
    elif result.findings:
        head = ("line", "bytes", "severity", "rule", "evidence", "what")
        write_table(head, _rows(result.findings, data))
    if not result.verdict.is_released:
        say(f"{options.name}: withheld: verdict {result.verdict}")
    if options.redact or not result.findings:
        say(f"{options.name}: {len(result.findings) or 'no'} finding{'' if len(result.findings) == 1 else 's'}")


def _rows(findings: Sequence[Finding], data: bytes) -> Iterator[tuple[object, ...]]:
    line, at = 1, 0
    for finding in sorted(findings, key=lambda finding: (finding.start, finding.end)):
        line, at = line + data.count(b"\n", at, finding.start), finding.start
        yield (
            line,
            f"{finding.start}-{finding.end}",
            finding.severity,
            finding.rule,
            finding.evidence,
            finding.message,
        )
