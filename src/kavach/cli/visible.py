"""Untrusted bytes -> text that a terminal only shows.

Guarantees: of control characters only line feed and tab reach the terminal; every other one (C0, DEL, C1 in either
encoding), bytes that are no UTF-8, and the characters that reorder or hide text are spelt out, wherever a chunk ends.
Does not: judge the text itself, or join what two streams write. Pure. May be called by: kavach.cli.
"""

from __future__ import annotations

import codecs


def _spelling(number: int) -> str:
    if number < 0x20:
        return f"^{chr(number + 0x40)}"
    if number == 0x7F:
        return "^?"
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


# SECURITY: ESC begins sequences that set the clipboard, the title, or make the terminal type (OSC 52, DECRQSS);
# U+0080..9F are the same as one character. The others let a line read as what it is not (Trojan Source).
_CONTROLS = (*(set(range(0x20)) - {0x09, 0x0A}), *range(0x7F, 0xA0))
_MISLEADING = (
    0x061C,
    0x200E,
    0x200F,
    *range(0x2028, 0x202F),
    *range(0x2060, 0x2070),
    0xFEFF,
    *range(0xFFF9, 0xFFFC),
    *range(0xE0000, 0xE0080),
)
_SPELT = {number: _spelling(number) for number in (*_CONTROLS, *_MISLEADING)}


def make_visible(text: str) -> str:
    """Return a text with nothing in it that a terminal would act upon, but for line feeds and tabs."""
    return text.translate(_SPELT)


class Filter:
    """One stream on its way to a terminal."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")

    def feed(self, chunk: bytes, *, final: bool = False) -> bytes:
        """Return what may be shown now; a character that a chunk cuts in two waits for its rest.

        Args:
            chunk: the next bytes.
            final: no more come; what waits is spelt out.
        """
        return make_visible(self._decoder.decode(chunk, final)).encode("utf-8", "backslashreplace")
