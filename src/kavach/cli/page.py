"""Pieces of a self-contained HTML page: text made safe, tables, chips, a gauge, a bar, and the page around them.

Guarantees: whatever text goes in, no markup, no control character and no character that reorders text comes out; the
page loads nothing, runs nothing, and says so to the browser (Content-Security-Policy). Does not: know what is shown.
May be called by: kavach.cli.
"""

from __future__ import annotations

import hashlib
import html
import math
import os
from base64 import b64encode
from itertools import pairwise
from string import Template
from typing import TYPE_CHECKING, NamedTuple

from kavach.cli.visible import make_visible
from kavach.model.score import LABELS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_FOLDER = os.path.dirname(__file__)
_LONGEST = 600  # protects a page from one field of a megabyte
_CENTRE_X, _CENTRE_Y, _RADIUS = 120.0, 118.0, 94.0
#: A state, verdict, severity or ending -> how it is shown. Words not here are shown plainly.
TONES = {
    **dict.fromkeys(("enforced", "pass", "exited with code 0", "released"), "good"),
    **dict.fromkeys(("degraded", "warn", "medium", "not_scanned", "timeout", "oom", "pids", "disk"), "weak"),
    **dict.fromkeys(
        ("failed", "unsupported", "block", "quarantine", "withheld", "high", "critical", "policy_kill"), "bad"
    ),
    **dict.fromkeys(("low", "info", "requested"), "info"),
}
_SIGNS = {"good": "✓ ", "weak": "◐ ", "bad": "✕ ", "info": ""}
_LABEL_TONES = {"fortress": "good", "hardened": "good", "standard": "info", "basic": "weak", "minimal": "bad"}


class Part(NamedTuple):
    """One part of a whole, for `strip`."""

    name: str
    number: int
    tone: str


class Markup(str):
    """Text that is HTML already; every other text is escaped."""

    __slots__ = ()


def safe(value: object) -> Markup:
    """Return any value as HTML that shows it, and None as a dash."""
    if isinstance(value, Markup):
        return value
    text = "-" if value is None else str(value)
    if len(text) > _LONGEST:
        text = f"{text[:_LONGEST]}… ({len(text)} characters)"
    return Markup(html.escape(make_visible(text).replace("\n", " "), quote=True))


def join(*pieces: object) -> Markup:
    """Return pieces one behind the other, each made safe."""
    return Markup("".join(safe(piece) for piece in pieces))


def element(name: str, *inside: object, css: str = "") -> Markup:
    """Return an element around pieces."""
    opened = f'<{name} class="{html.escape(css)}">' if css else f"<{name}>"
    return Markup(f"{opened}{join(*inside)}</{name}>")


def chip(word: str, tone: str | None = None) -> Markup:
    """Return a word with a colour, and a sign for those who see none."""
    found = TONES.get(word, "") if tone is None else tone
    return element("span", f"{_SIGNS.get(found, '')}{word.replace('_', ' ')}", css=f"chip {found}".strip())


def section(title: str, *inside: object) -> Markup:
    """Return a headed section."""
    return join(element("h2", title), *inside)


def card(title: str, *inside: object) -> Markup:
    """Return one of the boxes at the top of a page."""
    return element("section", element("h3", title), *inside, css="card")


def facts(rows: Iterable[tuple[str, object]]) -> Markup:
    """Return names and values; rows whose value is None are left out."""
    return element(
        "dl", *(join(element("dt", name), element("dd", value)) for name, value in rows if value is not None)
    )


def table(head: Sequence[str], rows: Iterable[Sequence[object]], *, numbers: frozenset[int] = frozenset()) -> Markup:
    """Return a table whose first column names the row.

    Args:
        head: of the columns; a name that ends with `…` marks a column of long text.
        rows: their cells.
        numbers: columns that are set to the right.
    """
    long = {at for at, name in enumerate(head) if name.endswith("…")}

    def css(at: int) -> str:
        return "num" if at in numbers else "long" if at in long else ""

    top = [Markup(f'<th scope="col" class="{css(at)}">{safe(name.rstrip("…"))}</th>') for at, name in enumerate(head)]
    body = [
        element(
            "tr",
            Markup(f'<th scope="row">{safe(row[0])}</th>'),
            *(element("td", cell, css=css(at)) for at, cell in enumerate(row[1:], 1)),
        )
        for row in rows
    ]
    whole = element("table", element("thead", element("tr", *top)), element("tbody", *body))
    return element("div", whole, css="wide")


def gauge(value: int, label: str, *, asked: int | None = None) -> Markup:
    """Return a half circle from 0 to 100 with the five bands of strength and a mark at what was asked for."""
    tone = _LABEL_TONES.get(label, "info")
    bounds = [*sorted(least for least, _ in LABELS), 100]
    bands = [
        f'<path class="band" d="{_arc(low + (0.7 if low else 0), high - (0.7 if high < 100 else 0))}"/>'
        for low, high in pairwise(bounds)
    ]
    shown = [f'<path class="value s-{tone}" d="{_arc(0, value)}"/>'] if value else []
    if asked is not None:
        (x1, y1), (x2, y2) = _point(asked, _RADIUS - 12), _point(asked, _RADIUS + 12)
        shown.append(f'<line class="asked" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>')
    said = f"Strength {value} of 100, {label}" + ("" if asked is None else f"; asked for: {asked}")
    return Markup(
        f'<svg class="gauge" viewBox="0 0 240 148" role="img" aria-label="{safe(said)}">{"".join(bands + shown)}'
        f'<text class="number" x="120" y="108">{value}</text><text class="label" x="120" y="130">{safe(label)}</text>'
        '<text class="end" x="26" y="138">0</text><text class="end" x="214" y="138">100</text></svg>'
    )


def bar(points: int, worth: int) -> Markup:
    """Return how much of its worth a row has earned."""
    width = 0.0 if worth <= 0 else 72 * max(0, min(points, worth)) / worth
    tone = "good" if points >= worth else "weak" if points > 0 else "none"
    filled = f'<rect class="f-{tone}" width="{width:.1f}" height="8" rx="4"/>' if width else ""
    track = '<rect class="track" width="72" height="8" rx="4"/>'
    return Markup(f'<svg class="bar" viewBox="0 0 72 8" aria-hidden="true">{track}{filled}</svg>')


def strip(parts: Sequence[Part]) -> Markup:
    """Return parts of a whole side by side, with a legend that says the numbers."""
    total = sum(part.number for part in parts)
    at, blocks, legend = 0.0, [], []
    for index, part in enumerate(parts):
        # Neighbours of one tone are told apart by its strength.
        faded = 0.55 ** sum(other.tone == part.tone for other in parts[:index])
        width = 1000 * part.number / total if total else 0.0
        look = f'class="f-{part.tone}" fill-opacity="{max(faded, 0.15):.2f}"'
        blocks.append(f'<rect {look} x="{at:.2f}" width="{max(width - 3, 1):.2f}" height="16"/>')
        swatch = Markup(
            f'<svg viewBox="0 0 10 10" aria-hidden="true"><rect {look} width="10" height="10" rx="3"/></svg>'
        )
        legend.append(element("li", swatch, f"{part.name.replace('_', ' ')} {part.number}"))
        at += width
    opened = '<svg class="strip" viewBox="0 0 1000 16" preserveAspectRatio="none" aria-hidden="true">'
    return join(Markup(f"{opened}{''.join(blocks)}</svg>"), element("ul", *legend, css="legend"))


def timeline(rows: Iterable[tuple[str, str, object, object]]) -> Markup:
    """Return steps from top to bottom.

    Args:
        rows: tone, when, what, more.
    """
    return element(
        "ol",
        *(
            element(
                "li",
                element("span", when, css="when") if when else Markup(),
                element("span", what, css="what"),
                element("span", more, css="more"),
                css=tone,
            )
            for tone, when, what, more in rows
        ),
        css="timeline",
    )


def header(title: str, *below: object) -> Markup:
    """Return the page's head with Kavach's mark."""
    mark = (
        '<svg class="mark" viewBox="0 0 44 44" aria-hidden="true"><path class="shield" d="'
        'M22 3 38 9v12c0 10-7 16.5-16 20C13 37.5 6 31 6 21V9z"/><path class="tick" d="m14.5 22 5.5 5.5L30 17"/></svg>'
    )
    return element("header", Markup(mark), element("div", element("h1", title), *below), css="head")


def page(title: str, body: Markup, foot: object) -> str:
    """Return the whole page; it loads and runs nothing."""
    from kavach import __version__

    style = _read("report.css")
    digest = b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return Template(_read("report.html")).substitute(
        title=safe(title),
        style=style,
        style_digest=f"sha256-{digest}",
        version=safe(__version__),
        body=body,
        foot=safe(foot),
    )


def _read(name: str) -> str:
    with open(os.path.join(_FOLDER, name), encoding="utf-8") as file:
        return file.read()


def _point(value: float, radius: float) -> tuple[float, float]:
    angle = math.pi * (1 - value / 100)
    return _CENTRE_X + radius * math.cos(angle), _CENTRE_Y - radius * math.sin(angle)


def _arc(low: float, high: float) -> str:
    (x1, y1), (x2, y2) = _point(low, _RADIUS), _point(high, _RADIUS)
    return f"M{x1:.2f} {y1:.2f}A{_RADIUS:g} {_RADIUS:g} 0 0 1 {x2:.2f} {y2:.2f}"
