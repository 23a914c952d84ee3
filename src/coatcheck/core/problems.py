"""Every refusal: its code, its status, and how it is told to the client (RFC 9457).

A code is a promise to people and programs outside: the README lists them, with what to do about
each. Texts name the thing and the next step; they never quote a byte that an
upstream sent, an address, or a value.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum


class Code(StrEnum):
    PROXY_AUTH_REQUIRED = "proxy_auth_required"
    BAD_REQUEST = "bad_request"
    NOT_FOUND = "not_found"
    PLACEHOLDER_MALFORMED = "placeholder_malformed"
    DESTINATION_MISMATCH = "destination_mismatch"
    DESTINATION_NOT_ALLOWED = "destination_not_allowed"
    ADDRESS_NOT_ALLOWED = "address_not_allowed"
    DOMAIN_NOT_ALLOWED = "domain_not_allowed"
    SECRET_UNAVAILABLE = "secret_unavailable"  # noqa: S105 a code, not a password
    LOCATION_NOT_ALLOWED = "location_not_allowed"
    REQUEST_NOT_ALLOWED = "request_not_allowed"
    PLAINTEXT_NOT_ALLOWED = "plaintext_not_allowed"
    TOO_MANY_PLACEHOLDERS = "too_many_placeholders"
    VALUE_NOT_REPRESENTABLE = "value_not_representable"
    BODY_NOT_DECODABLE = "body_not_decodable"
    BODY_TOO_LARGE = "body_too_large"
    HEADERS_TOO_LARGE = "headers_too_large"
    TOO_MANY_CONNECTIONS = "too_many_connections"
    RESPONSE_WITHHELD = "response_withheld"
    UPSTREAM_UNREACHABLE = "upstream_unreachable"
    UPSTREAM_TLS_FAILED = "upstream_tls_failed"
    UPSTREAM_TIMEOUT = "upstream_timeout"
    STORE_UNAVAILABLE = "store_unavailable"
    AUDIT_UNAVAILABLE = "audit_unavailable"
    INTERNAL_ERROR = "internal_error"


# code: status, title
TABLE: dict[Code, tuple[int, str]] = {
    Code.PROXY_AUTH_REQUIRED: (407, "The proxy does not know this client"),
    Code.BAD_REQUEST: (400, "The request is not well-formed HTTP"),
    Code.NOT_FOUND: (404, "Nothing is served there"),
    Code.PLACEHOLDER_MALFORMED: (400, "A placeholder is not complete"),
    Code.DESTINATION_MISMATCH: (421, "The request names more than one destination"),
    Code.DESTINATION_NOT_ALLOWED: (403, "The destination is not allowed"),
    Code.ADDRESS_NOT_ALLOWED: (403, "The destination's address is not allowed"),
    Code.DOMAIN_NOT_ALLOWED: (403, "The secret may not go to this destination"),
    Code.SECRET_UNAVAILABLE: (403, "No such secret for this client"),
    Code.LOCATION_NOT_ALLOWED: (403, "The secret may not stand there"),
    Code.REQUEST_NOT_ALLOWED: (403, "The secret may not be used with this method or path"),
    Code.PLAINTEXT_NOT_ALLOWED: (403, "The secret may not go over plain http"),
    Code.TOO_MANY_PLACEHOLDERS: (403, "Too many placeholders in one request"),
    Code.VALUE_NOT_REPRESENTABLE: (422, "The value cannot be written there"),
    Code.BODY_NOT_DECODABLE: (415, "The request body cannot be decoded"),
    Code.BODY_TOO_LARGE: (413, "The request body is too large"),
    Code.HEADERS_TOO_LARGE: (431, "The request head is too large"),
    Code.TOO_MANY_CONNECTIONS: (429, "Too many connections of this client"),
    Code.RESPONSE_WITHHELD: (502, "The response could not be scrubbed and was withheld"),
    Code.UPSTREAM_UNREACHABLE: (502, "The upstream cannot be reached"),
    Code.UPSTREAM_TLS_FAILED: (502, "No trusted TLS connection to the upstream"),
    Code.UPSTREAM_TIMEOUT: (504, "The upstream took too long"),
    Code.STORE_UNAVAILABLE: (503, "The secret store is not available"),
    Code.AUDIT_UNAVAILABLE: (503, "The audit log cannot be written"),
    Code.INTERNAL_ERROR: (500, "Internal error"),
}

# The next step where the place that refuses knows no better one; docs/troubleshooting.md quotes it.
HINTS: dict[Code, str] = {
    Code.PROXY_AUTH_REQUIRED: "set the proxy URL to http://CLIENT:TOKEN@HOST:PORT; "
    "an operator makes a token with: coatcheck client token CLIENT",
    Code.BAD_REQUEST: "send plain HTTP/1.1 (RFC 9112)",
    Code.ADDRESS_NOT_ALLOWED: "an operator finds the reason in the audit log, and can name "
    "its network in egress.networks, but for the proxy's own ports",
    Code.VALUE_NOT_REPRESENTABLE: "put the placeholder elsewhere, or store the value without "
    "those bytes",
    Code.RESPONSE_WITHHELD: "an operator finds more under the request_id in the audit log",
    Code.UPSTREAM_UNREACHABLE: "check the host's name and port; an operator checks name server "
    "and network of the proxy",
    Code.UPSTREAM_TLS_FAILED: "the upstream's certificate has to be valid for the host and signed "
    "by a public authority, or by one in upstream_ca",
    Code.STORE_UNAVAILABLE: "an operator finds the reason with: coatcheck doctor",
    Code.AUDIT_UNAVAILABLE: "an operator looks at the disk's space and at the folder audit in home",
    Code.INTERNAL_ERROR: "an operator finds more under the request_id in the log; please report it",
}

ERROR_HEADER = b"Coatcheck-Error"
CONTENT_TYPE = b"application/problem+json"
REALM = b'Basic realm="coatcheck", charset="UTF-8"'


def document(code: str, status: int, title: str, detail: str) -> dict[str, object]:
    """What every application/problem+json document of coatcheck has (RFC 9457, section 3.1)."""
    return {
        "type": f"urn:coatcheck:problem:{code}",
        "title": title,
        "status": status,
        "detail": detail or title + ".",
        "code": str(code),
    }


@dataclass(frozen=True, slots=True)
class Problem:
    """One refusal.

    Attributes:
        detail: One sentence for the client, constant but for names that the client itself sent.
        hint: The next step, where it is not the one of `HINTS`; goes to the client too, so it says
            nothing of other clients.
        operator: More for the log and `policy explain` (the nearest grant, say); never sent.
    """

    code: Code
    detail: str = ""
    hint: str = ""
    secret: str = ""
    host: str = ""
    location: str = ""
    operator: str = ""

    @property
    def status(self) -> int:
        return TABLE[self.code][0]

    @property
    def title(self) -> str:
        return TABLE[self.code][1]

    def body(self, request_id: str) -> bytes:
        """The application/problem+json document (RFC 9457, section 3), ASCII only."""
        made = document(self.code, self.status, self.title, self.detail)
        made["request_id"] = request_id
        optional = {
            "secret": self.secret,
            "host": self.host,
            "location": self.location,
            "hint": self.hint or HINTS.get(self.code, ""),
        }
        made.update({key: text for key, text in optional.items() if text})
        return json.dumps(made).encode() + b"\n"

    def fields(self) -> tuple[tuple[bytes, bytes], ...]:
        """The header fields that go with the body, without its length."""
        fields = [
            (b"Content-Type", CONTENT_TYPE),
            (ERROR_HEADER, self.code.encode()),
            (b"Cache-Control", b"no-store"),
        ]
        if self.code is Code.PROXY_AUTH_REQUIRED:
            fields.append((b"Proxy-Authenticate", REALM))
            fields.append((b"Proxy-Authenticate", b'Bearer realm="coatcheck"'))
        return tuple(fields)


class Refused(Exception):
    """Carries a `Problem` out of nested calls. Its text is the code alone.

    Attributes:
        request_id: Of the audit record of this refusal; empty as long as there is none.
    """

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem.code))
        self.problem = problem
        self.request_id = ""


def refuse(
    code: Code, detail: str = "", *, hint: str = "", host: str = "", location: str = ""
) -> Refused:
    """A `Refused` to raise."""
    return Refused(Problem(code, detail, hint=hint, host=host, location=location))
