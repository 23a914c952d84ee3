"""`serve` runs the proxy; `status` asks a running one how it is."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path
from typing import Annotated, Any

import typer

from coatcheck.cli import console
from coatcheck.core.ports import CoatcheckError
from coatcheck.observe import metrics, state
from coatcheck.settings import load


def serve(
    home: console.HomeOption = None,
    config: Annotated[Path | None, typer.Option(help="Settings file.")] = None,
    policy: Annotated[str | None, typer.Option(help="Policy file.")] = None,
    listen: Annotated[str | None, typer.Option(help="HOST:PORT of the proxy.")] = None,
    admin: Annotated[
        str | None, typer.Option(help="HOST:PORT of the admin side; never a destination.")
    ] = None,
    no_admin: Annotated[
        bool, typer.Option("--no-admin", help="Workers alone, as --role proxy.")
    ] = False,
    store: Annotated[
        str | None, typer.Option(help="File of the store, or postgresql://USER@HOST/DATABASE.")
    ] = None,
    workers: Annotated[str | None, typer.Option(help="Number of proxy workers.")] = None,
    role: Annotated[str | None, typer.Option(help="all, proxy or admin.")] = None,
    mode: Annotated[
        str | None,
        typer.Option(help="regular. For another one of mitmproxy's: which promise it would break."),
    ] = None,
    upstream_ca: Annotated[
        str | None, typer.Option(help="PEM file trusted for upstreams besides certifi.")
    ] = None,
) -> None:
    """Run the proxy until SIGTERM. Logs are JSON lines on stderr."""
    given = {
        "policy": policy,
        "listen": listen,
        "admin": admin,
        "store": store,
        "workers": workers,
        "role": role,
        "mode": mode,
        "upstream_ca": upstream_ca,
    }
    if no_admin:
        if role not in (None, "proxy"):
            raise CoatcheckError(
                "--no-admin is --role proxy, and another role is given", hint="leave one out"
            )
        given["role"] = "proxy"
    flags = {name: text for name, text in given.items() if text is not None}
    settings = load(home=home, config=config, flags=flags, environ=os.environ)
    from coatcheck.store.home import Home
    from coatcheck.workers import stop

    Home(settings.home).check()  # what is wrong there is told before all else is loaded
    if settings.workers > 1 or settings.role != "proxy":
        from coatcheck.workers import supervisor

        asyncio.run(supervisor.run(settings))
    else:
        from coatcheck import app  # imports mitmproxy, which takes a second

        asyncio.run(app.serve(settings))
    stop.heed_no_more()


def status(
    home: console.HomeOption = None, form: console.FormatOption = console.Format.TABLE
) -> None:
    """Say whether a proxy runs, where it listens, and what it and its workers have in force.

    Exit code 1 if none runs, if no worker takes connections, or if one has no usable policy or
    store.
    """
    folder = console.home_path(home) / "run"
    found = state.read(folder)
    if found is None or not state.is_alive(found.get("pid")):
        found = state.read(folder, state.ADMIN_FILE_NAME)
    if found is None or not state.is_alive(found.get("pid")):
        raise CoatcheckError(
            f"no proxy is running for the home {folder.parent}", hint="start it: coatcheck serve"
        )
    workers = state.workers_of(found)
    # The port alone says nothing: connections wait there, even where no worker is left.
    takers = not workers or any(one.get("ready") for one in workers)
    found["totals"] = metrics.sums(folder)
    found["accepting"] = takers and all(_accepts(address) for address in _addresses(found))
    console.show_one(_flat(found) if form is console.Format.JSON else _lines(found), form)
    if not found["accepting"] or _problems(found):
        raise typer.Exit(1)


def _addresses(found: dict[str, object]) -> list[tuple[str, int]]:
    listed = found.get("listen")
    return [(str(a[0]), int(a[1])) for a in listed] if isinstance(listed, list) else []


def _accepts(address: tuple[str, int]) -> bool:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address[0], address[0])  # noqa: S104
    try:
        socket.create_connection((host, address[1]), timeout=2).close()
    except OSError:
        return False
    return True


def _problems(found: dict[str, object]) -> bool:
    parts = (found.get("policy"), found.get("store"))
    return any(isinstance(part, dict) and bool(part.get("error")) for part in parts)


def _lines(found: dict[str, object]) -> dict[str, object]:
    """What a table shows: of several workers each in a line of its own."""
    workers = state.workers_of(found)
    apart = ("workers", "accepting", "totals")
    flat = _flat({key: value for key, value in found.items() if key not in apart})
    if flat.get("policy_error"):
        flat["policy_error"] = console.Lines(str(flat["policy_error"]).splitlines())
    if len(workers) > 1:
        flat |= {f"worker_{one.get('number')}": _worker(one) for one in workers}
    return {**flat, "accepting": found["accepting"]}


def _worker(one: dict[str, Any]) -> list[str]:
    policy, store = one.get("policy") or {}, one.get("store") or {}
    said = [f"process {one.get('pid')}" if one.get("pid") else "no process"]
    said += ["takes connections" if one.get("ready") else "takes no connections"]
    said += [f"restarts {one.get('restarts')}"]
    said += [f"the last ended by {one.get('last_end')}"] if one.get("last_end") else []
    said += [f"policy {str(policy.get('digest'))[:12]}"] if policy.get("digest") else []
    said += [f"store revision {store.get('revision')}"] if store else []
    return said + [str(part["error"]) for part in (policy, store) if part.get("error")]


def _flat(found: dict[str, object]) -> dict[str, object]:
    """Nested fields as ``policy_error`` and the like, so that they can be looked up at once."""
    flat: dict[str, object] = {}
    for key, value in found.items():
        if isinstance(value, dict):
            flat.update({f"{key}_{name}": inner for name, inner in _flat(value).items()})
        elif key == "listen":
            flat[key] = [f"{host}:{port}" for host, port in _addresses(found)]
        else:
            flat[key] = value
    return flat
