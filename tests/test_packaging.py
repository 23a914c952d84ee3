"""What users install: the wheel, its dependencies, the pins, the image."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from importlib import metadata
from importlib.util import find_spec
from itertools import chain
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from coatcheck import policyfile

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINS = dict(
    line.split("==")
    for line in (ROOT / "constraints.txt").read_text().splitlines()
    if not line.startswith("#")
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("with blank") / "dist"
    run("-m", "pip", "wheel", "-q", "--no-build-isolation", "--no-deps", "-w", folder, ROOT)
    (built,) = folder.glob("*.whl")
    return built


def run(*arguments: str | Path) -> str:
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_every_file_of_the_package_is_in_the_wheel(wheel: Path) -> None:
    """Migrations, templates and schemas too: a program that lacks one starts, and fails later."""
    source = ROOT / "src"
    files = {
        str(path.relative_to(source))
        for path in (source / "coatcheck").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".c"
    }

    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}

    assert packed == files


HAS_COMPILER = shutil.which("cc") and Path(sysconfig.get_path("include"), "Python.h").exists()


@pytest.mark.slow
@pytest.mark.skipif(not HAS_COMPILER, reason="no C compiler, or no Python.h")
def test_where_there_is_a_compiler_the_wheel_has_the_compiled_part(wheel: Path) -> None:
    assert "-cp312-abi3-" in wheel.name
    assert "coatcheck/core/_words.abi3.so" in zipfile.ZipFile(wheel).namelist()
    assert find_spec("coatcheck.core._words") is not None  # in these tests too


@pytest.mark.slow
@pytest.mark.parametrize(
    "environment",
    [
        pytest.param({"COATCHECK_NO_COMPILER": "1"}, id="it is not wanted"),
        pytest.param({"CC": "/nowhere/cc"}, id="there is no compiler"),
        pytest.param({"CC": "false"}, id="the compiler fails"),
    ],
)
def test_without_a_compiler_the_wheel_is_one_for_all(
    environment: dict[str, str], tmp_path: Path
) -> None:
    checkout = tmp_path / "checkout"
    skipped = shutil.ignore_patterns(".*", "*.so", "build", "tests", "docs", "__pycache__")
    shutil.copytree(ROOT, checkout, ignore=skipped)

    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        check=True,
        capture_output=True,
        cwd=checkout,
        env=os.environ | environment,
    )

    (built,) = tmp_path.glob("*.whl")
    assert built.name.endswith("-py3-none-any.whl")
    assert not [name for name in zipfile.ZipFile(built).namelist() if name.endswith(".so")]


@pytest.mark.slow
def test_the_wheel_works_in_a_venv_of_its_own(wheel: Path, tmp_path: Path) -> None:
    """Dependencies are lent by the environment of the tests, so nothing is downloaded."""
    venv = tmp_path / "a venv"
    run("-m", "venv", "--without-pip", venv)
    python = venv / "bin" / "python"
    run("-m", "pip", "--python", python, "install", "-q", "--no-deps", "--no-index", wheel)
    (library,) = venv.glob("lib/python*/site-packages")
    (library / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")

    def coatcheck(*arguments: str) -> str:
        return subprocess.run(
            [venv / "bin" / "coatcheck", *arguments],
            capture_output=True,
            text=True,
            check=True,
            cwd=tmp_path,
            env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
        ).stdout

    assert "coatcheck:" in coatcheck("version")
    assert coatcheck("init")  # it needs the migrations
    assert "BEGIN CERTIFICATE" in coatcheck("ca", "export")
    seen = subprocess.run(
        [python, "-c", "import coatcheck; print(coatcheck.__file__)"],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    assert seen.stdout.startswith(str(venv))


@pytest.mark.slow
def test_the_sdist_makes_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", tmp_path],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    (packed,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(packed) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
        names = {name.partition("/")[2] for name in archive.getnames()}
    (source,) = (tmp_path / "unpacked").iterdir()
    run("-m", "pip", "wheel", "-q", "--no-build-isolation", "--no-deps", "-w", tmp_path, source)
    (again,) = tmp_path.glob("*.whl")

    def content(path: Path) -> dict[str, bytes]:
        """The compiled part is made anew each time; RECORD has its hash."""
        anew = ("_words.abi3.so", "RECORD")
        with zipfile.ZipFile(path) as opened:
            return {
                name: b"" if name.endswith(anew) else opened.read(name)
                for name in opened.namelist()
            }

    assert content(again) == content(wheel)
    assert {"README.md", "pyproject.toml", "src/coatcheck/py.typed"} <= names
    assert not [name for name in names if name.startswith((".venv", ".git/", ".ci", "bench"))]


# The adapters that are imported where somebody has declared a source of their kind.
BY_EXTRA = {
    "store/sources/vault.py": "vault",
    "store/sources/aws.py": "aws",
    "store/sources/gcp.py": "gcp",
    "store/sources/azure.py": "azure",
    "store/sources/rest.py": "gcp",  # of azure too
    "observe/traces.py": "otel",
}


def test_whatever_is_imported_is_a_declared_dependency() -> None:
    """A package that only comes along with another one may be gone with its next version."""
    always = {canonicalize_name(Requirement(line).name) for line in PROJECT["dependencies"]}
    owners = metadata.packages_distributions()
    owners["pydantic_core"] = ["pydantic"]  # which asks for one exact version of it
    extras = {path: PROJECT["optional-dependencies"][extra] for path, extra in BY_EXTRA.items()}
    undeclared = {}
    for path in (ROOT / "src").rglob("*.py"):
        own = extras.get(path.relative_to(ROOT / "src" / "coatcheck").as_posix(), [])
        declared = always | {canonicalize_name(Requirement(line).name) for line in own}
        for name in imported(path) - set(sys.stdlib_module_names) - {"coatcheck"}:
            if not {canonicalize_name(owner) for owner in owners.get(name, [])} & declared:
                undeclared[name] = path.name

    assert undeclared == {}


def imported(path: Path) -> set[str]:
    """The top-level modules that a file imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return names


@pytest.mark.parametrize(
    "line", [*PROJECT["dependencies"], *chain(*PROJECT["optional-dependencies"].values())]
)
def test_every_dependency_is_pinned_within_its_bounds(line: str) -> None:
    requirement = Requirement(line)

    assert requirement.specifier.contains(PINS[canonicalize_name(requirement.name)])


def test_what_is_pinned_is_what_the_tests_run_with() -> None:
    """`make test` sees to it; where somebody set up by hand, the tests would prove little."""
    if Path(sys.prefix).resolve() != ROOT / ".venv":
        pytest.skip("not in the .venv that scripts/bootstrap.py makes")
    differing = {
        name: (version, found)
        for name, version in PINS.items()
        if (found := _version(name)) not in (version, None)
    }

    assert differing == {}


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


# --- the image and compose -----------------------------------------------------------------------


def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    hadolint = Path(sys.executable).parent / "hadolint"

    done = subprocess.run(
        [hadolint, "--failure-threshold", "style", ROOT / "Dockerfile"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stdout) == (0, "")


def test_the_image_runs_as_a_number_that_is_not_root() -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()

    users = [line.split()[1] for line in lines if line.startswith("USER ")]
    assert users[-1] == "10001:10001"


def test_the_build_sees_the_source_alone() -> None:
    """A home, a .env or a .git that lies in the checkout never reaches a layer."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]

    assert rules[0] == "*"
    assert {rule for rule in rules if rule.startswith("!")} == {
        "!pyproject.toml",
        "!constraints.txt",
        "!hatch_build.py",
        "!scripts/sbom.py",
        "!src",
    }


def test_the_runners_only_way_out_is_coatcheck() -> None:
    compose = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())
    services, networks = compose["services"], compose["networks"]

    assert services["runner"]["networks"] == ["inside"]
    assert networks["inside"]["internal"] is True
    assert services["coatcheck"]["networks"] == ["inside", "outside"]
    assert services["runner"]["volumes"] == ["trust:/trust:ro"]  # not the home


def test_the_policy_of_compose_knows_the_runner_by_its_network() -> None:
    compose = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())
    policy = policyfile.read(ROOT / "deploy" / "policy.yaml")

    (client,) = policy.clients
    (subnet,) = compose["networks"]["inside"]["ipam"]["config"]
    assert [str(network) for network in client.networks] == [subnet["subnet"]]
