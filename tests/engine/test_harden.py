"""What stops the start: options of mitmproxy that open a side road, and a process that leaks."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from mitmproxy import ctx, exceptions, options

import coatcheck
from coatcheck.engine import (
    MITMPROXY_BELOW,
    MITMPROXY_LEAST,
    UnsafeError,
    check_version,
    harden,
    script,
)
from coatcheck.engine.addon import Ready
from coatcheck.store.home import create_home
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
FORBIDDEN: dict[str, object] = dict.fromkeys(harden.FORBIDDEN_OPTIONS, True)

EVERY = {**UNSAFE, **UNSAFE_IN_MITMDUMP, **FORBIDDEN}


@pytest.fixture
def opts() -> options.Options:
    found = all_options()
    # All in one go: each update copies every option.
    found.update(**{name: safe for name, safe in script.WANTED.items() if name in found})
    return found


@pytest.fixture
def both_versions(opts: options.Options) -> Iterator[options.Options]:
    """With the options that only some versions have, where this one lacks them."""
    added = [name for name in FORBIDDEN if name not in opts]
    for name in added:
        opts.add_option(name, bool, False, "")
    yield opts
    for name in added:
        del opts._options[name]


def test_the_tables_name_every_option() -> None:
    assert UNSAFE.keys() == harden.SAFE_OPTIONS.keys()
    assert UNSAFE_IN_MITMDUMP.keys() == script.SAFE_SCRIPT_OPTIONS.keys()


def test_safe_options_pass(opts: options.Options) -> None:
    harden.assert_options(opts)
    harden.assert_options(opts, script.WANTED)


@pytest.mark.parametrize("name", UNSAFE)
def test_an_unsafe_option_is_refused_by_name(name: str, opts: options.Options) -> None:
    opts.update(**{name: UNSAFE[name]})

    with pytest.raises(UnsafeError, match=rf"option {name} has to be .*--set {name}="):
        harden.assert_options(opts)


@pytest.mark.parametrize("name", UNSAFE_IN_MITMDUMP)
def test_under_mitmdump_more_options_are(name: str, opts: options.Options) -> None:
    opts.update(**{name: UNSAFE_IN_MITMDUMP[name]})

    with pytest.raises(UnsafeError, match=rf"option {name} has to be"):
        harden.assert_options(opts, script.WANTED)


@pytest.mark.parametrize("wanted", [harden.SAFE_OPTIONS, script.WANTED], ids=["serve", "mitmdump"])
@pytest.mark.parametrize("name", FORBIDDEN)
def test_a_compromised_key_is_not_signed_with(
    name: str, wanted: dict[str, object], both_versions: options.Options
) -> None:
    harden.assert_options(both_versions, wanted)  # there, and off
    both_versions.update(**{name: True})

    with pytest.raises(UnsafeError, match=f"option {name} is on.*switch {name} off"):
        harden.assert_options(both_versions, wanted)


async def started(opts: options.Options, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The homes that were set up, once mitmdump with *opts* runs."""
    opened: list[str] = []

    async def set_up(home: str, policy: str, abort: object) -> Ready:
        opened.append(home)
        return Ready(*[None] * 5)  # type: ignore[arg-type]

    for name in ("coatcheck_home", "coatcheck_policy"):
        if name not in opts:
            opts.add_option(name, str, "here", "")
    monkeypatch.setattr(ctx, "options", opts, raising=False)
    monkeypatch.setattr(harden, "process", lambda _: None)  # this process goes on
    monkeypatch.setattr(script, "QUIET_LOGGERS", ())
    await script.Script(set_up).running()
    return opened


async def test_a_mitmdump_of_defaults_is_made_safe_and_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opts = all_options()

    assert await started(opts, monkeypatch) == ["here"]
    harden.assert_options(opts, script.WANTED)


@pytest.mark.parametrize("name", [*UNSAFE, *UNSAFE_IN_MITMDUMP, *FORBIDDEN])
async def test_an_unsafe_option_that_somebody_set_ends_mitmdump(
    name: str,
    both_versions: options.Options,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    both_versions.reset()
    if name not in FORBIDDEN and both_versions.default(name) == EVERY[name]:
        # Nobody can be told from the default, so it is made safe without a word.
        assert await started(both_versions, monkeypatch) == ["here"]
        assert getattr(both_versions, name) == script.WANTED[name]
        return
    both_versions.update(**{name: EVERY[name]})

    with pytest.raises(SystemExit) as ended:
        await started(both_versions, monkeypatch)

    assert ended.value.code == 1
    assert f"coatcheck: mitmproxy's option {name} " in capsys.readouterr().err


@pytest.mark.parametrize("name", [*UNSAFE, *UNSAFE_IN_MITMDUMP, *FORBIDDEN])
def test_an_option_cannot_be_made_unsafe_later(name: str) -> None:
    """mitmproxy takes a change back that an addon raises `OptionsError` for."""
    addon = script.Script(None)  # type: ignore[arg-type]
    with taddons.context() as context:
        safely = {**script.WANTED, **dict.fromkeys(FORBIDDEN, False)}
        for known, safe in safely.items():
            if known not in context.options:
                context.options.add_option(known, object, safe, "")
        opts = context.options
        opts.changed.receivers.clear()
        for known in safely:
            opts._options[known].typespec = object
        opts.update(**safely)
        opts.update(**{name: EVERY[name]})
        addon.configure({name})  # not ready: `running` is going to look

        addon.ready = Ready(*[None] * 5)  # type: ignore[arg-type]

        with pytest.raises(exceptions.OptionsError, match=name):
            addon.configure({name})
        addon.configure({"listen_port"})


# --- the version of mitmproxy --------------------------------------------------------------------

ROOT = Path(coatcheck.__file__).parents[2]


@pytest.mark.parametrize("version", ["12.2.3", "12.3.1", "12.10", "12.2.3.post1", "12.999.0"])
def test_a_mitmproxy_that_we_were_written_for_is_taken(version: str) -> None:
    check_version(version)


@pytest.mark.parametrize(
    "version",
    ["12.2.2", "12.2", "12", "11.99.99", "1.12.2.3", "13", "13.0.0.dev", "130.0", "", "x"],
)
def test_any_other_is_refused_with_the_one_to_install(version: str) -> None:
    with pytest.raises(UnsafeError, match=r"from 12\.2\.3 on and below 13: pip install"):
        check_version(version)


def test_the_bounds_are_those_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    least, below = (".".join(map(str, v)) for v in (MITMPROXY_LEAST, MITMPROXY_BELOW))

    assert f"mitmproxy>={least},<{below}" in project["dependencies"]


SERVE = ["-m", "coatcheck", "serve", "--listen", "127.0.0.1:0"]
AS_SCRIPT = ["addons/coatcheck.py"]


@pytest.mark.parametrize(
    ("start", "says"),
    [
        pytest.param(SERVE, ["error: mitmproxy 11.0.0 ", "next: install one"], id="serve"),
        pytest.param(AS_SCRIPT, ["coatcheck: mitmproxy 11.0.0 "], id="as a script"),
    ],
)
def test_another_mitmproxy_stops_the_start_before_anything_of_it_is_used(
    start: list[str], says: list[str], tmp_path: Path
) -> None:
    """It has no other module than this: all the rest would be an ImportError."""
    (tmp_path / "mitmproxy").mkdir()
    (tmp_path / "mitmproxy" / "__init__.py").touch()
    (tmp_path / "mitmproxy" / "version.py").write_text("VERSION = '11.0.0'")
    path = os.pathsep.join([str(tmp_path), str(ROOT / "src")])
    home = create_home(tmp_path / "home", now=0.0).home

    done = subprocess.run(
        [sys.executable, *start],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path, "COATCHECK_HOME": str(home.root)},
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.returncode == 1
    for text in says:
        assert text in done.stderr
    assert "Traceback" not in done.stderr


def test_the_script_loads_beside_this_one() -> None:
    done = subprocess.run([sys.executable, *AS_SCRIPT], cwd=ROOT, capture_output=True, timeout=60)

    assert (done.returncode, done.stderr) == (0, b"")


# --- the process -----------------------------------------------------------------------------


@pytest.mark.parametrize("variable", harden.KEY_LOG_VARIABLES)
def test_a_variable_that_logs_keys_is_refused(variable: str) -> None:
    with pytest.raises(UnsafeError, match=f"unset {variable}"):
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
