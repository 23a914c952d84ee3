"""The canary of `coatcheck doctor`: a value that opens nothing, to see what becomes of values.

A proxy can answer and still inject nothing, or scrub nothing. To see that, some value has to go the
way of all values; here it is one that each worker draws for itself and that fits no lock. Doctor
and worker share a key, a file that only the owner of the home can read. From it and from the salt
in an answer doctor knows the value, and so what an answer has to prove and what it must not hold.
A client has no key: to it the proof is 64 digits, and the value of no use if it had it.

The canary has a policy and a store of its own (`view`, `policy_for`), in which there is nothing
else, so its placeholder means nothing anywhere else and no other one means anything here.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Collection

from coatcheck.core.destination import Destination, parse_domain_pattern
from coatcheck.core.locations import Kind, LocationPattern
from coatcheck.core.policy import Grant, Policy
from coatcheck.core.ports import StoreError
from coatcheck.core.secret import Secret, SecretValue

NAME = "coatcheck-canary"
PLACEHOLDER = b"{{secrets.%b}}" % NAME.encode()
PATH = "/v1/canary"
# What the request is judged for. It is never dialled; if it were, nobody has this name (RFC 6761).
DESTINATION = Destination("https", "canary.invalid", 443)
KEY_BYTES = 32
SALT_BYTES = 16
MAX_NONCE = 64  # bytes

# Fields of the answer.
ECHO, PROOF, SALT = b"Coatcheck-Canary-Echo", b"Coatcheck-Canary-Proof", b"Coatcheck-Canary-Salt"


def value(key: bytes, salt: str) -> bytes:
    """The canary's value in the worker that drew *salt*; letters and digits."""
    return b"canary" + _digest(key, b"value", salt.encode()).encode()


def proof(key: bytes, nonce: bytes, seen: bytes) -> str:
    """That the holder of *key* was sent *seen*, in answer to the request of this *nonce*."""
    return _digest(key, b"proof", nonce, seen)


def view(key: bytes, salt: str) -> _OneSecret:
    """A store with the canary in it and nothing else."""
    return _OneSecret(SecretValue(NAME, 1, value(key, salt)))


def policy_for(client: str) -> Policy:
    """What *client* may do with it: send it once, in one place, to one destination."""
    place = LocationPattern(Kind.HEADER, "authorization")
    grant = Grant((NAME,), (client,), locations=(place,), methods=frozenset({"GET"}), max_uses=1)
    return Policy(grants=(grant,), digest="canary")


class _OneSecret:
    """A `coatcheck.core.ports.StoreView`."""

    revision = 1

    def __init__(self, value: SecretValue) -> None:
        self._value = value
        self._secret = Secret(NAME, NAME, 1, (parse_domain_pattern(DESTINATION.host),))

    def find(self, name: str) -> Secret | None:
        return self._secret if name == NAME else None

    def secrets(self) -> Collection[Secret]:
        return (self._secret,)

    def open(self, secret: Secret) -> SecretValue:
        if secret is not self._secret:
            raise StoreError("the canary's store has the canary alone", hint="this is a bug")
        return self._value

    def former(self) -> Collection[Secret]:
        return ()


def _digest(key: bytes, *parts: bytes) -> str:
    # Each with its length, so that no two lists of parts are the same bytes.
    text = b"".join(b"%d:%b" % (len(part), part) for part in parts)
    return hmac.new(key, text, hashlib.sha256).hexdigest()
