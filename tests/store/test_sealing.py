"""Sealing: what was sealed once opens for ever, and only as what it was sealed as."""

from __future__ import annotations

import base64
import copy
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coatcheck.core.destination import parse_domain_pattern
from coatcheck.core.ports import StoreError
from coatcheck.store import sealing
from coatcheck.store.sealing import PrivateKey, PublicKey, binding, seal, unseal

VECTORS = Path(__file__).parent / "vectors"
CASES = json.loads((VECTORS / "ccs1.json").read_text())
KEY = PrivateKey.from_bytes((VECTORS / "ccs1.key").read_bytes(), "ccs1.key")
OTHER = sealing.generate_key()

texts = st.text(max_size=8)
hosts = st.sampled_from(["a.example", "b.example", "*.a.example", "a.example:8443", "*"])


def facts(case: dict[str, Any], **changed: Any) -> bytes:
    """The binding of a vector, with some of its fields changed."""
    got = {**case, **changed}
    domains = [parse_domain_pattern(text) for text in got["domains"]]
    return binding(got["store_id"], got["secret_id"], got["version"], domains)


# --- known answers ---------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_a_record_of_the_first_release_opens_for_ever(case: dict[str, Any]) -> None:
    """A library that changed the format, or an edit of ours that did, fails here."""
    record = base64.b64decode(case["record"])

    assert facts(case).hex() == case["binding"]
    assert unseal(KEY, bytes.fromhex(case["binding"]), record).hex() == case["value"]


def test_the_key_files_of_the_first_release_are_read_and_written_alike() -> None:
    private, public = (VECTORS / "ccs1.key").read_bytes(), (VECTORS / "ccs1.pub").read_bytes()

    assert PrivateKey.from_bytes(private, "k").to_bytes() == private
    assert PublicKey.from_bytes(public, "k").to_bytes() == public
    assert KEY.public.to_bytes() == public


# --- what a record is bound to ---------------------------------------------------------------


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"store_id": "0e" * 16}, id="another store"),
        pytest.param({"secret_id": "b1" * 16}, id="another secret"),
        pytest.param({"version": 4}, id="a later version"),
        pytest.param({"version": 2}, id="an earlier version"),
        pytest.param({"domains": ["evil.example"]}, id="another domain"),
        pytest.param({"domains": ["api.example.com", "evil.example"]}, id="one domain more"),
        pytest.param({"domains": []}, id="no domain"),
        pytest.param({"domains": ["*"]}, id="any domain"),
        pytest.param({"domains": ["*.api.example.com"]}, id="a wildcard"),
        pytest.param({"domains": ["api.example.com:8443"]}, id="a port"),
    ],
)
def test_a_record_does_not_open_as(changed: dict[str, Any]) -> None:
    case = CASES[1]
    record = base64.b64decode(case["record"])

    with pytest.raises(StoreError, match="damaged or moved") as error:
        unseal(KEY, facts(case, **changed), record)

    assert "coatcheck secret set" in error.value.hint
    assert unseal(KEY, facts(case), record)  # and as itself it does


def test_order_and_repetition_of_domains_do_not_matter() -> None:
    one = [parse_domain_pattern(text) for text in ("a.example", "b.example")]
    two = [parse_domain_pattern(text) for text in ("b.example", "a.example", "b.example")]

    assert binding("s", "i", 1, one) == binding("s", "i", 1, two)


@settings(deadline=None)  # one slow machine is no finding
@given(
    st.tuples(texts, texts, st.integers(1, 99), st.frozensets(hosts)),
    st.tuples(texts, texts, st.integers(1, 99), st.frozensets(hosts)),
)
def test_different_facts_never_give_the_same_binding(one: Any, two: Any) -> None:
    def bound(store: str, secret: str, version: int, domains: frozenset[str]) -> bytes:
        return binding(store, secret, version, map(parse_domain_pattern, domains))

    assert (bound(*one) == bound(*two)) == (one == two)


@pytest.mark.parametrize(
    ("one", "two"),
    [
        pytest.param(("ab", "c", 1), ("a", "bc", 1), id="a border moves between two fields"),
        pytest.param(("a", "b1", 1), ("a", "b", 11), id="a digit moves into the version"),
        pytest.param(("a", "b", 1), ("a", "b", 2), id="another version alone"),
    ],
)
def test_the_binding_keeps_its_fields_apart(one: Any, two: Any) -> None:
    assert binding(*one, []) != binding(*two, [])


# --- records ---------------------------------------------------------------------------------


def test_the_same_value_seals_differently_each_time() -> None:
    records = {seal(KEY.public, b"i", b"value") for _ in range(50)}

    assert len(records) == 50
    assert all(unseal(KEY, b"i", record) == b"value" for record in records)


@settings(deadline=None)  # one slow machine is no finding
@given(st.binary(min_size=1, max_size=2000), st.binary(max_size=50))
def test_any_value_comes_back(value: bytes, info: bytes) -> None:
    record = seal(KEY.public, info, value)

    assert unseal(KEY, info, record) == value
    assert len(value) < 8 or value not in record


def flipped(record: bytes, at: int) -> bytes:
    return record[:at] + bytes([record[at] ^ 1]) + record[at + 1 :]


def test_a_record_with_any_bit_flipped_does_not_open() -> None:
    record = seal(KEY.public, b"i", b"a value")

    for at in range(len(record)):
        with pytest.raises(StoreError):
            unseal(KEY, b"i", flipped(record, at))


def test_a_record_that_was_cut_off_does_not_open() -> None:
    record = seal(KEY.public, b"i", b"a value")

    for length in range(len(record)):
        with pytest.raises(StoreError):
            unseal(KEY, b"i", record[:length])


@pytest.mark.parametrize(
    ("record", "said", "next_step"),
    [
        pytest.param(b"", "damaged", "set the secret again", id="an empty record"),
        pytest.param(b"garbage" * 99, "damaged", "set the secret again", id="something else"),
        pytest.param(
            b"ccs9" + bytes(2000), "suite 'ccs9'", "upgrade coatcheck", id="a suite of the future"
        ),
        pytest.param(
            seal(OTHER.public, b"i", b"v"), OTHER.id, "sealing.key", id="sealed for another key"
        ),
    ],
)
def test_what_is_wrong_with_a_record_is_said(record: bytes, said: str, next_step: str) -> None:
    with pytest.raises(StoreError, match=said) as error:
        unseal(KEY, b"i", record)

    assert next_step in error.value.hint


def test_the_prefix_is_part_of_what_is_sealed() -> None:
    """Or a record could be relabelled as one of a weaker suite, once there is one."""
    inner = sealing._HPKE.encrypt(b"value", KEY.public._key, info=b"i")
    prefix = sealing.SUITE.encode() + bytes.fromhex(KEY.id)

    with pytest.raises(StoreError, match="damaged or moved"):
        unseal(KEY, b"i", prefix + inner)


# --- keys ------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [KEY, KEY.public], ids=["private", "public"])
def test_a_key_shows_its_id_alone(key: PrivateKey | PublicKey) -> None:
    assert repr(key) == str(key)
    assert key.id in repr(key)
    assert len(repr(key)) < 60


@pytest.mark.parametrize("way", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_private_key_is_not_copied(way: Callable[[object], object]) -> None:
    with pytest.raises(TypeError, match="not copied or pickled"):
        way(KEY)


@pytest.mark.parametrize(
    ("change", "said", "next_step"),
    [
        pytest.param(lambda text: b"", "is no", "backup", id="empty"),
        pytest.param(lambda text: text[:100], "is no", "backup", id="cut off"),
        pytest.param(lambda text: b"\xff" + text, "is no", "backup", id="not ASCII"),
        pytest.param(
            lambda text: KEY.public.to_bytes(), "is no", "backup", id="the public one instead"
        ),
        pytest.param(
            lambda text: text.replace(b"ccs1", b"ccs2"), "suite", "upgrade", id="another suite"
        ),
        pytest.param(
            lambda text: text.replace(b"AwQF", b"AwQG"), "is damaged", "backup", id="a bit flipped"
        ),
        pytest.param(
            lambda text: text.replace(b"AwQF", b"A!QF"), "is damaged", "backup", id="no base64"
        ),
        pytest.param(
            lambda text: text.replace(b"AwQF", b""), "is damaged", "backup", id="too short"
        ),
    ],
)
def test_a_broken_key_file_is_refused(
    change: Callable[[bytes], bytes], said: str, next_step: str
) -> None:
    text = change(KEY.to_bytes())

    with pytest.raises(StoreError, match=said) as error:
        PrivateKey.from_bytes(text, "home/sealing.key")

    assert "home/sealing.key" in str(error.value)
    assert next_step in error.value.hint


def test_a_key_file_with_the_line_ends_of_windows_is_read() -> None:
    text = KEY.to_bytes().replace(b"\n", b"\r\n")

    assert PrivateKey.from_bytes(text, "k").id == KEY.id
