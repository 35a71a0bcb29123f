"""Secrets against corpora of gitleaks, secretlint and detect-secrets, through the engine: the figures of docs/gate.md.

A find counts from severity `medium` on: what is `info` or `low` stays in the output.
"""

from __future__ import annotations

import gzip
import json
import re
import sysconfig
from collections import defaultdict
from pathlib import Path

import pytest

from kavach.gate.scan import scan_bytes
from kavach.gate.secrets import SECRETS
from kavach.model.verdict import ExternalizationPolicy, Severity

FAMILIES = ["aws", "github", "gitlab", "slack", "stripe", "google", "jwt", "private_key", "openai_anthropic"]
FAMILY_BAR = 0.97
ALL_BAR = 0.85
FALSE_BAR = 0.05
PIECE_BYTES = 12  # rows that share so long a piece of text are about one secret

# Rules of ours that look for something else than the corpus' rule of the same row: they may rightly fire on what is
# no secret to that one. A value that is named a token and looks random is the generic rules' business.
OTHERS = {
    "anthropic-api-key": {"anthropic-key"},  # an admin key, which is another rule there and one rule here
    "cloudflare-api-key": {"cloudflare-origin-ca-key"},
    "cloudflare-global-api-key": {"cloudflare-api-key", "cloudflare-origin-ca-key"},  # an API key, not a global one
    "cloudflare-origin-ca-key": {"cloudflare-api-key"},
    "curl-auth-header": {"jwt"},
}
GENERIC = {"generic-secret", "generic-key", "generic-password"}


def rows(vectors: Path, name: str) -> list[dict]:
    with gzip.open(vectors / "secrets" / name, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def found(text: str) -> set[str]:
    """Return the rules that would take something out of a text."""
    marks = scan_bytes(text.encode("utf-8", "surrogateescape"), ExternalizationPolicy(), scanners=(SECRETS,))
    return {mark.rule for mark in marks if mark.severity >= Severity.MEDIUM}


def secrets_of(texts: list[str]) -> list[list[str]]:
    """Return a rule's texts, those about one secret together."""
    groups: list[tuple[set[str], list[str]]] = []
    for text in texts:
        pieces = {piece for piece in re.split(r"[^\w\-./+%~|]+", text) if len(piece) >= PIECE_BYTES}
        joined = [group for group in groups if group[0] & pieces]
        groups = [group for group in groups if group not in joined]
        groups.append((pieces.union(*(one for one, _ in joined)), [text, *(t for _, many in joined for t in many)]))
    return [many for _, many in groups]


def recalls(vectors: Path, *, key: str) -> dict[str, float]:
    """Return the recall by family or rule: the mean over distinct secrets of the part of their texts that hit."""
    by_rule = defaultdict(list)
    for row in rows(vectors, "gitleaks_dev.jsonl.gz"):
        if row["is_secret"]:
            by_rule[row["family"], row["rule"]].append(row["text"])
    parts = defaultdict(list)
    for (family, rule), texts in by_rule.items():
        for group in secrets_of(texts):
            part = sum(bool(found(text)) for text in group) / len(group)
            parts[family if key == "family" else rule].append(part)
            parts["all"].append(part)
    return {name: sum(many) / len(many) for name, many in parts.items()}


@pytest.mark.vectors
def test_recall_holds_its_bar_in_every_named_family_and_over_all_rules(vectors):
    by_family = recalls(vectors, key="family")
    assert {name: by_family[name] for name in FAMILIES if by_family[name] < FAMILY_BAR} == {}
    assert by_family["basic_auth_url"] >= FAMILY_BAR
    assert by_family["all"] >= ALL_BAR


@pytest.mark.vectors
def test_no_rule_of_the_corpus_is_missed_altogether(vectors):
    by_rule = recalls(vectors, key="rule")
    assert {name: part for name, part in by_rule.items() if part < ALL_BAR} == {}


@pytest.mark.vectors
def test_few_negatives_are_hit_by_their_own_rule(vectors):
    negatives = [row for row in rows(vectors, "gitleaks_dev.jsonl.gz") if not row["is_secret"]]
    false = []
    for row in negatives:
        hits = found(row["text"]) - OTHERS.get(row["rule"], set())
        if row["rule"] not in {"generic-api-key", "nuget-config-password"}:
            hits -= GENERIC
        if hits:
            false.append((row["rule"], sorted(hits)))
    assert len(false) / len(negatives) <= FALSE_BAR, false


@pytest.mark.vectors
@pytest.mark.parametrize(("name", "least", "most"), [("secretlint", 0.5, 0.2), ("detect_secrets", 0.5, 0.15)])
def test_other_corpora_stay_where_they_were(name, least, most, vectors):
    """Their rows hold stand-ins as secrets (`xxxxx`) and secrets of other rules as none: a floor, not a bar."""
    texts = rows(vectors, f"{name}.jsonl.gz")
    hit = [bool(found(row["text"])) for row in texts]
    secret = [at for at, row in enumerate(texts) if row["is_secret"]]
    other = [at for at, row in enumerate(texts) if not row["is_secret"]]
    assert sum(hit[at] for at in secret) / len(secret) >= least
    assert sum(hit[at] for at in other) / len(other) <= most


@pytest.mark.parametrize("package", ["email", "http", "json", "logging", "urllib", "unittest", "xml"])
def test_the_standard_librarys_source_loses_next_to_nothing(package):
    """One find is known in all of it: the password of an example in urllib.request's documentation."""
    taken = []
    for path in sorted((Path(sysconfig.get_path("stdlib")) / package).rglob("*.py")):
        data = path.read_bytes()
        marks = scan_bytes(data, ExternalizationPolicy(), scanners=(SECRETS,))
        taken += [data[mark.start : mark.end] for mark in marks if mark.severity >= Severity.MEDIUM]
    assert set(taken) <= {b"geheim$parole"}
