"""Private keys are one find from their first to their last byte, however they are written."""

from __future__ import annotations

import json
import random
import string

import pytest

from kavach.gate.scan import scan_bytes
from kavach.gate.secrets import SECRETS
from kavach.model.verdict import ExternalizationPolicy, Severity

KINDS = ["", "RSA ", "EC ", "DSA ", "OPENSSH ", "ENCRYPTED "]


def body(lines: int = 12, width: int = 64) -> str:
    pick = random.Random(lines).choices
    rows = ["".join(pick(string.ascii_letters + string.digits + "+/", k=width)) for _ in range(lines)]
    return "\n".join([*rows, rows[0][:20] + "=="])


def pem(kind: str = "", inner: str | None = None) -> str:
    name = f"{kind}PRIVATE " + "KEY"
    return f"-----BEGIN {name}-----\n{body() if inner is None else inner}\n-----END {name}-----"


def taken(text: str) -> list[str]:
    """Return what the rules for keys would take away."""
    data = text.encode()
    marks = scan_bytes(data, ExternalizationPolicy(), scanners=(SECRETS,))
    return [data[mark.start : mark.end].decode() for mark in marks if mark.severity is Severity.CRITICAL]


@pytest.mark.parametrize("kind", KINDS)
def test_a_block_goes_whole_and_nothing_else(kind):
    assert taken(f"before\n{pem(kind)}\nafter\n") == [pem(kind)]


def test_two_blocks_are_two_finds():
    assert taken(f"{pem()}\n{pem('EC ')}\n") == [pem(), pem("EC ")]


def test_an_encrypted_block_goes_with_its_headers():
    key = pem("RSA ", "Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,0123456789ABCDEF\n\n" + body())
    assert taken(f"x\n{key}\ny") == [key]


def test_a_pgp_block_goes_whole():
    name = "PGP PRIVATE " + "KEY BLOCK"
    key = f"-----BEGIN {name}-----\nVersion: GnuPG v2\n\n{body()}\n=AbCd\n-----END {name}-----"
    assert taken(f"{key}\nmore") == [key]


@pytest.mark.parametrize("escape", ["\\n", "\\\\n", "\\r\\n", " "])
def test_a_block_on_one_line_goes_whole(escape):
    key = pem().replace("\n", escape)
    assert taken(f'KEY="{key}"\nB=1') == [key]


def test_a_block_in_json_leaves_the_strings_around_it():
    text = json.dumps({"a": "x", "private_key": pem() + "\n", "b": "y"})
    (key,) = taken(text)
    assert text.replace(key, "") == json.dumps({"a": "x", "private_key": "\n", "b": "y"})


@pytest.mark.parametrize("prefix", ["    ", "> ", "# ", "+"])
def test_an_indented_or_quoted_block_goes_whole(prefix):
    key = pem().replace("\n", "\n" + prefix)
    assert taken(f"{prefix}{key}\nend.") == [key]


@pytest.mark.parametrize("lines", [1, 3, 12])
def test_a_block_without_an_end_goes_as_far_as_it_comes(lines):
    whole = pem().split("\n")
    cut = "\n".join(whole[: 1 + lines])
    assert taken(cut) == [cut]


def test_text_behind_a_cut_block_stays():
    cut = "\n".join(pem().split("\n")[:4])
    (key,) = taken(f"{cut}\n\n-- and so on: this is prose, which nobody wants to lose. --\n")
    assert key == cut


@pytest.mark.parametrize("inner", ["anything", "...", "<your key here>", "x" * 64])
def test_a_block_without_a_key_in_it_is_left(inner):
    assert taken(pem("", inner)) == []


def test_a_public_key_or_certificate_is_left():
    assert taken(pem().replace("PRIVATE", "PUBLIC")) == []
    assert taken(pem().replace("PRIVATE " + "KEY", "CERTIFICATE")) == []


def test_a_putty_key_goes_with_its_private_lines():
    key = (
        "PuTTY-User-Key-File-3: ssh-ed25519\nEncryption: none\nComment: me@host\nPublic-Lines: 2\n"
        f"{body(1)}\nPrivate-Lines: 1\n{body(1).splitlines()[0]}\nPrivate-MAC: {'0a' * 32}"
    )
    assert taken(f"{key}\n\nafter") == [key]


def test_a_private_json_web_key_is_found_and_a_public_one_is_not():
    private = "".join(random.Random(3).choices(string.ascii_letters + string.digits, k=43))
    assert taken(json.dumps({"kty": "OKP", "crv": "Ed25519", "d": private})) == [private]
    assert taken(json.dumps({"kty": "OKP", "crv": "Ed25519", "x": private})) == []
