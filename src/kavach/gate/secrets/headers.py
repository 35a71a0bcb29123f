"""Credentials in HTTP: authorization headers, cookies, and what is given to curl.

Does not: redact a request's other headers. May be used by: kavach.gate.secrets.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from kavach.gate.rule import Rule
from kavach.gate.secrets.chance import entropy, is_random, is_stand_in
from kavach.gate.secrets.connections import is_password
from kavach.gate.secrets.web_tokens import decoded
from kavach.model.verdict import Severity

if TYPE_CHECKING:
    from kavach.gate.rule import Match

_OPEN = r"[\"'`\\]{0,4}\s{0,4}(?:=>|[:=,(])\s{0,4}[brufBRUF]{0,2}[\"'`\\]{0,4}"
_BASIC = rf"(?i:authorization){_OPEN}(?i:basic)[ \t]{{1,4}}([A-Za-z0-9+/_-]{{8,400}}={{0,3}})"
_BEARER = (
    rf"(?i:authorization){_OPEN}(?i:bearer|token|api-?key|apikey|api-?token|key|splunk|genie-?key|ssws|negotiate|digest)"
    r"[ \t]{1,4}(?:token=)?[\"']?([A-Za-z0-9._~+/=:@|-]{8,1000})"
)
_RAW = rf"(?i:authorization){_OPEN}([A-Za-z0-9._~+/=@|-]{{16,1000}})"
_LONE_BEARER = r"(?:Bearer|bearer|BEARER)[ \t]{1,4}([A-Za-z0-9._~+/=-]{20,1000})"
_LOGIN = (
    r"(?:[ \t\n]-[uU]|--(?:proxy-)?user)(?:[ \t]{1,4}|=|[ \t]?\\?[\"'])"
    r"[\"'\\{]{0,3}([^\s\"':{}\\]{1,100})[\"'}]{0,2}:"
    r"[\"'\\]{0,2}([^\s\"'`]{3,100})"
)
_CURL = re.compile(rb"\b(?:curl|wget|http|https|xh)\b")

# Names of session cookies that frameworks set by default.
_SESSIONS = (
    r"PHPSESSID|JSESSIONID|ASP\.NET_SessionId|ASPSESSIONID[A-Z]{8}|\.AspNetCore\.(?:Cookies|Session|Identity[.\w]{0,30})"
    r"|connect\.sid|laravel_session|remember_user_token|user_session|_session_id|sessionid|session_id|session_token"
    r"|__Secure-next-auth\.session-token|next-auth\.session-token|wordpress_logged_in_[0-9a-f]{32}|XSRF-TOKEN|li_at"
    r"|CFAuth|CF_Authorization|_oauth2_proxy|authelia_session|grafana_session|access_token_cookie|refresh_token_cookie"
)
_COOKIE = rf"(?:{_SESSIONS})=([A-Za-z0-9%._~+/=:|!-]{{16,1000}})"
_COOKIE_LINE = (
    r"(?i:cookie)[\"']?\s{0,3}[:=]\s{0,3}[\"']?[^\r\n\"']{0,300}?(?i:session|sess|sid|auth|token|jwt|login|remember)"
    r"[\w.-]{0,30}=([A-Za-z0-9%._~+/=:|!-]{16,1000})"
)


def _is_basic(found: Match) -> bool:
    user, colon, word = decoded(found.group(1)).partition(b":")
    return bool(colon) and user.isascii() and not user.startswith(b"{") and len(word) > 0 and not is_stand_in(word)


def _is_bearer(found: Match) -> bool:
    value = found.group(1)
    if is_stand_in(value) or found.after(1) in {b"$", b"{", b"<"}:
        return False
    return is_random(value) or (len(value) >= 12 and any(map(_is_digit, value)) and entropy(value) > 2.8)


def _is_digit(byte: int) -> bool:
    return 0x30 <= byte <= 0x39


def _is_lone(found: Match) -> bool:
    return is_random(found.group(1))


def _is_login(found: Match) -> bool:
    word = found.group(2)
    if word[:1] == b"{" and word[1:2] != b"{":
        word = word.strip(b"{}")  # IBM's documentation writes keys so, and people keep the braces
    return _CURL.search(found.before()) is not None and is_password(word)


def _is_cookie(found: Match) -> bool:
    value = found.group(1)
    return not is_stand_in(value) and entropy(value) >= 3.0 and any(map(_is_digit, value))


HEADER_RULES = (
    Rule(
        "basic-auth-header",
        "basic_auth",
        Severity.HIGH,
        "A user and password in a header.",
        _BASIC,
        460,
        (b"authorization",),
        1,
        _is_basic,
    ),
    Rule(
        "authorization-header",
        "basic_auth",
        Severity.HIGH,
        "A credential in an authorization header.",
        _BEARER,
        1080,
        (b"authorization",),
        1,
        _is_bearer,
    ),
    Rule(
        "authorization-value",
        "basic_auth",
        Severity.HIGH,
        "A credential in an authorization header.",
        _RAW,
        1080,
        (b"authorization",),
        1,
        _is_lone,
    ),
    Rule("bearer-token", "basic_auth", Severity.HIGH, "A bearer token.", _LONE_BEARER, 1040, (b"bearer",), 1, _is_lone),
    Rule(
        "curl-login",
        "basic_auth",
        Severity.HIGH,
        "A user and password given to a web client.",
        _LOGIN,
        240,
        (b"-u", b"--user", b"--proxy-user"),
        2,
        _is_login,
    ),
    Rule(
        "session-cookie",
        "cookie",
        Severity.HIGH,
        "A session's cookie.",
        _COOKIE,
        1100,
        (
            b"sess",
            b"connect.sid",
            b"remember_user",
            b"xsrf-token",
            b"li_at",
            b"cf",
            b"_oauth2_proxy",
            b"aspnet",
            b"wordpress",
            b"cookie",
        ),
        1,
        _is_cookie,
    ),
    Rule(
        "cookie-header",
        "cookie",
        Severity.HIGH,
        "A credential in a cookie.",
        _COOKIE_LINE,
        1400,
        (b"cookie",),
        1,
        _is_cookie,
    ),
)
