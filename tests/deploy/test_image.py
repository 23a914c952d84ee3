"""The Dockerfile's own steps, carried out: what they make starts, serves, and says that it is well.

`tests/deploy/dockerfile.py` says how, and what is left out. Packages come from the environment of
the tests (`tests/deploy/wheels.py`), at the versions that constraints.txt pins.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

import pytest

from tests.deploy import wheels
from tests.deploy.dockerfile import Builder, Stage, Unknown, context, read
from tests.test_packaging import HAS_COMPILER

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "Dockerfile").read_text()
MOST_BYTES = 200_000_000  # of site-packages
# Root without any right of root: what only root can do fails. Its files may lie where nobody else
# gets to, Python's too.
NO_RIGHTS = ["setpriv", "--inh-caps=-all", "--bounding-set=-all", "--no-new-privs"]
PREFIX = NO_RIGHTS if os.geteuid() == 0 else []

# All that the test does not carry out, word for word: these are read by people alone.
LEFT_OUT = {
    "build": [
        "apt-get update",
        "apt-get install -y --no-install-recommends binutils gcc libc6-dev",
        "rm -rf /var/lib/apt/lists/*",
    ],
    "image": [
        "groupadd --system --gid 10001 coatcheck",
        "useradd --system --uid 10001 --gid 10001 --home-dir /var/lib/coatcheck"
        " --no-create-home --shell /usr/sbin/nologin coatcheck",
    ],
}

pytestmark = pytest.mark.timeout(600)


class Image:
    """What was built, and how to run it."""

    def __init__(self, builder: Builder, stage: Stage) -> None:
        self.builder = builder
        self.stage = stage

    @property
    def packages(self) -> Path:
        (found,) = self.builder.path(self.stage, "/opt/coatcheck").glob(
            "lib/python3*/site-packages"
        )
        return found

    @property
    def home(self) -> Path:
        return self.builder.path(self.stage, "/var/lib/coatcheck")

    def environ(self) -> dict[str, str]:
        # Port 8080 of this machine may be somebody else's.
        own = {"COATCHECK_LISTEN": "127.0.0.1:0", "COATCHECK_ADMIN": "127.0.0.1:0"}
        return {**self.builder.environ(self.stage), **own}

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*PREFIX, *command],
            cwd=self.home,
            env=self.environ(),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def start(self, wrapped: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
        """What the image does when it is started, behind the command *wrapped*."""
        command = self.builder.command(self.stage, "ENTRYPOINT", "CMD")
        with log.open("wb") as out:
            return subprocess.Popen(
                [*wrapped, *PREFIX, *command],
                cwd=self.home,
                env=self.environ(),
                stdout=out,
                stderr=out,
            )


@contextmanager
def ready(serving: subprocess.Popen[bytes], log: Path) -> Iterator[None]:
    """While the program takes requests; at the end it is stopped as the image says (STOPSIGNAL)."""
    try:
        until = time.monotonic() + 60
        while b"serve.ready" not in log.read_bytes():
            assert serving.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.05)
        yield
    finally:
        serving.terminate()
        serving.wait(30)


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    if PREFIX and shutil.which(PREFIX[0]) is None:
        pytest.skip(f"root gives its rights up with {PREFIX[0]} (package util-linux)")
    # A quarter of a gigabyte in thousands of files: in memory where there is room for it.
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and shutil.disk_usage(memory).free > 2_000_000_000
    folder = Path(tempfile.mkdtemp(dir=memory if roomy else None, prefix="coatcheck-image-"))
    for name in ("files", "trees", "wheels", "bin"):
        (folder / name).mkdir()
    python = Path(sys.base_prefix, "bin", f"python{sys.version_info[0]}.{sys.version_info[1]}")
    (folder / "bin" / "python").symlink_to(python)
    for name in wheels.closure(["coatcheck[vault]", "hatchling"]) - {"coatcheck"}:
        wheels.pack(name, folder / "wheels")
    context(ROOT, folder / "files")
    environ = {
        "PATH": f"{folder / 'bin'}:/usr/bin:/bin",
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(folder / "wheels"),
        "LANG": "C.UTF-8",
    }
    builder = Builder(folder / "files", folder / "trees", environ, PREFIX)
    try:
        yield Image(builder, builder.build(TEXT))
    finally:
        shutil.rmtree(folder)


@pytest.mark.slow
def test_what_is_not_carried_out_is_known(image: Image) -> None:
    assert {n: stage.left_out for n, stage in image.builder.stages.items()} == LEFT_OUT


@pytest.mark.slow
def test_the_image_makes_a_home_serves_and_is_healthy(image: Image, tmp_path: Path) -> None:
    made = image.run(*image.builder.command(image.stage, "ENTRYPOINT"), "init")
    before = image.run(*image.builder.command(image.stage, "HEALTHCHECK"))
    serving = image.start([], tmp_path / "log")
    with ready(serving, tmp_path / "log"):
        while_it_runs = image.run(*image.builder.command(image.stage, "HEALTHCHECK"))

    assert made.returncode == 0, made.stderr
    assert before.returncode == 1
    assert while_it_runs.returncode == 0, while_it_runs.stdout + while_it_runs.stderr
    assert serving.returncode == 0


@pytest.mark.slow
def test_nothing_but_the_volume_has_to_be_writable(image: Image, tmp_path: Path) -> None:
    """Not /tmp either. A home was made there by the test before."""
    home = shlex.quote(str(image.home))
    read_only = f"mount --bind {home} {home} && mount -o remount,bind,ro /"
    read_only += " && for m in /dev/shm /tmp; do"
    read_only += " ! mountpoint -q $m || mount -o remount,bind,ro $m; done"
    probe = ["unshare", "--mount", "sh", "-c", f"{read_only} && ! touch /tmp/x 2>/dev/null"]
    if os.geteuid() or subprocess.run(probe, check=False, stderr=subprocess.DEVNULL).returncode:
        pytest.skip("file systems are made read-only by root, in a mount namespace")
    wrapped = ["unshare", "--mount", "sh", "-c", f'{read_only} && exec "$@"', "-"]
    if not (image.home / "sealing.key").exists():
        image.run(*image.builder.command(image.stage, "ENTRYPOINT"), "init")

    serving = image.start(wrapped, tmp_path / "log")
    with ready(serving, tmp_path / "log"):
        healthy = image.run(*image.builder.command(image.stage, "HEALTHCHECK"))

    assert healthy.returncode == 0, healthy.stderr
    assert serving.returncode == 0
    assert b"not_written" not in (tmp_path / "log").read_bytes()


@pytest.mark.slow
def test_the_site_packages_are_under_their_bound(image: Image) -> None:
    size = sum(path.lstat().st_size for path in image.packages.rglob("*"))

    assert 50_000_000 < size < MOST_BYTES


@pytest.mark.slow
def test_every_library_still_loads_without_its_debug_symbols(image: Image) -> None:
    """Those of numpy too, which were changed after they were linked; and it still computes."""
    compiled = sorted(str(path) for path in image.packages.rglob("*.so"))
    program = (
        "import ctypes, sys, numpy\n"
        "for name in sys.argv[1:]: ctypes.CDLL(name)\n"
        "print((numpy.ones((64, 64)) @ numpy.ones((64, 64))).sum())"
    )

    done = image.run("python", "-c", program, *compiled)

    assert len(compiled) > 50
    assert (done.returncode, done.stdout) == (0, "262144.0\n"), done.stderr


@pytest.mark.slow
@pytest.mark.skipif(not HAS_COMPILER, reason="no C compiler, or no Python.h")
def test_the_compiled_part_is_in_the_image_and_its_source_is_not(image: Image) -> None:
    """The file installs a compiler; here it is that of the machine."""
    own = {path.name for path in (image.packages / "coatcheck" / "core").iterdir()}

    assert "_words.abi3.so" in own
    assert "_words.c" not in own


@pytest.mark.slow
def test_the_image_holds_no_pip_and_no_checkout(image: Image) -> None:
    assert not (image.packages / "pip").exists()
    assert not list(image.builder.stages["image"].root.glob("build"))
    assert (image.packages / "coatcheck" / "__init__.py").exists()


@pytest.mark.slow
def test_the_bill_of_materials_names_all_that_is_installed_at_its_pin(image: Image) -> None:
    bom = json.loads((image.packages.parents[2] / "sbom.cdx.json").read_text())
    pins = dict(
        line.split("==")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if not line.startswith("#")
    )
    installed = {
        re.sub(r"[-_.]+", "-", found.metadata["Name"]).lower()
        for found in metadata.distributions(path=[str(image.packages)])
    }

    listed = {part["name"]: part["version"] for part in bom["components"]}
    assert (bom["bomFormat"], bom["specVersion"]) == ("CycloneDX", "1.5")
    assert bom["metadata"]["component"]["name"] == "coatcheck"
    assert set(listed) | {"coatcheck"} == installed
    assert {name: pins[name] for name in listed} == listed
    assert all(part["purl"].startswith("pkg:pypi/") for part in bom["components"])


def test_no_start_of_the_image_needs_a_shell() -> None:
    forms = {step.word: step.rest for step in read(TEXT)}

    assert forms["ENTRYPOINT"] == '["coatcheck"]'
    assert forms["CMD"] == '["serve"]'
    assert 'CMD ["coatcheck", "status"]' in forms["HEALTHCHECK"]


def test_the_image_says_what_it_is() -> None:
    labels = next(step.rest for step in read(TEXT) if step.word == "LABEL")

    for name in ("title", "description", "version", "revision"):
        assert f"org.opencontainers.image.{name}=" in labels


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("FROM python:3.13-slim-bookworm\nONBUILD RUN x", "ONBUILD", id="instruction"),
        pytest.param("FROM scratch", "the base", id="another base"),
        pytest.param("RUN true\nFROM python:3.13-slim-bookworm", "before FROM", id="order"),
        pytest.param(
            "FROM python:3.13-slim-bookworm\nCOPY --chown=1 a b", "COPY", id="an option of COPY"
        ),
        pytest.param("ARG X=1", "no FROM", id="no stage"),
    ],
)
def test_what_the_reader_does_not_know_is_an_error(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(Unknown, match=message):
        Builder(tmp_path, tmp_path, {}).build(text)


def test_a_step_that_fails_is_told(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="RUN false"):
        Builder(tmp_path, tmp_path, {"PATH": os.environ["PATH"]}).build(
            "FROM python:3.13-slim-bookworm\nRUN false"
        )


def test_the_context_is_what_dockerignore_lets_in(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "src" / "__pycache__").mkdir(parents=True)
    (source / "src" / "a.py").write_text("")
    (source / "src" / "__pycache__" / "a.pyc").write_text("")
    (source / "home").mkdir()
    (source / "home" / "sealing.key").write_text("")
    (source / ".dockerignore").write_text("*\n!src\n**/__pycache__\n")

    context(source, tmp_path / "target")

    found = [
        str(path.relative_to(tmp_path / "target")) for path in (tmp_path / "target").rglob("*")
    ]
    assert sorted(found) == ["src", "src/a.py"]
