"""E-mail addresses; those of example domains and of machines are told apart.

Does not: accept a quoted local part or a bare host, or ask whether a domain exists. May be used by:
kavach.gate.personal.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from kavach.gate.rule import Rule, text_parts
from kavach.model.verdict import Severity

if TYPE_CHECKING:
    from kavach.gate.rule import Match

# RFC 5321 section 4.5.3.1.1: 64. Of RFC 5322's other characters none is in use, and = or / stand before addresses.
_LOCAL = r"[A-Za-z0-9._%+~\x80-\xff-]{1,64}"
_LABEL = r"[A-Za-z0-9\x80-\xff][A-Za-z0-9\x80-\xff-]{0,62}\."  # RFC 1035 2.3.4: 63
# The first label stands by itself: the set engine then asks for what is around the @ (kavach.gate.seeds).
_DOMAIN = rf"{_LABEL}(?:{_LABEL}){{0,7}}(?:xn--[A-Za-z0-9-]{{1,59}}|[A-Za-z\x80-\xff]{{2,63}})"
# The group holds the address; before it stands nothing that could be part of it, nor of a path.
_EXPRESSION = rf"(?:^|[^A-Za-z0-9._%+~\x80-\xff/@-])({_LOCAL}@{_DOMAIN})"
_MAX_BYTES = 254 + 64  # RFC 5321 4.5.3.1.3, and what a label may run over

_TOKEN_BYTES = 80
_USER_OF_URL = re.compile(rb"://[^\s/@?]*$")  # RFC 3986 section 3.2.1: `https://user:word@host/` names a host
_MARKS = frozenset({b".", b"_", b"%", b"+", b"~", b"-"})
_RESERVED = (b"example", b"test", b"invalid", b"localhost", b"local", b"internal")  # RFC 2606, 6761, 6762
_EXAMPLES = (b"example.com", b"example.net", b"example.org", b"example.edu")  # RFC 2606 section 3
_BELOW_EXAMPLES = tuple(b"." + domain for domain in _EXAMPLES)
_MACHINES = (b"noreply", b"no-reply", b"donotreply", b"nobody")
_MACHINE_DOMAINS = (b"users.noreply.github.com", b"noreply.github.com", b"localdomain")
# Endings of file names that are no top-level domain of IANA's list: `icon@2x.png` is a picture.
_FILES = frozenset(
    b"png jpg jpeg gif svg webp css js ts json html htm xml txt md jsx tsx map exe dll so whl gz".split()
)


def _written(address: bytes) -> bytes:
    """What of an address is text, without the noise that the expression took for letters."""
    return address if address.isascii() else next((part for part in text_parts(address) if b"@" in part), b"")


def _is_address(found: Match) -> bool:
    local, _, domain = _written(found.group(1)).rpartition(b"@")
    if not local or b"." not in domain[:-2]:  # noise beside an @, as in pictures and archives
        return False
    if b".." in local or local[:1] in _MARKS or local.endswith(b".") or domain.rpartition(b".")[2].lower() in _FILES:
        return False
    if any(label.endswith(b"-") for label in domain.split(b".")):
        return False
    start, after = found.spans[1][0], found.after()[:2]
    before = found.text[max(0, start - _TOKEN_BYTES) : start]
    is_head = after[:1] in {b"@", b"("} or (after[:1] == b"-" and after[1:].isalnum())
    return not is_head and _USER_OF_URL.search(before) is None


def _is_example(found: Match) -> bool:
    local, _, domain = found.group(1).lower().rpartition(b"@")
    if domain.rpartition(b".")[2] in _RESERVED or domain in _MACHINE_DOMAINS or local in _MACHINES:
        return True
    if local == b"git" and found.after()[:1] in {b":", b"/"}:
        return True
    return domain in _EXAMPLES or domain.endswith(_BELOW_EXAMPLES)


def _accept_person(found: Match) -> bool:
    return not _is_example(found) and _is_address(found)


def _accept_example(found: Match) -> bool:
    return _is_example(found) and _is_address(found)


EMAIL_RULES = (
    Rule(
        name="email-address",
        category="contact",
        severity=Severity.LOW,
        message="An e-mail address.",
        expression=_EXPRESSION,
        max_bytes=_MAX_BYTES,
        literals=(b"@",),
        group=1,
        accept=_accept_person,
    ),
    Rule(
        name="email-address-example",
        category="contact",
        severity=Severity.INFO,
        message="An e-mail address of an example domain or of a machine.",
        expression=_EXPRESSION,
        max_bytes=_MAX_BYTES,
        literals=(b"@",),
        group=1,
        accept=_accept_example,
    ),
)
