"""Answers ``coatcheck.internal/v1/canary``: a whole request and its answer, with nothing dialled.

What stands in for the upstream is `_upstream` here: it is given the head that would have left, and
sends back what an upstream would that reflects the credential, in several spellings and in a body
that comes in two parts. All else is what every request goes through: a `Gateway` and its exchange,
which judge, fill in, record and scrub. Its snapshot has the canary alone (`core.canary`).
"""

from __future__ import annotations

import base64
import json

from coatcheck.core import canary
from coatcheck.core.message import Fields, RequestHead, ResponseHead
from coatcheck.core.problems import Code, refuse
from coatcheck.core.snapshot import Snapshot
from coatcheck.gateway import Gateway, Origin

MAX_CLIENTS = 64  # whose snapshot is kept


class Canary:
    """One for each process."""

    def __init__(self, gateway: Gateway, key: bytes, salt: str) -> None:
        """*gateway*: whose log, limits and clock are used.

        Args:
            key: Shared with `coatcheck doctor`.
            salt: Drawn for this process.
        """
        self._like = gateway
        self._key = key
        self._salt = salt
        self._view = canary.view(key, salt)
        self._gateways: dict[str, Gateway] = {}

    def answer(self, origin: Origin, head: RequestHead) -> tuple[Fields, bytes]:
        """The fields and the body that the client gets.

        Raises:
            Refused: it is recorded where it has a request id.
        """
        nonce = head.target.partition(b"?")[2]
        if len(head.all(b"authorization")) != 1 or len(nonce) > canary.MAX_NONCE:
            hint = f"send {canary.PLACEHOLDER.decode()} in one Authorization field"
            raise refuse(Code.BAD_REQUEST, "This is not what the canary is asked.", hint=hint)
        exchange = self._for(origin.client).begin(origin, canary.DESTINATION, head)
        back, body = self._upstream(exchange.open().head, nonce)
        incoming = exchange.response(back, has_body=True, length=len(body))
        middle = len(body) // 2
        out = exchange.feed_response(body[:middle]) + exchange.feed_response(body[middle:])
        return incoming.head.fields, out + exchange.finish_response()

    def _for(self, client: str) -> Gateway:
        """The gateway whose policy is made for *client*."""
        known = self._gateways.get(client)
        if known is None:
            if len(self._gateways) >= MAX_CLIENTS:
                self._gateways.clear()
            like = self._like
            known = self._gateways[client] = Gateway(
                Snapshot(canary.policy_for(client), self._view),
                like.log,
                like.limits,
                now=like.now,
                new_id=like.new_id,
            )
        return known

    def _upstream(self, head: RequestHead, nonce: bytes) -> tuple[ResponseHead, bytes]:
        """What it sends back that was sent *head*."""
        seen = head.all(b"authorization")[0]
        secret = seen.rpartition(b" ")[2]
        body = {
            "raw": secret.decode("latin-1"),
            "base64": base64.b64encode(secret).decode(),
            "hex": secret.hex(),
        }
        fields = (
            (canary.ECHO, seen),
            (canary.PROOF, canary.proof(self._key, nonce, seen).encode()),
            (canary.SALT, self._salt.encode()),
        )
        return ResponseHead(200, b"OK", fields), json.dumps(body).encode() + b"\n"
