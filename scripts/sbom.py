"""Write what is installed in the environment that runs this, as CycloneDX 1.5 (JSON)::

    /opt/coatcheck/bin/python scripts/sbom.py /opt/coatcheck/sbom.cdx.json

The standard library alone, since the environment of an image has no tool for it. The same packages
give the same bytes: no time, no serial number. Packages of the operating system are not in it;
scanners read those from the database of dpkg.
"""

from __future__ import annotations

import json
import re
import sys
from importlib import metadata
from pathlib import Path


def bill() -> dict[str, object]:
    """The bill of materials: the program, and every package beside it."""
    found = {_name(package): package for package in metadata.distributions()}
    own = found.pop("coatcheck", None)
    bom: dict[str, object] = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": _component(own, "application")} if own else {},
        "components": [_component(package, "library") for _, package in sorted(found.items())],
    }
    return bom


def _component(package: metadata.Distribution, kind: str) -> dict[str, object]:
    name = _name(package)
    reference = f"pkg:pypi/{name}@{package.version}"
    component: dict[str, object] = {
        "type": kind,
        "bom-ref": reference,
        "name": name,
        "version": package.version,
        "purl": reference,
    }
    if expression := package.metadata.get("License-Expression"):
        component["licenses"] = [{"expression": expression}]
    return component


def _name(package: metadata.Distribution) -> str:
    """Normalised, as in the names of wheels and in package URLs (PEP 503)."""
    return re.sub(r"[-_.]+", "-", str(package.metadata["Name"])).lower()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: sbom.py FILE")
    Path(sys.argv[1]).write_text(json.dumps(bill(), indent=1) + "\n")
