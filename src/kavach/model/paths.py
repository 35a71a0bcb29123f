"""Paths as texts have one spelling each, so that comparing texts compares what they name.

Enforces: absolute, normalised paths without `..` and NUL. Does not: look at a file system; a symbolic link
can still make one path mean another, which whoever opens it must hold (`openat2` with RESOLVE_BENEATH). May
be used by: the model and the pure policy functions.
"""

from __future__ import annotations

__all__ = ["is_at_or_below", "path_problem"]

MAX_PATH_BYTES = 4095  # PATH_MAX without its NUL, linux/limits.h


def path_problem(path: str) -> str | None:
    """Return what is wrong with an absolute path, or None.

    Args:
        path: the text of a path.
    """
    if "\0" in path:
        return "expected a path without NUL bytes"
    if not path.startswith("/"):
        return f"expected an absolute path, got {path!r}"
    if path == "/":
        return None
    if path.startswith("//") or path.endswith("/") or any(p in {"", ".", ".."} for p in path[1:].split("/")):
        return f"expected a normalised path without '.', '..', '//' or a final '/', got {path!r}"
    try:
        size = len(path.encode())
    except UnicodeEncodeError:
        return f"expected a path that is UTF-8, which records need, got {path!r}"
    return None if size <= MAX_PATH_BYTES else f"expected at most {MAX_PATH_BYTES} bytes, got {size}"


def is_at_or_below(path: str, parent: str) -> bool:
    """Return whether `path` is `parent` or lies below it, by the texts alone."""
    return parent in {"/", path} or path.startswith(parent + "/")
