"""`coatcheck secret`: values go in, names come out."""

from __future__ import annotations

import base64
import json
import os
import pty
import re
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from coatcheck.core.ports import Used
from coatcheck.store.home import Home
from coatcheck.store.sql import SqlStore
from tests.cli.homes import Commands, Done

VALUE = b"sk-live-SENTINEL-0123456789"
DAY_S = 86400.0


def set_(coatcheck: Commands, name: str = "crm.apiKey", *more: str, value: bytes = VALUE) -> Done:
    return coatcheck("secret", "set", name, *more, stdin=value)


def worker(coatcheck: Commands) -> SqlStore:
    home = Home(coatcheck.root)
    return SqlStore.open(home.store, public=home.read_public_key(), private=home.read_private_key())


def value_of(coatcheck: Commands, name: str = "crm.apiKey") -> bytes:
    with closing(worker(coatcheck)) as store:
        view = store.view()
        secret = view.find(name)
        assert secret is not None
        return view.open(secret).reveal()


def domains_of(coatcheck: Commands, name: str = "crm.apiKey") -> list[str]:
    shown = json.loads(coatcheck("secret", "show", name, "--format", "json").out)
    domains: list[str] = shown["domains"]
    return domains


def refused(done: Done, said: str) -> None:
    """It failed with a text that holds *said* and a next step, and printed no value."""
    assert done.code == 1, done.all
    assert said in done.err
    assert "next:" in done.err
    assert done.out == ""
    assert "SENTINEL" not in done.all


# --- set: where the value comes from ---------------------------------------------------------


def test_a_value_comes_from_stdin(coatcheck: Commands) -> None:
    done = coatcheck.really("secret", "set", "crm.apiKey", "--domain", "a.example", stdin=VALUE)

    assert done == Done(0, "made crm.apiKey, version 1, allowed: a.example\n", "")
    assert value_of(coatcheck) == VALUE


def test_a_value_comes_from_a_file(coatcheck: Commands, tmp_path: Path) -> None:
    (tmp_path / "value").write_bytes(bytes(range(256)))

    assert set_(coatcheck, "crm.apiKey", "--from-file", str(tmp_path / "value")).code == 0
    assert value_of(coatcheck) == bytes(range(256))


def test_a_value_comes_from_a_variable(coatcheck: Commands) -> None:
    done = coatcheck(
        "secret", "set", "crm.apiKey", "--from-env", "API_KEY", env={"API_KEY": VALUE.decode()}
    )

    assert done.code == 0
    assert value_of(coatcheck) == VALUE


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        pytest.param(VALUE + b"\n", VALUE, id="one line end is taken off"),
        pytest.param(VALUE + b"\r\n", VALUE, id="that of Windows too"),
        pytest.param(VALUE + b"\n\n", VALUE + b"\n", id="and no second one"),
        pytest.param(b"\n" + VALUE, b"\n" + VALUE, id="not the first"),
        pytest.param(VALUE + b" ", VALUE + b" ", id="blanks stay"),
        pytest.param(VALUE + b"\r", VALUE + b"\r", id="a lone CR stays"),
    ],
)
def test_a_line_end_at_the_end_is_no_part_of_a_value(
    coatcheck: Commands, given: bytes, kept: bytes
) -> None:
    done = set_(coatcheck, value=given)

    assert value_of(coatcheck) == kept
    assert ("took one line end off" in done.err) == given.endswith(b"\n")


def test_a_line_end_can_be_kept(coatcheck: Commands) -> None:
    done = set_(coatcheck, "crm.apiKey", "--keep-newline", value=VALUE + b"\n")

    assert value_of(coatcheck) == VALUE + b"\n"
    assert "line end" not in done.err


@pytest.mark.parametrize(
    ("arguments", "value", "said"),
    [
        pytest.param([], b"", "is empty", id="an empty value"),
        pytest.param([], b"\n", "is empty", id="a line end alone"),
        pytest.param([], b"1234567", "shorter than 8 bytes", id="a value too short to scrub"),
        pytest.param([], b"1234567\n", "shorter than 8 bytes", id="also with a line end"),
        pytest.param([], b"k" * (1 << 24), "larger than", id="16 MiB"),
        pytest.param(["--from-env", "NOT_SET"], b"", "not set", id="a missing variable"),
        pytest.param(["--from-file", "/no/file"], b"", "cannot read", id="a missing file"),
        pytest.param(["--from-file", "/"], b"", "cannot read", id="a folder"),
        pytest.param(
            ["--stdin", "--from-env", "HOME"], b"", "more than one source", id="two sources"
        ),
    ],
)
def test_set_refuses(coatcheck: Commands, arguments: list[str], value: bytes, said: str) -> None:
    refused(set_(coatcheck, "crm.apiKey", *arguments, value=value), said)
    assert coatcheck("secret", "list", "--format", "json").out == "[]\n"


def test_a_short_value_must_be_asked_for_and_warns(coatcheck: Commands) -> None:
    done = set_(coatcheck, "pin", "--allow-short", value=b"1234")

    assert done.code == 0
    assert "cannot be scrubbed safely" in done.err
    assert value_of(coatcheck, "pin") == b"1234"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        pytest.param(b"sunshine", "a common word", id="a common word"),
        pytest.param(b"31415926", "fewer than 12 digits", id="few digits"),
        pytest.param(b"xyzxyzxyzxyz", "repeats", id="repeated characters"),
        pytest.param(b"Zk3-\x1bq9Lw-T7", "control characters", id="control characters"),
        pytest.param(b" Zk3-q9Lw-T7", "white space", id="white space in front"),
        pytest.param(b"Zk3-q9Lw-T7 ", "white space", id="white space behind"),
    ],
)
def test_a_weak_value_is_taken_and_warned_of(coatcheck: Commands, value: bytes, said: str) -> None:
    done = set_(coatcheck, value=value)

    assert done.code == 0
    assert said in done.err
    assert "warning:" not in done.out
    assert value.decode().strip() not in done.all
    assert value_of(coatcheck) == value


def test_a_good_value_is_not_warned_of(coatcheck: Commands) -> None:
    assert "warning: the value" not in set_(coatcheck, value=b"Zk3-q9Lw-T7").err


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["set", "crm.apiKey", VALUE.decode()], id="behind the name"),
        pytest.param(["set", "crm.apiKey", "--domain", "a.example", VALUE.decode()], id="last"),
        pytest.param(["set", "crm.apiKey", "--value", VALUE.decode()], id="as an option"),
        pytest.param(["set", "crm.apiKey", f"--value={VALUE.decode()}"], id="as one word"),
        pytest.param(["set", "--value", VALUE.decode(), "crm.apiKey"], id="as an option in front"),
        pytest.param(["set", "--from-env", VALUE.decode(), "crm.apiKey"], id="for a variable"),
        pytest.param(["edit", "crm.apiKey", VALUE.decode()], id="to edit"),
    ],
)
def test_a_value_on_the_command_line_is_refused_and_not_repeated(
    coatcheck: Commands, arguments: list[str]
) -> None:
    """CLI-01: `ps` has shown it already; the terminal and its log need not."""
    done = coatcheck.really("secret", *arguments, stdin=VALUE)

    assert done.code == 1
    assert "SENTINEL" not in done.all
    assert coatcheck("secret", "list", "--format", "json").out == "[]\n"


KEPT = ["--domain", "api.example.com"]
SPELT = f"the key is {VALUE.decode()}"
IN_BASE64 = base64.b64encode(VALUE).decode()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param([f"k={VALUE.decode()}", *KEPT], "command line", id="NAME=VALUE"),
        pytest.param([VALUE.decode(), *KEPT], "the name: it holds", id="as the name"),
        pytest.param([f"k:{VALUE.decode()}", *KEPT], "the name: it holds", id="in the name"),
        pytest.param([IN_BASE64.rstrip("="), *KEPT], "the name: it holds", id="in base64"),
        pytest.param(
            ["k", "--description", SPELT, *KEPT], "--description: it holds", id="in a description"
        ),
        pytest.param(
            ["k", *KEPT, "--domain", VALUE.decode()], "--domain: it holds", id="for a domain"
        ),
    ],
)
def test_what_everybody_may_read_does_not_hold_the_value(
    coatcheck: Commands, arguments: list[str], said: str
) -> None:
    """G2: lists, the audit log and clients are told it. The API refuses it too."""
    refused(set_(coatcheck, *arguments), said)

    assert coatcheck("secret", "list", "--format", "json").out == "[]\n"
    kept = [path.read_bytes() for path in coatcheck.root.rglob("*") if path.is_file()]
    assert not [text for text in kept if b"SENTINEL" in text or IN_BASE64[:30].encode() in text]


@pytest.mark.parametrize(
    ("arguments", "value"),
    [
        pytest.param(["k", "--description", "of the CRM", *KEPT], VALUE, id="no value"),
        pytest.param(["pin1234", "--allow-short", *KEPT], b"1234", id="a short one, by chance"),
        pytest.param(["k", *KEPT], b"https://api.example.com/hook", id="a value that is a URL"),
    ],
)
def test_what_only_resembles_a_value_is_taken(
    coatcheck: Commands, arguments: list[str], value: bytes
) -> None:
    assert set_(coatcheck, *arguments, value=value).code == 0


def test_a_new_name_is_no_pair_of_name_and_value(coatcheck: Commands) -> None:
    set_(coatcheck)

    refused(coatcheck("secret", "edit", "crm.apiKey", "--name", f"k={VALUE.decode()}"), "command")
    assert coatcheck("secret", "edit", "crm.apiKey", "--name", "crm.key").code == 0


def test_a_secret_that_has_such_a_name_is_given_a_new_value(coatcheck: Commands) -> None:
    """The API takes any name, and knows the value meanwhile."""
    with closing(worker(coatcheck)) as store:
        store.put("a=b", VALUE, domains=None, description=None, now=time.time())

    assert set_(coatcheck, "a=b", value=b"another-value-0123").code == 0
    assert coatcheck("secret", "show", "a=b").code == 0


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["set", f"k={VALUE.decode()}"], id="set: a pair"),
        pytest.param(["set", VALUE.decode()], id="set: as the name"),
        pytest.param(["set", "k", "--domain", f"{VALUE.decode()}/x"], id="set: a bad domain"),
        pytest.param(["set", "k", "--domain", f".{VALUE.decode()}"], id="set: one with a dot"),
        pytest.param(["set", "k", "--domain", f"*.{VALUE.decode()}'"], id="set: with a quote"),
        pytest.param(["edit", VALUE.decode(), "--description", "d"], id="edit: as the name"),
        pytest.param(["list", VALUE.decode()], id="list"),
        pytest.param(["show", VALUE.decode()], id="show: as the name"),
        pytest.param(["show", "crm.apiKey", VALUE.decode()], id="show: behind the name"),
        pytest.param(["delete", VALUE.decode(), "--yes"], id="delete: as the name"),
        pytest.param(["delete", "crm.apiKey", VALUE.decode()], id="delete: behind the name"),
        pytest.param(["history", VALUE.decode()], id="history: as the name"),
        pytest.param(["history", "crm.apiKey", VALUE.decode()], id="history: behind the name"),
    ],
)
def test_a_word_that_may_be_a_value_is_not_repeated(
    coatcheck: Commands, arguments: list[str]
) -> None:
    """Nothing comes from stdin: what the value is, nobody can know."""
    set_(coatcheck)
    done = coatcheck("secret", *arguments)

    assert done.code == 1
    assert done.err
    assert "SENTINEL" not in done.all
    log = coatcheck.root / "audit" / "audit-management.jsonl"
    assert "SENTINEL" not in log.read_text()


def test_help_offers_no_way_to_give_a_value_in_an_argument(coatcheck: Commands) -> None:
    text = coatcheck("secret", "set", "--help").out

    assert "--value" not in text
    assert "never from the command line" in re.sub(r"\s+", " ", text)


# --- set: at a terminal ----------------------------------------------------------------------


def at_terminal(coatcheck: Commands, *typed: str) -> tuple[int, str]:
    """(exit code, what the screen shows) of `secret set` with a person in front of it."""
    near, far = pty.openpty()
    # The first terminal that a new session opens is the one that it belongs to.
    start = "import os, sys; os.open(sys.argv[1], os.O_RDWR); os.execv(sys.argv[2], sys.argv[2:])"
    command = [sys.executable, "-m", "coatcheck", "secret", "set", "crm.apiKey"]
    child = subprocess.Popen(
        [sys.executable, "-c", start, os.ttyname(far), *command],
        stdin=far,
        stdout=far,
        stderr=far,
        start_new_session=True,
        env={**os.environ, "COATCHECK_HOME": str(coatcheck.root)},
    )
    os.close(far)
    screen = bytearray()

    def read() -> None:
        while True:
            try:
                chunk = os.read(near, 4096)
            except OSError:  # Linux: the other end was closed
                return
            if not chunk:
                return
            screen.extend(chunk)

    reader = threading.Thread(target=read)
    reader.start()
    for prompts, line in enumerate(typed, start=1):
        deadline = time.monotonic() + 30
        while screen.count(b": ") < prompts and time.monotonic() < deadline:
            time.sleep(0.01)
        os.write(near, line.encode() + b"\n")
    code = child.wait(30)
    reader.join()
    os.close(near)
    return code, screen.decode()


def test_at_a_terminal_the_value_is_asked_for_twice_and_not_shown(coatcheck: Commands) -> None:
    code, screen = at_terminal(coatcheck, VALUE.decode(), VALUE.decode())

    assert code == 0
    assert "value of crm.apiKey (not shown)" in screen
    assert "once more" in screen
    assert "SENTINEL" not in screen
    assert value_of(coatcheck) == VALUE


def test_two_inputs_that_differ_change_nothing(coatcheck: Commands) -> None:
    code, screen = at_terminal(coatcheck, VALUE.decode(), "something-SENTINEL-else")

    assert code == 1
    assert "differ; nothing was changed" in screen
    assert "SENTINEL" not in screen
    assert coatcheck("secret", "list", "--format", "json").out == "[]\n"


# --- set: where the value may go -------------------------------------------------------------


def test_without_a_domain_a_new_secret_may_go_nowhere_and_that_is_said(
    coatcheck: Commands,
) -> None:
    done = set_(coatcheck)

    assert done.code == 0
    assert "allowed nowhere" in done.err
    assert "--domain" in done.err
    assert domains_of(coatcheck) == []


def test_domains_are_kept_in_their_one_spelling(coatcheck: Commands) -> None:
    given = ["API.Example.com.", "*.b.example:8443", "bücher.example"]
    set_(coatcheck, "crm.apiKey", *(word for host in given for word in ("--domain", host)))

    expected = ["api.example.com", "*.b.example:8443", "xn--bcher-kva.example"]
    assert domains_of(coatcheck) == expected


def test_a_new_value_keeps_the_domains_unless_others_are_given(coatcheck: Commands) -> None:
    set_(coatcheck, "crm.apiKey", "--domain", "a.example")
    set_(coatcheck, value=b"another-value")
    assert domains_of(coatcheck) == ["a.example"]
    set_(coatcheck, "crm.apiKey", "--domain", "b.example", value=b"a-third-value")

    assert domains_of(coatcheck) == ["b.example"]
    assert value_of(coatcheck) == b"a-third-value"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(["--domain", "*.github.io"], "public suffix", id="a public suffix"),
        pytest.param(["--domain", "*.co.uk"], "public suffix", id="one of a country"),
        pytest.param(["--domain", "*.com"], "public suffix", id="a top-level name"),
        pytest.param(["--domain", "*"], "--any-domain", id="any host, not asked for by name"),
        pytest.param(["--domain", "*:8443"], "--any-domain", id="any host at a port"),
        pytest.param(["--domain", "https://a.example"], "scheme", id="a URL"),
        pytest.param(["--domain", "a.example/v1"], "path", id="a path"),
        pytest.param(["--domain", ""], "empty", id="nothing"),
        pytest.param(["--domain", "127.1"], "IPv4", id="half an address"),
        pytest.param(["--domain", "a.example", "--any-domain"], "meaningless", id="some and any"),
    ],
)
def test_a_domain_is_refused_that_is(coatcheck: Commands, arguments: list[str], said: str) -> None:
    refused(set_(coatcheck, "crm.apiKey", *arguments), said)
    assert coatcheck("secret", "list", "--format", "json").out == "[]\n"


@pytest.mark.parametrize(
    ("arguments", "domains"),
    [(["--any-domain"], ["*"]), (["--any-domain", "--domain", "*:8443"], ["*:8443"])],
)
def test_any_domain_is_asked_for_by_name_and_warned_of(
    coatcheck: Commands, arguments: list[str], domains: list[str]
) -> None:
    done = set_(coatcheck, "crm.apiKey", *arguments)

    assert done.code == 0
    assert "any host" in done.err
    assert domains_of(coatcheck) == domains


def test_edit_cannot_change_domains_and_says_how_it_is_done(coatcheck: Commands) -> None:
    set_(coatcheck, "crm.apiKey", "--domain", "a.example")

    for option in (["--domain", "b.example"], ["--any-domain"]):
        done = coatcheck("secret", "edit", "crm.apiKey", *option)
        refused(done, "changing allowed domains needs the value again")
        assert "coatcheck secret set NAME --domain" in done.err
    assert domains_of(coatcheck) == ["a.example"]


# --- names -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["any name at all", "ключ", 'a"b', "a/b?c&d"])
def test_names_of_any_characters(coatcheck: Commands, name: str) -> None:
    assert set_(coatcheck, name).code == 0
    assert json.loads(coatcheck("secret", "list", "--format", "json").out)[0]["name"] == name
    assert coatcheck("secret", "show", name).code == 0


@pytest.mark.parametrize(
    ("name", "said"),
    [("", "no secret can have this name"), ("a\nb", "control"), ("CRM.APIKEY", "differs from")],
)
def test_a_name_is_refused(coatcheck: Commands, name: str, said: str) -> None:
    set_(coatcheck)

    refused(set_(coatcheck, name), said)


def test_an_unknown_name_is_an_error_everywhere(coatcheck: Commands) -> None:
    for arguments in (
        ["show", "nobody"],
        ["edit", "nobody", "--description", "d"],
        ["edit", "nobody", "--name", "n"],
        ["delete", "nobody", "--force"],
        ["history", "nobody"],
    ):
        refused(coatcheck("secret", *arguments), "there is no secret of this name")


# --- what comes out --------------------------------------------------------------------------


def test_list_show_and_history_tell_all_but_the_value(coatcheck: Commands) -> None:
    set_(coatcheck, "crm.apiKey", "--domain", "a.example", "--description", "for CI")
    set_(coatcheck, value=VALUE + b"-2")
    keys = {
        "name",
        "version",
        "domains",
        "description",
        "created_at",
        "updated_at",
        "last_used_at",
        "source",
    }

    (row,) = json.loads(coatcheck("secret", "list", "--format", "json").out)
    assert set(row) == keys
    assert (row["name"], row["version"], row["domains"]) == ("crm.apiKey", 2, ["a.example"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", row["created_at"])
    shown = json.loads(coatcheck("secret", "show", "crm.apiKey", "--format", "json").out)
    assert shown == {**row, "placeholder": "{{secrets.crm.apiKey}}"}
    first, second = json.loads(coatcheck("secret", "history", "crm.apiKey", "--format", "json").out)
    assert (first["version"], second["version"], second["replaced_at"]) == (1, 2, None)
    for command in (["list"], ["show", "crm.apiKey"], ["history", "crm.apiKey"]):
        done = coatcheck("secret", *command)
        assert done.code == 0
        assert "a.example" in done.out
        assert "SENTINEL" not in done.all


def test_an_empty_list_says_how_to_begin(coatcheck: Commands) -> None:
    done = coatcheck("secret", "list")

    assert (done.code, done.out) == (0, "")
    assert "coatcheck secret set" in done.err


def test_escapes_in_names_and_descriptions_do_not_reach_the_terminal(coatcheck: Commands) -> None:
    """CLI-02. Names cannot hold control characters; formatting ones (U+202E) they can."""
    name, description = "a\u202eb", "red\x1b[31m \x9b2J \r\n\x07 bell"
    outputs = [
        set_(coatcheck, name, "--description", description),
        coatcheck("secret", "list"),
        coatcheck("secret", "show", name),
        coatcheck("secret", "history", name),
        coatcheck("secret", "list", "--format", "json"),
        coatcheck("secret", "edit", name, "--name", "a\u2066c"),
        coatcheck("secret", "show", "b\x1b[31m"),
        coatcheck("secret", "delete", "a\u2066c"),
    ]

    for done in outputs:
        assert not re.search(r"[^\n\x20-\x7e]", done.all), done


def test_commands_do_not_need_the_private_key(coatcheck: Commands) -> None:
    """They could not print a value if they tried."""
    (coatcheck.root / "sealing.key").unlink()

    assert set_(coatcheck).code == 0
    assert coatcheck("secret", "list").code == 0
    assert coatcheck("secret", "edit", "crm.apiKey", "--description", "d").code == 0
    assert coatcheck("secret", "delete", "crm.apiKey").code == 0


def test_a_value_is_in_no_file_and_no_output(coatcheck: Commands) -> None:
    """Through set, replace, rename and delete: raw, base64, hex."""
    done = [
        set_(coatcheck, "crm.apiKey", "--domain", "a.example"),
        set_(coatcheck, value=VALUE),
        set_(coatcheck, "other"),
        coatcheck("secret", "edit", "crm.apiKey", "--name", "crm.key"),
        coatcheck("secret", "delete", "other"),
        coatcheck("secret", "show", "crm.key"),
    ]
    assert [each.code for each in done] == [0] * len(done)
    files = [path.read_bytes() for path in coatcheck.root.rglob("*") if path.is_file()]
    everything = b"\0".join([*files, *(each.all.encode() for each in done)]).lower()

    aligned = [base64.b64encode(b"\0" * n + VALUE)[4:-4] for n in range(3)]
    for spelling in (VALUE, VALUE[4:-4], VALUE.hex().encode(), *aligned):
        assert spelling.lower() not in everything


# --- edit ------------------------------------------------------------------------------------


def test_edit_changes_name_and_description_alone(coatcheck: Commands) -> None:
    set_(coatcheck, "crm.apiKey", "--domain", "a.example")
    done = coatcheck("secret", "edit", "crm.apiKey", "--name", "crm.key", "--description", "d")
    shown = json.loads(coatcheck("secret", "show", "crm.key", "--format", "json").out)

    assert done == Done(0, "changed crm.key, version 1, allowed: a.example\n", "")
    assert (shown["description"], shown["version"]) == ("d", 1)
    assert value_of(coatcheck, "crm.key") == VALUE


def test_a_rename_warns_of_the_grants_that_do_not_follow(coatcheck: Commands) -> None:
    set_(coatcheck)
    grant(coatcheck, "crm.*")
    done = coatcheck("secret", "edit", "crm.apiKey", "--name", "key")

    assert done.code == 0
    assert "the grant does not follow" in done.err


def test_edit_needs_something_to_change(coatcheck: Commands) -> None:
    set_(coatcheck)

    refused(coatcheck("secret", "edit", "crm.apiKey"), "nothing to change")


# --- delete ----------------------------------------------------------------------------------


def grant(coatcheck: Commands, *names: str) -> None:
    (coatcheck.root / "policy.yaml").write_text(
        "version: 1\n"
        "clients:\n"
        "  local:\n"
        '    networks: ["127.0.0.1/32"]\n'
        "grants:\n"
        f"  - secrets: {json.dumps(list(names))}\n"
        '    clients: ["local"]\n'
    )


def use(coatcheck: Commands, days_ago: float) -> None:
    with closing(worker(coatcheck)) as store:
        store.record_use({store.secrets()[0].id: Used(time.time() - days_ago * DAY_S)})


def test_a_secret_that_nobody_uses_is_deleted(coatcheck: Commands) -> None:
    set_(coatcheck)

    assert coatcheck("secret", "delete", "crm.apiKey") == Done(0, "deleted crm.apiKey\n", "")
    assert coatcheck("secret", "list", "--format", "json").out == "[]\n"


@pytest.mark.parametrize("names", [["crm.apiKey"], ["crm.*"], ["a", "*Key"]])
def test_a_secret_that_a_grant_names_is_kept_and_the_grant_told(
    coatcheck: Commands, names: list[str]
) -> None:
    set_(coatcheck)
    grant(coatcheck, *names)
    done = coatcheck("secret", "delete", "crm.apiKey", "--yes")

    refused(done, "'crm.apiKey' is in use and was not deleted")
    assert f"{coatcheck.root / 'policy.yaml'}:6 gives it to local" in done.err
    assert "--force" in done.err
    assert value_of(coatcheck) == VALUE


@pytest.mark.parametrize("names", [["*"], ["crm.other"], ["CRM.APIKEY"]])
def test_a_grant_for_every_secret_or_for_another_one_keeps_none(
    coatcheck: Commands, names: list[str]
) -> None:
    set_(coatcheck)
    grant(coatcheck, *names)

    assert coatcheck("secret", "delete", "crm.apiKey").code == 0


@pytest.mark.parametrize(("days_ago", "kept"), [(0, True), (29, True), (31, False)])
def test_a_secret_that_was_used_in_the_last_30_days_is_kept(
    coatcheck: Commands, days_ago: float, kept: bool
) -> None:
    set_(coatcheck)
    use(coatcheck, days_ago)
    done = coatcheck("secret", "delete", "crm.apiKey")

    if kept:
        refused(done, "was last used at")
    else:
        assert done.code == 0


def test_a_broken_policy_may_grant_anything(coatcheck: Commands) -> None:
    set_(coatcheck)
    (coatcheck.root / "policy.yaml").write_text("version: one\n")

    refused(coatcheck("secret", "delete", "crm.apiKey"), "may be granted")


def test_force_deletes_all_the_same_and_warns(coatcheck: Commands) -> None:
    set_(coatcheck)
    grant(coatcheck, "crm.*")
    use(coatcheck, 1)
    done = coatcheck("secret", "delete", "crm.apiKey", "--force")

    assert done.code == 0
    assert done.err.count("warning:") == 2
    assert coatcheck("secret", "list", "--format", "json").out == "[]\n"


# --- a home that cannot be used --------------------------------------------------------------


def test_without_a_home_the_next_step_is_init(tmp_path: Path) -> None:
    done = Commands(tmp_path / "none")("secret", "list")

    refused(done, "there is no folder")
    assert f"coatcheck init --home {tmp_path / 'none'}" in done.err
    assert not (tmp_path / "none").exists()


def test_a_home_that_is_open_to_others_is_refused_with_the_command_that_mends_it(
    coatcheck: Commands,
) -> None:
    coatcheck.root.chmod(0o755)
    done = coatcheck.really("secret", "set", "crm.apiKey", stdin=VALUE)

    refused(done, "mode 0755")
    assert f"chmod 700 {coatcheck.root}" in done.err


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "there is no store"), (b"", "no coatcheck store"), (b"x" * 9999, "no coatcheck store")],
    ids=["missing", "empty", "something else"],
)
def test_a_broken_store_is_refused_and_never_made_anew(
    coatcheck: Commands, content: bytes | None, said: str
) -> None:
    path = coatcheck.root / "store.db"
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    done = coatcheck.really("secret", "set", "crm.apiKey", stdin=VALUE)

    refused(done, said)
    assert "Traceback" not in done.err
    assert (path.read_bytes() if path.exists() else None) == content


def test_a_broken_store_is_noticed_before_the_value_is_asked_for(coatcheck: Commands) -> None:
    (coatcheck.root / "store.db").unlink()
    code, screen = at_terminal(coatcheck)

    assert code == 1
    assert "there is no store" in screen
    assert "value of" not in screen


# --- what a command costs --------------------------------------------------------------------


@pytest.mark.parametrize("module", ["init", "secret", "client", "value"])
def test_no_command_imports_mitmproxy(module: str) -> None:
    check = (
        f"import sys, coatcheck.cli.{module}, coatcheck.store.home, coatcheck.store.sql\n"
        "bad = {'mitmproxy', 'alembic', 'pydantic'} & set(sys.modules)\n"
        "sys.exit(repr(bad) if bad else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", check], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
