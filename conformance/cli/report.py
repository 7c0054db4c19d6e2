"""`conformance report`."""

from __future__ import annotations

from pathlib import Path

import click

from conformance.cli.options import data, echo_json, talk, write

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command("report")
@click.argument("journal", type=click.Path(path_type=Path))
@click.option("--html", type=_FILE, metavar="FILE", help="One self-contained page.")
@click.option("--markdown", type=_FILE, metavar="FILE", help="For a pull request.")
@click.option("--junit", type=_FILE, metavar="FILE", help="For a CI system.")
@click.option("--badge", type=_FILE, metavar="FILE", help="An SVG.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
@click.option("-q", "--quiet", is_flag=True, help="Print no summary.")
def command(
    *,
    journal: Path,
    html: Path | None,
    markdown: Path | None,
    junit: Path | None,
    badge: Path | None,
    as_json: bool,
    quiet: bool,
) -> int:
    """Report on a journal: a summary here, and files as asked.

    Exits 0 for the journal of a whole run, whatever it found, and 4 for that of an incomplete one,
    of which it reports what can be read.
    """
    from conformance import journal as jl
    from conformance.report import badge as badges
    from conformance.report import html as pages
    from conformance.report import junit as suites
    from conformance.report import machine, summarise
    from conformance.report import markdown as texts
    from conformance.report.terminal import show

    summary = summarise(jl.read(journal))
    console = talk()
    for path, module in ((html, pages), (markdown, texts), (junit, suites), (badge, badges)):
        if path is not None:
            write(path, module.render(summary))
            console.print(f"wrote {path}", highlight=False, soft_wrap=True, markup=False)
    if as_json:
        echo_json(machine.as_data(summary))
    elif not quiet:
        show(summary, data())
    if summary.journal.complete:
        return 0
    click.echo(
        f"conformance: {journal} is incomplete. {summary.journal.trouble} Go on with: "
        f"conformance run --resume --journal {journal}",
        err=True,
    )
    return 4
