"""One policy and one view of the store, joined: what a single request sees from start to end.

Everything that does not depend on the request is worked out here once and kept: the clients, the
grammar, and, for each client and destination, the secrets in scope and the search for their
values. A change of policy or store makes a new snapshot; nothing in an old one ever changes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass

from coatcheck.core import placeholder, policy
from coatcheck.core.destination import Destination
from coatcheck.core.identity import ClientTable
from coatcheck.core.policy import Policy, Replacement
from coatcheck.core.ports import StoreView
from coatcheck.core.redact import Needles
from coatcheck.core.secret import Secret

MAX_SCOPES = 1024  # pairs of client and destination kept; a client can name any number of hosts


@dataclass(frozen=True, slots=True, eq=False)  # kept by identity: hashing 100 secrets costs
class Scope:
    """The secrets that one client may use at one destination.

    Attributes:
        bound: Those with named domains: their values are scrubbed from every answer.
        roaming: Those allowed anywhere (``*``): scrubbed where this flow injected them, since
            elsewhere the scrubber would tell a client whether its guess is right.
    """

    bound: tuple[Secret, ...]
    roaming: frozenset[str]  # ids


class Snapshot:
    """See the module. Methods may raise `StoreError` where a value has to be opened."""

    def __init__(self, policy: Policy, view: StoreView) -> None:
        self.policy = policy
        self.view = view
        self.clients = ClientTable(policy.clients)
        self.grammar = placeholder.Grammar(policy.syntaxes)
        self._scopes: OrderedDict[Hashable, Scope] = OrderedDict()
        self._needles: OrderedDict[Hashable, Needles] = OrderedDict()

    def scope(self, client: str, destination: Destination) -> Scope:
        return _kept(
            self._scopes, (client, destination), lambda: self._find_scope(client, destination)
        )

    def needles(
        self, scope: Scope, injected: frozenset[str], tokens: frozenset[tuple[str, bytes]]
    ) -> Needles:
        """What to search for in one answer.

        Args:
            injected: Names of the secrets that this flow injects.
            tokens: (name, rendered bytes) of compound forms that are sent, Basic tokens.

        Raises:
            StoreError: a value cannot be opened.
            TooLong: a value in scope is too long to be searched for.
        """
        roaming = frozenset(
            name
            for name in injected
            if (secret := self.view.find(name)) is not None and secret.id in scope.roaming
        )
        needles = _kept(self._needles, (scope, roaming), lambda: self._build(scope, roaming))
        return needles.with_tokens(tokens) if tokens else needles

    def _find_scope(self, client: str, destination: Destination) -> Scope:
        inside = policy.in_scope(self.policy, client, destination, self.view.secrets())
        bound = tuple(s for s in inside if not any(p.any for p in s.domains))
        roaming = frozenset(s.id for s in inside if any(p.any for p in s.domains))
        return Scope(bound, roaming)

    def _build(self, scope: Scope, roaming: frozenset[str]) -> Needles:
        found = (self.view.find(name) for name in sorted(roaming))
        secrets = [*scope.bound, *(s for s in found if s is not None)]
        values = [value for s in secrets for value in (self.view.open(s), *self.view.retired(s))]
        replacement = None
        if self.policy.replacement is Replacement.PLACEHOLDER:
            replacement = _written
        return Needles.build(values, replacement=replacement)


def _written(name: str) -> bytes:
    return placeholder.write(name).encode()


def _kept[T](cache: OrderedDict[Hashable, T], key: Hashable, make: Callable[[], T]) -> T:
    """The entry of *key*, made if absent; the least recently used one goes when it is full."""
    try:
        cache.move_to_end(key)
        return cache[key]
    except KeyError:
        made = cache[key] = make()
        if len(cache) > MAX_SCOPES:
            cache.popitem(last=False)
        return made
