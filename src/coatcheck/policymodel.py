"""The shape of the policy file: which keys there are, and what a value of each may be.

The models check one value at a time and say what is wrong with it and what to write instead;
`policyfile` adds the places. The JSON Schema that editors complete from is made of them too, so
there is one description of the file. A text field is read by a function of ours rather than by
pydantic, whose messages would quote what was written: a ``token`` is never quoted, nor is
anything that looks like one.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    StringConstraints,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from coatcheck.core.destination import BadPattern, DomainPattern, parse_domain_pattern
from coatcheck.core.locations import BadLocation, Kind, LocationPattern, parse_pattern
from coatcheck.core.placeholder import ALL_SYNTAXES, Syntax
from coatcheck.core.policy import DEFAULT_MAX_USES, Mode, Network, Replacement, Unresolved
from coatcheck.core.secret import BadName, check_name
from coatcheck.yamlfile import closest
from coatcheck.yamltree import has_token, may_show, quoted

MAX_USES = 1000
_CLIENT_NAME = r"^[A-Za-z0-9._-]{1,128}$"


# --- one value --------------------------------------------------------------------------------


def _wrong(what: str, hint: str) -> PydanticCustomError:
    return PydanticCustomError("coatcheck", "{what}; {hint}", {"what": what, "hint": hint})


def _text(read: Callable[[str], Any], pattern: str | None = None) -> tuple[Any, Any]:
    """Make *read* the validator of a text field."""

    def check(value: object) -> Any:
        if not isinstance(value, str):
            raise PydanticCustomError("string_type", "text")
        return read(value)

    schema = {"type": "string"} | ({"pattern": pattern} if pattern else {})
    return PlainValidator(check), WithJsonSchema(schema)


def _whole(least: int, most: int, hint: str) -> tuple[Any, Any]:
    def check(value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool):
            raise PydanticCustomError("int_type", "a whole number")
        if not least <= value <= most:
            raise _wrong(f"{value} is out of range", hint)
        return value

    schema: dict[str, Any] = {"type": "integer", "minimum": least, "maximum": most}
    return PlainValidator(check), WithJsonSchema({"const": least} if least == most else schema)


def _choice(kind: type[Any] | tuple[str, ...]) -> tuple[Any, Any]:
    words = [str(word) for word in kind]

    def read(text: str) -> str:
        if text in words:
            return text
        meant = closest(text, words)
        hint = f"did you mean {meant}?" if meant else f"write one of: {', '.join(words)}"
        raise _wrong(f"{quoted(text)} is not known here", hint)

    validator, _ = _text(read)
    return validator, WithJsonSchema({"enum": words})


def _token(text: str) -> str:
    if re.fullmatch(r"sha256:[0-9a-f]{64}", text):
        return text.removeprefix("sha256:")
    shape = 'token: "sha256:" and 64 hexadecimal digits in lower case'
    if re.fullmatch(r"(?i)sha256:[0-9a-f]{64}", text):
        raise _wrong("the token's digest is not in lower case", f"write {shape}")
    if text.lower().startswith("sha256:"):
        raise _wrong("the token's digest is not 64 hexadecimal digits long", f"write {shape}")
    hint = (
        "run: coatcheck client token NAME, and copy its token: line;"
        " if this was the token itself, it should not be used any more"
    )
    raise _wrong("the token is not given as a SHA-256 digest", hint)


def _network(text: str) -> Network:
    hint = "write a network such as 10.1.0.0/16, 127.0.0.1/32 or fd00::/8"
    if has_token(text):
        raise _wrong("this is no network", hint)
    shown = ascii(text[:60])
    address, slash, length = text.partition("/")
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        raise _wrong(f"{shown} is no network", hint) from None
    if "%" in text:
        raise _wrong(f"{shown} has a zone", "leave out the part from % on")
    if not slash:
        hint = f"write {ip}/{ip.max_prefixlen} for this one address"
        raise _wrong(f"{shown} has no prefix length", hint)
    if not re.fullmatch(r"0|[1-9][0-9]{0,2}", length) or int(length) > ip.max_prefixlen:
        hint = f"write a length from 0 to {ip.max_prefixlen} behind the slash"
        raise _wrong(f"{shown} has no valid prefix length", hint)
    network = ipaddress.ip_network(text, strict=False)
    if network.network_address != ip:
        raise _wrong(f"{shown} has bits set behind its prefix", f"write {network}")
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        raise _wrong(f"{shown} is an IPv4-mapped network", "write it as an IPv4 network")
    return network


def _secret(text: str) -> str:
    try:
        return check_name(text)
    except BadName as error:
        raise _wrong(f"no secret has this name: {error}", "see: coatcheck secret list") from None


def _host(text: str) -> DomainPattern:
    try:
        return parse_domain_pattern(text)
    except BadPattern as error:
        if has_token(text):
            hint = "write a host such as 'api.example.com'"
            raise _wrong("this is no host", hint) from None
        raise _wrong(error.what, error.hint) from None


def _host_but_any(hint: str) -> Callable[[str], DomainPattern]:
    def read(text: str) -> DomainPattern:
        pattern = _host(text)
        if pattern.any and pattern.port is None:
            raise _wrong("'*' stands for every host", hint)
        return pattern

    return read


_TOKEN_CHARS = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110, section 5.6.2


def _method(text: str) -> str:
    shown = quoted(text)
    if text == "*":
        raise _wrong("'*' is no method", "leave methods out for any")
    if not _TOKEN_CHARS.fullmatch(text):
        raise _wrong(f"{shown} is no method", "write methods such as GET or POST")
    if text != text.upper():
        hint = f"write {quoted(text.upper())}" if may_show(text) else "write it in upper case"
        raise _wrong(f"methods are case-sensitive, and {shown} has small letters", hint)
    if text == "CONNECT":
        hint = "name the methods of the requests inside the tunnel"
        raise _wrong("CONNECT never carries a secret", hint)
    return text


def _path(text: str) -> str:
    """A path as `canonical_path` returns it, with stars; what could never match is refused."""
    if not text.startswith("/"):
        raise _wrong("a path begins with '/'", "write it from the root: '/v1/**'")
    if "***" in text:
        raise _wrong("three stars in a row", "'*' is all but '/', '**' is all")
    for part, why, hint in (
        ("?", "a path pattern with a query", "leave it out; in: has 'query:NAME'"),
        ("#", "a path pattern with a fragment", "leave it out: it is never sent"),
        ("%", "a path pattern with percent-encoding", "write the characters themselves"),
        (";", "a ';' never matches", "paths with parameters are ambiguous and not matched"),
        ("\\", "a backslash never matches", "write '/'"),
        ("//", "a double slash never matches", "write one '/'"),
    ):
        if part in text:
            raise _wrong(why, hint)
    if any(segment in (".", "..") for segment in text.split("/")):
        raise _wrong("a dot segment never matches", "write the path without '.' and '..'")
    if text != text.strip() or not text.isprintable():
        raise _wrong("the path has spaces round it or control characters", "remove them")
    return text


def _place(text: str) -> LocationPattern:
    example = "write, for example, 'header:authorization', 'query:key', 'path' or 'body:/token'"
    if has_token(text):
        raise _wrong("this is no place of a request", example)
    try:
        pattern = parse_pattern(text)
    except BadLocation as error:
        what, _, hint = str(error).partition("; ")
        raise _wrong(what, hint or example) from None
    if pattern.kind is Kind.HEADER and not _TOKEN_CHARS.fullmatch(pattern.name or "x"):
        raise _wrong(f"{quoted(text)} names no header", example)
    return pattern


def _syntax(text: str) -> Syntax:
    try:
        return Syntax(text)
    except ValueError:
        known = ", ".join(f'"{syntax}"' for syntax in Syntax)
        raise _wrong(f"{quoted(text)} is no placeholder syntax", f"known: {known}") from None


# --- the shape --------------------------------------------------------------------------------

_ANYWHERE = "leave hosts out: then the secret's own allowed domains decide alone"
_EGRESS_ANY = "use egress.default, which is for every host"
_NAME_HOSTS = "name each host; every host would turn the safeguard off"

_Host = Annotated[DomainPattern, *_text(_host_but_any(_ANYWHERE))]
_EgressHost = Annotated[DomainPattern, *_text(_host_but_any(_EGRESS_ANY))]
_NamedHost = Annotated[DomainPattern, *_text(_host_but_any(_NAME_HOSTS))]
_Net = Annotated[Network, *_text(_network, "/[0-9]{1,3}$")]


_SyntaxName = Annotated[
    Syntax, _text(_syntax)[0], WithJsonSchema({"enum": [str(syntax) for syntax in Syntax]})
]


class _Model(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class ClientModel(_Model):
    """A client: its token, its networks, or both; both given: both must hold."""

    token: Annotated[str, *_text(_token, "^sha256:[0-9a-f]{64}$")] | None = Field(
        None, description="As printed by: coatcheck client token NAME"
    )
    networks: list[_Net] | None = Field(
        None, min_length=1, description="Networks it comes from, e.g. 10.1.0.0/16"
    )


class GrantModel(_Model):
    """Lets some clients use some secrets. Any grant that fits allows; order never matters."""

    secrets: list[Annotated[str, *_text(_secret)]] = Field(
        min_length=1, description="Names of secrets; * stands for any characters"
    )
    clients: list[Annotated[str, *_text(str)]] = Field(
        min_length=1, description="Names from clients:"
    )
    hosts: list[_Host] | None = Field(
        None,
        min_length=1,
        description="api.example.com, *.example.com, example.com:8443. Given: these and the"
        " secret's own allowed domains must both hold. Omitted: the latter alone",
    )
    methods: list[Annotated[str, *_text(_method, "^[^a-z ]+$")]] | None = Field(
        None, min_length=1, description="GET, POST, ...; omitted: any"
    )
    paths: list[Annotated[str, *_text(_path, "^/")]] | None = Field(
        None,
        min_length=1,
        description="Decoded paths; * is all but /, ** is all; omitted: any",
    )
    places: (
        list[
            Annotated[
                LocationPattern, *_text(_place, "^(header|query|path|body|websocket|url)(:|$)")
            ]
        ]
        | None
    ) = Field(
        None,
        alias="in",
        min_length=1,
        description="header, header:NAME, query, query:NAME, path, body, body:/POINTER,"
        " websocket, url; omitted: header, query, path, body",
    )
    max_uses: Annotated[int, *_whole(1, MAX_USES, f"write a number from 1 to {MAX_USES}")] = Field(
        DEFAULT_MAX_USES, description="Occurrences of one secret in one request"
    )
    plaintext: bool = Field(False, description="true lets it go over http://")
    mode: Annotated[str, *_choice(Mode)] = Field(
        str(Mode.ENFORCE),
        description="report: what methods, paths, in and max_uses do not allow is told, and filled"
        " in all the same",
    )


class PlaceholdersModel(_Model):
    """How placeholders are written, and what becomes of those that are not filled."""

    syntaxes: list[_SyntaxName] = Field(
        default_factory=lambda: sorted(ALL_SYNTAXES),
        min_length=1,
        description="The syntaxes in force; default: all",
    )
    unresolved: Annotated[str, *_choice(Unresolved)] = Field(
        str(Unresolved.BLOCK),
        description="No such secret, or not granted: block, or keep the text as it is",
    )
    text_hosts: list[_NamedHost] = Field(
        [],
        description="Hosts where a placeholder that may not be injected stays text",
    )


class EgressModel(_Model):
    """Where clients may go at all, with or without a secret."""

    default: Annotated[str, *_choice(("allow", "deny"))] = Field(
        "allow", description="What holds for a host that no list names"
    )
    allow: list[_EgressHost] = Field([], description="Hosts that may be reached")
    deny: list[_EgressHost] = Field([], description="Hosts that may not, whatever allow says")
    networks: list[_Net] = Field(
        [], description="Private networks that may be reached all the same"
    )
    passthrough: list[_NamedHost] = Field(
        [], description="Hosts that are tunnelled without interception; no injection there"
    )


class ScrubModel(_Model):
    """What stands in a response where a value was."""

    replacement: Annotated[str, *_choice(Replacement)] = Field(
        str(Replacement.MASK), description="mask: a constant; placeholder: the placeholder"
    )


class PolicyModel(_Model):
    """Who may send which secret where."""

    version: Annotated[int, *_whole(1, 1, "this coatcheck reads 'version: 1'")] = Field(
        description="Version of this format"
    )
    clients: dict[Annotated[str, StringConstraints(pattern=_CLIENT_NAME)], ClientModel] = Field(
        {}, description="Who sends, by name", json_schema_extra={"additionalProperties": False}
    )
    grants: list[GrantModel] = Field([], description="Who may send which secret where")
    placeholders: PlaceholdersModel = Field(
        default_factory=lambda: PlaceholdersModel.model_validate({})
    )
    egress: EgressModel = Field(default_factory=lambda: EgressModel.model_validate({}))
    scrub: ScrubModel = Field(default_factory=lambda: ScrubModel.model_validate({}))
    mode: Annotated[str, *_choice(Mode)] = Field(
        str(Mode.ENFORCE),
        description="report: for a first rollout. What would be refused is told in the audit log;"
        " placeholders stay text where they may not be filled",
    )


SECTIONS: dict[str, type[_Model]] = {
    "": PolicyModel,
    "clients": ClientModel,
    "grants": GrantModel,
    "placeholders": PlaceholdersModel,
    "egress": EgressModel,
    "scrub": ScrubModel,
}


def keys_of(section: str) -> list[str]:
    fields = SECTIONS[section].model_fields
    return [field.alias or name for name, field in fields.items()]


def schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of the file, for completion in editors.

    It says less than `policyfile.parse` checks: that hosts are hosts, that clients exist.
    """
    made = PolicyModel.model_json_schema(by_alias=True)
    _tidy(made)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "coatcheck policy",
        **made,
    }


def _tidy(schema: Any) -> None:
    """Leave out what only pydantic needs: titles made of names, null for a key left out."""
    if isinstance(schema, list):
        for item in schema:
            _tidy(item)
    elif isinstance(schema, dict):
        if isinstance(schema.get("title"), str):
            del schema["title"]
        if "default" in schema and schema["default"] is None:
            del schema["default"]
        if {"type": "null"} in (either := schema.get("anyOf", [])):
            schema |= next(one for one in either if one != {"type": "null"})
            del schema["anyOf"]
        for item in schema.values():
            _tidy(item)
