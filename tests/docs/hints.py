"""The next steps that refusals tell, read from the source: what a page has to quote."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from functools import cache

from coatcheck.core.problems import HINTS, Code
from tests.docs.pages import ROOT

PACKAGE = ROOT / "src" / "coatcheck"
_RAISES = ("refuse", "Problem")
# What `policy explain` says is for operators, and is no refusal.
_FOR_OPERATORS = {"explain", "explaining", "asked"}


@cache
def of_refusals() -> dict[Code, set[str]]:
    """The constant hints that a client may be sent, for each code."""
    found: dict[Code, set[str]] = defaultdict(set)
    for code, text in HINTS.items():
        found[code].add(text)
    for path in sorted(PACKAGE.rglob("*.py")):
        source = path.read_text("utf-8")
        if "coatcheck.core.problems import" in source and path.stem not in _FOR_OPERATORS:
            for code, text in _in(ast.parse(source)):
                found[code].add(text)
    return found


@cache
def without_any() -> set[Code]:
    """The codes that some place refuses with no hint of its own."""
    return {
        code
        for path in sorted(PACKAGE.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call) and _name(node.func) in _RAISES and node.args
        if (code := _code(node.args[0])) and "hint" not in {k.arg for k in node.keywords}
    }


def _in(tree: ast.Module) -> Iterator[tuple[Code, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _name(node.func) in _RAISES and node.args:
            code = _code(node.args[0])
            texts = [k.value for k in node.keywords if k.arg == "hint"]
            yield from ((code, text.value) for text in texts if code and _is_text(text))
        elif isinstance(node, ast.Dict):  # a table: code -> (detail, hint)
            for key, value in zip(node.keys, node.values, strict=True):
                code = _code(key)
                if code and isinstance(value, ast.Tuple) and all(map(_is_text, value.elts)):
                    yield code, value.elts[-1].value  # type: ignore[attr-defined]


def _name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else ""


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _code(node: ast.expr | None) -> Code | None:
    if isinstance(node, ast.Attribute) and _name(node.value) == "Code":
        return Code.__members__.get(node.attr)
    return None
