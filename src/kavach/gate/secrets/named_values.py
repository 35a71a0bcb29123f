"""Values of hosted services that tell nothing by themselves: a service's name stands beside them.

May be used by: kavach.gate.secrets.
"""

from __future__ import annotations

from kavach.gate.secrets.shape import keyed
from kavach.model.verdict import Severity

_UUID = "[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}"

# name, words, value: the lengths and alphabets are those of each vendor's own tokens.
_SERVICES: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("adafruit-key", ("adafruit",), "[a-z0-9_-]{32}"),
    ("adobe-client-id", ("adobe",), "[a-f0-9]{32}"),
    ("airtable-key", ("airtable",), "[A-Za-z0-9]{17}"),
    ("algolia-key", ("algolia",), "[a-z0-9]{32}"),
    ("asana-secret", ("asana",), "[a-z0-9]{32}|[0-9]{16}"),
    ("atlassian-key", ("atlassian", "confluence", "jira"), "[A-Za-z0-9]{24}"),
    ("beamer-key", ("beamer",), "b_[a-z0-9=_-]{44}"),
    ("bitbucket-secret", ("bitbucket",), "[A-Za-z0-9=_-]{64}|[A-Za-z0-9]{32}"),
    ("meraki-key", ("meraki",), "[0-9a-f]{40}"),
    ("codecov-token", ("codecov",), f"[a-z0-9]{{32}}|{_UUID}"),
    ("confluent-secret", ("confluent",), r"cflt[A-Za-z0-9+/]{60}|[A-Za-z0-9/+]{64}|[A-Za-z0-9]{16}"),
    ("contentful-key", ("contentful",), "[A-Za-z0-9=_-]{43}"),
    ("datadog-key", ("datadog", "dd_api", "dd_app"), "[a-z0-9]{40}|[a-f0-9]{32}"),
    ("drone-token", ("droneci", "drone_ci", "drone"), "[A-Za-z0-9]{32}"),
    ("dropbox-secret", ("dropbox",), r"[a-z0-9]{15}|sl\.[A-Za-z0-9=_-]{135}|[a-z0-9]{11}AAAAAAAAAA[a-z0-9=_-]{43}"),
    ("fastly-token", ("fastly",), "[A-Za-z0-9=_-]{32}"),
    ("flickr-token", ("flickr",), "[a-f0-9]{32}"),
    ("grafana-cloud-key", ("grafana",), r"glc_[A-Za-z0-9+/]{32,400}={0,3}"),
    ("hubspot-key", ("hubspot",), _UUID),
    ("intercom-key", ("intercom",), "[A-Za-z0-9=_-]{60}"),
    ("jfrog-key", ("jfrog", "artifactory", "bintray", "xray"), "[A-Za-z0-9]{73}|[A-Za-z0-9]{64}"),
    ("launchdarkly-token", ("launchdarkly",), "[A-Za-z0-9=_-]{40}"),
    ("linear-secret", ("linear",), "[a-f0-9]{32}"),
    ("linkedin-key", ("linkedin", "linked_in", "linked-in"), "[A-Za-z0-9]{16}|[A-Za-z0-9]{14}"),
    ("looker-secret", ("looker",), "[a-z0-9]{24}|[a-z0-9]{20}"),
    ("mailgun-named-key", ("mailgun",), "(?:key-|pubkey-)?[a-f0-9]{32}(?:-[a-f0-9]{8}-[a-f0-9]{8})?"),
    ("maxmind-key", ("maxmind", "geoip_?license"), "[A-Za-z0-9]{6}_[A-Za-z0-9_]{29}_mmk|[A-Za-z0-9]{16}"),
    ("ngrok-token", ("ngrok",), "2[A-Za-z0-9]{26}_[0-9A-Za-z]{21}"),
    ("mapbox-key", ("mapbox",), r"[ps]k\.[A-Za-z0-9]{60}\.[A-Za-z0-9]{22}"),
    ("netlify-key", ("netlify",), "[A-Za-z0-9=_-]{40,46}"),
    ("new-relic-secret", ("new-relic", "newrelic", "new_relic"), "[a-f0-9]{36}NRAL|[A-Za-z0-9]{64}|[a-f0-9]{40}"),
    ("nytimes-key", ("nytimes", "new-york-times", "newyorktimes", "nyt_?api"), "[A-Za-z0-9=_-]{32}"),
    ("octopus-named-key", ("octopus",), f"API-[A-Z0-9]{{26,30}}|{_UUID}"),
    ("okta-key", ("okta",), "00[A-Za-z0-9=_-]{40}"),
    ("rapidapi-key", ("rapidapi", "rapid_api", "rapid-api"), "[A-Za-z0-9_-]{50}"),
    ("sentry-key", ("sentry",), "[a-f0-9]{64}|[a-f0-9]{32}"),
    ("snyk-key", ("snyk",), _UUID),
    ("sonar-key", ("sonar",), "(?:sq[uap]_)?[A-Za-z0-9=_-]{40}"),
    ("sumologic-key", ("sumo",), "[A-Za-z0-9]{64}|su[A-Za-z0-9]{12}"),
    ("travis-token", ("travis",), "[A-Za-z0-9]{22}"),
    ("trello-key", ("trello",), "[A-Za-z0-9-]{64}|[A-Za-z0-9-]{32}"),
    ("unsplash-key", ("unsplash",), "[A-Za-z0-9_-]{43}"),
    ("zendesk-secret", ("zendesk",), "[A-Za-z0-9]{40}"),
    ("auth0-secret", ("auth0",), "[A-Za-z0-9_-]{64}"),
    ("onelogin-secret", ("onelogin",), "[a-f0-9]{64}"),
    ("pagerduty-token", ("pagerduty", "pager_duty"), r"[A-Za-z0-9_+-]{20}|[a-f0-9]{32}"),
    ("rollbar-token", ("rollbar",), "[a-f0-9]{32}"),
    ("segment-key", ("segment_",), "[A-Za-z0-9]{32}"),
    ("circleci-key", ("circleci", "circle_ci", "circle_token"), "[a-f0-9]{40}"),
    ("linode-token", ("linode",), "[a-f0-9]{64}"),
    ("hetzner-token", ("hetzner", "hcloud"), "[A-Za-z0-9]{64}"),
    ("vultr-key", ("vultr",), "[A-Z0-9]{36}"),
    ("shodan-key", ("shodan",), "[A-Za-z0-9]{32}"),
    ("virustotal-key", ("virustotal", "vt_api"), "[a-f0-9]{64}"),
    ("spotify-secret", ("spotify",), "[a-f0-9]{32}"),
    ("yelp-key", ("yelp",), "[A-Za-z0-9_-]{128}"),
    ("clearbit-key", ("clearbit",), "sk_[a-f0-9]{32}"),
    ("cloudinary-secret", ("cloudinary",), "[A-Za-z0-9_-]{27}"),
    ("crowdin-token", ("crowdin",), "[a-f0-9]{80}"),
    ("ipinfo-token", ("ipinfo",), "[a-f0-9]{14}"),
    ("openweather-key", ("openweather", "owm_api"), "[a-f0-9]{32}"),
    ("opsgenie-key", ("opsgenie",), _UUID),
    ("wakatime-key", ("wakatime",), f"(?:waka_)?{_UUID}"),
    ("zoom-secret", ("zoom_",), "[A-Za-z0-9]{32}"),
    ("yandex-cloud-key", ("yandex",), r"AQVN[A-Za-z0-9_-]{35,38}|YC[A-Za-z0-9_-]{38}|[yt]0_[A-Za-z0-9_-]{50,60}"),
    ("yandex-iam-token", ("yandex",), r"t1\.[A-Za-z0-9_-]{1,200}={0,2}\.[A-Za-z0-9_-]{86}={0,2}"),
)

NAMED_RULES = tuple(
    keyed(
        name,
        name.split("-", 1)[0],
        Severity.HIGH,
        "A key of a hosted service, named beside it.",
        words,
        value,
        bits=2.5,
    )
    for name, words, value in _SERVICES
)
