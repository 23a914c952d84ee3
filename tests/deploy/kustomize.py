"""A kustomization, resolved: every reference to a file followed, generated objects made.

As much of kustomize as the ones of `deploy/` use; anything else is an error. Where kubectl is
there a test compares this with what its own kustomize makes of the same folder.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

type Object = dict[str, Any]

_KNOWN = {"apiVersion", "kind", "namespace", "resources", "configMapGenerator", "images"}
_WITHOUT_NAMESPACE = {"Namespace"}


class Unknown(Exception):
    """The kustomization says something that this reader does not know."""


def resolve(folder: Path) -> list[Object]:
    """All objects of the kustomization in *folder*."""
    wanted = yaml.safe_load((folder / "kustomization.yaml").read_text())
    if unknown := wanted.keys() - _KNOWN:
        raise Unknown(f"{folder.name}: {', '.join(sorted(unknown))}")
    objects = [
        found
        for name in wanted["resources"]
        for found in yaml.safe_load_all((folder / name).read_text())
    ]
    objects += [_config_map(folder, entry) for entry in wanted.get("configMapGenerator", ())]
    for found in objects:
        if found["kind"] not in _WITHOUT_NAMESPACE:
            found["metadata"]["namespace"] = wanted["namespace"]
    tags = {image["name"]: image["newTag"] for image in wanted.get("images", ())}
    for container in (one for found in objects for one in containers(found)):
        if container["image"] in tags:
            container["image"] += ":" + tags[container["image"]]
    return objects


def _config_map(folder: Path, entry: Object) -> Object:
    if entry.keys() != {"name", "files", "options"} or entry["options"] != {
        "disableNameSuffixHash": True
    }:
        raise Unknown(f"a generator with {entry}")
    data = {name: (folder / name).read_text() for name in entry["files"]}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": entry["name"]},
        "data": data,
    }


def pod(found: Object) -> Object:
    """The pod of a Deployment or a Job; an empty one where there is none."""
    template: Object = found.get("spec", {}).get("template", {}).get("spec", {})
    return template


def containers(found: Object) -> list[Object]:
    """Those of its pod, in the order in which they are started."""
    spec = pod(found)
    return [*spec.get("initContainers", ()), *spec.get("containers", ())]
