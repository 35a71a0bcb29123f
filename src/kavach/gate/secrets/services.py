"""Tokens of hosted services that tell themselves by a prefix.

May be used by: kavach.gate.secrets.
"""

from __future__ import annotations

from kavach.gate.secrets.shape import token
from kavach.model.verdict import Severity

_UUID = "[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}"


def _has_digit(value: bytes) -> bool:
    return any(0x30 <= byte <= 0x39 for byte in value)


SERVICE_RULES = (
    token("adobe-client-secret", "adobe", Severity.HIGH, "An Adobe client secret.", r"p8e-[A-Za-z0-9]{32}",
          (b"p8e-",)),
    token("airtable-token", "airtable", Severity.HIGH, "An Airtable token.", r"pat[A-Za-z0-9]{14}\.[a-f0-9]{64}",
          (b"pat",)),
    token("authress-key", "authress", Severity.HIGH, "An Authress key.",
          r"(?:sc|ext|scauth|authress)_[A-Za-z0-9]{5,30}\.[A-Za-z0-9]{4,6}\.acc[_-][A-Za-z0-9-]{10,32}\."
          r"[A-Za-z0-9+/_=-]{30,120}", (b".acc_", b".acc-")),
    token("beamer-token", "beamer", Severity.MEDIUM, "A Beamer token.", r"b_[a-z0-9=_-]{44}", (b"b_",), bits=4.0,
          test=_has_digit),
    token("contentful-token", "contentful", Severity.HIGH, "A Contentful token.", r"CFPAT-[A-Za-z0-9_-]{43}",
          (b"cfpat-",)),
    token("databricks-token", "databricks", Severity.CRITICAL, "A Databricks token.",
          r"dapi[0-9a-fA-F]{32}(?:-[0-9])?", (b"dapi",), may_stand_in=True),
    token("dropbox-token", "dropbox", Severity.HIGH, "A Dropbox token.",
          r"(?:sl\.(?:u\.)?[A-Za-z0-9_=-]{130,1000}|[a-z0-9]{11}AAAAAAAAAA[a-z0-9_=-]{43})", (b"sl.", b"aaaaaaaaaa"),
          bits=3.5),
    token("dynatrace-token", "dynatrace", Severity.HIGH, "A Dynatrace token.",
          r"dt0[a-zA-Z][0-9]{2}\.[A-Za-z0-9]{24}\.[A-Za-z0-9]{64}", (b"dt0",)),
    token("figma-token", "figma", Severity.HIGH, "A Figma token.", r"fig(?:d|or|dh)_[A-Za-z0-9_-]{36,200}",
          (b"figd_", b"figor_", b"figdh_"), bits=3.3, may_stand_in=True),
    token("frameio-token", "frameio", Severity.HIGH, "A Frame.io token.", r"fio-u-[A-Za-z0-9_=-]{64}", (b"fio-u-",)),
    token("grafana-key", "grafana", Severity.HIGH, "A Grafana key.",
          r"(?:eyJrIjoi[A-Za-z0-9+/]{40,400}={0,3}|glc_[A-Za-z0-9+/]{32,400}={0,3}|glsa_[A-Za-z0-9]{32}_[A-Fa-f0-9]{8})",
          (b"eyjrijoi", b"glc_", b"glsa_"), bits=3.3, may_stand_in=True),
    token("hubspot-token", "hubspot", Severity.HIGH, "A HubSpot private app's token.", rf"pat-(?:na|eu|ap)[0-9]-{_UUID}",
          (b"pat-",)),
    token("intra42-secret", "intra42", Severity.MEDIUM, "A secret of 42's intranet.", r"s-s4t2(?:ud|af)-[a-f0-9]{64}",
          (b"s-s4t2",)),
    token("launchdarkly-key", "launchdarkly", Severity.HIGH, "A LaunchDarkly key.", rf"(?:api|sdk|mob)-{_UUID}",
          (b"api-", b"sdk-", b"mob-"), bits=3.2),
    token("linear-key", "linear", Severity.HIGH, "A Linear key.", r"lin_(?:api|oauth)_[A-Za-z0-9]{40,64}",
          (b"lin_api_", b"lin_oauth_")),
    token("mapbox-token", "mapbox", Severity.MEDIUM, "A Mapbox token.",
          r"(?:sk\.eyJ[A-Za-z0-9_-]{40,200}|pk\.[a-z0-9]{60}|pk\.eyJ[A-Za-z0-9_-]{40,200})\.[A-Za-z0-9_-]{22}",
          (b"pk.", b"sk.eyj"), bits=3.5),
    token("maxmind-key", "maxmind", Severity.MEDIUM, "A MaxMind licence key.", r"[A-Za-z0-9]{6}_[A-Za-z0-9_]{29}_mmk",
          (b"_mmk",)),
    token("new-relic-key", "new-relic", Severity.HIGH, "A New Relic key.",
          r"(?:NRAK-[A-Z0-9]{27}|NRJS-[a-f0-9]{19}|NRI[IQ]-[A-Za-z0-9-]{32}|NRRA-[a-f0-9]{42}|[a-f0-9]{36}NRAL)",
          (b"nrak-", b"nrjs-", b"nrii-", b"nriq-", b"nrra-", b"nral")),
    token("notion-token", "notion", Severity.HIGH, "A Notion token.",
          r"(?:ntn_[0-9]{11}[A-Za-z0-9]{35}|secret_[A-Za-z0-9]{43})", (b"ntn_", b"secret_"), bits=3.8),
    token("okta-token", "okta", Severity.CRITICAL, "An Okta token.", r"SSWS[ \t]{1,4}(00[\w-]{40})", (b"ssws",),
          group=1),
    token("readme-key", "readme", Severity.MEDIUM, "A ReadMe key.", r"rdme_[a-z0-9]{70}", (b"rdme_",)),
    token("sentry-token", "sentry", Severity.HIGH, "A Sentry token.",
          r"(?:sntrys_eyJ[A-Za-z0-9+/=_-]{60,400}|sntryu_[a-f0-9]{64})", (b"sntrys_", b"sntryu_"), bits=3.0),
    token("settlemint-token", "settlemint", Severity.HIGH, "A SettleMint token.", r"sm_(?:pat|aat|sat)_[A-Za-z0-9]{16}",
          (b"sm_pat_", b"sm_aat_", b"sm_sat_")),
    token("typeform-token", "typeform", Severity.HIGH, "A Typeform token.", r"tfp_[A-Za-z0-9_.=-]{40,70}", (b"tfp_",),
          bits=3.5),
    token("zuplo-key", "zuplo", Severity.MEDIUM, "A Zuplo key.", r"zpka_[a-z0-9]{32}_[a-z0-9]{8}", (b"zpka_",)),
    token("ngrok-token", "ngrok", Severity.MEDIUM, "An ngrok token.", r"2[A-Za-z0-9]{26}_[0-9][A-Za-z0-9]{20}",
          (b"_",), bits=4.0),
    token("linkedin-secret", "linkedin", Severity.HIGH, "A LinkedIn secret.", r"WPL_AP[01]\.[A-Za-z0-9]{16}\.[\w+/=]{8}",
          (b"wpl_ap",)),
    token("trello-token", "trello", Severity.HIGH, "A Trello token.", r"ATTA[a-f0-9]{64}[A-F0-9]{8}", (b"atta",)),
    token("pagerduty-key", "pagerduty", Severity.MEDIUM, "A PagerDuty key.", r"u\+[A-Za-z0-9_+-]{18}", (b"u+",),
          bits=3.6, test=_has_digit),
    token("asana-token", "asana", Severity.HIGH, "An Asana token.",
          r"(?:[12]/[0-9]{15,17}(?:/[0-9]{15,17})?:[a-f0-9]{32})", (b"1/", b"2/")),
    token("freemius-secret", "freemius", Severity.MEDIUM, "A Freemius secret key.",
          r"[\"']secret_key[\"']\s{0,4}=>\s{0,4}[\"'](sk_[^\s\"'<>]{29})[\"']", (b"secret_key",), group=1, bits=3.0,
          may_touch=True),
    token("chief-tools-token", "chief-tools", Severity.MEDIUM, "A Chief Tools token.", r"ct[pa]_[A-Za-z0-9]{36}",
          (b"ctp_", b"cta_"), bits=3.5),
    token("kaggle-token", "kaggle", Severity.MEDIUM, "A Kaggle token.", r"KGAT_[a-f0-9]{32}", (b"kgat_",)),
    token("lichess-token", "lichess", Severity.LOW, "A Lichess token.", r"lip_[A-Za-z0-9]{20}", (b"lip_",)),
    token("microsoft-identity-token", "azure", Severity.HIGH, "A refresh token of Microsoft's identity platform.",
          r"(?:0|1)\.A[A-Za-z0-9_-]{70,90}\.[A-Za-z0-9_-]{200,1000}", (b"0.a", b"1.a"), bits=4.5),
)
