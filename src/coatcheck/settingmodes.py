"""How connections get here: as those of a proxy's clients. What else mitmproxy knows is refused.

mitmproxy can also be a transparent proxy, a reverse proxy, a SOCKS server and more. Where a promise
of SECURITY.md would not hold, `--mode` ends the start and says which one, and what to do instead:
a mode that is left out in silence is looked for, and one that holds by half is trusted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

REGULAR = "regular"


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a mode is not there.

    Attributes:
        promise: As SECURITY.md has it; the one that would break first.
        why: What is missing, as the rest of a sentence.
        instead: The next step.
    """

    promise: str
    why: str
    instead: str


_CLIENTS = (
    "give clients HTTP_PROXY and HTTPS_PROXY (coatcheck run, coatcheck env), and let the network"
    " leave them no other way out (docs/deploy/nftables.md)"
)
_REDIRECTED = Refusal(
    "G1 (destination)",
    "a connection taken from the network carries no CONNECT and no client token: it goes to an"
    " address that the client picked, and only the client says which name is meant, so nothing"
    " holds the TLS server name and Host to one destination",
    _CLIENTS,
)

REFUSED: Mapping[str, Refusal] = {
    "transparent": _REDIRECTED,
    "wireguard": _REDIRECTED,
    "local": _REDIRECTED,
    "tun": _REDIRECTED,
    "reverse": Refusal(
        "G1 (destination)",
        "its requests name the proxy and not where they go, and carry no client token: whoever"
        " reaches the port, a page in a browser too, could have secrets put into what it sends,"
        " and what an upstream answers leads clients round the proxy",
        "give clients HTTP_PROXY and HTTPS_PROXY (coatcheck run, coatcheck env); for one URL that"
        " is a secret there is http://coatcheck.internal/url/NAME (docs/sdk.md)",
    ),
    "upstream": Refusal(
        "G1 (destination)",
        "mitmproxy asks the next proxy for a name, and which address that is was vetted by nobody",
        "set upstream_proxy: the next proxy is asked for the vetted address",
    ),
    "socks5": Refusal(
        "G1 (destination)",
        "a SOCKS client names an address where it likes, sends what need not be HTTP, and its"
        " credential is none that the policy knows",
        _CLIENTS,
    ),
    "dns": Refusal(
        "G4 (reflection)",
        "a name that is looked up is no place for a value, and its answer is searched for none",
        "leave names to the proxy: clients that use it need no name server",
    ),
}
