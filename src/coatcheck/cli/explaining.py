"""For `coatcheck policy explain`: a decision on the screen (`core.asked` has it as a document)."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from coatcheck.cli import console
from coatcheck.core.asked import OVERRIDDEN, outcome
from coatcheck.core.explain import Explanation, Place
from coatcheck.core.policy import Answer, Policy, Step
from coatcheck.core.problems import Problem


def show(made: Explanation, rules: Policy) -> None:
    """Print the decision as a tree."""
    request = made.request
    tree = Tree(
        _text(
            f"{request.method or OVERRIDDEN} {request.destination}, sent by {request.client}",
            "bold",
        )
    )
    tree.add(_text(f"policy {rules.source}"))
    only = "" if made.report is None else f"; only reported: {made.report.code}"
    tree.add(_text(f"egress: {made.rule}{only}"))
    if request.path is None:
        tree.add(_text("the path can be read in two ways, so no paths: entry matches it"))
    if made.tunnel is not None:
        tree.add(_text(f"passthrough: {made.tunnel}: tunnelled unseen, nothing is injected"))
    elif not made.places:
        tree.add(_text("no placeholders"))
    for place in made.places:
        _add(tree, place)
    if made.problem is None:
        tree.add(_text("result: it would be sent", "bold green"))
    else:
        _add_problem(tree, made.problem)
    coloured = console.has_colours(sys.stdout)
    # As wide as it takes: a hint that is cut off cannot be followed, a terminal wraps by itself.
    Console(color_system="standard" if coloured else None, width=4096).print(tree)


def _add(tree: Tree, place: Place) -> None:
    verdict, became = place.verdict, outcome(place)
    what = f"secret {place.name}" if place.name is not None else "a malformed placeholder"
    line = f"{what} in {place.location}: {became}"
    if verdict is not None and verdict.grant is not None:
        line += f", {'by' if place.filled else 'nearest grant:'} line {verdict.grant.line}"
    if place.report is not None:
        line += f"; only reported: {place.report.code}"
    colour = {"injected": "green", "refused": "red"}.get(became, "yellow")
    branch = tree.add(_text(line, colour))
    if place.name is not None and not place.exists:
        branch.add(_text("the store has no secret of this name"))
    for answer in verdict.answers if verdict is not None else ():
        branch.add(_text(f"grant in line {answer.grant.line}: {_told(answer, place)}"))


def _told(answer: Answer, place: Place) -> str:
    if answer.failed is None:
        return "allows"
    if answer.failed is Step.SECRET and answer.grant.names(place.name or ""):
        return "names this secret, which does not exist"
    return f"{answer.failed}? no"


def _add_problem(tree: Tree, problem: Problem) -> None:
    branch = tree.add(_text(f"result: refused, {problem.code} ({problem.status})", "bold red"))
    for text in (problem.detail, problem.operator, problem.hint):
        if text:
            branch.add(_text(text))


def _text(text: str, style: str = "") -> Text:
    return Text(console.clean(text), style=style)
