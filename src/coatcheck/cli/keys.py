"""`coatcheck keys`: rotate the sealing key, put a passphrase on it. Needs the private key."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from coatcheck.cli import console
from coatcheck.cli.recording import recorded
from coatcheck.core.ports import CoatcheckError

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def group() -> None:
    """Rotate the sealing key, or put a passphrase on it."""


@app.command()
def rotate(
    prepare: Annotated[
        bool,
        typer.Option(
            "--prepare",
            help="Only make the new key and put it beside the old one in sealing.key, to be copied"
            " to where other workers run; run it again without this to go on.",
        ),
    ] = False,
    home: console.HomeOption = None,
    style: console.FormatOption = console.Format.TABLE,
) -> None:
    """Make a new sealing key and seal every value anew, while the proxy serves.

    One that was cut off goes on when it is run again. Backups made before open with the old key
    alone: keep a copy of sealing.key with them.
    """
    from coatcheck import settings as settings_module
    from coatcheck.observe.managementlog import Change
    from coatcheck.store.home import Home
    from coatcheck.store.rotation import rotate as rotate_keys

    place = Home(console.home_path(home))
    settings = settings_module.load(home=place.root)
    change = Change("keys.rotate", changed=["new key made"] if prepare else ["sealing key"])
    with recorded(place, settings, change) as end:
        done = rotate_keys(place, settings.store, prepare=prepare)
        end.target = done.new
    if style is console.Format.JSON:
        console.print_json(
            {"old": done.old, "new": done.new, "records": done.records, "done": done.done}
        )
    elif done.done:
        print(f"rotated {done.old} to {done.new}; {done.records} records sealed anew")
    else:
        print(f"made {done.new}; {console.clean(str(place.private_key))} holds both keys")
        console.say(
            "next: copy it to where other workers run (restart those that were handed their key),"
            " then: coatcheck keys rotate"
        )


@app.command()
def passphrase(
    remove: Annotated[bool, typer.Option("--remove", help="Take it off again.")] = False,
    home: console.HomeOption = None,
) -> None:
    """Seal sealing.key under a passphrase, asked for here or read from stdin.

    Where there is one already, it is handed over as to the proxy (see docs/operations.md).
    """
    from coatcheck import settings as settings_module
    from coatcheck.observe.managementlog import Change
    from coatcheck.store import keyfile
    from coatcheck.store.home import Home

    place = Home(console.home_path(home))
    change = Change("keys.passphrase", changed=["taken off" if remove else "put on"])
    with place.changing_keys():
        file = keyfile.read(place.private_key)
        if remove and file.passphrase is None:
            raise CoatcheckError("sealing.key is under no passphrase", hint="")
        fresh = None if remove else keyfile.checked_passphrase(_ask())
        with recorded(place, settings_module.load(home=place.root), change):
            keyfile.write(file, file.keys, fresh)
    path = console.clean(str(place.private_key))
    print(f"{path}: {'no passphrase any more' if remove else 'sealed under the passphrase'}")


def _ask() -> bytes:
    if not sys.stdin.isatty():
        return sys.stdin.buffer.readline(4096)
    text: str = typer.prompt("new passphrase", hide_input=True, confirmation_prompt=True, err=True)
    return text.encode()
