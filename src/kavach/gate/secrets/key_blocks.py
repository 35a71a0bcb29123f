"""Private keys as whole blocks: PEM, OpenSSH, PGP, PuTTY, SSH2, encrypted or not, and keys written as one value.

Enforces: a block is one match from its first to its last byte, also with its lines joined by escapes, quoted or
indented, and also where its end is missing. Does not: decode a key, or tell an encrypted one to be less worth: its
passphrase may stand beside it. May be used by: kavach.gate.secrets.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from kavach.gate.rule import Rule
from kavach.gate.secrets.shape import keyed, token
from kavach.model.verdict import Severity

if TYPE_CHECKING:
    from kavach.gate.rule import Match

_BLOCK_BYTES = 32 << 10  # RSA of 16,384 bits is 13 KiB of PEM; quoting and indents may double it
_KEY_BYTES = 40  # the shortest real body: Ed25519 in PKCS #8 is 64 characters of base64; a cut one still has a line

_NAME = r"[A-Z0-9 _-]{0,50}PRIVATE KEY(?: BLOCK)? ?"
_BETWEEN = r"(?:\s|\\{1,4}[nrt]|\\|[\"'`+>,;|#*()]|&#10;|&#xA;|%0A|<br/?>){0,60}"
_HEADER = r"(?:Proc-Type|DEK-Info|Version|Comment|Subject|Hash|Charset|X-[A-Za-z-]{1,30}): ?[^\n\\]{0,200}"
_HEADERS = rf"(?:{_BETWEEN}{_HEADER})*"
_WHOLE = rf"(?:{_BETWEEN}[A-Za-z0-9+/=]+)*{_BETWEEN}-{{4,5}} ?END {_NAME}-{{4,5}}"
_CUT = rf"(?:{_BETWEEN}[A-Za-z0-9+/=]{{24,}})+(?:{_BETWEEN}[A-Za-z0-9+/]{{1,80}}={{0,2}})?"
_PEM = rf"(?:-----BEGIN|---- BEGIN) {_NAME}-{{4,5}}{_HEADERS}(?:{_WHOLE}|{_CUT})"

_PUTTY_LINES = r"(?:\s+[A-Za-z0-9+/]{4,}={0,2})*"
_PUTTY = (
    r"PuTTY-User-Key-File-[0-9]:(?:[^\n]*\n)*?Private-Lines: [0-9]{1,4}"
    rf"(?:{_PUTTY_LINES}\s+Private-(?:MAC|Hash): [0-9a-f]{{8,128}}|{_PUTTY_LINES})"
)
_ARMOUR = re.compile(rb"-{4,5} ?(?:BEGIN|END)[A-Z0-9 _-]*-{4,5}|[A-Za-z0-9-]+: ?[^\n\\]*")
_NO_KEY = re.compile(rb"[^A-Za-z0-9+/=]|\\+[nrt]")


def _has_body(found: Match) -> bool:
    body = _NO_KEY.sub(b"", _ARMOUR.sub(b"", found.group()[:_BLOCK_BYTES].replace(b"\\n", b"\n")))
    return len(body) >= _KEY_BYTES and len(set(body)) > 8


def _has_key_type(found: Match) -> bool:
    """A private member counts beside what says that this is a JSON web key (RFC 7517 section 4)."""
    return b'"kty"' in found.before() or b'"crv"' in found.before() or b'"n"' in found.before()


KEY_RULES = (
    Rule(
        "private-key",
        "private_key",
        Severity.CRITICAL,
        "A private key.",
        _PEM,
        _BLOCK_BYTES,
        (b"private key",),
        0,
        _has_body,
    ),
    Rule(
        "putty-private-key",
        "private_key",
        Severity.CRITICAL,
        "A private key of PuTTY.",
        _PUTTY,
        _BLOCK_BYTES,
        (b"putty-user-key-file",),
    ),
    Rule(
        "xml-private-key",
        "private_key",
        Severity.CRITICAL,
        "A private key in XML.",
        r"(?:<D>|<InverseQ>|<DP>|<DQ>)\s{0,40}([A-Za-z0-9+/\s]{40,1000}={0,2})\s{0,40}</",
        1200,
        (b"<d>", b"<inverseq>", b"<dp>", b"<dq>"),
        1,
    ),
    Rule(
        "json-web-key",
        "private_key",
        Severity.CRITICAL,
        "The private part of a JSON web key.",
        r"\"(?:d|p|q|dp|dq|qi|k)\"\s{0,4}:\s{0,4}\"([A-Za-z0-9_-]{40,700})\"",
        720,
        (b'"',),
        1,
        _has_key_type,
    ),
    keyed(
        "ledger-private-key",
        "private_key",
        Severity.CRITICAL,
        "A private key of a ledger's account.",
        ("private_?key", "priv_?key", "wallet_?key", "eth_?key", "deployer_?key", "signer_?key", "mnemonic_?key"),
        "(?:0x)?[0-9a-fA-F]{64}",
        bits=3.0,
    ),
    token(
        "age-secret-key",
        "private_key",
        Severity.CRITICAL,
        "A private key of age.",
        r"AGE-SECRET-KEY-(?:PQ-)?1[QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L]{58,80}",
        (b"age-secret-key-",),
        bits=0.5,
        may_stand_in=True,
    ),
    token(
        "wireguard-private-key",
        "private_key",
        Severity.CRITICAL,
        "A private key of WireGuard.",
        r"(?:PrivateKey|PresharedKey|private_key|wg_key)\s{0,4}[=:]\s{0,4}[\"']?([A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=)",
        (b"privatekey", b"presharedkey", b"private_key", b"wg_key"),
        group=1,
        bits=4.0,
    ),
    token(
        "minisign-secret-key",
        "private_key",
        Severity.CRITICAL,
        "A private key of minisign.",
        r"RWRTY0Iy[A-Za-z0-9+/]{200,204}={0,2}",
        (b"rwrty0iy",),
    ),
    token(
        "nostr-secret-key",
        "private_key",
        Severity.HIGH,
        "A private key of Nostr.",
        r"nsec1[qpzry9x8gf2tvdw0s3jn54khce6mua7l]{58}",
        (b"nsec1",),
    ),
)
