"""`conformance ops`."""

from __future__ import annotations

from typing import Any

import click

from conformance.cli.options import data, echo_json, talk

COVERED, LACKING, LEFT_OUT = "covered", "lacking", "left out"


@click.command("ops")
@click.option(
    "--engine",
    metavar="NAME",
    default="refgrad",
    show_default=True,
    help="refgrad, torch, or direct:MODULE:NAME for one from outside.",
)
@click.option("-k", "expression", metavar="EXPR", default="", help="Only ops whose name matches.")
@click.option("--lacking", is_flag=True, help="Only ops that are not covered.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(*, engine: str, expression: str, lacking: bool, as_json: bool) -> int:
    """List what an engine covers of PyTorch's op_db: each entry's first sample is tried.

    An entry is covered where the engine has every call of that sample; whether its derivatives are
    right is for `conformance run` to say.
    """
    rows = _rows(engine, expression)
    covered = sum(row["state"] == COVERED for row in rows)
    if as_json:
        echo_json({"engine": engine, "covered": covered, "entries": len(rows), "ops": rows})
        return 0
    shown = [row for row in rows if not lacking or row["state"] != COVERED]
    _show(shown)
    click.echo(f"{engine} covers {covered:,} of {len(rows):,} entries of torch's op_db")
    return 0


def _rows(engine: str, expression: str) -> list[dict[str, Any]]:
    from rich.progress import track

    from conformance import engines, sources
    from conformance.errors import UsageError
    from conformance.expression import Expression, did_you_mean
    from conformance.settings import Settings

    chosen = Expression(expression)
    tried = engines.load(engine)
    opinfo = sources.load("opinfo")
    settings = Settings(engine=engine, samples_per_entry=1)
    items = opinfo.items(settings)
    wanted = [item for item in items if chosen.may_match(f"{item.source}/{item.op}/")]
    if not wanted:
        hints = "".join(did_you_mean(word, [item.op for item in items]) for word in chosen.words)
        raise UsageError(f"-k {expression!r} matches none of {len(items)} ops{hints}")
    console = talk()
    tracked = track(
        wanted,
        "trying a sample of each entry",
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    rows = []
    for item in tracked:
        sample = next(iter(opinfo.samples(item, settings)), None)
        rows.append({"op": item.op, **_state(tried, sample)})
    return rows


def _state(engine: Any, sample: Any) -> dict[str, Any]:
    from conformance.sources.base import Skipped

    if sample is None:
        return {"state": LEFT_OUT, "reason": "it has no sample in float64"}
    if isinstance(sample, Skipped):
        return {"state": LEFT_OUT, "reason": sample.reason}
    missing = engine.missing(sample.program)
    if missing:
        return {"state": LACKING, "missing": list(missing)}
    return {"state": COVERED, "calls": len(sample.program.calls)}


def _show(rows: list[dict[str, Any]]) -> None:
    from rich.markup import escape
    from rich.table import Table

    styles = {COVERED: "green", LACKING: "red", LEFT_OUT: "yellow"}
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bright_black")
    for column in ("op", "state", ""):
        table.add_column(column)
    for row in rows:
        note = ", ".join(row.get("missing", ())) or row.get("reason", "")
        table.add_row(row["op"], f"[{styles[row['state']]}]{row['state']}[/]", escape(note))
    data().print(table, highlight=False)
