"""`coatcheck store`: move the secrets to another database. No value is opened."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from coatcheck.cli import console
from coatcheck.cli.recording import recorded

if TYPE_CHECKING:
    from coatcheck.observe.managementlog import End
    from coatcheck.settings import Settings
    from coatcheck.store.home import Home

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Move the store.")


@app.callback()
def group() -> None:
    """Move the store to another database."""


@app.command()
def migrate(
    to: Annotated[
        str,
        typer.Option(
            "--to", help="An empty database, postgresql://USER@HOST/DATABASE, or a new file."
        ),
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be copied; change nothing.")
    ] = False,
    home: console.HomeOption = None,
    style: console.FormatOption = console.Format.TABLE,
) -> None:
    """Copy the store of home into another database. The old one stays as it is.

    One that was cut off goes on where it was when it is run again.
    """
    from coatcheck import settings as settings_module
    from coatcheck.store.home import Home
    from coatcheck.store.moving import move

    if _has_password(to):
        console.say(
            "warning: a password on the command line is seen by every user of the machine; "
            "better leave it out and name a file with PGPASSFILE"
        )
    place = Home(console.home_path(home))
    public = place.read_public_key()
    settings = settings_module.load(home=place.root)
    with _migration_recorded(place, settings, dry_run=dry_run) as end:
        done = move(settings.store, to, public=public, dry_run=dry_run, progress=_progress)
        end.target = done.place
    record = {
        "store": done.place,
        "secrets": done.secrets,
        "versions": done.versions,
        "tokens": done.tokens,
        "copied": done.copied,
        "whole": done.whole,
    }
    if style is console.Format.JSON:
        console.print_json(record)
        return
    counts = f"{done.secrets} secrets, {done.versions} versions, {done.tokens} tokens"
    if dry_run:
        print(console.clean(f"{done.place}: {done.copied} of {counts} would be copied"))
        return
    print(console.clean(f"{done.place}: holds {counts}; {done.copied} copied, all compared"))
    console.say(
        f"next: set 'store' to it ({place.config} or COATCHECK_STORE) and restart what uses the old"
        " one: what is written to that from now on is not in the new one"
    )


@app.command()
def accept(home: console.HomeOption = None) -> None:
    """Take the store as it is, where it is older than what was seen here."""
    from coatcheck.cli.secret import managed
    from coatcheck.observe.managementlog import Change
    from coatcheck.store import seen
    from coatcheck.store.home import Home

    place = Home(console.home_path(home))
    with managed(place.root) as (settings, store):
        revision = store.revision()
        with recorded(place, settings, Change("store.accept", target=f"revision {revision}")):
            seen.accept(place.seen, store.store_id, revision)
    print(f"revision {revision} it is")


@contextmanager
def _migration_recorded(place: Home, settings: Settings, *, dry_run: bool) -> Iterator[End]:
    """On record, unless nothing is changed."""
    from coatcheck.observe.managementlog import Change, End

    if dry_run:
        yield End()
        return
    with recorded(place, settings, Change("store.migrate")) as end:
        yield end


def _has_password(url: str) -> bool:
    try:
        return bool(urlsplit(url).password)
    except ValueError:
        return False


def _progress(done: int, of: int) -> None:
    if of > 1000:
        console.say(f"{done} of {of} secrets")
