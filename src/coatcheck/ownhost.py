"""What `coatcheck.internal` answers: pages of our own, and requests to URLs that are values.

Beside the gateway, since it answers instead of asking: the engine comes here with a request for
this host before it thinks of a destination, and gets a page to send, or an `Aim` to begin with.
Each page is recorded before it is given out, as each refusal is. The canary's is a whole exchange
of its own (`canary`), with the records of one.

A name that does not exist and one that is not granted are told apart by nothing: not by the words,
and not by the time, since a value is opened only once it is granted.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from coatcheck.canary import Canary
from coatcheck.core import aiming, audit, internal, policy, whole_url
from coatcheck.core.aiming import Aim
from coatcheck.core.destination import Destination
from coatcheck.core.internal import Page, ToUrl
from coatcheck.core.message import Fields, RequestHead
from coatcheck.core.ports import AuditError, StoreError
from coatcheck.core.problems import Code, Problem, Refused
from coatcheck.core.secret import Secret
from coatcheck.core.snapshot import Snapshot, Work
from coatcheck.gateway import Gateway, Origin

READING = frozenset({b"GET", b"HEAD"})
_KINDS = {
    Page.CA: b"application/x-pem-file",
    Page.SECRETS: b"application/json",
    Page.CANARY: b"application/json",
}


@dataclass(frozen=True, slots=True)
class Served:
    """One page, with status 200."""

    kind: bytes
    body: bytes
    more: Fields = ()

    def fields(self) -> Fields:
        return (
            (b"Content-Type", self.kind),
            (b"Cache-Control", b"no-store"),  # what holds for one client is nobody else's
            (b"X-Content-Type-Options", b"nosniff"),
            *self.more,
        )


@dataclass(frozen=True, slots=True)
class OwnHost:
    """One for each connection.

    Attributes:
        ca_pem: Our certificate, without its key.
        canary: None where there is none: then nothing is served there.
    """

    gateway: Gateway
    ca_pem: bytes
    canary: Canary | None = None

    def ask(
        self, origin: Origin, destination: Destination, head: RequestHead, *, has_body: bool
    ) -> Served | Aim:
        """What is to be answered, or where the request is meant for.

        Raises:
            Refused: it is recorded.
        """
        snapshot, request_id = self.gateway.snapshot, self.gateway.new_id()
        facts = audit.Facts(request_id, origin.client, origin.address, destination)
        try:
            asked = internal.route(head.target)
            if isinstance(asked, ToUrl):
                return _aim(snapshot, origin.client, asked)
            if asked is Page.CANARY:
                return self._ask_canary(origin, head, has_body=has_body)
            served = self._page(asked, head.method, has_body, snapshot, origin.client)
            facts = facts._replace(method=head.method.decode("ascii"), path=str(asked))
            self.gateway.log.write(audit.allowed(self.gateway.now(), facts, ()))
            return served
        except Exception as error:  # fail closed: any bug is a refusal
            refused = _refused(error)
            if refused.request_id:
                raise refused from None  # of an exchange, which has recorded it
            self.gateway.record_refusal(origin, refused.problem, request_id, destination)
            refused.request_id = request_id
            raise refused from None

    def unbuilt(self, client: str, target: bytes) -> Work | None:
        """As `Gateway.unbuilt`: what has to be done before `ask` is called with *target*."""
        if target.partition(b"?")[0] != Page.SECRETS.encode():
            return None
        return self.gateway.snapshot.unlisted(client)

    def _ask_canary(self, origin: Origin, head: RequestHead, *, has_body: bool) -> Served:
        if self.canary is None or head.method != b"GET" or has_body:
            raise internal.not_found()
        more, body = self.canary.answer(origin, head)
        return Served(_KINDS[Page.CANARY], body, more)

    def _page(
        self, page: Page, method: bytes, has_body: bool, snapshot: Snapshot, client: str
    ) -> Served:
        if method not in READING or has_body:
            raise internal.not_found()
        if page is Page.SECRETS:
            return Served(_KINDS[page], snapshot.listing(client))
        if not self.ca_pem:
            raise internal.not_found()
        return Served(_KINDS[page], self.ca_pem)


def _aim(snapshot: Snapshot, client: str, asked: ToUrl) -> Aim:
    grants = policy.granted(snapshot.policy, client, asked.name)
    secret = snapshot.view.find(asked.name)
    if not grants or secret is None:
        # Not even the name is repeated: a client may have put a value in its place.
        detail = "No secret of this name is available to this client."
        hint = "check the name; the names there are: http://coatcheck.internal/v1/secrets"
        raise Refused(Problem(Code.SECRET_UNAVAILABLE, detail, hint=hint, host=internal.HOST))
    if not any(grant.takes_urls for grant in grants):
        raise _stopped(
            Code.LOCATION_NOT_ALLOWED,
            "No grant lets requests go to the URL that is this secret.",
            "an operator can add url to the grant's in: list",
            secret,
        )
    try:
        return aiming.aim(snapshot, secret, snapshot.view.open(secret), asked.more)
    except whole_url.NotAUrl as error:
        raise _stopped(
            Code.VALUE_NOT_REPRESENTABLE,
            f"No request can be sent to this secret: {error}.",
            "an operator can store it again as https://HOST/PATH, percent-encoded where needed",
            secret,
        ) from None
    except StoreError as error:
        refused = _stopped(
            Code.STORE_UNAVAILABLE,
            "The value cannot be opened.",
            "an operator finds the reason with: coatcheck doctor",
            secret,
        )
        refused.problem = replace(refused.problem, operator=str(error))
        raise refused from None


def _stopped(code: Code, detail: str, hint: str, secret: Secret) -> Refused:
    where = str(aiming.LOCATION)
    problem = Problem(
        code, detail, hint=hint, secret=secret.name, host=internal.HOST, location=where
    )
    return Refused(problem)


def _refused(error: Exception) -> Refused:
    if isinstance(error, Refused):
        return error.with_traceback(None)
    if isinstance(error, AuditError):
        detail = "Nothing is answered without an audit record."
        return Refused(Problem(Code.AUDIT_UNAVAILABLE, detail, operator=str(error)))
    return Refused(Problem(Code.INTERNAL_ERROR, operator=type(error).__name__))
