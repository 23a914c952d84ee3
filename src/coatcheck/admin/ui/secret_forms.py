"""Make a secret, change one. A value goes in and is never shown again, not even after a mistake.

The service decides what may be changed without the value. Here only one thing is looked at: whether
the domains in the form are still those of the secret. If they are not they are handed on, and the
service then asks for the value.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Form, Request, Response

from coatcheck.admin.api.deps import Editor, Services
from coatcheck.admin.problems import ApiProblem, Code, invalid
from coatcheck.admin.secret_input import Value
from coatcheck.admin.secret_service import Changed, etag
from coatcheck.admin.ui.forms import Errors, errors_of, lines_of, without
from coatcheck.admin.ui.notes import Note
from coatcheck.admin.ui.render import go_to, page
from coatcheck.admin.ui.secret_pages import Name
from coatcheck.core.secret import Secret

router = APIRouter(include_in_schema=False)

type Field = Annotated[str, Form()]


@dataclass(frozen=True, slots=True)
class Filled:
    """A form as it is shown: all but the value."""

    name: str = ""
    description: str = ""
    domains: str = ""
    any_domain: bool = False
    allow_short: bool = False
    base64: bool = False


@router.get("/secrets/new")
def show_new(request: Request, actor: Editor) -> Response:
    return _new(request, Filled())


@router.post("/secrets/new")
def make_secret(
    request: Request,
    actor: Editor,
    services: Services,
    name: Field = "",
    description: Field = "",
    value: Field = "",
    encoding: Field = "",
    domains: Field = "",
    any_domain: Field = "",
    allow_short: Field = "",
) -> Response:
    filled = _filled(value, name, description, domains, any_domain, allow_short, encoding)
    try:
        given = _value(value, encoding)
        made = services.secrets.create(
            actor,
            name,
            Value(b"") if given is None else given,
            domains=lines_of(domains),
            any_domain=bool(any_domain),
            description=_one_kind_of_line_end(description),
            allow_short=bool(allow_short),
        )
    except ApiProblem as problem:
        _raise_unless_of_the_form(problem)
        return _new(request, filled, errors_of(problem), problem.status)
    return _done(request, made, "Created:")


@router.get("/secrets/edit")
def show_edit(request: Request, actor: Editor, services: Services, name: Name = "") -> Response:
    secret = services.secrets.stored(actor, name)
    return _edit(request, secret, _of(secret))


@router.post("/secrets/edit")
def change_secret(
    request: Request,
    actor: Editor,
    services: Services,
    name: Field = "",
    etag: Field = "",
    new_name: Field = "",
    description: Field = "",
    value: Field = "",
    encoding: Field = "",
    domains: Field = "",
    any_domain: Field = "",
    allow_short: Field = "",
) -> Response:
    secret = services.secrets.stored(actor, name)
    filled = _filled(value, new_name, description, domains, any_domain, allow_short, encoding)
    wanted = lines_of(domains)
    moved = _differ(wanted, bool(any_domain), secret)
    try:
        given = _value(value, encoding)
        changed = services.secrets.change(
            actor,
            name,
            expected=etag or "-",
            new_name=new_name if new_name != secret.name else None,
            description=_one_kind_of_line_end(description),
            value=given,
            domains=wanted if moved else None,
            any_domain=bool(any_domain) and moved,
            allow_short=bool(allow_short),
        )
    except ApiProblem as problem:
        _raise_unless_of_the_form(problem)
        if problem.code is Code.PRECONDITION_FAILED:
            return _edit(request, secret, filled, {}, problem.status, conflict=True)
        return _edit(request, secret, filled, errors_of(problem), problem.status, shown_etag=etag)
    return _done(request, changed, "Saved:")


# --- what comes in ----------------------------------------------------------------------------


def _value(text: str, encoding: str) -> Value | None:
    """The value as it was typed; None where the field was left empty.

    A browser sends every line end of a text field as CR LF, whatever was pasted; a key in PEM has
    LF. One at the very end is taken off, as the command line does: it comes along with copying.
    """
    if not text:
        return None
    if encoding == "base64":
        try:
            return Value(base64.b64decode("".join(text.split()), validate=True))
        except (binascii.Error, ValueError):
            raise invalid("body.value", "it is no base64", "untick “base64”, or mend it") from None
    return Value(_one_kind_of_line_end(text).removesuffix("\n").encode("utf-8", "surrogatepass"))


def _one_kind_of_line_end(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _differ(wanted: Sequence[str], any_domain: bool, secret: Secret) -> bool:
    """Whether the form says other domains than the secret has. In doubt: yes."""
    return {*wanted, *(["*"] if any_domain else [])} != set(map(str, secret.domains))


def _filled(
    value: str,
    name: str,
    description: str,
    domains: str,
    any_domain: str,
    allow_short: str,
    encoding: str,
) -> Filled:
    name, description, domains = without(value, name, description, domains)
    return Filled(
        name, description, domains, bool(any_domain), bool(allow_short), encoding == "base64"
    )


# --- what goes out ----------------------------------------------------------------------------


def _of(secret: Secret) -> Filled:
    return Filled(
        secret.name,
        secret.description,
        "\n".join(str(pattern) for pattern in secret.domains if not pattern.any),
        any(pattern.any for pattern in secret.domains),
    )


def _new(
    request: Request, filled: Filled, errors: Errors | None = None, status: int = 200
) -> Response:
    return page(request, "secret_new.html", status=status, form=filled, errors=errors or {})


def _edit(
    request: Request,
    secret: Secret,
    filled: Filled,
    errors: Errors | None = None,
    status: int = 200,
    *,
    conflict: bool = False,
    shown_etag: str = "",
) -> Response:
    """*shown_etag*: of the state that the form was made of, which it keeps after a mistake."""
    return page(
        request,
        "secret_edit.html",
        status=status,
        secret=secret,
        etag=shown_etag or etag(secret),
        form=filled,
        errors=errors or {},
        conflict=conflict,
    )


def _done(request: Request, changed: Changed, words: str) -> Response:
    name = changed.secret.name
    return go_to(request, "/secrets/show", Note(words, name, changed.warnings), name=name)


def _raise_unless_of_the_form(problem: ApiProblem) -> None:
    """What the person at the form cannot mend there is a page of its own."""
    if problem.status not in (409, 412, 422) or problem.code is Code.FORBIDDEN:
        raise problem
