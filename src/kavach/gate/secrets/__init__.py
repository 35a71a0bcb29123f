"""Secrets: what opens something, found by its vendor's format, by the name beside it or by its block.

Enforces: nothing that documentation prints as an example counts as a secret; a private key or a database's address is
one find from its first to its last byte. Does not: decode (`kavach.gate.decode` does), know the run's own secrets
(`kavach.gate.known` does) or ask a vendor whether a key is alive. May be used by: kavach.gate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kavach.gate.secrets.assignments import ASSIGNMENT_RULES
from kavach.gate.secrets.cloud import CLOUD_RULES
from kavach.gate.secrets.code_hosts import CODE_HOST_RULES
from kavach.gate.secrets.connections import CONNECTION_RULES
from kavach.gate.secrets.headers import HEADER_RULES
from kavach.gate.secrets.key_blocks import KEY_RULES
from kavach.gate.secrets.manifests import MANIFEST_RULES
from kavach.gate.secrets.messaging import MESSAGING_RULES
from kavach.gate.secrets.models import MODEL_RULES
from kavach.gate.secrets.named_values import NAMED_RULES
from kavach.gate.secrets.payment import PAYMENT_RULES
from kavach.gate.secrets.services import SERVICE_RULES
from kavach.gate.secrets.web_tokens import TOKEN_RULES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from kavach.gate.rule import Mark, Rule

__all__ = ["SECRETS", "SecretsScanner"]


class SecretsScanner:
    """The rules for secrets; nothing in them needs a parser."""

    name: str = "secrets"
    rules: tuple[Rule, ...] = (
        KEY_RULES
        + CONNECTION_RULES
        + TOKEN_RULES
        + CLOUD_RULES
        + CODE_HOST_RULES
        + MESSAGING_RULES
        + PAYMENT_RULES
        + MODEL_RULES
        + SERVICE_RULES
        + NAMED_RULES
        + HEADER_RULES
        + MANIFEST_RULES
        + ASSIGNMENT_RULES
    )

    def inspect(self, text: bytes, marks: Sequence[Mark]) -> Iterable[Mark]:  # noqa: ARG002 - the scanner's protocol
        """Yield nothing: a secret's structure is checked where its rule matched.

        Args:
            text: the text.
            marks: what the rules found in it.
        """
        return ()


SECRETS = SecretsScanner()
"""The one scanner for secrets; it has no state."""
