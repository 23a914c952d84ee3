"""The internals of mitmproxy that we lean on. Not ours to keep, so each one is looked at here.

A red line here is not a bug of ours: mitmproxy has changed. Read what it does now, adapt the
engine, and only then raise the pin in pyproject.toml.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from mitmproxy import certs, hooks, http, version

from coatcheck.engine import UnsafeError, harden, script, tls
from coatcheck.engine.addon import Addon
from tests.engine.mitmdump import all_options
from tests.engine.sockets import make_authority


def parameters(function: Callable[..., Any]) -> list[str]:
    return list(inspect.signature(function).parameters)


def test_it_is_the_version_that_was_meant() -> None:
    """The pinned one, or the one that scripts/next_mitmproxy.py has put in front of it."""
    pins = (Path(__file__).parents[2] / "constraints.txt").read_text().splitlines()
    (pinned,) = (pin for pin in pins if pin.startswith("mitmproxy=="))
    meant = os.environ.get("COATCHECK_TEST_MITMPROXY") or pinned.removeprefix("mitmproxy==")

    assert [version.VERSION, metadata.version("mitmproxy")] == [meant, meant]


def test_what_is_needed_is_still_there() -> None:
    harden.symbols()


def test_a_symbol_that_has_moved_stops_the_start() -> None:
    with pytest.raises(UnsafeError, match=r"no CertStore\.gone, which"):
        harden.symbols({certs.CertStore: ("get_cert", "gone")})


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (certs.CertStore.__init__, [
            "self", "default_privatekey", "default_ca", "default_chain_file", "default_crl",
            "dhparams",
        ]),
        (certs.CertStore.get_cert, ["self", "commonname", "sans", "organization", "crl_url"]),
        (certs.load_pem_private_key, ["data", "password"]),
    ],
    ids=lambda value: getattr(value, "__qualname__", ""),
)  # fmt: skip
def test_what_we_call_takes_what_we_give(function: Callable[..., Any], expected: list[str]) -> None:
    assert parameters(function) == expected


def test_a_certificate_has_the_parts_that_we_use(tmp_path: Path) -> None:
    make_authority(tmp_path)
    store = tls.load_authority(tmp_path)

    entry = store.get_cert("api.example.com", [x509.DNSName("api.example.com")])

    assert entry.cert.to_pem().startswith(b"-----BEGIN CERTIFICATE-----")
    assert isinstance(entry.privatekey, ec.EllipticCurvePrivateKey)
    assert entry.chain_file is None
    assert list(store.certs.values()) == store.expire_queue == [entry], "what we empty"


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
