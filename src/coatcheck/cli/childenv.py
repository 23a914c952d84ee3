"""The variables that point a child process at the proxy and make it trust our CA.

There is no standard, so there is a list, each name with the clients that read it. All but
NODE_EXTRA_CA_CERTS and DENO_CERT replace the client's own trust store, so what they point at holds
the public roots as well (`trust`). Lower-case names are no repetition: curl ignores HTTP_PROXY
(in a CGI program a request header would set it), Ruby's Net::HTTP reads nothing but http_proxy.

Nothing here reads the environment or a file: addresses and paths in, names and values out.
"""

from __future__ import annotations

import ipaddress
import json
import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from urllib.parse import quote

LOOPBACK = ("localhost", "127.0.0.1", "::1")
JAVA_PASSWORD = "changeit"  # noqa: S105 what the JDK's own store has; it guards nothing

PROXY_NAMES = (
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "http_proxy",
    "https_proxy",
    "ALL_PROXY",
    "all_proxy",
    "CARGO_HTTP_PROXY",
    "YARN_HTTP_PROXY",
    "YARN_HTTPS_PROXY",
    "npm_config_proxy",
    "npm_config_https_proxy",
)
NO_PROXY_NAMES = ("NO_PROXY", "no_proxy", "npm_config_noproxy")
BUNDLE_NAMES = (
    "SSL_CERT_FILE",  # OpenSSL, Go, httpx, aiohttp, urllib, Ruby, PHP, uv, composer
    "REQUESTS_CA_BUNDLE",  # requests
    "CURL_CA_BUNDLE",  # curl, requests
    "GIT_SSL_CAINFO",
    "AWS_CA_BUNDLE",  # boto3, the AWS CLI
    "PIP_CERT",
    "CARGO_HTTP_CAINFO",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
    "PERL_LWP_SSL_CA_FILE",  # libwww-perl
    "HTTPS_CA_FILE",  # older libwww-perl
    "npm_config_cafile",
    "BUNDLE_SSL_CA_CERT",  # Bundler
    "HEX_CACERTS_PATH",  # Elixir
    "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE",  # gcloud
    "HTTPLIB2_CA_CERTS",
    "NIX_SSL_CERT_FILE",
)
ADDED_CA_NAMES = ("NODE_EXTRA_CA_CERTS", "DENO_CERT")  # added to the roots the client has
# What is left from outside could lead past the proxy or past the bundle.
UNSET = (
    "SSL_CERT_DIR",
    "GIT_SSL_CAPATH",
    "FTP_PROXY",
    "ftp_proxy",
    "SOCKS_PROXY",
    "socks_proxy",
    "WS_PROXY",
    "ws_proxy",
    "WSS_PROXY",
    "wss_proxy",
    "grpc_proxy",
    "no_grpc_proxy",
)
OWN_PREFIX = "COATCHECK_"  # COATCHECK_STORE may hold a database password: not for the child


class Shell(StrEnum):
    """The spellings in which `render` writes."""

    SH = "sh"
    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"
    POWERSHELL = "powershell"
    DOTENV = "dotenv"
    DOCKER = "docker"  # for `docker run --env-file`
    JSON = "json"


@dataclass(frozen=True, slots=True)
class Proxy:
    """Where the proxy is, as a client reaches it, and as whom.

    Attributes:
        host: Name or address, no brackets.
        client, token: Both or neither.
    """

    host: str
    port: int
    client: str = ""
    token: str = ""

    @property
    def url(self) -> str:
        """``http://CLIENT:TOKEN@HOST:PORT``, percent-encoded where a URL needs it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        user = f"{quote(self.client, safe='')}:{quote(self.token, safe='')}@" if self.token else ""
        return f"http://{user}{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class TrustFiles:
    """Files that a client reads: public roots and our CA, our CA alone, the first for Java.

    ``wgetrc`` names the bundle to wget, which on Debian is built on GnuTLS and reads no variable;
    ``php`` names it to PHP, whose curl has a default of its own and reads no variable either.
    """

    bundle: Path
    ca: Path
    java: Path
    wgetrc: Path
    php: Path


def reachable_host(listen: str) -> str:
    """The host to dial for a listen address: a wildcard listens everywhere, loopback is near."""
    try:
        address = ipaddress.ip_address(listen)
    except ValueError:
        return listen
    if address.is_unspecified:
        return "127.0.0.1" if address.version == 4 else "::1"
    return listen


def variables(
    proxy: Proxy, files: TrustFiles, inherited: Mapping[str, str], *, own_wgetrc: bool = False
) -> dict[str, str]:
    """What to set. Of *inherited*, JAVA_TOOL_OPTIONS and PHP_INI_SCAN_DIR are added to.

    Args:
        own_wgetrc: The user has a wgetrc; WGETRC would take its place, so it is left alone.
    """
    direct = ",".join(dict.fromkeys((*LOOPBACK, proxy.host)))
    values = dict.fromkeys(PROXY_NAMES, proxy.url)
    values |= dict.fromkeys(NO_PROXY_NAMES, direct)
    values |= dict.fromkeys(BUNDLE_NAMES, str(files.bundle))
    values |= dict.fromkeys(ADDED_CA_NAMES, str(files.ca))
    values["NODE_USE_ENV_PROXY"] = "1"  # node >= 24; older ones know no such thing
    if not own_wgetrc:
        values["WGETRC"] = str(files.wgetrc)
    # PHP reads all *.ini of these folders, the last one last; an empty name is the folder it has.
    values["PHP_INI_SCAN_DIR"] = f"{inherited.get('PHP_INI_SCAN_DIR', '')}:{files.php.parent}"
    java = " ".join(_java_quote(option) for option in java_options(proxy, files))
    values["JAVA_TOOL_OPTIONS"] = f"{inherited.get('JAVA_TOOL_OPTIONS', '')} {java}".strip()
    return values


def child_environ(values: Mapping[str, str], inherited: Mapping[str, str]) -> dict[str, str]:
    """The whole environment of a child: *inherited*, cleaned, with *values* on top."""
    kept = {
        name: value
        for name, value in inherited.items()
        if name not in UNSET and not name.startswith(OWN_PREFIX)
    }
    return kept | dict(values)


def java_options(proxy: Proxy, files: TrustFiles) -> list[str]:
    """System properties. Java takes no password from a URL, and prints this variable: no token.

    An application that authenticates sets an `Authenticator`; since JDK 8u111 it also needs
    Basic to be allowed for tunnels.
    """
    direct = "|".join(dict.fromkeys(("localhost", "127.*", "[::1]", proxy.host)))
    options = [
        f"-Dhttp.proxyHost={proxy.host}",
        f"-Dhttp.proxyPort={proxy.port}",
        f"-Dhttps.proxyHost={proxy.host}",
        f"-Dhttps.proxyPort={proxy.port}",
        f"-Dhttp.nonProxyHosts={direct}",
        f"-Djavax.net.ssl.trustStore={files.java}",
        "-Djavax.net.ssl.trustStoreType=PKCS12",
        f"-Djavax.net.ssl.trustStorePassword={JAVA_PASSWORD}",
    ]
    if proxy.token:
        options.append("-Djdk.http.auth.tunneling.disabledSchemes=")
    return options


def render(values: Mapping[str, str], unset: Iterable[str], shell: Shell) -> str:
    """*values* in the spelling of *shell*, ready to be read by it; ends with a line feed.

    `dotenv` and `docker` cannot take a variable away, so *unset* is left out there.

    Raises:
        ValueError: the format cannot hold a value (a line feed for `docker`).
    """
    if shell is Shell.JSON:
        return json.dumps({**values, **dict.fromkeys(unset)}, indent=2) + "\n"
    set_one, unset_one = _WRITERS[shell]
    lines = [set_one(name, value) for name, value in values.items()]
    if unset_one:
        lines += [unset_one.format(name) for name in unset]
    return "\n".join(lines) + "\n"


def _sh(name: str, value: str) -> str:
    return f"export {name}={shlex.quote(value)}"


def _fish(name: str, value: str) -> str:
    quoted = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"set -gx {name} '{quoted}'"


def _powershell(name: str, value: str) -> str:
    # PowerShell takes the four typographic single quotes for the plain one.
    return f"$Env:{name} = '{re.sub("([\u2018\u2019\u201a\u201b'])", r'\1\1', value)}'"


def _dotenv(name: str, value: str) -> str:
    if not re.search(r"['\r\n]", value):
        return f"{name}='{value}'"  # taken as it stands by every dialect
    escaped = re.sub(r'([\\"$`])', r"\\\1", value).replace("\n", "\\n").replace("\r", "\\r")
    return f'{name}="{escaped}"'


def _docker(name: str, value: str) -> str:
    if "\n" in value or "\r" in value:
        raise ValueError(f"{name} holds a line feed, which a docker env file cannot")
    return f"{name}={value}"


_WRITERS = {
    Shell.SH: (_sh, "unset {}"),
    Shell.BASH: (_sh, "unset {}"),
    Shell.ZSH: (_sh, "unset {}"),
    Shell.FISH: (_fish, "set -e {}"),
    Shell.POWERSHELL: (_powershell, "Remove-Item Env:{} -ErrorAction SilentlyContinue"),
    Shell.DOTENV: (_dotenv, ""),
    Shell.DOCKER: (_docker, ""),
}


def _java_quote(option: str) -> str:
    """Quote for JAVA_TOOL_OPTIONS: split at white space, either quote protects, no backslash."""
    if not re.search(r"[\s'\"]", option):
        return option
    parts = (f'"{part}"' if "'" in part else f"'{part}'" for part in re.split("('+)", option))
    return "".join(part for part in parts if part != "''")
