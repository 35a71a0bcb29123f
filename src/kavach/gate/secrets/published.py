"""Keys that vendors print in their own documentation and samples: they stand in thousands of files and open nothing.

Enforces: only the very keys are known, by digest, so that no scanner of this repository trips over them. May be used
by: kavach.gate.secrets.
"""

from __future__ import annotations

import hashlib

_DIGEST_BYTES = 8

# Firebase's and Chromium's sample projects (google-services.json, API keys of demos), as in gitleaks' allow-list.
_GOOGLE = """
    2037abcaffb2b777 3f370c9dd8225c63 e4a5542bb7fd7b67 a19f89ab3555eac1 0b476bdf9acf2123 eb540d2b6ee2a0a4
    37f8f09bdf12c2f2 8731261cb72d8626 49f777db995e8260 27a9a42931dff7eb dc0fcf046c61640c 4c98242dcadc8b29
    ea9bb1082cf95663 3a8b61d0f636b007 a6c814bc555ae62c
"""
# developer.freemius.com, SDK integration; learn.microsoft.com, nuget.config reference (two passwords).
_OTHERS = "029da0f652c61efa dba72c00f41f4e4c a0702bc91d699f60"

_PUBLISHED = frozenset(bytes.fromhex(digest) for digest in (_GOOGLE + _OTHERS).split())


def is_published(value: bytes) -> bool:
    """Whether a vendor prints this very value as an example."""
    return hashlib.sha256(value).digest()[:_DIGEST_BYTES] in _PUBLISHED
