"""The sources file: secrets whose values come from elsewhere. Text in, a frozen value out.

Name, allowed domains and description of such a secret stand here, and where its value comes from.
It is a file of its own, beside the settings and apart from the policy: who edits the policy decides
who uses a secret, and must not be able to point a source at a new domain
(docs/decisions/0025-values-from-elsewhere.md). So a file that others may write is not read.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coatcheck.core.destination import BadPattern, DomainPattern, parse_domain_pattern
from coatcheck.core.secret import BadName, Secret, check_name
from coatcheck.sourcetable import (
    COMMON,
    KINDS,
    STALE_S,
    TIMEOUT_S,
    TIMES,
    Key,
    Kind,
    Wrong,
    check_source,
)
from coatcheck.yamlfile import Document, closest, parse, read_text
from coatcheck.yamltree import FileError, Mark, Mistake, Node, quoted

MAX_SECRETS = 10_000
SOURCED = "source:"  # how the id of a sourced secret begins
_OTHERS = stat.S_IWGRP | stat.S_IWOTH
_START = "begin it with 'version: 1'; config/sources.yaml is a commented example"


class SourcesError(FileError):
    """A sources file that cannot be used; see `FileError`."""


@dataclass(frozen=True, slots=True)
class SourceConfig:
    """One source: where values are asked for, and how often.

    Attributes:
        options: By key of `sourcetable.KINDS`; never a credential.
    """

    name: str
    kind: str
    options: Mapping[str, Any]
    refresh_s: float
    timeout_s: float
    stale_s: float


@dataclass(frozen=True, slots=True)
class Declared:
    """A secret whose value comes from a source.

    Attributes:
        where: By key of `sourcetable.KINDS`: what the source is asked for.
    """

    name: str
    domains: tuple[DomainPattern, ...]
    description: str
    source: SourceConfig
    where: Mapping[str, Any]
    keep_newline: bool = False
    allow_short: bool = False

    def secret(self, now: float = 0.0) -> Secret:
        """As it is before its source has answered. No id of a stored secret has a colon.

        Args:
            now: Seconds since the epoch.
        """
        return Secret(
            f"{SOURCED}{self.name}",
            self.name,
            1,
            self.domains,
            self.description,
            created_at=now,
            updated_at=now,
        )


@dataclass(frozen=True, slots=True)
class SourcesFile:
    """What a sources file says; nothing, where there is none."""

    secrets: tuple[Declared, ...] = ()
    digest: str = ""

    def find(self, name: str) -> Declared | None:
        return next((one for one in self.secrets if one.name == name), None)

    def secret(self, name: str) -> Secret | None:
        """What a decision needs to know of the secret *name*."""
        one = self.find(name)
        return None if one is None else one.secret()


def read(path: Path) -> SourcesFile:
    """Read and check the sources file at *path*.

    Raises:
        SourcesError: missing, unreadable, open to others' writing, or with mistakes in it.
    """
    try:
        text = read_text(path, missing="see docs/sources.md, or leave the setting sources out")
        wrong = _who_else_writes(path)
    except OSError as error:
        reason = error.strerror or "not a path"
        mistake = Mistake(str(path), f"cannot be read ({reason})", "check the path")
        raise SourcesError([mistake]) from None
    except FileError as error:
        raise SourcesError(error.mistakes) from None
    if wrong is not None:
        raise SourcesError([wrong])
    return parse_text(text, str(path), path.absolute().parent)


def _who_else_writes(path: Path) -> Mistake | None:
    """What lets others than us and root write the file, or put another one in its place.

    A folder that everybody may write does where its sticky bit keeps what is in it from others, as
    in a mounted volume.
    """
    status = path.stat()
    if status.st_mode & _OTHERS:
        hint = f"run: chmod go-w {path}"
        return Mistake(str(path), "others than its owner can write it", hint)
    if status.st_uid not in (0, os.geteuid()):
        hint = "give it to the user that runs coatcheck, or to root"
        return Mistake(str(path), "it belongs to somebody else", hint)
    for folder in {path.absolute().parent, path.resolve().parent}:
        found = folder.stat()
        if found.st_mode & _OTHERS and not found.st_mode & stat.S_ISVTX:
            hint = f"run: chmod go-w {folder}"
            return Mistake(str(path), "others can put another file in its place", hint)
        if found.st_uid not in (0, os.geteuid()):
            hint = f"give {folder} to the user that runs coatcheck, or to root"
            return Mistake(str(path), "its folder belongs to somebody else", hint)
    return None


def parse_text(text: str, source: str, folder: Path) -> SourcesFile:
    """Check *text*, the content of a sources file called *source*. Pure.

    Raises:
        SourcesError: with every mistake that the text holds.
    """
    try:
        document = parse(text, source, empty=_START)
    except FileError as error:
        raise SourcesError(error.mistakes) from None
    reader = _Reader(document, folder)
    secrets = reader.read()
    if mistakes := document.mistakes():
        raise SourcesError(mistakes)
    return SourcesFile(secrets, hashlib.sha256(text.encode()).hexdigest())


class _Reader:
    def __init__(self, document: Document, folder: Path) -> None:
        self._document = document
        self._folder = folder

    def read(self) -> tuple[Declared, ...]:
        root = self._document.root
        self._known(root, ("version", "sources", "secrets"))
        version = root.get("version")
        if version is None or version.value != 1 or version.kind != "number":
            mark = version.mark if version else root.mark
            self._document.wrong(mark, "version: is missing, or not 1", "begin with 'version: 1'")
        sources = {
            name: SourceConfig(name, name, {}, kind.refresh_s, TIMEOUT_S, STALE_S)
            for name, kind in KINDS.items()
            if kind.builtin
        }
        for name, mark, node in self._entries(root, "sources"):
            if (config := self._source(name, mark, node)) is not None:
                sources[name] = config
        found = [
            self._secret(name, mark, node, sources)
            for name, mark, node in self._entries(root, "secrets")
        ]
        return tuple(declared for declared in found if declared is not None)

    def _entries(self, root: Node, section: str) -> tuple[tuple[str, Mark, Node], ...]:
        node = root.get(section)
        if node is None:
            return ()
        if node.kind != "mapping":
            hint = "write one 'name:' a line below it, indented"
            self._document.wrong(node.mark, f"{section} is no mapping", hint)
        elif len(node.entries) > MAX_SECRETS:
            self._document.wrong(node.mark, f"{section} are too many", f"keep it to {MAX_SECRETS}")
            return ()
        return node.entries

    def _source(self, name: str, mark: Mark, node: Node) -> SourceConfig | None:
        if not name.isprintable() or len(name) > 64:
            self._document.wrong(mark, "no source has such a name", "use letters and digits")
            return None
        kind = self._kind(name, mark, node)
        if kind is None:
            return None
        keys = {**KINDS[kind].source, **TIMES}
        options = self._keys(node, keys, also=("kind",))
        if options is None:
            return None
        try:
            check_source(kind, options)
        except Wrong as wrong:
            self._document.wrong(mark, wrong.what, wrong.hint)
        times = {"refresh_s": KINDS[kind].refresh_s, "timeout_s": TIMEOUT_S, "stale_s": STALE_S}
        times |= {key: options.pop(key) for key in TIMES if key in options}
        return SourceConfig(name, kind, options, **times)

    def _kind(self, name: str, mark: Mark, node: Node) -> str | None:
        given = node.get("kind") if node.kind == "mapping" else None
        kind = given.text if given is not None else name
        if kind in KINDS:
            return kind
        hint = f"write kind: and one of {', '.join(KINDS)}"
        self._document.wrong(given.mark if given else mark, "the source has no known kind", hint)
        return None

    def _secret(
        self, name: str, mark: Mark, node: Node, sources: Mapping[str, SourceConfig]
    ) -> Declared | None:
        try:
            check_name(name)
        except BadName as error:
            self._document.wrong(mark, f"no secret has this name: {error}", "choose another")
        source = self._source_of(mark, node, sources)
        if source is None:
            return None
        kind = KINDS[source.kind]
        options = self._keys(
            node, {**kind.secret, **COMMON}, also=("source", "domains", "description")
        )
        if options is None:
            return None
        common = {key: bool(options.pop(key, False)) for key in COMMON}
        self._check_where(kind, source, node, options)
        return Declared(
            name, self._domains(mark, node), self._description(node), source, options, **common
        )

    def _check_where(
        self, kind: Kind, source: SourceConfig, node: Node, options: dict[str, Any]
    ) -> None:
        """A file is taken from its source's folder, and from nowhere else where there is one."""
        if kind is not KINDS["file"] or "file" not in options:
            return
        given, folder = Path(options["file"]), source.options.get("folder")
        if folder is not None and (given.is_absolute() or ".." in given.parts):
            mark = (node.get("file") or node).mark
            hint = "name a file in it, without '..'"
            self._document.wrong(mark, "the file is outside of its source's folder", hint)
        options["file"] = str(Path(folder or self._folder) / given.expanduser())

    def _source_of(
        self, mark: Mark, node: Node, sources: Mapping[str, SourceConfig]
    ) -> SourceConfig | None:
        given = node.get("source") if node.kind == "mapping" else None
        if given is None:
            self._document.wrong(mark, "the secret has no source", "add source: and its name")
            return None
        if given.text in sources:
            return sources[given.text]
        meant = closest(given.text, sources)
        hint = f"did you mean '{meant}'?" if meant else f"known: {', '.join(sources)}"
        self._document.wrong(given.mark, f"there is no source {quoted(given.text)}", hint)
        return None

    def _domains(self, mark: Mark, node: Node) -> tuple[DomainPattern, ...]:
        given = node.get("domains")
        if given is None or given.kind != "list" or not given.items:
            where = given.mark if given is not None else mark
            hint = "say where it may go: domains: [api.example.com]"
            self._document.wrong(where, "the secret has no list of domains", hint)
            return ()
        found = []
        for item in given.items:
            try:
                found.append(parse_domain_pattern(item.text if item.kind == "text" else ""))
            except BadPattern as error:
                self._document.wrong(item.mark, error.what, error.hint)
        if len(found) > 1 and any(pattern.any for pattern in found):
            hint = "keep '*' alone, or leave it out"
            self._document.wrong(given.mark, "'*' makes the other domains meaningless", hint)
        return tuple(dict.fromkeys(found))

    def _description(self, node: Node) -> str:
        given = node.get("description")
        if given is None:
            return ""
        if given.kind != "text" or len(given.text) > 4096:
            self._document.wrong(given.mark, "the description is no short text", "put it in quotes")
        return given.text

    def _keys(
        self, node: Node, keys: Mapping[str, Key], *, also: tuple[str, ...]
    ) -> dict[str, Any] | None:
        """The values of *keys* in *node*; None where it is no mapping."""
        if node.kind != "mapping":
            self._document.wrong(node.mark, "this is no mapping", "write 'key: value' lines")
            return None
        self._known(node, (*keys, *also))
        found: dict[str, Any] = {}
        for name, key in keys.items():
            given = node.get(name)
            if given is None:
                if key.required:
                    self._document.wrong(node.mark, f"{name}: is missing", f"add it: {key.doc}")
                continue
            try:
                found[name] = key.read(given, self._folder)
            except Wrong as wrong:
                self._document.wrong(given.mark, f"{name}: {wrong.what}", wrong.hint)
        return found

    def _known(self, node: Node, known: tuple[str, ...]) -> None:
        for key, mark, _ in node.entries:
            if key in known:
                continue
            meant = closest(key, known)
            hint = f"did you mean '{meant}'?" if meant else f"known: {', '.join(known)}"
            self._document.wrong(mark, f"the key {quoted(key)} is not known here", hint)


def schema() -> dict[str, object]:
    """JSON Schema (draft 2020-12) of the file, for completion in editors."""
    domains = {"type": "array", "minItems": 1, "items": {"type": "string"}}
    of_secret: dict[str, object] = {
        "source": {"description": "A name from sources:, or env, file, command", "type": "string"},
        "domains": {"description": "Where the value may go", **domains},
        "description": {"description": "What it is for", "type": "string"},
    }
    of_source: dict[str, object] = {"kind": {"description": _kinds(), "enum": list(KINDS)}}
    for kind in KINDS.values():
        of_source |= {name: _described(key) for name, key in kind.source.items()}
        of_secret |= {name: _described(key) for name, key in kind.secret.items()}
    of_source |= {name: _described(key) for name, key in TIMES.items()}
    of_secret |= {name: _described(key) for name, key in COMMON.items()}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "coatcheck sources",
        "description": "Secrets whose values come from elsewhere.",
        "type": "object",
        "additionalProperties": False,
        "required": ["version"],
        "properties": {
            "version": {"description": "Version of this format.", "const": 1},
            "sources": _mapping("Where values come from, by name.", of_source, ["kind"]),
            "secrets": _mapping("Secrets, by name.", of_secret, ["source", "domains"]),
        },
    }


def _mapping(doc: str, properties: dict[str, object], required: list[str]) -> dict[str, object]:
    inner = {
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
        "required": required,
    }
    return {"description": doc, "type": "object", "additionalProperties": inner}


def _kinds() -> str:
    return "; ".join(f"{name}: {kind.doc}" for name, kind in KINDS.items())


def _described(key: Key) -> dict[str, object]:
    return {"description": f"{key.doc[0].upper()}{key.doc[1:]}.", **key.schema}
