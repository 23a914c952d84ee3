"""What the pages say is true: commands run, examples load, tables agree with the code.

`tests/docs/pages.py` says how a page tells a test what to do with a block, `tests/docs/session.py`
how commands are run. A command that nothing runs carries its reason in the page, and is counted.
"""

from __future__ import annotations

import ast
import json
import re
import shutil
import ssl
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import fields
from functools import cache
from pathlib import Path

import pytest
import trustme
from fastapi.routing import APIRoute

from coatcheck import __version__, policyfile, settings, sourcefile
from coatcheck.admin import web
from coatcheck.admin.problems import TABLE as ADMIN_TABLE
from coatcheck.cli import childenv
from coatcheck.cli.main import COMMANDS
from coatcheck.core import audit
from coatcheck.core.destination import Destination
from coatcheck.core.limits import Limits
from coatcheck.core.problems import HINTS, TABLE, Code, Problem
from coatcheck.core.redact import Hit
from coatcheck.observe.auditlog import Keep, file_name
from coatcheck.observe.managementlog import Change, ManagementLog
from coatcheck.store.home import Home
from tests.docs import hints, pages
from tests.docs.pages import PAGES, ROOT, Block
from tests.docs.session import HOSTS, NETWORKS, VALUE, Api, Session, agrees
from tests.e2e.world import Unavailable, World
from tests.observe.audithouse import House

README = ROOT / "README.md"
SECURITY = ROOT / "SECURITY.md"
CLIENTS = ROOT / "docs" / "clients.md"
OPERATIONS = ROOT / "docs" / "operations.md"
ADMIN = ROOT / "docs" / "admin.md"
SECURITY_MODEL = ROOT / "docs" / "security-model.md"
TROUBLESHOOTING = ROOT / "docs" / "troubleshooting.md"
BLOCKS = [block for page in PAGES for block in pages.blocks(page)]
NOT_RUN = 16  # blocks of commands that nothing runs; each has its reason above it

_TEST_NAME = re.compile(r"tests/[\w/]+\.py(?:::\w+)+")


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


# --- commands ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    if missing := [name for name in ("bash", "curl") if shutil.which(name) is None]:
        pytest.skip(f"not installed: {', '.join(missing)}")
    try:
        made = World.open(tmp_path_factory.mktemp("world"), HOSTS, NETWORKS)
    except Unavailable as error:
        pytest.skip(f"no network of its own for the tests: {error}")
    yield made
    made.close()


@pytest.fixture(scope="module")
def upstream_ca(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The API of the examples runs at its names; this is who signed for them."""
    authority = trustme.CA()
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    authority.cert_pem.write_to_path(path)
    apis = []
    for host, address in HOSTS.items():
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert(host).configure_cert(context)
        apis.append(Api(world.listen(address, 443), context))
    yield path
    for api in apis:
        api.close()


def is_run(block: Block) -> bool:
    return block.is_commands and block.kind not in ("run by", "not run")


@pytest.mark.slow
@pytest.mark.parametrize("page", sorted({b.page for b in BLOCKS if is_run(b)}), ids=name_of)
def test_a_reader_who_follows_the_page_gets_what_it_says(
    page: Path, world: World, upstream_ca: Path, tmp_path: Path
) -> None:
    """In one shell, from top to bottom. The only help: the example's host is signed by our CA."""
    session = Session(world, tmp_path, {"COATCHECK_UPSTREAM_CA": str(upstream_ca)})
    try:
        for block in pages.blocks(page):
            for command in pages.commands(block) if is_run(block) else ():
                code, printed = session.run(command.text)
                told = f"{command.where}: {command.text}\n" + "\n".join(printed)
                assert code == command.exit_code, f"exit code {code}: {told}"
                assert command.output is None or agrees(printed, command.output), told
                assert VALUE not in "\n".join(printed), told
    finally:
        session.close()


def test_commands_that_nothing_runs_are_counted_and_say_why() -> None:
    left = [block for block in BLOCKS if block.kind == "not run"]

    assert len(left) == NOT_RUN, [block.where for block in left]
    assert all(len(block.about) > 10 and block.is_commands for block in left)


def test_commands_that_another_test_runs_name_it() -> None:
    named = [block.about for block in BLOCKS if block.kind == "run by"]

    assert named
    assert [name for name in named if not is_there(name)] == []


@pytest.mark.parametrize(
    ("printed", "said", "same"),
    [
        pytest.param(["a b"], ["a b"], True, id="the same"),
        pytest.param(["a b"], ["a c"], False, id="another word"),
        pytest.param(["a 17 b"], ["a ... b"], True, id="any text"),
        pytest.param(["a", "x", "y", "b"], ["a", "...", "b"], True, id="any lines"),
        pytest.param(["a", "b"], ["a", "...", "b"], True, id="no lines"),
        pytest.param(["a", "x"], ["a"], False, id="a line more"),
        pytest.param(["a"], ["a", "..."], True, id="nothing more"),
        pytest.param(["x", "a"], ["...", "a"], True, id="lines before"),
        pytest.param(["(a)"], ["[a]"], False, id="no expression"),
    ],
)
def test_how_an_output_is_compared(printed: list[str], said: list[str], same: bool) -> None:
    assert agrees(printed, said) is same


def test_ci_looks_for_every_program_that_need_not_be_installed() -> None:
    page, script = (ROOT / "CONTRIBUTING.md").read_text(), (ROOT / ".ci" / "run").read_text()
    rows = re.findall(r"^\| (`.*`) \| .* \|$", page, flags=re.MULTILINE)
    looked_for = re.search(r"^for tool in (.*); do$", script, flags=re.MULTILINE)

    assert looked_for
    named = {name for row in rows for name in re.findall(r"`([\w-]+)`", row)}
    assert named == set(looked_for[1].split()) - {"python3", "make"}


def test_every_target_of_make_is_there() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    named = {
        command.text.split()[1]
        for block in BLOCKS
        if block.is_commands
        for command in pages.commands(block)
        if command.text.startswith("make ")
    }

    assert {"demo", "test"} <= named <= targets


# --- examples ---------------------------------------------------------------------------------


def test_every_block_has_a_language_that_a_test_knows() -> None:
    """A typing error there would take the block out of all tests."""
    known = {"sh", "console", "yaml", "json", "text"}

    assert [block.where for block in BLOCKS if block.language not in known] == []


@pytest.mark.parametrize(
    "block", [b for b in BLOCKS if b.language == "yaml"], ids=lambda block: block.where
)
def test_every_policy_sources_and_settings_file_loads(block: Block, tmp_path: Path) -> None:
    if block.text.startswith("version:") and "\nsecrets:" in block.text:
        assert sourcefile.parse_text(block.text, block.where, tmp_path).secrets
        return
    if block.text.startswith("version:"):
        assert policyfile.parse(block.text, block.where).clients
        return
    file = tmp_path / "coatcheck.yaml"
    file.write_text(block.text)
    assert settings.load(home=tmp_path, config=file, environ={}) is not None


@pytest.mark.parametrize(
    "block", [b for b in BLOCKS if b.language == "json"], ids=lambda block: block.where
)
def test_every_line_of_json_is_json(block: Block) -> None:
    for line in block.text.splitlines():
        json.loads(line)


# --- tables -----------------------------------------------------------------------------------


# Programs outside read these: a code may be added, and none may go or change its status.
PROMISED = {
    "proxy_auth_required": 407,
    "bad_request": 400,
    "placeholder_malformed": 400,
    "destination_mismatch": 421,
    "destination_not_allowed": 403,
    "address_not_allowed": 403,
    "domain_not_allowed": 403,
    "secret_unavailable": 403,
    "location_not_allowed": 403,
    "request_not_allowed": 403,
    "plaintext_not_allowed": 403,
    "too_many_placeholders": 403,
    "value_not_representable": 422,
    "body_not_decodable": 415,
    "body_too_large": 413,
    "headers_too_large": 431,
    "too_many_connections": 429,
    "response_withheld": 502,
    "upstream_unreachable": 502,
    "upstream_tls_failed": 502,
    "upstream_timeout": 504,
    "store_unavailable": 503,
    "audit_unavailable": 503,
    "internal_error": 500,
}


def test_every_promised_code_is_there() -> None:
    assert {str(code): status for code, (status, _) in TABLE.items()}.items() >= PROMISED.items()


def test_the_table_of_refusals_is_that_of_the_code() -> None:
    rows = pages.table(README, "Refusals")

    assert {row[0]: row[1] for row in rows} == {str(c): str(s) for c, (s, _) in TABLE.items()}
    assert [row[0] for row in rows if not (row[2] and row[3])] == []


def entries_of_codes() -> dict[str, str]:
    """The section of each code in the page on troubleshooting."""
    codes = re.split(r"^## Codes$", TROUBLESHOOTING.read_text("utf-8"), flags=re.MULTILINE)[1]
    codes = re.split(r"^## ", codes, flags=re.MULTILINE)[0]
    parts = re.split(r"^### (\w+)$", codes, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_every_code_has_an_entry_and_no_other() -> None:
    assert list(entries_of_codes()) == [str(code) for code in Code]


@pytest.mark.parametrize("code", Code)
def test_an_entry_tells_the_status_what_happened_and_what_a_client_is_told(code: Code) -> None:
    """What it quotes are the hints of the source for this code: none missing, none made up."""
    entry = entries_of_codes()[code]
    quoted = set(re.findall(r"^> (.+)$", entry, flags=re.MULTILINE))

    assert entry.strip().startswith(f"**{TABLE[code][0]}.** ")
    assert len(entry.split()) > 12
    assert quoted == hints.of_refusals()[code], (
        "the lines with > and the hints of the source differ"
    )


def test_every_code_has_a_next_step() -> None:
    """`Problem` falls back on `HINTS`: what is refused without a word of its own is in there."""
    assert hints.of_refusals().keys() == set(Code)
    assert hints.without_any() <= HINTS.keys()


def test_the_table_of_refusals_of_the_admin_side_is_that_of_the_code() -> None:
    rows = pages.table(ADMIN, "Refusals")

    assert {row[0]: row[1] for row in rows} == {
        str(code): str(status) for code, (status, _) in ADMIN_TABLE.items()
    }
    assert [row[0] for row in rows if not (row[2] and row[3])] == []


def test_the_table_of_routes_of_the_admin_side_is_that_of_the_code() -> None:
    rows = pages.table(ADMIN, "All routes")
    routes = {
        route.path for router in web.API for route in router.routes if isinstance(route, APIRoute)
    }

    assert {row[0] for row in rows} == routes


def test_the_table_of_commands_is_that_of_the_program() -> None:
    shown = {row[0].split()[1] for row in pages.table(README, "Commands")}

    assert shown == set(COMMANDS)


def test_the_table_of_limits_is_that_of_the_code() -> None:
    """`tests/test_reference_docs.py` compares the page with its maker; this, with the limits."""
    expected = [[f.name, f"{f.default:.12g}", f.metadata["doc"]] for f in fields(Limits)]

    shown = pages.table(ROOT / "docs" / "settings.md", "Limits")
    assert [[name, default, meaning] for name, _, default, meaning in shown] == expected


def test_every_field_of_an_audit_line_is_explained(tmp_path: Path) -> None:
    destination = Destination("https", "api.example.com", 443)
    facts = audit.Facts("id", "local", "127.0.0.1", destination, "GET", "/")
    use = audit.Use("crm.apiKey", 1, "path")
    problem = Problem(Code.DOMAIN_NOT_ALLOWED, secret="x", location="path", operator="line 1")
    hits = audit.Counter({Hit("crm.apiKey", "raw"): 1})
    house = House(tmp_path)
    log = house.log(keep=Keep(files=1))
    for _ in range(2):
        log.write({})
        log.rotate()
    log.close()
    with house.path.open("ab") as file:
        file.write(b'{"sequence": 99, "chain": "%b"}\nhalf a line' % (b"0" * 64))
    house.written(1)
    change = Change(*("text" for _ in range(5)), ["a"], ["b"], "text", True)  # type: ignore[arg-type]
    with suppress(LookupError), ManagementLog(house.folder, house.keys).recorded("os:a", change):
        raise LookupError
    written = [path.read_bytes().splitlines() for path in sorted(house.folder.iterdir())]
    lines = [
        *(json.loads(line) for file in written for line in file if line.startswith(b'{"')),
        audit.allowed(0.0, facts, [use]),
        audit.injected(0.0, facts, [use]),
        audit.refused(0.0, facts, problem, let_go=True),
        audit.scrubbed(0.0, facts, 200, {"head": hits}),
    ]

    assert {row[0] for row in pages.table(OPERATIONS, "Audit log")} == set(keys(lines)) - {"n"}


def keys(value: object) -> Iterator[str]:
    """Every key in *value*, however deep."""
    if isinstance(value, dict):
        yield from value
    for inner in value.values() if isinstance(value, dict) else ():
        yield from keys(inner)
    for item in value if isinstance(value, list) else ():
        yield from keys(item)


def test_every_event_of_the_log_is_explained() -> None:
    assert {row[0] for row in pages.table(OPERATIONS, "Logs")} == set(logged_events())


def logged_events() -> Iterator[str]:
    """The constant names that src gives to whatever logs."""
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name):
                called = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
                if called in ("event", "log", "_log", "note"):
                    texts = (a.value for a in node.args if isinstance(a, ast.Constant))
                    yield from (t for t in texts if isinstance(t, str) and "." in t)


def test_the_layout_of_a_home_is_that_of_the_code() -> None:
    shown = {row[0] for row in pages.table(OPERATIONS, "Home")}
    home = Home(Path("/home"))
    places = [home.private_key, home.public_key, home.store, home.ca_key, home.ca_certificate]
    places += [home.policy, home.config, home.audit / file_name(1), home.run, home.seen]
    places += [home.audit_key, home.audit_public, home.audit_heads]

    assert shown == {str(path.relative_to(home.root)) for path in places}


def test_every_variable_in_the_table_of_clients_is_set_by_run() -> None:
    """But for those of COATCHECK_ itself, and a constant of curl's library in a note."""
    text = " ".join(
        cell for row in pages.table(CLIENTS, "How each is pointed here") for cell in row[1:3]
    )
    named = set(re.findall(r"[A-Za-z]+_[A-Za-z_]+", text)) - {"CURLOPT_PROXY"}
    set_by_run = {
        "NODE_USE_ENV_PROXY",
        "WGETRC",
        "PHP_INI_SCAN_DIR",
        "JAVA_TOOL_OPTIONS",
        "ca_certificate",
    }
    set_by_run |= {*childenv.PROXY_NAMES, *childenv.BUNDLE_NAMES, *childenv.ADDED_CA_NAMES}

    assert len(named) > 12
    assert named <= set_by_run


# --- names ------------------------------------------------------------------------------------


def test_every_test_that_security_names_exists() -> None:
    named = _TEST_NAME.findall(SECURITY.read_text("utf-8"))

    assert len(named) > 40
    assert [name for name in named if not is_there(name)] == []


def test_every_access_in_the_security_model_names_a_test_that_shows_it() -> None:
    rows = pages.table(SECURITY_MODEL, "What somebody can do")
    named = _TEST_NAME.findall(SECURITY_MODEL.read_text("utf-8"))

    assert len(rows) >= 15
    assert [
        row[0] for row in rows if not _TEST_NAME.search(row[3]) and "no test" not in row[3]
    ] == []
    assert [name for name in named if not is_there(name)] == []


@pytest.mark.parametrize("promise", ["G1", "G2", "G3", "G4", "G5", "G6"])
def test_every_promise_names_tests_that_hold_it(promise: str) -> None:
    section = re.split(rf"^### {promise} ", SECURITY.read_text("utf-8"), flags=re.MULTILINE)[1]
    section = re.split(r"^##", section, flags=re.MULTILINE)[0]

    assert len(_TEST_NAME.findall(section)) >= 3


def items_not_promised() -> list[str]:
    """Each bullet, and each row of the table, that says what is not promised."""
    text = SECURITY.read_text("utf-8")
    section = text.partition("\n## Not promised\n")[2].partition("\n## ")[0]
    bullets = re.split(r"^- ", section, flags=re.MULTILINE)[1:]
    rows = [" | ".join(row) for row in pages.table(SECURITY, "Under mitmdump")]
    return bullets + rows


@pytest.mark.parametrize("item", items_not_promised(), ids=lambda text: text[:40].strip())
def test_what_is_not_promised_names_a_test_that_shows_it(item: str) -> None:
    """Or says in words why none can."""
    assert _TEST_NAME.search(item) or "no test" in item


def test_what_is_not_promised_is_found() -> None:
    """All three of NG, the smaller ones, and the table."""
    found = items_not_promised()

    assert [text[2:5] for text in found[:3]] == ["NG1", "NG2", "NG3"]
    assert len(found) >= 3 + 12 + 8


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def is_there(name: str) -> bool:
    """Whether ``FILE::[CLASS::]TEST`` is there."""
    path, *parts = name.split("::")
    if not (ROOT / path).is_file():
        return False
    body = parsed(ROOT / path).body
    for part in parts:
        found = [
            n for n in body if isinstance(n, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        ]
        match = next((n for n in found if n.name == part), None)
        if match is None:
            return False
        body = match.body
    return True


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_somewhere(page: Path) -> None:
    lost = []
    for link in pages.links(page):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path) if path else page
        if not target.exists() or (anchor and anchor not in pages.anchors(target)):
            lost.append(link)

    assert lost == []


def test_the_index_leads_to_every_page() -> None:
    """But to the decisions, which are there as one folder."""
    docs = ROOT / "docs"
    linked = {(docs / link.partition("#")[0]).resolve() for link in pages.links(docs / "README.md")}
    there = {page for page in PAGES if page.is_relative_to(docs) and page.name != "README.md"}

    assert [name_of(page) for page in sorted(there) if linked.isdisjoint([page, page.parent])] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_file_that_is_named_exists(page: Path) -> None:
    """Paths in backticks that begin with a folder of the repository, or of the package."""
    text = pages.prose(page)
    named = re.findall(
        r"`((?:core|engine|store|observe|cli|tests|docs|config|deploy|scripts|bench|addons|src)"
        r"/[\w/.-]*)(?:::[^`]*)?`",
        text,
    )
    roots = (ROOT, ROOT / "src" / "coatcheck")

    assert [name for name in named if not any((root / name).exists() for root in roots)] == []


def test_every_decision_is_short_and_has_its_parts() -> None:
    decisions = sorted((ROOT / "docs" / "decisions").glob("*.md"))

    assert [int(path.name[:4]) for path in decisions] == list(range(1, len(decisions) + 1))
    for path in decisions:
        text = path.read_text("utf-8")
        assert text.startswith(f"# {path.name[:4]} "), path.name
        assert all(part in text for part in ("Context: ", "Choice: ", "Given up: ")), path.name
        assert len(text.splitlines()) <= 30, path.name


def test_there_is_one_version_and_the_changelog_begins_with_it() -> None:
    heading = re.search(r"^## \[(.+?)\] - (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    release, _, state = __version__.partition(".dev")

    assert heading
    assert heading[1] == release
    assert (heading[2] == "unreleased") is bool(state)


def test_nothing_is_said_of_the_machine_that_this_was_written_on() -> None:
    """Home folders and mounts of a private machine have no place in a page."""
    private = re.compile(r"/(?:root|home/\w+|work|farm)/")

    assert [name_of(page) for page in PAGES if private.search(page.read_text("utf-8"))] == []
