"""Google's and Azure's services for tests, over TLS: stores of secrets, and who gives out tokens.

They answer what the real ones answer to what the adapters and the libraries for tokens ask, in the
shapes of their documentation: Secret Manager v1, Key Vault 7.4, OAuth 2.0 token endpoints, the
metadata servers of both (over http, as they are). They can be down, hang, and send elsewhere. They
keep what they were asked, and with which token.
"""

from __future__ import annotations

import base64
import json
import secrets
import ssl
import threading
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import RSAKey

from tests.store.sources.crc import reference_crc32c

TENANT, CLIENT = "8d7f0d62-8b2f-4f0e-9d0a-2f4f6a1f9c11", "5b1c7c1e-43a5-4c8e-9a38-7d5d0b6a7f42"
CLIENT_SECRET = "client-secret-SENTINEL"
ASSERTION = "federated-token-SENTINEL"
PROJECT = "acme-prod"


@dataclass
class Question:
    """One that came."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    form: dict[str, str]

    @property
    def bearer(self) -> str:
        return self.headers.get("authorization", "").removeprefix("Bearer ")


@dataclass
class State:
    """What a cloud knows.

    Attributes:
        versions: By name of a secret, oldest first; None: disabled, or destroyed.
        tokens: Those that are good.
        refused: Names of secrets that the identity may not read.
        mode: ``well``, ``down``, ``hangs``, ``breaks off``, ``odd``, ``to URL``.
        sick: The part of the paths that the mode holds for.
    """

    versions: dict[str, list[bytes | None]] = field(default_factory=dict)
    tokens: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)
    mode: str = "well"
    sick: str = "/"
    asked: list[Question] = field(default_factory=list)


@dataclass(frozen=True)
class Tls:
    """A server's context, and the file to verify it with."""

    context: ssl.SSLContext
    ca: Path


class Cloud(ABC):
    """One that runs on loopback. *context*: of its TLS; without it speaks http."""

    def __init__(self, context: ssl.SSLContext | None) -> None:
        self.state = State()
        self.released = threading.Event()
        cloud = self

        class Handler(_Handler):
            owner = cloud

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if context is not None:
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self._server.daemon_threads = True
        port = self._server.server_address[1]
        self.url = f"{'http' if context is None else 'https'}://127.0.0.1:{port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()

    def put(self, name: str, value: bytes) -> None:
        self.state.versions.setdefault(name, []).append(value)

    def take_away(self, name: str) -> None:
        """Its newest version is disabled."""
        self.state.versions[name][-1] = None

    def delete(self, name: str) -> None:
        """The whole of it."""
        del self.state.versions[name]

    def token(self) -> str:
        """A new one that is good."""
        made = "ya29.SENTINEL" + secrets.token_hex(8)
        self.state.tokens.add(made)
        return made

    def asked(self, part: str) -> list[Question]:
        return [one for one in self.state.asked if part in one.path]

    @abstractmethod
    def answer(self, question: Question) -> tuple[int, Any, dict[str, str]]:
        """Status, body and fields."""


class _Handler(BaseHTTPRequestHandler):
    owner: Cloud
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def log_message(self, *_: object) -> None:
        return

    def _answer(self) -> None:
        state = self.owner.state
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        parts = urlsplit(self.path)
        form = {name: values[0] for name, values in parse_qs(body).items()}
        headers = {name.lower(): value for name, value in self.headers.items()}
        question = Question(self.command, parts.path, parse_qs(parts.query), headers, form)
        state.asked.append(question)
        mode = state.mode if state.sick in parts.path else "well"
        if mode == "hangs":
            self.owner.released.wait(20)
        if mode in ("hangs", "breaks off"):
            self.close_connection = True
            self.connection.close()
        elif mode == "down":
            self._send(
                503, {"error": {"code": 503, "status": "UNAVAILABLE", "message": "SENTINEL"}}
            )
        elif mode == "odd":
            self._send(200, ["SENTINEL"])
        elif mode.startswith("to "):
            self._send(307, {}, {"Location": mode.removeprefix("to ") + self.path})
        else:
            self._send(*self.owner.answer(question))

    def _send(self, status: int, answer: Any, fields: dict[str, str] | None = None) -> None:
        content = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
        self.send_response(status)
        fields = {"Content-Type": "application/json", **(fields or {})}
        for name, value in {**fields, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)


# --- Google -----------------------------------------------------------------------------------

_PUBLIC = (serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
AUDIENCE = "https://oauth2.googleapis.com/token"  # wherever it is sent
ACCOUNT = "runner@acme-prod.iam.gserviceaccount.com"


class Google(Cloud):
    """Secret Manager at ``/v1``; OAuth 2.0, STS and the metadata server beside it."""

    def __init__(self, context: ssl.SSLContext | None) -> None:
        super().__init__(context)
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)

    def service_account(self) -> str:
        """A key file of one, whose tokens come from here."""
        pem = self.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        info = {
            "type": "service_account",
            "client_email": ACCOUNT,
            "private_key_id": "1",
            "private_key": pem.decode(),
            "project_id": PROJECT,
            "token_uri": f"{self.url}/token",
        }
        return json.dumps(info)

    def workload_identity(self, token_file: str) -> str:
        """The configuration of workload identity federation, with the token of a file."""
        info = {
            "type": "external_account",
            "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p",
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "token_url": f"{self.url}/sts/v1/token",
            "credential_source": {"file": token_file},
        }
        return json.dumps(info)

    def answer(self, question: Question) -> tuple[int, Any, dict[str, str]]:
        path = question.path
        if path == "/token":
            return self._signed(question)
        if path == "/sts/v1/token":
            if question.form.get("subject_token") != ASSERTION:
                return 400, {"error": "invalid_grant", "error_description": "SENTINEL"}, {}
            kind = "urn:ietf:params:oauth:token-type:access_token"
            return 200, {**self._granted(), "issued_token_type": kind}, {}
        if path.startswith("/computeMetadata"):
            return self._metadata(question)
        return self._access(question)

    def _granted(self) -> dict[str, Any]:
        return {"access_token": self.token(), "expires_in": 3600, "token_type": "Bearer"}

    def _signed(self, question: Question) -> tuple[int, Any, dict[str, str]]:
        try:
            key = RSAKey.import_key(self.key.public_key().public_bytes(*_PUBLIC))
            claims = jwt.decode(question.form["assertion"], key, algorithms=["RS256"]).claims
        except (KeyError, JoseError):
            return 400, {"error": "invalid_grant", "error_description": "SENTINEL"}, {}
        if claims["aud"] != AUDIENCE:
            return 400, {"error": "invalid_grant"}, {}
        if claims["iss"] != ACCOUNT or "cloud-platform" not in claims["scope"]:
            return 401, {"error": "unauthorized_client"}, {}
        return 200, self._granted(), {}

    def _metadata(self, question: Question) -> tuple[int, Any, dict[str, str]]:
        flavor = {"Metadata-Flavor": "Google"}
        if question.headers.get("metadata-flavor") != "Google":
            return 403, "Forbidden", {}
        if question.path.endswith("/token"):
            return 200, self._granted(), flavor
        return 200, {"email": ACCOUNT, "scopes": [], "aliases": ["default"]}, flavor

    def _access(self, question: Question) -> tuple[int, Any, dict[str, str]]:
        if question.bearer not in self.state.tokens:
            return _google(401, "UNAUTHENTICATED")
        if not question.path.endswith(":access"):
            return 404, "<html>Not Found</html>", {"Content-Type": "text/html"}
        parts = question.path.removesuffix(":access").split("/")
        name, asked = parts[-3], parts[-1]
        if parts[:4] != ["", "v1", "projects", PROJECT] or name in self.state.refused:
            return _google(403, "PERMISSION_DENIED")
        versions = self.state.versions.get(name, [])
        number = len(versions) if asked == "latest" else int(asked)
        if not 0 < number <= len(versions):
            return _google(404, "NOT_FOUND")
        value = versions[number - 1]
        if value is None:
            return _google(400, "FAILED_PRECONDITION")
        payload = {
            "data": base64.b64encode(value).decode(),
            "dataCrc32c": str(reference_crc32c(value)),
        }
        full = f"projects/1/secrets/{name}/versions/{number}"
        return 200, {"name": full, "payload": payload}, {}


def _google(code: int, status: str) -> tuple[int, Any, dict[str, str]]:
    return code, {"error": {"code": code, "message": "SENTINEL said", "status": status}}, {}


# --- Azure ------------------------------------------------------------------------------------


class Microsoft(Cloud):
    """Key Vault at ``/secrets``; Entra's token endpoint and the metadata server beside it.

    Attributes:
        resource: What the vault says that it wants a token for.
    """

    def __init__(self, context: ssl.SSLContext | None) -> None:
        super().__init__(context)
        self.resource = self.url.rpartition(":")[0]

    def answer(self, question: Question) -> tuple[int, Any, dict[str, str]]:
        path = question.path
        if path.endswith("/.well-known/openid-configuration"):
            about = f"{self.url}/{TENANT}"
            return (
                200,
                {
                    "issuer": f"{about}/v2.0",
                    "authorization_endpoint": f"{about}/oauth2/v2.0/authorize",
                    "token_endpoint": f"{about}/oauth2/v2.0/token",
                },
                {},
            )
        if path.endswith("/oauth2/v2.0/token"):
            return self._signed_in(question)
        if path == "/metadata/identity/oauth2/token":
            if question.headers.get("metadata") != "true":
                return 400, {"error": "invalid_request"}, {}
            return 200, {**self._granted(), "resource": question.query["resource"][0]}, {}
        return self._secret(question)

    def _granted(self) -> dict[str, Any]:
        return {"access_token": self.token(), "expires_in": 3600, "token_type": "Bearer"}

    def _signed_in(self, question: Question) -> tuple[int, Any, dict[str, str]]:
        form = question.form
        shown = (form.get("client_secret"), form.get("client_assertion"))
        if form.get("client_id") != CLIENT or shown not in (
            (CLIENT_SECRET, None),
            (None, ASSERTION),
        ):
            said = "AADSTS7000215: Invalid client secret provided, SENTINEL."
            return 401, {"error": "invalid_client", "error_description": said}, {}
        if self.resource + "/.default" not in form["scope"].split():
            return 400, {"error": "invalid_scope", "error_description": "SENTINEL"}, {}
        return 200, self._granted(), {}

    def _secret(self, question: Question) -> tuple[int, Any, dict[str, str]]:
        if question.bearer not in self.state.tokens:
            challenge = (
                f'Bearer authorization="https://login.microsoftonline.com/{TENANT}", '
                f'resource="{self.resource}"'
            )
            said = _azure(401, "Unauthorized")
            return said[0], said[1], {"WWW-Authenticate": challenge}
        if question.query.get("api-version") != ["7.4"]:
            return _azure(400, "BadParameter")
        _, kind, name, *rest = question.path.split("/")
        if kind != "secrets":
            return 404, "<html>Not Found</html>", {"Content-Type": "text/html"}
        if name in self.state.refused:
            return _azure(403, "Forbidden", "ForbiddenByPolicy")
        versions = self.state.versions.get(name, [])
        number = int(rest[0], 16) if rest else len(versions)
        if not 0 < number <= len(versions):
            return _azure(404, "SecretNotFound")
        value = versions[number - 1]
        if value is None:
            return _azure(403, "Forbidden", "SecretDisabled")
        about = {"id": f"{self.url}/secrets/{name}/{number:032x}", "attributes": {"enabled": True}}
        return 200, {"value": value.decode(), **about}, {}


def _azure(status: int, code: str, inner: str = "") -> tuple[int, Any, dict[str, str]]:
    error: dict[str, Any] = {"code": code, "message": "SENTINEL said"}
    if inner:
        error["innererror"] = {"code": inner}
    return status, {"error": error}, {}
