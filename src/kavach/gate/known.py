"""What Kavach itself handed to a command, and what it planted: looked for exactly, in every common encoding.

Enforces: an injected secret is found as it is, in base64 at any offset, hex, URL, JSON and other escapes, reversed, and
line by line. Does not: keep a value anywhere but in memory, or find one that was encrypted. Values shorter than
`SHORTEST_BYTES` are not looked for, encodings not for those shorter than `SHORTEST_ENCODED_BYTES`: they would be
found in every text. May be used by: kavach.gate.
"""

from __future__ import annotations

import base64
import html
import json
import urllib.parse
from typing import TYPE_CHECKING, NamedTuple

from kavach.gate.rule import Mark
from kavach.model.verdict import Severity

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

SHORTEST_BYTES = 6
SHORTEST_ENCODED_BYTES = 8
SHORTEST_LINE_BYTES = 20
"""A line of a value, as of a key file, is looked for by itself from this length on."""
_LONGEST_BYTES = 1 << 16  # longer values are recognised by their first so many bytes


class KnownSecret(NamedTuple):
    """A value that must not come out.

    Args:
        name: stands in `[REDACTED:<name>]`, in lower case.
        value: the bytes; they stay in memory.
        is_canary: it was planted: nobody had a reason to read it.
    """

    name: str
    value: bytes
    is_canary: bool = False

    def __repr__(self) -> str:
        return f"KnownSecret({self.name!r}, {len(self.value)} bytes)"


class Needle(NamedTuple):
    """A known value in every form in which it is looked for.

    Args:
        name: stands in the label, in lower case.
        category: `canary` or `injected_secret`.
        message: one sentence.
        forms: the bytes to look for.
    """

    name: str
    category: str
    message: str
    forms: frozenset[bytes]

    def mark(self, start: int, end: int) -> Mark:
        """Return the mark of a place where a form stands."""
        return Mark("known", self.name, self.category, Severity.CRITICAL, self.message, start, end)

    def __repr__(self) -> str:
        return f"Needle({self.name!r})"


def needles_of(secrets: Iterable[KnownSecret]) -> tuple[Needle, ...]:
    """Return what is looked for of each value that is long enough to be told from ordinary text."""
    return tuple(_needle(secret) for secret in secrets if len(secret.value) >= SHORTEST_BYTES)


def _needle(secret: KnownSecret) -> Needle:
    message = "A planted canary came out." if secret.is_canary else "A secret that this run was given came out."
    category = "canary" if secret.is_canary else "injected_secret"
    return Needle(secret.name.lower(), category, message, frozenset(_forms(secret.value[:_LONGEST_BYTES])))


def _forms(value: bytes) -> Iterator[bytes]:
    """Yield a value as it may appear."""
    yield value
    yield value[::-1]
    lines = value.split()
    if len(lines) > 1:
        yield b"\r\n".join(value.replace(b"\r\n", b"\n").split(b"\n"))
        yield from (line for line in lines if len(line) >= SHORTEST_LINE_BYTES)
    if len(value) >= SHORTEST_ENCODED_BYTES:
        yield from _base64_forms(value)
        yield from (value.hex().encode(), value.hex().upper().encode())
        yield base64.b32encode(value)[: len(value) // 5 * 8]
        yield from _escaped_forms(value)


def _base64_forms(value: bytes) -> Iterator[bytes]:
    """Yield what of the value's base64 does not depend on its neighbours, for each of the three offsets."""
    for offset in range(3):
        encoded = base64.b64encode(bytes(offset) + value)
        first = (offset * 8 + 5) // 6  # characters that hold a bit of what stands before
        last = (offset + len(value)) * 8 // 6  # the first character that holds a bit of what stands behind
        yield from {encoded[first:last], encoded[first:last].translate(_URL_ALPHABET)}


_URL_ALPHABET = bytes.maketrans(b"+/", b"-_")


def _escaped_forms(value: bytes) -> Iterator[bytes]:
    yield "".join(f"%{byte:02X}" for byte in value).encode()
    yield "".join(f"%{byte:02x}" for byte in value).encode()
    yield "".join(f"\\x{byte:02x}" for byte in value).encode()
    quoted = urllib.parse.quote_from_bytes(value, safe="")
    yield from (quoted.encode(), urllib.parse.quote_plus(value).encode(), urllib.parse.quote_from_bytes(value).encode())
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        return
    yield from (text.encode("utf-16-le"), text.encode("utf-16-be"))
    yield text.encode("latin-1", "replace")  # UTF-16 of Western text without its NULs
    for plain in (json.dumps(text), json.dumps(text, ensure_ascii=False)):
        yield plain[1:-1].encode("utf-8", "replace")
        yield plain[1:-1].replace("/", "\\/").encode("utf-8", "replace")
    yield html.escape(text).encode()
