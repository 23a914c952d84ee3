"""A request that goes to the URL that is the value of a secret: where that is, what is sent there.

The value has to be read before anything can be decided, since the destination is in it. That is
done here and for nothing else: what is decided then, and filled in, goes the way of every request.
"""

from __future__ import annotations

from dataclasses import dataclass

from coatcheck.core import inject, internal, whole_url
from coatcheck.core.destination import DEFAULT_PORTS, Destination
from coatcheck.core.inject import HeadTemplate
from coatcheck.core.locations import Kind, Location
from coatcheck.core.message import Fields, RequestHead
from coatcheck.core.secret import Secret, SecretValue
from coatcheck.core.snapshot import Snapshot
from coatcheck.core.template import Slot

LOCATION = Location(Kind.URL)


@dataclass(frozen=True, slots=True, repr=False)
class Aim:
    """A request on its way to the URL that is a value.

    Attributes:
        snapshot: In which the value was read; the request is decided in no other.
        target: The whole target, the value's and `more`, for the rules of paths.
        more: What the client has put to the URL.
        shown: The destination as audit lines may tell it, no more than the allowed domains say.
    """

    snapshot: Snapshot
    secret: Secret
    destination: Destination
    target: bytes
    more: bytes
    shown: Destination

    def template(self, method: bytes, fields: Fields) -> HeadTemplate:
        """The head to send, with a hole for the URL."""
        base = Slot(self.secret.name, LOCATION, b"", whole_url.target_of)
        return inject.read_head_at(
            base, RequestHead(method, self.more, fields), self.snapshot.grammar
        )


def aim(snapshot: Snapshot, secret: Secret, value: SecretValue, more: bytes) -> Aim:
    """The request for *more* at the URL that is *value*.

    Raises:
        whole_url.NotAUrl: it is none.
    """
    url = whole_url.read(value)
    shown = _shown(secret, url.destination)
    target = inject.put_to(url.target, more)
    return Aim(snapshot, secret, url.destination, target, more, shown)


def _shown(secret: Secret, destination: Destination) -> Destination:
    """As *secret*'s domains name *destination*: below a wildcard the host may be the secret."""
    for pattern in sorted(secret.domains, key=lambda p: p.any * 2 + p.wildcard):
        if pattern.matches(destination):
            name = "*" if pattern.any else f"*.{pattern.host}" if pattern.wildcard else pattern.host
            return destination._replace(host=name)
    return Destination("http", internal.HOST, DEFAULT_PORTS["http"])
