"""`coatcheck client`: tokens by which the proxy knows who sends.

The token is made here and kept nowhere: the policy file holds its hash.
"""

from __future__ import annotations

import secrets
from typing import Annotated

import typer

from coatcheck.cli import console
from coatcheck.cli.recording import actor, management_log

TOKEN_PREFIX = "ctk_"  # noqa: S105 for secret scanners; apart from an owner's ct_

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def root() -> None:
    """Make a token for a client."""


@app.command()
def token(
    name: Annotated[str, typer.Argument(help="The client, as the policy names it.")],
    style: console.FormatOption = console.Format.TABLE,
    home: console.HomeOption = None,
) -> None:
    """Print a new token once, and the line for the policy file.

    That it was made is put on record in home, where there is one.
    """
    from coatcheck import settings
    from coatcheck.observe.managementlog import Change
    from coatcheck.store.home import Home, token_hash

    place = Home(console.home_path(home))
    if place.audit.exists():
        place.check()
        log = management_log(place, settings.load(home=place.root))
        log.note(actor(), Change("client.token", client=name))
    made = TOKEN_PREFIX + secrets.token_urlsafe(32)
    line = f'token: "sha256:{token_hash(made)}"'
    if style is console.Format.JSON:
        console.print_json({"client": name, "token": made, "policy_line": line})
        return
    # Two lines for programs; what a person needs besides goes to stderr.
    print(made)
    print(line)
    console.say("")
    console.say(f"The first line is the token of {name}, shown this once: give it to the client.")
    console.say(f"The second goes into the policy file, under clients: {name}:")
