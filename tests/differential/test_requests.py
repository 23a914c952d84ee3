"""What the upstream parses is what we understood, and as many requests as we let out."""

from __future__ import annotations

import pytest

from tests.differential import framing, heads
from tests.differential.cases import Case, Table, get, post, shown
from tests.differential.lanes import Outcome, Read, a_snapshot, run
from tests.differential.readers import H11, Reader, Reading

CASES: Table[Case] = Table()
CASES |= heads.CASES
CASES |= framing.CASES
OUT = {why: case for why, case in CASES.items() if case.passes or case.cut}
EVERY_BYTE = 4000  # bytes; what is longer does not come byte by byte


def outcome(case: Case, step: int = 0) -> Outcome:
    return run(case.data, tunnel=case.tunnel, step=step)


def read_by(reader: Reader, seen: Outcome) -> Reading:
    """All that *reader* made of what was sent, on however many connections."""
    readings = [reader.read(sent) for sent in seen.sent]
    requests = [request for reading in readings for request in reading.requests]
    return Reading(requests, any(reading.refused for reading in readings))


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_what_passes_and_what_is_refused(case: Case) -> None:
    seen = outcome(case)

    assert not seen.crashed
    assert len(seen.understood) == case.passes, seen
    assert bool(seen.codes) is case.refused, seen
    assert seen.cut == case.cut
    if not case.passes and not case.cut:
        assert seen.sent == []
    if len(case.data) < EVERY_BYTE:  # and how it is cut changes nothing
        bytewise = outcome(case, step=1)
        assert bytewise.understood == seen.understood
        assert (bytewise.codes, bytewise.cut) == (seen.codes, seen.cut)


@pytest.mark.parametrize("case", OUT.values(), ids=OUT.keys())
def test_every_reader_reads_what_we_understood(case: Case, readers: list[Reader]) -> None:
    seen = outcome(case)

    for reader in readers:
        reading = read_by(reader, seen)
        if reader.name in case.refused_by:
            assert reading == Reading([], refused=True), reader.name
        else:
            assert reading.requests == seen.understood, reader.name
            assert case.cut or not reading.refused, reader.name


MEANT = {why: case for why, case in OUT.items() if case.tunnel and not case.refused}
NOT_TAKEN_BY_H11 = {
    "an empty line before the request",
    "pipelined, an empty line between",
    "chunks of JSON: trailers that frame",
    "chunks of octets: trailers that frame",
}


@pytest.mark.parametrize("why", MEANT)
def test_we_read_the_client_as_h11_does(why: str) -> None:
    case = MEANT[why]
    reading = H11(trailers=True).read(case.data)

    got = [(request.method, request.target, request.body) for request in reading.requests]
    came_in = outcome(case).came_in

    assert got == came_in[: len(got)]
    assert (len(got) < len(came_in)) is (why in NOT_TAKEN_BY_H11)


# --- values that are filled in ------------------------------------------------------------------

PLACES = {
    "a field": get(b"X-Key: {{secrets.key}}"),
    "the path": get(line=b"GET /a/{{secrets.key}}/b HTTP/1.1"),
    "the query": get(line=b"GET /a?k={{secrets.key}}&b HTTP/1.1"),
    "JSON": post(
        b"Content-Type: application/json", b"Content-Length: 23", body=b'{"a":"{{secrets.key}}"}'
    ),
    "a form": post(
        b"Content-Type: application/x-www-form-urlencoded",
        b"Content-Length: 19",
        body=b"a={{secrets.key}}&b",
    ),
    "text in chunks": post(
        b"Content-Type: text/plain",
        b"Transfer-Encoding: chunked",
        body=b"f\r\n{{secrets.key}}\r\n0\r\n\r\n",
    ),
}
SECRETS = {
    "CR LF": b"value\r\nX-B: 2",
    "a request": b"value\r\n\r\nGET /hidden HTTP/1.1\r\nHost: api.example.com\r\n\r\n",
    "LF": b"value\nX-B: 2",
    "CR": b"value\rX-B: 2",
    "LF at the end": b"value0123\n",
    "NUL": b"value\x000123",
    "DEL": b"value\x7f0123",
    "VT": b"value\x0b0123",
    "a blank": b"value 0123 HTTP/1.1",
    "a fragment": b"value#0123",
    "a query": b"value?a=b&c=d",
    "ways up": b"../../value//0123",
    "percent signs": b"value%0d%0a%00%zz",
    "quotes": b"value'\"\\0123",
    "UTF-8": "wértßvalue".encode(),
    "a placeholder": b"{{secrets.other}}",
    "a last chunk": b"0\r\n\r\nGET /hidden HTTP/1.1\r\nHost: api.example.com\r\n\r\n",
    "blanks around it": b" value0123 ",
    "every byte that is no control": bytes([*range(0x21, 0x7F), 0x20, *range(0x80, 0x100)]),
}
NOT_IN_A_FIELD = {"CR LF", "a request", "LF", "CR", "LF at the end", "NUL", "DEL", "VT"}
NOT_IN_A_FIELD |= {"a last chunk", "blanks around it"}
REFUSED = {("a field", what) for what in NOT_IN_A_FIELD}
REFUSED |= {("JSON", "every byte that is no control")}  # it is no text
# It decodes a path before it looks at it.
REFUSED_BY_NGINX = {("the path", "NUL"), ("the path", "ways up")}


@pytest.mark.parametrize("what", SECRETS)
@pytest.mark.parametrize("place", PLACES)
def test_a_value_stays_in_its_place(place: str, what: str, readers: list[Reader]) -> None:
    """It is refused, or read as a piece of the one request."""
    snapshot = a_snapshot({"key": SECRETS[what], "other": b"another value"})
    seen = run(PLACES[place], snapshot=snapshot)

    assert bool(seen.codes) is ((place, what) in REFUSED), seen.codes
    assert len(seen.understood) == (not seen.codes)
    for reader in readers:
        reading = read_by(reader, seen)
        if reader.name == "nginx" and (place, what) in REFUSED_BY_NGINX:
            assert reading == Reading([], refused=True)
        else:
            assert reading == Reading(seen.understood, refused=False)


# --- one byte wrong -----------------------------------------------------------------------------

BASES = {
    "a GET": get(b"Accept: */*", b"X-Key: {{secrets.key}}"),
    "a POST": post(b"Content-Type: text/plain", b"Content-Length: 5", body=b"hello"),
    "chunks": post(b"Transfer-Encoding: chunked", body=b"5;a=b\r\nhello\r\n0\r\nX: 1\r\n\r\n"),
}
INSERTED = [
    b"\r",
    b"\n",
    b"\r\n",
    b"\r\n\r\n",
    b" ",
    b"\t",
    b":",
    b",",
    b";",
    b"0",
    b"\x00",
    b"\xff",
]


def inserted(data: bytes, what: bytes) -> set[bytes]:
    return {data[:at] + what + data[at:] for at in range(len(data) + 1)}


MUTATIONS = {
    f"{shown(what)} put anywhere into {base}": inserted(data, what)
    for base, data in BASES.items()
    for what in INSERTED
}
MUTATIONS |= {
    f"a byte left out of {base}": {data[:at] + data[at + 1 :] for at in range(len(data))}
    for base, data in BASES.items()
}
MUTATIONS |= {
    f"two bytes of {base} turned round": {
        data[:at] + data[at : at + 2][::-1] + data[at + 2 :] for at in range(len(data))
    }
    for base, data in BASES.items()
}


@pytest.mark.parametrize("mutated", MUTATIONS.values(), ids=MUTATIONS.keys())
def test_whatever_passes_is_read_as_we_understood_it(
    mutated: set[bytes], readers: list[Reader]
) -> None:
    """A reader may refuse what it is stricter about, and what follows; it reads nothing else."""
    for data in sorted(mutated):
        seen = run(data + get(line=b"GET /next HTTP/1.1"))
        assert not seen.crashed, data
        for reader in readers:
            reading = read_by(reader, seen)
            known = seen.understood[: len(reading.requests)] if reading.refused else seen.understood
            assert reading.requests == known, (reader.name, data)


def test_a_mutation_of_each_kind_passes_and_is_refused() -> None:
    """Otherwise the test above would look at nothing."""
    kinds = {bool(run(data).codes) for many in MUTATIONS.values() for data in sorted(many)[::40]}
    assert kinds == {True, False}
    assert all(len(run(data).understood) == 1 for data in BASES.values())


def test_the_requests_of_a_reader_are_compared_in_full() -> None:
    one = Read(b"GET", b"/", ((b"host", b"a"),), b"")

    for other in (
        Read(b"PUT", b"/", ((b"host", b"a"),), b""),
        Read(b"GET", b"/a", ((b"host", b"a"),), b""),
        Read(b"GET", b"/", ((b"host", b"a"), (b"x", b"")), b""),
        Read(b"GET", b"/", ((b"host", b"a"),), b"a"),
    ):
        assert one != other
