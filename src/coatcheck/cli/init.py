"""`coatcheck init`: make a home, and say what to do with it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from coatcheck.cli import console
from coatcheck.cli.recording import actor, management_log
from coatcheck.store import files


def init(
    home: console.HomeOption = None,
    source: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="Make the home of a further replica, of the keys in this folder: sealing.pub,"
            " mitmproxy-ca.pem and, unless it is handed over, sealing.key.",
        ),
    ] = None,
    style: console.FormatOption = console.Format.TABLE,
) -> None:
    """Make a home: sealing key, certificate authority, store, sample policy.

    Prints the first owner token once: only its hash is kept. A home that exists is never touched;
    one that was made with --from takes the keys over as they are now.
    """
    from coatcheck import settings
    from coatcheck.observe.managementlog import Change
    from coatcheck.store.home import create_home

    root = console.home_path(home)
    if source is not None:
        _replica(root, source.expanduser().absolute(), style)
        return
    created = create_home(root, now=time.time())
    made = created.home
    management_log(made, settings.load(home=root)).note(actor(), Change("home.init"))
    if style is console.Format.JSON:
        console.print_json(
            {
                "home": str(root),
                "policy": str(made.policy),
                "store": str(made.store),
                "ca_certificate": str(made.ca_certificate),
                "owner_token": created.owner_token,
            }
        )
        return
    policy = "sample policy" if created.policy_written else "policy (left as it was)"
    option = "" if home is None else f" --home {files.quoted(root)}"
    print(f"made {console.clean(str(root))}")
    print(f"  {policy:<24} {console.clean(str(made.policy))}")
    print(f"  {'certificate for clients':<24} {console.clean(str(made.ca_certificate))}")
    print(f"  {'sealing key':<24} {console.clean(str(made.private_key))}")
    print()
    print("owner token of the admin side, shown this once:")
    print(f"  {created.owner_token}")
    print()
    print("next:")
    print(f"  coatcheck secret set crm.apiKey --domain api.example.com{option}")
    print(f"  coatcheck serve{option}")
    print(
        f"  coatcheck run{option} -- "
        "curl -H 'Authorization: Bearer {{secrets.crm.apiKey}}' https://api.example.com/"
    )
    console.say(
        "Back up sealing.key apart from store.db: without it no value can be opened, "
        "with both everyone can."
    )


def _replica(root: Path, source: Path, style: console.Format) -> None:
    from coatcheck.store.replica import create_replica

    made = create_replica(root, source)
    if style is console.Format.JSON:
        console.print_json(
            {
                "home": str(root),
                "policy": str(made.home.policy),
                "ca_certificate": str(made.home.ca_certificate),
                "changed": [str(path) for path in made.changed],
                "sealing_key_in_home": made.has_private_key,
            }
        )
        return
    what = ", ".join(path.name for path in made.changed) or "nothing new"
    print(f"{console.clean(str(root))}: a replica of the keys in {console.clean(str(source))}")
    print(f"  written: {what}")
    if not made.has_private_key:
        print("  sealing.key is not among them: hand the key over to `serve`")
    console.say("next: set COATCHECK_STORE to the database that the replicas share")
