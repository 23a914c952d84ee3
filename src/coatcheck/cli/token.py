"""`coatcheck token`: credentials of the admin side, made and revoked by whoever has the home.

The API does the same for owners. Here it takes no token, so that nobody who has lost the last one
is locked out. A token is printed once; the store keeps its hash.
"""

from __future__ import annotations

import secrets
import time
from enum import StrEnum
from typing import Annotated

import typer

from coatcheck.cli import console
from coatcheck.cli.value import InputError

DAY_S = 86400.0

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


class Role(StrEnum):
    VIEWER = "viewer"
    EDITOR = "editor"
    OWNER = "owner"


@app.callback()
def root() -> None:
    """Make, list and revoke tokens of the admin side."""


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="How lists and the audit log call it.")],
    role: Annotated[Role, typer.Option(help="What it may do.")],
    days: Annotated[
        int | None, typer.Option(min=1, max=3650, help="Days until it ends; without: never.")
    ] = None,
    home: console.HomeOption = None,
    style: console.FormatOption = console.Format.TABLE,
) -> None:
    """Print a new token once. Alone on stdout, so that a script can take it."""
    from coatcheck.cli.recording import recorded
    from coatcheck.cli.secret import managed
    from coatcheck.observe.managementlog import Change
    from coatcheck.store.home import OWNER_TOKEN_PREFIX, Home, token_hash

    if not name.strip() or len(name) > 128 or not name.isprintable():
        raise InputError("no token can have this name", hint="give it 1 to 128 plain characters")
    made, now = OWNER_TOKEN_PREFIX + secrets.token_urlsafe(32), time.time()
    change = Change("token.create", subject=name, target=role)
    with (
        managed(home) as (settings, store),
        recorded(Home(settings.home), settings, change),
    ):
        token = store.add_token(
            token_hash(made),
            role=role,
            now=now,
            name=name,
            created_by="coatcheck token",
            expires_at=None if days is None else now + days * DAY_S,
        )
    if style is console.Format.JSON:
        console.print_json({"id": token.id, "name": name, "role": role, "token": made})
        return
    print(made)
    console.say(f"That is the token of {name} ({role}), shown this once.")
    console.say(f"To take it away again: coatcheck token revoke {token.id}")


@app.command("list")
def list_(
    home: console.HomeOption = None, style: console.FormatOption = console.Format.TABLE
) -> None:
    """List the tokens: names, roles, ends. Never the tokens themselves."""
    from coatcheck.cli.secret import managed, shown_time

    with managed(home) as (_, store):
        rows: list[dict[str, object]] = [
            {
                "id": token.id,
                "name": token.name,
                "role": token.role,
                "created_at": shown_time(token.created_at),
                "expires_at": shown_time(token.expires_at),
                "last_used_at": shown_time(token.last_used_at),
            }
            for token in store.tokens()
        ]
    columns = {"id": "id", "name": "name", "role": "role", "expires_at": "ends"}
    console.show(rows, columns | {"last_used_at": "last used"}, style)


@app.command()
def revoke(
    token_id: Annotated[str, typer.Argument(metavar="ID", help="As `list` shows it.")],
    home: console.HomeOption = None,
) -> None:
    """Take a token away. It and its sessions are refused from then on."""
    from coatcheck.cli.recording import recorded
    from coatcheck.cli.secret import managed
    from coatcheck.observe.managementlog import Change
    from coatcheck.store.home import Home

    change = Change("token.revoke", subject=token_id)
    with (
        managed(home) as (settings, store),
        recorded(Home(settings.home), settings, change),
    ):
        gone = store.remove_token(token_id, now=time.time())
        if gone is None:
            raise InputError("there is no token of this id", hint="see: coatcheck token list")
    print(f"revoked {console.clean(gone.name or gone.id)}")
