"""What a policy says that is allowed and yet wider than most people mean.

A warning never keeps a policy from being used. Each names its line and the way to narrow it.
"""

from __future__ import annotations

from collections.abc import Iterator

from coatcheck.core.destination import Destination, DomainPattern
from coatcheck.core.locations import DEFAULT_PATTERNS, Kind
from coatcheck.core.policy import Client, Egress, Grant, Mode, Network, Policy

# A network client needs no token, so everyone in its networks is that client.
WIDEST_V4 = 8  # bits of prefix; RFC 1918 knows no wider network
WIDEST_V6 = 32  # bits of prefix; what a whole provider gets

# Well-known hosts with an allowed way to publish what is sent, or to mail or say it to others: a
# value in a body, a query or a path can be read back there, and no scrubbing helps (SECURITY.md).
PUBLISHERS = (
    "api.anthropic.com",
    "api.dropboxapi.com",
    "api.github.com",
    "api.mailgun.net",
    "api.notion.com",
    "api.openai.com",
    "api.sendgrid.com",
    "api.telegram.org",
    "discord.com",
    "generativelanguage.googleapis.com",
    "gitlab.com",
    "graph.microsoft.com",
    "hooks.slack.com",
    "slack.com",
    "www.googleapis.com",
)


def warnings(policy: Policy) -> list[str]:
    """Each as ``file:line: what; how to narrow it``, in the order of the file."""
    found = [
        *_of_mode(policy),
        *_of_clients(policy),
        *(pair for grant in policy.grants for pair in _of_grant(grant, policy.egress)),
        *_of_egress(policy),
    ]
    return [f"{policy.source}:{line}: {text}" for line, text in sorted(found, key=lambda p: p[0])]


def _of_mode(policy: Policy) -> Iterator[tuple[int, str]]:
    if policy.mode is Mode.REPORT:
        yield (
            policy.lines.get("mode", 1),
            "mode: report refuses next to nothing; look for decision: report in the audit log,"
            " then remove it",
        )


def _of_clients(policy: Policy) -> Iterator[tuple[int, str]]:
    for client in policy.clients:
        for network in _too_wide(client):
            yield (
                policy.lines.get(f"clients.{client.name}", 1),
                f"everyone in {network} is the client '{client.name}', without a token;"
                " give it a token, or a smaller network",
            )


def _too_wide(client: Client) -> Iterator[Network]:
    if client.token is None:
        yield from (net for net in client.networks if _is_wide(net))


def _is_wide(network: Network) -> bool:
    return network.prefixlen < (WIDEST_V4 if network.version == 4 else WIDEST_V6)


def _of_grant(grant: Grant, egress: Egress) -> Iterator[tuple[int, str]]:
    if any(not pattern.strip("*") for pattern in grant.secrets):
        yield grant.line, "this grant names every secret; name them, or a prefix such as 'crm.*'"
    if grant.plaintext:
        yield (
            grant.line,
            "this grant lets values go over http://, readable on the way; remove plaintext: true",
        )
    if grant.mode is Mode.REPORT:
        yield (
            grant.line,
            "this grant does not hold to its methods, paths, in: and max_uses, it only reports;"
            " look for decision: report in the audit log, then remove mode: report",
        )
    narrowed = (grant.hosts, grant.methods, grant.paths)
    if narrowed == (None, None, None) and grant.locations == DEFAULT_PATTERNS:
        yield (
            grant.line,
            "this grant allows every place of every request to the secret's domains;"
            " narrow it with in:, methods: or paths:",
        )
    if fits_publishing(grant):
        for host in publishers(grant.hosts or ()):
            yield (
                grant.line,
                f"{host} can publish what a body, query or path holds, and no scrubbing takes"
                " that back; add in: [header:authorization], or paths:",
            )
    for pattern in grant.hosts or ():
        if any(_covers(tunnel, pattern) for tunnel in egress.passthrough):
            yield (
                grant.line,
                f"nothing is injected at {pattern}: egress.passthrough tunnels it;"
                " remove it from one of the two",
            )


def fits_publishing(grant: Grant) -> bool:
    """Whether it lets a value stand where a host publishes what it gets."""
    return grant.paths is None and any(p.kind is not Kind.HEADER for p in grant.locations)


def publishers(hosts: tuple[DomainPattern, ...]) -> list[str]:
    """Those of `PUBLISHERS` that one of *hosts* is a pattern of."""
    return [
        name
        for name in PUBLISHERS
        if any(p.matches(Destination("https", name, 443)) for p in hosts)
    ]


def _covers(wide: DomainPattern, pattern: DomainPattern) -> bool:
    """Whether some destination of *pattern* is one of *wide*, told by one example."""
    host = f"any.{pattern.host}" if pattern.wildcard else pattern.host
    return wide.matches(Destination("https", host, pattern.port or 443))


def _of_egress(policy: Policy) -> Iterator[tuple[int, str]]:
    egress, lines = policy.egress, policy.lines
    if egress.allow and egress.default_allow:
        yield (
            lines.get("egress.allow", 1),
            "allow: changes nothing while default: is allow; did you mean default: deny?",
        )
    for network in egress.networks:
        if _is_wide(network):
            yield (
                lines.get("egress.networks", 1),
                f"{network} opens private networks by the thousand; name the ones that are needed",
            )
    for pattern in egress.passthrough:
        yield (
            lines.get("egress.passthrough", 1),
            f"{pattern} is tunnelled unseen: nothing is injected, scrubbed or recorded there"
            " but the connection",
        )
