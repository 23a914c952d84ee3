"""`coatcheck doctor`: looks at an installation and says what is wrong, and what to do about it.

It changes nothing, sends nothing to the outside and prints no value. The one request that it sends
is to the proxy's own canary, which has it on record (`cli.doctor_canary`). A check that needs what
another one found broken is left out; the first fault comes first. Exit code 1 if anything fails;
warnings alone end with 0.
"""

from __future__ import annotations

import datetime
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from coatcheck.cli import console
from coatcheck.cli.findings import Finding, Status, fail, failed_by, ok
from coatcheck.cli.run import ClientOption, TokenOption
from coatcheck.core.ports import CoatcheckError

if TYPE_CHECKING:
    from coatcheck.settings import Settings
    from coatcheck.store.home import Home

COLOURS = {Status.OK: "green", Status.WARN: "yellow", Status.FAIL: "red"}


def doctor(
    client_token: TokenOption = "",
    client: ClientOption = "",
    home: console.HomeOption = None,
    style: console.FormatOption = console.Format.TABLE,
) -> None:
    """Look for what is wrong with an installation, and say what to do about it.

    A proxy that runs is sent a request, as the client whose network this machine is in or whose
    token is given. Exit code 1 if anything fails; warnings do not count.
    """
    now = datetime.datetime.now(datetime.UTC)
    found = list(examine(console.home_path(home), os.environ, now, (client, client_token)))
    if style is console.Format.JSON:
        console.print_json(
            [
                {"check": f.check, "status": f.status, "found": f.found, "remedy": f.remedy}
                for f in found
            ]
        )
    else:
        _print(found)
    if any(finding.status is Status.FAIL for finding in found):
        raise typer.Exit(1)


def examine(
    root: Path,
    environ: Mapping[str, str],
    now: datetime.datetime,
    credential: tuple[str, str] = ("", ""),
) -> Iterator[Finding]:
    """Every finding, in the order of what depends on what.

    Args:
        credential: Name and token of a client, for the request to the canary.
    """
    from coatcheck.cli import doctor_canary as canary
    from coatcheck.cli import doctor_machine as machine
    from coatcheck.store.home import Home

    home = Home(root)
    settings: Settings | None = None
    yield from _guarded("versions", machine.check_versions)
    yield from _guarded("key_log", lambda: machine.check_key_logs(environ))
    broken = _root_problem(home)
    yield broken or ok("home", str(root))
    try:
        settings = _settings(root, environ)
    except CoatcheckError as error:
        yield failed_by("settings", error)
    if broken is None:
        yield from _in_home(home, settings, now)
    yield from _guarded("certifi", lambda: machine.check_roots(now))
    yield from _guarded("clock", lambda: machine.check_clock(home, now))
    yield from _guarded("names", machine.check_names)
    found = machine.running(home)
    yield from _guarded("core_dumps", lambda: machine.check_core_dumps(found))
    if settings is not None:
        host, port = settings.listen
        extra = settings.upstream_ca
        yield from _guarded("upstream_ca", lambda: machine.check_upstream_ca(extra, now))
        yield from _guarded("port", lambda: machine.check_port(host, port, found))
    if broken is None:
        proxy = list(_guarded("proxy", lambda: machine.check_proxy(home, found)))
        yield from proxy
        if found is not None and all(one.status is not Status.FAIL for one in proxy[:1]):
            yield from _guarded("canary", lambda: canary.check(home, found, credential))


def _in_home(home: Home, settings: Settings | None, now: datetime.datetime) -> Iterator[Finding]:
    from coatcheck.cli import doctor_home as inside

    admin_only = settings is not None and settings.role == "admin"
    yield from _guarded("modes", lambda: inside.check_modes(home))
    yield from _guarded("keys", lambda: inside.check_keys(home, admin_only=admin_only))
    yield from _guarded("ca", lambda: inside.check_ca(home, now))
    yield from _guarded("audit", lambda: inside.check_audit(home))
    if settings is not None:
        yield from _guarded("store", lambda: _of_settings(home, settings, now))


def _of_settings(home: Home, settings: Settings, now: datetime.datetime) -> Iterator[Finding]:
    """Store and policy, each by itself and then together."""
    from coatcheck.cli import doctor_home as inside
    from coatcheck.cli import doctor_machine as machine
    from coatcheck.cli import doctor_sources as sources

    findings, secrets = inside.check_store(home, settings)
    yield from findings
    found, declared = sources.check(settings, secrets)
    yield from found
    if secrets is not None:
        secrets = [*secrets, *declared]
    if secrets is not None:
        yield from inside.check_secrets(secrets)
    findings, policy = inside.check_policy(settings.policy)
    yield from findings
    if policy is None:
        return
    if secrets is not None:
        yield from inside.check_grants(policy, secrets)
        yield from inside.check_reach(policy, secrets)
        yield from inside.check_unused(policy, secrets, now)
    running = machine.running(home)
    listen = [host for host, _ in running.addresses] if running else [settings.listen[0]]
    yield from inside.check_clients(policy, listen)


def _root_problem(home: Home) -> Finding | None:
    from coatcheck.store import files

    try:
        files.check_folder(home.root)
    except files.HomeError as error:
        return failed_by("home", error)
    return None


def _settings(root: Path, environ: Mapping[str, str]) -> Settings:
    from coatcheck import settings

    return settings.load(home=root, environ=environ)


def _of_several(found: Iterable[Finding]) -> list[Finding]:
    """Without the row that all is well, where another one says that it is not."""
    several = list(found)
    bad = [finding for finding in several if finding.status is not Status.OK]
    return bad or several


def _guarded(check: str, examine: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    """A check that breaks is a finding too; the others still run. Its text may hold anything."""
    try:
        yield from _of_several(examine()) if check in _ONE_ROW else examine()
    except Exception as error:
        yield fail(
            check,
            f"the check itself failed ({type(error).__name__})",
            "this is a bug: please report it, with the output of coatcheck version",
        )


_ONE_ROW = frozenset({"versions", "key_log", "modes"})


def _print(found: list[Finding]) -> None:
    width = max(len(finding.check) for finding in found)
    for finding in found:
        status = console.paint(f"{finding.status:<4}", COLOURS[finding.status])
        first, *rest = console.clean(finding.found, keep="\n").splitlines() or [""]
        print(f"{status}  {finding.check:<{width}}  {first}")
        for line in rest:
            print(f"{'':<{width + 8}}{line}")
        if finding.remedy:
            print(f"{'':<{width + 8}}-> {console.clean(finding.remedy)}")
    counts = Counter(finding.status for finding in found)
    sys.stdout.write(
        f"{counts[Status.OK]} ok, {counts[Status.WARN]} to look at, {counts[Status.FAIL]} wrong\n"
    )
