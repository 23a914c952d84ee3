"""`coatcheck init`: make a home, and say what to do with it."""

from __future__ import annotations

import time

from coatcheck.cli import console
from coatcheck.store import files


def init(
    home: console.HomeOption = None, style: console.FormatOption = console.Format.TABLE
) -> None:
    """Make a home: sealing key, certificate authority, store, sample policy.

    Prints the first owner token once: only its hash is kept. A home that exists is never touched.
    """
    from coatcheck.store.home import create_home

    root = console.home_path(home)
    created = create_home(root, now=time.time())
    made = created.home
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
