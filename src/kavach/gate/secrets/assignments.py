"""Values that are given a secret's name: in the environment, in YAML, JSON, TOML, XML, shell, Python and the like.

Enforces: a name counts by its last words, so that a secret's id, file or length is none; a key or token has to look
generated, a password only not like a stand-in. Does not: find a secret without a name, or a password that is a common
word. May be used by: kavach.gate.secrets.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from kavach.gate.expression import parse
from kavach.gate.rule import Rule, text_parts
from kavach.gate.secrets.chance import is_random, is_stand_in
from kavach.gate.secrets.connections import is_password
from kavach.gate.secrets.shape import OPERATOR, REST, is_apart
from kavach.gate.seeds import longest
from kavach.model.verdict import Severity

if TYPE_CHECKING:
    from collections.abc import Callable

    from kavach.gate.rule import Match

_KEY_WORDS = (
    r"((?i:api[_.-]?key|access[_.-]?key|(?:auth|app|account|admin|client|consumer|deploy|encryption|license|master"
    r"|private|secret|service|shared|signing|storage|subscription|webhook|application|integration)[_.-]?key|token|secret"
    r"|credentials?|creds?|auth))"
)
_PHRASE_WORDS = r"((?i:passw(?:or)?d|passphrase|passcode|pwd|pass))"
_BARE_PHRASE_WORDS = r"((?i:passw(?:or)?d|passphrase|passcode|pwd|[_-]pass))"  # PASS: is what tests print
_PLAIN_KEY = r"((?:_KEY|_key|Key))"

_NAME = r"([\w.\-]{0,40})"
_SIGNS = r"A-Za-z0-9_.=/+~@$%:!#^*-"
_VALUE = rf"([{_SIGNS}]{{10,400}}(?:&[@!#$%^*][&{_SIGNS}]{{0,100}})?)"  # & and a letter: an address' next value
_WORD = r"([^\s\x00-\x1f\x7f\"'`<>\\,;(){}]{5,200})"
_QUOTED_WORD = (
    rf"{_PHRASE_WORDS}{_NAME}{REST}(?:=>|:{{1,3}}=|[.?+|!]?={{1,3}}|\|\||:|,|\()"
    r"[ \t\\(\[]{0,8}[brufBRUF@]{0,2}\\?[\"'`]([^\s\"'`<>\\]{5,200})\\?[\"'`]"
)

# The last word of a name that says: this is about a secret, not the secret.
_ABOUT = frozenset(
    b"id ids name names url uri urls file files filename path paths dir directory length len size sizes type types "
    b"hash hashes version host hostname source location event str chars vault format expr expires expiry expiration "
    b"expire ttl timeout count index field fields column label labels prefix suffix pattern regex class env var "
    b"alias manager provider factory handler store storage algorithm alg policy policies header headers hint ref arn "
    b"method usage mode date time at created updated issuer endpoint scope scopes info message error errors help "
    b"description title text placeholder kind number address server service domain schema table map list set group "
    b"owner rotation request response reset required enabled disabled strength validator encoder encoding callback "
    b"page link button form input fn func function cls obj object parser stream begin end start stop position line "
    b"lines limit max min checksum digest encode decode split strip join replace get read load fingerprint accessor "
    b"sha1 sha256 md5 mesh down up press code".split()
)
_PUBLIC = re.compile(
    rb"(?:csrf|xsrf|authenticity|public|pagination|continuation|next_?page|next|page|sync|cursor|cancel(?:lation)?|nonce"
    rb"|author|verification|request|sort|primary|foreign|partition|cache|hot|short_?cut|bucket|translation|i18n|anti_?forgery"
    rb"|idempotency|registry|host|fingerprint|device_?id|object|row|group|hash|site|lock)[_.-]?\Z",
    re.IGNORECASE,
)
_NAME_BYTES = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_$.-"
_WORDS = re.compile(rb"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_CALL = re.compile(rb"[A-Za-z_][\w]*(?:\.[A-Za-z_]\w*)+\Z|[A-Za-z_]\w*[(\[]")
_FILE = re.compile(
    rb"(?:\.{0,2}/|~/|[A-Za-z]:\\|file:|https?:)|.*\.(?:pem|key|crt|cer|json|ya?ml|txt|html?|com|net|org|io|py|js|ts|go|java|properties)\Z"
)


def _is_secret_name(before: bytes, word: bytes, rest: bytes) -> bool:
    """Whether a name is a secret's, from what stands before and behind the word that gave it away."""
    if _is_longer_word(word, rest):
        return False
    words = _WORDS.findall(rest)
    if words and words[-1].lower() in _ABOUT:
        return False
    return _PUBLIC.search(before[len(before.rstrip(_NAME_BYTES)) :]) is None


def _is_longer_word(word: bytes, rest: bytes) -> bool:
    """Whether the word goes on: keyframe, tokenizer, AUTHENTICITY."""
    tail = rest.removeprefix(b"s").removeprefix(b"S") if rest[:1] in {b"s", b"S"} else rest
    return tail[:1].isalpha() and tail[:1].isupper() == word[-1:].isupper()


def _is_key(found: Match) -> bool:
    value = found.group(3)
    if (
        not _is_secret_name(found.before(60), found.group(1), found.group(2))
        or _FILE.match(value)
        or _CALL.match(value)
    ):
        return False
    return is_random(value) and found.after(1) not in {b"(", b"["}


def _is_plain_key(found: Match) -> bool:
    return is_apart(found, 3) and _is_key(found)


def _is_quoted_password(found: Match) -> bool:
    value = found.group(3)
    is_file = found.before(1) == b"/"  # /etc/passwd
    return not is_file and _is_secret_name(b"", found.group(1), found.group(2)) and _is_chosen(value)


def _is_bare_password(found: Match) -> bool:
    written = found.group(3)
    value = written if written.isascii() else max(text_parts(written), key=len, default=b"")
    value = value.rstrip(b".,;:&")
    if not _is_secret_name(b"", found.group(1), found.group(2)) or _CALL.match(value) or found.after(1) in {b"(", b"["}:
        return False
    return len(value) >= 8 and _is_chosen(value)


def _is_chosen(value: bytes) -> bool:
    """Whether somebody may have chosen this as a password: two kinds of characters, and no template, name or path."""
    if not is_password(value) or _FILE.match(value) or b"://" in value or _CALL.match(value):
        return False
    digits = any(0x30 <= byte <= 0x39 for byte in value)
    letters = any(byte >= 0x41 and chr(byte).isalpha() for byte in value)
    signs = any(chr(byte) in "!#$%&*+?@^~" for byte in value)
    return letters and (digits or signs) and not is_stand_in(value)


def _rule(
    name: str,
    message: str,
    expression: str,
    literals: tuple[bytes, ...],
    accept: Callable[[Match], bool],
) -> Rule:
    size = longest(parse(expression)) or 0
    return Rule(name, "generic", Severity.MEDIUM, message, expression, size, literals, 3, accept)


ASSIGNMENT_RULES = (
    _rule(
        "generic-secret",
        "A value that is named a key, token or secret.",
        _KEY_WORDS + _NAME + REST + OPERATOR + _VALUE,
        (b"key", b"token", b"secret", b"cred", b"auth"),
        _is_key,
    ),
    _rule(
        "generic-key",
        "A value that is named a key.",
        _PLAIN_KEY + _NAME + REST + OPERATOR + _VALUE,
        (b"key",),
        _is_plain_key,
    ),
    _rule(
        "generic-password", "A value that is named a password.", _QUOTED_WORD, (b"pass", b"pwd"), _is_quoted_password
    ),
    _rule(
        "generic-bare-password",
        "A value that is named a password.",
        _BARE_PHRASE_WORDS + _NAME + r"[\"'`]?[ \t]{0,4}(?:=|:|>)[ \t]{0,4}" + _WORD,
        (b"pass", b"pwd"),
        _is_bare_password,
    ),
)
