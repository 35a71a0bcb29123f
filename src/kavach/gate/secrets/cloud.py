"""Keys of cloud providers: they start machines, read storage and cost money.

Does not: hold account numbers, client ids or tenant ids, which are no secrets. May be used by: kavach.gate.secrets.
"""

from __future__ import annotations

import hashlib

from kavach.gate.secrets.shape import keyed, token
from kavach.model.verdict import Severity

_AWS_ID = r"(?:A3T[A-Z0-9]|AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}"  # docs.aws.amazon.com/IAM: unique identifiers; base32
_AWS_LITERALS = (b"akia", b"asia", b"abia", b"acca", b"a3t")
# Keys that Google publishes in Firebase's and Chromium's sample projects, as the first 8 bytes of their SHA-256: they
# are in thousands of repositories and open nothing.
_PUBLISHED = frozenset(
    bytes.fromhex(digest)
    for digest in ()
)


def is_aws_example(value: bytes) -> bool:
    """Whether a key is one of those that AWS documentation uses: they all end so."""
    return value.endswith((b"EXAMPLE", b"EXAMPLEKEY"))


def _is_aws_id(value: bytes) -> bool:
    return not is_aws_example(value)


def _is_aws_secret(value: bytes) -> bool:
    mixed = any(map(bytes.isdigit, _split(value))) and value.upper() != value and value.lower() != value
    return mixed and not is_aws_example(value)


def _split(value: bytes) -> list[bytes]:
    return [value[at : at + 1] for at in range(len(value))]


def _is_unpublished(value: bytes) -> bool:
    return hashlib.sha256(value).digest()[:8] not in _PUBLISHED


CLOUD_RULES = (
    token(
        "aws-access-key-id", "aws", Severity.HIGH, "An AWS access key id.", _AWS_ID, _AWS_LITERALS, test=_is_aws_id,
        bits=2.2, may_stand_in=True,
    ),
    token(
        "aws-example-key", "aws", Severity.INFO, "An access key id of AWS documentation.", _AWS_ID, _AWS_LITERALS,
        test=is_aws_example, may_stand_in=True,
    ),
    keyed(
        "aws-secret-access-key", "aws", Severity.CRITICAL, "An AWS secret access key.",
        ("secret_?access_?key", "secretaccesskey", "aws_?secret", "aws_?sk", "aws", "secret_?key"),
        r"[A-Za-z0-9/+]{40}", bits=4.0, test=_is_aws_secret,
    ),
    token(
        "aws-session-token", "aws", Severity.HIGH, "An AWS session token.",
        r"(?:FwoGZXIvYXdz|IQoJb3JpZ2lu)[A-Za-z0-9/+=]{80,1000}", (b"fwogzxivyxdz", b"iqojb3jpz2lu"),
    ),
    token(
        "aws-bedrock-key", "aws", Severity.CRITICAL, "A long-lived Amazon Bedrock API key.",
        r"ABSKQmVkcm9ja0FQSUtleS[A-Za-z0-9+/]{80,400}={0,2}", (b"abskqmvkcm9ja0fqsutles",), bits=4.2,
    ),
    token(
        "aws-bedrock-short-key", "aws", Severity.HIGH, "A short-lived Amazon Bedrock API key.",
        r"bedrock-api-key-YmVkcm9jay5hbWF6b25hd3MuY29t[A-Za-z0-9+/=_%-]*", (b"bedrock-api-key-",),
        max_bytes=4096,
    ),
    token(
        "aws-mws-key", "aws", Severity.HIGH, "An Amazon marketplace key.",
        r"amzn\.mws\.[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", (b"amzn.mws.",),
    ),
    token("aws-appsync-key", "aws", Severity.MEDIUM, "An AWS AppSync API key.", r"da2-[a-z0-9]{26}", (b"da2-",)),
    token(
        "google-api-key", "google", Severity.HIGH, "A Google API key.", r"AIza[0-9A-Za-z_-]{35}", (b"aiza",),
        bits=3.5, test=_is_unpublished, may_stand_in=True,
    ),
    token(
        "google-oauth-secret", "google", Severity.HIGH, "A Google OAuth client secret.", r"GOCSPX-[A-Za-z0-9_-]{28}",
        (b"gocspx-",),
    ),
    token(
        "google-access-token", "google", Severity.HIGH, "A Google OAuth access token.",
        r"ya29\.[A-Za-z0-9_-]{30,1000}", (b"ya29.",),
    ),
    token(
        "google-refresh-token", "google", Severity.HIGH, "A Google OAuth refresh token.",
        r"1//0[A-Za-z0-9_-]{40,200}", (b"1//0",), bits=3.8,
    ),
    token(
        "google-service-account", "google", Severity.MEDIUM, "The mark of a service account's key file.",
        r"\\?\"type\\?\"\s{0,4}:\s{0,4}\\?\"(service_account)\\?\"", (b"service_account",), group=1, may_touch=True,
    ),
    token(
        "firebase-server-key", "google", Severity.HIGH, "A Firebase cloud messaging server key.",
        r"AAAA[A-Za-z0-9_-]{7}:APA91b[A-Za-z0-9_-]{120,180}", (b":apa91b",),
    ),
    token(
        "azure-client-secret", "azure", Severity.CRITICAL, "A client secret of Microsoft Entra ID.",
        r"[A-Za-z0-9_~.]{3}[0-9]Q~[A-Za-z0-9_~.-]{31,34}", (b"q~",), bits=3.4,
    ),
    token(
        "azure-storage-key", "azure", Severity.CRITICAL, "A key of an Azure storage account or service bus.",
        r"(?:AccountKey|SharedAccessKey|SharedSecretValue|PrimaryKey|SecondaryKey|SharedSecret)"
        r"[\"']?\s{0,3}[=:]\s{0,3}[\"']?([A-Za-z0-9+/]{40,86}={0,2})",
        (b"accountkey", b"sharedaccesskey", b"sharedsecret", b"primarykey", b"secondarykey"), group=1, bits=3.8,
    ),
    token(
        "azure-sas-signature", "azure", Severity.HIGH, "The signature of an Azure shared access link.",
        r"[?&;]sig=([A-Za-z0-9%/+]{43,80}(?:=|%3[Dd]))", (b"sig=",), group=1, bits=3.8, may_touch=True,
    ),
    keyed(
        "azure-devops-token", "azure", Severity.HIGH, "An access token of Azure DevOps.",
        ("azure_?devops", "azuredevops", "ado_?pat", "vsts", "azp_?token"), r"[a-z2-7]{52}|[A-Za-z0-9]{84}", bits=3.8,
    ),
    token(
        "alibaba-access-key-id", "alibaba", Severity.HIGH, "An Alibaba Cloud access key id.",
        r"LTAI[A-Za-z0-9]{12,20}", (b"ltai",),
    ),
    keyed("alibaba-secret-key", "alibaba", Severity.CRITICAL, "An Alibaba Cloud secret key.",
          ("alibaba", "aliyun", "alicloud"), "[A-Za-z0-9]{30}", bits=3.0),
    token(
        "digitalocean-token", "digitalocean", Severity.CRITICAL, "A DigitalOcean token.", r"do[opr]_v1_[a-f0-9]{64}",
        (b"dop_v1_", b"doo_v1_", b"dor_v1_"),
    ),
    token(
        "digitalocean-spaces-key", "digitalocean", Severity.MEDIUM, "A key id of DigitalOcean Spaces.",
        r"DO(?:00|801)[A-Z0-9]{16}", (b"do00", b"do801"), bits=3.2,
    ),
    token("cloudflare-token", "cloudflare", Severity.CRITICAL, "A Cloudflare token.",
          r"cf(?:at|ut|k)_[A-Za-z0-9]{40}[0-9a-f]{8}", (b"cfat_", b"cfut_", b"cfk_"), may_stand_in=True),
    token("cloudflare-origin-ca-key", "cloudflare", Severity.CRITICAL, "A Cloudflare origin CA key.",
          r"v1\.0-[a-f0-9]{24}-[a-f0-9]{146}", (b"v1.0-",)),
    keyed("cloudflare-api-key", "cloudflare", Severity.CRITICAL, "A Cloudflare API key.", ("cloudflare", "cf_?api"),
          "[A-Za-z0-9_-]{40}|[a-f0-9]{37}", bits=3.0),
    token("ibm-cloud-key", "ibm", Severity.CRITICAL, "An IBM Cloud API key.",
          r"(?i:ibm|bluemix|iam)[\w.-]{0,20}(?i:api|iam)?[_-]?(?i:key|pwd|password)[\"'\s]{0,4}[:=]{1,2}[\s\"']{0,4}"
          r"([A-Za-z0-9_-]{44})", (b"ibm", b"bluemix", b"iam"), group=1, bits=3.8),
    token("scaleway-key", "scaleway", Severity.HIGH, "A Scaleway access key.", r"SCW[A-Z0-9]{17}", (b"scw",), bits=3.2),
    token("yandex-key", "yandex", Severity.HIGH, "A Yandex Cloud key.",
          r"(?:AQVN[A-Za-z0-9_-]{35,38}|YC[A-Za-z0-9_-]{38}|t1\.[A-Z0-9a-z_-]{1,200}={0,2}\.[A-Z0-9a-z_-]{86}={0,2})",
          (b"aqvn", b"yc", b"t1."), bits=3.8),
    token("oracle-cloud-key", "oracle", Severity.LOW, "An identifier of Oracle Cloud.",
          r"ocid1\.(?:user|tenancy)\.oc1\.[a-z0-9-]{0,20}\.[a-z0-9]{60}", (b"ocid1.",)),
    token("tencent-secret-id", "tencent", Severity.HIGH, "A Tencent Cloud secret id.", r"AKID[A-Za-z0-9]{32}",
          (b"akid",), bits=3.5),
    keyed("heroku-api-key", "heroku", Severity.CRITICAL, "A Heroku API key.", ("heroku",),
          "[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}"),
    token("heroku-token", "heroku", Severity.CRITICAL, "A Heroku token.", r"HRKU-AA[0-9A-Za-z_-]{58}", (b"hrku-aa",)),
    token("fly-token", "fly", Severity.CRITICAL, "A Fly.io token.",
          r"(?:fo1_[\w-]{43}|fm1[ar]_[A-Za-z0-9+/]{100,1000}={0,3}|fm2_[A-Za-z0-9+/]{100,1000}={0,3})",
          (b"fo1_", b"fm1r_", b"fm1a_", b"fm2_"), bits=3.3),
    token("openshift-token", "openshift", Severity.CRITICAL, "An OpenShift user token.", r"sha256~[\w-]{43}",
          (b"sha256~",), bits=3.5),
    token("vercel-token", "vercel", Severity.HIGH, "A Vercel token.", r"vc[pirakc]_[A-Za-z0-9]{24,80}",
          (b"vcp_", b"vci_", b"vca_", b"vcr_", b"vck_", b"vcc_"), bits=3.3, may_stand_in=True),
    token("netlify-token", "netlify", Severity.HIGH, "A Netlify token.", r"nf[pucbo]_[A-Za-z0-9_-]{36,40}",
          (b"nfp_", b"nfu_", b"nfc_", b"nfb_", b"nfo_")),
    token("scalingo-token", "scalingo", Severity.HIGH, "A Scalingo token.", r"tk-us-[\w-]{48}", (b"tk-us-",)),
    token("render-key", "render", Severity.HIGH, "A Render API key.", r"rnd_[A-Za-z0-9]{32}", (b"rnd_",), bits=3.5),
    token("tailscale-key", "tailscale", Severity.HIGH, "A Tailscale key.",
          r"tskey-[a-z]{2,12}-[A-Za-z0-9]{8,20}-[A-Za-z0-9]{20,40}", (b"tskey-",), bits=3.3),
    token("defined-networking-token", "defined", Severity.HIGH, "A token of Defined Networking.",
          r"dnkey-[a-z0-9=_-]{26}-[a-z0-9=_-]{52}", (b"dnkey-",)),
    token("aiven-password", "aiven", Severity.HIGH, "An Aiven service password.", r"AVNS_[A-Za-z0-9_-]{15,22}",
          (b"avns_",), bits=3.0),
    token("clickhouse-cloud-key", "clickhouse", Severity.HIGH, "A ClickHouse Cloud secret.", r"4b1d[A-Za-z0-9]{38}",
          (b"4b1d",), bits=3.6),
    token("planetscale-token", "planetscale", Severity.HIGH, "A PlanetScale token or password.",
          r"pscale_(?:tkn|oauth|pw|api)_[\w=.-]{32,64}", (b"pscale_",), bits=3.3),
    token("supabase-key", "supabase", Severity.HIGH, "A Supabase secret key.",
          r"(?:sbp_[a-f0-9]{40}|sb_secret_[A-Za-z0-9_-]{22,40})", (b"sbp_", b"sb_secret_")),
    token("mongodb-atlas-secret", "mongodb", Severity.HIGH, "A MongoDB Atlas client secret.",
          r"mdb_sa_sk_[A-Za-z0-9_-]{40}", (b"mdb_sa_sk_",)),
    token("cockroach-key", "cockroach", Severity.HIGH, "A CockroachDB Cloud key.",
          r"CCDB1_[A-Za-z0-9]{22}_[A-Za-z0-9]{40}", (b"ccdb1_",)),
)
