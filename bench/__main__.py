"""`make bench`: measures, prints the tables, writes them as JSON."""

from __future__ import annotations

import argparse
import contextlib
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType

import trustme

from bench import report
from bench.cases import CASES, NOT_SEARCHED, Bench, Case, Options, say
from bench.common import HOST
from bench.contenders import CONTENDERS, ROOT, Cast, Contender, Peer, Stage, parse_peer
from bench.load import Clients
from bench.upstream import Upstream

QUICK = Options(rounds=2, seconds=0.2, mib=16, gib=64, events=500, tunnels=50, long_rounds=1)
QUICK_WITHOUT = ("secrets-10000",)  # filling that store takes ten seconds


def main(arguments: Sequence[str] | None = None) -> int:
    parser = make_parser()
    given = parser.parse_args(arguments)
    try:
        peers = [parse_peer(text) for text in given.peer]
        cases = chosen(given, peers)
    except ValueError as error:
        parser.error(str(error))
    if given.read is not None:
        found = report.Report.from_json(given.read.read_text("utf-8"))
        return publish(found, cases, CONTENDERS, given)
    contenders = CONTENDERS | {peer.name: peer.contender() for peer in peers}
    signal.signal(signal.SIGTERM, _end)
    found = run(cases, contenders, given)
    given.json.parent.mkdir(parents=True, exist_ok=True)
    given.json.write_text(found.to_json() + "\n", "utf-8")
    return publish(found, cases, contenders, given)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make bench", description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--quick", action="store_true", help="a minute, and figures that tell little")
    add("--only", nargs="+", default=[], metavar="CASE", help=f"of {', '.join(CASES)}")
    names = ", ".join(CONTENDERS)
    add("--contenders", nargs="+", default=[], metavar="NAME", help=f"of {names}")
    add("--peer", action="append", default=[], metavar="NAME=HOST:PORT,ca=FILE,...", help="...")
    add("--rounds", type=int)
    add("--seconds", type=float, help="of one turn of one contender")
    add("--mib", type=int, help="of a download or upload")
    add("--processes", type=int, help="of the client, and of the upstream; half the cores")
    add("--ports", type=int, nargs=3, default=(0, 0, 0), metavar="PORT", help="of the upstream")
    add("--folder", type=Path, help="keeps certificates and homes there, for peers and for a look")
    add("--profile", type=Path, metavar="FOLDER", help="samples the stack of coatcheck")
    add("--json", type=Path, default=ROOT / "build" / "bench.json", metavar="FILE")
    add("--read", type=Path, metavar="FILE", help="measures nothing, shows that JSON")
    add("--write-docs", action="store_true", help="puts the tables into docs/performance.md")
    return parser


def chosen(given: argparse.Namespace, peers: Sequence[Peer]) -> list[Case]:
    """The cases to run, each with its contenders.

    Raises:
        ValueError: there is no such case or contender.
    """
    wanted = given.only or list(CASES)
    if unknown := set(wanted) - CASES.keys():
        raise ValueError(f"there is no case {', '.join(sorted(unknown))}")
    theirs = tuple(peer.name for peer in peers)
    known = {*CONTENDERS, *theirs, NOT_SEARCHED}
    if unknown := set(given.contenders) - known:
        raise ValueError(f"there is no contender {', '.join(sorted(unknown))}")
    cases = []
    for name in wanted:
        case = CASES[name]
        all_of_it = case.contenders + (
            theirs if "stock" in case.contenders and name != "life" else ()
        )
        if given.contenders:
            all_of_it = tuple(one for one in all_of_it if one in given.contenders)
        elif given.quick:
            all_of_it = tuple(one for one in all_of_it if one not in QUICK_WITHOUT)
        cases.append(replace(case, contenders=all_of_it))
    return cases


def run(
    cases: Sequence[Case], contenders: Mapping[str, Contender], given: argparse.Namespace
) -> report.Report:
    options = QUICK if given.quick else Options()
    own = {name: getattr(given, name) for name in ("rounds", "seconds", "mib")}
    options = replace(options, **{name: value for name, value in own.items() if value is not None})
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    processes = given.processes or max(1, report.cores() // 2)
    machine, begun = report.machine(), time.monotonic()
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(_folder(given.folder))
        ca, leaf = _certificates(folder)
        upstream = Upstream(leaf, given.ports, processes)
        stack.callback(upstream.stop)
        clients = Clients(processes)
        stack.callback(clients.stop)
        if given.profile is not None:
            given.profile.mkdir(parents=True, exist_ok=True)
        cast = Cast(Stage(folder, ca, upstream.ports, given.profile), contenders)
        stack.callback(cast.stop)
        bench = Bench(options, upstream, cast, clients)
        for case in cases:
            case.measure(bench, case)
    say(f"took {time.monotonic() - begun:.0f} s")
    return report.Report(machine, options, bench.results, cast.left_out, report.cores())


def publish(
    found: report.Report,
    cases: Sequence[Case],
    contenders: Mapping[str, Contender],
    given: argparse.Namespace,
) -> int:
    """1 where an answer was wrong, or coatcheck could not be measured; a goal is no test."""
    made = report.tables(found, cases, contenders)
    print(report.machine_line(found.machine), end="\n\n")
    for table in [*made, report.goal_table(found)]:
        print(table.text())
    for line in report.left_out_lines(found, contenders) + report.error_lines(found):
        print(line)
    if given.profile is not None:
        show_profiles(given.profile)
    if given.write_docs:
        report.PAGE.write_text(report.page(found, made, contenders), "utf-8")
    return 1 if found.results.wrong() or "coatcheck" in found.left_out else 0


def show_profiles(folder: Path) -> None:
    for path in sorted(folder.glob("*.profile.txt")):
        print(f"\n{path}: {path.read_text('utf-8')}")


def _certificates(folder: Path) -> tuple[Path, Path]:
    """The upstream's authority, and its own certificate with the key; those of before, if any."""
    ca, leaf = folder / "upstream-ca.pem", folder / "upstream.pem"
    if not leaf.exists():
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(ca))
        authority.issue_cert(HOST).private_key_and_cert_chain_pem.write_to_path(str(leaf))
    return ca, leaf


@contextlib.contextmanager
def _folder(given: Path | None) -> Iterator[Path]:
    if given is not None:
        given.mkdir(parents=True, exist_ok=True)
        yield given
        return
    with tempfile.TemporaryDirectory(prefix="coatcheck-bench-") as name:
        yield Path(name)


def _end(_: int, __: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the rest is clearing up
    say("\nended by SIGTERM")
    sys.exit(143)


if __name__ == "__main__":
    sys.exit(main())
