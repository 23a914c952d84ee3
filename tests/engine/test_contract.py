"""The internals of mitmproxy that we lean on. Not ours to keep, so each one is looked at here.

A red line here is not a bug of ours: mitmproxy has changed. Read what it does now, adapt the
engine, and only then raise the pin in pyproject.toml.
"""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mitmproxy import certs, connection, hooks, http, options, version
from mitmproxy.net import tls as net_tls
from mitmproxy.proxy import commands, context, events, layer, mode_specs, server, tunnel
from mitmproxy.proxy.layers import ClientTLSLayer
from mitmproxy.proxy.layers.tls import TlsFailedClientHook, TlsStartClientHook

from coatcheck.engine import harden, script
from coatcheck.engine.addon import Addon
from coatcheck.engine.lane import Lane
from coatcheck.engine.server import Handler, _Watchdog
from tests.engine.mitmdump import all_options

Base = server.LiveConnectionHandler


def parameters(function: Callable[..., Any]) -> list[str]:
    return list(inspect.signature(function).parameters)


def test_it_is_the_version_that_was_meant() -> None:
    """The pinned one, or the one that scripts/next_mitmproxy.py has put in front of it."""
    pins = (Path(__file__).parents[2] / "constraints.txt").read_text().splitlines()
    (pinned,) = (pin for pin in pins if pin.startswith("mitmproxy=="))
    meant = os.environ.get("COATCHECK_TEST_MITMPROXY") or pinned.removeprefix("mitmproxy==")

    assert [version.VERSION, metadata.version("mitmproxy")] == [meant, meant]


def test_what_is_patched_is_still_there() -> None:
    harden.symbols()


def test_a_symbol_that_has_moved_stops_the_start() -> None:
    with pytest.raises(harden.UnsafeError, match=r"no LiveConnectionHandler\.gone, which"):
        harden.symbols({Base: ("handle_hook", "gone")})


@pytest.mark.parametrize(
    ("ours", "theirs"), [(Handler, Base), (_Watchdog, server.TimeoutWatchdog)], ids=["H", "W"]
)
def test_every_method_that_overrides_is_on_the_list(ours: type, theirs: type) -> None:
    overridden = {
        name
        for name, value in vars(ours).items()
        if callable(value) and not name.startswith("__") and hasattr(theirs, name)
    }

    assert overridden <= set(harden.PATCHED[theirs])


@pytest.mark.parametrize("name", ["handle_hook", "log", "open_connection", "drain_writers"])
def test_a_method_that_overrides_takes_what_it_is_given(name: str) -> None:
    assert parameters(getattr(Handler, name)) == parameters(getattr(Base, name))
    ours, theirs = getattr(Handler, name), getattr(Base, name)
    assert inspect.iscoroutinefunction(ours) == inspect.iscoroutinefunction(theirs)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (Base.__init__, ["self", "reader", "writer", "options", "mode"]),
        (Base.handle_client, ["self"]),
        (Base.handle_connection, ["self", "connection"]),
        (Base.server_event, ["self", "event"]),
        (server.ConnectionIO, ["handler", "reader", "writer"]),
        (server.TimeoutWatchdog.__init__, ["self", "timeout", "callback"]),
        (layer.Layer.__init__, ["self", "context"]),
        (layer.Layer.handle_event, ["self", "event"]),
        (context.Context.__init__, ["self", "client", "options"]),
        (ClientTLSLayer.__init__, ["self", "context"]),
        (commands.SendData.__init__, ["self", "connection", "data"]),
        (commands.OpenConnection.__init__, ["self", "connection"]),
        (commands.CloseConnection.__init__, ["self", "connection"]),
        (commands.RequestWakeup.__init__, ["self", "delay"]),
        (events.OpenConnectionCompleted, ["command", "reply"]),
        (events.DataReceived, ["connection", "data"]),
        (events.ConnectionClosed, ["connection"]),
        (events.Wakeup, ["command"]),
        (certs.CertStore.__init__, [
            "self", "default_privatekey", "default_ca", "default_chain_file", "default_crl",
            "dhparams",
        ]),
        (certs.CertStore.get_cert, ["self", "commonname", "sans", "organization", "crl_url"]),
        (certs.load_pem_private_key, ["data", "password"]),
        (net_tls.create_client_proxy_context, [
            "method", "min_version", "max_version", "cipher_list", "ecdh_curve", "chain_file",
            "alpn_select_callback", "request_client_cert", "extra_chain_certs", "dhparams",
        ]),
    ],
    ids=lambda value: getattr(value, "__qualname__", ""),
)  # fmt: skip
def test_what_we_call_takes_what_we_give(function: Callable[..., Any], expected: list[str]) -> None:
    assert parameters(function) == expected


async def test_a_handler_has_the_attributes_that_we_use() -> None:
    writer: Any = SimpleNamespace(get_extra_info=lambda name, default=None: default)
    services: Any = SimpleNamespace(
        gateway=SimpleNamespace(limits=SimpleNamespace(idle_timeout_s=1.0, response_timeout_s=1.0))
    )
    nothing: Any = None
    handler = Handler(nothing, writer, harden.safe_options(), services, nothing, nothing, nothing)

    assert isinstance(handler.layer, Lane), "ours in the place of mitmproxy's first layer"
    assert isinstance(handler.timeout_watchdog, _Watchdog)
    (io,) = handler.transports.values()
    assert {"handler", "reader", "writer"} <= vars(io).keys()
    assert isinstance(handler.layer.context, context.Context)
    dog = handler.timeout_watchdog
    assert isinstance(dog.can_timeout, asyncio.Event)
    assert isinstance(dog.last_activity, float)


def test_the_base_still_reads_layer_and_watchdog_when_it_needs_them() -> None:
    """They are replaced after the base's `__init__`; a copy taken there would be the old one."""
    assert "self.layer.handle_event(" in inspect.getsource(Base.server_event)
    assert "self.timeout_watchdog.watch()" in inspect.getsource(Base.handle_client)
    assert "self.drain_writers()" in inspect.getsource(Base.handle_connection)
    assert "self.open_connection(" in inspect.getsource(Base.server_event)
    assert "self.log(" in inspect.getsource(Base.server_event), "our way to hear of a crash"


def test_a_client_tls_layer_has_what_the_lane_sets() -> None:
    client = connection.Client(
        peername=("127.0.0.1", 1),
        sockname=("127.0.0.1", 2),
        timestamp_start=0.0,
        proxy_mode=mode_specs.ProxyMode.parse("regular"),
    )
    ctx = context.Context(client, options.Options())
    services: Any = SimpleNamespace(gateway=SimpleNamespace(limits=None))
    Lane(ctx, services)  # below another layer, as in a connection

    tls = ClientTLSLayer(ctx)

    assert isinstance(tls, tunnel.TunnelLayer)
    assert hasattr(tls, "child_layer")
    assert {"sni", "tls_established", "peername", "state"} <= set(dir(client))
    assert {"address", "sni", "tls", "state", "peername", "sockname"} <= set(
        dir(connection.Server(address=None))
    )


def test_a_tls_layer_without_a_connection_closes() -> None:
    """What we rely on where a certificate cannot be made."""
    source = inspect.getsource(ClientTLSLayer.start_tls)

    assert "if not tls_start.ssl_conn:" in source
    assert "CloseConnection(self.conn)" in source


@pytest.mark.parametrize("hook", [TlsStartClientHook, TlsFailedClientHook])
def test_the_hooks_of_tls_carry_their_data(hook: type) -> None:
    assert parameters(hook) == ["data"]


def test_the_addons_hooks_are_mitmproxys() -> None:
    """A hook that mitmproxy does not know of is never called."""
    named = {"http_connect", "requestheaders", "request", "responseheaders", "response", "error"}
    named |= {"server_connect", "server_connected", "server_connect_error", "server_disconnected"}

    assert named <= hooks.all_hooks.keys()
    assert named <= set(dir(Addon))
    public = {name for name in vars(Addon) if not name.startswith("_")} - {"name"}
    assert public - hooks.all_hooks.keys() == {"note", "refuse"}


def test_messages_have_the_raw_parts_that_the_addon_writes() -> None:
    request = http.Request.make("GET", "http://a/")

    assert {"method", "path", "authority", "headers", "content"} <= vars(request.data).keys()
    assert hasattr(request, "stream")
    assert {"reason", "headers", "content"} <= vars(http.Response.make().data).keys()


def test_a_mitmdump_has_every_option_that_is_kept_safe() -> None:
    """An option of another name would be left as it is, whatever it does."""

    found = set(all_options().keys())

    assert set(script.WANTED) - found == set()
    assert {"confdir", "ssl_verify_upstream_trusted_ca"} <= found
