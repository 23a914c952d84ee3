"""`coatcheck demo`: what it shows, that its checks can fail, and that it leaves nothing behind."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from coatcheck.cli import demo_cases, demo_stage, demo_upstream
from coatcheck.cli.main import app
from coatcheck.observe.state import is_alive

CASES = [case.title for case in demo_cases.cases()]
START_S = 30.0
COMMAND = [sys.executable, "-m", "coatcheck", "demo"]
# A shell in which coatcheck is used for real, and in which nothing must be touched or read.
ENVIRONMENT = {
    "COATCHECK_HOME": "/nowhere",
    "COATCHECK_POLICY": "/nowhere/policy.yaml",
    "COATCHECK_LISTEN": "no address",
    "COATCHECK_LIMITS_HEAD_BYTES": "no number",
    "SSLKEYLOGFILE": "/nowhere/keys",
    "https_proxy": "http://192.0.2.1:9",
    "http_proxy": "http://192.0.2.1:9",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """HOME and TMPDIR of the demo; it must be empty afterwards."""
    return tmp_path_factory.mktemp("with space")


@pytest.fixture(scope="module")
def shown(place: Path) -> subprocess.CompletedProcess[str]:
    """One whole run."""
    return subprocess.run(
        COMMAND, capture_output=True, text=True, check=False, env=environment(place), timeout=60
    )


def environment(place: Path) -> dict[str, str]:
    return {**os.environ, **ENVIRONMENT, "HOME": str(place), "TMPDIR": str(place)}


def pid_of_proxy(text: str) -> int:
    found = re.search(r"started coatcheck serve: port \d+, process (\d+)", text)
    assert found is not None
    return int(found[1])


# --- a run ---------------------------------------------------------------------------------------


def test_it_ends_well(shown: subprocess.CompletedProcess[str]) -> None:
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert shown.stderr == ""
    assert re.search(r"^all \d+ checks held$", shown.stdout, re.M)
    assert "✗" not in shown.stdout


@pytest.mark.parametrize("title", CASES)
def test_each_case_says_what_was_sent_what_arrived_and_what_came_back(
    shown: subprocess.CompletedProcess[str], title: str
) -> None:
    part = re.split(r"\n(?=\d+\. )|\n(?=The audit log)", shown.stdout)
    (text,) = [p for p in part if re.match(rf"\d+\. {re.escape(title)}\n", p)]

    for words in ("$ curl ", "client sent ", "upstream got ", "client got ", "✓ "):
        assert words in text
    assert "bytes, the value)" in text or "nothing: no request arrived" in text


@pytest.mark.parametrize(
    "words",
    [
        "Authorization: Bearer sk_l…",
        "Basic, decoded: bot:Kq:",
        "GET /geocode?key=AIza…%3D",
        "GET /services/T0%2…%3F",
        '"client_secret": "Zx\\"…',
        "403 domain_not_allowed: ",
        '200 {"raw": "Bearer ********", "base64": "********"}',
        "X-Echo: Bearer ********",
        "403 secret_unavailable: ",
        "403 plaintext_not_allowed: ",
        "local refuse GET http://api.localhost",
        "maps.key at query:key",
        "crm.apiKey as base64 in the body",
        "none was found",
    ],
)
def test_the_main_job_is_seen(shown: subprocess.CompletedProcess[str], words: str) -> None:
    assert words in shown.stdout


def test_no_placeholder_is_told_as_a_value_and_no_value_is_whole(
    shown: subprocess.CompletedProcess[str],
) -> None:
    """All values hold a run of 20 or more hexadecimal digits; nothing else that is printed does."""
    assert re.findall(r"[0-9a-f]{16,}", shown.stdout) == []


def test_nothing_is_left_behind(shown: subprocess.CompletedProcess[str], place: Path) -> None:
    assert list(place.iterdir()) == []
    assert not is_alive(pid_of_proxy(shown.stdout))


# --- the checks can fail -------------------------------------------------------------------------

# What is run instead of `python -m coatcheck serve`: the proxy with a hole in it.
HOLE = """
import sys
{patch}
from coatcheck.cli.main import main
main()
"""
NO_SCRUBBING = """
from coatcheck.core import redact, snapshot
snapshot.Snapshot.needles = lambda *_: redact.Needles.build([])
"""
LEAKS_INTO_THE_LOG = """
from coatcheck import gateway
def note(self, values):
    for value in values.values():
        print(value.reveal().decode(), file=sys.stderr, flush=True)
gateway.Gateway.note_uses = note
"""
LEAKS_INTO_THE_HOME = """
import base64, os
from coatcheck import gateway
def note(self, values):
    path = os.path.join(sys.argv[sys.argv.index("--home") + 1], "run", "cache")
    with open(path, "ab") as file:
        for value in values.values():
            file.write(b"x" + base64.b64encode(b"-" + value.reveal()))
gateway.Gateway.note_uses = note
"""
LATE_AUDIT = """
from coatcheck.observe.auditlog import FileAuditLog
kept, write = [], FileAuditLog.write
def late(self, record):
    for old in kept:
        write(self, old)
    kept[:] = [record]
FileAuditLog.write = late
"""
BREAKS_DOWN = "sys.exit(3)"

type Plant = Callable[[pytest.MonkeyPatch], None]


def proxy(patch: str) -> Plant:
    """A proxy with *patch* in it."""

    def plant(monkeypatch: pytest.MonkeyPatch) -> None:
        real = demo_stage.serve_command

        def command(home: Path, upstream_ca: Path) -> list[str]:
            _, _, _, *arguments = real(home, upstream_ca)
            return [sys.executable, "-c", HOLE.format(patch=patch), *arguments]

        monkeypatch.setattr(demo_stage, "serve_command", command)

    return plant


def policy(old: str, new: str) -> Plant:
    """The demo's policy, with a change."""

    def plant(monkeypatch: pytest.MonkeyPatch) -> None:
        assert old in demo_stage.POLICY
        monkeypatch.setattr(demo_stage, "POLICY", demo_stage.POLICY.replace(old, new))

    return plant


def no_echo(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = demo_upstream.Answer("{}", {})
    monkeypatch.setattr(demo_upstream, "respond", lambda *_: answer)


def whole_values_in_the_output(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_cases, "TAIL", 100)


@pytest.mark.parametrize(
    ("plant", "failed"),
    [
        pytest.param(no_echo, ["scrub: * the upstream sent it back"], id="nothing is echoed"),
        pytest.param(
            policy('["crm.*"]', '["other.*"]'),
            ["inject into a header: exactly the value arrived", "inject into Basic *: * arrived"],
            id="no grant: nothing is injected",
        ),
        pytest.param(
            policy('in: ["header:authorization"]', "plaintext: true"),
            ["refuse: http://*: refused by the proxy", "refuse: http://*: nothing arrived"],
            id="a value goes over http://",
        ),
        pytest.param(
            proxy(NO_SCRUBBING),
            ["scrub: *: taken out of header, body and base64", "scrub: *: no value came back"],
            id="a proxy that does not scrub",
        ),
        pytest.param(
            proxy(LATE_AUDIT),
            ["inject into a header: recorded before it left"],
            id="a proxy that records afterwards",
        ),
        pytest.param(
            proxy(LEAKS_INTO_THE_LOG),
            ["a value was found: crm.apiKey in */serve.log*"],
            id="a value in the log",
        ),
        pytest.param(
            proxy(LEAKS_INTO_THE_HOME),
            ["a value was found: crm.apiKey in */home/run/cache*"],
            id="a value in a file, in base64",
        ),
        pytest.param(
            whole_values_in_the_output,
            ["a value was found: crm.apiKey in this output*"],
            id="a value in what is printed",
        ),
    ],
)
def test_what_did_not_happen_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, plant: Plant, failed: list[str]
) -> None:
    plant(monkeypatch)

    done = in_this_process(monkeypatch, tmp_path)

    assert done.exit_code == 1, done.stdout
    told = done.stderr.partition("checks did not hold:\n")[2].splitlines()
    for words in failed:
        pattern = re.escape(words).replace(r"\*", ".*")
        assert any(re.fullmatch(f"  {pattern}", line) for line in told), done.stderr
    assert "checks held" not in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("patch", "words"),
    [
        pytest.param(BREAKS_DOWN, "coatcheck serve ended with exit code 3", id="it ends at once"),
        pytest.param("import time; time.sleep(60)", "not ready in time", id="it does not listen"),
    ],
)
def test_a_proxy_that_does_not_start_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, patch: str, words: str
) -> None:
    proxy(patch)(monkeypatch)
    monkeypatch.setattr(demo_stage, "READY_S", 2.0)

    done = in_this_process(monkeypatch, tmp_path)

    assert done.exit_code == 1
    assert words in done.stderr
    assert "next: " in done.stderr
    assert list(tmp_path.iterdir()) == []


def in_this_process(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Result:
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    result = CliRunner().invoke(app, ["demo"])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


# --- --keep --------------------------------------------------------------------------------------


@contextmanager
def kept(place: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A demo that waits, and what it has printed."""
    process = subprocess.Popen(
        [*COMMAND, "--keep"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(place),
    )
    try:
        lines = []
        for line in process.stdout or ():
            lines.append(line)
            if "tail -f" in line:
                break
        yield process, "".join(lines)
    finally:
        process.kill()
        process.communicate()


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_kept_running_its_lines_do_what_it_showed(place: Path) -> None:
    """Every curl of the output, after its export line; and the one through `coatcheck run`."""
    with kept(place) as (process, text):
        export = re.findall(r"^  (export .*)$", text, re.M)[-1]
        run = re.findall(r"^  (\S.* run --home .*)$", text, re.M)[-1]
        curls = re.findall(r"^  \$ (curl .*)$", text, re.M)
        answers = [in_a_shell(f"{export}\n{curl}") for curl in curls]
        by_run = in_a_shell(run)
        pid = pid_of_proxy(text)
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=START_S)

    assert len(curls) == len(CASES)
    codes = [case.code for case in demo_cases.cases()]
    for title, code, answer in zip(CASES, codes, answers, strict=True):
        expected = f'"code": "{code}"' if code else "********" if "scrub" in title else '"ok": true'
        assert expected in answer, (title, answer)
    assert by_run == '{"ok": true}'
    assert (process.returncode, errors) == (0, "")
    assert "everything is removed" in rest
    assert not is_alive(pid)
    assert list(place.iterdir()) == []


def in_a_shell(line: str) -> str:
    """As pasted into a new shell, with the proxy of the user still set."""
    done = subprocess.run(
        ["sh", "-c", line],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
        env={**os.environ, "NO_PROXY": "*", "https_proxy": "http://192.0.2.1:9"},
    )
    assert done.returncode == 0, (line, done.stderr)
    return done.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_the_middle_ends_and_removes_everything(
    tmp_path: Path, number: signal.Signals
) -> None:
    process = subprocess.Popen(
        COMMAND,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(tmp_path),
        # Whoever started the tests may ignore it, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    text = ""
    for line in process.stdout or ():
        text += line
        if "started coatcheck serve" in line:
            process.send_signal(number)
            break
    _, errors = process.communicate(timeout=START_S)

    assert process.returncode == 130
    assert "interrupted" in errors
    # What the signal finds half made, Python itself may complain of when it is thrown away.
    assert "Traceback" not in errors.partition("Exception ignored in: <http.client.")[0]
    assert not is_alive(pid_of_proxy(text))
    assert list(tmp_path.iterdir()) == []
