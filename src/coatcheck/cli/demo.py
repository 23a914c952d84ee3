"""`coatcheck demo`: the main job, shown by real requests, in a home that is thrown away.

A check mark is printed where a check held and nowhere else; one that did not ends the demo with
exit code 1. At the end all that was printed, the proxy's log and every file of the home are
searched for the values.
"""

from __future__ import annotations

import signal
import stat
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coatcheck.cli import console
from coatcheck.cli.demo_screen import Screen

if TYPE_CHECKING:
    from coatcheck.cli.demo_stage import Stage

KeepOption = Annotated[
    bool, typer.Option("--keep", help="Leave it running until Ctrl-C, for requests of your own.")
]
INTERRUPTED = 130  # what a shell says of a program ended by Ctrl-C


def demo(keep: KeepOption = False) -> None:
    """Show inject, block and scrub with real requests.

    Needs no network and no rights, and leaves nothing behind. Exit code 1 if anything that it
    claims did not happen.
    """
    from coatcheck.cli.demo_cases import make_values
    from coatcheck.cli.demo_stage import Stage

    screen = Screen()
    values = make_values()
    with _signals_as_interrupts():
        try:
            with Stage(values) as stage:
                _set_up(screen, stage)
                _show_cases(screen, stage)
                _search(screen, stage, values)
                if keep and not screen.failed:
                    _keep(screen, stage)
        except KeyboardInterrupt:
            console.say("interrupted; everything was ended and removed")
            raise typer.Exit(INTERRUPTED) from None
    if screen.failed:
        console.say_error(f"{len(screen.failed)} of {screen.checks} checks did not hold:")
        for words in screen.failed:
            console.say(f"  {words}")
        raise typer.Exit(1)
    screen.say(f"all {screen.checks} checks held")


def _set_up(screen: Screen, stage: Stage) -> None:
    from coatcheck.cli.demo_cases import API, EVIL

    screen.say("coatcheck demo: a client that holds placeholders, a proxy that holds the values")
    screen.say("")
    root = stage.make_home()
    private = all(stat.S_IMODE(path.stat().st_mode) == 0o700 for path in (root, root.parent))
    screen.check(f"made a home for this run, mode 0700: {root}", private)
    stage.start_upstream()
    secure, plain = stage.port("https"), stage.port("http")
    started = f"started an upstream: https on port {secure}, http on port {plain}"
    screen.check(started, stage.upstream_answers())
    screen.say(f"    {API} may get the secrets, {EVIL} (the same server) may not")
    stage.store_secrets()
    count = len(stage.values)
    screen.check(f"stored {count} secrets, sealed: {', '.join(stage.values)}", _stored(stage))
    pid = stage.start_proxy()
    started = f"started coatcheck serve: port {stage.proxy_port}, process {pid}"
    screen.check(started, stage.proxy_accepts())
    screen.say("")
    screen.say("Each case as a line for your shell (--keep leaves all of this running), after")
    screen.say(f"  {stage.export_line()}")


def _stored(stage: Stage) -> bool:
    """Whether the store's file is there and no value can be read in it."""
    from coatcheck.cli.demo_stage import find_values

    texts = {path.name: path.read_bytes() for path in stage.home.root.glob("store.db*")}
    return "store.db" in texts and not find_values(stage.values, texts)


def _show_cases(screen: Screen, stage: Stage) -> None:
    from coatcheck.cli import demo_cases, demo_checks

    lines: list[str] = []
    for number, case in enumerate(demo_cases.cases(), 1):
        seen = stage.send(case.request)
        screen.case(
            f"{number}. {case.title}",
            case.request.line(stage.port(case.request.scheme)),
            {
                "client sent": case.part + demo_cases.sent(case),
                "upstream got": demo_checks.arrived_masked(case, seen, stage.values),
                "client got": demo_checks.got(seen),
            },
        )
        found = demo_checks.checks(case, seen, stage.values)
        screen.checked([(check.words, check.held) for check in found], case.title)
        lines += [f"{number}. {_audit_line(record)}" for record in seen.audit]
    screen.say("")
    screen.say("The audit log of these requests: names, places and codes")
    for line in lines:
        screen.say(f"  {line}")


def _audit_line(record: Mapping[str, Any]) -> str:
    uses = ", ".join(f"{use['name']} at {use['location']}" for use in record.get("secrets", ()))
    hits = ", ".join(
        f"{hit['name']} as {hit['spelling']} in the {hit['channel']}"
        for hit in record.get("scrubbed", ())
    )
    why = " ".join(str(record[key]) for key in ("code", "secret") if key in record)
    place = f"{record.get('scheme')}://{record.get('host')}:{record.get('port')}"
    what = uses or hits or why
    decision, method = record.get("decision", ""), record.get("method", "")
    return f"{record['time'][11:23]} {record['client']} {decision:<6} {method} {place}  {what}"


def _search(screen: Screen, stage: Stage, values: Mapping[str, str]) -> None:
    from coatcheck.cli.demo_stage import find_values

    paths = stage.files()
    texts = {str(path): path.read_bytes() for path in paths}
    texts["this output"] = screen.printed().encode()
    found = find_values(values, texts)
    there = stage.audit in paths and stage.log in paths and stage.audit.stat().st_size > 0
    screen.say("")
    screen.check(
        f"searched this output, the proxy's log, the audit log and {len(paths) - 2} other files"
        f" of the home for all {len(values)} values, in every spelling: none was found",
        there and not found,
        failed=f"a value was found: {'; '.join(found)}" if found else "a file is missing",
    )


def _keep(screen: Screen, stage: Stage) -> None:
    from coatcheck.cli import demo_cases

    first = demo_cases.cases()[0].request
    screen.say("")
    screen.say("Running until Ctrl-C. In another shell, the line from above and any of the curls:")
    screen.say(f"  {stage.export_line()}")
    screen.say(f"  {first.line(stage.port(first.scheme))}")
    screen.say("or, without the line from above:")
    screen.say(f"  {stage.run_line(first)}")
    screen.say("or look at it:")
    screen.say(f"  tail -f {stage.audit}")
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        screen.say("")
        screen.say("ended; everything is removed")


@contextmanager
def _signals_as_interrupts() -> Iterator[None]:
    """SIGTERM and SIGHUP end the demo as Ctrl-C does: by undoing everything."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(*_: object) -> None:
        # One is enough: a second one must not cut the clean-up short.
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, interrupt) for number in numbers]
    try:
        yield
    finally:
        sys.stdout.flush()
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
