"""The summary that ends a run, for a terminal or a log."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from conformance.progress import STYLES, tally
from conformance.report.evidence import headline, lines
from conformance.report.summary import Finding, Summary

SHOWN = 5  # failures in full; the others are counted
MISSING_SHOWN = 10
REASONS_SHOWN = 4
SCRIPT_LINES, SCRIPT_LENGTH = 60, 4000  # a longer script is for `conformance repro`
SLOW = 1.0  # seconds

_STATES = {
    "ok": "bold green",
    "regression": "bold red",
    "flaky": "bold red",
    "nothing": "bold yellow",
    "incomplete": "bold yellow",
}


def show(summary: Summary, console: Console) -> None:
    """Print the summary."""
    for part in _parts(summary):
        console.print(part, highlight=False)


def _parts(summary: Summary) -> Iterable[RenderableType]:
    if summary.failures:
        yield from _failures(summary)
    yield _table(summary)
    yield from _sentences(summary)
    yield ""
    trouble = summary.journal.trouble
    if trouble:
        yield Text(f"INCOMPLETE  {trouble}", style=_STATES["incomplete"])
    name = "ok" if summary.verdict.name == "ok" else summary.verdict.name
    yield Text.assemble((name.upper(), _STATES[name]), "  ", summary.headline)


def _failures(summary: Summary) -> Iterable[RenderableType]:
    """The first failure of each op, up to a few."""
    unexpected = [finding for finding in summary.failures if finding.standing != "expected"]
    first = {finding.result.op: finding for finding in reversed(unexpected)}
    shown = [finding for finding in unexpected if first[finding.result.op] is finding][:SHOWN]
    for number, finding in enumerate(shown):
        yield from _finding(finding, summary, with_script=number == 0)
    if len(unexpected) > len(shown):
        ops = f"{len(first):,} op{'s' if len(first) != 1 else ''}"
        rest = len(unexpected) - len(shown)
        yield Text(f"... and {rest:,} more, in {ops}\n", "bold")


def _finding(finding: Finding, summary: Summary, *, with_script: bool) -> Iterable[Text]:
    result = finding.result
    style = STYLES[result.outcome]
    yield Text.assemble((f"{result.outcome} ", style), (headline(result), "bold"))
    yield Text(f"  {result.case}", "bright_black")
    for label, value in lines(result):
        yield Text(f"  {label:<10} " + _indented(value, 13).lstrip())
    script = str((result.repro or {}).get("script") or "").rstrip()
    short = script.count("\n") < SCRIPT_LINES and len(script) < SCRIPT_LENGTH
    if script and with_script and short:
        yield Text("\n" + _indented(script, 4), "cyan")
    elif script:
        yield Text(f"  script     conformance repro {summary.journal.path} {result.case}")
    yield Text()


def _indented(text: str, by: int) -> str:
    return "\n".join((" " * by + line).rstrip() for line in text.splitlines())


def _table(summary: Summary) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bright_black")
    table.add_column("source")
    table.add_column("verified")
    table.add_column("checks")
    table.add_column("time", justify="right")
    for source in summary.sources:
        table.add_row(
            f"[bold]{escape(source.name)}[/]",
            source.sentence,
            tally(source.counts, markup=True),
            f"{source.seconds:,.0f} s",
        )
    return table


def _sentences(summary: Summary) -> Iterable[RenderableType]:
    if summary.missing:
        shown = ", ".join(f"{name} ({n:,})" for name, n in summary.missing[:MISSING_SHOWN])
        more = len(summary.missing) - MISSING_SHOWN
        rest = f", and {more:,} more" if more > 0 else ""
        yield Text(f"\nunsupported, by what the engine lacks (samples): {shown}{rest}")
    if summary.skipped:
        yield Text("left out for other reasons, each in so many samples:")
        for reason, count in summary.skipped[:REASONS_SHOWN]:
            yield Text(f"  {count:>5,}  {reason.partition(chr(10))[0]}")
        if len(summary.skipped) > REASONS_SHOWN:
            yield Text(f"  and {len(summary.skipped) - REASONS_SHOWN:,} more reasons")
    if summary.absent:
        reasons = Counter(reason for _, reason in summary.absent)
        for reason, count in reasons.most_common(REASONS_SHOWN):
            names = ", ".join(name for name, why in summary.absent if why == reason)
            yield Text(f"entries without a sample: {count}, as {reason}: {names}")
    if summary.inconclusive:
        yield Text(summary.inconclusive, STYLES["inconclusive"])
    for expectation in summary.verdict.improvements:
        yield Text(f"no longer fails: {expectation}", "green")
    for expectation in summary.verdict.missing:
        yield Text(f"expected to fail, but no case of it ran: {expectation}", "yellow")
    slowest = [(name, seconds) for name, seconds in summary.slowest[:3] if seconds >= SLOW]
    if slowest:
        slow = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in slowest)
        yield Text(f"slowest: {slow}", "bright_black")
