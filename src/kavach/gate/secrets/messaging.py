"""Tokens of chat, mail and telephone services: who has one speaks as somebody else.

May be used by: kavach.gate.secrets.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from kavach.gate.rule import Rule
from kavach.gate.secrets.chance import entropy
from kavach.gate.secrets.shape import keyed, token
from kavach.model.verdict import Severity

if TYPE_CHECKING:
    from kavach.gate.rule import Match

_DISCORD_PARTS = re.compile(rb"[MNO][A-Za-z0-9_-]{22,25}\.[\w-]{6}\.(?:[\w-]{27}|[\w-]{38})\Z")
_BOT_ID = re.compile(rb"(?:\A|[^A-Za-z0-9]|\\[nrt])[0-9]{8,10}\Z")
_APP_ID = re.compile(rb"(?:\A|[^A-Za-z0-9]|\\[nrt])[0-9]{15,16}\Z")
_MIXED_BITS = 3.6


def _is_discord(value: bytes) -> bool:
    return _DISCORD_PARTS.match(value) is not None and entropy(value) > _MIXED_BITS


def _has_digit(value: bytes) -> bool:
    return any(0x30 <= byte <= 0x39 for byte in value)


def _is_mixed(value: bytes) -> bool:
    return _has_digit(value) and value.upper() != value


def _is_unmasked(value: bytes) -> bool:
    """A user's token ends in hex digits; where only its ids are left, the rest was masked."""
    return not value.startswith((b"xoxp-", b"xoxe-")) or not value[5:].replace(b"-", b"").isdigit()


def _is_workspace(value: bytes) -> bool:
    return value[5:].replace(b"-", b"").isalnum()


def _is_telegram(found: Match) -> bool:
    """A bot's token follows its id, which is public."""
    return _BOT_ID.search(found.before(14)) is not None and entropy(found.group()) >= _MIXED_BITS


def _is_facebook_app(found: Match) -> bool:
    """An app's secret follows its id, which is public."""
    return _APP_ID.search(found.before(20)) is not None and entropy(found.group()) >= _MIXED_BITS


MESSAGING_RULES = (
    token(
        "slack-token",
        "slack",
        Severity.CRITICAL,
        "A Slack token.",
        r"xox[abceoprs]-[0-9]{7,14}(?:-[A-Za-z0-9]{4,100}){1,6}",
        (b"xoxa-", b"xoxb-", b"xoxc-", b"xoxe-", b"xoxo-", b"xoxp-", b"xoxr-", b"xoxs-"),
        test=_is_unmasked,
    ),
    token(
        "slack-workspace-token",
        "slack",
        Severity.HIGH,
        "A Slack workspace token.",
        r"xox[ar]-(?:[0-9]-)?[0-9A-Za-z]{8,48}",
        (b"xoxa-", b"xoxr-"),
        bits=3.2,
        test=_is_workspace,
    ),
    token(
        "slack-configuration-token",
        "slack",
        Severity.HIGH,
        "A Slack configuration or rotated token.",
        r"xoxe(?:\.xox[bp])?-[0-9]-[A-Za-z0-9]{100,300}",
        (b"xoxe-", b"xoxe."),
    ),
    token(
        "slack-app-token",
        "slack",
        Severity.CRITICAL,
        "A Slack app-level token.",
        r"xapp-[0-9]-[A-Z0-9]{5,20}-[0-9]{8,20}-[A-Za-z0-9]{30,100}",
        (b"xapp-",),
    ),
    token(
        "slack-cookie",
        "slack",
        Severity.CRITICAL,
        "A Slack session cookie.",
        r"xoxd-[A-Za-z0-9%+/=_-]{40,400}",
        (b"xoxd-",),
    ),
    token(
        "slack-webhook",
        "slack",
        Severity.HIGH,
        "A Slack webhook.",
        r"hooks\.slack(?:-gov)?\.com\\?/(?:services|workflows|triggers)\\?/([A-Za-z0-9+/\\]{30,90})",
        (b"hooks.slack",),
        group=1,
        bits=3.2,
        may_touch=True,
    ),
    token(
        "teams-webhook",
        "teams",
        Severity.HIGH,
        "A Microsoft Teams webhook.",
        r"webhook\.office\.com/webhookb2/([a-z0-9-]{36}@[a-z0-9-]{36}/IncomingWebhook/[a-z0-9]{32}/[a-z0-9-]{36})",
        (b"webhook.office.com",),
        group=1,
    ),
    token(
        "discord-token",
        "discord",
        Severity.CRITICAL,
        "A Discord bot's token.",
        r"[MNO][A-Za-z0-9_-]{22,25}\.[\w-]{6}\.[\w-]{27,38}",
        (b".",),
        test=_is_discord,
    ),
    token(
        "discord-webhook",
        "discord",
        Severity.HIGH,
        "A Discord webhook.",
        r"discord(?:app)?\.com/api(?:/v[0-9]{1,2})?/webhooks/([0-9]{17,20}/[\w-]{60,80})",
        (b"/webhooks/",),
        group=1,
    ),
    keyed(
        "discord-secret",
        "discord",
        Severity.HIGH,
        "A Discord key, secret or client id.",
        ("discord",),
        "[a-f0-9]{64}|[A-Za-z0-9=_-]{32}|[0-9]{17,19}",
    ),
    Rule(
        "telegram-token",
        "telegram",
        Severity.CRITICAL,
        "A Telegram bot's token.",
        r":AA[\w-]{33}",
        36,
        (b":aa",),
        0,
        _is_telegram,
    ),
    keyed(
        "telegram-named-token",
        "telegram",
        Severity.CRITICAL,
        "A Telegram bot's token.",
        ("telegr", "tg_?bot"),
        r"[0-9]{5,16}:A[\w-]{34}",
        bits=3.0,
    ),
    token(
        "telegram-token-address",
        "telegram",
        Severity.CRITICAL,
        "A Telegram bot's token in an address.",
        r"api\.telegram\.org/bot([0-9]{5,16}:A[\w-]{34})",
        (b"api.telegram.org",),
        group=1,
    ),
    token("twilio-key", "twilio", Severity.HIGH, "A Twilio key.", r"SK[0-9a-fA-F]{32}", (b"sk",), bits=3.0),
    token("twilio-account", "twilio", Severity.LOW, "A Twilio account's id.", r"AC[0-9a-f]{32}", (b"ac",), bits=3.0),
    keyed(
        "twilio-auth-token",
        "twilio",
        Severity.CRITICAL,
        "A Twilio authentication token.",
        ("twilio",),
        "[0-9a-f]{32}",
        bits=3.0,
    ),
    token(
        "sendgrid-key",
        "sendgrid",
        Severity.CRITICAL,
        "A SendGrid key.",
        r"SG\.(?:[A-Za-z0-9_-]{16,32}\.[A-Za-z0-9_-]{16,64}|[A-Za-z0-9_=.-]{66})",
        (b"sg.",),
        bits=3.8,
    ),
    token(
        "mailgun-key", "mailgun", Severity.HIGH, "A Mailgun key.", r"(?:key|pubkey)-[a-f0-9]{32}", (b"key-",), bits=3.0
    ),
    token(
        "mailchimp-key",
        "mailchimp",
        Severity.HIGH,
        "A Mailchimp key.",
        r"[0-9a-f]{32}-us[0-9]{1,2}",
        (b"-us",),
        bits=3.0,
    ),
    token("brevo-key", "brevo", Severity.HIGH, "A Brevo key.", r"xkeysib-[a-f0-9]{64}-[A-Za-z0-9]{16}", (b"xkeysib-",)),
    token(
        "resend-key",
        "resend",
        Severity.HIGH,
        "A Resend key.",
        r"re_[A-Za-z0-9]{8}_[A-Za-z0-9]{24}",
        (b"re_",),
        bits=3.6,
        test=_has_digit,
    ),
    token("telnyx-key", "telnyx", Severity.HIGH, "A Telnyx key.", r"KEY[0-9A-F]{32}_[A-Za-z0-9]{22}", (b"key0",)),
    token(
        "facebook-token",
        "facebook",
        Severity.HIGH,
        "A Facebook token.",
        r"EAA[A-Za-z0-9]{60,400}",
        (b"eaa",),
        bits=3.8,
        test=_is_mixed,
    ),
    Rule(
        "facebook-app-token",
        "facebook",
        Severity.HIGH,
        "A Facebook app's access token.",
        r"(?:\||%7[Cc])[0-9A-Za-z][0-9A-Za-z_-]{26,40}",
        44,
        (b"|", b"%7c"),
        0,
        _is_facebook_app,
    ),
    keyed(
        "facebook-secret",
        "facebook",
        Severity.HIGH,
        "A Facebook secret.",
        ("facebook", "fb_?app"),
        "[a-f0-9]{32}",
        bits=3.0,
    ),
    keyed(
        "messagebird-key",
        "messagebird",
        Severity.HIGH,
        "A MessageBird key.",
        ("messagebird", "message-bird", "message_bird", "MessageBird"),
        "[A-Za-z0-9]{25}|[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}",
    ),
    keyed(
        "sendbird-token",
        "sendbird",
        Severity.HIGH,
        "A Sendbird token.",
        ("sendbird",),
        "[a-f0-9]{40}|[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}",
    ),
    keyed(
        "twitter-key",
        "twitter",
        Severity.HIGH,
        "A key or token of Twitter.",
        ("twitter",),
        r"A{22}[A-Za-z0-9%]{60,120}|[A-Za-z0-9]{45,50}|[A-Za-z0-9]{25}|[0-9]{15,25}-[A-Za-z0-9]{20,40}",
        bits=3.0,
    ),
    keyed(
        "mattermost-token",
        "mattermost",
        Severity.HIGH,
        "A Mattermost token.",
        ("mattermost",),
        "[a-z0-9]{26}",
        bits=3.0,
    ),
    keyed("gitter-token", "gitter", Severity.MEDIUM, "A Gitter token.", ("gitter",), "[a-z0-9_-]{40}", bits=3.0),
    keyed("twitch-token", "twitch", Severity.MEDIUM, "A Twitch token.", ("twitch",), "[a-z0-9]{30}", bits=3.0),
    keyed(
        "line-token",
        "line",
        Severity.HIGH,
        "A token of a LINE channel.",
        ("line_?channel", "line_?bot", "line_?notify"),
        "[A-Za-z0-9+/]{160,180}={0,2}|[a-f0-9]{32}|[A-Za-z0-9]{43}",
        bits=3.0,
    ),
)
