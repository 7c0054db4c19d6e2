"""`conformance expect`: the lists of failures that are known."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from conformance.cli.options import data, echo_json, talk
from conformance.errors import UsageError

if TYPE_CHECKING:
    from conformance.expectations import Expectation
    from conformance.expectations.edit import ListFile, Proposal
    from conformance.journal import Journal
    from conformance.results import Result

_FILE = click.option(
    "--file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="PATH",
    help="The list.  [default: that of the run's --expectations, else the engine's own, in "
    "conformance/expectations]",
)
_DRY = click.option("--dry-run", is_flag=True, help="Show it, and write nothing.")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")


@click.group("expect")
def command() -> None:
    """Keep the lists of failures that are known, so that a run fails only for what is new."""


def _reason(ctx: click.Context, param: click.Parameter, value: str) -> str:
    if not value.strip():
        raise click.BadParameter("say why they fail", ctx, param)
    return value.strip()


@command.command("accept")
@click.argument("journal", type=click.Path(path_type=Path))
@click.option("--reason", required=True, callback=_reason, metavar="TEXT", help="Why they fail.")
@click.option("--link", default="", metavar="URL", help="Where it is written down.")
@click.option("-k", "expression", metavar="EXPR", default="", help="Only cases that match.")
@click.option(
    "--case",
    "cases",
    multiple=True,
    metavar="CASE",
    help="Only cases with this in their name, and no other Program than theirs. Can be repeated.",
)
@_FILE
@_DRY
@_JSON
def accept(
    *,
    journal: Path,
    reason: str,
    link: str,
    expression: str,
    cases: tuple[str, ...],
    file: Path | None,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Expect what fails in JOURNAL and is not expected yet.

    One entry for each call that is to blame, or for each op where none is, with the checks that
    saw it and how the verdict begins. What is the reference's fault goes into the reference's list.
    """
    from conformance import expectations as known
    from conformance import journal as jl
    from conformance.expectations.edit import ListFile, propose

    read = jl.read(journal)
    engine = str(read.header["engine"])
    listed = read.settings.get("expectations")
    expected = known.load(engine)
    file = file or (Path(listed) if listed else None)
    if file is not None:
        expected += tuple(ListFile(file).expectations)
    verdict = known.judge(read.results, expected, whole=False)
    failures = [*verdict.regressions, *verdict.flaky]
    chosen = _chosen(failures, expression, cases, journal)
    shared = [r for r in chosen if file is None and _is_of_the_reference(r, engine)]
    own = [r for r in chosen if not any(r is other for other in shared)]
    done: list[tuple[ListFile, list[Proposal]]] = []
    for results, path, to_reference in (
        (own, file or _own(engine), False),
        (shared, _own(known.REFERENCE), True),
    ):
        if results:
            proposals = propose(
                results,
                reason,
                link,
                flaky=verdict.flaky,
                pinned=bool(cases),
                to_reference=to_reference,
            )
            target = ListFile(path)
            target.add(p.expectation for p in proposals)
            done.append((target, proposals))
    if not dry_run:
        for target, _ in done:
            target.save()
    if as_json:
        echo_json(_accepted(done, dry_run))
    else:
        _show_accepted(done, dry_run, journal)
    if read.trouble:
        talk().print(f"note: {read.trouble}", highlight=False, soft_wrap=True, markup=False)
    return 0


@command.command("prune")
@click.argument(
    "journals", metavar="JOURNAL...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@click.option(
    "--missing", is_flag=True, help="And what met no case, where the run was a whole one."
)
@_FILE
@_DRY
@_JSON
def prune(
    *,
    journals: tuple[Path, ...],
    missing: bool,
    file: Path | None,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Expect no longer what JOURNAL shows to be right.

    An entry stays where the run did not meet it, where it may pass as well, and where it fails in
    another of several journals: the reference's list serves the runs of all engines.
    """
    from conformance.expectations.edit import ListFile

    reads = [_finished(path, missing=missing) for path in journals]
    paths = dict.fromkeys(file or _list_of(read) for read in reads)
    done: list[tuple[ListFile, dict[Expectation, str]]] = []
    for path in paths:
        target = ListFile(path)
        gone = _gone(target, reads, own=path == file, missing=missing)
        target.remove(gone)
        done.append((target, gone))
        if gone and not dry_run:
            target.save()
    if as_json:
        echo_json(_pruned(done, dry_run))
    else:
        _show_pruned(done, dry_run)
    return 0


def _own(engine: str) -> Path:
    from conformance.expectations import place

    found = place(engine)
    if found is None:
        raise UsageError(f"{engine} comes from outside and has no list here: name one with --file")
    return found


def _list_of(read: Journal) -> Path:
    """The list that a run was held against."""
    listed = read.settings.get("expectations")
    return Path(listed) if listed else _own(str(read.header["engine"]))


def _is_of_the_reference(result: Result, engine: str) -> bool:
    from conformance.expectations import REFERENCE, sentence

    return engine != REFERENCE and sentence(result).startswith("reference wrong")


def _chosen(
    failures: list[Result], expression: str, cases: tuple[str, ...], journal: Path
) -> list[Result]:
    """Those that -k and --case choose; raises UsageError where they choose none of several."""
    from conformance.expression import Expression, did_you_mean

    wanted = Expression(expression)
    names = {r.case: None for r in failures}
    for case in cases:
        if not any(case in name for name in names):
            hint = did_you_mean(case, names)
            raise UsageError(f"{journal} has no unexpected failure {case!r}{hint}")
    chosen = [
        r
        for r in failures
        if wanted.matches(r.case, r.digest) and (not cases or any(c in r.case for c in cases))
    ]
    if failures and not chosen:
        hints = "".join(did_you_mean(word, {r.op: None for r in failures}) for word in wanted.words)
        raise UsageError(f"-k {expression!r} matches none of {len(failures)} failures{hints}")
    return chosen


def _finished(path: Path, *, missing: bool) -> Journal:
    """The journal of a run that shows what no longer fails; raises UsageError for another."""
    from conformance import journal as jl
    from conformance.report.summary import is_whole

    read = jl.read(path)
    if read.trouble:
        raise UsageError(f"{path} does not show what no longer fails. {read.trouble}")
    if missing and not is_whole(read):
        raise UsageError(
            f"{path} is of a part of the cases, so --missing says nothing: run opinfo and "
            "generated without -k, --dtype and --profile smoke"
        )
    return read


def _gone(
    target: ListFile, reads: list[Journal], *, own: bool, missing: bool
) -> dict[Expectation, str]:
    """What a list need not say any more, and why; `own` says that it serves all these runs."""
    from conformance import expectations as known
    from conformance.report.summary import is_whole
    from conformance.results import UNDECIDED

    gone: dict[Expectation, str] = {}
    failing: set[Expectation] = set()
    for read in reads:
        owned = own or _list_of(read) == target.path
        for e in target.expectations:
            as_here = e if owned else known.borrowed(e)
            if any(as_here.covers(r) for r in read.results):
                failing.add(e)
        if not owned:
            continue
        verdict = known.judge(read.results, target.expectations, whole=is_whole(read))
        for e in verdict.improvements:
            cases = {r.case for r in read.results if r.outcome not in UNDECIDED and e.meets(r)}
            gone[e] = f"holds in {len(cases):,} case{'s' if len(cases) != 1 else ''}"
        if missing:
            gone |= {e: "met no case" for e in verdict.missing if e not in gone}
    return {e: why for e, why in gone.items() if e not in failing}


def _show_accepted(
    done: list[tuple[ListFile, list[Proposal]]], dry_run: bool, journal: Path
) -> None:
    from rich.markup import escape
    from rich.table import Table

    console = data()
    if not done:
        console.print(f"{escape(str(journal))}: all that fails is expected", highlight=False)
    for target, proposals in done:
        failures = sum(len(p.results) for p in proposals)
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bright_black")
        for name in ("op", "check", "call", "verdict", "failures"):
            table.add_column(name, justify="right" if name == "failures" else "left")
        for proposal in proposals:
            e = proposal.expectation
            limits = f" ({e.case})" if e.case != "*" else ""
            flaky = " (flaky)" if e.flaky else ""
            row = (e.op + limits, e.check, e.call, e.verdict + flaky, f"{len(proposal.results):,}")
            table.add_row(*map(escape, row))
        console.print(table, highlight=False)
        says = "would be added" if dry_run else "added"
        entries = f"{len(proposals):,} {'entry' if len(proposals) == 1 else 'entries'}"
        text = f"{entries} for {failures:,} failures {says} to {target.path}"
        console.print(text, highlight=False, soft_wrap=True, markup=False)


def _accepted(done: list[tuple[ListFile, list[Proposal]]], dry_run: bool) -> dict[str, Any]:
    from conformance.expectations.edit import as_data

    added = [
        {"file": str(target.path), "failures": len(p.results), "entry": as_data(p.expectation)}
        for target, proposals in done
        for p in proposals
    ]
    return {"added": added, "written": bool(done) and not dry_run}


def _show_pruned(done: list[tuple[ListFile, dict[Expectation, str]]], dry_run: bool) -> None:
    console = data()
    for target, gone in done:
        for expectation, why in gone.items():
            text = f"{why}: {expectation}"
            console.print(text, highlight=False, soft_wrap=True, markup=False)
        says = "would be removed" if dry_run else "removed"
        entries = f"{len(gone):,} {'entry' if len(gone) == 1 else 'entries'}"
        text = f"{entries} {says} from {target.path}, {len(target.expectations):,} left"
        console.print(text, highlight=False, soft_wrap=True, markup=False)


def _pruned(done: list[tuple[ListFile, dict[Expectation, str]]], dry_run: bool) -> dict[str, Any]:
    from conformance.expectations.edit import as_data

    removed = [
        {"file": str(target.path), "why": why, "entry": as_data(expectation)}
        for target, gone in done
        for expectation, why in gone.items()
    ]
    return {"removed": removed, "written": bool(removed) and not dry_run}
