"""The table of sources: for each kind its keys, what they mean, and how the text of each is read.

A credential has no key of its own here: a source is told which file or variable holds it. So the
file may be shown, kept in a repository and mounted from a ConfigMap. Mistakes quote no value: the
place of a path is where somebody puts a token by mistake.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from coatcheck.yamltree import Node

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


class Wrong(ValueError):
    """A value that cannot be used: what is wrong, and what to write."""

    def __init__(self, what: str, hint: str) -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint


type Read = Callable[[Node, Path], Any]


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a source, or of a secret that comes from one.

    Attributes:
        read: The node -> the value. The folder is what a relative path starts from.
        schema: What JSON Schema says of it.
    """

    doc: str
    read: Read
    schema: Mapping[str, object]
    required: bool = False


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of source.

    Attributes:
        refresh_s: How often a value is asked for where the file does not say.
        builtin: There is one of this name without an entry under ``sources:``.
        source, secret: The keys besides those that every kind has.
    """

    doc: str
    refresh_s: float
    builtin: bool
    source: Mapping[str, Key] = field(default_factory=dict)
    secret: Mapping[str, Key] = field(default_factory=dict)


def _text(node: Node) -> str:
    if node.kind != "text" or not node.text or not node.text.isprintable():
        raise Wrong("this is no text", "put it in quotes")
    return node.text


def _any_text(node: Node, _: Path) -> str:
    return _text(node)


def _path(node: Node, folder: Path) -> str:
    return str(folder / Path(_text(node)).expanduser())


_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def variable(node: Node, _: Path) -> str:
    text = _text(node)
    if not _VARIABLE.fullmatch(text):
        raise Wrong("this is no name of a variable", "write the name, not the value")
    return text


def _variables(node: Node, folder: Path) -> tuple[str, ...]:
    if node.kind != "list":
        raise Wrong("this is no list", "write the names in brackets: [HOME, LANG]")
    return tuple(variable(item, folder) for item in node.items)


def _url(node: Node, _: Path) -> str:
    text = _text(node).rstrip("/")
    hint = "write https://HOST:PORT"
    try:
        parts = urlsplit(text)
        host, _port = parts.hostname, parts.port
    except ValueError:
        raise Wrong("this is no URL", hint) from None
    if parts.username is not None or parts.password is not None:
        raise Wrong("a URL here holds no credential", "leave it out of the URL")
    if parts.scheme not in ("http", "https") or not host or parts.query or parts.fragment:
        raise Wrong("this is no https:// URL", hint)
    if parts.scheme == "http" and host not in LOOPBACK:
        raise Wrong("over http:// values and tokens would go in the open", hint)
    return text


def _location(node: Node, _: Path) -> str:
    text = _text(node)
    if not re.fullmatch(r"[a-z][a-z0-9-]{1,40}", text):
        raise Wrong("this is no location", "write it as europe-west3")
    return text


def _command(node: Node, _: Path) -> tuple[str, ...]:
    hint = 'write the program by its full path, and its arguments: ["/usr/bin/pass", "show", "crm"]'
    if node.kind != "list" or not node.items:
        raise Wrong("this is no command", hint)
    words = tuple(_text(item) for item in node.items)
    if not words[0].startswith("/"):
        raise Wrong("the program is not named by its full path", hint)
    return words


def switch(node: Node, _: Path) -> bool:
    if not isinstance(node.value, bool):
        raise Wrong("this is neither true nor false", "write true or false")
    return node.value


def seconds(least: float, most: float) -> Read:
    def read(node: Node, _: Path) -> float:
        shape = re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,3})?", node.text)
        if not node.kind.startswith("number") or not shape or not least <= float(node.text) <= most:
            raise Wrong("this is no such time", f"write seconds from {least:g} to {most:g}")
        return float(node.text)

    return read


_TEXT: Mapping[str, object] = {"type": "string"}
_LIST: Mapping[str, object] = {"type": "array", "items": {"type": "string"}}
SWITCH: Mapping[str, object] = {"type": "boolean"}


def number(least: float, most: float) -> Mapping[str, object]:
    return {"type": "number", "minimum": least, "maximum": most}


# What every source has.
TIMES: Mapping[str, Key] = {
    "refresh_s": Key(
        "how often its values are asked for", seconds(0.1, 86_400), number(0.1, 86_400)
    ),
    "timeout_s": Key("how long one question may take", seconds(0.1, 300), number(0.1, 300)),
    "stale_s": Key(
        "how long a value is still sent after the last answer",
        seconds(0, 604_800),
        number(0, 604_800),
    ),
}
TIMEOUT_S, STALE_S = 5.0, 900.0

# What every secret has, besides name, domains and source.
COMMON: Mapping[str, Key] = {
    "keep_newline": Key("keep a line end at the value's end", switch, SWITCH),
    "allow_short": Key("take a value that is too short to be scrubbed", switch, SWITCH),
}

_FIELD = Key("the field of the secret's JSON", _any_text, _TEXT)

KINDS: Mapping[str, Kind] = {
    "env": Kind(
        "variables of coatcheck's own environment",
        3600.0,
        True,
        secret={"variable": Key("the variable", variable, _TEXT, required=True)},
    ),
    "file": Kind(
        "files, such as Docker and Kubernetes mount",
        1.0,
        True,
        source={"folder": Key("what the files of its secrets start from", _path, _TEXT)},
        secret={
            "file": Key("the file that holds the value alone", _any_text, _TEXT, required=True)
        },
    ),
    "command": Kind(
        "what a command prints",
        300.0,
        True,
        source={
            "environment": Key(
                "variables that commands get, besides PATH, HOME and LANG", _variables, _LIST
            )
        },
        secret={
            "command": Key(
                "the program by its full path, and its arguments", _command, _LIST, required=True
            )
        },
    ),
    "vault": Kind(
        "HashiCorp Vault or OpenBao, KV version 2",
        60.0,
        False,
        source={
            "url": Key("https://HOST:PORT", _url, _TEXT, required=True),
            "mount": Key("where KV is mounted; default: secret", _any_text, _TEXT),
            "namespace": Key("the namespace", _any_text, _TEXT),
            "ca": Key("PEM file to verify it with; default: certifi", _path, _TEXT),
            "token_file": Key("the file that holds the token", _path, _TEXT),
            "token_env": Key("the variable that holds the token", variable, _TEXT),
            "role_id_file": Key("AppRole: the file that holds the role id", _path, _TEXT),
            "role_id_env": Key("AppRole: the variable that holds the role id", variable, _TEXT),
            "secret_id_file": Key("AppRole: the file that holds the secret id", _path, _TEXT),
            "secret_id_env": Key("AppRole: the variable that holds the secret id", variable, _TEXT),
            "approle_mount": Key("where AppRole is mounted; default: approle", _any_text, _TEXT),
        },
        secret={
            "path": Key("the path below the mount", _any_text, _TEXT, required=True),
            "field": Key("the field that holds the value", _any_text, _TEXT, required=True),
        },
    ),
    "aws": Kind(
        "AWS Secrets Manager; the credential comes by AWS's own chain",
        60.0,
        False,
        source={
            "region": Key("the region", _any_text, _TEXT, required=True),
            "endpoint": Key("another endpoint than the region's", _url, _TEXT),
            "ca": Key("PEM file to verify it with; default: botocore's", _path, _TEXT),
        },
        secret={
            "id": Key("the secret's name or ARN", _any_text, _TEXT, required=True),
            "field": _FIELD,
        },
    ),
    "gcp": Kind(
        "Google Secret Manager; the credential comes by application default credentials",
        60.0,
        False,
        source={
            "project": Key("the project's id or number", _any_text, _TEXT, required=True),
            "location": Key("the location, for regional secrets", _location, _TEXT),
            "endpoint": Key("another endpoint than Google's", _url, _TEXT),
            "ca": Key("PEM file to verify all that it asks with; default: certifi", _path, _TEXT),
            "credentials_file": Key(
                "the file of a service account or of workload identity federation", _path, _TEXT
            ),
        },
        secret={
            "id": Key("the secret's id", _any_text, _TEXT, required=True),
            "version": Key("the version, a number in quotes; default: latest", _any_text, _TEXT),
            "field": _FIELD,
        },
    ),
    "azure": Kind(
        "Azure Key Vault; by a client secret, workload identity or managed identity",
        60.0,
        False,
        source={
            "url": Key("https://NAME.vault.azure.net", _url, _TEXT, required=True),
            "ca": Key("PEM file to verify all that it asks with; default: certifi", _path, _TEXT),
            "tenant": Key("the tenant of the client secret", _any_text, _TEXT),
            "client_id": Key("the application, or the identity of that id", _any_text, _TEXT),
            "client_secret_file": Key("the file that holds the client secret", _path, _TEXT),
            "client_secret_env": Key("the variable that holds the client secret", variable, _TEXT),
            "authority": Key("another than https://login.microsoftonline.com", _url, _TEXT),
        },
        secret={
            "id": Key("the secret's name", _any_text, _TEXT, required=True),
            "version": Key("the version; default: the newest", _any_text, _TEXT),
            "field": _FIELD,
        },
    ),
}


def check_source(kind: str, options: Mapping[str, Any]) -> None:
    """What the keys of one source say together.

    Raises:
        Wrong: no credential, half of one, or two.
    """

    def given(name: str) -> int:
        return (f"{name}_file" in options) + (f"{name}_env" in options)

    if kind == "azure":
        secrets = given("client_secret")
        if secrets > 1 or (secrets and not {"tenant", "client_id"} <= options.keys()):
            raise Wrong(
                "this is half of a client secret, or two",
                "give client_secret_file or client_secret_env, with tenant and client_id; "
                "or neither, for the identity of the machine",
            )
    if kind != "vault":
        return
    counts = given("token"), given("role_id"), given("secret_id")
    if counts not in ((1, 0, 0), (0, 1, 1)):
        raise Wrong(
            "a vault needs one credential",
            "give token_file or token_env; or for AppRole role_id_ and secret_id_, _file or _env",
        )
