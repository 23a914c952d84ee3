"""`coatcheck keys`: rotation and passphrase as a person does them, as docs/operations.md has it."""

from __future__ import annotations

import json

from coatcheck.store.keyfile import PASSPHRASE
from tests.cli.homes import Commands

PHRASE = "five words that nobody guesses"


def with_one(coatcheck: Commands) -> None:
    done = coatcheck("secret", "set", "crm.apiKey", "--domain", "a.example.com", stdin=b"v" * 20)
    assert done.code == 0, done.all


def test_a_rotation_says_what_it_did(coatcheck: Commands) -> None:
    with_one(coatcheck)
    done = coatcheck("keys", "rotate")
    doctor = coatcheck("doctor")

    assert done.code == 0
    assert done.out.startswith("rotated ")
    assert done.out.endswith("; 1 records sealed anew\n")
    assert "1 secret; every value opens" in doctor.out


def test_a_rotation_in_two_parts(coatcheck: Commands) -> None:
    with_one(coatcheck)
    prepared = coatcheck("keys", "rotate", "--prepare")
    halfway = coatcheck("doctor")
    done = json.loads(coatcheck("keys", "rotate", "--format", "json").out)

    assert "holds both keys" in prepared.out
    assert "coatcheck keys rotate" in prepared.err
    assert "a rotation is not finished" in halfway.out
    assert (done["records"], done["done"]) == (1, True)
    assert done["new"] in prepared.out


def test_a_passphrase_goes_on_is_needed_and_comes_off(coatcheck: Commands) -> None:
    with_one(coatcheck)
    handed = {PASSPHRASE: PHRASE}
    put_on = coatcheck("keys", "passphrase", stdin=PHRASE.encode() + b"\n")
    without = coatcheck("doctor")
    with_it = coatcheck("doctor", env=handed)
    rotated = coatcheck("keys", "rotate", env=handed)
    refused = coatcheck("keys", "passphrase", "--remove")
    taken_off = coatcheck("keys", "passphrase", "--remove", env=handed)
    after = coatcheck("doctor")

    assert put_on.code == 0
    assert "is sealed under a passphrase" in without.out
    assert "every value opens" in with_it.out
    assert rotated.code == 0
    assert refused.code == 1
    assert "COATCHECK_SEALING_PASSPHRASE_FD" in refused.err
    assert taken_off.code == 0
    assert "every value opens" in after.out
    every = (put_on, without, with_it, rotated, refused, taken_off, after)
    assert PHRASE not in "".join(done.all for done in every)


def test_a_short_passphrase_is_refused(coatcheck: Commands) -> None:
    done = coatcheck("keys", "passphrase", stdin=b"too short")

    assert done.code == 1
    assert "shorter than 12" in done.err
    assert "ENCRYPTED" not in (coatcheck.root / "sealing.key").read_text()


def test_there_may_be_none_to_take_off(coatcheck: Commands) -> None:
    done = coatcheck("keys", "passphrase", "--remove")

    assert (done.code, "under no passphrase" in done.err) == (1, True)
