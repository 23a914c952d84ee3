"""The settings: where one comes from, and what is said about each mistake."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from coatcheck import settings
from coatcheck.core.limits import Limits
from coatcheck.settings import ENTRIES, Settings, SettingsError, load, parse_address

CONFIG = Path(__file__).parent.parent / "config"


def from_file(tmp_path: Path, text: str) -> Settings:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    return load(home=tmp_path / "home", config=path, environ={})


def told(tmp_path: Path, text: str) -> list[str]:
    """What is said about a file, each line without the folder."""
    with pytest.raises(SettingsError) as caught:
        from_file(tmp_path, text)
    return [line.removeprefix(f"{tmp_path}/") for line in str(caught.value).split("\n")]


class TestDefaults:
    def test_every_default(self, tmp_path: Path) -> None:
        assert load(home=tmp_path, environ={}) == Settings(
            home=tmp_path,
            listen=("127.0.0.1", 8080),
            admin=("127.0.0.1", 8081),
            policy=tmp_path / "policy.yaml",
            store=str(tmp_path / "store.db"),
            workers=1,
            role="all",
            upstream_ca=None,
            upstream_proxy=None,
            limits=Limits(),
        )

    @pytest.mark.parametrize("limit", dataclasses.fields(Limits), ids=lambda limit: limit.name)
    def test_every_limit_says_its_unit_and_lies_within_its_bounds(
        self, limit: dataclasses.Field[float]
    ) -> None:
        assert limit.metadata["least"] <= limit.default <= limit.metadata["most"]
        assert limit.metadata["doc"]
        units = ("_bytes", "_fields", "_ratio", "_per_request", "_s", "_ms", "_chars")
        units += ("_mib", "_days", "_files", "_spans", "certificates", "connections", "_per_client")
        assert limit.name.endswith(units)


class TestHome:
    @pytest.mark.parametrize(
        ("environ", "home"),
        [
            pytest.param({"COATCHECK_HOME": "/a", "XDG_DATA_HOME": "/b"}, "/a", id="its variable"),
            pytest.param({"XDG_DATA_HOME": "/b", "HOME": "/c"}, "/b/coatcheck", id="XDG"),
            pytest.param(
                {"XDG_DATA_HOME": "b", "HOME": "/c"},
                "/c/.local/share/coatcheck",
                id="a relative XDG path does not count",
            ),
            pytest.param({"HOME": "/c"}, "/c/.local/share/coatcheck", id="the user's folder"),
            pytest.param(
                {"COATCHECK_HOME": "", "HOME": "/c"}, "/c/.local/share/coatcheck", id="empty: unset"
            ),
        ],
    )
    def test_home(self, environ: dict[str, str], home: str) -> None:
        assert load(environ=environ).home == Path(home)

    def test_the_flag_goes_first(self) -> None:
        assert load(home=Path("/x"), environ={"COATCHECK_HOME": "/a"}).home == Path("/x")


class TestOrder:
    """Flag, environment, file, default."""

    FILE = "workers: 2\n"

    @pytest.mark.parametrize(
        ("flags", "environ", "workers"),
        [
            pytest.param({"workers": "4"}, {"COATCHECK_WORKERS": "3"}, 4, id="a flag goes first"),
            pytest.param({}, {"COATCHECK_WORKERS": "3"}, 3, id="then the environment"),
            pytest.param({}, {"COATCHECK_WORKERS": ""}, 2, id="an empty variable is unset"),
            pytest.param({}, {}, 2, id="then the file"),
        ],
    )
    def test_order(
        self, tmp_path: Path, flags: dict[str, str], environ: dict[str, str], workers: int
    ) -> None:
        (tmp_path / "coatcheck.yaml").write_text(self.FILE)

        assert load(home=tmp_path, flags=flags, environ=environ).workers == workers

    @pytest.mark.parametrize(
        ("config", "environ", "workers"),
        [
            pytest.param("flag.yaml", {"COATCHECK_CONFIG": "env.yaml"}, 5, id="--config"),
            pytest.param(None, {"COATCHECK_CONFIG": "env.yaml"}, 6, id="COATCHECK_CONFIG"),
            pytest.param(None, {}, 7, id="the one in home"),
        ],
    )
    def test_which_file(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        config: str | None,
        environ: dict[str, str],
        workers: int,
    ) -> None:
        monkeypatch.chdir(tmp_path)
        for name, count in (("flag", 5), ("env", 6), ("coatcheck", 7)):
            (tmp_path / f"{name}.yaml").write_text(f"workers: {count}\n")

        found = load(home=tmp_path, config=Path(config) if config else None, environ=environ)

        assert found.workers == workers

    def test_a_limit_from_each_source(self, tmp_path: Path) -> None:
        (tmp_path / "coatcheck.yaml").write_text("limits: {head_bytes: 4096, head_fields: 50}\n")
        environ = {"COATCHECK_LIMITS_HEAD_BYTES": "8192", "COATCHECK_LIMITS_STORE_POLL_MS": "100"}

        limits = load(home=tmp_path, flags={"limits.decoded_ratio": "9"}, environ=environ).limits

        assert limits == dataclasses.replace(
            Limits(), head_bytes=8192, head_fields=50, store_poll_ms=100, decoded_ratio=9
        )

    def test_relative_paths_start_at_the_file_or_at_the_working_folder(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "etc").mkdir()
        (tmp_path / "etc" / "c.yaml").write_text("policy: p.yaml\nstore: s.db\n")
        monkeypatch.chdir(tmp_path)

        found = load(
            home=tmp_path, config=Path("etc/c.yaml"), flags={"upstream_ca": "ca.pem"}, environ={}
        )

        assert found.policy == tmp_path / "etc" / "p.yaml"
        assert found.store == str(tmp_path / "etc" / "s.db")
        assert found.upstream_ca == tmp_path / "ca.pem"

    def test_an_empty_file_is_all_defaults(self, tmp_path: Path) -> None:
        assert from_file(tmp_path, "# nothing\n").workers == 1

    def test_other_variables_are_left_alone(self, tmp_path: Path) -> None:
        """Kubernetes sets these for a service of the name coatcheck."""
        environ = {"COATCHECK_SERVICE_HOST": "10.0.0.1", "COATCHECK_PORT": "tcp://10.0.0.1:80"}

        assert load(home=tmp_path, environ=environ) == load(home=tmp_path, environ={})


class TestAddress:
    @pytest.mark.parametrize(
        ("text", "address"),
        [
            ("127.0.0.1:8080", ("127.0.0.1", 8080)),
            ("[::1]:8080", ("::1", 8080)),
            ("[0:0::1]:8080", ("::1", 8080)),
            ("localhost:0", ("localhost", 0)),
            ("0.0.0.0:65535", ("0.0.0.0", 65535)),
        ],
    )
    def test_address(self, text: str, address: tuple[str, int]) -> None:
        assert parse_address(text) == address

    @pytest.mark.parametrize(
        "text",
        [
            *("", "8080", "localhost", ":8080", "localhost:", "a:b", "a:65536", "a:-1", "a:08"),
            *("[::1]", "[::1:80", "[x]:80", "::1:80", "a b:80", "http://a:80", "a:80/", "a:+80"),
            *("a:8_0", "a:٣"),
        ],
    )
    def test_no_address(self, text: str) -> None:
        with pytest.raises(ValueError, match=r".+"):
            parse_address(text)

    @given(st.text(max_size=12))
    def test_nothing_else_is_raised(self, text: str) -> None:
        try:
            host, port = parse_address(text)
        except ValueError:
            return
        assert host
        assert 0 <= port <= 65535


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("- x\n", "c.yaml:1:1: the file holds a list", id="a list"),
        pytest.param("workers: [\n", "c.yaml:2:1: brackets", id="no YAML"),
        pytest.param("listn: x\n", "c.yaml:1:1: there is no setting 'listn'; did you", id="typo"),
        pytest.param(
            "home: /x\n", "c.yaml:1:1: there is no setting 'home'; set it with", id="home"
        ),
        pytest.param(
            "head_bytes: 9\n",
            "c.yaml:1:1: there is no setting 'head_bytes'; put it under",
            id="level",
        ),
        pytest.param(
            "limits.head_bytes: 4096\n", "c.yaml:1:1: there is no setting 'limits.h", id="dotted"
        ),
        pytest.param(
            "workers: 1\nworkers: 2\n", "c.yaml:2:1: the key 'workers' stands", id="twice"
        ),
        pytest.param("workers:\n", "c.yaml:1:9: there is no value", id="no value"),
        pytest.param("workers: 0\n", "c.yaml:1:10: workers: this is not a whole number", id="zero"),
        pytest.param(
            "workers: 1.5\n", "c.yaml:1:10: workers: this is not a whole", id="a fraction"
        ),
        pytest.param("workers: many\n", "c.yaml:1:10: workers is text", id="words"),
        pytest.param('workers: "2"\n', "c.yaml:1:10: workers is text (2)", id="quotes"),
        pytest.param("workers: true\n", "c.yaml:1:10: workers is a boolean", id="true"),
        pytest.param("workers: [2]\n", "c.yaml:1:10: workers is a list", id="list"),
        pytest.param("listen: 8080\n", "c.yaml:1:9: listen is a number", id="a port alone"),
        pytest.param("listen: 12:30\n", "c.yaml:1:9: listen is a number (12:30)", id="sexagesimal"),
        pytest.param("listen: localhost\n", "c.yaml:1:9: listen: there is no port", id="no port"),
        pytest.param("role: prox\n", "c.yaml:1:7: role: there is no such role; did you", id="role"),
        pytest.param("role: off\n", "c.yaml:1:7: role is a boolean (off)", id="off"),
        pytest.param("limits: 5\n", "c.yaml:1:9: limits is no mapping", id="limits"),
        pytest.param(
            "limits: {head_byte: 4096}\n", "c.yaml:1:10: there is no limit 'head_byte'", id="limit"
        ),
        pytest.param(
            "limits: {head_bytes: 64k}\n", "c.yaml:1:22: limits.head_bytes is text (64k)", id="unit"
        ),
        pytest.param(
            "limits: {head_bytes: 1}\n", "c.yaml:1:22: limits.head_bytes: this is not", id="small"
        ),
        pytest.param(
            "limits: {idle_timeout_s: .inf}\n",
            "c.yaml:1:26: limits.idle_timeout_s: t",
            id="endless",
        ),
        pytest.param(
            "upstream_proxy: proxy.example\n",
            "c.yaml:1:17: upstream_proxy: the upstream",
            id="proxy",
        ),
        pytest.param("store: '://x'\n", "c.yaml:1:8: store: the store is neither", id="store"),
    ],
)
def test_a_mistake_in_the_file(tmp_path: Path, text: str, expected: str) -> None:
    lines = told(tmp_path, text)

    assert any(line.startswith(expected) for line in lines), lines


class TestMistakesElsewhere:
    @pytest.mark.parametrize(
        ("flags", "environ", "expected"),
        [
            pytest.param(
                {"listen": "x"}, {}, "--listen: there is no port from 0 to 65535", id="a flag"
            ),
            pytest.param(
                {}, {"COATCHECK_WORKERS": "x"}, "COATCHECK_WORKERS: this is not", id="a variable"
            ),
            pytest.param(
                {},
                {"COATCHECK_LIMITS_HEAD_BYTE": "9"},
                "COATCHECK_LIMITS_HEAD_BYTE: there is no such limit; did you mean"
                " COATCHECK_LIMITS_HEAD_BYTES?",
                id="an unknown limit",
            ),
        ],
    )
    def test_where(
        self, tmp_path: Path, flags: dict[str, str], environ: dict[str, str], expected: str
    ) -> None:
        with pytest.raises(SettingsError) as caught:
            load(home=tmp_path, flags=flags, environ=environ)

        assert str(caught.value).startswith(expected)

    def test_all_sources_are_told_at_once(self, tmp_path: Path) -> None:
        (tmp_path / "coatcheck.yaml").write_text("workers: 0\nrole: x\n")

        with pytest.raises(SettingsError) as caught:
            load(home=tmp_path, flags={"admin": "x"}, environ={"COATCHECK_LISTEN": "x"})

        assert [m.where for m in caught.value.mistakes] == [
            f"{tmp_path}/coatcheck.yaml:1:10",
            f"{tmp_path}/coatcheck.yaml:2:7",
            "COATCHECK_LISTEN",
            "--admin",
        ]

    def test_a_named_file_must_exist(self, tmp_path: Path) -> None:
        with pytest.raises(SettingsError, match="there is no such file; check --config"):
            load(home=tmp_path, config=tmp_path / "no.yaml", environ={})


class TestPasswords:
    """``store`` and ``upstream_proxy`` may hold one: neither errors nor repr show them."""

    def test_repr(self, tmp_path: Path) -> None:
        flags = {"store": "postgresql://u:hunter2@db/x", "upstream_proxy": "http://u:hunter2@p:1"}

        found = load(home=tmp_path, flags=flags, environ={})

        assert found.store == flags["store"]
        assert found.upstream_proxy == flags["upstream_proxy"]
        assert "hunter2" not in repr(found)

    @pytest.mark.parametrize(
        "text",
        [
            "upstream_proxy: u:hunter2@p:1",
            "upstream_proxy: 'http://u:hunter2@p:x'",
            "upstream_proxy: 'http://u:hunter2@p:1/x'",
            "upstream_proxy: [hunter2]",
            "upstream_proxy: {u: hunter2}",
            "store: '!://u:hunter2@db'",
            "store: [hunter2]",
            "workers: {u: hunter2}",
        ],
    )
    def test_errors(self, tmp_path: Path, text: str) -> None:
        assert "hunter2" not in "\n".join(told(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("coatcheck.example.com", ("coatcheck.example.com",)),
        ("A.example.com, 10.1.2.3", ("a.example.com", "10.1.2.3")),
    ],
)
def test_names_of_the_admin_side_stand_in_one_text(
    tmp_path: Path, text: str, hosts: tuple[str, ...]
) -> None:
    assert load(home=tmp_path, environ={"COATCHECK_ADMIN_HOSTS": text}).admin_hosts == hosts


@pytest.mark.parametrize("text", ["https://a.example.com", "a.example.com:8081", ",", "a b"])
def test_what_is_no_name_of_the_admin_side(tmp_path: Path, text: str) -> None:
    with pytest.raises(SettingsError, match="no host names"):
        load(home=tmp_path, environ={"COATCHECK_ADMIN_HOSTS": text})


def test_a_default_admin_address_was_not_given(tmp_path: Path) -> None:
    assert not load(home=tmp_path, environ={}).admin_given
    assert load(home=tmp_path, environ={"COATCHECK_ADMIN": "127.0.0.1:8081"}).admin_given


class TestConfigFolder:
    TEXT = (CONFIG / "coatcheck.yaml").read_text()
    HIDDEN = r"policy|store|sources|upstream_\w+|traces_\w+|admin_hosts|oidc_(issuer|audience|jwks)"

    def test_the_reference_loads_and_holds_the_defaults(self, tmp_path: Path) -> None:
        found = load(home=tmp_path, config=CONFIG / "coatcheck.yaml", environ={})

        assert found == dataclasses.replace(load(home=tmp_path, environ={}), admin_given=True)

    def test_the_reference_shows_every_setting(self) -> None:
        whole = re.sub(rf"(?m)^# ({self.HIDDEN}):", r"\1:", self.TEXT)
        shown = yaml.safe_load(whole)

        top = {name for name in ENTRIES if "." not in name}
        assert set(shown) == top | {"limits"}
        assert list(shown["limits"]) == [limit.name for limit in dataclasses.fields(Limits)]

    def test_what_is_commented_out_would_be_read(self, tmp_path: Path) -> None:
        whole = re.sub(rf"(?m)^# ({self.HIDDEN}):", r"\1:", self.TEXT)

        assert from_file(tmp_path, whole).upstream_proxy == "http://proxy.example.com:3128"

    @pytest.mark.parametrize("limit", dataclasses.fields(Limits), ids=lambda limit: limit.name)
    def test_the_reference_says_what_each_limit_means(
        self, limit: dataclasses.Field[float]
    ) -> None:
        (line,) = re.findall(rf"(?m)^  {limit.name}: .*# (.*)$", self.TEXT)

        assert line == limit.metadata["doc"]

    def test_the_schema_is_current(self) -> None:
        """Regenerate it with: coatcheck policy schema --settings > config/coatcheck.schema.json"""
        kept = json.loads((CONFIG / "coatcheck.schema.json").read_text())

        assert kept == settings.schema()
