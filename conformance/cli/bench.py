"""`conformance bench`: how long the backward pass takes, engine against engine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from conformance.cli.options import data, echo_json, names, talk, write
from conformance.settings import DEVICES

if TYPE_CHECKING:
    from conformance.bench.compare import Comparison

_PATH = click.Path(dir_okay=False, path_type=Path)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
_PHASE = click.option(
    "--phase",
    type=click.Choice(["forward", "backward", "step", "accumulate"]),
    default="backward",
    show_default=True,
    help="What the table of ratios is of; step is forward and backward.",
)


@click.group("bench")
def command() -> None:
    """Time the backward pass of several engines against torch eager's, in one session."""


class _Threads(click.ParamType[int]):
    """A number of threads, or all."""

    name = "N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        from conformance.bench.machine import cores

        if value == "all":
            return cores()
        try:
            number = int(value)
        except ValueError:
            self.fail(f"{value!r} is neither a number nor all", param, ctx)
        if not 1 <= number <= cores():
            self.fail(f"{number} is not between 1 and {cores()}, the cores of this process", param)
        return number


@command.command("run")
@click.option(
    "-k",
    "expression",
    metavar="EXPR",
    default="",
    help="Only cases whose GROUP/WORKLOAD/SIZE matches, as in -k 'chain or matmul/512'.",
)
@names(
    "--engine",
    "engines",
    help="These beside torch eager.  [default: all that can run here]",
)
@click.option("--device", type=click.Choice(DEVICES), default="cpu", show_default=True)
@click.option("--threads", type=_Threads(), default=1, show_default=True, help="A number, or all.")
@click.option("--quick", is_flag=True, help="One size of each workload.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option(
    "--budget",
    type=click.FloatRange(0, min_open=True),
    metavar="SECONDS",
    help="For the whole session, which ends when it is spent.",
)
@click.option(
    "--journal",
    type=_PATH,
    metavar="FILE",
    help="A new file.  [default: reports/runs/DATE-TIME-bench-DEVICE.jsonl]",
)
@click.option(
    "--keep-openblas",
    is_flag=True,
    help="Leave OPENBLAS_CORETYPE as it is set, in place of the processor's own kernels.",
)
@_PHASE
@_JSON
def run(
    *, journal: Path | None, keep_openblas: bool, phase: str, as_json: bool, **options: Any
) -> int:
    """Time workloads on all engines, in turns, and write a journal.

    Exits 0 whatever the ratios are. Without a GPU, --device cuda times the CPU part and says so.
    """
    from conformance.bench import machine

    place = options["threads"], options["device"]
    aside = machine.prepare(*place, keep_kernels=keep_openblas)  # before NumPy and the others load
    from conformance.bench import run as running
    from conformance.bench.progress import progress
    from conformance.bench.session import Settings

    console = talk()
    if aside:
        text = f"{aside} is set aside for this session; --keep-openblas keeps it"
        console.print(text, highlight=False, soft_wrap=True)
    finished = running.run(Settings(**options), journal, progress(console))
    if finished.note:
        console.print(finished.note, style="bold yellow", highlight=False, soft_wrap=True)
    _show(finished.journal, phase, as_json=as_json)
    path = finished.journal
    where = f"journal: {path}; a page of it: conformance bench report {path} --html"
    console.print(f"{where} {path.with_suffix('.html')}", highlight=False, soft_wrap=True)
    return 0


@command.command("report")
@click.argument("journal", type=click.Path(path_type=Path))
@click.option("--html", type=_PATH, metavar="FILE", help="One self-contained page, with plots.")
@click.option("--markdown", type=_PATH, metavar="FILE", help="For a pull request.")
@click.option("-q", "--quiet", is_flag=True, help="Print no summary.")
@_PHASE
@_JSON
def report(
    *,
    journal: Path,
    html: Path | None,
    markdown: Path | None,
    quiet: bool,
    phase: str,
    as_json: bool,
) -> int:
    """Report on a session's journal: a summary here, and files as asked.

    Exits 0 for a whole session, whatever it found, and 4 for an incomplete one, of which it reports
    what can be read.
    """
    from conformance.bench.journal import read
    from conformance.bench.report.summary import summarise

    summary = summarise(read(journal))
    console = talk()
    if html is not None:
        from conformance.bench.report import html as pages

        write(html, pages.render(summary))
        console.print(f"wrote {html}", highlight=False, soft_wrap=True, markup=False)
    if markdown is not None:
        from conformance.bench.report import markdown as texts

        write(markdown, texts.render(summary, phase))
        console.print(f"wrote {markdown}", highlight=False, soft_wrap=True, markup=False)
    if as_json or not quiet:
        _show(journal, phase, as_json=as_json)
    if summary.journal.trouble is None:
        return 0
    click.echo(f"conformance: {journal} is incomplete. {summary.journal.trouble}", err=True)
    return 4


@command.command("compare")
@click.argument("old", type=click.Path(path_type=Path))
@click.argument("new", type=click.Path(path_type=Path))
@_JSON
def compare(*, old: Path, new: Path, as_json: bool) -> int:
    """Say which ratios to torch eager changed from OLD to NEW beyond noise.

    Exits 1 where one is worse, or an engine is no longer timed that was. OLD must be a valid
    session, with the same device and threads as NEW.
    """
    from conformance.bench.compare import compare as compare_journals
    from conformance.bench.journal import read

    found = compare_journals(read(old), read(new))
    if as_json:
        echo_json(_compared(found))
    else:
        _show_compared(found)
    return 1 if found.regressed else 0


def _show(journal: Path, phase: str, *, as_json: bool) -> None:
    from conformance.bench.journal import read
    from conformance.bench.report.summary import summarise

    summary = summarise(read(journal))
    if as_json:
        from conformance.bench.report.machine import as_data

        echo_json(as_data(summary))
    else:
        from conformance.bench.report.terminal import show

        show(summary, data(), phase)


def _compared(found: Comparison) -> dict[str, Any]:
    import dataclasses

    from conformance.journal import plain

    changes = [
        {**dataclasses.asdict(change), "factor": change.factor, "direction": change.direction}
        for change in found.changes
    ]
    encoded: dict[str, Any] = plain(
        {**dataclasses.asdict(found), "changes": changes, "regressed": found.regressed}
    )
    return encoded


def _show_compared(found: Comparison) -> None:
    from conformance.bench.compare import FASTER, SLOWER
    from conformance.bench.report import words

    for warning in found.warnings:
        click.echo(f"note: {warning}", err=True)
    for direction in (SLOWER, FASTER):
        for change in found.of(direction):
            click.echo(
                f"{direction}  {change.case} {change.engine} {change.phase}: "
                f"{words.ratio(change.old)} -> {words.ratio(change.new)}, "
                f"by a factor of {change.factor:.2f}"
            )
    for lost in found.lost:
        click.echo(f"lost  {lost.case} {lost.engine}: {lost.outcome}: {lost.reason}")
    for which, some in (("OLD", found.only_old), ("NEW", found.only_new)):
        if some:
            click.echo(f"only in {which}: {_listed(some)}")
    unchanged = sum(change.direction is None for change in found.changes)
    click.echo(f"{unchanged} of {len(found.changes)} ratios have not changed beyond noise")


def _listed(some: Sequence[str], most: int = 12) -> str:
    more = f", and {len(some) - most} more" if len(some) > most else ""
    return ", ".join(some[:most]) + more
