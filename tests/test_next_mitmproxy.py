"""`scripts/next_mitmproxy.py`: what it installs, when, and what it says where it cannot.

pip is a fake here; `make next` runs the real one. That the tests then see the next version is
`tests/engine/test_contract.py::test_it_is_the_version_that_was_meant`.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The script as a module, in an empty checkout of its own (with a blank in its name)."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    for name in ("next_mitmproxy", "bootstrap"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import next_mitmproxy  # type: ignore[import-not-found]

    root = tmp_path / "a checkout"
    (root / ".venv").mkdir(parents=True)
    monkeypatch.setattr(next_mitmproxy, "ROOT", root)
    module: ModuleType = next_mitmproxy
    return module


class Machine:
    """Runs nothing, and keeps what would have been run. pip leaves a mitmproxy behind."""

    def __init__(self, *, pip: int = 0, says: str = "", pytest: int = 0) -> None:
        self.codes = {"pip": pip, "pytest": pytest}
        self.says = says
        self.commands: list[tuple[list[str], dict[str, Any]]] = []

    def run(self, command: list[str], **options: Any) -> SimpleNamespace:
        self.commands.append((command, options))
        if command[2] == "pip":
            target = Path(command[command.index("--target") + 1])
            info = target / "mitmproxy-12.3.1.dist-info"
            info.mkdir(parents=True)
            (info / "METADATA").write_text(
                "Metadata-Version: 2.1\nName: mitmproxy\nVersion: 12.3.1\n"
                "Requires-Dist: certifi>=9999\nRequires-Dist: h2\n"
                "Requires-Dist: pydivert; sys_platform == 'win32'\nRequires-Dist: no-such-thing\n"
            )
        return SimpleNamespace(returncode=self.codes[command[2]], stderr=self.says)

    def of(self, program: str) -> list[tuple[list[str], dict[str, Any]]]:
        return [(command, options) for command, options in self.commands if command[2] == program]


type On = Callable[[Machine], Machine]


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch) -> On:
    def use(machine: Machine) -> Machine:
        monkeypatch.setattr(subprocess, "run", machine.run)
        return machine

    return use


def test_it_stands_in_front_of_the_path_of_one_pytest(script: ModuleType, on: On) -> None:
    machine = on(Machine())

    assert script.main() == 0

    ((command, options),) = machine.of("pytest")
    assert command[0] == sys.executable
    assert options["env"]["PYTHONPATH"] == str(script.ROOT / ".venv/next")
    assert options["env"]["COATCHECK_TEST_MITMPROXY"] == script.VERSION
    assert [name for name in script.TESTS if not (ROOT / name).is_file()] == []
    assert command[-len(script.TESTS) :] == list(script.TESTS)


def test_pip_touches_nothing_but_its_folder(script: ModuleType, on: On) -> None:
    machine = on(Machine())
    script.main()

    ((command, _),) = machine.of("pip")

    assert "--no-deps" in command
    assert Path(command[command.index("--target") + 1]).is_relative_to(script.ROOT / ".venv")
    assert sorted(path.name for path in (script.ROOT / ".venv").iterdir()) == ["next"]


def test_a_second_run_installs_nothing(script: ModuleType, on: On) -> None:
    machine = on(Machine())

    assert [script.main(), script.main()] == [0, 0]

    assert len(machine.of("pip")) == 1
    assert len(machine.of("pytest")) == 2


def test_another_version_is_installed_anew(
    script: ModuleType, on: On, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = on(Machine())
    script.main()
    monkeypatch.setattr(script, "VERSION", "12.3.2")
    script.main()

    assert [command[-2] for command, _ in machine.of("pip")] == [
        "mitmproxy==12.3.1",
        "mitmproxy==12.3.2",
    ]


def test_what_it_asks_for_and_does_not_get_is_printed(
    script: ModuleType, on: On, capsys: pytest.CaptureFixture[str]
) -> None:
    on(Machine())
    script.main()

    said = capsys.readouterr().out.splitlines()

    assert len(said) == 2, said
    assert "certifi>=9999 (here: 20" in said[0]
    assert "no-such-thing (here: none)" in said[1]


def test_a_test_that_fails_there_fails_the_run(
    script: ModuleType, on: On, capsys: pytest.CaptureFixture[str]
) -> None:
    on(Machine(pytest=1))

    assert script.main() == 1
    assert "does not pass" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("says", "why"),
    [
        pytest.param(
            "WARNING: Retrying: Failed to establish a new connection\nERROR: No matching",
            "the package index cannot be reached",
            id="no network",
        ),
        pytest.param(
            "ERROR: first\nERROR: No matching distribution found for mitmproxy==12.3.1",
            "No matching distribution found for mitmproxy==12.3.1",
            id="no wheel",
        ),
        pytest.param("", "pip failed", id="pip says nothing"),
    ],
)
def test_where_it_cannot_be_had_that_is_the_last_line_and_no_failure(
    says: str, why: str, script: ModuleType, on: On, capsys: pytest.CaptureFixture[str]
) -> None:
    machine = on(Machine(pip=1, says=says))

    assert script.main() == 0

    assert capsys.readouterr().out == (
        f"next: SKIPPED: the engine was not tested on mitmproxy 12.3.1: {why}\n"
    )
    assert machine.of("pytest") == []
    assert list((script.ROOT / ".venv").iterdir()) == [], "the next run tries again"


def test_a_pip_that_hangs_is_given_up(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def hang(command: list[str], *, timeout: float, **_: object) -> None:
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(subprocess, "run", hang)

    assert script.main() == 0
    assert "not done within" in capsys.readouterr().out


def test_a_venv_of_somebody_else_is_no_failure_either(
    script: ModuleType, on: On, capsys: pytest.CaptureFixture[str]
) -> None:
    on(Machine())
    (script.ROOT / ".venv").rmdir()
    (script.ROOT / ".venv").touch()  # nothing can be made in it, not even by root

    assert script.main() == 0
    assert "cannot be written" in capsys.readouterr().out
