"""`coatcheck run` and `coatcheck env`: a program behind the proxy, without asking it.

`run` replaces itself by the command (exec), so signals, the terminal and the exit code are the
command's own. It is a convenience, not a cage: the command runs as the same user and may ignore
the variables. Who does not trust it gives it another user or a container, a network whose only
way out is the proxy, and ``--ca`` instead of a home.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
import socket
import sys
from pathlib import Path
from typing import Annotated

import typer

from coatcheck.cli import childenv, console, trust
from coatcheck.cli.ca import check_certificate, read_certificate
from coatcheck.cli.childenv import Proxy
from coatcheck.core.ports import CoatcheckError
from coatcheck.observe import state

CONNECT_TIMEOUT_S = 3.0
NOT_EXECUTABLE, NOT_FOUND = 126, 127  # what a POSIX shell ends with (XCU section 2.8.2)

TokenOption = Annotated[
    str,
    typer.Option(
        "--client-token",
        envvar="COATCHECK_CLIENT_TOKEN",
        show_default=False,
        help="The client's token, where the policy asks for one. Other users of this machine may "
        "see arguments: rather use the variable.",
    ),
]
ClientOption = Annotated[
    str,
    typer.Option(
        "--client",
        envvar="COATCHECK_CLIENT",
        show_default=False,
        help="The client's name; else the client of the policy that has this token.",
    ),
]
ProxyOption = Annotated[
    str,
    typer.Option(
        "--proxy",
        envvar="COATCHECK_PROXY",
        metavar="HOST:PORT",
        show_default=False,
        help="Where the proxy is; else where the settings say that it listens.",
    ),
]
CaOption = Annotated[
    Path | None,
    typer.Option(
        "--ca",
        envvar="COATCHECK_CA",
        dir_okay=False,
        show_default=False,
        help="The proxy's CA certificate (`coatcheck ca export`); no home is needed then.",
    ),
]


def run(
    command: Annotated[list[str], typer.Argument(metavar="-- CMD [ARG]...", show_default=False)],
    client_token: TokenOption = "",
    client: ClientOption = "",
    proxy: ProxyOption = "",
    ca: CaOption = None,
    home: console.HomeOption = None,
) -> None:
    """Run CMD with the proxy and CA variables set. Its exit code passes through.

    127: CMD was not found. 126: it cannot be executed. 1: coatcheck itself failed.
    """
    target = _proxy(proxy, client, client_token, home)
    values = _variables(target, _trust(ca, home))
    check_reachable(target)
    _exec(command, childenv.child_environ(values, os.environ))


def env(
    shell: Annotated[
        childenv.Shell, typer.Option("--shell", help="The spelling.")
    ] = childenv.Shell.SH,
    client_token: TokenOption = "",
    client: ClientOption = "",
    proxy: ProxyOption = "",
    ca: CaOption = None,
    trust_dir: Annotated[
        Path | None,
        typer.Option(
            help="Where to put the certificates that the variables name; else in home, or in the "
            "user's cache. For a folder that is shared with a container.",
            file_okay=False,
            show_default=False,
        ),
    ] = None,
    home: console.HomeOption = None,
) -> None:
    """Print the variables that `run` sets.

    sh, bash, zsh: eval "$(coatcheck env)"
    fish: coatcheck env --shell fish | source
    """
    target = _proxy(proxy, client, client_token, home)
    values = _variables(target, _trust(ca, home, trust_dir))
    try:
        text = childenv.render(values, childenv.UNSET, shell)
    except ValueError as error:
        raise CoatcheckError(str(error), hint="use another --shell") from error
    sys.stdout.flush()
    sys.stdout.buffer.write(os.fsencode(text))  # paths need not be UTF-8
    sys.stdout.buffer.flush()


def check_reachable(proxy: Proxy) -> None:
    """Connect once, and say nothing.

    Raises:
        CoatcheckError: nobody listens there.
    """
    try:
        socket.create_connection((proxy.host, proxy.port), CONNECT_TIMEOUT_S).close()
    except OSError as error:
        reason = error.strerror or "no answer in time"
        raise CoatcheckError(
            f"no proxy at {proxy.host} port {proxy.port}: {reason}",
            hint="start it with `coatcheck serve`, or name another one with --proxy HOST:PORT",
        ) from error


def _variables(target: Proxy, files: childenv.TrustFiles) -> dict[str, str]:
    own_wgetrc = "WGETRC" in os.environ or Path("~/.wgetrc").expanduser().exists()
    return childenv.variables(target, files, os.environ, own_wgetrc=own_wgetrc)


def _proxy(address: str, client: str, token: str, home: Path | None) -> Proxy:
    if any(ord(char) < 0x21 or ord(char) == 0x7F for char in token):
        raise CoatcheckError(
            "the client token has a blank or control character in it",
            hint="paste it again, as `coatcheck client token` printed it",
        )
    if client and not token:
        raise CoatcheckError(
            f"client {client} has no token to show",
            hint="give it with COATCHECK_CLIENT_TOKEN, or leave --client out",
        )
    if ":" in client:
        raise CoatcheckError("a client's name has no colon", hint="see `clients:` in the policy")
    host, port = _address(address, home)
    if token and not client:
        client = _client_of(token, home)
    return Proxy(childenv.reachable_host(host), port, client, token)


def _address(text: str, home: Path | None) -> tuple[str, int]:
    """Where the proxy is: as it was told, else where one runs for this home, else the settings."""
    from coatcheck import settings  # reads YAML: not for `--help`

    if text:
        try:
            host, port = settings.parse_address(text.removeprefix("http://").rstrip("/"))
        except ValueError as error:
            raise CoatcheckError(
                f"--proxy {text!r}: {error}", hint="write HOST:PORT, for example 127.0.0.1:8080"
            ) from error
    else:
        host, port = _running(console.home_path(home)) or settings.load(home=home).listen
    if port == 0:
        raise CoatcheckError(
            "the settings let the proxy pick a port, and none is running",
            hint="start it with `coatcheck serve`, or name it with --proxy HOST:PORT",
        )
    return host, port


def _running(root: Path) -> tuple[str, int] | None:
    """Where the proxy of this home listens, as it says itself; None if none runs."""
    found = state.read(root / "run")
    if found is None or not state.is_alive(found.get("pid")):
        return None
    match found.get("listen"):
        case [[str(host), int(port)], *_]:
            return host, port
        case _:
            return None


def _client_of(token: str, home: Path | None) -> str:
    """The client that the policy knows by *token*.

    Raises:
        CoatcheckError: the policy cannot be read, or has no such client.
    """
    from coatcheck import policyfile, settings
    from coatcheck.core.identity import token_digest

    path = settings.load(home=home).policy
    hint = "name the client with --client NAME (or COATCHECK_CLIENT)"
    try:
        clients = policyfile.read(path).clients
    except CoatcheckError as error:
        raise CoatcheckError(f"whose token is this? {error.problem}", hint=hint) from error
    digest = token_digest(token.encode())
    for client in clients:
        if client.token == digest:
            return client.name
    raise CoatcheckError(
        f"no client in {path} has this token",
        hint="check the token, or name the client with --client NAME",
    )


def _trust(ca: Path | None, home: Path | None, folder: Path | None = None) -> childenv.TrustFiles:
    if ca is None:
        root = console.home_path(home)
        pem, usual = read_certificate(root), root / "run"
    else:
        try:
            pem = ca.read_bytes()
        except OSError as error:
            raise CoatcheckError(
                f"cannot read {ca}: {error.strerror}", hint="name the file with --ca"
            ) from error
        check_certificate(pem, ca)
        usual = trust.cache_folder(pem, os.environ)
    return trust.prepare(pem, folder.absolute() if folder else usual)


def _exec(command: list[str], environ: dict[str, str]) -> None:
    """Become *command*; comes back only by an exception.

    Raises:
        typer.Exit: 127 or 126.
    """
    # Python ignores these two, and a child inherits that: `yes | head` would never end.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execvpe(command[0], command, environ)  # noqa: S606 running it is what we are for
    except OSError as error:
        found = shutil.which(command[0], mode=os.F_OK, path=environ.get("PATH"))
        console.say_error(f"{command[0]}: {_why(error, found)}")
        missing = error.errno in (errno.ENOENT, errno.ENOTDIR)
        raise typer.Exit(NOT_FOUND if missing else NOT_EXECUTABLE) from error
    except ValueError as error:
        console.say_error("a NUL character in the command or in the environment")
        raise typer.Exit(NOT_EXECUTABLE) from error


def _why(error: OSError, found: str | None) -> str:
    if error.errno == errno.ENOENT:
        if found:
            return "the interpreter named in its first line does not exist"
        return "command not found"
    if error.errno == errno.ENOEXEC:
        return "no program, and no first line that names an interpreter; try: -- sh FILE"
    return error.strerror or "cannot be executed"
