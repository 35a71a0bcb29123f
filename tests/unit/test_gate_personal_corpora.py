"""Personal data against corpora of presidio and validator.js, through the engine: the figures of docs/gate.md."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from kavach.gate.personal import PERSONAL
from kavach.gate.scan import scan_bytes
from kavach.model.verdict import ExternalizationPolicy

if TYPE_CHECKING:
    from pathlib import Path

ENTITIES = {
    "CREDIT_CARD": "payment-card",
    "IBAN": "iban",
    "US_SSN": "us-ssn",
    "EMAIL": "email-address",
    "PHONE": "phone-",
    "IP": "ip-address",
}
BAR = 0.95

pytestmark = pytest.mark.vectors


def rows(vectors: Path, name: str) -> list[dict]:
    with gzip.open(vectors / "personal" / name, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def spans(text: str, rule: str) -> list[tuple[int, int]]:
    """Return where a rule's marks lie, in characters, overlapping ones as one."""
    data = text.encode()
    merged: list[tuple[int, int]] = []
    for mark in scan_bytes(data, ExternalizationPolicy(), scanners=(PERSONAL,)):
        if not mark.rule.startswith(rule):
            continue
        start, end = (len(data[:at].decode(errors="ignore")) for at in (mark.start, mark.end))
        if merged and start < merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def expected(entity: str, row: dict) -> tuple[int, list[tuple[int, int]] | None]:
    count = row["expected_len"] if row["is_pii"] else 0
    places = [tuple(pair) for pair in row["positions"]] if row["positions"] and row["is_pii"] else None
    return (len(places), places) if places else (count, None)


@pytest.mark.parametrize("entity", ENTITIES)
def test_precision_and_recall_hold_the_bar(entity, vectors):
    """A telephone text may stand there twice, once for a recogniser of fewer regions: the fuller row counts."""
    wanted: dict[str, tuple[int, list[tuple[int, int]] | None]] = {}
    for row in rows(vectors, "presidio_recognizers.jsonl.gz"):
        if row["entity"] == entity:
            here = expected(entity, row)
            wanted[row["text"]] = max(here, wanted.get(row["text"], here), key=lambda pair: pair[0])
    counted = Counter()
    for text, (count, places) in wanted.items():
        found = spans(text, ENTITIES[entity])
        right = min(count, len(found)) if places is None else len(set(found) & set(places))
        counted.update(right=right, wrong=len(found) - right, missed=count - right)
    assert counted["right"] > 0
    assert counted["right"] / (counted["right"] + counted["wrong"]) >= BAR, counted
    assert counted["right"] / (counted["right"] + counted["missed"]) >= BAR, counted


@pytest.mark.parametrize(("validator", "rule"), [("isCreditCard", "payment-card"), ("isIBAN", "iban")])
@pytest.mark.parametrize("sentence", ["the value {} was given", "{}", '{{"v": "{}"}}', "a;{};b"])
def test_no_invalid_value_is_found_and_nearly_every_valid_one_is(validator, rule, sentence, vectors):
    """A value that is valid for one network or list of countries is valid: rows of others are left out."""
    given = [row for row in rows(vectors, "validatorjs_vectors.jsonl.gz") if row["validator"] == validator]
    valid = {row["text"] for row in given if row["valid"]}
    invalid = {row["text"] for row in given} - valid
    found = {text for text in valid | invalid if spans(sentence.format(text), rule)}
    assert found & invalid == set()
    assert len(found & valid) / len(valid) >= 0.9
