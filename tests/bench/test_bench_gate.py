"""How fast the gate reads: clean and adversarial text, beside Python's `re`; reported, never judged."""

from __future__ import annotations

import random
import re
import sysconfig
from pathlib import Path

import pytest

from kavach import Sandbox
from kavach.audit.log import AuditLog
from kavach.gate.scan import all_scanners, scan_bytes
from kavach.model.verdict import ExternalizationPolicy

SIZE = 1 << 20
_random = random.Random(1)
TEXTS = {
    "python source": b"".join(path.read_bytes() for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")))[:SIZE],
    "log lines": b"".join(b"2026-11-23 12:00:%02d INFO worker %d did job %d\n" % (n % 60, n % 16, n) for n in range(25_000)),
    "words": b"the quick brown fox jumps over the lazy dog and runs home " * (SIZE // 58),
    "one letter": b"a" * SIZE,
    "base64": bytes(_random.choice(b"ABCDEFabcdef0123456789+/XYZxyz") for _ in range(SIZE)),
    "colours": b"\x1b[31mred\x1b[0m word " * (SIZE // 18),
    "keywords": b'api_key = "x" secret: token ' * (SIZE // 28),
    "begun blocks": (b"-----BEGIN RSA " + b"PRIVATE KEY-----\n") * (SIZE // 32),
}  # fmt: skip


@pytest.mark.parametrize("name", TEXTS)
def test_bench_all_scanners(benchmark: object, name: str) -> None:
    text = TEXTS[name]
    scan_bytes(text, ExternalizationPolicy.redact())
    benchmark.pedantic(scan_bytes, (text, ExternalizationPolicy.redact()), rounds=3)  # type: ignore[attr-defined]
    benchmark.extra_info["megabytes_per_s"] = len(text) / 1e6 / benchmark.stats.stats.min  # type: ignore[attr-defined]


def test_bench_plain_re(benchmark: object) -> None:
    text = TEXTS["python source"][: SIZE // 8]
    rules = []
    for scanner in all_scanners():
        for rule in scanner.rules:
            try:
                rules.append(re.compile(rule.expression.replace("(?m:^)", "(?:^)").encode("latin-1")))
            except re.error:
                continue
    benchmark.pedantic(lambda: [one.findall(text) for one in rules], rounds=1)  # type: ignore[attr-defined]
    benchmark.extra_info["megabytes_per_s"] = len(text) / 1e6 / benchmark.stats.stats.min  # type: ignore[attr-defined]


@pytest.mark.needs("userns")
@pytest.mark.parametrize("steps", ["wall", "wall and gate", "wall, gate and audit"])
def test_bench_warm_command(benchmark: object, steps: str, tmp_path: Path) -> None:
    fields: dict[str, object] = {}
    if steps == "wall":
        fields["externalization"] = ExternalizationPolicy.off()
    if "audit" in steps:
        fields["audit"] = AuditLog(tmp_path / "log", key=bytes(32))
    with Sandbox(policy="basic", **fields) as sandbox:
        run = lambda: sandbox.exec(["echo", "hi"])  # noqa: E731 - what is measured
        assert run().stdout == "hi\n"
        benchmark.pedantic(run, setup=sandbox.prewarm, rounds=100)  # type: ignore[attr-defined]
