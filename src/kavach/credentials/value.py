"""One value that can be used but neither printed, copied, pickled nor left in a rendered traceback.

Enforces: repr, str, format, pickle, copy, vars and slots show nothing. Does not: stop code of this process
that looks into the closure on purpose, or wipe what the interpreter copied before. May be called by:
`kavach.credentials` and, for `reveal` at the moment of a search, the gate.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NoReturn

from kavach.errors import CredentialError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["SecretValue"]


class SecretValue:
    """One value that prints as `SecretValue(***)` everywhere and can be neither copied nor pickled.

    Args:
        raw: the value; a `str` becomes UTF-8.

    Raises:
        CredentialError: `raw` is neither text nor bytes, or not encodable.
    """

    # SECURITY: a slot that held bytes would be printed by whatever walks the slots of an object; a closure
    # prints as a function.
    __slots__ = ("_held",)

    def __init__(self, raw: str | bytes | bytearray = b"") -> None:
        held = bytearray()
        self._held: Callable[[], bytearray] = lambda: held
        encoded = True
        try:
            held += raw.encode("utf-8", "surrogateescape") if isinstance(raw, str) else memoryview(raw)
        except (UnicodeEncodeError, TypeError):
            encoded = False
        # SECURITY: a traceback can be rendered with the variables of its frames, so the value is in none when
        # the error is raised; and the exception above, which quotes the value, is not chained to it.
        del raw
        if not encoded:
            raise CredentialError("a secret's value must be bytes, or text that UTF-8 can hold")

    @property
    def size_bytes(self) -> int:
        """The length of the value; 0 after `wipe`."""
        return len(self._held())

    def clone(self) -> SecretValue:
        """Return a second holder of the value, for an owner that wipes its own."""
        return SecretValue(self._held())

    def reveal(self) -> bytes:
        """Return a copy of the value; the caller keeps it out of variables that outlive the use."""
        return bytes(self._held())

    def has_nul(self) -> bool:
        """Return whether the value holds a NUL byte."""
        return b"\0" in self._held()

    def read_from(self, fd: int, *, limit_bytes: int) -> None:
        """Append what a descriptor holds, up to one byte more than the limit.

        Args:
            fd: an open descriptor.
            limit_bytes: protects the host's memory; a value of more bytes is one that the caller refuses.

        Raises:
            OSError: the descriptor could not be read.
        """
        while self.size_bytes <= limit_bytes:
            before = self.size_bytes
            self._held().extend(os.read(fd, limit_bytes + 1 - before))
            if self.size_bytes == before:
                return

    def write_to(self, fd: int) -> None:
        """Write the whole value to a descriptor.

        Args:
            fd: an open descriptor.

        Raises:
            OSError: the descriptor could not be written.
        """
        done = 0
        while done < self.size_bytes:
            with memoryview(self._held()) as whole, whole[done:] as rest:
                done += os.write(fd, rest)

    def strip_newline(self) -> None:
        """Remove one line end at the end, in place."""
        for end in (b"\r\n", b"\n"):
            if self._held().endswith(end):
                del self._held()[-len(end) :]
                return

    def wipe(self) -> None:
        """Overwrite the value with zeros and forget it."""
        self._held()[:] = bytes(self.size_bytes)
        self._held().clear()

    def __repr__(self) -> str:
        return "SecretValue(***)"

    def __format__(self, format_spec: str) -> str:
        return repr(self)

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise CredentialError("a secret's value can be neither copied nor pickled")

    def __getstate__(self) -> NoReturn:
        raise CredentialError("a secret's value can be neither copied nor pickled")
