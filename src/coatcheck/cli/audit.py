"""`coatcheck audit`: verify the log, and read it. Neither needs the proxy to run."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coatcheck.cli import console
from coatcheck.core.ports import CoatcheckError

if TYPE_CHECKING:
    from coatcheck.cli.auditlines import Filter
    from coatcheck.observe.auditread import Entry
    from coatcheck.observe.auditverify import Found
    from coatcheck.store.home import Home

FOLLOW_EVERY_S = 0.2
AGAIN_AFTER_S = 0.3  # a proxy may be in the middle of a line, or of moving a file
MOST_SHOWN = 100  # findings in a table; JSON has all

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def group() -> None:
    """Verify the audit log, or read it."""


@app.command()
def verify(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[PATH]...", help="Files of a log; without: all in home, to their end."
        ),
    ] = None,
    key: Annotated[
        Path | None, typer.Option("--key", help="The audit.pub to verify with; else home's.")
    ] = None,
    home: console.HomeOption = None,
    style: console.FormatOption = console.Format.TABLE,
) -> None:
    """Find what was changed, taken out, moved or cut off in the audit log, and say where.

    Exit code 1 where something was. Files that are named are verified as far as they go: what was
    cut off behind them does not show.
    """
    from coatcheck.store.home import Home

    place = Home(console.home_path(home))
    found = _verified(place, paths or [], key)
    if any(one.findings for one in found):
        time.sleep(AGAIN_AFTER_S)
        found = _verified(place, paths or [], key)
    whole = not any(one.findings for one in found)
    if style is console.Format.JSON:
        console.print_json({"whole": whole, "logs": [_shown(one) for one in found]})
    else:
        for one in found:
            _print(one)
        if not found:
            console.say(
                "there is no audit log yet; the proxy and commands that change things make it"
            )
    if not whole:
        raise typer.Exit(1)


def _verified(place: Home, paths: Sequence[Path], key: Path | None) -> list[Found]:
    from coatcheck.observe import auditverify
    from coatcheck.store import auditkey, files

    if not paths:
        files.check_folder(place.root)
    public = auditkey.verifying(key or place.audit_public)
    try:
        if paths:
            return auditverify.verify_files(list(_files(paths)), public)
        return auditverify.verify_folder(place.audit, place.audit_heads, public)
    except OSError as error:
        raise CoatcheckError(
            f"cannot read {error.filename or 'the audit log'}: {error.strerror}",
            hint="name a file of an audit log that you may read",
        ) from None


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    from coatcheck.observe import auditfiles

    for path in paths:
        yield from sorted(path.glob(auditfiles.MOVED)) if path.is_dir() else [path]


def _shown(found: Found) -> dict[str, object]:
    return {
        "log": found.log,
        "files": found.files,
        "first": found.first,
        "last": found.last,
        "signed": found.signed,
        "retired": found.retired,
        "findings": [
            {"file": one.file, "line": one.line, "what": one.what} for one in found.findings
        ],
    }


def _print(found: Found) -> None:
    bad = bool(found.findings)
    state = console.paint("NOT WHOLE", "red") if bad else console.paint("whole", "green")
    many = "1 file" if len(found.files) == 1 else f"{len(found.files)} files"
    said = [f"lines {found.first} to {found.last} in {many}", f"signed up to {found.signed}"]
    if found.retired:
        said.append(f"{found.retired} before them deleted as the settings say")
    if found.begins_later:
        said.append(f"what came before line {found.first} was not looked at")
    print(f"{console.clean(found.log)}: {state}; {', '.join(said)}")
    for one in found.findings[:MOST_SHOWN]:
        where = f"{one.file}:{one.line}" if one.line else one.file
        print(console.clean(f"  {where}: {one.what}"))
    if len(found.findings) > MOST_SHOWN:
        print(f"  and {len(found.findings) - MOST_SHOWN} more; --format json has them all")


@app.command()
def tail(
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what is added, until Ctrl-C.")
    ] = False,
    count: Annotated[
        int | None,
        typer.Option("--lines", "-n", min=0, help="How many lines; 20, or all since --since."),
    ] = None,
    client: Annotated[str, typer.Option("--client", help="Only of this client.")] = "",
    secret: Annotated[str, typer.Option("--secret", help="Only with this secret.")] = "",
    code: Annotated[str, typer.Option("--code", help="Only refusals with this code.")] = "",
    since: Annotated[
        str, typer.Option("--since", help="Not before: 15m, 2h, 3d, or a time (RFC 3339).")
    ] = "",
    home: console.HomeOption = None,
    style: console.FormatOption = console.Format.TABLE,
) -> None:
    """Show the newest lines of the audit log, of all workers and of commands, one line each.

    --format json prints them as they stand in the log.
    """
    from coatcheck.cli import auditlines
    from coatcheck.observe import auditread
    from coatcheck.store import files
    from coatcheck.store.home import Home

    place = Home(console.home_path(home))
    files.check_folder(place.root)
    wanted = auditlines.Filter(client, secret, code, auditlines.since(since, time.time()))
    if count is None and not since:
        count = 20
    follower = auditread.Follower(place.audit) if follow else None
    with suppress(KeyboardInterrupt):
        try:
            newest = _newest(place.audit, wanted, count)
            _show(newest, style)
            if not newest and sys.stderr.isatty():
                console.say("there is nothing to show in the audit log")
            while follower is not None:
                _show([e for e in follower.added() if wanted.takes(e.record)], style)
                time.sleep(FOLLOW_EVERY_S)
        except BrokenPipeError:  # `| head` has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _newest(folder: Path, wanted: Filter, count: int | None) -> list[Entry]:
    from coatcheck.observe import auditread

    def matching() -> Iterator[Entry]:
        for entry in auditread.newest_first(folder):
            if entry.time < wanted.since:
                return
            if wanted.takes(entry.record):
                yield entry

    return list(islice(matching(), count))[::-1]


def _show(entries: Sequence[Entry], style: console.Format) -> None:
    from coatcheck.cli import auditlines

    for entry in entries:
        print(entry.text if style is console.Format.JSON else auditlines.line(entry.record))
    sys.stdout.flush()
