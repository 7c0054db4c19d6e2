"""A session as one self-contained HTML page: plots inline, no external resource, all escaped."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import jinja2
from markupsafe import Markup

from conformance.bench.journal import BASELINE, Result
from conformance.bench.report import aims, charts, words
from conformance.bench.report.summary import MEANT, Case, Dot, Line, Summary, per_node
from conformance.bench.timing import BACKWARD, PHASES, STEP
from conformance.report.html import duration

STATES = {"valid": "ok", "noisy": "noisy", "invalid": "failed", "incomplete": "noisy"}


@dataclasses.dataclass(frozen=True)
class Panel:
    """Time against size of one workload: the plot, and the exponents by engine."""

    workload: str
    plot: Markup
    slopes: tuple[tuple[str, str, float], ...]


@dataclasses.dataclass(frozen=True)
class Row:
    """What is known of one engine on one case, in words."""

    case: Case
    engine: str
    result: Result
    time: str
    spread: str
    ratios: dict[str, str]
    node: str
    rate: str
    bandwidth: str
    roof: str
    memory: tuple[tuple[str, str, str], ...]
    slower: bool


def render(summary: Summary) -> str:
    """The whole page."""
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader(
            [
                jinja2.PackageLoader("conformance.bench.report"),
                jinja2.PackageLoader("conformance.report"),
            ]
        ),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["duration"] = duration
    environment.filters["seconds"] = words.seconds
    environment.filters["ratio"] = words.ratio
    journal = summary.journal
    return environment.get_template("bench.html").render(
        summary=summary,
        journal=journal,
        header=journal.header,
        end=journal.end,
        state=STATES[journal.verdict],
        headline=words.headline(summary),
        aims=aims.standings(summary) if summary.device == "cpu" else [],
        words=words,
        colours=charts.colours(summary),
        ratio_plots=_ratio_plots(summary),
        panels={phase: _panels(summary, phase) for phase in MEANT},
        rooflines=_rooflines(summary),
        rows=_rows(summary),
        phases=PHASES,
        compiled=[r for r in journal.results if r.compile_seconds is not None],
        collected=[r for r in journal.results if r.collector],
        checked=[r for r in journal.results if r.phases.get(STEP) and r.phases[STEP].host],
        clocks=dict.fromkeys((r.engine, r.clock) for r in journal.results if r.clock),
        failures=summary.failures,
    )


def _ratio_plots(summary: Summary) -> list[tuple[str, list[tuple[str, Markup]]]]:
    """By phase, a plot for each group of workloads."""
    groups: dict[str, list[Case]] = {}
    for case in summary.cases:
        groups.setdefault(case.group, []).append(case)
    scale = charts.ratio_scale(summary)
    found = []
    for phase in MEANT:
        plots = [
            (group, Markup(charts.ratios(summary, cases, phase, scale)))
            for group, cases in groups.items()
        ]
        found.append((phase, [(group, plot) for group, plot in plots if plot]))
    return found


def _panels(summary: Summary, phase: str) -> list[Panel]:
    grouped: dict[str, list[Line]] = {}
    for line in summary.lines(phase):
        grouped.setdefault(line.workload, []).append(line)
    colours = charts.colours(summary)
    return [
        Panel(
            workload,
            Markup(charts.time_against_size(summary, lines)),
            tuple((one.engine, colours[one.engine], one.slope) for one in lines if one.slope),
        )
        for workload, lines in grouped.items()
    ]


def _rooflines(summary: Summary) -> list[tuple[str, Markup]]:
    by_dtype: dict[str, list[Dot]] = {}
    for dot in summary.dots():
        by_dtype.setdefault(dot.case.baseline.dtype, []).append(dot)
    return [
        (dtype, Markup(charts.roofline(summary, dots, summary.roof(dtype))))
        for dtype, dots in by_dtype.items()
    ]


def _rows(summary: Summary) -> list[Row]:
    dots = {(dot.case.name, dot.engine): dot for dot in summary.dots()}
    return [
        _row(case, engine, result, dots.get((case.name, engine)))
        for case in summary.cases
        for engine, result in _taking_part(case)
    ]


def _taking_part(case: Case) -> Iterable[tuple[str, Result]]:
    yield BASELINE, case.baseline
    yield from case.engines.items()


def _row(case: Case, engine: str, result: Result, dot: Dot | None) -> Row:
    node = per_node(result, BACKWARD)
    step = case.ratio(engine, STEP)
    found = {name: phase.ratio for name, phase in result.phases.items() if phase.ratio}
    times = result.phases.get(STEP) or result.phases.get(BACKWARD)
    return Row(
        case,
        engine,
        result,
        words.seconds(times.spread.median) if times else result.outcome,
        words.spread(times.spread) if times else "",
        {name: words.ratio(ratio) for name, ratio in found.items()},
        f"{node * 1e6:.2f}" if node is not None else "",
        words.rate(dot.rate, "FLOP/s") if dot else "",
        words.rate(dot.bandwidth, "B/s") if dot else "",
        f"{dot.share:.1%}" if dot and dot.share is not None else "",
        tuple(
            (way, _bytes(figures.get("peak")), _bytes(figures.get("held")))
            for way, figures in result.memory.items()
        ),
        step is not None and step.low is not None and step.low > 1,
    )


def _bytes(value: int | None) -> str:
    return words.size(value) if value is not None else "–"
