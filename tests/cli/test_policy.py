"""`coatcheck policy`: check, schema, explain. Exit codes, both outputs, and what is never shown."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from coatcheck import policyfile, settings
from coatcheck.cli import main
from coatcheck.core.destination import parse_domain_pattern
from coatcheck.store.home import Home, create_home
from coatcheck.store.sql import SqlStore

NOW = 1_700_000_000.0
VALUE = b"sk-live-9f8A7b6C5d4E3f2G1h0I"
POLICY = """\
version: 1
clients:
  runner: {networks: [10.0.0.0/8]}
grants:
  - secrets: ["crm.*"]
    clients: [runner]
    hosts: ["api.crm.example"]
    methods: [GET]
    in: ["header:authorization"]
    max_uses: 1
  - secrets: ["crm.key"]
    clients: [runner]
    paths: ["/v2/**"]
    in: ["query:key"]
egress:
  deny: ["evil.example"]
  passthrough: ["*.tunnel.example"]
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home with one secret, crm.key, for api.crm.example, and `POLICY`."""
    made = create_home(tmp_path_factory.mktemp("policy") / "home", now=NOW).home
    made.policy.write_text(POLICY)
    store = SqlStore.open(made.store, public=made.read_public_key())
    domains = [parse_domain_pattern("api.crm.example")]
    store.put("crm.key", VALUE, domains=domains, description=None, now=NOW)
    store.close()
    return made


def coatcheck(*arguments: str) -> Result:
    return CliRunner().invoke(main.app, ["policy", *arguments])


def explain(home: Home, *arguments: str) -> Result:
    return coatcheck("explain", *arguments, "--home", str(home.root))


def explained(home: Home, *arguments: str) -> dict[str, object]:
    result = explain(home, *arguments, "--format", "json")
    document: dict[str, object] = json.loads(result.stdout)
    assert result.exit_code == (0 if document["outcome"] == "sent" else 2)
    return document


class TestCheck:
    def test_a_fine_file(self, tmp_path: Path) -> None:
        path = tmp_path / "p.yaml"
        path.write_text(POLICY)

        result = coatcheck("check", str(path))

        assert result.exit_code == 0
        assert result.stdout.splitlines() == [
            f"{path}: no mistakes; 1 client, 2 grants",
            f"warning: {path}:17: *.tunnel.example is tunnelled unseen: nothing is injected,"
            " scrubbed or recorded there but the connection",
        ]

    def test_without_a_file_that_of_the_home(self, home: Home) -> None:
        result = coatcheck("check", "--home", str(home.root))

        assert result.exit_code == 0
        assert result.stdout.startswith(f"{home.policy}: no mistakes; ")

    def test_a_fine_file_as_json(self, tmp_path: Path) -> None:
        path = tmp_path / "p.yaml"
        path.write_text("version: 1\n")

        result = coatcheck("check", str(path), "--format", "json")

        assert json.loads(result.stdout) == {
            "file": str(path),
            "valid": True,
            "clients": 0,
            "grants": 0,
            "sha256": policyfile.read(path).digest,
            "warnings": [],
        }

    def test_a_broken_file(self, tmp_path: Path) -> None:
        """Bare lines on stderr, as compilers print them; nothing on stdout."""
        path = tmp_path / "p.yaml"
        path.write_text("version: 2\ngrant: []\n")

        result = coatcheck("check", str(path))

        assert result.exit_code == 1
        assert result.stdout == ""
        assert result.stderr.splitlines() == [
            f"{path}:1:10: 2 is out of range; this coatcheck reads 'version: 1'",
            f"{path}:2:1: the key 'grant' is not known here; did you mean 'grants'?",
        ]

    def test_a_broken_file_as_json(self, tmp_path: Path) -> None:
        path = tmp_path / "p.yaml"
        path.write_text("version: 2\n")

        result = coatcheck("check", str(path), "--format", "json")

        assert result.exit_code == 1
        assert json.loads(result.stdout) == {
            "file": str(path),
            "valid": False,
            "mistakes": [
                {
                    "where": f"{path}:1:10",
                    "what": "2 is out of range",
                    "hint": "this coatcheck reads 'version: 1'",
                }
            ],
        }

    def test_no_file(self, tmp_path: Path) -> None:
        result = coatcheck("check", str(tmp_path / "no.yaml"))

        assert result.exit_code == 1
        assert "there is no such file" in result.stderr

    def test_a_file_that_everybody_can_write(self, tmp_path: Path) -> None:
        path = tmp_path / "p.yaml"
        path.write_text("version: 1\n")
        path.chmod(0o666)

        assert f"run: chmod o-w {path}" in coatcheck("check", str(path)).stdout


class TestSchema:
    def test_of_the_policy(self) -> None:
        assert json.loads(coatcheck("schema").stdout) == policyfile.schema()

    def test_of_the_settings(self) -> None:
        assert json.loads(coatcheck("schema", "--settings").stdout) == settings.schema()


API = "https://api.crm.example/v1/me"
BEARER = ("-H", "Authorization: Bearer {{secrets.crm.key}}")


class TestExplain:
    def test_a_request_that_is_sent(self, home: Home) -> None:
        assert explained(home, "GET", API, *BEARER) == {
            "outcome": "sent",
            "code": None,
            "status": None,
            "detail": None,
            "hint": None,
            "operator_hint": None,
            "client": "runner",
            "method": "GET",
            "destination": "https://api.crm.example",
            "canonical_path": "/v1/me",
            "policy": {"file": str(home.policy), "sha256": policyfile.read(home.policy).digest},
            "egress": {"rule": "default: allow", "intercepted": True},
            "reported": None,
            "placeholders": [
                {
                    "secret": "crm.key",
                    "exists": True,
                    "location": "header:authorization",
                    "outcome": "injected",
                    "code": None,
                    "hint": None,
                    "reported": None,
                    "grant_line": 5,
                    "grants": [
                        {"line": 5, "allows": True, "stopped_at": None},
                        {"line": 11, "allows": False, "stopped_at": "path"},
                    ],
                }
            ],
        }

    def test_a_request_that_is_refused(self, home: Home) -> None:
        document = explained(home, "POST", API, *BEARER)

        assert document["code"] == "request_not_allowed"
        assert document["status"] == 403
        assert document["operator_hint"] == (
            "nearest grant: line 11; failed at: its paths hold this path"
        )
        assert document["placeholders"] == [
            {
                "secret": "crm.key",
                "exists": True,
                "location": "header:authorization",
                "outcome": "refused",
                "code": "request_not_allowed",
                "hint": document["operator_hint"],
                "reported": None,
                "grant_line": 11,
                "grants": [
                    {"line": 5, "allows": False, "stopped_at": "method"},
                    {"line": 11, "allows": False, "stopped_at": "path"},
                ],
            }
        ]

    def test_the_tree_for_people(self, home: Home) -> None:
        result = explain(home, "GET", API + "?key=__secrets.crm.key__", *BEARER)

        assert result.exit_code == 2
        assert result.stdout.splitlines() == [
            "GET https://api.crm.example, sent by runner",
            f"├── policy {home.policy}",
            "├── egress: default: allow",
            "├── secret crm.key in query:key: refused, nearest grant: line 5",
            "│   ├── grant in line 5: its places hold every place where the placeholder stands? no",
            "│   └── grant in line 11: its paths hold this path? no",
            "├── secret crm.key in header:authorization: injected, by line 5",
            "│   ├── grant in line 5: allows",
            "│   └── grant in line 11: its paths hold this path? no",
            "└── result: refused, location_not_allowed (403)",
            "    ├── The placeholder stands in a place where no grant lets it.",
            "    ├── nearest grant: line 5; failed at: its places hold every place where the"
            " placeholder stands",
            "    └── move the placeholder, or ask an operator to add the place to the grant's in:"
            " list",
        ]

    @pytest.mark.parametrize(
        ("arguments", "code"),
        [
            pytest.param(["GET", API], None, id="no placeholder"),
            pytest.param(["GET", "https://evil.example/"], "destination_not_allowed", id="egress"),
            pytest.param(["GET", "https://10.1.2.3/"], "address_not_allowed", id="private address"),
            pytest.param(["GET", "http://169.254.169.254/"], "address_not_allowed", id="metadata"),
            pytest.param(
                ["GET", "https://other.example/", *BEARER], "domain_not_allowed", id="another host"
            ),
            pytest.param(
                ["GET", "https://evil.example/", *BEARER],
                "destination_not_allowed",
                id="egress comes first",
            ),
            pytest.param(
                ["GET", "http://api.crm.example/", *BEARER], "plaintext_not_allowed", id="http"
            ),
            pytest.param(
                ["GET", "http://api.crm.example:443/", *BEARER], "domain_not_allowed", id="port"
            ),
            pytest.param(
                ["GET", API, "-H", "X-A: {{secrets.crm.no}}"], "secret_unavailable", id="no secret"
            ),
            pytest.param(
                ["GET", API, "-H", "X-A: {{secrets.crm"], "placeholder_malformed", id="half"
            ),
            pytest.param(
                ["GET", API, "-H", "Authorization: {secrets.crm.key} __secrets.crm.key__"],
                "too_many_placeholders",
                id="twice",
            ),
            pytest.param(
                ["GET", API + "/{{secrets.crm.key}}"], "location_not_allowed", id="in the path"
            ),
            pytest.param(
                ["GET", API, "-d", "a=1&key={{secrets.crm.key}}"],
                "location_not_allowed",
                id="in a form",
            ),
            pytest.param(
                ["GET", API, "-H", "Content-Type: image/png", "-d", "{{secrets.crm.key}}"],
                None,
                id="a binary body is not searched",
            ),
            pytest.param(
                ["GET", API, "-H", "Content-Type: multipart/form-data", "-d", "x"],
                "bad_request",
                id="a multipart body without a boundary",
            ),
            pytest.param(
                ["GET", API, "-H", "Host: evil.example"], "destination_mismatch", id="Host"
            ),
            pytest.param(["GET", API, "-H", "Host: api.crm.example"], None, id="the same Host"),
            pytest.param(["GET", "https://a.tunnel.example/", *BEARER], None, id="passthrough"),
            pytest.param(
                ["GET", "https://{{secrets.crm.key}}:x@api.crm.example/"], None, id="user of a URL"
            ),
        ],
    )
    def test_code(self, home: Home, arguments: list[str], code: str | None) -> None:
        assert explained(home, *arguments)["code"] == code

    @pytest.mark.parametrize(
        "url",
        [
            pytest.param("https://u:{}@api.crm.example/", id="a password"),
            pytest.param("https://{}@api.crm.example/", id="a user"),
            pytest.param("https://u:{}/x@api.crm.example/", id="with a slash that is not encoded"),
            pytest.param("https://u:{}@api..example/", id="before a host that is none"),
            pytest.param("u:{}@api.crm.example", id="without a scheme"),
        ],
    )
    def test_user_and_password_are_not_repeated(self, home: Home, url: str) -> None:
        result = explain(home, "GET", url.format(VALUE.decode()))

        assert result.output
        assert VALUE.decode()[:8] not in result.output

    def test_a_host_that_is_none_is_told_with_the_reason(self, home: Home) -> None:
        assert "empty label" in explain(home, "GET", "https://api..example/").output

    def test_places_of_a_body_have_names(self, home: Home) -> None:
        kind = ("-H", "Content-Type: application/json")
        body = '{"auth": {"key": "{{secrets.crm.key}}"}}'

        document = explained(home, "GET", API, *kind, "-d", body)

        (place,) = document["placeholders"]  # type: ignore[misc]
        assert place["location"] == "body:/auth/key"

    @pytest.mark.parametrize("style", ["table", "json"])
    def test_neither_value_nor_headers_nor_body_are_shown(self, home: Home, style: str) -> None:
        result = explain(
            home,
            *("GET", API + "?q=in-the-query", "-H", "X-Key: in-a-header", "-d", "in-the-body"),
            *(*BEARER, "--format", style),
        )

        for hidden in (VALUE.decode(), "in-the-query", "in-a-header", "in-the-body"):
            assert hidden not in result.output

    def test_a_policy_that_is_not_in_force_yet(self, home: Home, tmp_path: Path) -> None:
        path = tmp_path / "next.yaml"
        path.write_text(POLICY.replace("methods: [GET]", "methods: [GET, POST]"))

        assert explain(home, "POST", API, *BEARER).exit_code == 2
        assert explain(home, "POST", API, *BEARER, "--policy", str(path)).exit_code == 0

    @pytest.mark.parametrize(
        ("arguments", "told"),
        [
            pytest.param(["GET", "api.crm.example"], "begins neither with https://", id="no URL"),
            pytest.param(["GET", "ftp://x.example/"], "begins neither with https://", id="ftp"),
            pytest.param(["GET", "https://127.1/"], "the URL has no usable host", id="127.1"),
            pytest.param(["GET", "https://x.example/a b"], "the URL holds spaces", id="a space"),
            pytest.param(
                ["POST", "http://coatcheck.internal/url/crm.apiKey"],
                "coatcheck.internal is not explained",
                id="a URL that is a value",
            ),
            pytest.param(["G T", API], "this is no HTTP method", id="a method with a space"),
            pytest.param(["GET", API, "-H", "sk-live-1"], "is no header", id="no header"),
            pytest.param(["GET", API, "--client", "runer"], "did you mean 'runner'?", id="client"),
            pytest.param(["GET", API, "--policy", "/no"], "there is no such file", id="no policy"),
        ],
    )
    def test_what_cannot_be_told_ends_with_1(
        self, home: Home, arguments: list[str], told: str
    ) -> None:
        result = explain(home, *arguments)

        assert result.exit_code == 1
        assert told in result.stderr
        assert "sk-live" not in result.output

    def test_of_several_clients_one_must_be_named(self, home: Home, tmp_path: Path) -> None:
        path = tmp_path / "two.yaml"
        path.write_text(POLICY.replace("grants:", "  other: {networks: [11.0.0.0/8]}\ngrants:"))
        two = ("GET", API, *BEARER, "--policy", str(path))

        assert "say --client with one of: runner, other" in explain(home, *two).stderr
        assert explain(home, *two, "--client", "runner").exit_code == 0
        assert explain(home, *two, "--client", "other").exit_code == 2

    def test_without_a_home(self, tmp_path: Path) -> None:
        result = explain(Home(tmp_path / "no"), "GET", API)

        assert result.exit_code == 1
        assert "coatcheck init" in result.stderr


def test_neither_command_imports_the_engine() -> None:
    code = (
        "import sys; import coatcheck.cli.policy, coatcheck.cli.explaining, coatcheck.cli.secret;"
        " import coatcheck.policyfile; print('mitmproxy' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert ran.stdout.strip() == "False"
