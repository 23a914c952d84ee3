"""What stops the start: options of mitmproxy that open a side road, and a process that leaks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from mitmproxy import exceptions, options

import coatcheck
from coatcheck.engine import harden, script
from coatcheck.engine.addon import Ready
from tests.engine.mitmdump import all_options, taddons

# One value for each option that breaks a promise, or could.
UNSAFE: dict[str, object] = {
    "mode": ["socks5"],
    "connection_strategy": "eager",
    "http2": True,
    "http3": True,
    "rawtcp": True,
    "websocket": True,
    "upstream_cert": True,
    "ssl_insecure": True,
    "validate_inbound_headers": False,
    "keep_host_header": True,
    "store_streamed_bodies": True,
    "stream_large_bodies": "1m",
    "ignore_hosts": [r"api\.example\.com"],
    "allow_hosts": [r"api\.example\.com"],
    "tcp_hosts": [".*"],
    "udp_hosts": [".*"],
    "client_certs": "~/certs",
    "proxy_debug": True,
}
UNSAFE_IN_MITMDUMP: dict[str, object] = {
    "flow_detail": 3,
    "onboarding": True,
    "save_stream_file": "flows",
    "hardump": "flows.har",
    "client_replay": ["flows"],
    "server_replay": ["flows"],
    "map_local": ["|x|/tmp"],
    "map_remote": ["|//a|//b"],
    "modify_body": ["/a/b"],
    "modify_headers": ["/a/b"],
    "stickyauth": ".*",
    "stickycookie": ".*",
    "request_client_cert": True,
    "proxyauth": "any",
    "upstream_auth": "a:b",
    "block_list": [":~d a:404"],
    "anticache": True,
    "anticomp": True,
}


@pytest.fixture
def opts() -> options.Options:
    found = all_options()
    for name, safe in script.WANTED.items():
        if name in found:
            found.update(**{name: safe})
    return found


def test_the_tables_name_every_option() -> None:
    assert UNSAFE.keys() == harden.SAFE_OPTIONS.keys()
    assert UNSAFE_IN_MITMDUMP.keys() == script.SAFE_SCRIPT_OPTIONS.keys()


def test_safe_options_pass(opts: options.Options) -> None:
    harden.assert_options(opts)
    harden.assert_options(opts, script.WANTED)
    harden.assert_options(harden.safe_options())


@pytest.mark.parametrize("name", UNSAFE)
def test_an_unsafe_option_is_refused_by_name(name: str, opts: options.Options) -> None:
    opts.update(**{name: UNSAFE[name]})

    with pytest.raises(harden.UnsafeError, match=rf"option {name} has to be .*--set {name}="):
        harden.assert_options(opts)


@pytest.mark.parametrize("name", UNSAFE_IN_MITMDUMP)
def test_under_mitmdump_more_options_are(name: str, opts: options.Options) -> None:
    opts.update(**{name: UNSAFE_IN_MITMDUMP[name]})

    with pytest.raises(harden.UnsafeError, match=rf"option {name} has to be"):
        harden.assert_options(opts, script.WANTED)


@pytest.mark.parametrize("name", [*UNSAFE, *UNSAFE_IN_MITMDUMP])
def test_an_option_cannot_be_made_unsafe_later(name: str) -> None:
    """mitmproxy takes a change back that an addon raises `OptionsError` for."""
    addon = script.Script(None)  # type: ignore[arg-type]
    with taddons.context() as context:
        for known, safe in script.WANTED.items():
            if known not in context.options:
                context.options.add_option(known, object, safe, "")
        opts = context.options
        opts.changed.receivers.clear()
        for known, safe in script.WANTED.items():
            opts._options[known].typespec = object
            opts.update(**{known: safe})
        opts.update(**{name: {**UNSAFE, **UNSAFE_IN_MITMDUMP}[name]})
        addon.configure({name})  # not ready: `running` is going to look

        addon.ready = Ready(*[None] * 5)  # type: ignore[arg-type]

        with pytest.raises(exceptions.OptionsError, match=name):
            addon.configure({name})
        addon.configure({"listen_port"})


# --- the process -----------------------------------------------------------------------------


@pytest.mark.parametrize("variable", harden.KEY_LOG_VARIABLES)
def test_a_variable_that_logs_keys_is_refused(variable: str) -> None:
    with pytest.raises(harden.UnsafeError, match=f"unset {variable}"):
        harden.process({variable: "/tmp/keys"})


FILES = """
import resource
from coatcheck.engine import harden
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 512))
print(harden.open_files(), resource.getrlimit(resource.RLIMIT_NOFILE))
"""


def test_it_may_open_as_many_files_as_it_is_allowed_to() -> None:
    environ = {**os.environ, "PYTHONPATH": str(Path(coatcheck.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", FILES], env=environ, capture_output=True, timeout=60
    )

    assert done.stdout == b"512 (512, 512)\n", done.stderr[-400:]


PROBE = """
import ctypes, os, resource, sys
from coatcheck.engine import harden
from coatcheck.engine.resolver import InterfaceAddresses
InterfaceAddresses()()  # imports codecs, which nobody may not be allowed to read
if sys.argv[1] != "0":
    os.setgroups([])
    os.setresuid(65534, 65534, 65534)
harden.process({"SSLKEYLOGFILE": ""})
print(resource.getrlimit(resource.RLIMIT_CORE), ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))
print("127.0.0.1" in InterfaceAddresses()())
"""
AS_NOBODY = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become nobody")


@pytest.mark.parametrize(
    "nobody",
    [pytest.param("0", id="as we are"), pytest.param("1", id="as nobody", marks=AS_NOBODY)],
)
def test_memory_is_for_nobody_else_and_leaves_no_core(nobody: str) -> None:
    """A process that cannot be dumped still sees its own addresses in /proc."""
    path = [os.environ.get("PYTHONPATH", ""), str(Path(coatcheck.__file__).parents[1])]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))}
    done = subprocess.run(
        [sys.executable, "-c", PROBE, nobody], env=environ, capture_output=True, timeout=60
    )

    assert done.stdout.split(b"\n")[:2] == [b"(0, 0) 0", b"True"], done.stderr[-400:]
