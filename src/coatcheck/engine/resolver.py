"""From a canonical host to addresses that may be dialled: looked up once, every answer vetted.

The usual hole is to check a name and to resolve it again when connecting. Here the caller gets
addresses and dials these. One bad answer spoils them all: a set of a public and a private address
is what an attacker's name server sends, not what an operator means.

Two things are not left to the C library:

- Search domains. ``allowed`` must not become ``allowed.corp.internal``, so names are asked for
  with a trailing dot. In Kubernetes this means full names (``api.ns.svc.cluster.local``).
- The hosts file. With a trailing dot glibc does not find ``api.example.test`` there (tried with
  2.36: it compares the text), and without one it would apply search domains to names that are
  missing. So the file is read here first, and DNS is not asked for a name that stands in it.

An address that a router in front maps to this machine (a cloud's public address, say) is on no
interface, so it is not known as own; the firewall has to keep it.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from coatcheck.core import internal
from coatcheck.core.address import Network, Reason, Socket, next_step, vet
from coatcheck.core.destination import BadHost, canonical_host
from coatcheck.core.problems import Code, Problem, Refused

THREADS = 16  # a slow name server must not keep other names waiting
DEADLINE_S = 10.0  # for one lookup, whatever the caller's own deadline
TTL_S = 5.0  # how long answers are kept; the lookup does not tell the record's own
STALE_S = 300.0  # how long older answers do, where a lookup is stuck (RFC 8767)
STALE_AFTER_S = 1.8  # a lookup that takes longer is stuck (RFC 8767, section 5)
MAX_CACHED = 1024  # names
MAX_DIALLED = 16  # addresses handed out for one name; all are vetted
OWN_TTL_S = 5.0

type Lookup = Callable[[str], Sequence[str]]
type OwnAddresses = Callable[[], Collection[str]]

# RFC 6761, section 6.3: never a question for DNS, even where the hosts file lacks it.
LOCALHOST = ("127.0.0.1", "::1")


class HostsFile:
    """``/etc/hosts``, read again when it changes. A missing file holds no names."""

    def __init__(self, path: Path = Path("/etc/hosts")) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._names: dict[str, tuple[str, ...]] = {}

    def find(self, host: str) -> tuple[str, ...]:
        """The addresses of *host* (canonical), in the order of the file; none: not in the file."""
        try:
            stat = self._path.stat()
            seen = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
            if seen != self._seen:
                self._names = _parse_hosts(self._path.read_text("utf-8", errors="replace"))
                self._seen = seen
        except OSError:
            return ()
        return self._names.get(host, ())


class Resolver:
    """Resolves and vets. One for each event loop; `close` at its end.

    Args:
        own_sockets: Where this proxy listens, now; asked each time, since ports are bound late.
        own_addresses: Of every local interface.
        lookup: A name with a trailing dot in, addresses out; blocking, raises OSError.
    """

    def __init__(
        self,
        *,
        own_sockets: Callable[[], Collection[Socket]] = tuple,
        own_addresses: OwnAddresses | None = None,
        lookup: Lookup | None = None,
        hosts: HostsFile | None = None,
        deadline_s: float = DEADLINE_S,
        ttl_s: float = TTL_S,
        stale_after_s: float = STALE_AFTER_S,
    ) -> None:
        self._own_sockets = own_sockets
        self._own_addresses = own_addresses or InterfaceAddresses()
        self._lookup = lookup or system_lookup
        self._hosts = hosts or HostsFile()
        self._deadline_s = deadline_s
        self._ttl_s = ttl_s
        self._stale_after_s = stale_after_s
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="resolver")
        self._cache: dict[str, tuple[float, tuple[str, ...]]] = {}
        self._pending: dict[str, asyncio.Task[tuple[str, ...]]] = {}

    async def resolve(self, host: str, port: int, *, allowed: Sequence[Network] = ()) -> list[str]:
        """The addresses of *host* that may be dialled on *port*, best first, at least one.

        Args:
            host: Canonical (`core.destination.canonical_host`).
            allowed: ``egress.networks`` of the policy in force. What is kept between calls is
                the answers, not the verdict, so a changed policy counts at once.

        Raises:
            Refused: address_not_allowed, or upstream_unreachable (no answer, or too late); the
                same words whatever was found, so that they map no network.
        """
        answers = await self._answers(host)
        if not answers:
            raise _unreachable(host)
        own = self._own_addresses()
        sockets = self._own_sockets()
        verdicts = {
            answer: vet(answer, port, allowed=allowed, own_addresses=own, own_sockets=sockets)
            for answer in answers
        }
        good = [answer for answer, reason in verdicts.items() if reason is None]
        bad = {answer: reason for answer, reason in verdicts.items() if reason is not None}
        if bad and not (good and _is_loopback_pair(verdicts)):
            raise _not_allowed(host, bad)
        return good[:MAX_DIALLED]

    def close(self) -> None:
        """Let no further lookup start; those that run end by themselves."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _answers(self, host: str) -> tuple[str, ...]:
        if _is_address(host):
            return (_canonical_address(host),)
        if not _is_canonical(host) or internal.is_reserved(host):
            return ()
        now = time.monotonic()
        until, kept = self._cache.get(host, (0.0, ()))
        if until > now:
            return kept
        # Names that are never answered can hold every thread. They must not shut out those that
        # were; and old answers are vetted like new ones.
        stale = kept if until + STALE_S > now else ()
        try:
            async with asyncio.timeout(self._stale_after_s if stale else self._deadline_s):
                # Shielded: others may be waiting for the same name.
                return await asyncio.shield(self._shared_lookup(host))
        except TimeoutError:
            return stale

    def _shared_lookup(self, host: str) -> asyncio.Task[tuple[str, ...]]:
        task = self._pending.get(host)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._look_up(host))
            self._pending[host] = task
            task.add_done_callback(lambda _: self._pending.pop(host, None))
        return task

    async def _look_up(self, host: str) -> tuple[str, ...]:
        loop = asyncio.get_running_loop()
        answers = await loop.run_in_executor(self._threads, self._blocking_lookup, host)
        if answers:
            self._keep(host, answers)
        return answers

    def _blocking_lookup(self, host: str) -> tuple[str, ...]:
        answers: Sequence[str] = self._hosts.find(host)
        if not answers and (host == "localhost" or host.endswith(".localhost")):
            answers = LOCALHOST
        if not answers:
            try:
                answers = self._lookup(host + ".")
            except (OSError, ValueError):
                return ()
        return tuple(dict.fromkeys(map(_canonical_address, answers)))

    def _keep(self, host: str, answers: tuple[str, ...]) -> None:
        now = time.monotonic()
        if len(self._cache) >= MAX_CACHED:
            self._cache = {name: kept for name, kept in self._cache.items() if kept[0] > now}
        if len(self._cache) >= MAX_CACHED:
            del self._cache[next(iter(self._cache))]
        self._cache[host] = (now + self._ttl_s, answers)


def system_lookup(name: str) -> list[str]:
    """What the system's resolver answers for *name* (ASCII), IPv4 and IPv6, best first.

    Raises:
        OSError: no such name, or no answer.
    """
    # Bytes: a str would go through Python's IDNA 2003 codec.
    infos = socket.getaddrinfo(name.encode("ascii"), None, type=socket.SOCK_STREAM)
    return [str(info[4][0]) for info in infos]


class InterfaceAddresses:
    """The addresses of every interface of this machine, as canonical text; looked up every 5 s.

    Linux tells them in /proc. Elsewhere it is what the machine's own name resolves to, which may
    be less: there, deny the machine's public addresses in the policy.
    """

    def __init__(self, proc: Path = Path("/proc/net")) -> None:
        self._proc = proc
        self._until = 0.0
        self._addresses: frozenset[str] = frozenset()

    def __call__(self) -> frozenset[str]:
        now = time.monotonic()
        if now >= self._until:
            self._addresses = self._read() or _addresses_of_own_name()
            self._until = now + OWN_TTL_S
        return self._addresses

    def _read(self) -> frozenset[str]:
        found: set[str] = set()
        for name, parse in (("fib_trie", _parse_fib_trie), ("if_inet6", _parse_if_inet6)):
            try:
                found |= parse((self._proc / name).read_text("ascii"))
            except (OSError, ValueError):
                continue  # a kernel without IPv6 has no if_inet6
        return frozenset(found)


def _parse_fib_trie(text: str) -> set[str]:
    """An own address is a leaf ``|-- 10.1.2.3`` with the line ``/32 host LOCAL`` below it."""
    found = set()
    leaf = ""
    for line in text.splitlines():
        words = line.split()
        if words[:1] == ["|--"]:
            leaf = words[1]
        elif words == ["/32", "host", "LOCAL"] and leaf:
            found.add(str(ipaddress.IPv4Address(leaf)))
    return found


def _parse_if_inet6(text: str) -> set[str]:
    """One address a line, 32 hexadecimal digits first."""
    return {
        str(ipaddress.IPv6Address(bytes.fromhex(line.split()[0])))
        for line in text.splitlines()
        if line.strip()
    }


def _addresses_of_own_name() -> frozenset[str]:
    try:
        infos = socket.getaddrinfo(socket.gethostname(), None, type=socket.SOCK_STREAM)
    except OSError:
        return frozenset()
    return frozenset(_canonical_address(str(info[4][0])) for info in infos)


def _parse_hosts(text: str) -> dict[str, tuple[str, ...]]:
    names: dict[str, tuple[str, ...]] = {}
    for line in text.splitlines():
        words = line.partition("#")[0].split()
        for name in words[1:]:
            key = name.lower().removesuffix(".")
            names[key] = (*names.get(key, ()), words[0])
    return names


def _is_loopback_pair(verdicts: dict[str, Reason | None]) -> bool:
    # ``localhost`` is 127.0.0.1 and ::1, and a policy may name one of them. Nobody gains by the
    # other answer, so the one that is named is dialled.
    return all(
        reason in (None, Reason.LOOPBACK) and ipaddress.ip_address(answer).is_loopback
        for answer, reason in verdicts.items()
    )


def _is_address(host: str) -> bool:
    return ":" in host or host.rpartition(".")[2].isdigit()


def _is_canonical(host: str) -> bool:
    try:
        return canonical_host(host) == host
    except BadHost:
        return False


def _canonical_address(text: str) -> str:
    """As the kernel's getpeername would write it; a zone and what is no address stay, for `vet`."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return text
    return str(getattr(address, "ipv4_mapped", None) or address)


def _unreachable(host: str) -> Refused:
    detail = "The destination cannot be reached."
    return Refused(Problem(Code.UPSTREAM_UNREACHABLE, detail, host=host))


def _not_allowed(host: str, bad: dict[str, Reason]) -> Refused:
    found = ", ".join(f"{address} ({reason})" for address, reason in sorted(bad.items())[:3])
    steps = dict.fromkeys(next_step(reason) for _, reason in sorted(bad.items()))
    return Refused(
        Problem(
            Code.ADDRESS_NOT_ALLOWED,
            "The destination is at an address that clients may not reach.",
            host=host,
            operator=f"refused: {found}; {'; '.join(steps)}",
        )
    )
