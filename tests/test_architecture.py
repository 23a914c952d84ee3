"""The arrows of docs/design, drawn by reading every import in src.

    cli, admin, engine, store, observe ─▶ gateway, settings, policyfile ─▶ core ─▶ pure modules

A rule that is only written down is broken within a month. What is checked: who may import whom,
what the core may touch, that nothing in src is checked by ``assert`` (python -O drops it), which
files can see a secret's value, and that commands which do not proxy do not pay for mitmproxy.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

SRC = Path(__file__).parent.parent / "src" / "coatcheck"

# The standard library as far as it computes and does nothing else. No clock, no randomness.
PURE = frozenset(
    {"__future__", "abc", "array", "base64", "binascii", "bisect", "collections", "contextlib"}
    | {"dataclasses", "datetime", "enum", "functools", "hashlib", "heapq", "hmac", "ipaddress"}
    | {"itertools", "json", "math", "operator", "re", "string", "struct", "textwrap", "types"}
    | {"typing", "unicodedata", "urllib.parse", "zlib"}
)
PURE_LIBRARIES = frozenset(
    {"idna", "publicsuffixlist", "ahocorasick_rs", "brotli", "numpy", "zstandard"}
)
STDLIB = frozenset(sys.stdlib_module_names)

# One row for each layer: what it may import. Names of layers stand for coatcheck's own.
FILES = frozenset({"settings", "policyfile", "sourcefile", "listening"})
INNER = frozenset({"core", "gateway", "package"}) | FILES
ARROWS: dict[str, frozenset[str]] = {
    "package": frozenset(),
    "core": PURE | PURE_LIBRARIES | {"core"},
    "gateway": PURE | {"core", "gateway"},
    "settings": STDLIB | FILES | {"core", "package", "pydantic", "pydantic_core", "yaml"},
    "policyfile": STDLIB | FILES | {"core", "package", "pydantic", "pydantic_core", "yaml"},
    "sourcefile": STDLIB | FILES | {"core"},
    "listening": STDLIB | {"core"},
    "client": STDLIB,  # it runs in other people's processes
    "store": STDLIB
    | INNER
    | {"store", "sqlalchemy", "alembic", "cryptography", "psycopg"}
    | {"hvac", "requests", "boto3", "botocore", "certifi"}  # sources of values, by extras
    | {"google", "azure", "msal"},
    "observe": STDLIB
    | INNER
    | {"observe", "structlog", "prometheus_client"}
    | {"opentelemetry", "requests", "certifi"},  # traces, by an extra
    "engine": STDLIB
    | INNER
    | {"engine", "mitmproxy", "mitmproxy_rs", "cryptography", "certifi", "httptools", "OpenSSL"}
    | {"h11", "uvloop", "wsproto"},
    # The one layer that puts its own parts together: its process is not the proxy's (`app`), and
    # must not import what that does.
    "admin": STDLIB
    | INNER
    | {"admin", "store", "observe", "workers", "pydantic", "fastapi", "starlette", "uvicorn"}
    | {"joserfc", "jinja2", "markupsafe", "python_multipart"},
    "cli": STDLIB
    | INNER
    | {
        "cli",
        "store",
        "observe",
        "workers",
        "app later",
        "typer",
        "click",
        "rich",
        "certifi",
        "cryptography",
    },
    "workers": STDLIB | INNER | {"workers", "store", "observe", "app later", "admin later"},
    "app": STDLIB
    | INNER
    | {"app", "workers", "store", "observe", "engine", "admin", "certifi", "structlog"},
}

# A layer of one file may be split: its parts are named here.
LAYER_OF = {
    "__init__": "package",
    "__main__": "cli",
    "canary": "gateway",
    "opensocket": "gateway",
    "ownhost": "gateway",
    "policymodel": "policyfile",
    "policyuse": "policyfile",
    "policywarnings": "policyfile",
    "settingmodes": "settings",
    "settingtable": "settings",
    "sourcetable": "sourcefile",
    "yamlfile": "policyfile",
    "yamltree": "policyfile",
}

# The files that may call `SecretValue.reveal`. Adding one is a decision: say what it does with it.
MAY_REVEAL = {
    "core/redact.py": "makes the needles that are searched for in responses",
    "core/template.py": "writes values into their places",
    "core/whole_url.py": "reads where a value that is a URL leads",
    "store/memory.py": "keeps values, it being the store",
    "store/sources/sourced.py": "compares what a source has now with what it had",
}

# Built-in functions that reach outside, and so have no place in the core or the gateway.
IMPURE_CALLS = frozenset({"open", "print", "input", "eval", "exec", "breakpoint"})
IMPURE_METHODS = frozenset({"now", "today", "utcnow"})  # of datetime, which may format a time


@dataclass(frozen=True, slots=True)
class Import:
    """One imported module. *lazy*: inside a function, so paid for only when that is called."""

    line: int
    module: str
    lazy: bool


def violations(root: Path) -> list[str]:
    """Every broken rule in the package at *root*, as ``file:line: words``."""
    found = []
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root)
        tree = ast.parse(path.read_text("utf-8"))
        words = {*_import_words(root, name, tree), *_other_words(name, tree)}
        found += [f"{name}:{line}: {text}" for line, text in sorted(words)]
    return found


def _import_words(root: Path, name: Path, tree: ast.Module) -> Iterator[tuple[int, str]]:
    layer = _layer(name.parts[0].removesuffix(".py"))
    if layer not in ARROWS:
        yield 1, f"the layer {layer!r} has no arrows; draw them in tests/test_architecture.py"
        return
    allowed = ARROWS[layer]
    for imported in imports(root, name, tree):
        target = _target(imported.module)
        later = f"{target} later" in allowed
        if target in allowed or imported.module in allowed or (imported.lazy and later):
            continue
        when = " at import time" if later else ""
        yield imported.line, f"imports {imported.module}{when}: no arrow from {layer}"


def _other_words(name: Path, tree: ast.Module) -> Iterator[tuple[int, str]]:
    pure = _layer(name.parts[0].removesuffix(".py")) in ("core", "gateway")
    for node in ast.walk(tree):
        if pure and isinstance(node, ast.Call) and (reach := _reaches_outside(node.func)):
            yield node.lineno, f"calls {reach}(), which reaches outside"
        if isinstance(node, ast.Assert):
            yield node.lineno, "has an assert, which python -O drops; raise instead"
        if isinstance(node, ast.expr) and _names_reveal(node) and name.as_posix() not in MAY_REVEAL:
            yield node.lineno, "reveals a secret's value and is not in MAY_REVEAL"


def imports(root: Path, name: Path, tree: ast.Module) -> Iterator[Import]:
    """Every import of the file *name*, those by `import_module` with a literal too."""
    package = ("coatcheck", *name.parent.parts)
    for node, lazy in _walk(tree, lazy=False):
        match node:
            case ast.Import(names=names):
                yield from (Import(node.lineno, alias.name, lazy) for alias in names)
            case ast.ImportFrom(module=module, names=names, level=level):
                base = ".".join(package[: len(package) - level + 1]) if level else ""
                full = ".".join(part for part in (base, module) if part)
                for alias in names:
                    # ``from coatcheck import core`` names the layer last.
                    deeper = f"{full}.{alias.name}"
                    whole = deeper if _is_module(root, deeper) else full
                    yield Import(node.lineno, whole, lazy)
            case ast.Constant(value=str(text)):
                module = text.partition(":")[0]
                if module.startswith("coatcheck.") and _is_module(root, module):
                    yield Import(node.lineno, module, lazy=True)


def _walk(node: ast.AST, *, lazy: bool) -> Iterator[tuple[ast.AST, bool]]:
    for child in ast.iter_child_nodes(node):
        inside = lazy or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        yield child, inside
        yield from _walk(child, lazy=inside)


def _is_module(root: Path, module: str) -> bool:
    parts = module.split(".")[1:]
    path = root.joinpath(*parts)
    return module.startswith("coatcheck.") and (
        path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()
    )


def _target(module: str) -> str:
    parts = module.split(".")
    if parts[0] != "coatcheck":
        return parts[0]
    return _layer(parts[1]) if len(parts) > 1 else "package"


def _layer(first: str) -> str:
    return LAYER_OF.get(first, first)


def _reaches_outside(function: ast.expr) -> str:
    match function:
        case ast.Name(id=name) if name in IMPURE_CALLS:
            return name
        case ast.Attribute(value=ast.Name(id="datetime" | "date"), attr=name):
            return name if name in IMPURE_METHODS else ""
    return ""


def _names_reveal(node: ast.AST) -> bool:
    if isinstance(node, ast.Attribute):
        return node.attr == "reveal"
    return isinstance(node, ast.Constant) and node.value == "reveal"


# --- the rules hold --------------------------------------------------------------------------


def test_the_arrows_hold() -> None:
    assert violations(SRC) == []


def test_every_file_that_may_reveal_does() -> None:
    """Otherwise the list grows and says nothing."""
    revealing = {
        path.relative_to(SRC).as_posix()
        for path in SRC.rglob("*.py")
        if any(map(_names_reveal, ast.walk(ast.parse(path.read_text("utf-8")))))
    }
    assert revealing == set(MAY_REVEAL)


def test_only_the_engine_knows_mitmproxy() -> None:
    assert [layer for layer, allowed in ARROWS.items() if "mitmproxy" in allowed] == ["engine"]


def test_only_observe_knows_opentelemetry() -> None:
    assert [layer for layer, allowed in ARROWS.items() if "opentelemetry" in allowed] == ["observe"]


# --- the checker sees ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        pytest.param("core/x.py", "import socket", "socket: no arrow from core", id="core: I/O"),
        pytest.param("core/x.py", "import os.path", "os.path: no arrow", id="core: os"),
        pytest.param("core/x.py", "from time import time", "time: no arrow", id="core: a clock"),
        pytest.param("core/x.py", "import requests", "requests: no arrow", id="core: a library"),
        pytest.param("core/x.py", "from mitmproxy import http", "no arrow", id="core: mitmproxy"),
        pytest.param("core/x.py", "import coatcheck.store.sql", "no arrow", id="core: a layer"),
        pytest.param("core/x.py", "from coatcheck import store", "no arrow", id="by its package"),
        pytest.param("core/x.py", "from ..store import sql", "no arrow", id="relatively"),
        pytest.param("core/x.py", "from .. import store", "no arrow", id="relatively, shorter"),
        pytest.param("core/x.py", "def f():\n import os", "2: imports os", id="in a function"),
        pytest.param(
            "core/x.py",
            "if TYPE_CHECKING:\n from coatcheck.gateway import Gateway",
            "no arrow",
            id="for types alone",
        ),
        pytest.param(
            "store/x.py",
            "import_module('coatcheck.engine.lane')",
            "coatcheck.engine.lane: no arrow from store",
            id="by import_module",
        ),
        pytest.param("core/x.py", "import urllib.request", "no arrow", id="core: the web"),
        pytest.param(
            "core/x.py", "datetime.now(UTC)", "calls now()", id="core: a clock, by method"
        ),
        pytest.param("core/x.py", "open('f')", "calls open()", id="core: a file"),
        pytest.param("gateway.py", "print(1)", "calls print()", id="gateway: output"),
        pytest.param("gateway.py", "import asyncio", "no arrow from gateway", id="gateway: I/O"),
        pytest.param("gateway.py", "import coatcheck.store", "no arrow", id="gateway: a store"),
        pytest.param("store/x.py", "import mitmproxy", "no arrow from store", id="store: engine"),
        pytest.param("cli/x.py", "import mitmproxy", "no arrow from cli", id="cli: mitmproxy"),
        pytest.param("app.py", "import mitmproxy", "no arrow from app", id="app: mitmproxy"),
        pytest.param("cli/x.py", "import coatcheck.engine.lane", "no arrow", id="cli: engine"),
        pytest.param("cli/x.py", "import coatcheck.app", "at import time", id="cli: app, early"),
        pytest.param("engine/x.py", "import coatcheck.store", "no arrow", id="engine: store"),
        pytest.param("observe/x.py", "import coatcheck.cli", "no arrow", id="observe: cli"),
        pytest.param("plugins/x.py", "", "the layer 'plugins' has no arrows", id="a new folder"),
        pytest.param("store/x.py", "assert 1", "has an assert", id="an assert"),
        pytest.param("store/x.py", "v.reveal()", "reveals", id="a value in the open"),
        pytest.param("store/x.py", "f = v.reveal", "reveals", id="its method handed on"),
        pytest.param("store/x.py", "getattr(v, 'reveal')()", "reveals", id="by getattr"),
    ],
)
def test_a_planted_fault_is_reported(tmp_path: Path, file: str, text: str, words: str) -> None:
    root = _a_package(tmp_path)
    assert violations(root) == []
    (root / file).parent.mkdir(exist_ok=True)
    (root / file).write_text(text)
    (found,) = violations(root)
    assert found.startswith(f"{file}:")
    assert words in found


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("core/x.py", "import re, urllib.parse\nfrom coatcheck.core import y\nimport idna"),
        ("core/x.py", "from urllib.parse import quote\nfrom datetime import UTC"),
        ("gateway.py", "from coatcheck.core.policy import judge"),
        ("store/x.py", "import os, sqlalchemy\nfrom coatcheck.core import secret"),
        ("engine/lane.py", "import mitmproxy.http\nfrom coatcheck.gateway import Gateway"),
        ("cli/x.py", "import typer\ndef f():\n from coatcheck import app"),
        ("app.py", "from coatcheck.engine import lane\nfrom coatcheck.store import sql"),
        ("core/redact.py", "v.reveal()"),
    ],
)
def test_what_the_arrows_allow_is_not_reported(tmp_path: Path, file: str, text: str) -> None:
    root = _a_package(tmp_path)
    (root / file).write_text(text)
    assert violations(root) == []


def _a_package(tmp_path: Path) -> Path:
    root = tmp_path / "coatcheck"
    for layer in ("core", "store", "engine", "cli", "observe"):
        (root / layer).mkdir(parents=True)
        (root / layer / "__init__.py").write_text("")
    for file in ("__init__.py", "app.py", "gateway.py", "store/sql.py", "engine/lane.py"):
        (root / file).write_text("")
    return root


# --- speed -----------------------------------------------------------------------------------


def _modules_after(statement: str) -> set[str]:
    """The top-level names of what a fresh interpreter has loaded after *statement*."""
    program = f"{statement}\nimport sys\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(SRC.parent)},
        timeout=60,
    )
    return set(done.stdout.split())


HEAVY = {"mitmproxy", "mitmproxy_rs", "OpenSSL"}


def test_the_program_starts_without_mitmproxy() -> None:
    """Importing it takes seconds."""
    modules = _modules_after("import coatcheck.cli.main")
    assert "typer" in modules
    assert modules.isdisjoint({*HEAVY, "sqlalchemy", "alembic", "cryptography"})


def test_the_supervisor_has_nothing_that_could_open_a_value() -> None:
    """Nor what reads keys from files."""
    modules = _modules_after("import coatcheck.workers.supervisor")
    assert "structlog" in modules
    assert modules.isdisjoint({*HEAVY, "sqlalchemy", "alembic", "cryptography"})


def test_no_command_imports_mitmproxy_before_it_runs() -> None:
    names = sorted(path.stem for path in (SRC / "cli").glob("*.py") if path.stem != "__init__")
    modules = _modules_after("import " + ", ".join(f"coatcheck.cli.{name}" for name in names))
    assert modules.isdisjoint(HEAVY)
