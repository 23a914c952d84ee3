"""`coatcheck secret`: set, list, show, edit, delete, history. Names go out, never values.

The commands hold the public sealing key alone, so they could not print a value if they tried.
"""

from __future__ import annotations

import datetime
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coatcheck.cli import console, misplaced, value
from coatcheck.cli.recording import recorded
from coatcheck.cli.value import InputError

if TYPE_CHECKING:
    from coatcheck.core.destination import DomainPattern
    from coatcheck.core.secret import Secret
    from coatcheck.settings import Settings
    from coatcheck.sourcefile import Declared, SourcesFile
    from coatcheck.store.home import Home
    from coatcheck.store.sql import SqlStore

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

NameArgument = Annotated[str, typer.Argument(help="The secret's name, such as crm.apiKey.")]
DomainOption = Annotated[
    list[str] | None,
    typer.Option(
        "--domain",
        metavar="PATTERN",
        help="Where the value may go: api.example.com, *.example.com, with :port if needed. "
        "Can be given several times.",
    ),
]
AnyDomainOption = Annotated[
    bool, typer.Option("--any-domain", help="The value may go to any host.")
]
# What is left over may be a value: it is taken in, so as not to be repeated in a usage error.
NO_ECHO = {"allow_extra_args": True}


@app.callback()
def root() -> None:
    """Set, list, show, edit and delete secrets."""


@app.command("set", context_settings=NO_ECHO)
def set_(
    ctx: typer.Context,
    name: NameArgument,
    domain: DomainOption = None,
    any_domain: AnyDomainOption = False,
    description: Annotated[
        str | None, typer.Option("--description", help="What it is for.")
    ] = None,
    from_file: Annotated[
        Path | None, typer.Option("--from-file", help="Read the value from this file.")
    ] = None,
    from_env: Annotated[
        str | None,
        typer.Option("--from-env", metavar="VAR", help="Take it from this variable."),
    ] = None,
    stdin: Annotated[
        bool, typer.Option("--stdin", help="Read it from stdin; so too if stdin is no terminal.")
    ] = False,
    keep_newline: Annotated[
        bool, typer.Option("--keep-newline", help="Keep a line end at the value's end.")
    ] = False,
    allow_short: Annotated[
        bool, typer.Option("--allow-short", help="Take a value that is too short to be scrubbed.")
    ] = False,
    home: console.HomeOption = None,
) -> None:
    """Make a secret, or give it a new value.

    The value is asked for, or comes from stdin, a file or a variable; never from the command line.
    --domain replaces the allowed domains; without it a secret keeps those that it has.
    """
    from coatcheck.observe.managementlog import Change
    from coatcheck.store.home import Home

    if ctx.args:
        misplaced.refuse_value()
    domains = read_domains(domain or [], any_domain)
    with managed(home) as (settings, store):  # before the value is asked for
        if store.find(name) is None:
            misplaced.refuse_pair(name)
            _refuse_sourced(settings, name)
        found = value.read(
            name,
            from_file=from_file,
            from_env=from_env,
            stdin=stdin,
            keep_newline=keep_newline,
            allow_short=allow_short,
        )
        misplaced.refuse_shown(found, name=name, description=description, domains=domain or [])
        change = Change(
            "secret.set",
            secret=name,
            domains=[str(domain) for domain in domains or ()],
            changed=_parts(value=found, domains=domains, description=description),
        )
        with recorded(Home(settings.home), settings, change) as end:
            secret = store.put(
                name, found, domains=domains, description=description, now=time.time()
            )
            end.version = secret.version
    if secret.version == 1:
        print(f"made {_shown(secret)}")
    else:
        print(f"set {_shown(secret)}")
    _say_where(secret)


@app.command("list")
def list_(
    style: console.FormatOption = console.Format.TABLE, home: console.HomeOption = None
) -> None:
    """List the secrets: names, where they may go, when they were used. Never values."""
    with managed(home) as (settings, store):
        rows = [_row(secret) for secret in store.secrets()]
        rows += [_row_of(declared) for declared in sourced(settings).secrets]
    rows.sort(key=lambda row: str(row["name"]))
    if style is console.Format.TABLE:
        for row in rows:
            row["domains"] = row["domains"] or "nowhere"
    console.show(
        rows,
        {
            "name": "name",
            "domains": "allowed domains",
            "version": "version",
            "updated_at": "updated",
            "last_used_at": "last used",
            "source": "source",
            "description": "description",
        },
        style,
        empty="there are no secrets; make one: coatcheck secret set NAME --domain HOST",
    )


@app.command()
def show(
    name: NameArgument,
    style: console.FormatOption = console.Format.TABLE,
    home: console.HomeOption = None,
) -> None:
    """Show what is known of one secret. Never its value."""
    from coatcheck.core import placeholder

    with managed(home) as (settings, store):
        declared = sourced(settings).find(name) if store.find(name) is None else None
        row = _row_of(declared) if declared is not None else _row(_found(store, name))
    if style is console.Format.TABLE:
        row["domains"] = row["domains"] or "nowhere"
    console.show_one({**row, "placeholder": placeholder.write(name)}, style)


@app.command(context_settings=NO_ECHO)
def edit(
    ctx: typer.Context,
    name: NameArgument,
    new_name: Annotated[str | None, typer.Option("--name", help="Its new name.")] = None,
    description: Annotated[
        str | None, typer.Option("--description", help="What it is for.")
    ] = None,
    domain: Annotated[list[str] | None, typer.Option("--domain", hidden=True)] = None,
    any_domain: Annotated[bool, typer.Option("--any-domain", hidden=True)] = False,
    home: console.HomeOption = None,
) -> None:
    """Change a secret's name or description. The value stays; to change it, see `secret set`."""
    from coatcheck.observe.managementlog import Change
    from coatcheck.store.home import Home

    if ctx.args:
        misplaced.refuse_value()
    if domain or any_domain:
        raise InputError(
            "a value is sealed together with its allowed domains, so changing allowed domains"
            " needs the value again",
            hint="coatcheck secret set NAME --domain ...",
        )
    if new_name is None and description is None:
        raise InputError("nothing to change", hint="give --name or --description")
    from coatcheck import policyuse

    with managed(home) as (settings, store):
        _found(store, name)
        if new_name is not None and new_name != name:
            misplaced.refuse_pair(new_name)
            for user in policyuse.granted_by(settings.policy, name):
                console.say(f"warning: {user.words}; the grant does not follow the new name")
            _refuse_sourced(settings, new_name)
        change = Change(
            "secret.edit",
            secret=name,
            new_name=new_name or "",
            changed=_parts(name=new_name, description=description),
        )
        with recorded(Home(settings.home), settings, change) as end:
            secret = store.edit(name, new_name=new_name, description=description, now=time.time())
            end.version = secret.version
    print(f"changed {_shown(secret)}")


@app.command()
def delete(
    name: NameArgument,
    force: Annotated[
        bool, typer.Option("--force", help="Delete it even if it is in use; asks nothing.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    home: console.HomeOption = None,
) -> None:
    """Delete a secret with all its versions. It cannot be undone.

    Refused while a grant names the secret or it was used in the last 30 days, unless --force.
    """
    from coatcheck import policyuse
    from coatcheck.observe.managementlog import Change
    from coatcheck.store.home import Home

    now = time.time()
    with managed(home) as (settings, store):
        found = policyuse.used_by(settings.policy, _found(store, name), now)
        users = [user.words for user in found]
        for user in users:
            console.say(f"warning: {user}")
        if users and not force:
            raise InputError(
                f"{name!r} is in use and was not deleted: {users[0]}",
                hint="remove the grant first, or delete it all the same with --force",
            )
        if not (force or yes) and sys.stdin.isatty():
            typer.confirm(f"delete {console.clean(name)} for good?", abort=True, err=True)
        change = Change("secret.delete", secret=name, forced=bool(users))
        with recorded(Home(settings.home), settings, change):
            store.delete(name, now=now)
    print(f"deleted {console.clean(name)}")


@app.command()
def history(
    name: NameArgument,
    style: console.FormatOption = console.Format.TABLE,
    home: console.HomeOption = None,
) -> None:
    """List a secret's versions: when, and where each might go. Never values."""
    with managed(home) as (_, store):
        versions = store.history(_found(store, name).name)
    rows: list[dict[str, object]] = [
        {
            "version": info.version,
            "created_at": shown_time(info.created_at),
            "replaced_at": shown_time(info.replaced_at),
            "domains": [str(domain) for domain in info.domains],
            "kept": info.kept,
        }
        for info in versions
    ]
    if style is console.Format.TABLE:
        for row in rows:
            row["domains"] = row["domains"] or "nowhere"
    console.show(
        rows,
        {
            "version": "version",
            "created_at": "set",
            "replaced_at": "replaced",
            "domains": "allowed domains",
            "kept": "value kept",
        },
        style,
    )


@contextmanager
def managed(home: Path | None) -> Iterator[tuple[Settings, SqlStore]]:
    """The settings and the store of *home*, opened with the public key alone.

    Raises:
        HomeError, StoreError, SettingsError: what is wrong with it, and the next step.
    """
    from coatcheck import settings as settings_module
    from coatcheck.store.home import Home
    from coatcheck.store.sql import SqlStore

    place = Home(console.home_path(home))
    public = place.read_public_key()  # first: without a home nothing else makes sense
    settings = settings_module.load(home=place.root)
    store = SqlStore.open(settings.store, public=public, grace_s=settings.limits.retired_grace_s)
    try:
        _remember(place, store, say=True)
        yield settings, store
        _remember(place, store, say=False)  # what was written is seen too
    finally:
        store.close()


def sourced(settings: Settings) -> SourcesFile:
    """What the sources file declares; nothing where there is none.

    Raises:
        SourcesError: it cannot be used.
    """
    from coatcheck import sourcefile

    if settings.sources is None and not settings.sources_file.exists():
        return sourcefile.SourcesFile()
    return sourcefile.read(settings.sources_file)


def _refuse_sourced(settings: Settings, name: str) -> None:
    """A stored secret would take the place of one that comes from a source."""
    from coatcheck.store.model import name_key

    for declared in sourced(settings).secrets:
        if name_key(declared.name) == name_key(name):
            raise InputError(
                f"{settings.sources_file} declares {declared.name!r}: its value comes from the"
                f" source {declared.source.name!r}; nothing was changed",
                hint="choose another name, or remove it there first",
            )


def _remember(place: Home, store: SqlStore, *, say: bool) -> None:
    from coatcheck.store import seen

    told = seen.look(place.seen, store.store_id, store.revision()).told()
    if told and say:
        console.say(f"warning: {told}; {seen.ACCEPT}")


def read_domains(texts: list[str], any_domain: bool) -> list[DomainPattern] | None:
    """The patterns of ``--domain`` and ``--any-domain``; None where neither was given.

    Raises:
        InputError: no pattern, a wildcard on a public suffix, or ``*`` not asked for by name.
    """
    from coatcheck.core.destination import BadPattern, DomainPattern, parse_domain_pattern

    try:
        patterns = [parse_domain_pattern(text) for text in texts]
    except BadPattern as error:
        raise InputError(
            f"--domain: {misplaced.unquoted(error.what)}",
            hint="write a host such as api.example.com, *.example.com or example.com:8443",
        ) from None
    wide = [pattern for pattern in patterns if pattern.any]
    if wide and not any_domain:
        raise InputError(
            f"--domain '{wide[0]}' would let the value go to any host",
            hint="name the hosts; if it is really meant, say --any-domain",
        )
    if any_domain and len(wide) != len(patterns):
        raise InputError(
            "--any-domain makes the other domains meaningless",
            hint="give either --any-domain or --domain",
        )
    if any_domain:
        return patterns or [DomainPattern("", any=True)]
    return patterns or None


def _parts(**given: object) -> list[str]:
    """The names of what is given."""
    return [name for name, what in given.items() if what is not None]


def _say_where(secret: Secret) -> None:
    if not secret.domains:
        console.say(
            "warning: it is allowed nowhere yet; set it again with the hosts that may get it: "
            "coatcheck secret set NAME --domain HOST"
        )
    if any(pattern.any for pattern in secret.domains):
        console.say("warning: it may go to any host that a grant lets through")


def _found(store: SqlStore, name: str) -> Secret:
    secret = store.find(name)
    if secret is None:  # the name is not repeated: somebody may have given the value for it
        raise InputError(
            "there is no secret of this name",
            hint="coatcheck secret list shows the names there are",
        )
    return secret


def _row(secret: Secret) -> dict[str, object]:
    return {
        "name": secret.name,
        "version": secret.version,
        "domains": [str(domain) for domain in secret.domains],
        "description": secret.description,
        "created_at": shown_time(secret.created_at),
        "updated_at": shown_time(secret.updated_at),
        "last_used_at": shown_time(secret.last_used_at),
        "source": "store",
    }


def _row_of(declared: Declared) -> dict[str, object]:
    """Version and times are known to the workers alone."""
    return {
        "name": declared.name,
        "version": None,
        "domains": [str(domain) for domain in declared.domains],
        "description": declared.description,
        "created_at": None,
        "updated_at": None,
        "last_used_at": None,
        "source": f"{declared.source.name} ({declared.source.kind})",
    }


def _shown(secret: Secret) -> str:
    domains = ", ".join(str(domain) for domain in secret.domains) or "nowhere"
    return console.clean(f"{secret.name}, version {secret.version}, allowed: {domains}")


def shown_time(at: float | None) -> str | None:
    """RFC 3339 in UTC, to the second."""
    if at is None:
        return None
    return datetime.datetime.fromtimestamp(at, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
