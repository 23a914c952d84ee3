"""Which connection is let in, which one makes room for it, and what is refused."""

from __future__ import annotations

import pytest

from coatcheck.core.limits import Limits
from coatcheck.core.problems import Code, Refused
from coatcheck.engine.admission import RESERVED_FILES, Admission, Ticket

A, B = "192.0.2.1", "192.0.2.2"


class Door:
    """An `Admission`, and which connections it closed (by the names given here)."""

    def __init__(
        self, *, each: int = 3, total: int = 100, files: int | None = None, resting: int = 0
    ) -> None:
        self.told: list[tuple[str, int]] = []
        self.closed: list[str] = []
        limits = Limits(
            connections_per_client=each, connections=total, upstream_idle_connections=resting
        )
        self.admission = Admission(limits, self._log, files=files)

    def _log(self, event: str, /, **fields: int) -> None:
        self.told.append((event, fields.get("count", 0)))

    def enter(self, name: str, address: str = A, client: str = "") -> Ticket:
        ticket = self.admission.admit(address, lambda: self.closed.append(name))
        assert ticket is not None, name
        if client:
            ticket.identify(client)
        return ticket

    def is_full(self, address: str = A) -> bool:
        return self.admission.admit(address, lambda: None) is None


# --- who has not said who it is --------------------------------------------------------------


def test_the_oldest_of_an_address_makes_room() -> None:
    door = Door(each=3)
    door.enter("before all", B)
    for name in "12345":
        door.enter(name)

    assert door.closed == ["1", "2"], "and nobody of another address"


def test_who_has_left_makes_no_room() -> None:
    door = Door(each=3)
    for name in "123":
        door.enter(name).close()
    for name in "456":
        door.enter(name)

    assert door.closed == []


def test_a_known_one_of_the_same_address_stays() -> None:
    door = Door(each=2)
    door.enter("honest", client="runner")
    for name in "123":
        door.enter(name)

    assert door.closed == ["1"]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        pytest.param("192.0.2.1", "192.0.2.2", False, id="two IPv4 addresses are two"),
        pytest.param("192.0.2.1", "::ffff:192.0.2.1", True, id="the same, mapped into IPv6"),
        pytest.param("2001:db8::1", "2001:db8::2:1", True, id="one IPv6 network of 64 bits is one"),
        pytest.param("2001:db8::1", "2001:db8:0:1::1", False, id="two of them are two"),
        pytest.param("fe80::1%eth0", "fe80::2%eth0", True, id="with a zone too"),
        pytest.param("", "", True, id="no address is one"),
    ],
)
def test_what_counts_as_one_address(one: str, other: str, same: bool) -> None:
    door = Door(each=1)
    door.enter("first", one)
    door.enter("second", other)

    assert door.closed == (["first"] if same else [])


# --- clients ---------------------------------------------------------------------------------


def test_a_client_has_its_bound_wherever_it_connects_from() -> None:
    door = Door(each=2)
    for address in (A, B):
        door.enter(address, address, "runner")
    over = door.enter("over", "192.0.2.3")

    with pytest.raises(Refused) as refused:
        over.identify("runner")

    assert refused.value.problem.code is Code.TOO_MANY_CONNECTIONS
    assert refused.value.problem.status == 429
    assert "limits.connections_per_client" in refused.value.problem.hint
    over.identify("another client")
    assert door.closed == []


def test_who_leaves_frees_a_place_once() -> None:
    door = Door(each=1)
    first = door.enter("1", client="runner")
    first.close()
    first.close()
    door.enter("2", client="runner")
    first.close()

    with pytest.raises(Refused):
        door.enter("3").identify("runner")


def test_each_request_may_be_another_clients() -> None:
    door = Door(each=1)
    ticket = door.enter("1", client="one")
    ticket.identify("one")
    ticket.identify("two")
    door.enter("2", client="one")

    with pytest.raises(Refused):
        ticket.identify("one")
    with pytest.raises(Refused):
        door.enter("3").identify("two")


def test_who_was_refused_still_counts_for_its_address() -> None:
    door = Door(each=1)
    door.enter("1", client="runner")
    with pytest.raises(Refused):
        door.enter("refused").identify("runner")
    door.enter("3")

    assert door.closed == ["refused"]


def test_who_had_to_make_room_is_not_counted_again() -> None:
    door = Door(each=1)
    gone = door.enter("gone")
    door.enter("new")
    gone.identify("runner")
    gone.close()

    door.enter("2", B, client="runner")
    assert door.closed == ["gone"]


# --- all of them -----------------------------------------------------------------------------


def test_the_oldest_unknown_one_of_all_makes_room() -> None:
    door = Door(total=3)
    door.enter("known", A, client="runner")
    door.enter("older", B)
    door.enter("newer", A)
    door.enter("new", "192.0.2.3")

    assert door.closed == ["older"]


def test_only_where_every_place_is_a_known_clients_nobody_comes_in() -> None:
    door = Door(total=2)
    one = door.enter("1", client="one")
    door.enter("2", client="two")
    assert door.is_full(B)

    one.close()
    door.enter("3", B)
    assert door.closed == []


@pytest.mark.parametrize(
    ("files", "resting", "places"),
    [
        pytest.param(None, 4, 5, id="any number of files: the limit"),
        pytest.param(RESERVED_FILES + 10, 0, 5, id="two files for each connection"),
        pytest.param(RESERVED_FILES + 7, 0, 3, id="fewer files, fewer connections"),
        pytest.param(RESERVED_FILES + 10, 4, 3, id="those that rest upstream have theirs"),
        pytest.param(10, 4, 1, id="never none"),
    ],
)
def test_there_is_a_file_for_every_connection(files: int | None, resting: int, places: int) -> None:
    door = Door(total=5, files=files, resting=resting)
    for number in range(places):
        door.enter(str(number), client=f"client-{number}")

    assert door.is_full()
    assert (("serve.few_files", 0) in door.told) == (places < 5)


@pytest.mark.parametrize(
    ("files", "resting"),
    [
        pytest.param(None, 256, id="any number of files: the limit"),
        pytest.param(4096, 256, id="many files: the limit"),
        pytest.param(256, 32, id="few files: an eighth of them"),
    ],
)
def test_what_rests_upstream_takes_a_part_of_the_files(files: int | None, resting: int) -> None:
    assert Door(files=files, resting=256).admission.idle_upstreams == resting


# --- what is told ----------------------------------------------------------------------------


def test_a_flood_does_not_fill_the_log() -> None:
    door = Door(each=1, total=2)
    for number in range(100):
        door.enter(str(number))
    door.enter("a", client="one")
    door.enter("b", client="two")
    assert all(door.is_full() for _ in range(5))

    powers = [1, 2, 4, 8, 16, 32, 64]
    assert door.told == [
        *(("client.made_room", count) for count in powers),
        *(("client.turned_away", count) for count in (1, 2, 4)),
    ]
