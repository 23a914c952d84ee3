"""`coatcheck policy`: check a file, print its schema, explain a decision.

None of these proxies or sends anything, and none can print a value: the store is opened without
the key that unseals. Headers and body that are given to `explain` are searched for placeholders
and never printed, since people paste real tokens there too.
"""

from __future__ import annotations

import stat
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coatcheck.cli import console
from coatcheck.core.ports import CoatcheckError

if TYPE_CHECKING:
    from coatcheck.core.policy import Policy
    from coatcheck.core.secret import Secret

REFUSED = 2  # exit code: the proxy would refuse

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

PolicyOption = Annotated[
    Path | None,
    typer.Option("--policy", metavar="FILE", help="The policy; default: the one in the settings."),
]


@app.callback()
def root() -> None:
    """Check a policy file, or explain a decision."""


@app.command()
def check(
    given: Annotated[
        Path | None,
        typer.Argument(metavar="[FILE]", help="The policy file; without: the one in the settings."),
    ] = None,
    style: console.FormatOption = console.Format.TABLE,
    home: console.HomeOption = None,
) -> None:
    """Find mistakes in a policy file, and grants that are wider than most people mean."""
    from coatcheck import policyfile
    from coatcheck import settings as settings_module

    file = given or settings_module.load(home=home).policy
    try:
        policy = policyfile.read(file)
    except policyfile.PolicyError as error:
        if style is console.Format.JSON:
            mistakes = [{"where": m.where, "what": m.what, "hint": m.hint} for m in error.mistakes]
            console.print_json({"file": str(file), "valid": False, "mistakes": mistakes})
        console.say(str(error))  # bare lines, as compilers print them, for editors to jump to
        raise typer.Exit(1) from None
    warnings = [*policyfile.warnings(policy), *_of_file(file)]
    summary = {
        "file": str(file),
        "valid": True,
        "clients": len(policy.clients),
        "grants": len(policy.grants),
        "sha256": policy.digest,
        "warnings": warnings,
    }
    if style is console.Format.JSON:
        console.print_json(summary)
        return
    counts = f"{_count(policy.clients, 'client')}, {_count(policy.grants, 'grant')}"
    print(console.clean(f"{file}: no mistakes; {counts}"))
    for warning in warnings:
        print(f"{console.paint('warning:', 'yellow')} {console.clean(warning)}")


@app.command()
def schema(
    settings: Annotated[
        bool, typer.Option("--settings", help="That of coatcheck.yaml instead.")
    ] = False,
    sources: Annotated[
        bool, typer.Option("--sources", help="That of sources.yaml instead.")
    ] = False,
) -> None:
    """Print the JSON Schema of the policy file, for completion in editors."""
    from coatcheck import policyfile, sourcefile
    from coatcheck import settings as settings_module

    made = settings_module.schema() if settings else policyfile.schema()
    console.print_json(sourcefile.schema() if sources else made)


@app.command()
def explain(
    method: Annotated[str, typer.Argument(help="GET, POST, ...")],
    url: Annotated[str, typer.Argument(help="https://host/path?query")],
    header: Annotated[
        list[str] | None,
        typer.Option("--header", "-H", metavar="'NAME: VALUE'", help="Can be given several times."),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option("--data", "-d", metavar="BODY", help="A form unless -H says otherwise."),
    ] = None,
    client: Annotated[
        str | None, typer.Option("--client", help="Who sends; needed where there are several.")
    ] = None,
    policy: PolicyOption = None,
    home: console.HomeOption = None,
    style: console.FormatOption = console.Format.TABLE,
) -> None:
    """Say what would happen to a request, and which line of the policy decides. Sends nothing.

    Exit code 0: it would be sent; 2: it would be refused; 1: it cannot be told.
    """
    from coatcheck import policyfile
    from coatcheck.cli import explaining
    from coatcheck.cli.secret import managed, sourced
    from coatcheck.core import asked

    with managed(home) as (settings, store):
        rules = policyfile.read(policy or settings.policy)
        request = asked.read_request(method, url, header or [], data)
        elsewhere = sourced(settings)

        def find(name: str) -> Secret | None:
            return store.find(name) or elsewhere.secret(name)

        explanation = request.explain(rules, _client(rules, client), find, settings.limits)
    if style is console.Format.JSON:
        console.print_json(asked.document(explanation, rules))
    else:
        explaining.show(explanation, rules)
    if explanation.problem is not None:
        raise typer.Exit(REFUSED)


class UsageError(CoatcheckError):
    """What was asked for does not fit the policy."""


def _client(policy: Policy, name: str | None) -> str:
    from coatcheck.yamlfile import closest

    known = [client.name for client in policy.clients]
    if not known:
        raise UsageError("the policy has no clients", hint=f"add one to {policy.source}")
    if name is None:
        if len(known) == 1:
            return known[0]
        raise UsageError(
            "the policy has several clients", hint=f"say --client with one of: {', '.join(known)}"
        )
    if name not in known:
        meant = closest(name, known)
        hint = f"did you mean '{meant}'?" if meant else f"known: {', '.join(known)}"
        raise UsageError(f"the policy has no client '{name}'", hint=hint)
    return name


def _of_file(file: Path) -> list[str]:
    if file.stat().st_mode & stat.S_IWOTH:
        return [f"{file}:1: everybody on this machine can write it; run: chmod o-w {file}"]
    return []


def _count(things: tuple[object, ...], name: str) -> str:
    return f"{len(things)} {name}{'' if len(things) == 1 else 's'}"
