"""`run`, `env` and `ca export` as their users meet them: real child processes, real files."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from cryptography import x509
from hypothesis import given, settings
from hypothesis import strategies as st

from coatcheck.cli import childenv, trust
from coatcheck.cli.childenv import Proxy, Shell
from coatcheck.core.identity import token_digest
from coatcheck.observe import state
from coatcheck.store.home import Home, create_home

SHOW = "import json, os; print(json.dumps(dict(os.environ)))"


# One of the public roots has the serial number 0.
OLD_ROOT = pytest.mark.filterwarnings("ignore:Parsed a serial number")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("with space") / "home"
    create_home(root, now=time.time())
    return root


@pytest.fixture
def listener() -> Iterator[str]:
    """HOST:PORT of a socket that listens, as a proxy would."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def coatcheck(
    *arguments: str | Path, environ: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("COATCHECK_")}
    return subprocess.run(
        [sys.executable, "-m", "coatcheck", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env=clean | dict(environ or {}),
    )


def child(*arguments: str | Path, environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment that a child of `run` sees."""
    done = coatcheck("run", *arguments, "--", sys.executable, "-c", SHOW, environ=environ)
    assert done.returncode == 0, done.stderr
    seen: dict[str, str] = json.loads(done.stdout)
    return seen


# --- run: what the child gets -------------------------------------------------------------------


def test_the_child_is_pointed_at_the_proxy_by_every_name(home: Path, listener: str) -> None:
    seen = child("--home", home, "--proxy", listener)

    assert {seen[name] for name in childenv.PROXY_NAMES} == {f"http://{listener}"}
    assert {seen[name] for name in childenv.NO_PROXY_NAMES} == {"localhost,127.0.0.1,::1"}
    assert seen["NODE_USE_ENV_PROXY"] == "1"


@OLD_ROOT
def test_the_child_trusts_the_public_roots_and_our_ca(home: Path, listener: str) -> None:
    seen = child("--home", home, "--proxy", listener)

    (bundle,) = {seen[name] for name in childenv.BUNDLE_NAMES}
    names = {
        cert.subject.rfc4514_string()
        for cert in x509.load_pem_x509_certificates(Path(bundle).read_bytes())
    }
    ours = x509.load_pem_x509_certificate(Home(home).ca_certificate.read_bytes())
    assert ours.subject.rfc4514_string() in names
    assert len(names) > 100
    for name in childenv.ADDED_CA_NAMES:
        assert Path(seen[name]).read_bytes() == Home(home).ca_certificate.read_bytes()


@pytest.mark.parametrize("name", childenv.UNSET)
def test_what_leads_past_the_proxy_or_the_bundle_is_taken_away(
    name: str, home: Path, listener: str
) -> None:
    assert name not in child("--home", home, "--proxy", listener, environ={name: "/elsewhere"})


def test_an_inherited_no_proxy_does_not_open_a_way_round(home: Path, listener: str) -> None:
    inherited = {"NO_PROXY": "*", "no_proxy": "*", "HTTPS_PROXY": "http://other:1"}

    seen = child("--home", home, "--proxy", listener, environ=inherited)

    assert seen["NO_PROXY"] == seen["no_proxy"] == "localhost,127.0.0.1,::1"
    assert seen["HTTPS_PROXY"] == f"http://{listener}"


def test_our_own_settings_are_not_for_the_child(home: Path, listener: str) -> None:
    """COATCHECK_STORE may hold a database password."""
    own = {"COATCHECK_STORE": "postgresql://u:hunter2@db/x", "COATCHECK_HOME": str(home)}

    seen = child("--proxy", listener, environ=own)

    assert not [name for name in seen if name.startswith("COATCHECK_")]
    assert "hunter2" not in json.dumps(seen)


def test_everything_else_is_passed_on(home: Path, listener: str) -> None:
    seen = child("--home", home, "--proxy", listener, environ={"EDITOR": "ed", "ÄÖ": "ü"})

    assert seen["EDITOR"] == "ed"
    assert seen["ÄÖ"] == "ü"


def test_client_and_token_stand_in_the_proxy_url_percent_encoded(home: Path, listener: str) -> None:
    token = {"COATCHECK_CLIENT_TOKEN": "a/b@c:d%"}

    seen = child("--home", home, "--proxy", listener, "--client", "run ner", environ=token)

    assert seen["HTTPS_PROXY"] == f"http://run%20ner:a%2Fb%40c%3Ad%25@{listener}"
    assert "a/b@c" not in seen["JAVA_TOOL_OPTIONS"]  # every JVM prints that variable


def test_the_policy_tells_whose_token_it_is(home: Path, listener: str) -> None:
    token = "T0ken"
    policy = home.parent / "policy.yaml"
    digest = token_digest(token.encode())
    policy.write_text(f'version: 1\nclients:\n  runner-a:\n    token: "sha256:{digest}"\n')

    environ = {"COATCHECK_CLIENT_TOKEN": token, "COATCHECK_POLICY": str(policy)}
    seen = child("--home", home, "--proxy", listener, environ=environ)

    assert seen["http_proxy"] == f"http://runner-a:{token}@{listener}"


def test_a_ca_file_is_enough_where_there_is_no_home(
    home: Path, listener: str, tmp_path: Path
) -> None:
    exported = tmp_path / "ca.pem"
    assert coatcheck("ca", "export", "--home", home, "-o", exported).returncode == 0
    nowhere = {"COATCHECK_HOME": str(tmp_path / "none"), "XDG_CACHE_HOME": str(tmp_path / "cache")}

    seen = child("--ca", exported, "--proxy", listener, environ=nowhere)

    assert Path(seen["SSL_CERT_FILE"]).is_relative_to(tmp_path / "cache")
    assert not (tmp_path / "none").exists()


def test_the_settings_tell_where_the_proxy_is(home: Path, listener: str) -> None:
    seen = child("--home", home, environ={"COATCHECK_LISTEN": listener})

    assert seen["HTTP_PROXY"] == f"http://{listener}"


@pytest.mark.parametrize("alive", [True, False])
def test_a_running_proxy_tells_itself_where_it_is(
    alive: bool, listener: str, tmp_path: Path
) -> None:
    """It may have been started with --listen, or have picked a free port."""
    create_home(tmp_path / "home", now=time.time())
    host, _, port = listener.rpartition(":")
    pid = os.getpid() if alive else 2**22 + 1  # above the largest process number there can be
    state.write(tmp_path / "home" / "run", {"pid": pid, "listen": [[host, int(port)]]})

    done = coatcheck("env", "--home", tmp_path / "home", "--shell", "json")

    found = json.loads(done.stdout)["HTTP_PROXY"]
    assert found == (f"http://{listener}" if alive else "http://127.0.0.1:8080")


def test_trust_files_go_where_they_are_asked_to(home: Path, tmp_path: Path) -> None:
    shared = tmp_path / "shared"

    done = coatcheck("env", "--home", home, "--trust-dir", shared, "--shell", "json")

    assert json.loads(done.stdout)["SSL_CERT_FILE"] == str(shared / "bundle.pem")
    assert (shared / "bundle.pem").stat().st_mode & 0o777 == 0o644


def test_a_proxy_that_listens_everywhere_is_reached_by_loopback(home: Path, listener: str) -> None:
    port = listener.rpartition(":")[2]

    seen = child("--home", home, environ={"COATCHECK_LISTEN": f"0.0.0.0:{port}"})

    assert seen["HTTP_PROXY"] == f"http://127.0.0.1:{port}"


# --- run: becoming the command ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "code"),
    [
        pytest.param("exit 0", 0, id="success"),
        pytest.param("exit 7", 7, id="any other code"),
        pytest.param("kill -TERM $$", -15, id="death by a signal"),
        pytest.param("kill -PIPE $$", -13, id="SIGPIPE too, which Python ignores"),
    ],
)
def test_the_exit_code_passes_through(script: str, code: int, home: Path, listener: str) -> None:
    done = coatcheck("run", "--home", home, "--proxy", listener, "--", "sh", "-c", script)

    assert done.returncode == code
    assert done.stderr == ""


def test_it_is_the_same_process_so_signals_and_terminal_are_the_commands_own(
    home: Path, listener: str
) -> None:
    command = [sys.executable, "-m", "coatcheck", "run", "--home", str(home), "--proxy", listener]
    with subprocess.Popen(
        [*command, "--", "sh", "-c", "echo $$"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert int(process.stdout.read()) == process.pid


def test_options_behind_the_command_are_the_commands(home: Path, listener: str) -> None:
    done = coatcheck("run", "--home", home, "--proxy", listener, "echo", "--home", "-n", "x")

    assert done.stdout == "--home -n x\n"


def make_executable(path: Path, text: str, mode: int = 0o755) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


@pytest.mark.parametrize(
    ("text", "mode", "code", "says"),
    [
        pytest.param(None, 0, 127, "command not found", id="missing: 127"),
        pytest.param("#!/bin/sh\n", 0o644, 126, "Permission denied", id="not executable: 126"),
        pytest.param("#!/no/such\n", 0o755, 127, "interpreter", id="no interpreter: 127"),
        pytest.param("echo\n", 0o755, 126, "no program", id="no program: 126"),
    ],
)
def test_a_command_that_cannot_run_is_told_as_a_shell_would(
    text: str | None, mode: int, code: int, says: str, home: Path, listener: str, tmp_path: Path
) -> None:
    path = tmp_path / "cmd"
    if text is not None:
        make_executable(path, text, mode)

    done = coatcheck("run", "--home", home, "--proxy", listener, "--", path)

    assert done.returncode == code
    assert f"{path}: " in done.stderr
    assert says in done.stderr


# --- bad input: one clear error each, nothing is run ---------------------------------------------


def closed_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize(
    ("arguments", "environ", "says"),
    [
        pytest.param([], {}, "coatcheck serve", id="no proxy listens"),
        pytest.param(["--proxy", "x"], {}, "HOST:PORT", id="an address without a port"),
        pytest.param(["--proxy", "127.0.0.1:0"], {}, "--proxy", id="port 0 is no port"),
        pytest.param(["--home", "/nonexistent"], {}, "coatcheck init", id="no home"),
        pytest.param(["--ca", "/nonexistent"], {}, "--ca", id="no CA file"),
        pytest.param(["--client", "a"], {}, "COATCHECK_CLIENT_TOKEN", id="a name without a token"),
        pytest.param(["--client-token", "nobody's"], {}, "--client NAME", id="an unknown token"),
        pytest.param(
            ["--client", "a"],
            {"COATCHECK_CLIENT_TOKEN": "secret-in\nside"},
            "paste it again",
            id="a token with a line feed",
        ),
    ],
)
def test_bad_input_gets_an_error_with_the_next_step(
    arguments: list[str], environ: dict[str, str], says: str, home: Path, tmp_path: Path
) -> None:
    own = {"COATCHECK_HOME": str(home), "COATCHECK_PROXY": closed_port()}
    witness = tmp_path / "ran"

    done = coatcheck("run", *arguments, "--", "touch", witness, environ=own | environ)

    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert "secret-in" not in done.stderr
    assert not witness.exists()


def test_a_key_is_never_taken_for_a_certificate(home: Path, tmp_path: Path) -> None:
    done = coatcheck("env", "--ca", Home(home).ca_key, environ={"COATCHECK_PROXY": "p:1"})

    assert done.returncode == 1
    assert "private key" in done.stderr
    assert done.stdout == ""


# --- env ----------------------------------------------------------------------------------------

VALUES = st.dictionaries(
    st.from_regex(r"[A-Z_][A-Z0-9_]{0,8}", fullmatch=True).map("CC_".__add__),
    st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=40),
    min_size=1,
    max_size=5,
)


def through(program: str, script: str) -> dict[str, str]:
    """The variables of a child of *program*, after the line that users are told to write."""
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    read = "source" if program == "fish" else 'eval "$(cat)"'
    # Python's arguments would be the shell's own, so it is named in the script.
    line = f"{read}; exec '{sys.executable}' -c '{SHOW}'"
    done = subprocess.run(
        [program, "-c", line],
        input=script.encode(),
        capture_output=True,
        check=True,
        env={"PATH": os.environ["PATH"], "CC_GONE": "there"},
    )
    seen: dict[str, str] = json.loads(done.stdout)
    return seen


@pytest.mark.parametrize(
    ("program", "shell"),
    [("sh", Shell.SH), ("bash", Shell.BASH), ("zsh", Shell.ZSH), ("fish", Shell.FISH)],
)
@settings(max_examples=25, deadline=None)
@given(values=VALUES)
def test_a_shell_reads_back_the_same_values(
    program: str, shell: Shell, values: dict[str, str]
) -> None:
    seen = through(program, childenv.render(values, ["CC_GONE"], shell))

    assert values.items() <= seen.items()
    assert "CC_GONE" not in seen


@settings(max_examples=25, deadline=None)
@given(values=VALUES)
def test_json_reads_back_the_same_values_and_null_for_what_is_unset(values: dict[str, str]) -> None:
    read = json.loads(childenv.render(values, ["CC_GONE"], Shell.JSON))

    assert read == values | {"CC_GONE": None}


def test_node_reads_back_dotenv() -> None:
    if shutil.which("node") is None:
        pytest.skip("node is not installed")
    values = {"A": "/with space/#no comment", "B": 'dq " $HOME `x` \\n', "C": "", "D": "ü=1"}
    rendered = childenv.render(values, [], Shell.DOTENV)
    text = "require('fs').readFileSync(0, 'utf8')"
    script = f"console.log(JSON.stringify(require('util').parseEnv({text})))"

    done = subprocess.run(
        ["node", "-e", script], input=rendered.encode(), capture_output=True, check=True
    )

    assert json.loads(done.stdout) == values


@pytest.mark.parametrize(
    ("shell", "value", "line"),
    [
        (Shell.FISH, r"it's \ here", r"set -gx X 'it\'s \\ here'"),
        (Shell.POWERSHELL, "it's $HOME", "$Env:X = 'it''s $HOME'"),
        (Shell.POWERSHELL, "a\u2019b", "$Env:X = 'a\u2019\u2019b'"),  # it ends a string there too
        (Shell.DOTENV, "plain $x", "X='plain $x'"),
        (Shell.DOTENV, 'it\'s "x"\n', 'X="it\'s \\"x\\"\\n"'),
        (Shell.DOCKER, "it's $x", "X=it's $x"),
    ],
)
def test_each_spelling_quotes_in_its_own_way(shell: Shell, value: str, line: str) -> None:
    assert childenv.render({"X": value}, [], shell) == line + "\n"


def test_a_docker_env_file_cannot_hold_a_line_feed() -> None:
    with pytest.raises(ValueError, match="X holds a line feed"):
        childenv.render({"X": "a\nb"}, [], Shell.DOCKER)


def test_env_prints_what_run_sets(home: Path, listener: str) -> None:
    printed = coatcheck("env", "--home", home, "--proxy", listener)
    ran = child("--home", home, "--proxy", listener)

    seen = through("sh", printed.stdout)
    assert {name: seen.get(name) for name in BOTH} == {name: ran.get(name) for name in BOTH}


BOTH = (
    *childenv.PROXY_NAMES,
    *childenv.NO_PROXY_NAMES,
    *childenv.BUNDLE_NAMES,
    *childenv.ADDED_CA_NAMES,
    "JAVA_TOOL_OPTIONS",
)


def test_env_needs_no_running_proxy(home: Path) -> None:
    assert coatcheck("env", "--home", home, "--proxy", closed_port()).returncode == 0


# --- trust files --------------------------------------------------------------------------------


def test_trust_files_follow_a_new_ca(home: Path, tmp_path: Path) -> None:
    create_home(tmp_path / "other", now=time.time())
    first = Home(home).ca_certificate.read_bytes()
    second = Home(tmp_path / "other").ca_certificate.read_bytes()
    folder = tmp_path / "run"

    trust.prepare(first, folder)
    files = trust.prepare(second, folder)

    assert files.ca.read_bytes() == second
    assert second in files.bundle.read_bytes()
    assert first not in files.bundle.read_bytes()
    assert folder.stat().st_mode & 0o777 == 0o700
    leftovers = [path.name for path in folder.iterdir() if path.name.startswith(".")]
    assert leftovers == []


def test_trust_files_that_are_there_are_left_alone(home: Path, tmp_path: Path) -> None:
    pem = Home(home).ca_certificate.read_bytes()
    before = trust.prepare(pem, tmp_path).java.stat().st_mtime_ns

    assert trust.prepare(pem, tmp_path).java.stat().st_mtime_ns == before


def test_php_takes_the_bundle_from_a_file_beside_its_own(home: Path, tmp_path: Path) -> None:
    """Its curl reads no variable. The folder has characters in it that an ini file reads."""
    if shutil.which("php") is None:
        pytest.skip("php is not installed")
    folder = tmp_path / 'it\'s ${HOME}; "x"'
    files = trust.prepare(Home(home).ca_certificate.read_bytes(), folder)
    before = {"PHP_INI_SCAN_DIR": ""}
    values = childenv.variables(Proxy("proxy.test", 8080), files, before)
    show = 'foreach (["curl.cainfo", "openssl.cafile"] as $one) echo ini_get($one), "\n";'

    done = subprocess.run(
        ["php", "-r", show + "echo php_ini_scanned_files();"],
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"]} | values,
        check=True,
    )

    assert done.stdout.splitlines()[:2] == [str(files.bundle)] * 2
    assert str(files.php) in done.stdout


def test_folders_that_php_was_told_to_read_are_read_before_ours(home: Path, listener: str) -> None:
    inherited = {"PHP_INI_SCAN_DIR": "/etc/php/more"}

    seen = child("--home", home, "--proxy", listener, environ=inherited)

    assert seen["PHP_INI_SCAN_DIR"] == f"/etc/php/more:{home / 'run'}"


@pytest.mark.slow
def test_java_takes_proxy_and_trust_store_from_the_variable(home: Path, tmp_path: Path) -> None:
    """The path has a blank in it, which JAVA_TOOL_OPTIONS would be split at."""
    if shutil.which("java") is None:
        pytest.skip("java is not installed")
    source = tmp_path / "Show.java"
    source.write_text(JAVA)
    files = trust.prepare(Home(home).ca_certificate.read_bytes(), home / "run")
    assert " " in str(files.java)
    values = childenv.variables(Proxy("proxy.test", 8080), files, {})

    done = subprocess.run(
        ["java", str(source)],
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"]} | values,
        check=True,
    )

    assert "HTTP @ proxy.test" in done.stdout
    assert "coatcheck CA" in done.stdout


JAVA = """
import java.net.*; import java.security.*; import javax.net.ssl.*;
class Show { public static void main(String[] a) throws Exception {
  System.out.println(ProxySelector.getDefault().select(URI.create("https://api.example/")));
  var f = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
  f.init((KeyStore) null);
  for (var c : ((X509TrustManager) f.getTrustManagers()[0]).getAcceptedIssuers())
    System.out.println(c.getSubjectX500Principal());
}}
"""


@pytest.mark.parametrize(
    ("listen", "dial"),
    [
        ("0.0.0.0", "127.0.0.1"),
        ("::", "::1"),
        ("127.0.0.1", "127.0.0.1"),
        ("10.1.2.3", "10.1.2.3"),
        ("proxy.internal", "proxy.internal"),
    ],
)
def test_the_host_to_dial_for_a_listen_address(listen: str, dial: str) -> None:
    assert childenv.reachable_host(listen) == dial


def test_an_ipv6_proxy_stands_in_brackets() -> None:
    assert Proxy("::1", 8080).url == "http://[::1]:8080"


# --- ca export ----------------------------------------------------------------------------------


def test_ca_export_writes_the_certificate_and_no_key(home: Path) -> None:
    done = coatcheck("ca", "export", "--home", home)

    assert done.stdout.encode() == Home(home).ca_certificate.read_bytes()
    assert "PRIVATE" not in done.stdout


def test_ca_export_refuses_a_file_with_a_key_in_it(tmp_path: Path) -> None:
    create_home(tmp_path / "home", now=time.time())
    home = Home(tmp_path / "home")
    home.ca_certificate.write_bytes(home.ca_key.read_bytes())

    done = coatcheck("ca", "export", "--home", home.root)

    assert done.returncode == 1
    assert done.stdout == ""
