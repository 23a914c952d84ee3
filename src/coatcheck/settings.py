"""The settings of the process, read once at start into one frozen value; nothing reads them later.

Where a setting comes from, first one wins: a flag, ``COATCHECK_NAME`` in the environment, the
settings file, the default. The file is ``--config``, else ``$COATCHECK_CONFIG``, else
``coatcheck.yaml`` in home if there is one. All mistakes are reported together. Texts never quote
``store`` or ``upstream_proxy``: both may hold a password.

Unknown variables of the environment are left alone, except under ``COATCHECK_LIMITS_``: a
Kubernetes service named ``coatcheck`` sets a dozen ``COATCHECK_…`` variables of its own.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coatcheck.core.limits import Limits
from coatcheck.settingtable import ADDRESS, ENTRIES, Address, Entry, Wrong, parse_address, schema
from coatcheck.yamlfile import Document, closest, parse, read_text
from coatcheck.yamltree import FileError, Mistake, Node, may_show

__all__ = [
    "ENTRIES",
    "Limits",
    "Settings",
    "SettingsError",
    "default_home",
    "load",
    "parse_address",
    "schema",
]

FILE_NAME = "coatcheck.yaml"
SOURCES_NAME = "sources.yaml"


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
        admin_given: Somebody has asked for this very admin address; it is not the default.
        admin_hosts: Names by which the admin side is asked for, besides its address.
        oidc_jwks: A file (absolute) or a URL.
        upstream_ca: PEM file that is trusted for upstreams besides certifi; absolute.
        upstream_proxy: ``http://[user:password@]host:port``.
        upstream_proxy_ca: PEM file for an ``https://`` one; None: as for upstreams.
        upstream_proxy_connect: ``address`` or ``name``: what it is asked for.
        upstream_proxy_credential: The file with its ``user:password``; absolute.
        traces_endpoint: Where traces go, with the path; None: there are none.
        sources: The file that declares secrets from elsewhere; absolute; None: that in home, if
            there is one.
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
    admin_given: bool = False
    admin_hosts: tuple[str, ...] = ()
    oidc_issuer: str | None = None
    oidc_audience: str | None = None
    oidc_jwks: str | None = None
    oidc_role_claim: str = "coatcheck_role"
    limits: Limits = field(default_factory=Limits)
    sources: Path | None = None
    upstream_proxy_ca: Path | None = None
    upstream_proxy_connect: str = "address"
    upstream_proxy_credential: Path | None = None
    traces_endpoint: str | None = None
    traces_ca: Path | None = None

    @property
    def sources_file(self) -> Path:
        return self.sources or self.home / SOURCES_NAME


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


_ELSEWHERE = {
    "home": "set it with --home or COATCHECK_HOME: this file itself is looked for there",
    "config": "set it with --config or COATCHECK_CONFIG",
    "version": "only the policy file has one; remove it",
}


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
        except Wrong as wrong:
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
            elif entry.schema is ADDRESS:
                hint = f'write HOST:PORT in quotes: {entry.name}: "{entry.default}"'
            else:
                hint = "put it in quotes"
            if entry.name in ("store", "upstream_proxy"):
                what = f"{entry.name} is no text"
            document.wrong(node.mark, what, hint)
            return
        try:
            self.values[entry.name] = entry.read(node.text, folder)
        except Wrong as wrong:
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
        admin_given="admin" in given,
        admin_hosts=values["admin_hosts"] or (),
        oidc_issuer=values["oidc_issuer"],
        oidc_audience=values["oidc_audience"],
        oidc_jwks=values["oidc_jwks"],
        oidc_role_claim=values["oidc_role_claim"],
        limits=Limits(**limits),
        sources=values["sources"],
        upstream_proxy_ca=values["upstream_proxy_ca"],
        upstream_proxy_connect=values["upstream_proxy_connect"],
        upstream_proxy_credential=values["upstream_proxy_credential"],
        traces_endpoint=values["traces_endpoint"],
        traces_ca=values["traces_ca"],
    )
