"""IP addresses of the public network, and apart from them those that say nothing about a person.

Does not: take a version, an object identifier, a time or a name in C++ for an address. May be used by:
kavach.gate.personal.
"""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import TYPE_CHECKING

from kavach.gate.rule import Rule
from kavach.model.verdict import Severity

if TYPE_CHECKING:
    from kavach.gate.rule import Match

_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_V4 = rf"{_OCTET}(?:\.{_OCTET}){{3}}"
_GROUP = r"[0-9A-Fa-f]{1,4}"
_V6 = (
    rf"(?:(?:{_GROUP}:){{1,7}}:|::)(?:(?:{_GROUP}:){{0,6}}(?:{_V4}|{_GROUP}))?"
    rf"|(?:{_GROUP}:){{6}}(?:{_GROUP}:{_GROUP}|{_V4})"
)
_MASKED_V4 = rf"{_V4}(?:/(?:3[0-2]|[12]?[0-9])\b)?"
_MASKED_V6 = rf"(?:{_V6})(?:%[0-9A-Za-z]{{1,16}})?(?:/(?:12[0-8]|1[01][0-9]|[1-9]?[0-9])\b)?"
# The group holds the address; what stands before it is no part of a word, a version or a longer address.
_EXPRESSION = rf"(?:^|[^0-9A-Za-z_.:-]|[^0-9A-Fa-f:]:)({_MASKED_V4}|{_MASKED_V6})"
_MAX_BYTES = 64
_ZONE_OR_MASK = re.compile(rb"[%/].*")
_PINNED = re.compile(rb"(?i)(?:[=<>~!^]=|\bv(?:er(?:sion)?)?\.?|version\W{1,4}|release|firmware|build)\s*[\"']?$")
_NETWORK_WORD = re.compile(rb"(?i)\b(?:ip|ips|ipv[46]|addr|address|host|src|dst|server|client|peer|dns|listen|"
                           rb"bind|unspecified|remote|gateway)\b[^\n]{0,12}$|\\b(?:from|to) $|://$|@$")  # fmt: skip
_SMALL_PARTS = 32
"""Four numbers all below this look like a version or a section of a text; then a word must say that they are not."""


def _address(found: Match) -> IPv4Address | IPv6Address | None:
    """Return the address that stands here by itself, or None."""
    text, after = found.group(1), found.after()[:2]
    is_v6 = b":" in text
    if (
        after[:1].isalnum()
        or after[:1] in {b"_", b"-"}
        or (is_v6 and after[:1] == b":" and after[1:].strip(b" \r\n\t"))
    ):
        return None
    start = found.spans[1][0]
    if is_v6 and ((after[:1] == b"." and after[1:].isdigit()) or found.text[max(0, start - 1) : start] == b":"):
        return None
    bare = _ZONE_OR_MASK.sub(b"", text).decode("ascii")
    try:
        address = IPv6Address(bare) if is_v6 else IPv4Address(bare)
    except AddressValueError:
        return None
    is_serial = is_v6 and all(len(part) == 2 for part in bare.split(":"))  # EUI-64, the start of a fingerprint
    return None if is_serial or (text == b"::" and not _is_named(found)) else address


def _lead(found: Match) -> bytes:
    """Return what stands before the address, as far as one line of context goes."""
    return found.before()[-40:] + found.text[found.spans[0][0] : found.spans[1][0]]


def _is_named(found: Match) -> bool:
    after = found.after()[:2]
    has_port = (after[:1] == b":" and after[1:].isdigit()) or b"/" in found.group(1)
    return has_port or _NETWORK_WORD.search(_lead(found)) is not None


def _is_reserved(address: IPv4Address | IPv6Address) -> bool:
    inner = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    seen = inner or address
    is_site = isinstance(seen, IPv6Address) and seen.is_site_local  # fec0::/10, RFC 3879
    return not seen.is_global or seen.is_multicast or seen.is_reserved or is_site


def _accept_public(found: Match) -> bool:
    address = _address(found)
    if address is None or _is_reserved(address) or _PINNED.search(_lead(found)):
        return False
    return isinstance(address, IPv6Address) or max(address.packed) >= _SMALL_PARTS or _is_named(found)


def _accept_reserved(found: Match) -> bool:
    address = _address(found)
    return address is not None and _is_reserved(address) and not _PINNED.search(_lead(found))


NETWORK_RULES = (
    Rule(
        name="ip-address",
        category="network",
        severity=Severity.LOW,
        message="A public IP address.",
        expression=_EXPRESSION,
        max_bytes=_MAX_BYTES,
        group=1,
        accept=_accept_public,
    ),
    Rule(
        name="ip-address-reserved",
        category="network",
        severity=Severity.INFO,
        message="An IP address of a private, local or documentation range.",
        expression=_EXPRESSION,
        max_bytes=_MAX_BYTES,
        group=1,
        accept=_accept_reserved,
    ),
)
