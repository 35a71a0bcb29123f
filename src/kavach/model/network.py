"""Which hosts and ports a command may reach, as values that can be compared and intersected.

Enforces: one spelling for every rule (`host:port`, `*.host:port`, `cidr:port`, `host:*`, each with `/udp` if
it is not TCP), and no rule that two readers could read in two ways (`127.1`, `0x7f.1`, a final dot).
Does not: resolve a name, open a socket, or enforce anything; the wall and the egress proxy do.
May be used by: the model, the pure policy functions, the proxy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, cast

import msgspec

from kavach.model.validate import Model

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["NetworkPolicy", "NetworkRule", "parse_network_rule"]

_LABEL = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_")


class NetworkRule(NamedTuple):
    """One rule, read: which host, which port, which protocol.

    Args:
        kind: `name`, `wildcard` (every name below `host`, not itself) or `cidr`.
        host: the name in lower case, the parent of a wildcard, or the network as text.
        port: 1 to 65535; None = every port.
        udp: True for UDP, which most walls refuse.
    """

    kind: Literal["name", "wildcard", "cidr"]
    host: str
    port: int | None
    udp: bool

    def __str__(self) -> str:
        host = {"name": self.host, "wildcard": f"*.{self.host}", "cidr": self.host}[self.kind]
        if ":" in host:
            host = f"[{host}]"
        port = "*" if self.port is None else str(self.port)
        return f"{host}:{port}/udp" if self.udp else f"{host}:{port}"

    def intersect(self, other: NetworkRule) -> NetworkRule | None:
        """Return the rule that allows what both allow, or None when nothing is.

        A name and a network have nothing in common here: which addresses a name has is not decided by texts.

        Args:
            other: another rule.
        """
        if self.udp != other.udp or (None not in {self.port, other.port} and self.port != other.port):
            return None
        port = self.port if other.port is None else other.port
        for narrower, wider in ((self, other), (other, self)):
            if _host_within(narrower, wider):
                return narrower._replace(port=port)
        return None


def parse_network_rule(text: str) -> NetworkRule:
    """Return the rule that a text says.

    Args:
        text: `host:port`, `*.host:port`, `cidr:port`, with `*` for every port and `/udp` at the end for UDP;
            an IPv6 address or network stands in brackets.

    Returns:
        The rule; `str()` of it is the one canonical spelling.

    Raises:
        ValueError: the text is not such a rule; says what was expected.
    """
    host, colon, port_text = text.rpartition(":")
    port_text, slash, protocol = port_text.partition("/")
    if not colon or not host or (slash and protocol not in {"udp", "tcp"}):
        raise ValueError(f"expected host:port, *.host:port or cidr:port, got {text!r}")
    port = _port(port_text, text)
    udp = protocol == "udp"
    host = host.lower()
    if host.startswith("[") or host.replace(".", "").replace("/", "").isdecimal():
        return NetworkRule("cidr", _cidr(host, text), port, udp)
    kind: Literal["name", "wildcard"] = "wildcard" if host.startswith("*.") else "name"
    name = host.removeprefix("*.")
    _require_name(name, text)
    return NetworkRule(kind, name, port, udp)


class NetworkPolicy(Model, frozen=True, kw_only=True):
    """What of the network a command sees: nothing unless the policy says otherwise.

    Args:
        mode: `none` = no network; `allow` = the rules and nothing else; `host` = the host's network, no wall.
        rules: what `allow` lets through; empty = nothing.
        deny_rules: what is refused even if `rules` let it through.
    """

    mode: Literal["none", "allow", "host"] = "none"
    rules: tuple[str, ...] = ()
    deny_rules: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("rules", "deny_rules"):
            msgspec.structs.force_setattr(self, name, _canonical(getattr(self, name)))

    def problems(self) -> Iterator[tuple[str, str]]:
        """Yield rules that cannot be read, and rules that no mode would use."""
        for name in ("rules", "deny_rules"):
            for index, text in enumerate(getattr(self, name)):
                try:
                    parse_network_rule(text)
                except ValueError as error:
                    yield f".{name}[{index}]", str(error)
        if self.mode != "allow" and (self.rules or self.deny_rules):
            yield ".mode", f"expected 'allow' because there are rules, got {self.mode!r}"


def _canonical(rules: object) -> object:
    """Return texts as a sorted tuple in their one spelling; leave what is no rule for `check` to name."""
    if not isinstance(rules, list | tuple | set | frozenset) or not all(isinstance(r, str) for r in rules):
        return tuple(rules) if isinstance(rules, list) else rules
    spelled: set[str] = set()
    for text in cast("tuple[str, ...]", tuple(rules)):
        try:
            spelled.add(str(parse_network_rule(text)))
        except ValueError:
            spelled.add(text)
    return tuple(sorted(spelled))


def _port(text: str, rule: str) -> int | None:
    if text == "*":
        return None
    if not (text.isascii() and text.isdecimal()) or not 1 <= int(text[:6]) <= 65535:
        raise ValueError(f"expected a port from 1 to 65535 or '*', got {rule!r}")
    return int(text)


def _cidr(host: str, rule: str) -> str:
    import ipaddress

    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        network = ipaddress.ip_network(bare, strict=True)
    except ValueError as error:
        raise ValueError(f"expected an address or a network without host bits, got {rule!r}") from error
    if (network.version == 6) != host.startswith("["):
        raise ValueError(f"expected IPv6 in brackets and IPv4 without, got {rule!r}")
    return str(network)


def _require_name(name: str, rule: str) -> None:
    labels = name.split(".")
    if len(name) > 253 or not all(
        0 < len(label) <= 63 and _LABEL.issuperset(label) and label[0] != "-" and label[-1] != "-" for label in labels
    ):
        raise ValueError(f"expected a host name in ASCII letters, digits, '-' and '_', got {rule!r}")
    # SECURITY: resolvers read `127.1` and `0x7f.1` as addresses; a name must not be one in disguise.
    if labels[-1].isdecimal() or labels[-1].startswith("0x"):
        raise ValueError(f"expected a host name or a whole address, got {rule!r}")


def _host_within(inner: NetworkRule, outer: NetworkRule) -> bool:
    if outer.kind == "cidr" or inner.kind == "cidr":
        return inner.kind == outer.kind and _network_within(inner.host, outer.host)
    if outer.kind == "wildcard":
        below = inner.host.endswith("." + outer.host)
        return below or (inner.kind == "wildcard" and inner.host == outer.host)
    return inner.kind == "name" and inner.host == outer.host


def _network_within(inner: str, outer: str) -> bool:
    import ipaddress

    a, b = ipaddress.ip_network(inner), ipaddress.ip_network(outer)
    if isinstance(a, ipaddress.IPv4Network):
        return isinstance(b, ipaddress.IPv4Network) and a.subnet_of(b)
    return isinstance(b, ipaddress.IPv6Network) and a.subnet_of(b)
