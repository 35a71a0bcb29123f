"""Tokens of code hosts, build services and package registries: who has one writes what others run.

Does not: hold deploy keys, which are private keys. May be used by: kavach.gate.secrets.
"""

from __future__ import annotations

from kavach.gate.secrets.chance import entropy, is_stand_in
from kavach.gate.secrets.checksums import has_crc32
from kavach.gate.secrets.shape import keyed, token
from kavach.model.verdict import Severity

_LEAST_BITS = 2.7


def _is_token(value: bytes) -> bool:
    return has_crc32(value) or (entropy(value) >= _LEAST_BITS and not is_stand_in(value))


def _is_mixed(value: bytes) -> bool:
    return any(0x30 <= byte <= 0x39 for byte in value) and value.lower() != value and value.upper() != value


def _is_vault(value: bytes) -> bool:
    return _is_mixed(value[2:])


CODE_HOST_RULES = (
    token("github-token", "github", Severity.CRITICAL, "A GitHub token.", r"gh[pousr]_[A-Za-z0-9]{36,251}",
          (b"ghp_", b"gho_", b"ghu_", b"ghs_", b"ghr_"), bits=0, test=_is_token, may_stand_in=True),
    token("github-installation-token", "github", Severity.CRITICAL, "A GitHub App's installation token.",
          r"ghs_[0-9]{1,12}_eyJ[\w-]{10,1000}\.[\w-]{10,1000}\.[\w-]{10,1000}", (b"ghs_",)),
    token("github-fine-grained-token", "github", Severity.CRITICAL, "A fine-grained GitHub token.",
          r"github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9_]{50,60}", (b"github_pat_",), may_stand_in=True),
    keyed("github-legacy-token", "github", Severity.HIGH, "An old GitHub token.", ("github", "gh_?token"),
          r"[0-9a-f]{40}|v1\.[0-9a-f]{40}", bits=3.0),
    token("gitlab-token", "gitlab", Severity.CRITICAL, "A GitLab token.",
          r"gl(?:pat|dt|rt|ft|wt|soat|ffct|imt)-[\w.-]{20,300}",
          (b"glpat-", b"gldt-", b"glrt-", b"glft-", b"glwt-", b"glsoat-", b"glffct-", b"glimt-"), bits=3.0,
          may_stand_in=True),
    token("gitlab-long-token", "gitlab", Severity.CRITICAL, "A GitLab trigger, agent or application token.",
          r"gl(?:ptt-[\w-]{40}|agent-[\w-]{50,1000}|oas-[\w-]{64})", (b"glptt-", b"glagent-", b"gloas-"),
          may_stand_in=True),
    token("gitlab-job-token", "gitlab", Severity.HIGH, "A GitLab job token.",
          r"glcbt-(?:[0-9a-zA-Z]{1,5}_)?[\w-]{19,300}", (b"glcbt-",), may_stand_in=True),
    token("gitlab-runner-registration", "gitlab", Severity.CRITICAL, "A GitLab runner registration token.",
          r"GR1348941[\w-]{20,64}", (b"gr1348941",), may_stand_in=True),
    token("gitlab-session-cookie", "gitlab", Severity.HIGH, "A GitLab session.", r"_gitlab_session=([0-9a-z]{32})",
          (b"_gitlab_session=",), group=1),
    token("bitbucket-token", "bitbucket", Severity.HIGH, "A Bitbucket app password or access token.",
          r"(?:ATBB[A-Za-z0-9_=.-]{32,60}|ATCTT3[A-Za-z0-9_\-=.]{60,400})", (b"atbb", b"atctt3"), bits=3.5),
    token("atlassian-token", "atlassian", Severity.CRITICAL, "An Atlassian API token.",
          r"ATATT3[A-Za-z0-9_\-=]{60,400}", (b"atatt3",)),
    token("npm-token", "npm", Severity.CRITICAL, "An npm access token.", r"npm_[A-Za-z0-9]{36}", (b"npm_",), bits=0,
          test=_is_token, may_stand_in=True),
    token("npm-registry-auth", "npm", Severity.CRITICAL, "A registry's credential in an npm configuration.",
          r":_(?:authToken|auth|password)\s{0,3}=\s{0,3}\"?([A-Za-z0-9+/_=.-]{8,400})", (b":_auth", b":_password"),
          group=1, bits=2.0),
    token("pypi-token", "pypi", Severity.CRITICAL, "A PyPI token.",
          r"pypi-AgE(?:IcHlwaS5vcmc|NdGVzdC5weXBpLm9yZw)[\w-]{50,1000}", (b"pypi-age",), may_stand_in=True),
    token("rubygems-key", "rubygems", Severity.CRITICAL, "A RubyGems key.", r"rubygems_[a-f0-9]{48}", (b"rubygems_",)),
    token("nuget-key", "nuget", Severity.CRITICAL, "A NuGet key.", r"oy2[a-z0-9]{43}", (b"oy2",), bits=3.3),
    token("clojars-token", "clojars", Severity.CRITICAL, "A Clojars token.", r"(?i:clojars_[a-z0-9]{60})",
          (b"clojars_",)),
    token("crates-token", "crates", Severity.CRITICAL, "A crates.io token.", r"cio[A-Za-z0-9]{32}", (b"cio",),
          bits=4.0),
    token("packagist-token", "packagist", Severity.HIGH, "A Packagist token.",
          r"packagist_[ou][a-z]{2}_[0-9a-f]{68}", (b"packagist_",)),
    token("docker-token", "docker", Severity.CRITICAL, "A Docker Hub token.", r"dckr_(?:pat|oat)_[\w-]{20,40}",
          (b"dckr_",), bits=3.0, may_stand_in=True),
    token("docker-registry-auth", "docker", Severity.HIGH, "A registry's credential in a Docker configuration.",
          r"\"auth\"\s{0,4}:\s{0,4}\"([A-Za-z0-9+/]{12,400}={0,2})\"", (b'"auth"',), group=1, may_touch=True),
    token("artifactory-key", "artifactory", Severity.CRITICAL, "A JFrog Artifactory key.",
          r"(?:AKCp[A-Za-z0-9]{60,80}|cmVmd[A-Za-z0-9]{59})", (b"akcp", b"cmvmd"), bits=4.0),
    token("artifactory-password", "artifactory", Severity.HIGH, "A JFrog Artifactory key beside its name.",
          r"(?i:artif|jfrog|_password)[\w.-]{0,24}[\"']?\s{0,3}[:=]\s{0,3}[\"']?((?:AKC|AP[0-9A-F])[A-Za-z0-9]{10,100})",
          (b"artif", b"jfrog", b"_password"), group=1, bits=2.0),
    token("buildkite-token", "buildkite", Severity.HIGH, "A Buildkite token.", r"bkua_[a-z0-9]{40}", (b"bkua_",)),
    token("circleci-token", "circleci", Severity.HIGH, "A CircleCI token.",
          r"CCI(?:PAT|PRJ)_[A-Za-z0-9]{16,30}_[a-f0-9]{40}", (b"ccipat_", b"cciprj_")),
    token("sonar-token", "sonar", Severity.HIGH, "A SonarQube token.", r"sq[uap]_[A-Za-z0-9]{40}",
          (b"squ_", b"sqa_", b"sqp_")),
    token("sourcegraph-token", "sourcegraph", Severity.HIGH, "A Sourcegraph token.",
          r"(?:sgp_(?:[a-fA-F0-9]{16}_|local_)?[a-fA-F0-9]{40}|slk_[a-f0-9]{64})", (b"sgp_", b"slk_"), bits=3.0),
    token("harness-token", "harness", Severity.HIGH, "A Harness token.",
          r"(?:pat|sat)\.[A-Za-z0-9_-]{22}\.[a-zA-Z0-9]{24}\.[a-zA-Z0-9]{20}", (b"pat.", b"sat.")),
    token("octopus-key", "octopus", Severity.HIGH, "An Octopus Deploy key.", r"API-[A-Z0-9]{26}", (b"api-",),
          bits=3.0),
    token("terraform-token", "hashicorp", Severity.CRITICAL, "A Terraform Cloud token.",
          r"[A-Za-z0-9]{14}\.(?i:atlasv1)\.[\w=-]{60,70}", (b".atlasv1.",)),
    token("vault-token", "hashicorp", Severity.CRITICAL, "A HashiCorp Vault token.",
          r"hv[sbr]\.[\w-]{24,300}", (b"hvs.", b"hvb.", b"hvr."), bits=3.4),
    token("vault-legacy-token", "hashicorp", Severity.HIGH, "An old HashiCorp Vault token.", r"[sbr]\.[A-Za-z0-9]{24}",
          (b"s.", b"b.", b"r."), bits=3.5, test=_is_vault),
    token("pulumi-token", "pulumi", Severity.CRITICAL, "A Pulumi token.", r"pul-[a-f0-9]{40}", (b"pul-",)),
    token("prefect-token", "prefect", Severity.HIGH, "A Prefect token.", r"pn[ub]_[A-Za-z0-9]{36}",
          (b"pnu_", b"pnb_")),
    token("infracost-token", "infracost", Severity.MEDIUM, "An Infracost key.", r"ico-[A-Za-z0-9]{32}", (b"ico-",),
          bits=3.3),
    token("snyk-token", "snyk", Severity.HIGH, "A Snyk token.",
          r"snyk_[a-z]{2,4}\.[0-9a-f]{8}\.[A-Za-z0-9_-]{20,200}", (b"snyk_",)),
    token("postman-key", "postman", Severity.HIGH, "A Postman key.", r"PMAK-[a-f0-9]{24}-[a-f0-9]{34}", (b"pmak-",)),
    token("doppler-token", "doppler", Severity.CRITICAL, "A Doppler token.",
          r"dp\.(?:pt|st|ct|sa|scim|audit)\.(?:[a-z0-9_-]{2,35}\.)?[a-zA-Z0-9]{40,44}", (b"dp.",)),
    token("1password-secret-key", "1password", Severity.CRITICAL, "A 1Password secret key.",
          r"A3-[A-Z0-9]{6}-(?:[A-Z0-9]{11}|[A-Z0-9]{6}-[A-Z0-9]{5})(?:-[A-Z0-9]{5}){3}", (b"a3-",), bits=3.0),
    token("1password-service-token", "1password", Severity.CRITICAL, "A 1Password service account's token.",
          r"ops_eyJ[A-Za-z0-9+/_-]{200,1000}={0,3}", (b"ops_eyj",), bits=4.0, max_bytes=4096),
    token("infisical-token", "infisical", Severity.CRITICAL, "An Infisical service token.",
          r"st\.[a-f0-9]{8}-[a-f0-9]{4}-[a-f0-9]{4}-[a-f0-9]{4}-[a-f0-9]{12}\.[a-f0-9]{32}\.[a-f0-9]{32}", (b"st.",)),
    token("sidekiq-secret", "sidekiq", Severity.MEDIUM, "A Sidekiq Enterprise credential.",
          r"(?i:bundle_(?:enterprise|gems)__contribsys__com)[\w.-]{0,20}[\"'\])]{0,3}[ \t]{0,3}"
          r"(?:=>|:{0,3}=|[.?]=|>|:|,)[\s\"'`]{0,24}([a-f0-9]{8}:[a-f0-9]{8})", (b"contribsys",), group=1, bits=2.0),
    token("sidekiq-url", "sidekiq", Severity.MEDIUM, "A Sidekiq Enterprise credential in an address.",
          r"://([a-f0-9]{8}:[a-f0-9]{8})@(?:gems|enterprise)\.contribsys\.com", (b"contribsys",), group=1, bits=2.0,
          may_touch=True),
)
