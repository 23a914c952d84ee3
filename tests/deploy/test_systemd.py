"""deploy/systemd: no mistake for systemd, little exposed, and the program starts as it says."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from coatcheck import settings
from coatcheck.cli.main import COMMANDS
from coatcheck.store.home import Home
from tests.e2e import harness

UNIT = Path(__file__).resolve().parents[2] / "deploy" / "systemd" / "coatcheck.service"
MOST_EXPOSED = (
    20  # in tenths, of systemd-analyze security: 10.0 is a service as root with no limits
)


def lines(section: str) -> list[tuple[str, str]]:
    """The settings of a section; one may stand there several times."""
    text = UNIT.read_text().partition(f"[{section}]\n")[2].partition("\n[")[0]
    pairs = (line.partition("=") for line in text.splitlines() if line and line[0] != "#")
    return [(name, value) for name, _, value in pairs]


def value(name: str) -> str:
    (found,) = (text for key, text in lines("Service") if key == name)
    return found


def environment() -> dict[str, str]:
    pairs = (text.partition("=") for name, text in lines("Service") if name == "Environment")
    return {name: text for name, _, text in pairs}


@pytest.fixture
def checked(tmp_path: Path) -> Path:
    """The unit with a program that is there: systemd looks for it."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    program = value("ExecStart").split()[0]
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text().replace(program, shutil.which("true") or "/bin/true"))
    return copy


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", *arguments], capture_output=True, text=True, check=False, timeout=60
    )


def test_systemd_finds_no_mistake(checked: Path) -> None:
    done = analyze("verify", checked)

    assert (done.returncode, done.stderr) == (0, "")


def test_and_would_find_one(checked: Path) -> None:
    checked.write_text(checked.read_text().replace("DynamicUser=yes", "DynamicUsers=yes"))

    assert "DynamicUsers" in analyze("verify", checked).stderr


def test_little_is_exposed(checked: Path) -> None:
    done = analyze("security", "--offline=yes", f"--threshold={MOST_EXPOSED}", checked)

    assert done.returncode == 0, done.stdout[-2000:] + done.stderr


def test_the_unit_starts_and_reloads_as_the_program_wants_it(tmp_path: Path) -> None:
    _, command = value("ExecStart").split()
    read = settings.load(home=tmp_path, environ=environment())

    assert command in COMMANDS
    assert value("ExecReload") == "/bin/kill -HUP $MAINPID"
    assert str(read.policy) == "/etc/coatcheck/policy.yaml"
    assert settings.default_home(environment()) == Path("/var/lib/private") / value(
        "StateDirectory"
    )


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_the_sealing_key_is_handed_over_and_lies_in_no_home(tmp_path: Path, workers: int) -> None:
    """The credential has the name that the unit gives it; workers of a supervisor get it too."""
    home = harness.make_home(
        tmp_path / "home",
        {"crm.apiKey": (b"0123456789abcdef", ["api.example.com"])},
        "version: 1\n",
    )
    name, _, _ = value("LoadCredential").partition(":")
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    Home(home).private_key.rename(credentials / name)
    handed = {"CREDENTIALS_DIRECTORY": str(credentials)}

    without = serve(home, tmp_path, workers, {})
    handed_over = serve(home, tmp_path, workers, handed)

    assert "sealing.key" in without
    assert "serve.ready" not in without
    assert "serve.ready" in handed_over
    assert "store.unreadable" not in handed_over
    doctor = harness.program("doctor", "--home", home)
    keys = subprocess.run(doctor, capture_output=True, text=True, env=harness.environ(**handed))
    assert "every value opens" in keys.stdout, keys.stdout


def serve(home: Path, folder: Path, workers: int, variables: dict[str, str]) -> str:
    """What it logs until it is ready, or ends."""
    command = harness.program("serve", "--home", home, "--listen", "127.0.0.1:0")
    command += ["--admin", "127.0.0.1:0", "--workers", str(workers)]
    log = folder / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=out, env=harness.environ(HOME=str(folder), **variables)
        )
    try:
        harness.wait_until(
            lambda: b"serve.ready" in log.read_bytes() or process.poll() is not None, 60
        )
    finally:
        process.terminate()
        process.wait(20)
    return log.read_text()
