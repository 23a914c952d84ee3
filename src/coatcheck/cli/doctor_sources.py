"""What `coatcheck doctor` looks at in the sources file. No source is asked: doctor sends nothing.

What the sources answer a running proxy is a finding of the proxy.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Collection, Iterator
from pathlib import Path

from coatcheck.cli.findings import Finding, counted, fail, failed_by, listed, ok
from coatcheck.core.ports import CoatcheckError
from coatcheck.core.secret import Secret
from coatcheck.settings import Settings
from coatcheck.sourcefile import SourceConfig, SourcesFile, read
from coatcheck.store.model import name_key

LIBRARIES = {"vault": "hvac", "aws": "boto3", "gcp": "google.auth", "azure": "azure.identity"}


def check(
    settings: Settings, stored: Collection[Secret] | None
) -> tuple[list[Finding], list[Secret]]:
    """Findings, and the secrets that are declared and in force."""
    path = settings.sources_file
    if settings.sources is None and not path.exists():
        return [], []
    try:
        file = read(path)
    except CoatcheckError as error:
        return [failed_by("sources", error)], []
    taken = {name_key(secret.name) for secret in stored or ()}
    refused = [one.name for one in file.secrets if name_key(one.name) in taken]
    findings = list(_wrong(file, refused))
    declared = [one.secret() for one in file.secrets if one.name not in refused]
    return findings or [ok("sources", f"{counted(file.secrets, 'secret')} in {path}")], declared


def _wrong(file: SourcesFile, refused: list[str]) -> Iterator[Finding]:
    if refused:
        yield fail(
            "sources",
            f"stored secrets have the names of {listed(refused)}, which are refused",
            "delete the stored ones, or rename these in the sources file",
        )
    for source in {one.source.name: one.source for one in file.secrets}.values():
        library = LIBRARIES.get(source.kind)
        if library is not None and not _is_installed(library):
            yield fail(
                "sources",
                f"the source {source.name!r} needs {library}, which is not installed",
                f"pip install 'coatcheck[{source.kind}]'",
            )
        for path in _credentials(source):
            if not os.access(path, os.R_OK):
                yield fail(
                    "sources",
                    f"the source {source.name!r} cannot read its credential in {path}",
                    "put it there, readable by the user that coatcheck runs as",
                )


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # not even the package that it lies in
        return False


def _credentials(source: SourceConfig) -> list[Path]:
    return [Path(value) for key, value in source.options.items() if key.endswith("_file")]
