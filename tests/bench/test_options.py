"""What can be asked for, and what is refused."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from bench.__main__ import chosen, make_parser
from bench.cases import CASES, NOT_SEARCHED
from bench.common import NotUp
from bench.contenders import CONTENDERS, Cast, Contender, Running, Stage, parse_peer
from bench.load import Way
from bench.upstream import Ports
from tests.docs import pages

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "bench" / "README.md"


def test_every_command_of_the_readme_is_understood() -> None:
    blocks = [block for block in pages.blocks(README) if block.is_commands]
    lines = [line for block in blocks for line in block.text.splitlines()]
    parser = make_parser()

    assert len(lines) > 5
    for line in lines:
        make, target, *variables = shlex.split(line, comments=True)
        assert (make, target) == ("make", "bench"), line
        arguments = shlex.split("".join(variables).removeprefix("BENCH_ARGS="))
        given = parser.parse_args(arguments)
        peers = [parse_peer(text) for text in given.peer]
        assert chosen(given, peers), line


def test_every_case_is_explained_in_the_readme() -> None:
    table = README.read_text("utf-8").partition("## The cases")[2].partition("\n## ")[0]
    named = set(re.findall(r"`([a-z]+(?:-\d+|-…)?)`", table)) - {"http"}

    assert {name for name in CASES if name not in named} == {
        name for name in CASES if name.startswith(("down-", "up-"))
    }
    assert named - CASES.keys() == {"down-…", "up-…"}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_case_names_contenders_that_there_are(case: object) -> None:
    names = set(case.contenders)  # type: ignore[attr-defined]

    assert names <= {*CONTENDERS, NOT_SEARCHED}
    assert names & {"coatcheck", "held-1"}


def names(arguments: str) -> dict[str, tuple[str, ...]]:
    given = make_parser().parse_args(arguments.split())
    peers = [parse_peer(text) for text in given.peer]
    return {case.name: case.contenders for case in chosen(given, peers)}


def test_cases_and_contenders_can_be_chosen() -> None:
    assert names("--only new keep-1 --contenders coatcheck direct") == {
        "new": ("direct", "coatcheck"),
        "keep-1": ("direct", "coatcheck"),
    }


def test_all_is_measured_where_nothing_is_chosen() -> None:
    assert names("") == {name: case.contenders for name, case in CASES.items()}


def test_a_peer_is_measured_where_stock_is() -> None:
    seen = names("--peer other=127.0.0.1:3128,ca=ca.pem")

    assert {name for name, all_of_it in seen.items() if "other" in all_of_it} == {
        name for name, case in CASES.items() if "stock" in case.contenders and name != "life"
    }


@pytest.mark.parametrize("arguments", ["--only keep", "--contenders nobody"])
def test_what_is_not_there_is_refused(arguments: str) -> None:
    with pytest.raises(ValueError, match="there is no"):
        names(arguments)


def test_a_peer_is_told_in_one_word() -> None:
    more = "pid=7,sends=Bearer x,sees=placeholder,credentials=Basic eA=="
    peer = parse_peer(f"other=127.0.0.1:3128,ca=ca.pem,{more}")

    assert (peer.name, peer.pid) == ("other", 7)
    assert peer.way == Way(("127.0.0.1", 3128), "ca.pem", "Bearer x", "placeholder", "Basic eA==")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("127.0.0.1:3128,ca=x", "is not NAME=", id="without a name"),
        pytest.param("other=127.0.0.1,ca=x", "is not NAME=", id="without a port"),
        pytest.param("stock=127.0.0.1:1,ca=x", "name of its own", id="with the name of another"),
        pytest.param("other=127.0.0.1:1", "ca=FILE is missing", id="without a certificate"),
        pytest.param("other=127.0.0.1:1,ca=x,cert=y", "has no cert", id="with another key"),
        pytest.param("other=127.0.0.1:1,ca=x,sees=all", "sees is", id="that sees something else"),
    ],
)
def test_a_peer_is_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_peer(text)


def test_who_cannot_be_started_is_left_out_and_says_why(tmp_path: Path) -> None:
    def fails(_: Stage, __: Path) -> Running:
        raise NotUp("it needs a program")

    stays = Running(Way(None, ""))
    contenders = {
        "lame": Contender("lame", "lame", "", fails),
        "fit": Contender("fit", "fit", "", lambda _, __: stays),
    }
    cast = Cast(Stage(tmp_path, tmp_path, Ports(1, 2, 3)), contenders)

    assert (cast.get("lame"), cast.get("fit"), cast.get("unknown")) == (None, stays, None)
    assert cast.left_out == {"lame": "it needs a program"}
