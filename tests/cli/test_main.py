"""The program as a whole: its commands, how it fails, what it does not import."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from coatcheck.cli import console, main
from coatcheck.core.ports import CoatcheckError

HEAVY = ("mitmproxy", "sqlalchemy", "alembic", "cryptography", "yaml", "rich", "structlog")


def coatcheck(
    *arguments: str, environ: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "coatcheck", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=dict(os.environ) | dict(environ or {}),
    )


@pytest.mark.parametrize("name", main.COMMANDS)
def test_every_row_of_the_table_points_at_a_command(name: str) -> None:
    done = CliRunner().invoke(main.app, [name, "--help"])

    assert done.exit_code == 0, done.output
    assert "Usage:" in done.output


def test_help_lists_every_command_in_order() -> None:
    shown = CliRunner().invoke(main.app, ["--help"]).output.partition("Commands:")[2]

    assert [line.split()[0] for line in shown.splitlines() if line.strip()] == list(main.COMMANDS)


@pytest.mark.parametrize("arguments", [["version"], ["--help"], ["completion", "bash"], ["nope"]])
def test_what_does_not_proxy_does_not_pay_for_the_proxy(arguments: list[str]) -> None:
    script = (
        "import sys, atexit\n"
        "atexit.register(lambda: print(*sys.modules, file=sys.stderr))\n"
        "from coatcheck.cli.main import main\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False
    )

    assert not set(HEAVY) & set(done.stderr.split())


def test_no_arguments_print_the_help() -> None:
    assert coatcheck().stdout == coatcheck("--help").stdout != ""


@pytest.mark.parametrize(
    "arguments", [["nope"], ["version", "--nope"], ["run"], ["completion", "nope"], ["--nope"]]
)
def test_wrong_usage_is_a_local_error(arguments: list[str]) -> None:
    """1, not click's 2: that means that the server refused."""
    done = coatcheck(*arguments)

    assert done.returncode == 1
    assert "Usage:" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "command", ["init", "serve", "status", "doctor", "version", "secret list", "policy schema"]
)
def test_a_word_too_many_is_not_repeated(command: str) -> None:
    """It may be a value."""
    done = CliRunner().invoke(main.app, [*command.split(), "sk-live-SENTINEL"])

    assert done.exit_code == 1
    assert "Got unexpected extra arguments" in done.stderr
    assert "SENTINEL" not in done.output


def test_a_misspelt_command_gets_a_suggestion() -> None:
    assert "'secret'" in coatcheck("secrte").stderr


def test_version_names_what_it_stands_on() -> None:
    for name in ("coatcheck:", "python:", "mitmproxy:", "openssl:"):
        assert name in coatcheck("version").stdout
    assert coatcheck("--version").stdout == coatcheck("version").stdout


def with_command(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def command() -> None:
        raise error

    monkeypatch.setattr(main, "load", lambda _: _command(command))


def _command(function: object) -> object:
    holder = typer.Typer(add_completion=False, rich_markup_mode=None)
    holder.command()(function)  # type: ignore[type-var]
    return typer.main.get_command(holder)


def test_an_error_says_what_is_wrong_and_the_next_step(monkeypatch: pytest.MonkeyPatch) -> None:
    with_command(monkeypatch, CoatcheckError("the store is locked", hint="stop the other one"))

    done = CliRunner().invoke(main.app, ["version"])

    assert done.exit_code == 1
    assert done.stdout == ""
    assert done.stderr == "error: the store is locked\n  next: stop the other one\n"


def test_a_bug_is_told_by_type_and_place_and_never_by_its_text(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Promise G2: the text of a foreign exception may quote the value it choked on."""
    with_command(monkeypatch, ValueError("invalid literal: s3cr3t"))
    monkeypatch.setattr(sys, "argv", ["coatcheck", "version"])

    with pytest.raises(SystemExit) as caught:
        main.main()

    said = capsys.readouterr()
    assert caught.value.code == 1
    assert "ValueError" in said.err
    assert "test_main.py" in said.err
    assert "s3cr3t" not in said.out + said.err


def test_a_row_that_points_at_nothing_is_not_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(main.COMMANDS, "gone", main.Row("coatcheck.cli.gone:app", "Gone."))

    with pytest.raises(ImportError):
        main.load("gone")


# --- completion -----------------------------------------------------------------------------------


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "powershell"])
def test_completion_prints_a_script_for_each_shell(shell: str) -> None:
    done = coatcheck("completion", shell)

    assert done.returncode == 0
    assert "_COATCHECK_COMPLETE" in done.stdout


@pytest.mark.parametrize(
    ("line", "offers"),
    [
        pytest.param("coatcheck ver", ["version"], id="a command"),
        pytest.param("coatcheck ca ex", ["export"], id="a command of a group"),
        pytest.param("coatcheck env --she", ["--shell"], id="an option"),
        pytest.param("coatcheck completion z", ["zsh"], id="a value"),
    ],
)
def test_the_bash_script_completes(line: str, offers: list[str], tmp_path: Path) -> None:
    """The script is sourced by a real bash, which then asks it as on a press of TAB."""
    if shutil.which("bash") is None:
        pytest.skip("bash is not installed")
    program = tmp_path / "coatcheck"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m coatcheck "$@"\n')
    program.chmod(0o755)
    script = (
        'eval "$(coatcheck completion bash)"\n'
        f"COMP_WORDS=({line}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))\n"
        '_coatcheck_completion coatcheck; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env=dict(os.environ) | {"PATH": f"{tmp_path}:{os.environ['PATH']}"},
    )

    assert done.stdout.split() == offers


# --- console --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        pytest.param("plain ü", "plain ü", id="ordinary text stays"),
        pytest.param("\x1b[31mred", "\\x1b[31mred", id="no escape sequences"),
        pytest.param("a\rb\tc\n", "a\\x0db\\x09c\\x0a", id="no carriage return"),
        pytest.param("\x9b2J", "\\x9b2J", id="no C1 control sequence"),
        pytest.param("abc\u202edef", "abc\\u202edef", id="no direction override"),
        pytest.param("\udcff", "\\udcff", id="no lone surrogate"),
    ],
)
def test_foreign_text_is_made_visible(text: str, shown: str) -> None:
    assert console.clean(text) == shown


def test_a_table_is_aligned_and_has_a_mark_for_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"name": "a", "domains": ["x", "y"]}, {"name": "long\x07", "domains": []}]

    console.show(rows, {"name": "name", "domains": "allowed"}, console.Format.TABLE)

    assert capsys.readouterr().out == "NAME      ALLOWED\na         x, y\nlong\\x07  -\n"


def test_no_rows_leave_stdout_empty_but_valid_json(capsys: pytest.CaptureFixture[str]) -> None:
    console.show([], {"name": "name"}, console.Format.TABLE, empty="no secrets yet")
    assert capsys.readouterr() == ("", "no secrets yet\n")

    console.show([], {"name": "name"}, console.Format.JSON)
    assert capsys.readouterr().out == "[]\n"


@pytest.mark.parametrize(
    ("environ", "colours"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)],
)
def test_colours_are_for_terminals_that_want_them(environ: dict[str, str], colours: bool) -> None:
    class Terminal:
        def isatty(self) -> bool:
            return True

    assert console.has_colours(Terminal(), environ) is colours  # type: ignore[arg-type]


def test_a_pipe_gets_no_colours() -> None:
    assert "\x1b" not in coatcheck("run", "--proxy", "x", "--", "y").stderr


@pytest.mark.parametrize(
    ("flag", "environ", "expected"),
    [
        ("/f", {"COATCHECK_HOME": "/e", "XDG_DATA_HOME": "/x"}, "/f"),
        (None, {"COATCHECK_HOME": "/e", "XDG_DATA_HOME": "/x"}, "/e"),
        (None, {"XDG_DATA_HOME": "/x"}, "/x/coatcheck"),
        (None, {"XDG_DATA_HOME": "relative", "HOME": "/h"}, "/h/.local/share/coatcheck"),
        (None, {"HOME": "/h"}, "/h/.local/share/coatcheck"),
    ],
)
def test_where_home_is(flag: str | None, environ: dict[str, str], expected: str) -> None:
    assert console.home_path(Path(flag) if flag else None, environ) == Path(expected)
