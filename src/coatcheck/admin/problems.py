"""What the management API refuses, and how that is told (RFC 9457).

A code is a promise to programs outside; docs/admin.md lists them all, and a test compares. No text
here is made of what was sent: whoever pastes a token into the wrong field must not find it in an
error page, a log or a screenshot.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from enum import StrEnum

from coatcheck.core import problems


class Code(StrEnum):
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    CSRF_FAILED = "csrf_failed"
    TOO_MANY_ATTEMPTS = "too_many_attempts"
    HOST_NOT_ALLOWED = "host_not_allowed"
    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    SECRET_NOT_FOUND = "secret_not_found"  # noqa: S105 a code, not a password
    TOKEN_NOT_FOUND = "token_not_found"  # noqa: S105
    CLIENT_NOT_FOUND = "client_not_found"
    INVALID_REQUEST = "invalid_request"
    VALUE_REQUIRED = "value_required"
    VALUE_TOO_SHORT = "value_too_short"
    ANY_DOMAIN_NOT_ASKED_FOR = "any_domain_not_asked_for"
    NAME_TAKEN = "name_taken"
    SECRET_IN_USE = "secret_in_use"  # noqa: S105
    SECRET_FROM_SOURCE = "secret_from_source"  # noqa: S105
    LAST_OWNER = "last_owner"
    PRECONDITION_REQUIRED = "precondition_required"
    PRECONDITION_FAILED = "precondition_failed"
    BODY_TOO_LARGE = "body_too_large"
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
    TOO_MANY_STREAMS = "too_many_streams"
    POLICY_UNAVAILABLE = "policy_unavailable"
    STORE_UNAVAILABLE = "store_unavailable"
    AUDIT_UNAVAILABLE = "audit_unavailable"
    INTERNAL_ERROR = "internal_error"


# code: status, title
TABLE: dict[Code, tuple[int, str]] = {
    Code.UNAUTHENTICATED: (401, "No credential, or one that is not known"),
    Code.FORBIDDEN: (403, "The role of this credential does not allow it"),
    Code.CSRF_FAILED: (403, "The request does not come from the page"),
    Code.TOO_MANY_ATTEMPTS: (429, "Too many wrong credentials"),
    Code.HOST_NOT_ALLOWED: (421, "This is no host name of the admin side"),
    Code.NOT_FOUND: (404, "There is nothing here"),
    Code.METHOD_NOT_ALLOWED: (405, "This method is not known here"),
    Code.SECRET_NOT_FOUND: (404, "There is no such secret"),
    Code.TOKEN_NOT_FOUND: (404, "There is no such token"),
    Code.CLIENT_NOT_FOUND: (404, "The policy has no such client"),
    Code.INVALID_REQUEST: (422, "The request is not as described"),
    Code.VALUE_REQUIRED: (422, "Changing allowed domains needs the value again"),
    Code.VALUE_TOO_SHORT: (422, "The value is too short to be scrubbed safely"),
    Code.ANY_DOMAIN_NOT_ASKED_FOR: (422, "A value that may go anywhere has to be asked for"),
    Code.NAME_TAKEN: (409, "Another secret has this name, or one that looks like it"),
    Code.SECRET_IN_USE: (409, "The secret is in use"),
    Code.SECRET_FROM_SOURCE: (409, "The secret comes from a source"),
    Code.LAST_OWNER: (409, "It is the last token of an owner"),
    Code.PRECONDITION_REQUIRED: (428, "The request has to say what it changes"),
    Code.PRECONDITION_FAILED: (412, "It was changed meanwhile"),
    Code.BODY_TOO_LARGE: (413, "The request body is too large"),
    Code.UNSUPPORTED_MEDIA_TYPE: (415, "The request body is of another type"),
    Code.TOO_MANY_STREAMS: (429, "Too many event streams"),
    Code.POLICY_UNAVAILABLE: (503, "The policy cannot be used"),
    Code.STORE_UNAVAILABLE: (503, "The secret store is not available"),
    Code.AUDIT_UNAVAILABLE: (503, "The audit log cannot be written"),
    Code.INTERNAL_ERROR: (500, "Internal error"),
}

CONTENT_TYPE = problems.CONTENT_TYPE.decode()


class ApiProblem(Exception):
    """A refusal, to be raised anywhere below the API. Its text is the code alone.

    Args:
        detail, hint: Constant sentences.
        errors: Place in the request -> what is wrong there.
        more: Further members, of what the server knows.
        headers: Fields of the answer.
    """

    def __init__(
        self,
        code: Code,
        detail: str = "",
        *,
        hint: str = "",
        errors: Sequence[tuple[str, str]] = (),
        more: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(str(code))
        self.code = code
        self.detail = detail
        self.hint = hint
        self.errors = tuple(errors)
        self.more = dict(more or {})
        self.headers = {"Content-Type": CONTENT_TYPE, "Coatcheck-Error": str(code)}
        self.headers |= headers or {}
        if code is Code.UNAUTHENTICATED:
            self.headers["WWW-Authenticate"] = 'Bearer realm="coatcheck"'

    @property
    def status(self) -> int:
        return TABLE[self.code][0]

    @property
    def title(self) -> str:
        return TABLE[self.code][1]

    def body(self) -> bytes:
        """The application/problem+json document, ASCII only."""
        made = problems.document(self.code, self.status, self.title, self.detail)
        if self.hint:
            made["hint"] = self.hint
        if self.errors:
            made["errors"] = [{"in": place, "problem": what} for place, what in self.errors]
        return json.dumps(made | self.more).encode() + b"\n"


def invalid(place: str, what: str, hint: str = "") -> ApiProblem:
    """The request does not fit its description at one place of it."""
    return ApiProblem(Code.INVALID_REQUEST, hint=hint, errors=[(place, what)])
