"""`conformance coverage`."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import click

from conformance.cli.options import data, echo_json, talk
from conformance.expression import Expression
from conformance.settings import PROFILES, Settings, from_profile

SOURCES = ("generated", "pairs", "opinfo", "corpus")
Rows = list[tuple[str, Mapping[str, int]]]
Short = list[tuple[str, str, int]]

LEAST = {"full": 10}  # hits a cell; of another profile nothing is asked


@click.command("coverage")
@click.option("--source", type=click.Choice(SOURCES), default="generated", show_default=True)
@click.option("--profile", type=click.Choice(list(PROFILES)), default="full", show_default=True)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--generated", type=click.IntRange(1), help="Programs.  [default: the profile's]")
@click.option("--least", type=click.IntRange(0), help="Hits a cell.  [default: 10 of full, or 0]")
@click.option("-k", "expression", metavar="EXPR", default="", help="Only ops whose name matches.")
@click.option("-j", "jobs", type=click.IntRange(1), default=1, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    *,
    source: str,
    profile: str,
    seed: int,
    generated: int | None,
    least: int | None,
    expression: str,
    jobs: int,
    as_json: bool,
) -> int:
    """Count the calls of each op of the grammar whose operands are of each class.

    Exits with 1 where a cell has fewer hits than --least; one that cannot be, of which the reason
    is told, does not count.
    """
    chosen = Expression(expression)
    settings = from_profile(profile, sources=(source,), seed=seed, generated=generated)
    tables = list(_counted(settings, jobs))
    from conformance.sources import coverage
    from conformance.sources.grammar import OPS

    table = coverage.merged(tables)
    least = LEAST.get(profile, 0) if least is None else least
    names = [name for name in OPS if chosen.may_match(f"{source}/{name}/")]
    short = [cell for cell in coverage.short(table, least) if cell[0] in names]
    rows: Rows = [(name, table.get(OPS[name].target, {})) for name in names]
    if as_json:
        echo_json(_as_data(settings, least, rows, short))
        return int(bool(short))
    _show(rows, least)
    _say(rows, least, short)
    return int(bool(short))


def _counted(settings: Settings, jobs: int) -> Iterable[dict[str, Any]]:
    """The table of each item, in a process or in several."""
    import multiprocessing
    import os

    from rich.progress import track

    from conformance import sources
    from conformance.worker import ENVIRONMENT

    for name, value in ENVIRONMENT.items():  # read when torch loads, here and in the processes
        os.environ.setdefault(name, value)
    items = sources.load(settings.sources[0]).items(settings)
    work = [(item, settings) for item in items]
    console = talk()
    hidden = not console.is_terminal

    def tracked(tables: Iterable[dict[str, Any]]) -> Iterable[dict[str, Any]]:
        return track(tables, "drawing", len(work), console=console, transient=True, disable=hidden)

    if jobs == 1:
        yield from tracked(map(count, work))
        return
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        yield from tracked(pool.imap_unordered(count, work, chunksize=4))


def count(work: tuple[Any, Settings]) -> dict[str, Any]:
    """The table of one item's Programs."""
    from conformance import sources
    from conformance.sources import Sample
    from conformance.sources.coverage import coverage

    item, settings = work
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, about what is drawn
        drawn = sources.load(item.source).samples(item, settings)
        return coverage((s.program, s.values) for s in drawn if isinstance(s, Sample))


def _as_data(settings: Settings, least: int, rows: Rows, short: Short) -> dict[str, Any]:
    from conformance.sources.coverage import CALLS, CLASSES, why_not

    return {
        "source": settings.sources[0],
        "profile": settings.profile,
        "seed": settings.seed,
        "least": least,
        "ops": {
            name: {"calls": row.get(CALLS, 0), "hits": {c: row.get(c, 0) for c in CLASSES}}
            for name, row in rows
        },
        "impossible": [
            {"op": name, "class": c, "reason": why_not(name, c)}
            for name, _ in rows
            for c in CLASSES
            if why_not(name, c)
        ],
        "short": [{"op": op, "class": c, "hits": hits} for op, c, hits in short],
    }


def _show(rows: Rows, least: int) -> None:
    from rich.table import Table

    from conformance.sources.coverage import CALLS, CLASSES, why_not

    shown = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bright_black")
    shown.add_column("op", no_wrap=True)
    for column in (CALLS, *CLASSES):
        shown.add_column(column, justify="right")
    for name, row in rows:
        cells = [f"{row.get(CALLS, 0):,}"]
        for c in CLASSES:
            hits = row.get(c, 0)
            if why_not(name, c):
                cells.append("[bright_black]-[/]" if not hits else f"[bright_black]({hits})[/]")
            else:
                cells.append(f"[red]{hits:,}[/]" if hits < least else f"{hits:,}")
        shown.add_row(name, *cells)
    data().print(shown, highlight=False)


def _say(rows: Rows, least: int, short: Short) -> None:
    from conformance.sources.coverage import CLASSES, why_not

    reasons: dict[tuple[str, str], list[str]] = {}
    for name, _ in rows:
        for c in CLASSES:
            if why_not(name, c):
                reasons.setdefault((c, why_not(name, c)), []).append(name)
    if reasons:
        click.echo("\nwhat cannot be (-):")
    for (c, reason), names in reasons.items():
        shown = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
        click.echo(f"  {c}: {reason} ({shown})")
    possible = len(rows) * len(CLASSES) - sum(map(len, reasons.values()))
    for op, c, hits in short:
        click.echo(f"short: {op}, {c}: {hits} of {least}")
    click.echo(
        f"\n{len(rows)} ops, {possible:,} cells that can be: "
        f"{len(short) or 'none'} of them below {least} hits"
    )
