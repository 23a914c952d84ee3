"""Looked up once, every answer vetted."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from coatcheck.core.problems import Code, Refused
from coatcheck.engine import resolver as resolver_module
from coatcheck.engine.resolver import (
    MAX_CACHED,
    MAX_DIALLED,
    HostsFile,
    InterfaceAddresses,
    Resolver,
    system_lookup,
)

PUBLIC = "93.184.216.34"
PUBLIC6 = "2606:2800:220:1::1"
LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"),)


class Names:
    """A name server that notes what it is asked; a list of answers is worked off, call by call."""

    def __init__(self, names: Mapping[str, tuple[str, ...] | list[tuple[str, ...]]]):
        self._names = dict(names)
        self.asked: list[str] = []

    def __call__(self, name: str) -> Sequence[str]:
        self.asked.append(name)
        if name not in self._names:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        answer = self._names[name]
        if isinstance(answer, list):
            return answer.pop(0)
        return answer


def a_resolver(names: Names, hosts: Path | None = None, **more: object) -> Resolver:
    return Resolver(
        lookup=names,
        hosts=HostsFile(hosts or Path("/nonexistent/hosts")),
        own_addresses=lambda: {"127.0.0.1", "::1", "198.41.0.4"},
        own_sockets=lambda: [("127.0.0.1", 8081), ("0.0.0.0", 8080)],
        **more,  # type: ignore[arg-type]
    )


async def refused(resolver: Resolver, host: str, port: int = 443) -> Code:
    with pytest.raises(Refused) as error:
        await resolver.resolve(host, port)
    return error.value.problem.code


async def test_all_answers_are_handed_out_in_order_and_once() -> None:
    names = Names({"api.example.": (PUBLIC6, PUBLIC, PUBLIC6)})
    assert await a_resolver(names).resolve("api.example", 443) == [PUBLIC6, PUBLIC]


async def test_a_name_is_asked_with_a_trailing_dot_so_that_no_search_domain_applies() -> None:
    names = Names({"api.example.": (PUBLIC,), "api.example": (PUBLIC,)})
    await a_resolver(names).resolve("api.example", 443)
    assert names.asked == ["api.example."]


@pytest.mark.parametrize(
    "answers",
    [
        pytest.param(("10.0.0.1",), id="private"),
        pytest.param(("127.0.0.1",), id="loopback"),
        pytest.param(("169.254.169.254",), id="metadata"),
        pytest.param(("168.63.129.16",), id="a platform address in a public range"),
        pytest.param(("198.41.0.4",), id="an own public address"),
        pytest.param(("::ffff:10.0.0.1",), id="mapped"),
        pytest.param(("64:ff9b::a00:1",), id="NAT64 of private"),
        pytest.param(("fe80::1%2",), id="a zone"),
        pytest.param(("nonsense",), id="no address at all"),
        pytest.param((PUBLIC, "10.0.0.1"), id="public first, private second"),
        pytest.param(("10.0.0.1", PUBLIC), id="private first, public second"),
        pytest.param((PUBLIC, "::1"), id="A good, AAAA bad"),
        pytest.param((PUBLIC,) * 200 + ("0.0.0.0",), id="one bad after 200 good"),
        pytest.param(
            (*(f"93.184.216.{n}" for n in range(200)), "0.0.0.0"), id="one bad beyond those dialled"
        ),
    ],
)
async def test_one_bad_answer_spoils_all(answers: tuple[str, ...]) -> None:
    names = Names({"x.example.": answers})
    assert await refused(a_resolver(names), "x.example") is Code.ADDRESS_NOT_ALLOWED


@pytest.mark.parametrize(
    ("host", "port", "code"),
    [
        pytest.param(PUBLIC, 443, None, id="a public address"),
        pytest.param(PUBLIC6, 443, None, id="a public IPv6 address"),
        pytest.param("10.0.0.1", 443, Code.ADDRESS_NOT_ALLOWED, id="a private address"),
        pytest.param("::1", 443, Code.ADDRESS_NOT_ALLOWED, id="IPv6 loopback"),
        pytest.param("127.1", 443, Code.ADDRESS_NOT_ALLOWED, id="a short address"),
        pytest.param("198.41.0.4", 443, Code.ADDRESS_NOT_ALLOWED, id="an own address"),
    ],
)
async def test_an_address_is_vetted_and_never_looked_up(
    host: str, port: int, code: Code | None
) -> None:
    names = Names({})
    resolver = a_resolver(names)
    if code is None:
        assert await resolver.resolve(host, port) == [host]
    else:
        assert await refused(resolver, host, port) is code
    assert names.asked == []


@pytest.mark.parametrize("host", ["API.example", "api.example.", "a b", "", "bücher.example"])
async def test_what_is_not_canonical_is_not_looked_up(host: str) -> None:
    names = Names({})
    assert await refused(a_resolver(names), host) is Code.UPSTREAM_UNREACHABLE
    assert names.asked == []


@pytest.mark.parametrize(
    ("host", "asked"),
    [
        pytest.param("coatcheck.internal", False, id="our own name"),
        pytest.param("www.coatcheck.internal", False, id="a name below it"),
        pytest.param("xcoatcheck.internal", True, id="one that only ends alike"),
    ],
)
async def test_our_own_name_is_never_asked_for(host: str, asked: bool) -> None:
    names = Names({})
    assert await refused(a_resolver(names), host) is Code.UPSTREAM_UNREACHABLE
    assert names.asked == ([host + "."] if asked else [])


async def test_own_ports_are_refused_even_where_loopback_is_allowed() -> None:
    names = Names({"evil.example.": ("127.0.0.1",)})
    resolver = a_resolver(names)
    for port in (8080, 8081):
        with pytest.raises(Refused):
            await resolver.resolve("evil.example", port, allowed=LOOPBACK)
    assert await resolver.resolve("evil.example", 8082, allowed=LOOPBACK) == ["127.0.0.1"]


async def test_a_changed_policy_counts_for_kept_answers() -> None:
    names = Names({"x.example.": ("127.0.0.1",)})
    resolver = a_resolver(names)
    assert await resolver.resolve("x.example", 443, allowed=LOOPBACK) == ["127.0.0.1"]
    assert await refused(resolver, "x.example") is Code.ADDRESS_NOT_ALLOWED
    assert len(names.asked) == 1


async def test_answers_are_kept_for_a_moment_and_vetted_again_when_they_change() -> None:
    names = Names({"x.example.": [(PUBLIC,), ("10.0.0.1",)]})
    resolver = a_resolver(names, ttl_s=0.05)
    assert await resolver.resolve("x.example", 443) == [PUBLIC]
    assert await resolver.resolve("x.example", 443) == [PUBLIC]
    assert len(names.asked) == 1
    await asyncio.sleep(0.06)
    assert await refused(resolver, "x.example") is Code.ADDRESS_NOT_ALLOWED


async def test_a_missing_name_is_unreachable_and_asked_again() -> None:
    names = Names({})
    resolver = a_resolver(names)
    assert await refused(resolver, "no.example") is Code.UPSTREAM_UNREACHABLE
    assert await refused(resolver, "no.example") is Code.UPSTREAM_UNREACHABLE
    assert len(names.asked) == 2


async def test_an_empty_answer_is_unreachable() -> None:
    assert await refused(a_resolver(Names({"x.example.": ()})), "x.example") is (
        Code.UPSTREAM_UNREACHABLE
    )


async def test_a_slow_name_server_ends_at_the_deadline_and_is_asked_once() -> None:
    gate = threading.Event()
    asked = []

    def slow(name: str) -> list[str]:
        asked.append(name)
        gate.wait(10)
        return [PUBLIC]

    resolver = Resolver(lookup=slow, own_addresses=tuple, deadline_s=0.05)
    try:
        codes = await asyncio.gather(*(refused(resolver, "slow.example") for _ in range(20)))
    finally:
        gate.set()
    assert set(codes) == {Code.UPSTREAM_UNREACHABLE}
    assert asked == ["slow.example."]


async def test_a_cancelled_waiter_leaves_the_lookup_to_the_others() -> None:
    gate = threading.Event()

    def slow(_name: str) -> list[str]:
        gate.wait(10)
        return [PUBLIC]

    resolver = Resolver(lookup=slow, own_addresses=tuple)
    first = asyncio.create_task(resolver.resolve("slow.example", 443))
    second = asyncio.create_task(resolver.resolve("slow.example", 443))
    await asyncio.sleep(0)
    first.cancel()
    gate.set()
    assert await second == [PUBLIC]


async def test_what_is_kept_and_handed_out_is_bounded() -> None:
    many = [f"93.184.{n}.1" for n in range(200)]
    resolver = Resolver(lookup=lambda _name: many, own_addresses=tuple, hosts=HostsFile(Path("/x")))
    assert await resolver.resolve("h.example", 443) == many[:MAX_DIALLED]
    for number in range(MAX_CACHED + 50):
        resolver._keep(f"h{number}.example", (PUBLIC,))
    assert len(resolver._cache) == MAX_CACHED


async def test_refusals_say_nothing_of_addresses_to_the_client() -> None:
    """What differs goes to the operator alone (SSRF-07)."""
    bodies = set()
    for answer in ("10.0.0.1", "127.0.0.1", "169.254.169.254", "198.41.0.4"):
        with pytest.raises(Refused) as error:
            await a_resolver(Names({"x.example.": (answer,)})).resolve("x.example", 443)
        bodies.add(error.value.problem.body("id"))
        assert answer in error.value.problem.operator
        own = answer in {"127.0.0.1", "198.41.0.4"}
        assert ("the proxy's own machine" in error.value.problem.operator) == own
    assert len(bodies) == 1


# --- hosts file and localhost ----------------------------------------------------------------


@pytest.fixture
def hosts(tmp_path: Path) -> Path:
    path = tmp_path / "hosts"
    path.write_text(
        "# comment\n"
        f"{PUBLIC} api.example.test other.example.test # trailing\n"
        f"{PUBLIC6}\tAPI.Example.Test\n"
        "10.0.0.1 mixed.example.test\n"
        f"{PUBLIC} mixed.example.test\n"
        "127.0.0.1 localhost\n::1 localhost\n"
        "\n"
    )
    return path


async def test_the_hosts_file_answers_before_dns(hosts: Path) -> None:
    names = Names({"api.example.test.": ("10.0.0.1",)})
    resolver = a_resolver(names, hosts)
    assert await resolver.resolve("api.example.test", 443) == [PUBLIC, PUBLIC6]
    assert await resolver.resolve("other.example.test", 443) == [PUBLIC]
    assert names.asked == []


async def test_the_hosts_file_is_vetted_too(hosts: Path) -> None:
    resolver = a_resolver(Names({}), hosts)
    assert await refused(resolver, "mixed.example.test") is Code.ADDRESS_NOT_ALLOWED


async def test_a_changed_hosts_file_counts(hosts: Path) -> None:
    resolver = a_resolver(Names({}), hosts, ttl_s=0)
    assert await resolver.resolve("other.example.test", 443) == [PUBLIC]
    await asyncio.to_thread(hosts.write_text, "93.184.216.99 other.example.test\n")
    assert await resolver.resolve("other.example.test", 443) == ["93.184.216.99"]


async def test_a_name_below_one_in_the_hosts_file_is_another_name(hosts: Path) -> None:
    names = Names({"a.api.example.test.": (PUBLIC,)})
    assert await a_resolver(names, hosts).resolve("a.api.example.test", 443) == [PUBLIC]
    assert names.asked == ["a.api.example.test."]


@pytest.mark.parametrize("host", ["localhost", "any.localhost"])
async def test_localhost_is_loopback_and_not_a_question_for_dns(host: str) -> None:
    names = Names({f"{host}.": (PUBLIC,)})
    resolver = a_resolver(names)
    assert await refused(resolver, host) is Code.ADDRESS_NOT_ALLOWED
    assert names.asked == []


async def test_of_two_loopback_addresses_the_named_one_is_dialled(hosts: Path) -> None:
    resolver = a_resolver(Names({}), hosts)
    assert await resolver.resolve("localhost", 443, allowed=LOOPBACK) == ["127.0.0.1"]


async def test_a_loopback_and_a_public_address_are_still_refused() -> None:
    names = Names({"x.example.": ("127.0.0.1", PUBLIC)})
    assert await refused(a_resolver(names), "x.example") is Code.ADDRESS_NOT_ALLOWED


async def test_a_real_lookup_of_localhost() -> None:
    resolver = Resolver()
    allowed = (*LOOPBACK, ipaddress.ip_network("::1/128"))
    assert set(await resolver.resolve("localhost", 9, allowed=allowed)) <= {"127.0.0.1", "::1"}
    assert await refused(resolver, "localhost") is Code.ADDRESS_NOT_ALLOWED
    resolver.close()


def test_the_system_lookup_answers_with_addresses() -> None:
    """The one call of getaddrinfo, with an address, so that no name server is needed."""
    assert system_lookup("127.0.0.1") == ["127.0.0.1"]
    with pytest.raises(UnicodeError):
        system_lookup("bücher.example")


# --- a name server that keeps silent ---------------------------------------------------------


class Silent(Names):
    """Answers until `stuck` is set; then every lookup waits for `freed`."""

    def __init__(self, names: Mapping[str, tuple[str, ...] | list[tuple[str, ...]]]) -> None:
        super().__init__(names)
        self.stuck = False
        self.freed = threading.Event()

    def __call__(self, name: str) -> Sequence[str]:
        if self.stuck:
            self.freed.wait(5)
        return super().__call__(name)


async def test_a_name_that_was_answered_is_dialled_while_every_thread_is_stuck() -> None:
    names = Silent({"api.example.": (PUBLIC,), **{f"n{n}.example.": () for n in range(40)}})
    resolver = a_resolver(names, ttl_s=0, deadline_s=0.3, stale_after_s=0.05)
    assert await resolver.resolve("api.example", 443) == [PUBLIC]
    names.stuck = True
    stuck = [asyncio.create_task(refused(resolver, f"n{n}.example")) for n in range(40)]
    await asyncio.sleep(0)
    try:
        assert await resolver.resolve("api.example", 443) == [PUBLIC]
        assert await refused(resolver, "new.example") is Code.UPSTREAM_UNREACHABLE
        assert set(await asyncio.gather(*stuck)) == {Code.UPSTREAM_UNREACHABLE}
    finally:
        names.freed.set()
    resolver.close()


@pytest.mark.parametrize(
    "later",
    [
        pytest.param(("10.0.0.1",), id="a private address"),
        pytest.param((), id="none"),
    ],
)
async def test_old_answers_give_way_to_any_new_one(later: tuple[str, ...]) -> None:
    names = Names({"api.example.": [(PUBLIC,), later]})
    resolver = a_resolver(names, ttl_s=0)
    assert await resolver.resolve("api.example", 443) == [PUBLIC]
    await refused(resolver, "api.example")


async def test_old_answers_do_not_do_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    names = Silent({"api.example.": (PUBLIC,)})
    resolver = a_resolver(names, ttl_s=0, deadline_s=0.05)
    monkeypatch.setattr(resolver_module, "STALE_S", 0.0)
    assert await resolver.resolve("api.example", 443) == [PUBLIC]
    names.stuck = True
    try:
        assert await refused(resolver, "api.example") is Code.UPSTREAM_UNREACHABLE
    finally:
        names.freed.set()
    resolver.close()


# --- own addresses ---------------------------------------------------------------------------

FIB_TRIE = """Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     +-- 192.0.2.0/24 2 0 2
        |-- 192.0.2.0
           /24 link UNICAST
        |-- 192.0.2.2
           /32 host LOCAL
        |-- 192.0.2.255
           /32 link BROADCAST
     +-- 127.0.0.0/8 2 0 2
        +-- 127.0.0.0/31 1 0 0
           |-- 127.0.0.0
              /8 host LOCAL
           |-- 127.0.0.1
              /32 host LOCAL
"""
IF_INET6 = """00000000000000000000000000000001 01 80 10 80       lo
26064700000000000000000000000005 04 40 00 82     eth0
"""


def test_own_addresses_come_from_proc(tmp_path: Path) -> None:
    (tmp_path / "fib_trie").write_text(FIB_TRIE)
    (tmp_path / "if_inet6").write_text(IF_INET6)
    assert InterfaceAddresses(tmp_path)() == {"192.0.2.2", "127.0.0.1", "::1", "2606:4700::5"}


def test_a_kernel_without_ipv6_still_tells_ipv4(tmp_path: Path) -> None:
    (tmp_path / "fib_trie").write_text(FIB_TRIE)
    assert InterfaceAddresses(tmp_path)() == {"192.0.2.2", "127.0.0.1"}


def test_without_proc_the_own_name_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "127.0.0.7")
    assert InterfaceAddresses(tmp_path / "missing")() == {"127.0.0.7"}


def test_the_address_that_this_machine_sends_from_is_own() -> None:
    """Against the kernel itself, not a sample of its files."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect((PUBLIC, 9))  # sends nothing
        except OSError:
            pytest.skip("no route to the outside")
        own = sock.getsockname()[0]
    assert own in InterfaceAddresses()()
