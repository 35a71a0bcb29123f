"""`--secret` is understood whole or refused, and a refusal repeats nothing that could be a value."""

from __future__ import annotations

import pytest

from kavach.credentials import (
    EnvVar,
    Fd,
    File,
    FromCommand,
    FromEnv,
    FromFile,
    FromKeyring,
    SecretRef,
    Stdin,
    parse_secret,
)
from kavach.errors import ConfigError

VALUE = "sk-live-0123456789abcdef"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("k=env:API_KEY", SecretRef("k", EnvVar("API_KEY"), FromEnv("API_KEY"))),
        ("k=env:API_KEY@env:TOKEN", SecretRef("k", EnvVar("TOKEN"), FromEnv("API_KEY"))),
        (
            "k=file:/host/key@env:TOKEN",
            SecretRef("k", EnvVar("TOKEN"), FromFile("/host/key", strip_newline=True)),
        ),
        ("k=file:/host/key@file:/run/k", SecretRef("k", File("/run/k"), FromFile("/host/key"))),
        ("k=file:/a@file:/run/k:440", SecretRef("k", File("/run/k", 0o440), FromFile("/a"))),
        ("k=file:me@home/key@stdin", SecretRef("k", Stdin(), FromFile("me@home/key"))),
        ("k=file:/a=b@fd:5", SecretRef("k", Fd(5), FromFile("/a=b"))),
        ("k=cmd:pass show 'my key'@stdin", SecretRef("k", Stdin(), FromCommand(("pass", "show", "my key")))),
        ("k=cmd:ssh me@stdin@host@fd:9", SecretRef("k", Fd(9), FromCommand(("ssh", "me@stdin@host")))),
        ("k=keyring:svc/me@env:T", SecretRef("k", EnvVar("T"), FromKeyring("svc", "me"))),
        ("k=keyring:svc/a/b@stdin", SecretRef("k", Stdin(), FromKeyring("svc", "a/b"))),
    ],
)
def test_words_become_a_reference(text, expected):
    assert parse_secret(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        VALUE,
        "",
        "=",
        f"k={VALUE}",
        f"k={VALUE}@env:T",
        f"k={VALUE}@stdin",
        f"k=literal:{VALUE}@env:T",
        f"{VALUE} x=env:A",
        f"k=env:{VALUE}",
        f"k=env:A@env:{VALUE}",
        f"k=env:A@fd:{VALUE}",
        f"k=env:A@fd:5{VALUE}",
        "k=env:A@fd:2",
        "k=env:A@fd:99999",
        "k=env:A@stdin:x",
        "k=env:A\n",
        "k=file:/a",
        "k=file:@stdin",
        "k=file:/a@file:relative",
        "k=file:/a@file:/x:200",
        "k=cmd:@stdin",
        f"k=cmd:echo '{VALUE}@stdin",
        f"k=keyring:{VALUE}@stdin",
    ],
)
def test_misread_words_are_refused_without_being_repeated(text):
    with pytest.raises(ConfigError) as caught:
        parse_secret(text)
    assert caught.value.key == "--secret"
    assert "NAME=SOURCE@TARGET" in str(caught.value)
    assert caught.value.hint
    assert VALUE not in str(caught.value)
    assert caught.value.__cause__ is None
