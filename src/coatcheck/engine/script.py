"""What `mitmdump -s addons/coatcheck.py` loads: sets the addon up, or ends mitmproxy.

mitmproxy goes on proxying when a script fails to load, which would mean: without any check. So a
set-up that fails ends the process. Options of mitmproxy that would break a promise are set to a
safe value where they still have their default; where somebody has set an unsafe one, the addon
refuses to run, at start and at any later change.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, Protocol

from mitmproxy import connection, ctx, exceptions
from mitmproxy.addonmanager import Loader

from coatcheck.core.ports import CoatcheckError
from coatcheck.engine import UnsafeError, harden
from coatcheck.engine.addon import Addon, Ready

# What the stock addons of mitmdump bring: each of these writes traffic somewhere, answers in our
# place, or changes a flow after us.
SAFE_SCRIPT_OPTIONS: dict[str, object] = {
    "flow_detail": 0,
    "onboarding": False,
    "save_stream_file": None,
    "hardump": "",
    "client_replay": [],
    "server_replay": [],
    "map_local": [],
    "map_remote": [],
    "modify_body": [],
    "modify_headers": [],
    "stickyauth": None,
    "stickycookie": None,
    "request_client_cert": False,
    "proxyauth": None,
    "upstream_auth": None,
    "block_list": [],
    "anticache": False,
    "anticomp": False,
}

WANTED = {**harden.SAFE_OPTIONS, **SAFE_SCRIPT_OPTIONS}
WATCHED = {*WANTED, *harden.FORBIDDEN_OPTIONS}

# Their records quote bytes of traffic, or hold tracebacks with them.
QUIET_LOGGERS = ("mitmproxy.proxy", "mitmproxy.addonmanager", "h2", "hpack", "asyncio", "tornado")


class SetUp(Protocol):
    """Wires an addon up; the composition root has it. Raises `CoatcheckError`."""

    async def __call__(
        self, home: str, policy: str, abort: Callable[[connection.Client], None]
    ) -> Ready: ...


class Script(Addon):
    """The addon, plus what mitmproxy wants of a script.

    Args:
        set_up: Of the composition root, which knows this folder, not the other way round.
    """

    def __init__(self, set_up: SetUp) -> None:
        super().__init__()
        self._set_up = set_up

    def load(self, loader: Loader) -> None:
        loader.add_option("coatcheck_home", str, "", "coatcheck's home folder.")
        loader.add_option("coatcheck_policy", str, "", "Policy file; default: in the home.")

    def configure(self, updated: set[str]) -> None:
        if self.ready is not None and not updated.isdisjoint(WATCHED):
            try:
                harden.assert_options(ctx.options, WANTED)
            except CoatcheckError as error:
                raise exceptions.OptionsError(str(error)) from None

    async def running(self) -> None:
        # Until the last line here every hook refuses.
        try:
            harden.process(os.environ)
            _make_safe()
            ready = await self._set_up(
                ctx.options.coatcheck_home, ctx.options.coatcheck_policy, _abort
            )
        except CoatcheckError as error:
            _give_up(str(error))
        except Exception as error:  # mitmproxy would log it and go on
            _give_up(f"{type(error).__name__} while it was set up")
        for name in QUIET_LOGGERS:
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
        self.ready = ready


def _give_up(why: str) -> NoReturn:
    sys.stderr.write(f"coatcheck: {why}\n")
    sys.exit(1)


def _make_safe() -> None:
    for name, safe in WANTED.items():
        if name not in ctx.options or getattr(ctx.options, name) == safe:
            continue
        if ctx.options.has_changed(name):  # somebody asked for it
            raise UnsafeError(
                f"mitmproxy's option {name} has to be {safe!r}", hint=f"leave {name} out"
            )
        ctx.options.update(**{name: safe})
    harden.assert_options(ctx.options, WANTED)


def _abort(client: connection.Client) -> None:
    """Break the connection of *client* off, with whatever it has upstream."""
    server = ctx.master.addons.get("proxyserver")
    for handler in list(server.connections.values()):
        if handler.client is client:
            for transport in list(handler.transports.values()):
                if transport.handler is not None:
                    asyncio.get_running_loop().call_soon(transport.handler.cancel, "refused")


def use_authority(folder: Path, trusted: Path) -> None:
    """Let mitmproxy use our CA, and verify upstreams against *trusted*, unless told otherwise."""
    for name, value in (
        ("confdir", str(folder)),
        ("ssl_verify_upstream_trusted_ca", str(trusted)),
    ):
        if not ctx.options.has_changed(name):
            ctx.options.update(**{name: value})
