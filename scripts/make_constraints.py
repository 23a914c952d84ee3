"""Write constraints.txt: every package, those of the extras too, as ``name==version``.

Run it with the newest supported Python, and name the others; each resolves by itself, and a
package on whose version they disagree takes the lowest that one of them found, which is then
tried by all::

    .venv/bin/python scripts/make_constraints.py ~/.pyenv/versions/3.12.*/bin/python3

The file has no addresses: where packages come from is the business of whoever installs.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import tomllib
from itertools import chain
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HEADER = """\
# Every package that `make` and the Dockerfile install. Made by scripts/make_constraints.py for
# Python 3.12 and 3.13; do not edit by hand.
"""

# The engine is written for this one; the next is tested beside it (scripts/next_mitmproxy.py).
PINNED = {"mitmproxy": "12.2.3"}


def main() -> None:
    pythons = [sys.executable, *sys.argv[1:]]
    pins: dict[str, str] = {}
    for python in pythons:
        for name, version in resolve(python, PINNED).items():
            pins[name] = min(version, pins.get(name, version), key=_order)
    for python in pythons:  # they must hold for everyone
        if missing := resolve(python, pins).keys() - pins.keys():
            sys.exit(f"{python}: the common pins need {', '.join(sorted(missing))} too")
    lines = "".join(f"{name}=={pins[name]}\n" for name in sorted(pins))
    (ROOT / "constraints.txt").write_text(HEADER + lines)
    print(f"constraints.txt: {len(pins)} packages")


def resolve(python: str, pins: dict[str, str]) -> dict[str, str]:
    """What pip would install for the project under *python*, given *pins*."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([python, "-m", "venv", f"{folder}/venv"], check=True)
        constraints = Path(folder, "pins.txt")
        constraints.write_text("".join(f"{name}=={version}\n" for name, version in pins.items()))
        report = Path(folder, "report.json")
        pip = [f"{folder}/venv/bin/python", "-m", "pip", "install", "--quiet", "--dry-run"]
        pip += ["-c", str(constraints), "--report", str(report), *requirements()]
        subprocess.run(pip, check=True)
        found = [item["metadata"] for item in json.loads(report.read_text())["install"]]
    return {canonical(item["name"]): item["version"] for item in found}


def requirements() -> list[str]:
    """What pyproject.toml asks for, the extras too."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return [*project["dependencies"], *chain(*project["optional-dependencies"].values())]


def canonical(name: str) -> str:
    """The normalised name of a package (packaging specifications, "Names and normalization")."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _order(version: str) -> tuple[tuple[int, str], ...]:
    return tuple((int(part), "") if part.isdigit() else (-1, part) for part in version.split("."))


if __name__ == "__main__":
    main()
