"""The settings of the process, read once at start into one frozen value; nothing reads them later.

Where a setting comes from, first one wins: a flag, ``COATCHECK_NAME`` in the environment, the
settings file, the default. The file is ``--config``, else ``$COATCHECK_CONFIG``, else
``coatcheck.yaml`` in home if there is one. All mistakes are reported together. Texts never quote
``store`` or ``upstream_proxy``: both may hold a password.

Unknown variables of the environment are left alone, except under ``COATCHECK_LIMITS_``: a
Kubernetes service named ``coatcheck`` sets a dozen ``COATCHECK_…`` variables of its own.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from coatcheck.core.limits import Limits
from coatcheck.yamlfile import (
    Document,
    FileError,
    Mistake,
    Node,
    closest,
    may_show,
    parse,
    read_text,
)

type Address = tuple[str, int]

FILE_NAME = "coatcheck.yaml"
ROLES = ("all", "proxy", "admin")
MAX_WORKERS = 256


class SettingsError(FileError):
    """Settings that cannot be used; see `FileError`. ``where`` may be a flag or a variable."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything a process is told from outside, checked.

    Attributes:
        listen, admin: Host (no brackets) and port; port 0 lets the system pick one.
        policy: The policy file; absolute.
        store: Path of an SQLite file (absolute), or a database URL.
        role: ``all``, ``proxy`` or ``admin``.
        upstream_ca: PEM file that is trusted for upstreams besides certifi; absolute.
        upstream_proxy: ``http://[user:password@]host:port``.
    """

    home: Path
    listen: Address
    admin: Address
    policy: Path
    store: str = field(repr=False)
    workers: int
    role: str
    upstream_ca: Path | None
    upstream_proxy: str | None = field(repr=False)
    limits: Limits = field(default_factory=Limits)


class _Wrong(ValueError):
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
            a relative path starts from. Raises `_Wrong`.
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


def default_home(environ: Mapping[str, str]) -> Path:
    """The home folder without ``--home``: $COATCHECK_HOME, XDG, ~/.local/share; absolute."""
    if environ.get("COATCHECK_HOME"):
        return Path(environ["COATCHECK_HOME"]).expanduser().absolute()
    # The XDG base directory specification: a relative path is to be ignored.
    if environ.get("XDG_DATA_HOME", "").startswith("/"):
        return Path(environ["XDG_DATA_HOME"]) / "coatcheck"
    base = Path(environ["HOME"]) if environ.get("HOME", "").startswith("/") else Path.home()
    return base / ".local" / "share" / "coatcheck"


def load(
    *,
    home: Path | None = None,
    config: Path | None = None,
    flags: Mapping[str, str] | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Settings:
    """Read flags, environment and file into one value.

    Args:
        home, config: ``--home`` and ``--config``; None where they were not given.
        flags: Setting name (``listen``, ``limits.head_bytes``) -> text, for each flag given.

    Raises:
        SettingsError: with every mistake of every source.
    """
    home = home.expanduser().absolute() if home is not None else default_home(environ)
    reader = _Reader()
    if (path := _config_path(config, home, environ)) is not None:
        reader.file(path)
    reader.environment(environ)
    reader.flags(flags or {})
    if reader.mistakes:
        raise SettingsError(reader.mistakes)
    return _settings(home, reader.values)


def parse_address(text: str) -> Address:
    """Read ``HOST:PORT`` or ``[v6]:PORT``; the host comes back without brackets.

    Raises:
        ValueError: it is none; the text says what one looks like.
    """
    hint = "write HOST:PORT, for example 127.0.0.1:8080 or [::1]:8080"
    host, colon, port = text.rpartition(":")
    if not colon or not _PORT.fullmatch(port) or int(port) > 65535:
        raise _Wrong("there is no port from 0 to 65535 behind a colon", hint)
    if not host:
        raise _Wrong("the host is missing", f"{hint}; 0.0.0.0:{port} listens everywhere")
    if host.startswith("[") and host.endswith("]"):
        try:
            return str(ipaddress.IPv6Address(host[1:-1])), int(port)
        except ValueError:
            raise _Wrong("there is no IPv6 address in the brackets", hint) from None
    if not _HOST.fullmatch(host):
        raise _Wrong("the host is no name and no address", hint)
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


# --- the table --------------------------------------------------------------------------------

_PORT = re.compile(r"0|[1-9][0-9]{0,4}")
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.\-]{0,251}[A-Za-z0-9_.])?")
_TEXT = {"type": "string"}
_ADDRESS = {"type": "string", "pattern": ":[0-9]{1,5}$"}


def _address(text: str, _: Path) -> Address:
    return parse_address(text)


def _path(text: str, folder: Path) -> Path:
    if "\0" in text:
        raise _Wrong("a path cannot hold NUL", "write the path of a file")
    return folder / Path(text).expanduser()


def _store(text: str, folder: Path) -> str:
    scheme, mark, rest = text.partition("://")
    if not mark:
        return str(_path(text, folder))
    if not re.fullmatch(r"[a-z][a-z0-9+]*", scheme) or not rest:
        hint = "write the path of an SQLite file, or postgresql://USER@HOST/DATABASE"
        raise _Wrong("the store is neither a path nor a database URL", hint)
    return text


def _proxy(text: str, _: Path) -> str:
    hint = "write http://HOST:PORT, with USER:PASSWORD@ before HOST where it asks for one"
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise _Wrong("the upstream proxy is no URL", hint) from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise _Wrong("the upstream proxy is no http:// URL", hint)
    if not port:
        raise _Wrong("the upstream proxy has no port", hint)
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise _Wrong("the upstream proxy has a path", hint)
    return text


def _role(text: str, _: Path) -> str:
    if text not in ROLES:
        meant = closest(text, ROLES)
        hint = f"did you mean {meant}?" if meant else f"write one of {', '.join(ROLES)}"
        raise _Wrong("there is no such role", hint)
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
            raise _Wrong(f"this is not {what} within the bounds", hint)
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
        Entry("listen", "where clients connect, HOST:PORT", "127.0.0.1:8080", _address, _ADDRESS),
        Entry(
            "admin",
            "health, metrics and the API, HOST:PORT; never reachable through the proxy",
            "127.0.0.1:8081",
            _address,
            _ADDRESS,
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
            "proxy processes on the one port",
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
            "upstream_ca",
            "PEM file that is trusted for upstreams, besides certifi; without: certifi alone",
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
        *_limit_entries(),
    )
}

_ELSEWHERE = {
    "home": "set it with --home or COATCHECK_HOME: this file itself is looked for there",
    "config": "set it with --config or COATCHECK_CONFIG",
    "version": "only the policy file has one; remove it",
}


def _described(entry: Entry) -> str:
    default = "" if entry.default is None else f" Default: {entry.default}."
    return f"{entry.doc[0].upper()}{entry.doc[1:]}.{default}"


# --- the sources ------------------------------------------------------------------------------


class _Reader:
    """Collects values, a later source over an earlier one, and all mistakes."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.mistakes: list[Mistake] = []

    def file(self, path: Path) -> None:
        try:
            text = read_text(path, missing="check --config or COATCHECK_CONFIG, or leave it out")
            document = parse(text, str(path), empty=None)
        except FileError as error:
            self.mistakes.extend(error.mistakes)
            return
        self._section(document, document.root, "", path.absolute().parent)
        self.mistakes.extend(document.mistakes())

    def environment(self, environ: Mapping[str, str]) -> None:
        for entry in ENTRIES.values():
            if text := environ.get(entry.variable):  # an empty one is unset, as in compose files
                self._take(entry, text, entry.variable)
        known = {entry.variable for entry in ENTRIES.values()}
        for name in sorted(environ):
            if name.startswith("COATCHECK_LIMITS_") and name not in known:
                meant = closest(name, known)
                hint = f"did you mean {meant}?" if meant else "see config/coatcheck.yaml"
                self.mistakes.append(Mistake(name, "there is no such limit", hint))

    def flags(self, flags: Mapping[str, str]) -> None:
        for name, text in flags.items():
            entry = ENTRIES[name]
            self._take(entry, text, entry.flag)

    def _take(self, entry: Entry, text: str, where: str) -> None:
        try:
            self.values[entry.name] = entry.read(text, Path.cwd())
        except _Wrong as wrong:
            self.mistakes.append(Mistake(where, wrong.what, wrong.hint))

    def _section(self, document: Document, section: Node, prefix: str, folder: Path) -> None:
        for key, mark, node in section.entries:
            name = prefix + key
            if name == "limits":
                self._limits(document, node, folder)
            elif "." in key or (entry := ENTRIES.get(name)) is None:
                document.wrong(mark, *_unknown(key, prefix))
            elif node.kind in ("list", "mapping"):
                document.wrong(node.mark, f"{key} is a {node.kind}", "write one value")
            else:
                self._scalar(document, entry, node, folder)

    def _limits(self, document: Document, node: Node, folder: Path) -> None:
        if node.kind == "mapping":
            self._section(document, node, "limits.", folder)
        else:
            hint = "write one 'name: number' a line below it, indented"
            document.wrong(node.mark, "limits is no mapping", hint)

    def _scalar(self, document: Document, entry: Entry, node: Node, folder: Path) -> None:
        wants_number = entry.schema.get("type") in ("integer", "number")
        fits = node.kind.startswith("number") if wants_number else node.kind == "text"
        if not fits:
            what = f"{entry.name} is {node.shown()}"
            if wants_number:
                hint = "write a number without quotes and without a unit"
            elif entry.schema is _ADDRESS:
                hint = f'write HOST:PORT in quotes: {entry.name}: "{entry.default}"'
            else:
                hint = "put it in quotes"
            if entry.name in ("store", "upstream_proxy"):
                what = f"{entry.name} is no text"
            document.wrong(node.mark, what, hint)
            return
        try:
            self.values[entry.name] = entry.read(node.text, folder)
        except _Wrong as wrong:
            document.wrong(node.mark, f"{entry.name}: {wrong.what}", wrong.hint)


def _unknown(key: str, prefix: str) -> tuple[str, str]:
    known = [name.removeprefix(prefix) for name in ENTRIES if name.startswith(prefix)]
    shown = f"'{key}'" if may_show(key) else "this key"
    what = f"there is no {'limit' if prefix else 'setting'} {shown}"
    if not prefix and key in _ELSEWHERE:
        return what, _ELSEWHERE[key]
    if not prefix and f"limits.{key}" in ENTRIES:
        return what, "put it under limits:, indented"
    if not prefix:
        known = [name for name in known if "." not in name] + ["limits"]
    meant = closest(key, known)
    return what, f"did you mean '{meant}'?" if meant else f"known: {', '.join(known)}"


def _config_path(config: Path | None, home: Path, environ: Mapping[str, str]) -> Path | None:
    if config is not None:
        return config.expanduser()
    if environ.get("COATCHECK_CONFIG"):
        return Path(environ["COATCHECK_CONFIG"]).expanduser()
    path = home / FILE_NAME
    return path if path.exists() else None


def _settings(home: Path, given: Mapping[str, Any]) -> Settings:
    cwd = Path.cwd()
    values: dict[str, Any] = {
        entry.name: entry.read(entry.default, cwd) if entry.default is not None else None
        for entry in ENTRIES.values()
    } | dict(given)
    limits = {
        name.removeprefix("limits."): value
        for name, value in values.items()
        if name.startswith("limits.")
    }
    return Settings(
        home=home,
        listen=values["listen"],
        admin=values["admin"],
        policy=values["policy"] or home / "policy.yaml",
        store=values["store"] or str(home / "store.db"),
        workers=values["workers"],
        role=values["role"],
        upstream_ca=values["upstream_ca"],
        upstream_proxy=values["upstream_proxy"],
        limits=Limits(**limits),
    )
