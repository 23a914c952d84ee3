"""`coatcheck backup` and `coatcheck restore`: the store as one sealed file, and back."""

from __future__ import annotations

import datetime
import time
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from coatcheck.cli import console
from coatcheck.cli.recording import recorded
from coatcheck.store.files import HomeError

FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="The backup.")]


def backup(file: FileArgument, home: console.HomeOption = None) -> None:
    """Write the whole store into a new file, sealed for the store's own key.

    The private key is not in it: without sealing.key no backup can be opened. Keep that elsewhere.
    """
    from coatcheck import settings as settings_module
    from coatcheck.observe.managementlog import Change
    from coatcheck.store import backup as backups
    from coatcheck.store.home import Home

    place = Home(console.home_path(home))
    public = place.read_public_key()
    settings = settings_module.load(home=place.root)
    with recorded(place, settings, Change("store.backup", target=str(file))):
        taken = backups.take(settings.store, file, public=public, now=time.time())
    print(
        f"{console.clean(str(file))}: {taken.secrets} secrets, revision {taken.revision},"
        f" sealed for key {public.id}"
    )


def restore(
    file: FileArgument,
    force: Annotated[
        bool, typer.Option("--force", help="Even if changes made after the backup get lost.")
    ] = False,
    home: console.HomeOption = None,
) -> None:
    """Put a backup in place of the store, in one step; a proxy that runs takes it over.

    Needs sealing.key and sealing.pub of the time when the backup was made.
    """
    from coatcheck import settings as settings_module
    from coatcheck.observe.managementlog import Change
    from coatcheck.store import backup as backups
    from coatcheck.store import seen
    from coatcheck.store.home import Home

    place = Home(console.home_path(home))
    public = place.read_public_key()
    settings = settings_module.load(home=place.root)
    opened = backups.read(file, place.read_private_key())
    remembered = seen.remembered(place.seen, opened.store_id)
    with recorded(place, settings, Change("store.restore", target=str(file), forced=force)):
        done = backups.restore(settings.store, opened, public=public, seen=remembered, force=force)
    with suppress(HomeError):  # it is only remembered
        seen.accept(place.seen, opened.store_id, done.revision)
    when = datetime.datetime.fromtimestamp(opened.taken_at, datetime.UTC)
    print(
        f"restored {done.secrets} secrets of {when:%Y-%m-%dT%H:%M:%SZ}, revision"
        f" {done.taken_revision}; the store has revision {done.revision} now"
    )
    lost = max(remembered, done.before or 0) - done.taken_revision
    if lost > 0:
        console.say(
            f"warning: it is older than what was seen here: {lost} changes after it are gone, and"
            " values that were replaced since are in force again"
        )
