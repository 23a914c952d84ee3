"""Who is asking: what is a credential, which client it stands for, and that a no is only a no."""

from __future__ import annotations

import base64
import hmac
import ipaddress

import pytest

from coatcheck.core.identity import (
    MAX_CREDENTIAL,
    BadCredential,
    ClientTable,
    Credential,
    read_credential,
    token_digest,
)
from coatcheck.core.policy import Client


def a_client(name: str, token: bytes | None = None, *networks: str) -> Client:
    digest = None if token is None else token_digest(token)
    return Client(name, digest, tuple(map(ipaddress.ip_network, networks)))


def basic(name: str, token: bytes) -> Credential:
    return Credential(name, token_digest(token))


def bearer(token: bytes) -> Credential:
    return Credential(None, token_digest(token))


# --- reading ---------------------------------------------------------------------------------


def encoded(text: bytes) -> bytes:
    return base64.b64encode(text)


@pytest.mark.parametrize(
    ("value", "credential"),
    [
        pytest.param(b"Basic " + encoded(b"a:t"), basic("a", b"t"), id="Basic"),
        pytest.param(b"bAsIc " + encoded(b"a:t"), basic("a", b"t"), id="a scheme has no case"),
        pytest.param(b" Basic  %b " % encoded(b"a:t"), basic("a", b"t"), id="blanks around"),
        pytest.param(b"Basic " + encoded(b"a:t:u"), basic("a", b"t:u"), id="colons in the token"),
        pytest.param(b"Basic " + encoded(b"a:"), basic("a", b""), id="an empty token is a token"),
        pytest.param(b"Basic " + encoded(b":t"), basic("", b"t"), id="an empty name is a name"),
        pytest.param(
            b"Basic " + encoded("Zoë:t".encode()), basic("Zoë", b"t"), id="a name in UTF-8"
        ),
        pytest.param(
            b"Basic " + encoded(b"a:\xff\0"), basic("a", b"\xff\0"), id="a token of any bytes"
        ),
        pytest.param(b"Bearer t", bearer(b"t"), id="Bearer"),
        pytest.param(b"BEARER  t", bearer(b"t"), id="Bearer in capitals"),
        pytest.param(b"Bearer t u", bearer(b"t u"), id="a blank within a token belongs to it"),
    ],
)
def test_a_credential_is_read(value: bytes, credential: Credential) -> None:
    assert read_credential([value]) == credential


def test_no_field_is_no_credential() -> None:
    assert read_credential([]) is None


@pytest.mark.parametrize(
    "values",
    [
        pytest.param([b"Bearer t", b"Bearer t"], id="two fields, even alike"),
        pytest.param([b"Bearer " + b"t" * MAX_CREDENTIAL], id="oversized"),
        pytest.param([b""], id="empty"),
        pytest.param([b"Bearer"], id="Bearer without a token"),
        pytest.param([b"Bearer   "], id="Bearer with blanks for a token"),
        pytest.param([b"Basic"], id="Basic without anything"),
        pytest.param([b"Basic " + encoded(b"name only")], id="Basic without a colon"),
        pytest.param([b"Basic " + encoded(b"a:t")[:-1]], id="base64 that is cut off"),
        pytest.param([b"Basic a:t"], id="not base64"),
        pytest.param([b"Basic %b%b" % (encoded(b"a:t"), b"!")], id="base64 and more"),
        pytest.param([b"Basic " + encoded(b"\xff\xfe:t")], id="a name that is not UTF-8"),
        pytest.param([b"Digest username=a"], id="another scheme"),
        pytest.param([b"Basic\t" + encoded(b"a:t")], id="a tab behind the scheme"),
        pytest.param([encoded(b"a:t")], id="no scheme"),
    ],
)
def test_what_is_no_credential_is_refused_and_not_taken_for_none(values: list[bytes]) -> None:
    with pytest.raises(BadCredential) as error:
        read_credential(values)

    rest = [value.partition(b" ")[2].strip() for value in values]
    assert not any(len(t) > 1 and t.decode("latin-1") in str(error.value) for t in rest)


def test_the_longest_credential() -> None:
    token = b"t" * (MAX_CREDENTIAL - len(b"Bearer "))

    assert read_credential([b"Bearer " + token]) == bearer(token)


def test_a_credential_does_not_keep_the_token() -> None:
    credential = read_credential([b"Bearer hush-hush"])

    assert "hush-hush" not in repr(credential)
    assert credential is not None
    assert credential.digest == token_digest(b"hush-hush")


# --- who it is -------------------------------------------------------------------------------

TABLE = ClientTable(
    [
        a_client("tok", b"tok-token"),
        a_client("both", b"both-token", "10.1.0.0/16", "fd00::/8"),
        a_client("wide", None, "10.0.0.0/8"),
        a_client("narrow", None, "10.2.0.0/16", "2001:db8::/32"),
        a_client("one", None, "10.2.0.7/32"),
        a_client("empty", b""),
        a_client("nothing"),
    ]
)
INSIDE, OUTSIDE = "10.1.2.3", "192.0.2.1"


@pytest.mark.parametrize(
    ("address", "credential", "name"),
    [
        # by token
        pytest.param(OUTSIDE, basic("tok", b"tok-token"), "tok", id="name and token"),
        pytest.param(OUTSIDE, bearer(b"tok-token"), "tok", id="the token alone, as Bearer"),
        pytest.param(OUTSIDE, basic("tok", b"wrong"), None, id="wrong token"),
        pytest.param(OUTSIDE, basic("tok", b""), None, id="no token"),
        pytest.param(OUTSIDE, basic("tok", b"tok-toke"), None, id="a part of the token"),
        pytest.param(OUTSIDE, basic("tok", b"both-token"), None, id="another client's token"),
        pytest.param(OUTSIDE, basic("Tok", b"tok-token"), None, id="names have a case"),
        pytest.param(OUTSIDE, basic("nobody", b"tok-token"), None, id="wrong name, good token"),
        pytest.param(OUTSIDE, basic("", b"tok-token"), None, id="no name, good token"),
        pytest.param(OUTSIDE, bearer(b"wrong"), None, id="wrong Bearer"),
        pytest.param(
            OUTSIDE, bearer(token_digest(b"tok-token").encode()), None, id="the digest is no token"
        ),
        pytest.param(
            OUTSIDE, basic("nobody", b"no such client"), None, id="what unknown names compare with"
        ),
        pytest.param(OUTSIDE, bearer(b"no such client"), None, id="the same as Bearer"),
        pytest.param("not an address", bearer(b"tok-token"), "tok", id="a token needs no address"),
        # by both
        pytest.param(INSIDE, basic("both", b"both-token"), "both", id="both hold"),
        pytest.param("fd00::9", bearer(b"both-token"), "both", id="both hold, by IPv6"),
        pytest.param(OUTSIDE, basic("both", b"both-token"), None, id="network outside"),
        pytest.param(OUTSIDE, bearer(b"both-token"), None, id="network outside, Bearer"),
        pytest.param("not an address", bearer(b"both-token"), None, id="no address, no network"),
        pytest.param(INSIDE, basic("both", b"wrong"), None, id="network inside, wrong token"),
        pytest.param(INSIDE, basic("tok", b"both-token"), None, id="network of the other one"),
        # by network
        pytest.param("10.200.0.1", None, "wide", id="a network"),
        pytest.param("10.2.9.9", None, "narrow", id="the longest network wins"),
        pytest.param("10.2.0.7", None, "one", id="a single address is the longest of all"),
        pytest.param("2001:db8::1", None, "narrow", id="IPv6"),
        pytest.param(INSIDE, None, "wide", id="one that needs a token is not found by network"),
        pytest.param("fd00::9", None, None, id="not even if no other network fits"),
        pytest.param(OUTSIDE, None, None, id="no network"),
        pytest.param("", None, None, id="no address"),
        pytest.param(INSIDE, basic("wide", b""), None, id="a network client has no token to send"),
        pytest.param(INSIDE, basic("wide", b"x"), None, id="a wrong credential is no missing one"),
        pytest.param(INSIDE, bearer(b"x"), None, id="nor is a wrong Bearer"),
        # dual-stack listeners
        pytest.param("::ffff:10.2.0.7", None, "one", id="IPv4 that came by IPv6"),
        pytest.param("::ffff:10.1.2.3", bearer(b"both-token"), "both", id="the same with a token"),
        pytest.param("::ffff:192.0.2.1", None, None, id="mapped, and outside"),
        pytest.param("::10.2.0.7", None, None, id="IPv4-compatible is not mapped"),
        # odd tables
        pytest.param(OUTSIDE, basic("nothing", b""), None, id="neither token nor network: nobody"),
    ],
)
def test_who_it_is(address: str, credential: Credential | None, name: str | None) -> None:
    client = TABLE.identify(address, credential)

    assert (client.name if client else None) == name


def test_a_policy_without_clients_knows_nobody() -> None:
    table = ClientTable([])

    assert table.identify("127.0.0.1", None) is None
    assert table.identify("127.0.0.1", basic("a", b"t")) is None
    assert table.identify("127.0.0.1", bearer(b"no such client")) is None


@pytest.mark.parametrize("credential", [basic("tok", b"x"), basic("nobody", b"x"), bearer(b"x")])
def test_every_credential_is_compared_once_in_constant_time(
    credential: Credential, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unknown name costs what a wrong token costs, so time tells no names."""
    compared: list[tuple[str, str]] = []

    def compare(left: str, right: str) -> bool:
        compared.append((left, right))
        return left == right

    monkeypatch.setattr(hmac, "compare_digest", compare)

    assert TABLE.identify(OUTSIDE, credential) is None
    assert [len(left) for left, _ in compared] == [64]
