"""The program ``coatcheck``: which commands there are, and where each one lives.

How a command is added: one row in `COMMANDS` below, in the order of ``coatcheck --help``.

    "secret": Row("coatcheck.cli.secret:app", "Write, list and delete secrets."),

The target is either a plain function with typer annotations (a command) or a `typer.Typer` (a
group, also when it holds a single command). It is imported when its command is called or
completed, never before: importing mitmproxy takes seconds, and ``coatcheck version`` must not
pay for it. Hence the help line stands here. A target that cannot be imported is a bug and
raises; nothing is skipped in silence.

Any `CoatcheckError` that leaves a command is shown by `console.fail` (exit code 1), so a command
may simply let it fly. Wrong usage ends with 1 as well: 2 means that the server refused.
"""

from __future__ import annotations

import atexit
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import typer
from typer.completion import completion_init  # type: ignore[attr-defined]
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command, get_group

from coatcheck.cli import console
from coatcheck.core.ports import CoatcheckError
from coatcheck.workers import process


@dataclass(frozen=True, slots=True)
class Row:
    """One command.

    Attributes:
        target: ``module:attribute``; a function or a `typer.Typer`.
        help: One line for ``coatcheck --help``.
        settings: ``context_settings`` of typer, for a function.
    """

    target: str
    help: str
    settings: Mapping[str, Any] = field(default_factory=dict)


COMMANDS: dict[str, Row] = {
    "init": Row("coatcheck.cli.init:init", "Make a home: sealing key, CA, store, sample policy."),
    "serve": Row("coatcheck.cli.serve:serve", "Run the proxy."),
    "status": Row("coatcheck.cli.serve:status", "Ask a running proxy how it is."),
    "secret": Row("coatcheck.cli.secret:app", "Set, list, show, edit and delete secrets."),
    "store": Row("coatcheck.cli.store:app", "Move the store to another database."),
    "keys": Row("coatcheck.cli.keys:app", "Rotate the sealing key, or put a passphrase on it."),
    "backup": Row("coatcheck.cli.backup:backup", "Write the store into one sealed file."),
    "restore": Row("coatcheck.cli.backup:restore", "Put a backup in place of the store."),
    "policy": Row("coatcheck.cli.policy:app", "Check a policy file, or explain a decision."),
    "client": Row("coatcheck.cli.client:app", "Make a token for a client."),
    "token": Row("coatcheck.cli.token:app", "Make and revoke tokens of the admin side."),
    "run": Row(
        "coatcheck.cli.run:run",
        "Run a command with the proxy and CA variables set.",
        # All that follows the command's name is the command's own.
        {"allow_interspersed_args": False},
    ),
    "env": Row("coatcheck.cli.run:env", "Print the variables that `run` sets."),
    "ca": Row("coatcheck.cli.ca:app", "Export the certificate that clients must trust."),
    "audit": Row("coatcheck.cli.audit:app", "Verify the audit log, or read it."),
    "doctor": Row("coatcheck.cli.doctor:doctor", "Look for what is wrong with an installation."),
    "demo": Row("coatcheck.cli.demo:demo", "Show inject, block and scrub with real requests."),
    "version": Row("coatcheck.cli.version:version", "Print versions."),
    "completion": Row("coatcheck.cli.version:completion", "Print a shell's completion script."),
}

COMPLETE_VARIABLE = "_COATCHECK_COMPLETE"  # how the shell's script asks for completions
LEFT_OVER = "Got unexpected extra argument"  # how click's error begins
USAGE_ERROR = 2  # what click ends with; here 2 is taken


class LazyGroup(TyperGroup):
    """A group that knows the names and help lines of its commands and imports one at a time."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        for name, row in COMMANDS.items():
            self.add_command(TyperCommand(name, help=row.help, rich_markup_mode=None))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """What is about to run or to be completed: here the stand-in becomes the real command."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, load(name) if name in COMMANDS else command, rest

    def make_context(self, *args: Any, **options: Any) -> Any:
        return _local_error(super().make_context, *args, **options)

    def invoke(self, ctx: Any) -> Any:
        try:
            return _local_error(super().invoke, ctx)
        except CoatcheckError as error:
            console.fail(error)


def load(name: str) -> Any:
    """The click command behind the row *name*.

    Raises:
        ImportError, AttributeError: the row points at nothing.
    """
    row = COMMANDS[name]
    module, _, attribute = row.target.partition(":")
    target = getattr(import_module(module), attribute)
    if isinstance(target, typer.Typer):
        command: Any = get_group(target)
    else:
        holder = typer.Typer(add_completion=False, rich_markup_mode=None)
        holder.command(name, context_settings=dict(row.settings))(target)
        command = get_command(holder)
    command.name = name
    command.short_help = row.help
    return command


app = typer.Typer(
    name="coatcheck",
    cls=LazyGroup,
    add_completion=False,  # `coatcheck completion` prints the script and edits nobody's rc file
    rich_markup_mode=None,
    pretty_exceptions_enable=False,  # it prints local variables
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def root(
    ctx: typer.Context,
    version: bool = typer.Option(False, "--version", help="Print versions and exit."),
) -> None:
    """Swap placeholders for secrets at the destinations where they are allowed."""
    if version:
        from coatcheck.cli.version import version as show  # only when asked for

        show()
        raise typer.Exit
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())
        raise typer.Exit


def main() -> None:
    """The console script. A bug is told by its type and place alone: its text may hold a value."""
    process.hurry()
    atexit.register(process.settle)
    if COMPLETE_VARIABLE in os.environ:
        completion_init()
    try:
        app(prog_name="coatcheck")
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        for frame in frames:
            print(f"  {Path(frame.filename).name}:{frame.lineno} {frame.name}", file=sys.stderr)
        console.say_error(
            f"internal error ({type(error).__name__}); "
            "this is a bug: please report the lines above, and `coatcheck version`"
        )
        sys.exit(1)


def _local_error(call: Callable[..., Any], *args: Any, **options: Any) -> Any:
    try:
        return call(*args, **options)
    except typer.TyperException as error:
        if error.exit_code == USAGE_ERROR:
            error.exit_code = 1
        _unsay(error)
        raise


def _unsay(error: Any) -> None:
    """What is left over on a command line may be a value: it is not repeated."""
    if getattr(error, "message", "").startswith(LEFT_OVER):
        error.message = f"{LEFT_OVER}s (not repeated here: one may be a secret value)"
