"""A Vault for tests: KV version 2, tokens with a lease, AppRole.

It answers what a real one answers to what the adapter asks, in the shapes of its documentation.

It can be sealed, hang, and break off. It keeps what it was asked, with the token.
"""

from __future__ import annotations

import json
import secrets
import socket
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ROLE, SECRET_ID = "role-4f1c22aa", "secret-id-9b7e-SENTINEL"


@dataclass
class Token:
    """A token; times by the monotonic clock."""

    until: float
    ttl: int
    renewable: bool = True


@dataclass
class State:
    """What the Vault knows.

    Attributes:
        kv: By path: the versions, oldest first; None: deleted.
        mode: ``well``, ``sealed``, ``hangs``, ``breaks off``, ``odd``, ``to URL``.
    """

    kv: dict[str, list[dict[str, Any] | None]] = field(default_factory=dict)
    tokens: dict[str, Token] = field(default_factory=dict)
    mode: str = "well"
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    ttl: int = 3600
    namespace: str = ""


class Vault:
    """A running one, on loopback or on *listener*."""

    def __init__(self, listener: socket.socket | None = None) -> None:
        self.state = State()
        self.released = threading.Event()
        vault = self

        class Handler(_Handler):
            owner = vault

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler, bind_and_activate=False)
        self._server.socket.close()
        self._server.socket = listener or socket.create_server(("127.0.0.1", 0))
        self._server.server_address = self._server.socket.getsockname()
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()

    def put(self, path: str, **fields: Any) -> None:
        self.state.kv.setdefault(path, []).append(fields)

    def delete(self, path: str) -> None:
        """The newest version, as ``vault kv delete`` does."""
        self.state.kv[path][-1] = None

    def token(self, ttl: int = 3600, *, renewable: bool = True) -> str:
        """A new one."""
        made = "hvs.SENTINEL" + secrets.token_hex(8)
        self.state.tokens[made] = Token(time.monotonic() + (ttl or 10**6), ttl, renewable)
        return made

    def asked(self, part: str) -> int:
        """How often for something with *part* in its path."""
        return sum(part in path for _, path, _ in self.state.asked)


class _Handler(BaseHTTPRequestHandler):
    owner: Vault
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def log_message(self, *_: object) -> None:
        return

    def _answer(self) -> None:
        state = self.owner.state
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length) or b"{}")
        token = self.headers.get("X-Vault-Token", "")
        state.asked.append((self.command, self.path, token))
        if state.mode == "hangs":
            self.owner.released.wait(20)
        if state.mode in ("hangs", "breaks off"):
            self.close_connection = True
            self.connection.close()
        elif state.mode == "sealed":
            self._send(503, {"errors": ["Vault is sealed, SENTINEL"]})
        elif state.mode.startswith("to "):
            self._send(307, {}, Location=state.mode.removeprefix("to ") + self.path)
        elif state.mode == "odd":
            self._send(200, {"data": {"SENTINEL": body}})
        elif self.headers.get("X-Vault-Namespace", "") != state.namespace:
            self._send(404, {"errors": [f"no handler for route SENTINEL {self.path}"]})
        else:
            self._send(*self._judge(state, body, token))

    def _judge(self, state: State, body: dict[str, Any], token: str) -> tuple[int, Any]:
        if self.path == "/v1/auth/approle/login":
            if (body.get("role_id"), body.get("secret_id")) != (ROLE, SECRET_ID):
                return 400, {"errors": [f"invalid role or secret ID: {body}"]}
            return 200, {"auth": self._lease(state, self.owner.token(state.ttl))}
        found = state.tokens.get(token)
        if found is None or found.until < time.monotonic():
            return 403, {"errors": [f"permission denied, SENTINEL {token}"]}
        if self.path == "/v1/auth/token/lookup-self":
            return 200, {"data": {"ttl": found.ttl, "renewable": found.renewable, "id": token}}
        if self.path == "/v1/auth/token/renew-self":
            if not found.renewable:
                return 400, {"errors": ["lease is not renewable"]}
            found.until = time.monotonic() + state.ttl
            return 200, {"auth": self._lease(state, token)}
        return self._read(state, self.path.removeprefix("/v1/secret/data/"))

    def _lease(self, state: State, token: str) -> dict[str, Any]:
        return {"client_token": token, "lease_duration": state.ttl, "renewable": True}

    def _read(self, state: State, path: str) -> tuple[int, Any]:
        versions = state.kv.get(path, [])
        if not versions:
            return 404, {"errors": []}
        metadata = {"version": len(versions), "deletion_time": "", "destroyed": False}
        if versions[-1] is None:
            metadata["deletion_time"] = "2026-11-26T12:00:00Z"
            return 404, {"data": {"data": None, "metadata": metadata}}
        return 200, {"data": {"data": versions[-1], "metadata": metadata}}

    def _send(self, status: int, answer: Any, **fields: str) -> None:
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        for name, value in fields.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)
