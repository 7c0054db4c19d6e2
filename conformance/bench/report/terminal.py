"""A session on a terminal or in a log: the table of ratios, then what they come to."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from conformance.bench.journal import TIMED
from conformance.bench.report import aims, words
from conformance.bench.report.summary import MEANT, Case, Loss, Summary
from conformance.bench.statistics import Interval

VERDICTS = {"valid": "bold green", "noisy": "bold yellow", "invalid": "bold red"}
_STANDINGS = {"hit": "green", "miss": "bold red", "not timed": "bright_black"}


def show(summary: Summary, console: Console, phase: str) -> None:
    """Print the session; the table is of one phase, all else of backward and step."""
    for part in _parts(summary, phase):
        console.print(part, highlight=False)


def _parts(summary: Summary, phase: str) -> Iterable[RenderableType]:
    header = summary.journal.header
    if header["note"]:
        yield Text(header["note"], "bold yellow")
    yield _table(summary, phase)
    yield from _outcomes(summary)
    yield Text()
    yield _means(summary)
    yield from _losses(summary)
    if summary.device == "cpu":
        yield Text()
        yield _aims(summary)
    yield Text()
    yield from _verdict(summary)


def _table(summary: Summary, phase: str) -> Table:
    table = _plain()
    table.add_column(phase, no_wrap=True)
    table.add_column("torch", justify="right", no_wrap=True)
    for engine in summary.engines:
        table.add_column(engine, no_wrap=True)
    table.add_column("torch against itself", no_wrap=True)
    for case in summary.cases:
        found = case.baseline.phases.get(phase)
        said = "unsupported" if case.baseline.outcome == TIMED else case.baseline.outcome
        time = words.seconds(found.spread.median) if found else said
        control = case.control.phases.get(phase) if case.control else None
        table.add_row(
            Text(case.name, "bold"),
            time,
            *(_cell(case, engine, phase) for engine in summary.engines),
            _control(case, control.ratio if control else None),
        )
    return table


def _cell(case: Case, engine: str, phase: str) -> Text:
    ratio = case.ratio(engine, phase)
    if ratio is not None:
        sure = ratio.low is not None and ratio.high is not None and not ratio.holds(1.0)
        style = ("red" if ratio.median > 1 else "green") if sure else ""
        return Text(words.ratio(ratio), style)
    result = case.engines.get(engine)
    if result is None:
        return Text("–", "bright_black")
    said = result.outcome if result.outcome != TIMED else "unsupported"
    return Text(said, "bold red" if said == "wrong" else "bright_black")


def _control(case: Case, ratio: Interval | None) -> Text:
    if ratio is None:
        return Text("–", "bright_black")
    return Text(words.ratio(ratio), "yellow" if case.noisy else "bright_black")


def _outcomes(summary: Summary) -> Iterable[Text]:
    for r in summary.failures:
        yield Text(f"{r.workload}/{r.size} on {r.engine}: {r.outcome}: {r.reason}", "yellow")


def _means(summary: Summary) -> Table:
    table = _plain()
    table.add_column("geometric mean of ratios to torch")
    for phase in MEANT:
        table.add_column(phase, justify="right")
    table.add_column("slower in")
    for engine in summary.engines:
        means = summary.means[engine]
        values = (f"{means[p].value:.3f}" if p in means else "–" for p in MEANT)
        slower = ", ".join(f"{means[p].slower} of {means[p].n}" for p in MEANT if p in means)
        table.add_row(engine, *values, slower)
    for name, engine in summary.journal.header["engines"].items():
        if engine["absent"]:
            table.add_row(Text(name, "bright_black"), "", "", Text(engine["absent"]))
    return table


def _losses(summary: Summary) -> Iterable[Text]:
    grouped: dict[tuple[str, str], list[Loss]] = {}
    for loss in summary.losses:
        grouped.setdefault((loss.other, loss.phase), []).append(loss)
    for (other, phase), losses in grouped.items():
        listed = ", ".join(f"{loss.case.name} {words.ratio(loss.ratio)}" for loss in losses)
        yield Text(f"\n{summary.ours} slower than {other} in {phase} ({len(losses)}): {listed}")


def _aims(summary: Summary) -> Table:
    table = _plain()
    for name in ("aim", "at most", "found", "", ""):
        table.add_column(name)
    for one in aims.standings(summary):
        verdict = Text(one.verdict, _STANDINGS[one.verdict])
        at_most = f"{one.at_most:.2f}"
        table.add_row(one.title, at_most, words.standing(one), verdict, words.beside(one))
    return table


def _verdict(summary: Summary) -> Iterable[Text]:
    journal = summary.journal
    if journal.trouble:
        yield Text(f"INCOMPLETE  {journal.trouble}", "bold yellow")
    if journal.end is None:
        return
    unreached = journal.end["unreached"]
    if unreached:
        names = ", ".join(f"{name}/{size}" for name, size in unreached)
        yield Text(f"not reached ({len(unreached)}), for lack of time: {names}", "yellow")
    if summary.noisy_cases:
        yield Text(
            f"noisy by their own control: {len(summary.noisy_cases)} of {len(summary.cases)}"
        )
    name = journal.end["verdict"]
    yield Text.assemble((name.upper(), VERDICTS[name]), "  ", words.headline(summary))
    for reason in journal.end["reasons"]:
        yield Text(f"  {reason}")


def _plain() -> Table:
    return Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bright_black")
