"""What must be true of the process before it listens; anything else stops the start.

Two kinds of drift are caught here: an environment that would write keys to disk, and options of
mitmproxy that would open a side road. The lane runs without mitmproxy's addons, so most options
have no effect on it; under `mitmdump -s` each one does (docs/design.md).
"""

from __future__ import annotations

import ctypes
import resource
import sys
from collections.abc import Mapping

from mitmproxy import certs, options

from coatcheck.engine import UnsafeError

_PR_SET_DUMPABLE = 4  # linux/prctl.h
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h of glibc
_LARGE = 1024 * 1024  # bytes
_KEPT = 8 * _LARGE  # at the end of the heap

# option: the only value that keeps the promises
SAFE_OPTIONS: dict[str, object] = {
    "mode": ["regular"],
    "connection_strategy": "lazy",
    "http2": False,
    "http3": False,
    "rawtcp": False,
    "websocket": False,
    "upstream_cert": False,
    "ssl_insecure": False,
    "validate_inbound_headers": True,
    "keep_host_header": False,
    "store_streamed_bodies": False,
    "stream_large_bodies": None,
    "ignore_hosts": [],
    "allow_hosts": [],
    "tcp_hosts": [],
    "udp_hosts": [],
    "client_certs": None,
    "proxy_debug": False,
}

# Keys of other versions of mitmproxy: they must be absent or off.
FORBIDDEN_OPTIONS = ("emudhra", "emudhra_old")

# What of mitmproxy our own engine calls. Where one has moved the start is refused, not a client.
NEEDED: dict[object, tuple[str, ...]] = {
    certs: ("load_pem_private_key", "Cert"),
    certs.CertStore: ("get_cert",),
    certs.Cert: ("to_pem",),
}

KEY_LOG_VARIABLES = ("SSLKEYLOGFILE", "MITMPROXY_SSLKEYLOGFILE")


def process(environ: Mapping[str, str]) -> None:
    """Refuse an environment that leaks keys, and switch core dumps off.

    Raises:
        UnsafeError: a variable asks for TLS keys to be logged.
    """
    for variable in KEY_LOG_VARIABLES:
        if environ.get(variable):
            raise UnsafeError(
                f"{variable} is set: TLS keys would be written to a file",
                hint=f"unset {variable}",
            )
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        # Neither a debugger of the same user nor a core dump gets to the memory.
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def memory() -> None:
    """Have large blocks given back when they are freed. glibc stops doing so when it sees some come
    and go, and the windows of decoders would stay with us after a flood of coded answers.

    A few MiB are kept all the same: what a large body takes for each piece would be given back and
    got again from the kernel, page by page, wherever it happens to lie at the end of the heap. That
    made such a body twice as dear in some processes, and not in others.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # another C library has none
        mallopt(_M_MMAP_THRESHOLD, _LARGE)
        mallopt(_M_TRIM_THRESHOLD, _KEPT)


def open_files() -> int | None:
    """Let the process open as many files as its hard limit says; returns how many, None for any.

    The soft limit is nearly always 1024, for the sake of programs that use select(2).
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return None if hard == resource.RLIM_INFINITY else hard


def symbols(needed: Mapping[object, tuple[str, ...]] = NEEDED) -> None:
    """Look whether mitmproxy still has what we use.

    Raises:
        UnsafeError: naming the first thing that is gone.
    """
    for owner, names in needed.items():
        for name in names:
            if not callable(getattr(owner, name, None)):
                where = getattr(owner, "__name__", owner)
                raise UnsafeError(
                    f"this mitmproxy has no {where}.{name}, which coatcheck needs",
                    hint="install the version of mitmproxy that pyproject.toml names",
                )


def assert_options(opts: options.Options, wanted: Mapping[str, object] = SAFE_OPTIONS) -> None:
    """Look at the options of a mitmproxy that somebody else configured.

    Raises:
        UnsafeError: naming the first option that breaks a promise, and what to set.
    """
    for name, safe in wanted.items():
        if name not in opts:
            continue  # defined by an addon that is not loaded, so without effect
        if getattr(opts, name) != safe:
            raise UnsafeError(
                f"mitmproxy's option {name} has to be {safe!r}",
                hint=f"start with --set {name}={_as_flag(safe)}",
            )
    for name in FORBIDDEN_OPTIONS:
        if name in opts and getattr(opts, name):
            raise UnsafeError(f"mitmproxy's option {name} is on", hint=f"switch {name} off")


def _as_flag(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value or "")
