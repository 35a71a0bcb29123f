"""Small scanners and texts for the tests of the gate; example keys are put together at run time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kavach.gate.rule import Rule
from kavach.model.verdict import Severity

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kavach.gate.rule import Mark, Match

CLOUD_KEY = b"AKIA" + b"Z7VRSQ5TJN2XMPLA"
HOST_TOKEN = b"ghp_" + b"aB3dE5fG7hI9jK1lM3nO5pQ7rS9tU1vW3xY5"
KEY_BLOCK = b"-----BEGIN RSA " + b"KEY-----\n" + b"QUJDREVGRw==\n" * 20 + b"-----END RSA " + b"KEY-----"


def _is_alone(match: Match) -> bool:
    return b"no" not in match.before(20) and match.after(2) != b"xx"


def rule(name: str, severity: Severity, expression: str, max_bytes: int, *literals: bytes, **more: object) -> Rule:
    return Rule(name, "test", severity, "One sentence.", expression, max_bytes, literals, **more)  # type: ignore[arg-type]


class SecretsLike:
    name = "secrets"
    rules = (
        rule("cloud-key", Severity.HIGH, r"\bAKIA[A-Z0-9]{16}\b", 20, b"akia"),
        rule("host-token", Severity.HIGH, r"\bghp_[A-Za-z0-9]{36}\b", 40, b"ghp_", accept=_is_alone),
        rule(
            "password",
            Severity.MEDIUM,
            r"(?i)pass(?:word)?\s{0,4}[=:]\s{0,4}[\"']?([^\s\"']{8,64})",
            90,
            b"pass",
            group=1,
        ),
        rule(
            "key-block",
            Severity.CRITICAL,
            r"-----BEGIN [A-Z ]{0,40}KEY-----[\s\S]*?-----END [A-Z ]{0,40}KEY-----",
            20_000,
            b"-----begin",
        ),
        rule("counted", Severity.LOW, r"(?:^|[^a-z])(tok[0-9]{2,6})(?:[^0-9]|$)", 20, b"tok", group=1),
    )

    def inspect(self, text: bytes, marks: Sequence[Mark]) -> Iterator[Mark]:
        yield from ()


class PersonalLike:
    name = "personal"
    rules = (rule("mail", Severity.MEDIUM, r"\b[a-z.]{1,20}@[a-z.]{1,20}\.[a-z]{2,4}\b", 60, b"@"),)

    def inspect(self, text: bytes, marks: Sequence[Mark]) -> Iterator[Mark]:
        for mark in marks:
            if b"patient" in text[mark.end : mark.end + 60].split(b"\n")[0]:
                yield mark._replace(rule="health")


class CodeLike:
    name = "code"
    rules = (rule("sudo", Severity.HIGH, r"\bsudo\b", 4, b"sudo"),)

    def inspect(self, text: bytes, marks: Sequence[Mark]) -> Iterator[Mark]:
        for mark in marks:
            yield mark._replace(rule="parsed")


SCANNERS = (SecretsLike(), PersonalLike(), CodeLike())
