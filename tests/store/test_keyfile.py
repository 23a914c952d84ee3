"""Where the private key comes from, and what a passphrase on it holds against."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from coatcheck.core.ports import CoatcheckError, StoreError
from coatcheck.store import keyfile, sealing
from coatcheck.store.home import Home
from coatcheck.store.keyfile import KEY, PASSPHRASE

PHRASE = b"five words that nobody guesses"


@pytest.fixture
def sealed(home: Home) -> Home:
    """A home whose key is under `PHRASE`."""
    file = keyfile.read(home.private_key, {})
    keyfile.write(file, file.keys, PHRASE)
    return home


def test_a_key_under_a_passphrase_reads_with_it(sealed: Home) -> None:
    file = keyfile.read(sealed.private_key, {PASSPHRASE: PHRASE.decode()})

    assert file.keys[0].id == sealed.read_public_key().id
    assert file.passphrase == PHRASE


def test_the_file_shows_nothing_of_the_key(home: Home) -> None:
    plain = home.private_key.read_bytes()
    file = keyfile.read(home.private_key, {})
    keyfile.write(file, file.keys, PHRASE)
    now = home.private_key.read_bytes()

    assert all(line not in now for line in plain.split(b"\n")[4:-2])
    assert PHRASE not in now
    assert home.private_key.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in home.root.glob("sealing.key*")] == ["sealing.key"]


def test_the_same_key_gives_another_file_each_time() -> None:
    assert keyfile.wrap(b"text", PHRASE) != keyfile.wrap(b"text", PHRASE)


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        pytest.param({}, "is sealed under a passphrase", id="no passphrase"),
        pytest.param({PASSPHRASE: "another one"}, "does not open", id="a wrong one"),
        pytest.param({PASSPHRASE: PHRASE.decode().upper()}, "does not open", id="another case"),
    ],
)
def test_it_stays_closed_with(sealed: Home, environ: dict[str, str], said: str) -> None:
    with pytest.raises(StoreError, match=said) as error:
        keyfile.read(sealed.private_key, environ)

    assert error.value.hint
    assert "another one" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param(lambda t: t.replace(b"m=65536", b"m=65535"), "does not open", id="the costs"),
        pytest.param(lambda t: t.replace(b"m=65536", b"m=8"), "out of bounds", id="less memory"),
        pytest.param(lambda t: t.replace(b"t=3", b"t=1"), "out of bounds", id="fewer passes"),
        pytest.param(
            lambda t: t.replace(b"m=65536", b"m=99999999"), "out of bounds", id="all memory"
        ),
        pytest.param(lambda t: t.replace(b"argon2id", b"argon2d"), "damaged", id="the function"),
        pytest.param(lambda t: t.replace(b"Salt: ", b"Salt: AAAA"), "damaged", id="the salt"),
        pytest.param(lambda t: t[:-60], "damaged", id="its end"),
        pytest.param(lambda t: t[:250] + b"!" + t[251:], "damaged", id="its letters"),
    ],
)
def test_a_file_is_refused_after_a_change_of(
    sealed: Home, change: Callable[[bytes], bytes], said: str
) -> None:
    """STORE-07: what stands in front is part of what is authenticated, and has a floor."""
    text = sealed.private_key.read_bytes()
    sealed.private_key.write_bytes(change(text))
    with pytest.raises(StoreError, match=said):
        keyfile.read(sealed.private_key, {PASSPHRASE: PHRASE.decode()})


@pytest.mark.parametrize("text", [b"", b"short", b"eleven char\n", "\u00fc".encode() * 11])
def test_a_short_passphrase_is_refused(text: bytes) -> None:
    with pytest.raises(StoreError, match="shorter than 12"):
        keyfile.checked_passphrase(text)


def test_a_passphrase_ends_before_its_line_end() -> None:
    assert keyfile.checked_passphrase(PHRASE + b"\r\n") == PHRASE


# --- handed over ------------------------------------------------------------------------------


@pytest.fixture
def handed(home: Home, tmp_path: Path) -> tuple[Home, bytes, Path]:
    """A home whose key lies elsewhere: the home, the key file's text, a folder."""
    text = home.private_key.read_bytes()
    home.private_key.unlink()
    return home, text, tmp_path


@pytest.mark.parametrize("how", ["descriptor", "pipe", "credential", "environment"])
@pytest.mark.parametrize("phrase", [None, PHRASE], ids=["plain", "under a passphrase"])
def test_a_key_is_handed_over_by(
    handed: tuple[Home, bytes, Path], how: str, phrase: bytes | None
) -> None:
    home, text, folder = handed
    environ, opened = {}, []
    if phrase is not None:
        text = keyfile.wrap(text, phrase)
    for name, given in ((KEY, text), (PASSPHRASE, phrase and phrase + b"\n")):
        if given is None:
            continue
        path = folder / keyfile.CREDENTIALS[name]
        path.write_bytes(given)
        if how == "descriptor":
            opened.append(os.open(path, os.O_RDONLY))
            environ[f"{name}_FD"] = str(opened[-1])
        elif how == "pipe":
            reading, writing = os.pipe()
            os.write(writing, given)
            os.close(writing)
            opened.append(reading)
            environ[f"{name}_FD"] = str(reading)
        elif how == "credential":
            environ["CREDENTIALS_DIRECTORY"] = str(folder)
        else:
            environ[name] = given.decode()
    try:
        file = keyfile.read(home.private_key, environ)
        again = how == "pipe" or keyfile.read(home.private_key, environ)
    finally:
        for descriptor in opened:
            os.close(descriptor)

    assert file.keys[0].id == home.read_public_key().id
    assert file.path is None
    assert again


def test_a_worker_opens_values_with_a_key_that_was_handed_over(
    handed: tuple[Home, bytes, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    home, text, folder = handed
    (folder / keyfile.CREDENTIALS[KEY]).write_bytes(text)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(folder))

    assert home.read_private_key().id == home.read_public_key().id


@pytest.mark.parametrize("name", [KEY, f"{KEY}_FD", PASSPHRASE])
def test_an_empty_variable_hands_over_nothing(home: Home, name: str) -> None:
    assert keyfile.read(home.private_key, {name: ""}).path == home.private_key


@pytest.mark.parametrize("number", ["x", "-1", "999", "٣"])
def test_a_descriptor_that_is_none_is_refused(home: Home, number: str) -> None:
    with pytest.raises(StoreError, match="names no descriptor") as error:
        keyfile.read(home.private_key, {f"{KEY}_FD": number})
    assert "3<" in error.value.hint


@pytest.mark.parametrize("text", ["no key", "-----BEGIN COATCHECK ENCRYPTED SEALING KEY-----"])
def test_something_else_is_not_repeated(home: Home, text: str) -> None:
    with pytest.raises(CoatcheckError) as error:
        keyfile.read(home.private_key, {KEY: text, PASSPHRASE: "a passphrase"})
    assert text not in str(error.value)


def test_three_keys_are_one_too_many(home: Home) -> None:
    file = keyfile.read(home.private_key, {})
    keyfile.write(file, (*file.keys, sealing.generate_key(), sealing.generate_key()), None)

    with pytest.raises(StoreError, match="is damaged"):
        keyfile.read(home.private_key, {})


def test_nothing_of_a_key_is_shown(home: Home) -> None:
    file = keyfile.read(home.private_key, {})

    assert repr(file.keys[0]) in (f"<sealing private key {file.keys[0].id}>",)
    assert "passphrase" not in repr(file)
    assert home.read_private_key().id in repr(home.read_private_key())


@pytest.mark.parametrize(
    ("environ", "there"),
    [
        pytest.param({}, False, id="nowhere"),
        pytest.param({KEY: "text"}, True, id="environment"),
        pytest.param({KEY: ""}, False, id="an empty variable"),
        pytest.param({f"{KEY}_FD": "3"}, True, id="descriptor, which is not read"),
        pytest.param({"CREDENTIALS_DIRECTORY": "with"}, True, id="credential"),
        pytest.param({"CREDENTIALS_DIRECTORY": "without"}, False, id="another credential"),
        pytest.param({PASSPHRASE: "five words of no meaning"}, False, id="a passphrase alone"),
    ],
)
def test_whether_there_is_a_key_to_read(
    environ: dict[str, str], there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "with").mkdir()
    (tmp_path / "with" / keyfile.CREDENTIALS[KEY]).write_text("key")
    (tmp_path / "without").mkdir()

    assert keyfile.is_there(tmp_path / "sealing.key", environ) is there
    (tmp_path / "sealing.key").write_text("key")
    assert keyfile.is_there(tmp_path / "sealing.key", environ)
