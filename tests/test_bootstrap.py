"""`scripts/bootstrap.py`: which Python it takes, and what it says when there is none.

The fake interpreters are shell scripts that answer as a Python of some version would, or fail as
the things do that stand on a real PATH. `make test` itself is the test of the rest.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "bootstrap.py"


@pytest.fixture
def bootstrap(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The script as a module, in an empty checkout of its own (with a blank in its name)."""
    spec = importlib.util.spec_from_file_location("bootstrap", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "bootstrap", module)
    spec.loader.exec_module(module)
    root = tmp_path / "a checkout"
    for name in module.STATE_FILES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("#")
    monkeypatch.setattr(module, "ROOT", root)
    return module


def python(path: Path, version: str, missing: tuple[str, ...] = ()) -> Path:
    """A program that answers the probe as Python *version* without the modules *missing*."""
    answer = json.dumps([[int(part) for part in version.split(".")], str(path), missing])
    return script(path, f"echo '{answer}'")


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def shim(path: Path) -> Path:
    """What pyenv leaves on PATH for a version that is installed and not switched on."""
    return script(path, f"echo 'pyenv: {path.name}: command not found' >&2; exit 127")


type Machine = Callable[[Path], object]

FOUND: dict[str, tuple[Machine, str]] = {
    "the newest of the two on PATH": (
        lambda m: [python(m / "bin/python3.12", "3.12.9"), python(m / "bin/python3.13", "3.13.1")],
        "bin/python3.13",
    ),
    "plain python3 when it is new enough": (
        lambda m: python(m / "bin/python3", "3.12.3"),
        "bin/python3",
    ),
    "pyenv's, when PATH has an old one": (
        lambda m: [
            python(m / "bin/python3", "3.11.2"),
            python(m / ".pyenv/versions/3.12.1/bin/python3", "3.12.1"),
        ],
        ".pyenv/versions/3.12.1/bin/python3",
    ),
    "what is behind a shim that fails": (
        lambda m: [
            shim(m / "bin/python3.13"),
            python(m / ".pyenv/versions/3.13.0/bin/python3", "3.13.0"),
        ],
        ".pyenv/versions/3.13.0/bin/python3",
    ),
    "uv's": (
        lambda m: python(m / ".local/share/uv/python/cpython-3.13.2-linux/bin/python3", "3.13.2"),
        ".local/share/uv/python/cpython-3.13.2-linux/bin/python3",
    ),
    "3.12 rather than 3.14, which has no pins": (
        lambda m: [python(m / "bin/python3", "3.14.0"), python(m / "b/python3.12", "3.12.0")],
        "b/python3.12",
    ),
    "3.14 when it is all there is": (lambda m: python(m / "bin/python3", "3.14.0"), "bin/python3"),
    "one that is whole, rather than a newer one without venv": (
        lambda m: [
            python(m / "bin/python3.13", "3.13.5", ("ensurepip",)),
            python(m / "bin/python3.12", "3.12.1"),
        ],
        "bin/python3.12",
    ),
    "past one that talks nonsense": (
        lambda m: [script(m / "bin/python3.13", "echo hi"), python(m / "b/python3", "3.12.0")],
        "b/python3",
    ),
    "in a folder with a blank": (
        lambda m: python(m / "with blank/python3.13", "3.13.0"),
        "with blank/python3.13",
    ),
}


def environ(machine: Path) -> Mapping[str, str]:
    folders = (machine / "bin", machine / "b", machine / "with blank", machine / "none")
    return {"PATH": ":".join(map(str, folders)), "HOME": str(machine)}


@pytest.mark.parametrize("rule", FOUND)
def test_it_takes(rule: str, bootstrap: ModuleType, tmp_path: Path) -> None:
    build, expected = FOUND[rule]
    build(tmp_path)

    assert bootstrap.choose(None, environ(tmp_path)).path == tmp_path / expected


NOT_FOUND: dict[str, tuple[Machine, tuple[str, ...]]] = {
    "nothing at all": (lambda m: None, ("no Python 3.12", "pyenv install", "uv python install")),
    "only an old one": (lambda m: python(m / "bin/python3", "3.11.2"), ("is 3.11.2",)),
    "only a broken shim": (lambda m: shim(m / "bin/python3.12"), ("does not run", "pyenv:")),
    "no ensurepip": (
        lambda m: python(m / "bin/python3", "3.12.3", ("ensurepip",)),
        ("lacks the modules ensurepip", "apt install python3.12-venv"),
    ),
    "no sqlite3": (lambda m: python(m / "bin/python3", "3.13.0", ("sqlite3",)), ("sqlite3",)),
}


@pytest.mark.parametrize("case", NOT_FOUND)
def test_it_says_what_it_tried_and_what_to_do(
    case: str, bootstrap: ModuleType, tmp_path: Path
) -> None:
    build, says = NOT_FOUND[case]
    build(tmp_path)

    with pytest.raises(bootstrap.BootstrapError) as caught:
        bootstrap.choose(None, environ(tmp_path))

    for text in says:
        assert text in str(caught.value)


def test_a_python_that_is_asked_for_is_the_only_one_tried(
    bootstrap: ModuleType, tmp_path: Path
) -> None:
    python(tmp_path / "bin/python3", "3.13.0")
    old = python(tmp_path / "old", "3.11.0")

    with pytest.raises(bootstrap.BootstrapError, match=r"is 3\.11\.0"):
        bootstrap.choose(str(old), environ(tmp_path))


def test_the_venv_that_is_being_made_is_no_candidate(bootstrap: ModuleType, tmp_path: Path) -> None:
    own = python(bootstrap.ROOT / ".venv/bin/python3", "3.13.0")
    path = {"PATH": str(own.parent), "HOME": str(tmp_path)}

    with pytest.raises(bootstrap.BootstrapError):
        bootstrap.choose(None, path)


def test_this_very_python_passes_the_probe(bootstrap: ModuleType) -> None:
    found = bootstrap.probe(Path(sys.executable))

    assert found.version == sys.version_info[:3]
    assert found.missing == ()


# --- the state of .venv ---------------------------------------------------------------------------


@pytest.fixture
def pip_runs(bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Path]:
    """Each run of pip, which does nothing; the machine has one Python."""
    runs: list[Path] = []
    monkeypatch.setattr(bootstrap, "_pip_install", runs.append)
    monkeypatch.setattr(bootstrap, "_make_venv", _fake_venv)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("HOME", str(tmp_path))
    python(tmp_path / "bin/python3", "3.13.0")
    return runs


def _fake_venv(_: object, venv: Path) -> None:
    python(venv / "bin/python", "3.13.0")


def test_a_second_run_does_nothing(bootstrap: ModuleType, pip_runs: list[Path]) -> None:
    bootstrap.bootstrap()
    bootstrap.bootstrap()

    assert len(pip_runs) == 1


@pytest.mark.parametrize("name", ["constraints.txt", "pyproject.toml"])
def test_new_pins_are_installed(name: str, bootstrap: ModuleType, pip_runs: list[Path]) -> None:
    bootstrap.bootstrap()
    (bootstrap.ROOT / name).write_text("changed")
    bootstrap.bootstrap()

    assert len(pip_runs) == 2


@pytest.mark.parametrize("step", ["_make_venv", "_pip_install"])
def test_a_run_that_was_cut_off_is_taken_up_again(
    step: str, bootstrap: ModuleType, pip_runs: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut_off(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(bootstrap, step, cut_off)
        assert bootstrap.main([]) == 130
    bootstrap.bootstrap()
    bootstrap.bootstrap()

    assert len(pip_runs) == 1


def test_a_venv_whose_python_is_gone_is_made_anew(
    bootstrap: ModuleType, pip_runs: list[Path]
) -> None:
    bootstrap.bootstrap()
    (bootstrap.ROOT / ".venv/bin/python").unlink()
    bootstrap.bootstrap()

    assert len(pip_runs) == 2


def test_asking_for_another_python_makes_the_venv_anew(
    bootstrap: ModuleType, pip_runs: list[Path], tmp_path: Path
) -> None:
    other = str(python(tmp_path / "other", "3.12.0"))

    for wanted in (None, other, other, None):
        bootstrap.bootstrap(wanted)

    assert len(pip_runs) == 2


def test_somebody_elses_venv_is_left_alone(
    bootstrap: ModuleType, pip_runs: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = bootstrap.ROOT / ".venv" / "theirs"
    theirs.parent.mkdir()
    theirs.write_text("precious")

    assert bootstrap.main([]) == 1

    assert "was not made by this script" in capsys.readouterr().err
    assert theirs.read_text() == "precious"
    assert pip_runs == []


# --- when pip fails -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("output", "says"),
    [
        pytest.param(
            "WARNING: Retrying: Failed to establish a new connection: [Errno 101]",
            "index cannot be reached",
            id="no network",
        ),
        pytest.param("OSError: [Errno 28] No space left on device", "disk is full", id="disk full"),
        pytest.param("ERROR: no matching distribution", "bootstrap.log", id="anything else"),
    ],
)
def test_pip_fails_with_its_last_lines_and_a_next_step(
    output: str, says: str, bootstrap: ModuleType, tmp_path: Path
) -> None:
    fake = script(tmp_path / "pip", f"echo first; echo '{output}'; exit 1")

    with pytest.raises(bootstrap.BootstrapError) as caught:
        bootstrap._follow([str(fake)], tmp_path)

    assert output in str(caught.value)
    assert says in str(caught.value)
    assert (tmp_path / "bootstrap.log").read_text() == f"first\n{output}\n"


def test_the_script_runs_on_python_3_9() -> None:
    """It is what finds a newer one, so it must not need it; ruff checks the syntax (py39)."""
    source = SCRIPT.read_text()

    assert "from __future__ import annotations" in source
    done = subprocess.run(
        [sys.executable, "-c", f"import ast; ast.parse({source!r}, feature_version=(3, 9))"],
        check=False,
    )
    assert done.returncode == 0
