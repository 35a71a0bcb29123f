"""The exact engine: expressions compiled for RE2, which takes time linear in the text, whatever the expression.

Enforces: bytes are read as Latin-1, so that every byte is one character; nothing is logged. Does not: choose rules.
May be used by: kavach.gate.
"""

from __future__ import annotations

from typing import Any

from kavach.errors import InternalError

_MEMORY_BYTES = 64 << 20  # what RE2 may use for one expression; with less it is slower, never wrong


def compile_expression(expression: str, name: str) -> Any:  # noqa: ANN401 - the engine ships no types
    """Return an expression that RE2 has read.

    Args:
        expression: RE2 syntax.
        name: whose it is, for the message: an expression may hold a secret.

    Raises:
        InternalError: the engine refuses it.
    """
    import re2

    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.log_errors = False
    options.max_mem = _MEMORY_BYTES
    try:
        return re2.compile(expression.encode("latin-1"), options)
    except re2.error:
        raise InternalError(f"rule {name}: the engine refuses its expression") from None
    finally:
        re2.purge()  # SECURITY: its cache would keep a run's secrets, which are expressions here, for the next run
