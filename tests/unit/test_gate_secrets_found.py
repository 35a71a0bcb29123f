"""Secrets by their format, by the name beside them, and what only looks like one. Keys are made here from parts."""

from __future__ import annotations

import base64
import binascii
import json
import random
import string

import pytest

from kavach.gate.scan import scan_bytes
from kavach.gate.secrets import SECRETS
from kavach.model.verdict import ExternalizationPolicy, Severity

LETTERS = string.ascii_letters + string.digits
LOWER = string.ascii_lowercase + string.digits
HEX = "0123456789abcdef"
BASE32 = string.ascii_uppercase + "234567"


def made(alphabet: str, size: int, seed: int = 7) -> str:
    """Return what a vendor's generator might have made."""
    return "".join(random.Random(f"{alphabet}{size}{seed}").choices(alphabet, k=size))


def found(text: str | bytes, floor: Severity = Severity.MEDIUM) -> list[tuple[str, str]]:
    """Return the rules that hold and what they would take away."""
    data = text if isinstance(text, bytes) else text.encode()
    marks = scan_bytes(data, ExternalizationPolicy(), scanners=(SECRETS,))
    return [(mark.rule, data[mark.start : mark.end].decode()) for mark in marks if mark.severity >= floor]


def base64url(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


JWT = f"{base64url({'alg': 'HS256', 'typ': 'JWT'})}.{base64url({'sub': 'u1', 'admin': True})}.{made(LETTERS, 43)}"

TOKENS = [
    ("aws-access-key-id", "AKIA" + made(BASE32, 16)),
    ("aws-access-key-id", "ASIA" + made(BASE32, 16)),
    ("google-api-key", "AIza" + made(LETTERS, 35)),
    ("google-oauth-secret", "GOCSPX-" + made(LETTERS, 28)),
    ("google-access-token", "ya29." + made(LETTERS, 120)),
    ("azure-client-secret", made(LETTERS, 3) + "8Q~" + made(LETTERS, 34)),
    ("digitalocean-token", "dop_v1_" + made(HEX, 64)),
    ("cloudflare-origin-ca-key", "v1.0-" + made(HEX, 24) + "-" + made(HEX, 146)),
    ("fly-token", "fo1_" + made(LETTERS, 43)),
    ("openshift-token", "sha256~" + made(LETTERS, 43)),
    ("planetscale-token", "pscale_tkn_" + made(LETTERS, 43)),
    ("github-token", "ghp_" + made(LETTERS, 36)),
    ("github-token", "ghs_" + made(LETTERS, 36)),
    ("github-fine-grained-token", "github_pat_" + made(LETTERS, 22) + "_" + made(LETTERS, 59)),
    ("gitlab-token", "glpat-" + made(LETTERS, 20)),
    ("gitlab-token", "glrt-t1_" + made(LETTERS, 27) + ".01." + made(LOWER, 9)),
    ("gitlab-long-token", "glptt-" + made(HEX, 40)),
    ("gitlab-runner-registration", "GR13" + "48941" + made(LETTERS, 20)),
    ("npm-token", "npm_" + made(LETTERS, 36)),
    ("pypi-token", "pypi-AgEI" + "cHlwaS5vcmc" + made(LETTERS, 140)),
    ("rubygems-key", "rubygems_" + made(HEX, 48)),
    ("docker-token", "dckr_pat_" + made(LETTERS, 27)),
    ("artifactory-key", "AKCp" + made(LETTERS, 69)),
    ("terraform-token", made(LETTERS, 14) + ".atlasv1." + made(LETTERS, 67)),
    ("vault-token", "hvs." + made(LETTERS, 95)),
    ("pulumi-token", "pul-" + made(HEX, 40)),
    ("doppler-token", "dp.pt." + made(LETTERS, 43)),
    ("slack-token", "xoxb-" + made("123456789", 12) + "-" + made("123456789", 13) + "-" + made(LETTERS, 24)),
    ("slack-app-token", "xapp-1-A" + made(BASE32, 10) + "-" + made("123456789", 13) + "-" + made(HEX, 64)),
    ("telegram-token", ":AA" + made(LETTERS, 33)),
    ("twilio-key", "SK" + made(HEX, 32)),
    ("sendgrid-key", "SG." + made(LETTERS, 22) + "." + made(LETTERS, 43)),
    ("mailchimp-key", made(HEX, 32) + "-us12"),
    ("stripe-key", "sk_" + "live_" + made(LETTERS, 24)),
    ("stripe-test-key", "rk_" + "test_" + made(LETTERS, 24)),
    ("square-token", "sq0atp-" + made(LETTERS, 22)),
    ("shopify-token", "shpat_" + made(HEX, 32)),
    ("openai-key", "sk-proj-" + made(LETTERS, 74) + "T3Blbk" + "FJ" + made(LETTERS, 74)),
    ("anthropic-key", "sk-ant-api03-" + made(LETTERS, 93) + "AA"),
    ("huggingface-token", "hf_" + made(string.ascii_letters, 34)),
    ("groq-key", "gsk_" + made(LETTERS, 52)),
    ("databricks-token", "dapi" + made(HEX, 32)),
    ("dynatrace-token", "dt0c01." + made(BASE32, 24) + "." + made(BASE32, 64)),
    ("grafana-key", "glsa_" + made(LETTERS, 32) + "_" + made(HEX, 8)),
    ("linear-key", "lin_api_" + made(LETTERS, 40)),
    ("notion-token", "ntn_" + made("123456789", 11) + made(LETTERS, 35)),
    ("sentry-token", "sntryu_" + made(HEX, 64)),
    ("1password-secret-key", "A3-" + "-".join(made(BASE32, size) for size in (6, 6, 5, 5, 5, 5))),
    ("age-secret-key", "AGE-SECRET-" + "KEY-1" + made("QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L", 58)),
    ("jwt", JWT),
]
PREFIXES = {"telegram-token": "110201543"}  # a bot's id is public and stays


@pytest.mark.parametrize(("rule", "key"), TOKENS, ids=[f"{rule}-{at}" for at, (rule, _) in enumerate(TOKENS)])
@pytest.mark.parametrize("form", ["{}", "see {} here", '{{"a": "{}"}}', "A={}\n", '{{"f": "A=1\\n{}\\nB=2"}}', "({}),"])
def test_a_token_is_found_whole_wherever_it_stands(rule, key, form):
    text = form.format(PREFIXES.get(rule, "") + key)
    assert (rule, key) in found(text)


@pytest.mark.parametrize(("rule", "key"), TOKENS, ids=[f"{rule}-{at}" for at, (rule, _) in enumerate(TOKENS)])
def test_a_piece_of_a_longer_word_is_no_token(rule, key):
    assert (rule, key) not in found(f"Zq{PREFIXES.get(rule, '')}{key}")


@pytest.mark.parametrize("key", ["ghp_" + "x" * 36, "AKIA" + "X" * 16, "glpat-" + "X" * 20, "npm_" + "a" * 36])
def test_a_stand_in_is_no_token(key):
    assert found(f"token = {key}") == []


@pytest.mark.parametrize("key", ["AKIAIOSFODNN7" + "EXAMPLE", "ASIAIOSFODNN7" + "EXAMPLE"])
def test_an_example_key_of_aws_documentation_is_only_noted(key):
    assert found(f"aws_access_key_id = {key}") == []
    assert ("aws-example-key", key) in found(f"aws_access_key_id = {key}", Severity.INFO)


def test_the_example_secret_of_aws_documentation_is_left():
    assert found("aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCY" + "EXAMPLEKEY") == []


def test_a_github_token_with_the_right_checksum_counts_whatever_it_looks_like():
    def checked(body: str) -> str:
        left, digits = binascii.crc32(body.encode()), ""
        for _ in range(6):
            left, digit = divmod(left, 62)
            digits = (string.digits + string.ascii_uppercase + string.ascii_lowercase)[digit] + digits
        return f"ghp_{body}{digits}"

    assert ("github-token", checked("a" * 30)) in found(checked("a" * 30))
    assert found("ghp_" + "a" * 36) == []


def test_a_token_whose_header_is_no_json_is_no_jwt():
    assert found(f"eyJ{made(LETTERS, 20)}.eyJ{made(LETTERS, 20)}.{made(LETTERS, 30)}") == []


ASSIGNMENTS = [
    "API_KEY={}",
    "export API_TOKEN='{}'",
    'api_key: "{}"',
    "client_secret: {}",
    '{{"accessToken": "{}"}}',
    "const secretKey = `{}`;",
    '$token .= "{}"',
    '  "apiToken" => "{}"',
    'auth_token := "{}"',
    "<apiKey>\n    {}\n</apiKey>",
    'System.setProperty("API_TOKEN", "{}")',
    'var apiToken string = "{}"',
    'os.environ["API_TOKEN"] = "{}"',
    "X-Api-Key: {}",
    "https://host.test/?access_token={}&x=1",
    '{{\\"token\\": \\"{}\\"}}',
]


@pytest.mark.parametrize("form", ASSIGNMENTS)
@pytest.mark.parametrize("value", [made(LOWER, 32), made(LETTERS, 40), made(HEX, 32), made(LETTERS, 20) + "=="])
def test_a_random_value_with_a_secrets_name_is_found_without_its_name(form, value):
    assert value in {thing for _, thing in found(form.format(value))}


@pytest.mark.parametrize(
    "text",
    [
        "GITHUB_API_KEY=\nDYNATRACE_API_KEY=",
        "key_length = XSalsa20.key_length",
        "token = self.next_token_or_none(stream_position_1)",
        'SECRET_NAME = "NEXUS-GPT4-API-KEY"',
        "secret_id: " + made(LOWER, 32),
        "csrf-token=" + made(LETTERS, 43),
        "author = 8d2f1c4b9a7e6f5d3c2b1a0987654321",
        "keyframe: " + made(LOWER, 32),
        "token: ${{ secrets.TOKEN_2 }}",
        'api_key = "your_api_key_goes_here_123"',
        "Ed25519PrivateKey, Ed25519PublicKey",
        "commit 3f2a9c1d4b5e6f708192a3b4c5d6e7f809123456",
        '"integrity": "sha512-' + made(LETTERS, 86) + '=="',
    ],
)
def test_what_only_talks_of_a_secret_is_left(text):
    assert found(text) == []


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ('password = "thisIs' + 'Dog11"', "thisIs" + "Dog11"),
        ("DB_PASSWORD=h7#kq" + "2!z", "h7#kq" + "2!z"),
        ("Server=db;User Id=sa;Password=Zx9" + "$mmq2;", "Zx9" + "$mmq2"),
        ('<add key="ClearTextPassword" value="Qm4' + '!tzz81" />', "Qm4" + "!tzz81"),
    ],
)
def test_a_password_beside_its_name_is_found(text, secret):
    assert secret in {thing.rstrip(";") for _, thing in found(text)}


@pytest.mark.parametrize(
    "text",
    ["password = getpass.getpass()", 'password="${DB_PASSWORD}"', "password: changeme", "password = var.db_password1"],
)
def test_a_template_or_a_call_is_no_password(text):
    assert found(text) == []


@pytest.mark.parametrize("scheme", ["postgres", "postgresql+asyncpg", "mysql", "mongodb+srv", "rediss", "amqps"])
def test_a_databases_address_with_a_password_goes_whole(scheme):
    url = f"{scheme}://svc:{made(LETTERS, 12)}@db1.corp.net:5432/main?sslmode=require"
    assert ("database-url", url) in found(f'url = "{url}"')


def test_of_another_address_only_the_password_goes():
    word = made(LETTERS, 14)
    assert ("url-password", word) in found(f"git clone https://bot:{word}@git.corp.net/x.git")


@pytest.mark.parametrize(
    "text",
    [
        "postgres://user:password@localhost/db",
        "https://${USER}:${PASS}@host/",
        "https://user:<password>@host/",
        "http://localhost:8080/@scope/package",
        "mongodb://mongodb:mongodb@localhost:27017/x",
    ],
)
def test_a_template_of_an_address_is_left(text):
    assert found(text) == []


def test_credentials_of_headers_and_cookies_are_found():
    basic = base64.b64encode(f"bot:{made(LETTERS, 12)}".encode()).decode()
    bearer, session = made(LETTERS, 40), made(LOWER, 32)
    assert ("basic-auth-header", basic) in found(f"Authorization: Basic {basic}\r\n")
    assert ("authorization-header", bearer) in found(f'-H "Authorization: Bearer {bearer}"')
    assert ("session-cookie", session) in found(f"Set-Cookie: JSESSIONID={session}; Path=/")
    assert ("curl-login", "p9" + "Xk2mQa") in found("curl -s -u admin:p9" + "Xk2mQa https://host/")
    assert found('curl -u "${USER}":"${PASS}"') == []
    assert found("Authorization: Bearer <token>") == []
    assert found("sort -u a:b") == []


def test_a_kubernetes_secrets_value_is_found_in_either_order():
    value = base64.b64encode(made(LETTERS, 12).encode()).decode()
    head, data = "apiVersion: v1\nkind: Secret\nmetadata:\n  name: x\n", f"data:\n  extra: {value}\n"
    assert value in {thing for _, thing in found(head + data)}
    assert value in {thing for _, thing in found("apiVersion: v1\n" + data + "kind: Secret\n")}
    assert found("kind: ConfigMap\n" + data) == []
