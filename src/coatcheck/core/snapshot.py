"""One policy and one view of the store, joined: what a single request sees from start to end.

Everything that does not depend on the request is worked out here once and kept: the clients, the
grammar, and, for each client and destination, the secrets in scope and the search for their
values. A change of policy or store makes a new snapshot; nothing in an old one ever changes.

A search takes some milliseconds a secret to build. So a snapshot takes over those of the one before
it whose values are the same, `warm` builds what was in use before the snapshot is put in force, and
`unbuilt` says where a request would have to wait, so that the engine builds it beside its loop.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass

from coatcheck.core import internal, placeholder, policy
from coatcheck.core.destination import Destination
from coatcheck.core.identity import ClientTable
from coatcheck.core.policy import Grant, Policy, Replacement
from coatcheck.core.ports import StoreView
from coatcheck.core.redact import Needles
from coatcheck.core.secret import Secret, SecretValue

MAX_SCOPES = 1024  # pairs of client and destination kept; a client can name any number of hosts
AT_ONCE = 4  # secrets whose search is built while a request waits: some 15 ms
LISTED_AT_ONCE = 500  # secrets that are listed while a request waits: some milliseconds
WARMED = 50  # secrets whose searches are built before a snapshot is in force: some 200 ms


@dataclass(frozen=True, slots=True, eq=False)  # kept by identity: hashing 100 secrets costs
class Scope:
    """The secrets that one client may use at one destination.

    Attributes:
        bound: Those with named domains, and what they were before: their values are scrubbed from
            every answer.
        roaming: Those allowed anywhere (``*``): scrubbed where this flow injected them, since
            elsewhere the scrubber would tell a client whether its guess is right.
        urls: Of all these, those whose value the client may send requests to.
    """

    bound: tuple[Secret, ...]
    roaming: frozenset[str]  # ids
    urls: frozenset[str] = frozenset()  # ids


class Snapshot:
    """See the module. Methods may raise `StoreError` where a value has to be opened."""

    def __init__(self, policy: Policy, view: StoreView, older: Snapshot | None = None) -> None:
        """*older*: the one in force so far; what is the same in both is not made again."""
        self.policy = policy
        self.view = view
        self._older = older
        self._index: _Index | None = None
        # By the values searched for, so that a new policy builds nothing.
        self._built: dict[Hashable, Needles] = {}
        if older is not None:
            self._index = older._index if older.view is view else None
            used = set(older._needles.values())
            self._built = {key: made for key, made in older._built.items() if made in used}
        self.clients = ClientTable(policy.clients)
        self.grammar = placeholder.Grammar(policy.syntaxes)
        self._scopes: OrderedDict[tuple[str, Destination], Scope] = OrderedDict()
        self._needles: OrderedDict[Hashable, Needles] = OrderedDict()
        self._admitted: OrderedDict[Destination, bool] = OrderedDict()
        self._grants: OrderedDict[Hashable, tuple[Grant, ...]] = OrderedDict()
        self._listings: OrderedDict[str, bytes] = OrderedDict()

    def admits(self, destination: Destination) -> bool:
        """Whether the egress rules let anybody go to *destination*."""
        return _kept(
            self._admitted,
            destination,
            lambda: policy.egress_allows(self.policy.egress, destination),
        )

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

    def listing(self, client: str) -> bytes:
        """The secrets that *client* may use somewhere, as `internal.document` writes them."""
        return _kept(self._listings, client, lambda: self._list(client))

    def unlisted(self, client: str) -> Work | None:
        """As `unbuilt`, for `listing`."""
        if client in self._listings or len(self.view.secrets()) <= LISTED_AT_ONCE:
            return None

        def work() -> None:
            self._listings[client] = self._list(client)  # one step, as in `_take`

        return work

    def _list(self, client: str) -> bytes:
        found = (
            (secret, policy.granted(self.policy, client, secret.name))
            for secret in self.view.secrets()
        )
        own = ((secret, grants) for secret, grants in found if grants)
        return internal.document(own, self.policy.syntaxes)

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
        roaming = _NOTHING
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

    def unbuilt(self, client: str, destination: Destination) -> Work | None:
        """What has to be done before a request of *client* to *destination* is begun, where it
        takes long; it may be done in another thread. None: nothing."""
        scope = self.scope(client, destination)
        if len(scope.bound) <= AT_ONCE or (scope, _NOTHING) in self._needles:
            return None

        def work() -> None:
            if (scope, _NOTHING) not in self._needles:  # others may have asked for it too
                self._take(scope, self._build(scope, _NOTHING))

        return work

    def warm(self) -> None:
        """Build what the older snapshot had in use, as far as that does not take long. To be
        called before this one is in force, in any thread."""
        older, self._older = self._older, None
        left = WARMED
        for client, destination in list(older._scopes)[::-1] if older is not None else ():
            scope = self.scope(client, destination)
            left -= len(scope.bound)
            if left < 0:
                return
            self._take(scope, self._build(scope, _NOTHING))

    def _take(self, scope: Scope, needles: Needles) -> None:
        self._needles[scope, _NOTHING] = needles  # one step, so that it can come from any thread

    def _find_scope(self, client: str, destination: Destination) -> Scope:
        def fitting(secrets: Iterable[Secret]) -> list[Secret]:
            return policy.in_scope(self.policy, client, destination, secrets)

        if self._index is None:
            self._index = _Index(self.view)
        inside = fitting(self._index.near(destination))
        roaming = frozenset(secret.id for secret in inside if _goes_anywhere(secret))
        bound = [secret for secret in inside if secret.id not in roaming]
        ids = {secret.id for secret in bound}
        former = self._index.former
        # Of what was replaced: all of a secret in scope, and what was allowed here then.
        before = [old for old in former if old.id in ids]
        before += [
            old
            for old in fitting(old for old in former if old.id not in ids)
            if not _goes_anywhere(old)
        ]
        urls = policy.sent_to(self.policy, client, destination, (*inside, *before))
        return Scope((*bound, *before), roaming, urls)

    def _build(self, scope: Scope, roaming: frozenset[str]) -> Needles:
        found = (self.view.find(name) for name in sorted(roaming))
        present = [secret for secret in found if secret is not None]
        ids = {secret.id for secret in present}
        former = self._index.former if self._index is not None else ()
        before = [old for old in former if old.id in ids] if ids else []
        secrets = (*scope.bound, *present, *before)
        values = [self.view.open(secret) for secret in secrets]
        pairs = zip(secrets, values, strict=True)
        return self._needles_of(values, (), [v for secret, v in pairs if secret.id in scope.urls])

    def _needles_of(
        self,
        values: Iterable[SecretValue],
        tokens: Iterable[tuple[str, bytes]],
        urls: Iterable[SecretValue] = (),
    ) -> Needles:
        values, urls = tuple(values), tuple(urls)
        key = (values, urls, self.policy.replacement)
        built = self._built.get(key) if not tokens else None
        if built is None:
            replacement = _written if self.policy.replacement is Replacement.PLACEHOLDER else None
            built = Needles.build(values, sorted(tokens), replacement=replacement, urls=urls)
            if not tokens:
                if len(self._built) >= MAX_SCOPES:
                    self._built = {}
                self._built[key] = built
        return built


class _Index:
    """The secrets of a view by where they may go: with ten thousand in the store, a new
    destination must not look at each."""

    def __init__(self, view: StoreView) -> None:
        self.former = tuple(view.former())
        self._order: dict[str, int] = {}
        self._anywhere: list[Secret] = []
        self._by_host: dict[tuple[bool, str], list[Secret]] = {}
        for place, secret in enumerate(view.secrets()):
            self._order[secret.id] = place
            for pattern in secret.domains:
                if pattern.any:
                    self._anywhere.append(secret)
                else:
                    here = self._by_host.setdefault((pattern.wildcard, pattern.host), [])
                    here.append(secret)

    def near(self, destination: Destination) -> list[Secret]:
        """Those with a pattern for this host (the port is not looked at), in order of name."""
        found = [*self._anywhere, *self._by_host.get((False, destination.host), ())]
        _, _, parent = destination.host.partition(".")
        while parent:
            found += self._by_host.get((True, parent), ())
            _, _, parent = parent.partition(".")
        unique = {secret.id: secret for secret in found}
        return sorted(unique.values(), key=lambda secret: self._order[secret.id])


_NOTHING: frozenset[str] = frozenset()
type Work = Callable[[], None]


def _goes_anywhere(secret: Secret) -> bool:
    return any(pattern.any for pattern in secret.domains)


def _written(name: str) -> bytes:
    return placeholder.write(name).encode()


def _kept[K: Hashable, T](cache: OrderedDict[K, T], key: K, make: Callable[[], T]) -> T:
    """The entry of *key*, made if absent; the least recently used one goes when it is full."""
    try:
        cache.move_to_end(key)
        return cache[key]
    except KeyError:
        made = cache[key] = make()
        if len(cache) > MAX_SCOPES:
            cache.popitem(last=False)
        return made
