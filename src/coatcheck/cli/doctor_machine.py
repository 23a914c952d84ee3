"""What `coatcheck doctor` looks at outside the home: proxy, port, names, clock, versions.

Nothing is sent to the outside: the one name that is looked up is localhost, and
connections go to our own listeners alone.
"""

from __future__ import annotations

import datetime
import errno
import platform
import resource
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import certifi
from cryptography import x509

from coatcheck.cli.findings import Finding, counted, fail, ok, warn
from coatcheck.observe import state
from coatcheck.store.home import Home

CONNECT_S = 2.0
SLOW_S = 1.0  # for a look-up of localhost
ROOTS_OLD = datetime.timedelta(days=365)
KEY_LOG_VARIABLES = ("SSLKEYLOGFILE", "MITMPROXY_SSLKEYLOGFILE")

type Version = tuple[int, ...]

# What pyproject.toml asks for; a test compares the two.
PYTHON_LEAST: Version = (3, 12)
PINNED: Mapping[str, tuple[Version, Version]] = {
    "mitmproxy": ((12, 2, 3), (13,)),
    "cryptography": ((48,), (49,)),
}


@dataclass(frozen=True, slots=True)
class Running:
    """A proxy of this home: its state file, and where it listens.

    Attributes:
        workers: Their process ids; of one that is alone, its own.
    """

    pid: int
    addresses: tuple[tuple[str, int], ...]
    workers: tuple[int, ...] = ()


def running(home: Home) -> Running | None:
    """The proxy that runs for *home*, as its state file tells, if its process is alive."""
    said = state.read(home.run)
    if said is None or not state.is_alive(said.get("pid")) or not _is_coatcheck(said["pid"]):
        return None
    listed = said.get("listen")
    entries = listed if isinstance(listed, list) else []
    addresses = tuple((str(host), int(port)) for host, port in entries)
    pids = (one.get("pid") for one in state.workers_of(said))
    return Running(int(str(said["pid"])), addresses, tuple(p for p in pids if isinstance(p, int)))


def check_proxy(home: Home, found: Running | None) -> Iterator[Finding]:
    """Whether a proxy runs for this home, takes connections, and has all that it needs."""
    said = state.read(home.run)
    start = f"start it: coatcheck serve --home {home.root}"
    if found is None:
        why = "none is running for this home, so injection and scrubbing were not tried"
        if said is not None:
            why = f"process {said.get('pid')} ended without saying so, so nothing was tried with it"
        yield warn("proxy", why, start)
        return
    if not found.addresses:
        yield ok("proxy", f"process {found.pid} runs inside somebody's mitmproxy")
        return
    workers = state.workers_of(said or {})
    down = [one for one in workers if not one.get("ready")]
    # The port alone says nothing: connections wait there, even where no worker is left.
    deaf = not all(_accepts(*address) for address in found.addresses)
    if deaf or (workers and len(down) == len(workers)):
        yield fail(
            "proxy",
            f"process {found.pid} runs and does not take connections",
            f"look at its log, then end it (kill {found.pid}) and {start}",
        )
        return
    yield ok("proxy", f"process {found.pid} listens on {', '.join(map(_shown, found.addresses))}")
    for one in down:
        yield warn(
            "proxy",
            f"worker {one.get('number')} does not run; the last one ended by {one.get('last_end')}",
            "look for worker.died in its log",
        )
    sources = (said or {}).get("sources")
    if isinstance(sources, dict) and sources.get("error"):
        yield warn("proxy", f"of the sources: {sources['error']}", "look at what it names")
    for part in ("policy", "store"):
        inner = (said or {}).get(part)
        error = inner.get("error") if isinstance(inner, dict) else ""
        if error:
            yield fail(
                "proxy",
                f"it goes on with an older {part}: {error}",
                f"mend the {part}; it is read again at once",
            )


def check_port(host: str, port: int, found: Running | None) -> Iterator[Finding]:
    """Whether the address of the settings is free, or our own proxy's."""
    where = _shown((host, port))
    if port == 0:
        yield ok("port", "the system picks one")
        return
    if found is not None and any(port == own for _, own in found.addresses):
        yield ok("port", f"{where} is our own proxy's")
        return
    try:
        _bind(host, port)
    except OSError as error:
        yield fail("port", f"cannot listen on {where}: {error.strerror}", _port_remedy(error))
        return
    yield ok("port", f"{where} is free")


def check_names() -> Iterator[Finding]:
    """Whether names can be looked up at all: localhost alone, so that nothing leaves."""
    begun = time.monotonic()
    try:
        infos = socket.getaddrinfo("localhost", None, type=socket.SOCK_STREAM)
    except OSError as error:
        yield fail(
            "names",
            f"localhost cannot be looked up: {error.strerror}",
            "look at /etc/hosts, /etc/nsswitch.conf and /etc/resolv.conf",
        )
        return
    took = time.monotonic() - begun
    if took > SLOW_S:
        yield warn(
            "names",
            f"looking up localhost took {took:.1f} s",
            "put localhost into /etc/hosts, and look at the name servers in /etc/resolv.conf",
        )
        return
    yield ok("names", f"localhost is {', '.join(sorted({str(info[4][0]) for info in infos}))}")


def check_upstream_ca(path: Path | None, now: datetime.datetime) -> Iterator[Finding]:
    """The operator's own roots for upstreams."""
    if path is None:
        yield ok("upstream_ca", "not set: upstreams are verified by certifi alone")
        return
    remedy = "name a readable PEM file with at least one certificate, or leave upstream_ca out"
    try:
        certificates = x509.load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        yield fail("upstream_ca", f"cannot read {path}: {error.strerror}", remedy)
        return
    except ValueError:
        yield fail("upstream_ca", f"{path} holds no certificate in PEM", remedy)
        return
    expired = [c for c in certificates if c.not_valid_after_utc < now]
    if expired:
        yield warn(
            "upstream_ca",
            f"{len(expired)} of {len(certificates)} certificates in {path} have expired",
            "put the current ones into the file, and restart",
        )
        return
    yield ok("upstream_ca", f"{counted(certificates, 'certificate')}: {path}")


def check_roots(now: datetime.datetime) -> Iterator[Finding]:
    """Certifi, by whose roots upstreams are verified: there, and not old."""
    remedy = "upgrade it: pip install --upgrade certifi, or upgrade coatcheck"
    if not Path(certifi.where()).is_file():
        yield fail("certifi", f"there is no file {certifi.where()}", remedy)
        return
    version = _installed("certifi")
    released = _released(version)
    if released is None or now - released > ROOTS_OLD:
        age = "of unknown age" if released is None else f"{(now - released).days} days old"
        yield warn("certifi", f"the public roots ({version}) are {age}", remedy)
        return
    yield ok("certifi", f"the public roots are of {released:%Y-%m-%d}")


def check_clock(home: Home, now: datetime.datetime) -> Iterator[Finding]:
    """Whether the clock is behind what was made earlier: certificates depend on it."""
    past = {"certifi was released": _released(_installed("certifi"))}
    try:
        certificate = x509.load_pem_x509_certificate(home.ca_certificate.read_bytes())
        past["the CA became valid"] = certificate.not_valid_before_utc
    except (OSError, ValueError):
        pass  # told by the check of the CA
    for what, moment in past.items():
        if moment is not None and now < moment:
            yield fail(
                "clock",
                f"it shows {now:%Y-%m-%d %H:%M} UTC, and {what} on {moment:%Y-%m-%d}",
                "set this machine's clock (timedatectl set-ntp true)",
            )
            return
    yield ok("clock", f"{now:%Y-%m-%d %H:%M} UTC")


def check_versions() -> Iterator[Finding]:
    """Python and the packages whose insides are used, against what was tested."""
    python = platform.python_version()
    if sys.version_info[: len(PYTHON_LEAST)] < PYTHON_LEAST:
        yield fail("versions", f"Python {python}", f"run it with Python >= {_dotted(PYTHON_LEAST)}")
        return
    parts = [f"Python {python}"]
    for package, (least, below) in PINNED.items():
        version = _installed(package)
        if not least <= _numbers(version) < below:
            wanted = f"'{package}>={_dotted(least)},<{_dotted(below)}'"
            yield fail(
                "versions",
                f"{package} {version} is not a version that coatcheck was made for",
                f"pip install {wanted}",
            )
        parts.append(f"{package} {version}")
    yield ok("versions", ", ".join(parts))


def check_core_dumps(found: Running | None) -> Iterator[Finding]:
    """A core dump is a file with values in it."""
    for pid in dict.fromkeys((found.pid, *found.workers) if found is not None else ()):
        if (limit := _core_limit(pid)) not in (None, "0"):
            yield fail(
                "core_dumps",
                f"process {pid} may write a core dump (limit: {limit} bytes)",
                "it is not as `coatcheck serve` leaves it: restart it",
            )
            return
    soft, _ = resource.getrlimit(resource.RLIMIT_CORE)
    if soft != 0:
        yield warn(
            "core_dumps",
            "on in this shell: a crash of `coatcheck secret set` could write a value to the disk"
            " (the proxy switches them off for itself)",
            "ulimit -c 0",
        )
        return
    yield ok("core_dumps", "off")


def check_key_logs(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Variables by which TLS keys would be written to a file."""
    for variable in KEY_LOG_VARIABLES:
        if environ.get(variable):
            yield fail(
                "key_log",
                f"{variable} is set: TLS keys would be written to a file, and serve does not start",
                f"unset {variable}",
            )
    yield ok("key_log", "no variable asks for TLS keys")


def _is_coatcheck(pid: object) -> bool:
    """Whether the process is one of ours: after a crash its number may be another program's."""
    try:
        return b"coatcheck" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return True  # no /proc here, so the number is all there is


def reachable(host: str) -> str:
    """An address at which what listens at *host* is reached from here."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104


def _accepts(host: str, port: int) -> bool:
    try:
        socket.create_connection((reachable(host), port), CONNECT_S).close()
    except OSError:
        return False
    return True


def _bind(host: str, port: int) -> None:
    """Listen as the proxy would, and stop at once. Raises `OSError`."""
    infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    for family, kind, protocol, _, address in infos:
        with socket.socket(family, kind, protocol) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(address)
            sock.listen(1)


def _port_remedy(error: OSError) -> str:
    remedies = {
        errno.EADDRINUSE: "end the program that listens there (ss -ltnp), or set listen: HOST:PORT",
        errno.EACCES: "ports below 1024 need a right: set listen: to a higher one",
        errno.EADDRNOTAVAIL: "this machine has no such address: correct listen: HOST:PORT",
    }
    return remedies.get(error.errno or 0, "correct listen: HOST:PORT in the settings")


def _core_limit(pid: int) -> str | None:
    """The soft limit of another process, bytes or ``unlimited``; None where it cannot be read."""
    try:
        lines = Path(f"/proc/{pid}/limits").read_text("ascii").splitlines()
    except (OSError, ValueError):
        return None
    for line in lines:
        if line.startswith("Max core file size"):
            return line.removeprefix("Max core file size").split()[0]
    return None


def _installed(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "(not installed)"


def _released(version: str) -> datetime.datetime | None:
    """The date that certifi's version is."""
    try:
        year, month, day = map(int, version.split(".")[:3])
        return datetime.datetime(year, month, day, tzinfo=datetime.UTC)
    except ValueError:
        return None


def _numbers(version: str) -> Version:
    numbers = []
    for part in version.split("."):
        if not part.isdigit():
            break
        numbers.append(int(part))
    return tuple(numbers)


def _dotted(version: Version) -> str:
    return ".".join(map(str, version))


def _shown(address: tuple[str, int]) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
