"""Passwords in addresses: databases, brokers and everything else that is reached by a URL.

Enforces: of a database's or broker's address the whole goes, since host and user are half of the way in; of another
address the password goes. Does not: resolve or connect. May be used by: kavach.gate.secrets.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from kavach.gate.rule import Rule
from kavach.gate.secrets.chance import is_random, is_stand_in
from kavach.gate.secrets.published import is_published
from kavach.model.verdict import Severity

if TYPE_CHECKING:
    from kavach.gate.rule import Match

_SCHEMES = (
    "postgres(?:ql)?|mysqlx?|mariadb|mongodb|rediss?|valkeys?|amqps?|mssql|sqlserver|oracle|db2|cockroach(?:db)?"
    "|clickhouse|cassandra|couchdb|neo4js?|bolts?|influxdb|elasticsearch|kafka|nats|mqtts?|stomp|memcached?|snowflake"
    "|redshift|trino|presto|hive|teradata|vertica|ldaps?|smtps?|imaps?|pop3s?|cloudinary|sentinel|libsql|firebird|sqlite"
)
_USER = r"[^\s:/?#@\"'<>\\(){}]{0,100}"
_WORD = r"[^\s/@\"'<>\\`]{1,200}"
_HOST = r"[A-Za-z0-9_\[][\w.\-:\]%,]{0,400}"
_REST = r"(?:[/?][^\s\"'<>`\\]{0,600})?"
_STORE = rf"(?:{_SCHEMES})(?:\+[a-z0-9]{{1,20}})?://({_USER}):({_WORD}(?:@{_WORD}){{0,2}})@({_HOST}){_REST}"
_ANY = rf"://({_USER}):({_WORD}(?:@{_WORD}){{0,2}})@({_HOST})"

# What documentation writes for a password; a person who uses one has no secret left.
_WORDS = frozenset(
    b"password 1password word passwd pass pwd passw0rd secret user username test admin root guest token pw key "
    b"mypassword mypass foo bar baz xxx xxxx yyy abc hunter2 apikey api_key access_token userpass p@ssw0rd "
    b"p%40ssw0rd postgres mysql redis mongo rabbitmq example pswd 123 1234 12345 123456 x-oauth-basic x-token-auth "
    b"oauth2 db_password dbpass mysecretpassword changeit your_password user_password port 443 80".split()
)
_TEMPLATE = re.compile(rb"(?:[$%#]?[{\[<(].*|\$\w+|%\w*%|%[a-z]|[*.x_-]+|@\w+@)\Z", re.IGNORECASE | re.DOTALL)
_VARIABLE = re.compile(rb"[A-Z][A-Z_]{2,}\Z")
_PORT = re.compile(rb"[0-9]{1,5}\Z")
_SCHEME = re.compile(rb"([A-Za-z][A-Za-z0-9.]{1,20})(?:\+[a-z0-9]{1,20})?\Z")
_STORES = frozenset(b"postgres postgresql mysql mariadb mongodb redis rediss amqp amqps mssql sqlserver".split())


def is_password(value: bytes) -> bool:
    """Whether a value is not one of the words and templates that stand where a password will."""
    if value.lower() in _WORDS or is_stand_in(value) or is_published(value):
        return False
    return _VARIABLE.match(value) is None and _TEMPLATE.match(value) is None


def _is_store(found: Match) -> bool:
    user, word = found.group(1), found.group(2)
    return is_password(word) and user != word


def _is_address(found: Match) -> bool:
    scheme = _SCHEME.search(found.before(24))
    if scheme is None or scheme.group(1).lower() in _STORES:
        return False
    word = found.group(2)
    return is_password(word) and word != found.group(1) and not (_PORT.match(word) and b"/" in found.group(3))


def _is_token_user(found: Match) -> bool:
    return is_random(found.group(1))


CONNECTION_RULES = (
    Rule(
        "database-url",
        "database",
        Severity.HIGH,
        "The address of a database or broker, with its password.",
        _STORE,
        2600,
        (b"://",),
        0,
        _is_store,
    ),
    Rule(
        "url-password", "basic_auth", Severity.HIGH, "A password in an address.", _ANY, 1400, (b"://",), 2, _is_address
    ),
    Rule(
        "url-token",
        "basic_auth",
        Severity.HIGH,
        "A token in an address.",
        r"://([A-Za-z0-9_-]{20,255})(?::(?:x-oauth-basic|x-access-token)?)?@[A-Za-z0-9]",
        300,
        (b"://",),
        1,
        _is_token_user,
    ),
)
