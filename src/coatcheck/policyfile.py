"""The policy file: text in, one frozen `Policy` out, or every mistake of the file at once.

A key that is silently ignored would be a grant that its author did not mean, so whatever is not
known is refused, each mistake with ``file:line:col: what; hint``. Nothing is repaired. The shape
is checked by the models of `policymodel`; what concerns two places of the file (a grant and its
clients, two clients and their tokens) is checked on the tree, so that it is reported even where
the shape is wrong elsewhere.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from coatcheck.core.locations import DEFAULT_PATTERNS
from coatcheck.core.policy import (
    Client,
    Egress,
    Grant,
    Mode,
    Network,
    Policy,
    Replacement,
    Unresolved,
)
from coatcheck.policymodel import SECTIONS, GrantModel, PolicyModel, keys_of, schema
from coatcheck.policywarnings import warnings
from coatcheck.yamlfile import Document, closest, read_text
from coatcheck.yamlfile import parse as parse_yaml
from coatcheck.yamltree import FileError, Node, Path_, may_show, quoted

__all__ = ["PolicyError", "parse", "read", "schema", "warnings"]

_START = "begin it with 'version: 1'; config/policy.yaml is a commented example"


class PolicyError(FileError):
    """A policy file that cannot be used; see `FileError`."""


def read(path: Path) -> Policy:
    """Read and check the policy file at *path*.

    Raises:
        PolicyError: missing, unreadable, a directory, empty, not UTF-8, larger than 1 MiB, or
            with mistakes in it.
    """
    hint = "create it with coatcheck init, or name another with --policy"
    try:
        text = read_text(path, missing=hint)
    except FileError as error:
        raise PolicyError(error.mistakes) from None
    return parse(text, str(path))


def parse(text: str, source: str) -> Policy:
    """Check *text*, the content of a policy file called *source*. Pure.

    Raises:
        PolicyError: with every mistake that the text holds.
    """
    try:
        document = parse_yaml(text, source, empty=_START)
    except FileError as error:
        raise PolicyError(error.mistakes) from None
    model: PolicyModel | None = None
    try:
        model = PolicyModel.model_validate(document.root.plain())
    except ValidationError as errors:
        for details in errors.errors(include_url=False, include_input=False):
            _translate(document, details)
    _cross_check(document)
    if mistakes := document.mistakes():
        raise PolicyError(mistakes)
    if model is None:
        raise RuntimeError("the model refused a file without saying why")
    digest = hashlib.sha256(text.encode("utf-8")).hexdigest()
    return _policy(model, document, source, digest)


# --- mistakes ---------------------------------------------------------------------------------


def _translate(document: Document, error: ErrorDetails) -> None:
    """Say what pydantic found in words for the person who wrote the file, at its place."""
    path: Path_ = tuple(error["loc"])
    kind = error["type"]
    name = next((str(key) for key in reversed(path) if isinstance(key, str)), "the file")
    if kind == "coatcheck":
        document.wrong(document.mark(path), error["ctx"]["what"], error["ctx"]["hint"])
    elif kind == "extra_forbidden":
        section = str(path[0]) if len(path) > 1 else ""
        document.wrong(document.key_mark(path), *_unknown(str(path[-1]), section))
    elif kind == "missing":
        mark = document.mark(path[:-1])
        document.wrong(mark, f"{name}: is missing", f"add {_EXAMPLES[name]}")
    elif kind == "too_short":
        hint = _IF_EMPTY.get(name, f"leave {name}: out for any, or name at least one")
        document.wrong(document.mark(path), f"{name}: is an empty list", hint)
    elif path[-1] == "[key]":
        hint = "use letters, digits, '.', '_' and '-', at most 128"
        document.wrong(document.key_mark(path[:-1]), "this is no name for a client", hint)
    elif (node := document.node(path)) is not None:
        subject = f"an entry of {name}" if isinstance(path[-1], int) else name
        wanted = _WANTED.get(kind, "something else")
        what = f"{subject} is {node.shown()}, and should be {wanted}"
        document.wrong(node.mark, what, _type_hint(wanted, name, node))


_WANTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
}
_EXAMPLES = {
    "version": "'version: 1' as the first line",
    "secrets": "the names of secrets, as in secrets: [crm.apiKey]",
    "clients": "the names of clients, as in clients: [runner-a]",
}
_IF_EMPTY = {
    "secrets": "name at least one secret, or remove the grant",
    "clients": "name at least one client, or remove the grant",
    "hosts": "leave hosts: out for the secret's own allowed domains, or name at least one",
    "networks": "name at least one network, or remove the line",
    "syntaxes": "leave syntaxes: out for all, or name at least one",
}


# What people write who come from other tools, or who remember the secret's own field.
_SYNONYMS = {
    "domains": "hosts",
    "domain": "hosts",
    "allowed_domains": "hosts",
    "destinations": "hosts",
    "names": "secrets",
    "locations": "in",
    "location": "in",
    "cidrs": "networks",
    "rules": "grants",
}


def _type_hint(wanted: str, name: str, node: Node) -> str:
    if wanted == "true or false":
        return f"write {name}: true or {name}: false"
    if wanted == "a whole number":
        return "write it in decimal digits, without quotes"
    if wanted == "a list":
        example = f'"{node.text}"' if node.kind == "text" and may_show(node.text) else "..."
        return f"put it in brackets: {name}: [{example}]"
    if wanted == "a mapping":
        return "write 'key: value' lines below it, indented"
    if node.kind == "number" and name in ("hosts", "allow", "deny", "passthrough", "text_hosts"):
        return "write the host, as in 'example.com:8443' if this is its port"
    if node.kind in ("mapping", "list"):
        return "put text that holds '{', '[' or ': ' in quotes"
    return f'put it in quotes: "{node.text}"' if may_show(node.text) else "put it in quotes"


def _unknown(key: str, section: str) -> tuple[str, str]:
    what = f"the key {quoted(key)} is not known here"
    known = keys_of(section)
    if _SYNONYMS.get(key) in known:
        return what, f"did you mean '{_SYNONYMS[key]}'?"
    if meant := closest(key, known):
        return what, f"did you mean '{meant}'?"
    homes = [home for home in SECTIONS if home and key in keys_of(home)]
    if homes:
        return what, f"it belongs under {homes[0]}:"
    if key in keys_of(""):
        return what, "it belongs at the beginning of a line"
    return what, f"known: {', '.join(known)}"


def _cross_check(document: Document) -> None:
    """What two places of the file say together; whatever has another shape is passed over."""
    clients = document.root.get("clients")
    entries = clients.entries if clients is not None else ()
    tokens: dict[str, str] = {}
    networks: dict[Network, str] = {}
    for name, mark, client in entries:
        token, nets = client.get("token"), client.get("networks")
        if client.kind == "mapping" and token is None and nets is None:
            hint = "add its token: (coatcheck client token NAME), its networks:, or both"
            document.wrong(mark, f"the client {quoted(name)} cannot be told from others", hint)
        digest = token.text if token is not None else ""
        if token is not None and digest and (other := tokens.setdefault(digest, name)) != name:
            hint = "make one for each: coatcheck client token NAME"
            document.wrong(token.mark, f"the client {quoted(other)} has the same token", hint)
        if token is None:
            for node, network in _networks(nets):
                if (other := networks.setdefault(network, name)) != name:
                    what = f"the client {quoted(other)} has the same network and no token either"
                    hint = "give one of them a token, or another network"
                    document.wrong(node.mark, what, hint)
    if clients is None or clients.kind == "mapping":
        _check_names(document, [name for name, _, _ in entries])


def _networks(nets: Node | None) -> Iterator[tuple[Node, Network]]:
    for node in nets.items if nets is not None else ():
        try:
            yield node, ipaddress.ip_network(node.text)
        except ValueError:
            continue


def _check_names(document: Document, known: list[str]) -> None:
    grants = document.root.get("grants")
    for grant in grants.items if grants is not None else ():
        names = grant.get("clients")
        for node in names.items if names is not None else ():
            if node.kind != "text" or node.text in known:
                continue
            what = f"there is no client {quoted(node.text)}"
            if "*" in node.text:
                document.wrong(node.mark, what, "clients are named one by one, without '*'")
            elif meant := closest(node.text, known):
                document.wrong(node.mark, what, f"did you mean '{meant}'?")
            else:
                document.wrong(node.mark, what, "add it under clients:, or remove it here")


# --- the policy -------------------------------------------------------------------------------


def _policy(model: PolicyModel, document: Document, source: str, digest: str) -> Policy:
    egress, holders = model.egress, model.placeholders
    return Policy(
        clients=tuple(
            Client(name, client.token, tuple(client.networks or ()))
            for name, client in model.clients.items()
        ),
        grants=tuple(
            _grant(grant, document.mark(("grants", index)).line)
            for index, grant in enumerate(model.grants)
        ),
        syntaxes=frozenset(holders.syntaxes),
        unresolved=Unresolved(holders.unresolved),
        text_hosts=tuple(holders.text_hosts),
        egress=Egress(
            default_allow=egress.default == "allow",
            allow=tuple(egress.allow),
            deny=tuple(egress.deny),
            networks=tuple(egress.networks),
            passthrough=tuple(egress.passthrough),
        ),
        replacement=Replacement(model.scrub.replacement),
        mode=Mode(model.mode),
        source=source,
        digest=digest,
        lines=_lines(document),
    )


def _grant(grant: GrantModel, line: int) -> Grant:
    return Grant(
        secrets=tuple(grant.secrets),
        clients=tuple(grant.clients),
        hosts=None if grant.hosts is None else tuple(grant.hosts),
        methods=None if grant.methods is None else frozenset(grant.methods),
        paths=None if grant.paths is None else tuple(grant.paths),
        locations=DEFAULT_PATTERNS if grant.places is None else tuple(grant.places),
        max_uses=grant.max_uses,
        plaintext=grant.plaintext,
        mode=Mode(grant.mode),
        line=line,
    )


def _lines(document: Document) -> dict[str, int]:
    lines = {key: mark.line for key, mark, _ in document.root.entries if key == "mode"}
    for section in ("clients", "egress", "placeholders"):
        node = document.root.get(section)
        for name, mark, _ in node.entries if node is not None else ():
            lines[f"{section}.{name}"] = mark.line
    return lines
