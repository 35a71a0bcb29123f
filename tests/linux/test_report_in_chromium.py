"""The page of `kavach report` in a real browser: it loads without a complaint, light and dark, and there is nothing to run."""

from __future__ import annotations

import json
import os
import subprocess
import zlib

import pytest

from kavach.cli.report import make_page

pytestmark = pytest.mark.needs("chromium")
DEADLINE_S = 120
LIGHT, DARK = (0xF4, 0xF5, 0xF8), (0x0E, 0x12, 0x18)  # --page of report.css


@pytest.fixture
def shown(tmp_path):
    attack = "<script>document.title='ran'</script><img src='http://127.0.0.1:9/x' onerror=\"document.title='ran'\">"
    score = {
        "value": 61,
        "label": "standard",
        "rows": [{"control": attack, "state": "enforced", "points": 5, "worth": 5}],
    }
    finding = {"rule": attack, "severity": "high", "message": attack, "evidence": attack}
    result = {
        "schema": "kavach.result/1", "sandbox_id": "sb-1", "reason": "exit", "exit_code": 0, "verdict": "warn",
        "score": score, "requested_score": score, "findings": [finding],
    }  # fmt: skip
    (tmp_path / "r.json").write_text(json.dumps(result))
    (tmp_path / "page.html").write_text(make_page(str(tmp_path / "r.json")))
    return tmp_path


def browse(lab, folder, *options):
    """Return what a browser without a network said and printed about the page."""
    words = [
        *(
            lab("chromium"),
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            "--window-size=900,1200",
        ),
        *(f"--user-data-dir={folder}/browser", "--host-resolver-rules=MAP * ~NOTFOUND", "--enable-logging=stderr"),
        *("--disable-dev-shm-usage", *options, f"file://{folder}/page.html"),
    ]
    home = {"PATH": os.environ["PATH"], "HOME": str(folder)}
    return subprocess.run(words, capture_output=True, text=True, timeout=DEADLINE_S, env=home, check=True)


def first_pixel(path):
    """Return red, green and blue of the top left pixel of a PNG: the first of a line needs no neighbour (PNG 9.2)."""
    data, at, packed = path.read_bytes(), 8, b""
    while at < len(data):
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        packed += data[at + 8 : at + 8 + length] if kind == b"IDAT" else b""
        at += length + 12
    return tuple(zlib.decompress(packed)[1:4])


def test_the_browser_runs_nothing_and_has_no_complaint(lab, shown):
    done = browse(lab, shown, "--dump-dom")
    assert "<title>Run in sb-1</title>" in done.stdout
    assert "<img" not in done.stdout
    assert "<script" not in done.stdout
    assert "CONSOLE" not in done.stderr  # a refused style or script is said there


@pytest.mark.parametrize(("scheme", "colour"), [(1, LIGHT), (0, DARK)], ids=["light", "dark"])
def test_the_page_follows_the_colour_scheme_of_its_reader(lab, shown, scheme, colour):
    browse(lab, shown, f"--blink-settings=preferredColorScheme={scheme}", f"--screenshot={shown}/page.png")
    assert first_pixel(shown / "page.png") == colour
