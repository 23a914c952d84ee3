"""Wheels of what is installed here, so that a step which installs needs no registry.

A wheel is an archive of the files that were unpacked from it, and RECORD lists them. Programs
(``../../../bin/...``) are left out, since an installer makes them, and so is compiled byte code.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement


def closure(names: Iterable[str]) -> set[str]:
    """*names* (with their extras) and all that they need here."""
    found: set[str] = set()
    seen: set[tuple[str, str]] = set()
    waiting = [Requirement(name) for name in names]
    while waiting:
        wanted = waiting.pop()
        name = _normal(wanted.name)
        found.add(name)
        for extra in ("", *wanted.extras):
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            for text in metadata.requires(name) or ():
                needed = Requirement(text)
                if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                    waiting.append(needed)
    return found


def pack(name: str, folder: Path) -> Path:
    """The installed package *name* as a wheel in *folder*."""
    package = metadata.distribution(name)
    tags = re.findall(r"^Tag: (\S+)", package.read_text("WHEEL") or "", flags=re.MULTILINE)
    made = folder / f"{_normal(name).replace('-', '_')}-{package.version}-{_joined(tags)}.whl"
    with zipfile.ZipFile(made, "w") as archive:
        for file in package.files or ():
            if ".." in file.parts or file.suffix == ".pyc" or "direct_url.json" in file.parts:
                continue
            archive.write(Path(str(file.locate())), str(file))
    return made


def _joined(tags: list[str]) -> str:
    """Compressed tags, as in the name of a file: ``cp313-cp313-manylinux_2_17.manylinux2014``."""
    parts = zip(*(tag.split("-") for tag in tags), strict=True)
    return "-".join(".".join(sorted(set(part))) for part in parts)


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
