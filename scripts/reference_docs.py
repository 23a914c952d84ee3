"""Write docs/policy.md and docs/settings.md from the models that read the files.

A reference written by hand is right on the day it is written. These two take every key, type,
bound, default and description from `coatcheck.policymodel` and `coatcheck.settingtable`, and the
order of the decision from `coatcheck.core.policy`. Run it after a change to any of them::

    .venv/bin/python scripts/reference_docs.py
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from coatcheck import policymodel, settingtable
from coatcheck.cli.serve import serve
from coatcheck.core import locations
from coatcheck.core.policy import (
    CODE_OF_STEP,
    METHOD_OVERRIDES,
    METHOD_PARAMETERS,
    PATH_OVERRIDES,
    Step,
)
from coatcheck.core.problems import Code

DOCS = Path(__file__).resolve().parent.parent / "docs"

POLICY = """\
# Policy reference

<!-- Made by scripts/reference_docs.py from src/coatcheck/policymodel.py; do not edit by hand. -->

Every key of the policy file. It is `policy.yaml` in home, or what the setting `policy` names; it is
read again when it changes, and in force within a second. Unknown keys and keys that come twice are
mistakes. A file with a mistake is refused with `file:line:col: what; hint`, and the last good one
stays in force; where there was none, nobody is let in.

The smallest policy that lets anything through:

```yaml
version: 1
clients:
  local:
    networks: ["127.0.0.1/32", "::1/128"]
grants:
  - secrets: ["crm.*"]
    clients: [local]
```

A narrow one, with a client that has to show a token:

```yaml
version: 1
clients:
  runner-a:
    token: "sha256:5b1f0c6e6c1d5f1c9c4a7b1d4b8f5a3e2d6c7b8a9f0e1d2c3b4a59687a6b5c4d"
    networks: ["10.1.0.0/16"]
grants:
  - secrets: ["crm.apiKey"]
    clients: [runner-a]
    hosts: [api.example.com]
    methods: [GET, POST]
    paths: ["/v1/**"]
    in: ["header:authorization"]
    max_uses: 1
egress:
  default: deny
  allow: [api.example.com]
```

[config/policy.yaml](../config/policy.yaml) is the same reference as a commented file, and
`coatcheck policy schema` prints a JSON Schema for completion in editors.

```sh
coatcheck policy check config/policy.yaml
coatcheck policy schema > policy.schema.json
```

## The file

{file}

## clients

{clients}

With both, both must hold. Of clients that are known by network alone the one with the longest
network that holds the address is taken. What a client without a token may do, everybody in its
networks may do.

## grants

{grants}

**secrets.** A name, or a pattern: `*` stands for any characters, dots too. `crm.*` names
`crm.apiKey` and `crm.eu.token`.

**hosts.** `api.example.com` is that host on the port of its scheme (443, 80),
`api.example.com:8443` on that port, `*.example.com` any name below, never `example.com` itself. A
wildcard straight on a public suffix (`*.github.io`) is refused. A grant never widens a secret's own
allowed domains.

**paths.** The path is decoded once. `*` is any characters but `/`, `**` is any; `/v1/**` is `/v1`
too. A path that two servers could read in two ways (`%2f`, `..`, `;`, `//`, `%25`, `..%20`, a
full-width dot or slash) fits no pattern.

**Another method or path.** A request that names another method in a field ({methods}) or in a
parameter of the query ({parameters}) fits no `methods:`; one that names another path in a field
({paths}) fits no `paths:`. Not looked at are such parameters of a body, and what an API has of its
own. Where a framework takes `_method` from a form, `methods: [POST]` is no brake; `paths:` is.

**in.** The places:

| place | what it is |
|---|---|
| `header` | the value of any header but {named} and `x-forwarded-*` |
| `header:NAME` | of this one, in any letter case; in `Authorization: Basic` too |
| `query` | names and values of all parameters |
| `query:NAME` | the value of this parameter |
| `path` | the path |
| `body` | JSON, form, multipart, XML and text bodies |
| `body:/POINTER` | one string of a JSON body (RFC 6901) |
| `body:/NAME` | a field of a form or multipart body |
| `websocket` | text messages of a WebSocket, each counted as a request; only where it is named |

A body that names a charset but UTF-8 or US-ASCII (`application/json; charset=utf-7`) has neither
pointers nor fields: only `body` fits.

Nothing is ever put into the method, the host, the name of a header, {never} or `proxy-*`.
In these lists any sign in a name is a `-`: servers that make variables of names, as CGI, WSGI and
PHP do, take `User_Agent` for `User-Agent`. So it is with the fields that name a method or path.

## placeholders

{placeholders}

With `unresolved: keep` a placeholder of a secret that does not exist, or is not granted to this
client, is sent as text. One of a secret that the client has, at a wrong destination or place, is
refused all the same, but at `text_hosts`.

## egress

{egress}

`deny` beats `allow`. Addresses are looked at after the name is resolved: private, reserved and
metadata addresses are refused, whatever the lists say, unless `networks` holds them.

## scrub

{scrub}

What is searched for, and how: [scrubbing](scrubbing.md).

## How a request is decided

First the egress rules. Then, for each placeholder, every grant is asked these questions in this
order. One grant that answers all with yes is enough; if none does, the one that came furthest says
why, and `coatcheck policy explain` shows its line.

| | question | where all fail, at best here |
|---|---|---|
{steps}

A secret that does not exist and one that no grant gives to this client are one and the same answer
to the client; `policy explain` tells them apart.

```console
$ coatcheck init
...
made ...
...
$ coatcheck secret set crm.apiKey --domain api.example.com
made crm.apiKey, version 1, allowed: api.example.com
$ coatcheck policy explain GET https://api.example.com/v1/me -H 'X-Key: __secrets.crm.apiKey__'
GET https://api.example.com, sent by local
...
└── result: it would be sent
$ coatcheck policy explain GET 'http://api.example.com/?key=__secrets.crm.apiKey__'   # exit code 2
...
└── result: refused, plaintext_not_allowed (403)
...
```

`policy check` also warns of what is allowed and wider than most people mean: grants for every
secret or every place, grants at hosts that publish what they are sent, networks without a token.
"""

SETTINGS = """\
# Settings reference

<!-- Made by scripts/reference_docs.py from src/coatcheck/settingtable.py; do not edit by hand. -->

How the process runs; [the policy](policy.md) says who may send what. A flag of `coatcheck serve`
goes first, then the environment, then `coatcheck.yaml` in home (or the file of `--config`,
`COATCHECK_CONFIG`), then the default. Settings are read at the start alone. A relative path starts
at the file that holds it; one in a flag or variable starts at the working directory.

[config/coatcheck.yaml](../config/coatcheck.yaml) is the same reference as a commented file.

```yaml
listen: "0.0.0.0:8080"
workers: 2
limits:
  connections_per_client: 256
```

```sh
coatcheck policy schema --settings > coatcheck.schema.json
```

{top}

## Limits

Keys of `limits:`; upper bounds, all inclusive, each with its unit in its name. The variable of
`NAME` is `COATCHECK_LIMITS_NAME`, in capital letters. They have no flags.

{limits}

## Where things are found

| variable | what it says |
|---|---|
| `COATCHECK_HOME` | the home; before it `--home`, after it `$XDG_DATA_HOME/coatcheck` |
| `COATCHECK_CONFIG` | the settings file |
| `COATCHECK_PROXY` | for `run` and `env`: where the proxy is, on a machine without a home |
| `COATCHECK_CA` | for `run` and `env`: its certificate, on a machine without a home |
| `COATCHECK_CLIENT` | for `run` and `env`: the client's name |
| `COATCHECK_CLIENT_TOKEN` | for `run` and `env`: the client's token |
"""


def main() -> None:
    for name, page in PAGES.items():
        (DOCS / name).write_text(page(), encoding="utf-8")


def policy_page() -> str:
    """The text of docs/policy.md."""
    whole = policymodel.schema()
    parts = {name: _section(whole, name) for name in policymodel.SECTIONS}
    return POLICY.format(
        file=parts.pop(""),
        methods=_listed(name.decode() for name in METHOD_OVERRIDES),
        parameters=_listed(name.decode() for name in METHOD_PARAMETERS),
        paths=_listed(name.decode() for name in PATH_OVERRIDES),
        named=_listed(locations.ONLY_WHEN_NAMED),
        never=_listed(name for name in locations.NEVER if not name.startswith("(")),
        steps="\n".join(_steps()),
        **parts,
    )


def settings_page() -> str:
    """The text of docs/settings.md."""
    flags = inspect.signature(serve).parameters
    top = [entry for entry in settingtable.ENTRIES.values() if "." not in entry.name]
    limits = [entry for entry in settingtable.ENTRIES.values() if "." in entry.name]
    return SETTINGS.format(
        top=_table(
            ("setting", "flag", "variable", "value", "default", "meaning"),
            [
                (
                    f"`{entry.name}`",
                    f"`{entry.flag}`" if entry.name in flags else "",
                    f"`{entry.variable}`",
                    _kind(entry.schema),
                    "" if entry.default is None else f"`{entry.default}`",
                    entry.doc,
                )
                for entry in top
            ],
        ),
        limits=_table(
            ("limit", "value", "default", "meaning"),
            [
                (
                    f"`{entry.name.partition('.')[2]}`",
                    _kind(entry.schema),
                    f"`{entry.default}`",
                    entry.doc,
                )
                for entry in limits
            ],
        ),
    )


PAGES: dict[str, Callable[[], str]] = {"policy.md": policy_page, "settings.md": settings_page}


def _section(whole: Mapping[str, Any], name: str) -> str:
    """The description of one model and the table of its keys."""
    model = policymodel.SECTIONS[name]
    schema = whole["$defs"][model.__name__] if name else whole
    needed = schema.get("required", ())
    rows = []
    for key in policymodel.keys_of(name):
        described = schema["properties"][key]
        default = "required" if key in needed else _default(described)
        meaning = described.get("description", f"see [{key}](#{key})")
        rows.append((f"`{key}`", _kind(described), default, meaning.replace("*", "\\*")))
    return f"{schema['description']}\n\n" + _table(("key", "value", "default", "meaning"), rows)


def _default(schema: Mapping[str, Any]) -> str:
    if "default" not in schema:
        return ""
    value = schema["default"]
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _kind(schema: Mapping[str, Any]) -> str:
    """What a person writes there."""
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return " or ".join(f"`{word}`" for word in schema["enum"])
    if schema.get("type") == "array":
        inner = schema["items"]
        return f"a list of {_kind(inner)}" if "enum" in inner else f"a list{_named(inner)}"
    if schema.get("type") in ("integer", "number"):
        what = "a whole number" if schema["type"] == "integer" else "a number"
        return f"{what}, {schema['minimum']:.12g} to {schema['maximum']:.0f}"
    if "patternProperties" in schema:
        return "names, each with the keys below"
    return {"boolean": "`true` or `false`", "string": "text"}.get(schema.get("type", ""), "keys")


def _named(inner: Mapping[str, Any]) -> str:
    return ", each with the keys below" if "$ref" in inner else " of texts"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in sorted(names))


def _steps() -> list[str]:
    return [
        f"| {number} | {step} | `{CODE_OF_STEP.get(step, Code.SECRET_UNAVAILABLE)}` |"
        for number, step in enumerate(Step, 1)
    ]


def _table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    escaped = [[cell.replace("|", "\\|") for cell in row] for row in (heads, *rows)]
    first, *rest = (f"| {' | '.join(cells)} |" for cells in escaped)
    return "\n".join((first, f"|{'---|' * len(heads)}", *rest))


if __name__ == "__main__":
    main()
