"""One policy and one view of the store, joined: what a single request sees from start to end.

Everything that does not depend on the request is worked out here once and kept: the clients, the
grammar, and, for each client and destination, the secrets in scope and the search for their
values. A change of policy or store makes a new snapshot; nothing in an old one ever changes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass

from coatcheck.core import placeholder, policy
from coatcheck.core.destination import Destination
from coatcheck.core.identity import ClientTable
from coatcheck.core.policy import Grant, Policy, Replacement
from coatcheck.core.ports import StoreView
from coatcheck.core.redact import Needles
from coatcheck.core.secret import Secret, SecretValue

MAX_SCOPES = 1024  # pairs of client and destination kept; a client can name any number of hosts


@dataclass(frozen=True, slots=True, eq=False)  # kept by identity: hashing 100 secrets costs
class Scope:
    """The secrets that one client may use at one destination.

    Attributes:
        bound: Those with named domains, and what they were before: their values are scrubbed from
            every answer.
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
        self._grants: OrderedDict[Hashable, tuple[Grant, ...]] = OrderedDict()

    def grants(self, client: str, destination: Destination, name: str) -> tuple[Grant, ...]:
        """The grants that may let *client* send a secret of this *name* to *destination*."""
        return _kept(
            self._grants,
            (client, destination, name),
            lambda: policy.candidates(self.policy, client, destination, name),
        )

    def scope(self, client: str, destination: Destination) -> Scope:
        return _kept(
            self._scopes, (client, destination), lambda: self._find_scope(client, destination)
        )

    def needles(
        self, scope: Scope, injected: frozenset[str], tokens: frozenset[tuple[str, bytes]]
    ) -> tuple[Needles, ...]:
        """What to search for in one answer, one after the other; none where nothing is.

        The rendered tokens are a search of their own, since they come with the request: those of
        the scope are never built again for them.

        Args:
            injected: Names of the secrets that this flow injects.
            tokens: (name, bytes) of what carries values in Basic tokens that are sent.

        Raises:
            StoreError: a value cannot be opened.
            TooLong: a value in scope is too long to be searched for.
        """
        roaming: frozenset[str] = frozenset()
        if scope.roaming:
            roaming = frozenset(
                name
                for name in injected
                if (secret := self.view.find(name)) is not None and secret.id in scope.roaming
            )
        known = _kept(self._needles, (scope, roaming), lambda: self._build(scope, roaming))
        if not tokens:
            return (known,) if known else ()
        sent = _kept(self._needles, tokens, lambda: self._needles_of((), tokens))
        return tuple(needles for needles in (known, sent) if needles)

    def _find_scope(self, client: str, destination: Destination) -> Scope:
        def fitting(secrets: Iterable[Secret]) -> list[Secret]:
            return policy.in_scope(self.policy, client, destination, secrets)

        inside = fitting(self.view.secrets())
        roaming = frozenset(secret.id for secret in inside if _goes_anywhere(secret))
        bound = [secret for secret in inside if secret.id not in roaming]
        ids = {secret.id for secret in bound}
        former = self.view.former()
        # Of what was replaced: all of a secret in scope, and what was allowed here then.
        before = [old for old in former if old.id in ids]
        before += [
            old
            for old in fitting(old for old in former if old.id not in ids)
            if not _goes_anywhere(old)
        ]
        return Scope((*bound, *before), roaming)

    def _build(self, scope: Scope, roaming: frozenset[str]) -> Needles:
        found = (self.view.find(name) for name in sorted(roaming))
        present = [secret for secret in found if secret is not None]
        ids = {secret.id for secret in present}
        before = [old for old in self.view.former() if old.id in ids] if ids else []
        secrets = (*scope.bound, *present, *before)
        return self._needles_of([self.view.open(secret) for secret in secrets], ())

    def _needles_of(
        self, values: Iterable[SecretValue], tokens: Iterable[tuple[str, bytes]]
    ) -> Needles:
        replacement = _written if self.policy.replacement is Replacement.PLACEHOLDER else None
        return Needles.build(values, sorted(tokens), replacement=replacement)


def _goes_anywhere(secret: Secret) -> bool:
    return any(pattern.any for pattern in secret.domains)


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
