"""What a plan depends on beside the policy: plain values, and the names that every part of lowering uses.

Guarantees: nothing. Does not: compute. May be called by: kavach.launcher.lower and its parts, kavach.backends.process.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from kavach.launcher.facts import Facts
    from kavach.launcher.groups import Group
    from kavach.launcher.view import View

Step = tuple[bytes, int, tuple[object, ...]]

INNER_ID = 1000  # the command's user and group inside; any number but 0 would do
NOWHERE = b"192.0.2.1"  # RFC 5737, TEST-NET-1: an address that is never routed
DISCARD = 9  # RFC 863
SECRETS_FOLDER = "/run/secrets"


class Layout(NamedTuple):
    """Where things are, inside: the same words whether there is a mount view or not."""

    workspace: str
    scratch: str | None
    path: tuple[str, ...]


class Situation(NamedTuple):
    """What a plan depends on beside the policy: the host, the limits' means, this sandbox's own names."""

    facts: Facts
    group: Group
    namespaces: frozenset[str]
    view: View
    hostname: str
    domainname: str
    own_workdir: bool
    scratch: str | None
    slot: int
    has_secret_files: bool
    listening: bool
    has_proc: bool = True
    user_tasks: int = 0  # what the caller's user runs already, where no user namespace counts the sandbox's own apart

    @property
    def witness(self) -> bytes:
        """The abstract name of the socket that init keeps for the canaries; its own where the network is shared."""
        return b"kavach-witness-" + self.group.name.encode()
