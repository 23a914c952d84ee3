"""Sends the canary's placeholder through the running proxy, as a client does, and looks what comes.

By CONNECT and TLS, trusting the authority of this home alone: so it is seen too that the proxy
shows clients a certificate they can trust. The value that must have been filled in is known from
the key that proxy and home share (`core.canary`); it is looked for in every byte that comes back.
"""

from __future__ import annotations

import base64
import hmac
import io
import secrets
import socket
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPException, parse_headers

from coatcheck.cli.doctor_machine import Running, reachable
from coatcheck.cli.findings import Finding, fail, failed_by, ok, warn
from coatcheck.core import canary, internal
from coatcheck.core.ports import CoatcheckError
from coatcheck.store import canarykey
from coatcheck.store.home import Home

CHECK = "canary"
TIMEOUT_S = 10.0
MAX_ANSWER = 64 * 1024  # bytes
MASKED = "Bearer ********"  # what stands in the place of the value
UNTRIED = "so injection and scrubbing were not tried"
BROKEN = "stop it, look at its log and at coatcheck version, and report it"


@dataclass(frozen=True, slots=True)
class _Answer:
    """``data``: all that came, head and body."""

    status: int
    fields: Message
    data: bytes

    def field(self, name: bytes) -> str:
        return self.fields.get(name.decode(), "")


def check(home: Home, found: Running, credential: tuple[str, str]) -> Iterator[Finding]:
    """Whether a placeholder is filled in and its value taken out of the answer again.

    Args:
        credential: Name and token of the client that is to be used; each may be empty.
    """
    if not found.addresses:
        yield warn(
            CHECK,
            f"there is no canary inside somebody's mitmproxy, {UNTRIED}",
            "use coatcheck serve where secrets matter",
        )
        return
    try:
        key = canarykey.read(home.canary_key)
    except CoatcheckError as error:
        yield warn(CHECK, f"{error.problem}, {UNTRIED}", f"{error.hint}; restart the proxy")
        return
    for address in found.addresses:
        yield _of_address(home, address, key, credential)


def _of_address(
    home: Home, address: tuple[str, int], key: bytes, credential: tuple[str, str]
) -> Finding:
    shown = f"the proxy at {address[0]}:{address[1]}"
    try:
        context = ssl.create_default_context(cadata=home.ca_certificate.read_text("ascii"))
        nonce = secrets.token_hex(16)
        answer = _ask(address, context, nonce, credential)
    except CoatcheckError as error:
        return failed_by(CHECK, error)
    except ssl.SSLError:
        return fail(
            CHECK,
            f"{shown} shows a certificate that is not of {home.ca_certificate}",
            "restart it, and give clients what `coatcheck ca export` prints",
        )
    except (OSError, ValueError, HTTPException) as error:
        return fail(CHECK, f"{shown} did not answer ({type(error).__name__})", BROKEN)
    return _judge(shown, answer, key, nonce.encode())


def _ask(
    address: tuple[str, int], context: ssl.SSLContext, nonce: str, credential: tuple[str, str]
) -> _Answer:
    host, port = address
    with socket.create_connection((reachable(host), port), TIMEOUT_S) as sock:
        target = f"{internal.HOST}:443"
        lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}", *_authorization(credential)]
        sock.sendall(_head(lines))
        connected = _read(sock.recv, to_end=False)
        if connected.status != 200:
            return connected
        with context.wrap_socket(sock, server_hostname=internal.HOST) as tls:
            lines = [
                f"GET {canary.PATH}?{nonce} HTTP/1.1",
                f"Host: {internal.HOST}",
                f"Authorization: Bearer {canary.PLACEHOLDER.decode()}",
                "Connection: close",
            ]
            tls.sendall(_head(lines))
            return _read(tls.recv, to_end=True)


def _judge(shown: str, answer: _Answer, key: bytes, nonce: bytes) -> Finding:
    code = answer.field(b"Coatcheck-Error")
    if answer.status == 407:
        return warn(
            CHECK,
            f"{shown} does not know us as a client, {UNTRIED}",
            "name one: COATCHECK_CLIENT_TOKEN=TOKEN coatcheck doctor",
        )
    if code == "not_found":
        return warn(
            CHECK,
            f"{shown} has no canary, {UNTRIED}",
            "look for canary.off in its log, or restart it with this version",
        )
    if answer.status != 200:
        what = f"{shown} refused the canary ({code or f'status {answer.status}'})"
        return fail(CHECK, what, "docs/troubleshooting.md has an entry for each code")
    value = canary.value(key, answer.field(canary.SALT))
    if _holds(answer.data, value):
        return fail(CHECK, f"{shown} let a value through to the client: it does not scrub", BROKEN)
    proof = canary.proof(key, nonce, b"Bearer " + value)
    if not hmac.compare_digest(proof.encode(), answer.field(canary.PROOF).encode()):
        return fail(CHECK, f"{shown} did not put the value in the placeholder's place", BROKEN)
    if answer.field(canary.ECHO) != MASKED:
        return fail(CHECK, f"{shown} did not send the answer that was to be scrubbed", BROKEN)
    return ok(CHECK, f"{shown} filled a placeholder, and scrubbed its value from the answer")


def _holds(data: bytes, value: bytes) -> bool:
    """Whether *data* has *value* as the canary's answer spells it."""
    spelled = (value, base64.b64encode(value).rstrip(b"="), value.hex().encode())
    return any(text in data for text in spelled)


def _authorization(credential: tuple[str, str]) -> list[str]:
    name, token = credential
    if not token:
        return []
    if not name:
        return [f"Proxy-Authorization: Bearer {token}"]
    basic = base64.b64encode(f"{name}:{token}".encode()).decode()
    return [f"Proxy-Authorization: Basic {basic}"]


def _head(lines: list[str]) -> bytes:
    return "\r\n".join([*lines, "", ""]).encode()


def _read(receive: Callable[[int], bytes], *, to_end: bool) -> _Answer:
    """An answer: all that comes, or its head alone."""
    data = b""
    while to_end or b"\r\n\r\n" not in data:
        chunk = receive(MAX_ANSWER)
        data += chunk
        if not chunk or len(data) > MAX_ANSWER:
            break
    line, _, rest = data.partition(b"\r\n")
    parts = line.split(b" ")
    if len(parts) < 2:
        raise ValueError("no answer")
    return _Answer(int(parts[1]), parse_headers(io.BytesIO(rest)), data)
