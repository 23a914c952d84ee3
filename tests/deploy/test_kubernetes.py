"""What deploy/kubernetes says: valid, whole, closed; and its commands are those of the program."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from coatcheck import policyfile, settings
from coatcheck.cli import childenv
from coatcheck.store.home import Home, create_home
from tests.deploy.kustomize import Object, Unknown, containers, pod, resolve

FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "kubernetes"
KINDS = ("gateway", "sidecar", "clients")
OBJECTS = {kind: resolve(FOLDER / kind) for kind in KINDS}
EVERY = [
    pytest.param(found, id=f"{kind}-{found['kind']}-{found['metadata']['name']}")
    for kind in KINDS
    for found in OBJECTS[kind]
]
PODS = [
    pytest.param(found, id=f"{kind}-{found['metadata']['name']}")
    for kind in KINDS
    for found in OBJECTS[kind]
    if pod(found)
]
VERSION = "1.37"
PRIVATE_KEYS = {"keys", "sealing", "state"}  # volumes that hold a key, or a home

# The part of the operator's definition that is used here, closed: a wrong name is an error.
SERVICE_MONITOR = {
    "type": "object",
    "additionalProperties": False,
    "required": ["apiVersion", "kind", "metadata", "spec"],
    "properties": {
        "apiVersion": {"const": "monitoring.coreos.com/v1"},
        "kind": {"const": "ServiceMonitor"},
        "metadata": {"type": "object", "required": ["name"]},
        "spec": {
            "type": "object",
            "additionalProperties": False,
            "required": ["selector", "endpoints"],
            "properties": {
                "selector": {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {"matchLabels": {"type": "object"}},
                },
                "endpoints": {
                    "type": "array",
                    "minItems": 1,
                    "items": {
                        "type": "object",
                        "additionalProperties": False,
                        "required": ["port"],
                        "properties": {
                            "port": {"type": "string"},
                            "path": {"type": "string", "pattern": "^/"},
                            "interval": {"type": "string", "pattern": "^[0-9]+(ms|s|m)$"},
                        },
                    },
                },
            },
        },
    },
}


def one(kind: str, what: str, name: str = "coatcheck") -> Object:
    (found,) = (
        found
        for found in OBJECTS[kind]
        if (found["kind"], found["metadata"]["name"]) == (what, name)
    )
    return found


# --- valid ------------------------------------------------------------------------------------


@pytest.mark.parametrize("found", EVERY)
def test_every_object_is_valid(found: Object) -> None:
    """With no field that Kubernetes does not know."""
    if found["kind"] == "ServiceMonitor":
        jsonschema.validate(found, SERVICE_MONITOR)
    else:
        kubernetes_validate.validate(found, VERSION, strict=True)


def test_a_misspelt_field_is_seen() -> None:
    deployment = json.loads(json.dumps(one("gateway", "Deployment")))
    containers(deployment)[0]["readOnlyRootFileSystem"] = True

    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment, VERSION, strict=True)


@pytest.mark.parametrize("kind", KINDS)
def test_kustomize_makes_the_same_of_it(kind: str) -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")

    done = subprocess.run(
        ["kubectl", "kustomize", FOLDER / kind], capture_output=True, text=True, check=True
    )

    def named(objects: Iterator[Object] | list[Object]) -> dict[tuple[str, str], Object]:
        return {(found["kind"], found["metadata"]["name"]): found for found in objects}

    assert named(yaml.safe_load_all(done.stdout)) == named(OBJECTS[kind])


def test_what_the_reader_of_kustomizations_does_not_know_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "kustomization.yaml").write_text("resources: []\npatches: []\n")

    with pytest.raises(Unknown, match="patches"):
        resolve(tmp_path)


# --- whole ------------------------------------------------------------------------------------


@pytest.mark.parametrize("found", PODS)
def test_every_volume_that_is_mounted_is_there_and_none_besides(found: Object) -> None:
    given = {volume["name"] for volume in pod(found)["volumes"]}

    mounted = {mount["name"] for c in containers(found) for mount in c.get("volumeMounts", ())}
    assert mounted == given


@pytest.mark.parametrize("kind", ["gateway", "sidecar"])
def test_every_config_map_that_is_mounted_is_made_and_holds_a_policy(
    kind: str, tmp_path: Path
) -> None:
    (workload,) = (found for found in OBJECTS[kind] if pod(found))
    (volume,) = (v["configMap"] for v in pod(workload)["volumes"] if "configMap" in v)
    made = one(kind, "ConfigMap", volume["name"])
    (name,) = made["data"]
    (tmp_path / name).write_text(made["data"][name])

    (container,) = (c for c in containers(workload) if c.get("args") == ["serve"])
    (mount,) = (m for m in container["volumeMounts"] if m["name"] == "policy")
    assert variables(container)["COATCHECK_POLICY"] == f"{mount['mountPath']}/{name}"
    assert policyfile.read(tmp_path / name).grants


def test_whatever_names_the_pods_of_the_gateway_finds_them() -> None:
    labels = one("gateway", "Deployment")["spec"]["template"]["metadata"]["labels"]
    policy = one("gateway", "NetworkPolicy")
    (client_rule,) = one("clients", "NetworkPolicy", "only-coatcheck")["spec"]["egress"]

    selectors = [
        one("gateway", "Deployment")["spec"]["selector"]["matchLabels"],
        one("gateway", "Service")["spec"]["selector"],
        one("gateway", "Service", "coatcheck-admin")["spec"]["selector"],
        one("gateway", "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        policy["spec"]["podSelector"]["matchLabels"],
        client_rule["to"][0]["podSelector"]["matchLabels"],
    ]
    target = one("gateway", "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]
    assert [selector for selector in selectors if not selector.items() <= labels.items()] == []
    assert (target["kind"], target["name"]) == ("Deployment", "coatcheck")


def test_the_monitor_finds_the_admin_service_and_not_that_of_the_clients() -> None:
    spec = one("gateway", "ServiceMonitor")["spec"]
    wanted = spec["selector"]["matchLabels"].items()

    services = [found for found in OBJECTS["gateway"] if found["kind"] == "Service"]
    (chosen,) = (s for s in services if wanted <= s["metadata"]["labels"].items())
    assert chosen["metadata"]["name"] == "coatcheck-admin"
    assert {e["port"] for e in spec["endpoints"]} == {p["name"] for p in chosen["spec"]["ports"]}


def test_clients_and_gateway_agree_on_label_and_port() -> None:
    (rule, _) = one("gateway", "NetworkPolicy")["spec"]["ingress"]
    clients = one("clients", "NetworkPolicy", "only-coatcheck")["spec"]

    assert rule["from"][0]["podSelector"] == clients["podSelector"]
    assert rule["ports"] == clients["egress"][0]["ports"] == [{"port": 8080}]


@pytest.mark.parametrize("found", PODS)
def test_the_settings_are_read_by_the_program(found: Object, tmp_path: Path) -> None:
    """And the proxy listens where the rest of the manifest says."""
    (container,) = (c for c in containers(found) if c.get("args") == ["serve"])
    given = {**variables(container), "COATCHECK_STORE": "postgresql://db/coatcheck"}

    read = settings.load(home=tmp_path, environ=given)

    ports = {port["name"]: port["containerPort"] for port in container.get("ports", ())}
    assert read.listen[1] == ports.get("proxy", 8080)
    assert read.admin[1] == ports.get("admin", 8081)


# --- closed -----------------------------------------------------------------------------------


@pytest.mark.parametrize("found", PODS)
def test_the_pod_is_one_of_the_restricted_kind(found: Object) -> None:
    """The Pod Security Standard of that name, and a root file system that is read-only."""
    spec = pod(found)
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    assert not spec.keys() & {"hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"}
    for container in containers(found):
        context = container["securityContext"]
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["allowPrivilegeEscalation"] is False
        if container["image"].startswith("coatcheck"):
            assert context["readOnlyRootFilesystem"] is True


def test_a_service_of_that_name_sets_no_settings() -> None:
    """Kubernetes would set COATCHECK_PORT and the like beside them."""
    assert all(
        pod(found)["enableServiceLinks"] is False
        for kind in KINDS
        for found in OBJECTS[kind]
        if pod(found)
    )


def test_the_job_gets_certificates_and_nothing_that_holds_a_key() -> None:
    (job,) = (c for c in pod(one("sidecar", "Job", "runner"))["containers"])

    assert job["volumeMounts"] == [{"name": "trust", "mountPath": "/trust", "readOnly": True}]
    assert not any("valueFrom" in entry for entry in job["env"])
    assert "{{secrets.crm.apiKey}}" in job["command"][-1]


@pytest.mark.parametrize("found", PODS)
def test_the_sealing_key_is_seen_by_the_proxy_alone(found: Object) -> None:
    holders = {
        container["name"]
        for container in containers(found)
        for mount in container.get("volumeMounts", ())
        if mount["name"] == "sealing"
    }
    (keys,) = (v["secret"] for v in pod(found)["volumes"] if v["name"] == "keys")

    assert holders == {"coatcheck"}
    assert "sealing.key" not in {item["key"] for item in keys["items"]}


def test_the_container_that_shows_the_audit_log_sees_nothing_else() -> None:
    (audit,) = (c for c in containers(one("gateway", "Deployment")) if c["name"] == "audit")

    assert audit["volumeMounts"] == [
        {
            "name": "state",
            "mountPath": "/audit",
            "subPath": "home/audit",  # of COATCHECK_HOME
            "readOnly": True,
        }
    ]
    assert "env" not in audit


def test_the_sidecar_starts_before_the_job_and_stays_beside_it() -> None:
    job = one("sidecar", "Job", "runner")
    (sidecar,) = (c for c in pod(job)["initContainers"] if c.get("restartPolicy") == "Always")

    assert sidecar["args"] == ["serve"]
    assert sidecar["startupProbe"]["exec"]["command"] == ["coatcheck", "status"]
    assert sidecar["securityContext"]["runAsUser"] != job_user(job)


def job_user(job: Object) -> int:
    (container,) = pod(job)["containers"]
    return int(container["securityContext"]["runAsUser"])


def test_the_job_gets_the_variables_that_run_would_set() -> None:
    (job,) = pod(one("sidecar", "Job", "runner"))["containers"]
    folder = Path("/trust")
    names = ("bundle.pem", "ca.pem", "bundle.p12", "wgetrc", "coatcheck.ini")
    files = childenv.TrustFiles(*(folder / name for name in names))

    assert variables(job) == childenv.variables(childenv.Proxy("127.0.0.1", 8080), files, {})


def test_clients_of_the_gateway_have_no_way_out_but_the_proxy() -> None:
    spec = one("clients", "NetworkPolicy", "only-coatcheck")["spec"]

    assert spec["policyTypes"] == ["Ingress", "Egress"]
    assert spec["ingress"] == []
    assert len(spec["egress"]) == 1


# --- its commands ------------------------------------------------------------------------------


def variables(container: Object) -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in container["env"] if "value" in entry}


def run(container: Object, root: Path) -> subprocess.CompletedProcess[str]:
    """The container's command, its volumes being folders below *root*."""
    places = [mount["mountPath"] for mount in container["volumeMounts"]]

    def below(text: str) -> str:
        return str(root) + text if any(text.startswith(place) for place in places) else text

    return subprocess.run(
        [sys.executable, "-m", "coatcheck", *map(below, container["args"])],
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(root),
            **{name: below(value) for name, value in variables(container).items()},
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def mount_secret(root: Path, volume: dict[str, Any], place: str, home: Home) -> None:
    """As the kubelet does: files behind two links."""
    content = {"sealing.key": home.private_key, "sealing.pub": home.public_key}
    content["mitmproxy-ca.pem"] = home.ca_key
    folder = root / place.lstrip("/")
    (folder / "..1").mkdir(parents=True)
    (folder / "..data").symlink_to("..1")
    for item in volume["secret"]["items"]:
        file = folder / "..1" / item["path"]
        file.write_bytes(content[item["key"]].read_bytes())
        file.chmod(volume["secret"]["defaultMode"])
        (folder / item["path"]).symlink_to(f"..data/{item['path']}")


@pytest.mark.slow
@pytest.mark.parametrize("found", PODS)
def test_the_init_containers_make_a_home_and_what_the_job_trusts(
    found: Object, tmp_path: Path
) -> None:
    first = create_home(tmp_path / "first", now=1_780_000_000.0).home
    root = tmp_path / "pod"
    (root / "state").mkdir(parents=True)
    (root / "trust").mkdir()
    volumes = {volume["name"]: volume for volume in pod(found)["volumes"]}
    for container in containers(found):
        for mount in container.get("volumeMounts", ()):
            place = mount["mountPath"]
            if "secret" in volumes[mount["name"]] and not (root / place.lstrip("/")).exists():
                mount_secret(root, volumes[mount["name"]], place, first)

    steps = [c for c in pod(found)["initContainers"] if "restartPolicy" not in c]
    ran = [(c["name"], run(c, root)) for c in (*steps, *steps)]  # a pod may run them again

    assert [(name, done.stderr) for name, done in ran if done.returncode] == []
    home = Home(root / "state" / "home")
    home.check()
    assert home.ca_key.read_bytes() == first.ca_key.read_bytes()
    assert not home.private_key.exists()
    if "trust" in dict(ran):
        trusted = sorted(path.name for path in (root / "trust").iterdir())
        assert trusted == ["bundle.p12", "bundle.pem", "ca.pem", "coatcheck.ini", "wgetrc"]
        written = [path.read_bytes() for path in (root / "trust").iterdir()]
        assert not any(b"PRIVATE KEY" in content for content in written)
        assert all(stat.S_IMODE(p.stat().st_mode) == 0o644 for p in (root / "trust").iterdir())
