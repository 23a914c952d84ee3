"""The table of settings: for each its name, meaning, default, and how its text is read.

Flags, variables, the file and its JSON Schema all go by this one table.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from coatcheck.core.limits import Limits
from coatcheck.settingmodes import REFUSED, REGULAR
from coatcheck.yamlfile import closest

type Address = tuple[str, int]

ROLES = ("all", "proxy", "admin")
CONNECTS = ("address", "name")
MAX_WORKERS = 256
_ONLY_REGULAR = f"write {REGULAR}, or leave it out; where clients connect is listen:"


class Wrong(ValueError):
    def __init__(self, what: str, hint: str) -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Entry:
    """One setting.

    Attributes:
        default: As a person would write it; None where the doc says what happens without.
        read: The text of a flag, a variable or a scalar in the file -> value. The folder is what
            a relative path starts from. Raises `Wrong`.
        schema: What JSON Schema says of it.
    """

    name: str
    doc: str
    default: str | None
    read: Callable[[str, Path], Any]
    schema: Mapping[str, object]

    @property
    def variable(self) -> str:
        return "COATCHECK_" + self.name.upper().replace(".", "_")

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")


def parse_address(text: str) -> Address:
    """Read ``HOST:PORT`` or ``[v6]:PORT``; the host comes back without brackets.

    Raises:
        ValueError: it is none; the text says what one looks like.
    """
    hint = "write HOST:PORT, for example 127.0.0.1:8080 or [::1]:8080"
    host, colon, port = text.rpartition(":")
    if not colon or not _PORT.fullmatch(port) or int(port) > 65535:
        raise Wrong("there is no port from 0 to 65535 behind a colon", hint)
    if not host:
        raise Wrong("the host is missing", f"{hint}; 0.0.0.0:{port} listens everywhere")
    if host.startswith("[") and host.endswith("]"):
        try:
            return str(ipaddress.IPv6Address(host[1:-1])), int(port)
        except ValueError:
            raise Wrong("there is no IPv6 address in the brackets", hint) from None
    if not _HOST.fullmatch(host):
        raise Wrong("the host is no name and no address", hint)
    return host, int(port)


def schema() -> dict[str, object]:
    """JSON Schema (draft 2020-12) of the settings file, for completion in editors."""
    top: dict[str, object] = {}
    limits: dict[str, object] = {}
    for entry in ENTRIES.values():
        section, dot, name = entry.name.partition(".")
        described = {"description": _described(entry), **entry.schema}
        if dot:
            limits[name] = described
        else:
            top[section] = described
    top["limits"] = {
        "description": "Upper bounds, each with its unit in its name.",
        "type": "object",
        "additionalProperties": False,
        "properties": limits,
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "coatcheck settings",
        "description": "Settings of the process; flags and COATCHECK_* variables go first.",
        "type": "object",
        "additionalProperties": False,
        "properties": top,
    }


_PORT = re.compile(r"0|[1-9][0-9]{0,4}")
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.\-]{0,251}[A-Za-z0-9_.])?")
_TEXT = {"type": "string"}
ADDRESS = {"type": "string", "pattern": ":[0-9]{1,5}$"}


def _address(text: str, _: Path) -> Address:
    return parse_address(text)


def _path(text: str, folder: Path) -> Path:
    if "\0" in text:
        raise Wrong("a path cannot hold NUL", "write the path of a file")
    return folder / Path(text).expanduser()


def _store(text: str, folder: Path) -> str:
    scheme, mark, rest = text.partition("://")
    if not mark:
        return str(_path(text, folder))
    if not re.fullmatch(r"[a-z][a-z0-9+]*", scheme) or not rest:
        hint = "write the path of an SQLite file, or postgresql://USER@HOST/DATABASE"
        raise Wrong("the store is neither a path nor a database URL", hint)
    return text


def _proxy(text: str, _: Path) -> str:
    hint = "write http://HOST:PORT, with USER:PASSWORD@ before HOST where it asks for one"
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise Wrong("the upstream proxy is no URL", hint) from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise Wrong("the upstream proxy is no http:// URL", hint)
    if not port:
        raise Wrong("the upstream proxy has no port", hint)
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise Wrong("the upstream proxy has a path", hint)
    return text


def _collector(text: str, _: Path) -> str:
    hint = "write http://HOST:PORT, or the whole URL where it is not /v1/traces"
    try:
        parts = urlsplit(text)
        host, _port = parts.hostname, parts.port
    except ValueError:
        raise Wrong("the collector is no URL", hint) from None
    if parts.username is not None or parts.password is not None:
        raise Wrong(
            "the URL of the collector holds a credential",
            "put it into the variable OTEL_EXPORTER_OTLP_HEADERS",
        )
    if parts.scheme not in ("http", "https") or not host or parts.query or parts.fragment:
        raise Wrong("the collector is no http:// URL", hint)
    return text if parts.path.strip("/") else text.rstrip("/") + "/v1/traces"


def _hosts(text: str, _: Path) -> tuple[str, ...]:
    hosts = tuple(part.strip().lower() for part in text.split(",") if part.strip())
    if not hosts or not all(_HOST.fullmatch(host) for host in hosts):
        raise Wrong(
            "these are no host names",
            "write names without ports, with commas between: coatcheck.example.com, 10.1.2.3",
        )
    return hosts


def _text(text: str, _: Path) -> str:
    if not text.isprintable() or text != text.strip():
        raise Wrong("this text has spaces round it, or what cannot be shown", "remove them")
    return text


def _file_or_url(text: str, folder: Path) -> str:
    return text if "://" in text else str(_path(text, folder))


def _role(text: str, _: Path) -> str:
    if text not in ROLES:
        meant = closest(text, ROLES)
        hint = f"did you mean {meant}?" if meant else f"write one of {', '.join(ROLES)}"
        raise Wrong("there is no such role", hint)
    return text


def _mode(text: str, _: Path) -> str:
    name = text.partition(":")[0].partition("@")[0]  # as mitmproxy writes them
    if refused := REFUSED.get(name):
        what = f"mode {name} would break promise {refused.promise}: {refused.why}"
        raise Wrong(what, refused.instead)
    if text != REGULAR:
        meant = closest(name, (REGULAR, *REFUSED))
        raise Wrong("there is no such mode", f"did you mean {meant}?" if meant else _ONLY_REGULAR)
    return text


def _connect(text: str, _: Path) -> str:
    if text not in CONNECTS:
        raise Wrong("it is asked for addresses or for names", "write address or name")
    return text


def _number(kind: type[int] | type[float], least: float, most: float) -> Callable[..., Any]:
    shape = re.compile(r"[0-9]{1,18}" if kind is int else r"[0-9]{1,12}(\.[0-9]{1,6})?")
    what = "a whole number" if kind is int else "a number"

    def read(text: str, _: Path) -> float:
        if not shape.fullmatch(text) or not least <= kind(text) <= most:
            hint = (
                f"write {what} from {least:g} to {most:g}"
                if most < 10**6
                else (f"write {what} from {kind(least)} to {kind(most)}")
            )
            raise Wrong(f"this is not {what} within the bounds", hint)
        return kind(text)

    return read


def _limit_entries() -> list[Entry]:
    entries = []
    for limit in dataclasses.fields(Limits):
        kind: type[int] | type[float] = float if isinstance(limit.default, float) else int
        least, most = limit.metadata["least"], limit.metadata["most"]
        shown = f"{limit.default:g}" if kind is float else str(limit.default)
        schema = {
            "type": "integer" if kind is int else "number",
            "minimum": least,
            "maximum": most,
        }
        entries.append(
            Entry(
                f"limits.{limit.name}",
                limit.metadata["doc"],
                shown,
                _number(kind, least, most),
                schema,
            )
        )
    return entries


ENTRIES: dict[str, Entry] = {
    entry.name: entry
    for entry in (
        Entry("listen", "where clients connect, HOST:PORT", "127.0.0.1:8080", _address, ADDRESS),
        Entry(
            "admin",
            "health, metrics and the API, HOST:PORT; never reachable through the proxy",
            "127.0.0.1:8081",
            _address,
            ADDRESS,
        ),
        Entry("policy", "the policy file; without: policy.yaml in home", None, _path, _TEXT),
        Entry(
            "store",
            "path of an SQLite file, or a database URL; without: store.db in home",
            None,
            _store,
            _TEXT,
        ),
        Entry(
            "workers",
            "proxy processes on the one port; not more than the machine has cores",
            "1",
            _number(int, 1, MAX_WORKERS),
            {"type": "integer", "minimum": 1, "maximum": MAX_WORKERS},
        ),
        Entry(
            "role",
            "which part runs here: all, proxy or admin",
            "all",
            _role,
            {"enum": list(ROLES)},
        ),
        Entry(
            "mode",
            "how connections get here: regular, from clients that use a proxy; the others of"
            " mitmproxy are refused, each with the promise that it would break",
            REGULAR,
            _mode,
            {"enum": [REGULAR]},
        ),
        Entry(
            "upstream_ca",
            "PEM file that is trusted for upstreams, besides certifi; without: certifi alone",
            None,
            _path,
            _TEXT,
        ),
        Entry(
            "sources",
            "the file of secrets whose values come from elsewhere; without: sources.yaml in home,"
            " if there is one",
            None,
            _path,
            _TEXT,
        ),
        Entry(
            "upstream_proxy",
            "http://[USER:PASSWORD@]HOST:PORT on the way to upstreams; without: direct",
            None,
            _proxy,
            _TEXT,
        ),
        Entry(
            "upstream_proxy_ca",
            "PEM file to verify an https:// upstream proxy with; without: as upstreams",
            None,
            _path,
            _TEXT,
        ),
        Entry(
            "upstream_proxy_connect",
            "what it is asked for: the vetted address, or the name, which it resolves once more",
            "address",
            _connect,
            {"enum": list(CONNECTS)},
        ),
        Entry(
            "upstream_proxy_credential",
            "file that holds USER:PASSWORD for the upstream proxy",
            None,
            _path,
            _TEXT,
        ),
        Entry(
            "traces_endpoint",
            "the URL that traces are sent to, by OTLP over HTTP; without: there are none",
            None,
            _collector,
            _TEXT,
        ),
        Entry(
            "traces_ca",
            "PEM file to verify an https:// traces_endpoint with; without: certifi",
            None,
            _path,
            _TEXT,
        ),
        Entry(
            "admin_hosts",
            "host names by which the admin side is asked for, with commas between; without: its"
            " address and localhost",
            None,
            _hosts,
            _TEXT,
        ),
        Entry(
            "oidc_issuer",
            "whose JWTs the admin side takes, exactly as their iss says it; without: none",
            None,
            _text,
            _TEXT,
        ),
        Entry(
            "oidc_audience",
            "what their aud must hold; needed with oidc_issuer",
            None,
            _text,
            _TEXT,
        ),
        Entry(
            "oidc_jwks",
            "the issuer's public keys, a JWKS file or its https:// URL; needed with oidc_issuer",
            None,
            _file_or_url,
            _TEXT,
        ),
        Entry(
            "oidc_role_claim",
            "the claim that says viewer, editor or owner; dots go into objects",
            "coatcheck_role",
            _text,
            _TEXT,
        ),
        *_limit_entries(),
    )
}


def _described(entry: Entry) -> str:
    default = "" if entry.default is None else f" Default: {entry.default}."
    return f"{entry.doc[0].upper()}{entry.doc[1:]}.{default}"
